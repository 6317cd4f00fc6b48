package envelope_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/envelope"
)

const passphrase = "correct horse battery staple"

func TestGeneratedKeysParse(t *testing.T) {
	text, err := envelope.GenerateKey()
	if err != nil || !strings.HasPrefix(text, "esk1:") || len(text) != 5+48 {
		t.Fatalf("%d characters, %v", len(text), err)
	}
	again, err := envelope.GenerateKey()
	if err != nil || again == text {
		t.Fatal("the same key twice")
	}
	pass, err := envelope.GeneratePassphraseKey(passphrase)
	if err != nil || !strings.HasPrefix(pass, "espw1:") || !strings.HasSuffix(pass, ":"+passphrase) {
		t.Fatal(err)
	}
	ids := map[envelope.KeyID]bool{}
	for _, text := range []string{text, again, pass, passphrase} {
		k, err := envelope.ParseKey(text, envelope.KeyOptions{AllowBarePassphrase: text == passphrase})
		if err != nil {
			t.Fatal(err)
		}
		ids[k.ID()] = true
		if id, err := envelope.ParseKeyID(k.ID().String()); err != nil || id != k.ID() {
			t.Errorf("ParseKeyID: %v, %v", id, err)
		}
	}
	if len(ids) != 4 {
		t.Errorf("%d different ids, want 4", len(ids))
	}
}

func TestParseKeyRefuses(t *testing.T) {
	good, err := envelope.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other := "A"
	if good[20] == 'A' {
		other = "B"
	}
	zero := make([]byte, 36)
	copy(zero[32:], []byte{0, 0, 0, 0})
	force := envelope.KeyOptions{AllowBarePassphrase: true}
	salt := base64.RawURLEncoding.EncodeToString(make([]byte, 16))
	for _, c := range []struct {
		name, text string
		opt        envelope.KeyOptions
		want       string
	}{
		{"empty", "", force, "empty"},
		{"bare, not allowed", passphrase, envelope.KeyOptions{}, "neither"},
		{"bare, short", "0123456789abcde", force, "at least 16"},
		{"bare, line end", passphrase + "\n", force, "control"},
		{"bare, blank at the end", passphrase + " ", force, "white space"},
		{"bare, not UTF-8", passphrase + "\xff", force, "UTF-8"},
		{"mistyped", good[:20] + other + good[21:], force, "checksum"},
		{"cut", good[:len(good)-1], force, "48"},
		{"longer", good + "A", force, "48"},
		{"line end", good + "\n", force, "48"},
		{"line end inside", good[:20] + "\n" + good[20:], force, "48"},
		{"blank before", " " + good, force, "begins like a key"},
		{"upper case", "ESK1:" + good[5:], force, "begins like a key"},
		{"later version", "esk2:" + good[5:], force, "begins like a key"},
		{"no colon", "esk1 is my favourite", force, "begins like a key"},
		{"espw alone", "espw is my favourite", force, "begins like a key"},
		{"espw1 without passphrase", "espw1:" + salt, force, "colon"},
		{"espw1 with a short salt", "espw1:AAAA:" + passphrase, force, "salt"},
		{"espw1 with a line end in the salt", "espw1:" + salt[:21] + "\nA:" + passphrase, force, "salt"},
		{"espw1 with stray bits", "espw1:" + salt[:21] + "B:" + passphrase, force, "salt"},
		{"espw1, short passphrase", "espw1:" + salt + ":short", force, "at least 16"},
		{"token key", "estk1:" + good[5:], force, "token key"},
		{"zero key, wrong sum", "esk1:" + base64.RawURLEncoding.EncodeToString(zero), force, "checksum"},
		{"zero key", zeroKeyText, force, "all-zero"},
	} {
		k, err := envelope.ParseKey(c.text, c.opt)
		if err == nil || k != nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %q does not say %q", c.name, err, c.want)
		}
		if len(c.text) > 12 && strings.Contains(err.Error(), c.text[8:]) {
			t.Errorf("%s: the error quotes the key: %q", c.name, err)
		}
	}
}

func TestPassphraseKeyDependsOnItsSalt(t *testing.T) {
	a, b := "espw1:AAAAAAAAAAAAAAAAAAAAAA:"+passphrase, "espw1:AQAAAAAAAAAAAAAAAAAAAA:"+passphrase
	ka, err := envelope.ParseKey(a, envelope.KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	kb, err := envelope.ParseKey(b, envelope.KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if ka.ID() == kb.ID() {
		t.Error("same id under another salt")
	}
	if _, err := envelope.GeneratePassphraseKey("short"); err == nil {
		t.Error("short passphrase accepted")
	}
}

func TestTokenKeyText(t *testing.T) {
	k := newKey(t)
	text := k.TokenKeyText()
	if len(text) != 6+54 {
		t.Errorf("%d characters, want 60", len(text))
	}
	id, key, err := envelope.ParseTokenKey(text)
	if err != nil || id != k.ID() || !bytes.Equal(key, k.TokenKey()) || len(key) != 32 {
		t.Fatalf("%v, %d bytes, %v", id, len(key), err)
	}
	k.TokenKey()[0] ^= 1
	if !bytes.Equal(key, k.TokenKey()) {
		t.Error("TokenKey gives away its own bytes")
	}
	for i := range text {
		for _, c := range []byte("A_\n") {
			bad := text[:i] + string(c) + text[i+1:]
			if bad == text {
				continue
			}
			if _, _, err := envelope.ParseTokenKey(bad); err == nil {
				t.Errorf("character %d set to %q: accepted", i, c)
			} else if strings.Contains(err.Error(), text[10:30]) {
				t.Error("the error quotes the key")
			}
		}
		if _, _, err := envelope.ParseTokenKey(text[:i]); err == nil {
			t.Errorf("cut to %d: accepted", i)
		}
	}
}

func TestParseKeyID(t *testing.T) {
	for _, s := range []string{"", "00", "0102030", "010203045", "0102030G", "0102030A", " 1020304"} {
		if _, err := envelope.ParseKeyID(s); err == nil {
			t.Errorf("%q accepted", s)
		}
	}
}

// zeroKeyText is the all-zero key with its right checksum.
const zeroKeyText = "esk1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABKpcK8"

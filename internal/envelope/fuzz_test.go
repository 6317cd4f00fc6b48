package envelope

import (
	"bytes"
	"encoding/base64"
	"testing"
)

// vectorTokens are the texts of the vector file, as seeds.
func vectorTokens(f *testing.F) (all []string) {
	var file vectorFile
	readJSON(f, "vectors.json", &file)
	for _, v := range file.Values {
		all = append(all, v.Token)
	}
	for _, v := range file.Refused {
		all = append(all, v.Token)
	}
	return all
}

// FuzzSealOpen: what was sealed comes back, in its place only.
func FuzzSealOpen(f *testing.F) {
	f.Add("users", "card", []byte("Ana"), []byte(`"4111"`), true, true)
	f.Add("users", "a.b", []byte(nil), []byte(`{"a":[1]}`), false, false)
	f.Add("s", "p", []byte("\x00"), bytes.Repeat([]byte{0}, 64), true, false)
	f.Add("s", "p", []byte("é"), bytes.Repeat([]byte{0x80}, 32), true, true)
	rings := map[bool]*Keyring{false: testRing(f, Options{Suite: EAX}), true: testRing(f, Options{Suite: GCM})}
	f.Fuzz(func(t *testing.T, scope, path string, subject, value []byte, bound, gcm bool) {
		r := rings[gcm]
		if !bound {
			subject = nil
		}
		d, err := r.NewDocument(scope, subject, bound, HKDF)
		if err != nil {
			return
		}
		defer d.Close()
		token, err := d.Seal([]byte("dst"), path, value)
		if err != nil {
			return
		}
		token = token[3:]
		if len(token) != r.TokenLen(len(value)) || !IsToken(token) {
			t.Fatalf("%d characters, want %d", len(token), r.TokenLen(len(value)))
		}
		got, err := r.Open([]byte("dst"), scope, path, subject, bound, HKDF, token)
		if err != nil || !bytes.Equal(got, append([]byte("dst"), value...)) {
			t.Fatalf("got %q, %v, want %q", got, err, value)
		}
		if _, err := r.Open(nil, scope, path+"x", subject, bound, HKDF, token); err == nil {
			t.Fatal("opened at another path")
		}
		if len(scope) < MaxScope {
			if _, err := r.Open(nil, scope+"x", path, subject, bound, HKDF, token); err == nil {
				t.Fatal("opened under another scope")
			}
		}
		if bound && len(subject) < MaxSubject {
			if _, err := r.Open(nil, scope, path, append(bytes.Clone(subject), 'x'), bound, HKDF, token); err == nil {
				t.Fatal("opened for another subject")
			}
		}
	})
}

// FuzzPeek: what parses re-encodes to the same text, and carries what Peek says.
func FuzzPeek(f *testing.F) {
	for _, s := range vectorTokens(f) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, token []byte) {
		h, err := Peek(token)
		if err != nil {
			if h != (Header{}) {
				t.Fatalf("%+v beside an error", h)
			}
			return
		}
		raw, err := base64.RawURLEncoding.Strict().DecodeString(string(token[len(prefix):]))
		if err != nil {
			t.Fatal(err)
		}
		if again := prefix + base64.RawURLEncoding.EncodeToString(raw); again != string(token) {
			t.Fatalf("%q re-encodes to %q", token, again)
		}
		if raw[0] != byte(h.Suite) || raw[1] != h.flags() || KeyID(raw[2:6]) != h.KeyID || !IsToken(token) {
			t.Fatalf("%+v for %x", h, raw[:6])
		}
	})
}

// FuzzOpen: arbitrary text never panics, and opens only if the vector file holds it.
func FuzzOpen(f *testing.F) {
	known := map[string]bool{}
	for _, s := range vectorTokens(f) {
		known[s] = true
		f.Add([]byte(s), true, true)
	}
	var file vectorFile
	readJSON(f, "vectors.json", &file)
	k, err := ParseKey(file.Keys[0].Text, KeyOptions{})
	if err != nil {
		f.Fatal(err)
	}
	r, err := NewKeyring(k, nil, Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token []byte, bound, slow bool) {
		var subject []byte
		if bound {
			subject = []byte("Ana")
		}
		kdf := HKDF
		if slow && bound {
			kdf = ScryptPerSubject
		}
		got, err := r.Open([]byte("kept"), "users", "credit_card_num", subject, bound, kdf, token)
		if err == nil && !known[string(token)] {
			t.Fatalf("opened %q", got)
		}
		if err != nil && string(got) != "kept" {
			t.Fatalf("dst became %q", got)
		}
	})
}

// FuzzParseKey: never panics, and what it takes it takes again with the same id.
func FuzzParseKey(f *testing.F) {
	f.Add("esk1:AAAA")
	f.Add("espw1:AAAAAAAAAAAAAAAAAAAAAA:short")
	f.Add("estk1:AAAA")
	f.Fuzz(func(t *testing.T, text string) {
		if k, err := ParseKey(text, KeyOptions{}); (err == nil) == (k == nil) {
			t.Fatal("neither key nor error, or both")
		}
		if id, key, err := ParseTokenKey(text); err != nil && (key != nil || id != KeyID{}) {
			t.Fatal("a key beside an error")
		}
	})
}

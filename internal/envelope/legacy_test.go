package envelope_test

import (
	"encoding/json"
	"errors"
	"os"
	"testing"

	"github.com/esproxy/esproxy/internal/envelope"
)

type legacyBox struct {
	Plaintext              string
	Ciphertext, Tag, Nonce []byte
}

func (b legacyBox) box() envelope.LegacyBox {
	return envelope.LegacyBox{Ciphertext: b.Ciphertext, Tag: b.Tag, Nonce: b.Nonce}
}

type legacyRecord struct {
	Username, Salt   string
	MasterKey        string `json:"master_key"`
	PasswordOrder    string `json:"password_order"`
	PasswordEncoding string `json:"password_encoding"`
	SaltForm         string `json:"salt_form"`
	Scrypt           struct{ N, R, P int }
	EncryptedDEK     legacyBox `json:"encrypted_dek"`
	Fields           map[string]legacyBox
}

func legacyRecords(t *testing.T) []legacyRecord {
	t.Helper()
	b, err := os.ReadFile("testdata/pycryptodome_legacy.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Records []legacyRecord }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Records
}

func (r legacyRecord) params() envelope.LegacyParams {
	return envelope.LegacyParams{
		N: r.Scrypt.N, R: r.Scrypt.R, P: r.Scrypt.P,
		MasterFirst: r.PasswordOrder == "master+user",
		Latin1:      r.PasswordEncoding == "latin-1",
		SaltAsText:  r.SaltForm == "base64-text",
	}
}

func TestLegacyRecords(t *testing.T) {
	opened := 0
	for _, r := range legacyRecords(t) {
		rec, err := envelope.OpenLegacyRecord(r.params(), r.MasterKey, r.Username, r.Salt, r.EncryptedDEK.box())
		if err != nil {
			t.Errorf("%q: %v", r.Username, err)
			continue
		}
		for name, f := range r.Fields {
			got, err := rec.Open([]byte("x"), f.box())
			if err != nil || string(got) != "x"+f.Plaintext {
				t.Errorf("%q %s: got %q, %v, want %q", r.Username, name, got, err, f.Plaintext)
				continue
			}
			opened++
			bad := f.box()
			bad.Tag = append([]byte{bad.Tag[0] ^ 1}, bad.Tag[1:]...)
			if got, err := rec.Open([]byte("x"), bad); !errors.Is(err, envelope.ErrAuth) || string(got) != "x" {
				t.Errorf("changed tag: got %q, %v", got, err)
			}
			bad.Tag = bad.Tag[:8]
			if _, err := rec.Open(nil, bad); !errors.Is(err, envelope.ErrMalformed) {
				t.Errorf("short tag: %v", err)
			}
		}
	}
	if opened != 35 {
		t.Errorf("opened %d fields, want 35", opened)
	}
}

func TestLegacyRefuses(t *testing.T) {
	r := legacyRecords(t)[0]
	ok := r.params()
	try := func(p envelope.LegacyParams, master, user, salt string) error {
		_, err := envelope.OpenLegacyRecord(p, master, user, salt, r.EncryptedDEK.box())
		return err
	}
	if err := try(ok, r.MasterKey+"x", r.Username, r.Salt); !errors.Is(err, envelope.ErrAuth) {
		t.Errorf("other master key: %v", err)
	}
	if err := try(ok, r.MasterKey, "bob", r.Salt); !errors.Is(err, envelope.ErrAuth) {
		t.Errorf("other user: %v", err)
	}
	big := ok
	big.N = 1 << 21
	odd := ok
	odd.N = 1000
	latin := ok
	latin.Latin1 = true
	for name, err := range map[string]error{
		"N too large":        try(big, r.MasterKey, r.Username, r.Salt),
		"N no power of two":  try(odd, r.MasterKey, r.Username, r.Salt),
		"no master key":      try(ok, "", r.Username, r.Salt),
		"not in Latin-1":     try(latin, r.MasterKey, "€", r.Salt),
		"salt is not base64": try(ok, r.MasterKey, r.Username, "!"),
		"zero value LegacyRecord": func() error {
			_, err := new(envelope.LegacyRecord).Open(nil, envelope.LegacyBox{})
			return err
		}(),
	} {
		if err == nil || errors.Is(err, envelope.ErrAuth) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

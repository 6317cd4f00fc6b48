package envelope

import (
	"crypto/fips140"
	"encoding/base64"
	"errors"

	"golang.org/x/crypto/scrypt"
)

// Records of the program that came before, written with PyCryptodome. They can be opened, to be sealed
// anew, and never made: they bind a value to no field, no rule and no document.
//
// A record is a scrypt salt, a data key and fields. The KEK is scrypt of user name and master key; it
// encrypts the data key, and that encrypts each field; both with AES-256-EAX, 16-byte nonces and tags,
// no associated data.

// LegacyParams says how a record's KEK was derived. The records do not carry it.
type LegacyParams struct {
	N, R, P     int
	MasterFirst bool // master ‖ user name instead of user name ‖ master
	Latin1      bool // both encoded as Latin-1 instead of UTF-8: what PyCryptodome does with a str
	SaltAsText  bool // the salt's base64 text was given to scrypt instead of its bytes
}

// LegacyBox is one encrypted thing of a record, decoded from its standard base64.
type LegacyBox struct{ Ciphertext, Tag, Nonce []byte }

// LegacyRecord opens the fields of one record. One goroutine at a time.
type LegacyRecord struct {
	redacted
	dek eax
}

// Largest scrypt parameters taken, so that a record's description cannot ask for more than 1 GiB.
const maxLegacyN, maxLegacyR, maxLegacyP = 1 << 20, 8, 16

// OpenLegacyRecord derives the KEK and unwraps the record's data key. salt is the standard base64 text that the record holds.
// It gives ErrAuth where master key, user name, salt or parameters are not those of the record.
func OpenLegacyRecord(p LegacyParams, master, username, salt string, wrapped LegacyBox) (*LegacyRecord, error) {
	if fips140.Enabled() {
		return nil, ErrProfile
	}
	if p.N > maxLegacyN || p.R < 1 || p.R > maxLegacyR || p.P < 1 || p.P > maxLegacyP {
		return nil, errors.New("legacy record: scrypt parameters are out of range")
	}
	if master == "" {
		return nil, errors.New("legacy record: the master key is empty")
	}
	secret := username + master
	if p.MasterFirst {
		secret = master + username
	}
	password := []byte(secret)
	if p.Latin1 {
		var ok bool
		if password, ok = latin1(secret); !ok {
			return nil, errors.New("legacy record: user name or master key does not exist in Latin-1")
		}
	}
	saltBytes, err := base64.StdEncoding.Strict().DecodeString(salt)
	if err != nil {
		return nil, errors.New("legacy record: the salt is not standard base64")
	}
	if p.SaltAsText {
		saltBytes = []byte(salt)
	}
	kek, err := scrypt.Key(password, saltBytes, p.N, p.R, p.P, keySize)
	if err != nil {
		return nil, errors.New("legacy record: scrypt's N must be a power of two above 1")
	}
	var rec, outer LegacyRecord
	if err := outer.dek.init(kek); err != nil {
		return nil, err
	}
	clear(kek)
	dek, err := outer.Open(nil, wrapped)
	if err != nil {
		return nil, err
	}
	defer clear(dek)
	if len(dek) != keySize {
		return nil, ErrAuth
	}
	if err := rec.dek.init(dek); err != nil {
		return nil, err
	}
	return &rec, nil
}

// Open appends the plaintext of one field to dst. It gives ErrAuth where anything does not agree; dst then comes back as it was.
func (r *LegacyRecord) Open(dst []byte, b LegacyBox) ([]byte, error) {
	if r.dek.aes == nil {
		return dst, ErrClosed
	}
	if len(b.Nonce) != eaxNonceSize || len(b.Tag) != tagSize {
		return dst, ErrMalformed
	}
	plain := make([]byte, len(b.Ciphertext))
	if !r.dek.open(plain, b.Nonce, b.Ciphertext, nil, b.Tag) {
		return dst, ErrAuth
	}
	dst = append(dst, plain...)
	clear(plain)
	return dst, nil
}

// latin1 encodes s one byte for each character.
func latin1(s string) ([]byte, bool) {
	b := make([]byte, 0, len(s))
	for _, c := range s {
		if c > 0xff {
			return nil, false
		}
		b = append(b, byte(c))
	}
	return b, true
}

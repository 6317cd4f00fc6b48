package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"testing"
)

// What an opener remembers of a document saves work and changes no answer: whatever the next token is, it opens, or fails
// with the same error, as with an opener that has seen nothing.
func TestRememberedHeaderChangesNoAnswer(t *testing.T) {
	for _, s := range []Suite{EAX, GCM} {
		r := testRing(t, Options{Suite: s})
		tokens, others := benchTokens(t, r), benchTokens(t, r)
		o := r.NewOpener()
		defer o.Close()
		check := func(what string, scope, path string, subject []byte, kdf KDF, token []byte) {
			t.Helper()
			if _, err := o.Open(nil, "users", benchFields[0].path, benchSubject, true, HKDF, tokens[0]); err != nil {
				t.Fatal(err)
			}
			got, gotErr := o.Open(nil, scope, path, subject, len(subject) > 0, kdf, token)
			want, wantErr := r.Open(nil, scope, path, subject, len(subject) > 0, kdf, token)
			if !bytes.Equal(got, want) || !errors.Is(gotErr, wantErr) {
				t.Errorf("%v, %s: %q, %v; without memory %q, %v", s, what, got, gotErr, want, wantErr)
			}
		}
		path, token := benchFields[1].path, tokens[1]
		check("the next field", "users", path, benchSubject, HKDF, token)
		check("under scrypt too", "users", path, benchSubject, ScryptPerSubject, token)
		check("another document", "users", path, benchSubject, HKDF, others[1])
		check("another subject", "users", path, []byte("Bob"), HKDF, token)
		check("no subject", "users", path, nil, HKDF, token)
		check("another scope", "shop", path, benchSubject, HKDF, token)
		check("no scope", "", path, benchSubject, HKDF, token)
		check("no path", "users", "", benchSubject, HKDF, token)
		for n := range token {
			check("cut", "users", path, benchSubject, HKDF, token[:n])
		}
		// Another document's text behind this one's header, as far as whole groups and beyond them.
		for n := range token {
			check("mixed", "users", path, benchSubject, HKDF, append(bytes.Clone(token[:n]), others[1][n:]...))
		}
		for i := range token {
			for _, c := range []byte("A_=\n\r\x80\"") {
				flipped := bytes.Clone(token)
				flipped[i] = c
				check("flipped", "users", path, benchSubject, HKDF, flipped)
			}
		}
	}
}

// FuzzDecode: texts decode as they do with encoding/base64, and what it takes against its own alphabet is refused.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{"", "A", "AA", "AAA", "AAAA", "_-_-", "AB", "AAB", "AAAA\n", "AA==", "AAAAAAAAAAAAAAAA\r", "abcdefghijklmnopqrstuvwxyz01"} {
		f.Add([]byte(s))
	}
	for _, s := range vectorTokens(f) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
		ok := err == nil && inAlphabet(text)
		got := make([]byte, base64.RawURLEncoding.DecodedLen(len(text)))
		if decode64(got, text) != ok || ok && !bytes.Equal(got, want) {
			t.Fatalf("%q: decoded to %x, want %v and %x", text, got, ok, want)
		}
	})
}

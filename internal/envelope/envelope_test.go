package envelope_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/envelope"
)

const (
	scope   = "users"
	path    = "credit_card_num"
	subject = "Ana"
	card    = `"4111-1111-1111-1111"`
)

func newKey(t testing.TB) *envelope.Key {
	t.Helper()
	text, err := envelope.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := envelope.ParseKey(text, envelope.KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRing(t testing.TB, opt envelope.Options, previous ...*envelope.Key) *envelope.Keyring {
	t.Helper()
	r, err := envelope.NewKeyring(newKey(t), previous, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// profile is one way to seal.
type profile struct {
	suite envelope.Suite
	bound bool
	kdf   envelope.KDF
}

func (p profile) subject() []byte {
	if p.bound {
		return []byte(subject)
	}
	return nil
}

func (p profile) String() string { return fmt.Sprintf("%v bound=%v %v", p.suite, p.bound, p.kdf) }

func profiles() []profile {
	var all []profile
	for _, s := range []envelope.Suite{envelope.EAX, envelope.GCM} {
		all = append(all, profile{s, false, envelope.HKDF}, profile{s, true, envelope.HKDF},
			profile{s, true, envelope.ScryptPerSubject})
	}
	return all
}

func seal(t testing.TB, r *envelope.Keyring, p profile, value string) []byte {
	t.Helper()
	d, err := r.NewDocument(scope, p.subject(), p.bound, p.kdf)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	token, err := d.Seal(nil, path, []byte(value))
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func open(r *envelope.Keyring, p profile, token []byte) (string, error) {
	got, err := r.Open([]byte("kept"), scope, path, p.subject(), p.bound, p.kdf, token)
	rest, ok := strings.CutPrefix(string(got), "kept")
	if !ok || err != nil && rest != "" {
		return rest, fmt.Errorf("dst was not kept: %q", got)
	}
	return rest, err
}

func TestRoundTrip(t *testing.T) {
	for _, p := range profiles() {
		t.Run(p.String(), func(t *testing.T) {
			r := newRing(t, envelope.Options{Suite: p.suite})
			for _, n := range []int{1, 2, 30, 31, 32, 33, 63, 64, 65, 95, 96, 97, 1000, 1 << 20} {
				value := `"` + strings.Repeat("x", n)
				value = value[:n]
				token := seal(t, r, p, value)
				if len(token) != envelope.TokenLen(p.suite, n) {
					t.Errorf("%d bytes: token has %d, TokenLen says %d", n, len(token), envelope.TokenLen(p.suite, n))
				}
				if !envelope.IsToken(token) {
					t.Errorf("not a token: %.20s", token)
				}
				got, err := open(r, p, token)
				if err != nil || got != value {
					t.Fatalf("%d bytes: got %.40q, %v", n, got, err)
				}
				h, err := envelope.Peek(token)
				want := envelope.Header{Suite: p.suite, Source: p.kdf, Bound: p.bound, KeyID: r.PrimaryID()}
				if err != nil || h != want {
					t.Errorf("Peek gives %+v, %v, want %+v", h, err, want)
				}
			}
		})
	}
}

func TestCardNumberIs227Characters(t *testing.T) {
	r := newRing(t, envelope.Options{})
	if n := len(seal(t, r, profile{envelope.EAX, true, envelope.HKDF}, card)); n != 227 {
		t.Errorf("got %d characters, want 227", n)
	}
}

func TestFieldsOfOneDocumentShareTheHeader(t *testing.T) {
	r := newRing(t, envelope.Options{})
	d, err := r.NewDocument(scope, []byte(subject), true, envelope.HKDF)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o := r.NewOpener()
	defer o.Close()
	var first []byte
	for i, path := range []string{"a", "b", "c.d"} {
		token, err := d.Seal([]byte("dst:"), path, []byte(card))
		if err != nil || !bytes.HasPrefix(token, []byte("dst:esp1.")) {
			t.Fatalf("%.20q, %v", token, err)
		}
		token = token[4:]
		if i == 0 {
			first = token
		} else if !bytes.Equal(token[:5+136], first[:5+136]) {
			t.Error("headers differ")
		} else if bytes.Equal(token, first) {
			t.Error("same value twice")
		}
		got, err := o.Open(nil, scope, path, []byte(subject), true, envelope.HKDF, token)
		if err != nil || string(got) != card {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		// The remembered DEK must not open what this rule or subject may not see.
		for name, try := range map[string]func() ([]byte, error){
			"path": func() ([]byte, error) {
				return o.Open(nil, scope, path+"x", []byte(subject), true, envelope.HKDF, token)
			},
			"scope": func() ([]byte, error) {
				return o.Open(nil, scope+"x", path, []byte(subject), true, envelope.HKDF, token)
			},
			"subject": func() ([]byte, error) {
				return o.Open(nil, scope, path, []byte("Bob"), true, envelope.HKDF, token)
			},
		} {
			if got, err := try(); !errors.Is(err, envelope.ErrAuth) || len(got) > 0 {
				t.Errorf("other %s: %q, %v", name, got, err)
			}
		}
		if _, err := o.Open(nil, scope, path, nil, false, envelope.HKDF, token); !errors.Is(err, envelope.ErrProfile) {
			t.Errorf("rule without subject: %v", err)
		}
	}
}

func TestEveryPlaceCounts(t *testing.T) {
	for _, p := range profiles() {
		r := newRing(t, envelope.Options{Suite: p.suite})
		token := seal(t, r, p, card)
		other := p.subject()
		if p.bound {
			other = []byte("ana")
		}
		for name, err := range map[string]error{
			"scope":   second(r.Open(nil, "user", path, p.subject(), p.bound, p.kdf, token)),
			"path":    second(r.Open(nil, scope, "credit_card_nu", p.subject(), p.bound, p.kdf, token)),
			"both":    second(r.Open(nil, scope+"c", path[1:], p.subject(), p.bound, p.kdf, token)),
			"subject": second(r.Open(nil, scope, path, other, p.bound, p.kdf, token)),
		} {
			if name == "subject" && !p.bound {
				continue
			}
			if !errors.Is(err, envelope.ErrAuth) {
				t.Errorf("%v, other %s: %v", p, name, err)
			}
		}
	}
}

func second(_ []byte, err error) error { return err }

// Every byte of the decoded value flipped, every bit of its header, every length cut: an error, never a panic, and
// no scrypt for anything but the untouched value.
func TestEveryByteFlippedEveryLengthCut(t *testing.T) {
	for _, p := range profiles() {
		t.Run(p.String(), func(t *testing.T) {
			r := newRing(t, envelope.Options{Suite: p.suite})
			token := seal(t, r, p, card)
			raw, err := base64.RawURLEncoding.DecodeString(string(token[5:]))
			if err != nil {
				t.Fatal(err)
			}
			before := r.ScryptRuns()
			encode := func(b []byte) []byte { return []byte("esp1." + base64.RawURLEncoding.EncodeToString(b)) }
			for i := range raw {
				for bit := range 8 {
					bad := bytes.Clone(raw)
					bad[i] ^= 1 << bit
					got, err := open(r, p, encode(bad))
					if err == nil {
						t.Fatalf("byte %d bit %d: opened %q", i, bit, got)
					}
					if i >= 6 && err != envelope.ErrAuth {
						t.Errorf("byte %d bit %d: %v, want the uniform error", i, bit, err)
					}
				}
			}
			for n := range raw {
				if got, err := open(r, p, encode(raw[:n])); err == nil {
					t.Fatalf("cut to %d bytes: opened %q", n, got)
				}
				if got, err := open(r, p, encode(raw[n:])); n > 0 && err == nil {
					t.Fatalf("cut %d bytes from the front: opened %q", n, got)
				}
			}
			for n := range token {
				if got, err := open(r, p, token[:n]); err == nil {
					t.Fatalf("cut to %d characters: opened %q", n, got)
				}
				for _, c := range []byte("\n\r= \x00\"A+/é\xff") {
					bad := bytes.Clone(token)
					bad[n] = c
					if bytes.Equal(bad, token) {
						continue
					}
					if got, err := open(r, p, bad); err == nil {
						t.Fatalf("character %d set to %q: opened %q", n, c, got)
					}
					longer := append(append(bytes.Clone(token[:n]), c), token[n:]...)
					if got, err := open(r, p, longer); err == nil {
						t.Fatalf("%q put before character %d: opened %q", c, n, got)
					}
				}
			}
			if after := r.ScryptRuns(); after != before {
				t.Errorf("%d scrypt runs for broken values", after-before)
			}
			if got, err := open(r, p, token); err != nil || got != card {
				t.Errorf("the untouched value: %q, %v", got, err)
			}
		})
	}
}

// The KEK cache would hide a scrypt run in the test above: a second ring, with nothing cached, runs it for
// the untouched value alone.
func TestNoScryptForFlippedSuiteOrSource(t *testing.T) {
	k := newKey(t)
	p := profile{envelope.GCM, true, envelope.ScryptPerSubject}
	sealing, err := envelope.NewKeyring(k, nil, envelope.Options{Suite: p.suite})
	if err != nil {
		t.Fatal(err)
	}
	r, err := envelope.NewKeyring(k, nil, envelope.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range []profile{p, {p.suite, true, envelope.HKDF}} {
		token := seal(t, sealing, from, card)
		raw, err := base64.RawURLEncoding.DecodeString(string(token[5:]))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 38 { // all that the subject tag and the wrap cover
			for bit := range 8 {
				bad := bytes.Clone(raw)
				bad[i] ^= 1 << bit
				if _, err := open(r, p, []byte("esp1."+base64.RawURLEncoding.EncodeToString(bad))); err == nil {
					t.Fatalf("byte %d bit %d opened", i, bit)
				}
			}
		}
		// Suite 1 with a length that fits it, as flipping alone does not give.
		bad := append(bytes.Clone(raw), 0, 0, 0, 0, 0, 0, 0, 0)
		bad[0] = 1
		if _, err := open(r, p, []byte("esp1."+base64.RawURLEncoding.EncodeToString(bad))); !errors.Is(err, envelope.ErrAuth) {
			t.Errorf("other suite, fitting length: %v", err)
		}
		if _, err := r.Open(nil, scope, path, []byte("Bob"), true, p.kdf, token); !errors.Is(err, envelope.ErrAuth) {
			t.Errorf("other subject: %v", err)
		}
	}
	if n := r.ScryptRuns(); n != 0 {
		t.Errorf("%d scrypt runs, want 0", n)
	}
	for range 2 {
		if _, err := open(r, p, seal(t, sealing, p, card)); err != nil {
			t.Error(err)
		}
	}
	if n := r.ScryptRuns(); n != 1 {
		t.Errorf("%d scrypt runs for two values of one subject, want 1", n)
	}
}

func TestStructuralErrors(t *testing.T) {
	r := newRing(t, envelope.Options{})
	bound := profile{envelope.EAX, true, envelope.HKDF}
	unbound := profile{envelope.EAX, false, envelope.HKDF}
	slow := profile{envelope.EAX, true, envelope.ScryptPerSubject}
	token := seal(t, r, bound, card)
	withByte := func(i int, b byte) []byte {
		raw, err := base64.RawURLEncoding.DecodeString(string(token[5:]))
		if err != nil {
			t.Fatal(err)
		}
		raw[i] = b
		return []byte("esp1." + base64.RawURLEncoding.EncodeToString(raw))
	}
	for _, c := range []struct {
		name  string
		rule  profile
		token []byte
		want  error
	}{
		{"suite 0", bound, withByte(0, 0), envelope.ErrMalformed},
		{"suite 2 with the length of suite 1", bound, withByte(0, 2), envelope.ErrMalformed},
		{"suite 3", bound, withByte(0, 3), envelope.ErrMalformed},
		{"source 2", bound, withByte(1, 0b110), envelope.ErrProfile},
		{"source 3", bound, withByte(1, 0b111), envelope.ErrProfile},
		{"document id bound", bound, withByte(1, 0b1100), envelope.ErrProfile},
		{"undefined flag", bound, withByte(1, 0b10100), envelope.ErrProfile},
		{"scrypt without subject", bound, withByte(1, 0b001), envelope.ErrProfile},
		{"scrypt not enabled", bound, seal(t, r, slow, card), envelope.ErrProfile},
		{"HKDF under a scrypt rule", slow, token, nil},
		{"unbound under a rule with subject", bound, seal(t, r, unbound, card), envelope.ErrUnbound},
		{"bound under a rule without subject", unbound, token, envelope.ErrProfile},
		{"other key", bound, seal(t, newRing(t, envelope.Options{}), bound, card), envelope.ErrUnknownKey},
		{"empty", bound, nil, envelope.ErrMalformed},
		{"plaintext", bound, []byte("4111 1111 1111 1111"), envelope.ErrMalformed},
		{"prefix alone", bound, []byte("esp1."), envelope.ErrMalformed},
		{"later version", bound, bytes.Replace(token, []byte("esp1"), []byte("esp2"), 1), envelope.ErrMalformed},
		{"upper case prefix", bound, bytes.Replace(token, []byte("esp1"), []byte("ESP1"), 1), envelope.ErrMalformed},
		{"padding character", bound, append(bytes.Clone(token), '='), envelope.ErrMalformed},
		{"line end", bound, append(bytes.Clone(token), '\n'), envelope.ErrMalformed},
		{"too large", bound, append([]byte("esp1."), bytes.Repeat([]byte("AQQA"), 24<<20)...), envelope.ErrMalformed},
	} {
		if _, err := open(r, c.rule, c.token); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
	}
	// 166 bytes leave four bits of the last character unused.
	last := token[len(token)-1]
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") {
		bad := append(bytes.Clone(token[:len(token)-1]), c)
		if _, err := open(r, bound, bad); (err == nil) != (c == last) {
			t.Errorf("last character %c instead of %c: %v", c, last, err)
		}
	}
}

func TestArguments(t *testing.T) {
	r := newRing(t, envelope.Options{})
	token := seal(t, r, profile{envelope.EAX, true, envelope.HKDF}, card)
	for _, c := range []struct {
		scope, subject string
		bound          bool
		kdf            envelope.KDF
		want           error
	}{
		{"", "a", true, envelope.HKDF, envelope.ErrPlace},
		{"Users", "a", true, envelope.HKDF, envelope.ErrPlace},
		{strings.Repeat("a", 65), "a", true, envelope.HKDF, envelope.ErrPlace},
		{"users", "", true, envelope.HKDF, envelope.ErrSubject},
		{"users", "a", false, envelope.HKDF, envelope.ErrSubject},
		{"users", strings.Repeat("a", 513), true, envelope.HKDF, envelope.ErrSubject},
		{"users", "a\xff", true, envelope.HKDF, envelope.ErrSubject},
		{"users", "", false, envelope.ScryptPerSubject, envelope.ErrProfile},
		{"users", "a", true, 2, envelope.ErrProfile},
		{strings.Repeat("a", 64), strings.Repeat("a", 512), true, envelope.HKDF, nil},
		{"a-b_0", "é", true, envelope.HKDF, nil},
	} {
		d, err := r.NewDocument(c.scope, []byte(c.subject), c.bound, c.kdf)
		if !errors.Is(err, c.want) {
			t.Errorf("%.10s/%.10s: got %v, want %v", c.scope, c.subject, err, c.want)
		}
		if err == nil {
			d.Close()
		} else if c.want == envelope.ErrPlace || c.want == envelope.ErrSubject {
			if _, err := r.Open(nil, c.scope, path, []byte(c.subject), c.bound, c.kdf, token); !errors.Is(err, c.want) {
				t.Errorf("open %.10s/%.10s: got %v, want %v", c.scope, c.subject, err, c.want)
			}
		}
	}
	d, err := r.NewDocument(scope, nil, false, envelope.HKDF)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for _, c := range []struct {
		path  string
		value []byte
		want  error
	}{
		{"", []byte("1"), envelope.ErrPlace},
		{strings.Repeat("a", envelope.MaxPath+1), []byte("1"), envelope.ErrPlace},
		{"a", nil, envelope.ErrLimit},
		{"a", make([]byte, envelope.MaxValue+1), envelope.ErrLimit},
	} {
		if got, err := d.Seal([]byte("x"), c.path, c.value); !errors.Is(err, c.want) || string(got) != "x" {
			t.Errorf("path %.5s: got %.10q, %v, want %v", c.path, got, err, c.want)
		}
	}
	if _, err := r.Open(nil, scope, "", []byte(subject), true, envelope.HKDF, token); !errors.Is(err, envelope.ErrPlace) {
		t.Errorf("no path: %v", err)
	}
}

func TestUseAfterClose(t *testing.T) {
	r := newRing(t, envelope.Options{})
	d, err := r.NewDocument(scope, nil, false, envelope.HKDF)
	if err != nil {
		t.Fatal(err)
	}
	d.Close()
	if _, err := d.Seal(nil, path, []byte("1")); !errors.Is(err, envelope.ErrClosed) {
		t.Errorf("Seal: %v", err)
	}
	o := r.NewOpener()
	o.Close()
	if _, err := o.Open(nil, scope, path, nil, false, envelope.HKDF, nil); !errors.Is(err, envelope.ErrClosed) {
		t.Errorf("Open: %v", err)
	}
}

func TestIsToken(t *testing.T) {
	for s, want := range map[string]bool{
		"esp1.":      true,
		"esp1.AQ":    true,
		"esh1.x-_9":  true,
		"esz9.A":     true,
		"espt1.AAAA": false, // access tokens are no values
		"ese1. hoy":  false, // Spanish prose
		"esp1.AQ=":   false,
		"esp1.AQ\n":  false,
		"ESP1.AQ":    false,
		"esP1.AQ":    false,
		"es11.AQ":    false,
		"esp.AQ":     false,
		"esp1":       false,
		"":           false,
		" esp1.AQ":   false,
	} {
		if got := envelope.IsToken([]byte(s)); got != want {
			t.Errorf("IsToken(%q) = %v, want %v", s, got, want)
		}
	}
}

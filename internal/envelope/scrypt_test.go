package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"
)

func testRing(t testing.TB, opt Options) *Keyring {
	t.Helper()
	text, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(text, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	r, err := NewKeyring(k, nil, opt)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sealSlow seals one value for subject and gives token and salt.
func sealSlow(t testing.TB, r *Keyring, subject string) (token []byte, salt string) {
	t.Helper()
	d, err := r.NewDocument("users", []byte(subject), true, ScryptPerSubject)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if token, err = d.Seal(nil, "card", []byte(`"4111"`)); err != nil {
		t.Fatal(err)
	}
	raw, err := base64.RawURLEncoding.DecodeString(string(token[len(prefix):]))
	if err != nil {
		t.Fatal(err)
	}
	return token, string(raw[offSalt:offTag])
}

func TestSaltServesOneSubjectFor24Hours(t *testing.T) {
	clock := &fakeClock{time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	r := testRing(t, Options{Now: clock.Now})
	_, ana := sealSlow(t, r, "Ana")
	_, bob := sealSlow(t, r, "Bob")
	if ana == bob {
		t.Error("two subjects share a salt")
	}
	clock.now = clock.now.Add(saltLife - 1)
	if _, s := sealSlow(t, r, "Ana"); s != ana {
		t.Error("new salt before its time")
	}
	if n := r.ScryptRuns(); n != 2 {
		t.Errorf("%d scrypt runs, want 2", n)
	}
	clock.now = clock.now.Add(1)
	_, next := sealSlow(t, r, "Ana")
	if next == ana {
		t.Error("salt older than 24 h")
	}
	clock.now = clock.now.Add(-time.Hour)
	if _, s := sealSlow(t, r, "Ana"); s == next {
		t.Error("salt kept although the clock went back past its birth")
	}
}

func TestSaltServesAtMost2To20Wraps(t *testing.T) {
	d := newDerivations(Options{ScryptCache: 2, Derivations: 1, Now: time.Now})
	ref := saltRef{subject: "Ana"}
	var first, salt [saltSize]byte
	d.salt(first[:], ref)
	for range saltWraps - 1 {
		d.salt(salt[:], ref)
	}
	if salt != first {
		t.Error("new salt before its last wrap")
	}
	if d.salt(salt[:], ref); salt == first {
		t.Error("the same salt for more than 2^20 wraps")
	}
}

func TestScryptDocumentsHaveFreshDEKs(t *testing.T) {
	r := testRing(t, Options{})
	a, _ := sealSlow(t, r, "Ana")
	b, _ := sealSlow(t, r, "Ana")
	if bytes.Equal(a[:5+136], b[:5+136]) {
		t.Error("two documents of one subject share the wrapped DEK")
	}
}

func TestCachesAreBounded(t *testing.T) {
	r := testRing(t, Options{ScryptCache: 2})
	tokens := map[string][]byte{}
	for _, s := range []string{"a", "b", "c"} {
		tokens[s], _ = sealSlow(t, r, s)
	}
	if n := r.scrypt.keks.order.Len() + len(r.scrypt.keks.byKey) + r.scrypt.salts.order.Len() + len(r.scrypt.salts.byKey); n != 8 {
		t.Errorf("%d entries, want 4 times 2", n)
	}
	open := func(s string) {
		t.Helper()
		if got, err := r.Open(nil, "users", "card", []byte(s), true, ScryptPerSubject, tokens[s]); err != nil || string(got) != `"4111"` {
			t.Errorf("%s: %q, %v", s, got, err)
		}
	}
	before := r.ScryptRuns()
	open("c")
	open("b")
	if r.ScryptRuns() != before {
		t.Error("scrypt ran for what was in the cache")
	}
	open("a") // forgotten first, must still open
	if r.ScryptRuns() != before+1 {
		t.Errorf("%d runs, want 1", r.ScryptRuns()-before)
	}
	open("b") // used more recently than c, so still there
	if r.ScryptRuns() != before+1 {
		t.Error("forgot the entry used most recently")
	}
}

func TestBusy(t *testing.T) {
	r := testRing(t, Options{Derivations: 1, DerivationWait: -1})
	token, _ := sealSlow(t, r, "Ana")
	r.scrypt.slots <- struct{}{} // the one place is taken
	if d, err := r.NewDocument("users", []byte("Bob"), true, ScryptPerSubject); !errors.Is(err, ErrBusy) || d != nil {
		t.Errorf("got %v, want ErrBusy", err)
	}
	if d, err := r.NewDocument("users", []byte("Bob"), true, HKDF); err != nil {
		t.Errorf("HKDF needs no place: %v", err)
	} else {
		d.Close()
	}
	if _, err := r.Open(nil, "users", "card", []byte("Ana"), true, ScryptPerSubject, token); err != nil {
		t.Errorf("in the cache: %v", err)
	}
	cold, err := NewKeyring(r.primary, nil, Options{Derivations: 1, DerivationWait: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	cold.scrypt.slots <- struct{}{}
	done := make(chan error)
	go func() {
		_, err := cold.Open(nil, "users", "card", []byte("Ana"), true, ScryptPerSubject, token)
		done <- err
	}()
	<-cold.scrypt.slots // gives the place back: the opener waited for it, or finds it free
	if err := <-done; err != nil {
		t.Errorf("after waiting: %v", err)
	}
	cold, err = NewKeyring(r.primary, nil, Options{Derivations: 1, DerivationWait: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	cold.scrypt.slots <- struct{}{}
	if _, err := cold.Open(nil, "users", "card", []byte("Ana"), true, ScryptPerSubject, token); !errors.Is(err, ErrBusy) {
		t.Errorf("waited in vain: got %v, want ErrBusy", err)
	}
}

func TestOneOpenerMayNotOccupyTheProcess(t *testing.T) {
	r := testRing(t, Options{})
	token, _ := sealSlow(t, r, "Ana")
	cold, err := NewKeyring(r.primary, nil, Options{})
	if err != nil {
		t.Fatal(err)
	}
	o := cold.NewOpener()
	defer o.Close()
	o.runs = MaxDerivations
	open := func() error {
		_, err := o.Open(nil, "users", "card", []byte("Ana"), true, ScryptPerSubject, token)
		return err
	}
	if err := open(); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v, want ErrBusy", err)
	}
	o.runs = MaxDerivations - 1
	if err := open(); err != nil || o.runs != MaxDerivations {
		t.Errorf("the last one: %v, %d runs", err, o.runs)
	}
	if err := open(); err != nil {
		t.Errorf("from the cache: %v", err)
	}
}

func TestValuesPerDocument(t *testing.T) {
	r := testRing(t, Options{Suite: GCM})
	d, err := r.NewDocument("users", nil, false, HKDF)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	d.sealed = MaxValuesPerDocument - 1
	if _, err := d.Seal(nil, "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Seal(nil, "a", []byte("1")); !errors.Is(err, ErrLimit) {
		t.Errorf("got %v, want ErrLimit", err)
	}
}

func TestPooledThingsAreCleared(t *testing.T) {
	r := testRing(t, Options{})
	d, err := r.NewDocument("users", []byte("Ana"), true, HKDF)
	if err != nil {
		t.Fatal(err)
	}
	token, err := d.Seal(nil, "card", []byte(`"4111"`))
	if err != nil {
		t.Fatal(err)
	}
	if d.key != [keySize]byte{} {
		t.Error("the DEK stays in the document")
	}
	if bytes.Contains(d.raw[:cap(d.raw)], []byte("4111")) {
		t.Error("plaintext stays in the buffer")
	}
	d.Close()
	if d.dek != (box{}) || d.header != [maxHeader]byte{} || d.rnd.buf != [128]byte{} {
		t.Error("Close leaves keys")
	}
	o := r.NewOpener()
	if _, err := o.Open(nil, "users", "card", []byte("Ana"), true, HKDF, token); err != nil {
		t.Fatal(err)
	}
	if o.key != [keySize]byte{} || o.kek != (box{}) {
		t.Error("the opener keeps KEK or DEK bytes")
	}
	o.Close()
	if o.dek != (box{}) || len(o.head) != 0 || bytes.Contains(o.subject[:cap(o.subject)], []byte("Ana")) {
		t.Error("Close leaves keys")
	}
}

func TestRandomnessIsHandedOutOnce(t *testing.T) {
	var r randomness
	seen := map[string]bool{}
	for i := range 100 {
		out := make([]byte, 16)
		if r.take(out); seen[string(out)] {
			t.Fatalf("take %d gives the same bytes again", i)
		}
		seen[string(out)] = true
		if bytes.Contains(r.buf[:], out) {
			t.Fatal("handed out, and kept")
		}
	}
}

// Many goroutines over one ring and one cache; meant for -race.
func TestConcurrentUse(t *testing.T) {
	r := testRing(t, Options{ScryptCache: 2})
	sealSlow(t, r, "Ana")
	done := make(chan error)
	for g := range 8 {
		go func() {
			done <- func() error {
				o := r.NewOpener()
				defer o.Close()
				for i := range 50 {
					kdf, subject := HKDF, fmt.Sprint(g, i)
					if i%10 == 0 {
						kdf, subject = ScryptPerSubject, "Ana"
					}
					scope := fmt.Sprint("scope", i%5)
					if kdf == ScryptPerSubject {
						scope = "users"
					}
					d, err := r.NewDocument(scope, []byte(subject), true, kdf)
					if err != nil {
						return err
					}
					want := fmt.Sprint(g*1000 + i)
					token, err := d.Seal(nil, "p", []byte(want))
					d.Close()
					if err != nil {
						return err
					}
					if got, err := o.Open(nil, scope, "p", []byte(subject), true, kdf, token); err != nil || string(got) != want {
						return fmt.Errorf("got %q, %w, want %q", got, err, want)
					}
				}
				return nil
			}()
		}()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

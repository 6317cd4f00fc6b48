package envelope

import (
	"testing"
)

var benchFields = []struct{ path, value string }{
	{"credit_card_num", `"6767-2293-4172-5169"`},
	{"credit_card_ccv", `"824"`},
	{"cuenta_numero", `"58443297"`},
}

// sealDocument seals the three fields of one document.
func sealDocument(tb testing.TB, r *Keyring, dst []byte, kdf KDF) []byte {
	d, err := r.NewDocument("users", benchSubject, true, kdf)
	if err != nil {
		tb.Fatal(err)
	}
	for _, f := range benchFields {
		if dst, err = d.Seal(dst, f.path, []byte(f.value)); err != nil {
			tb.Fatal(err)
		}
	}
	d.Close()
	return dst
}

var benchSubject = []byte("Ana.Gutierrez")

func BenchmarkSealDocument(b *testing.B) {
	for _, s := range []Suite{EAX, GCM} {
		for _, kdf := range []KDF{HKDF, ScryptPerSubject} {
			b.Run(s.String()+"/"+kdf.String(), func(b *testing.B) {
				r := testRing(b, Options{Suite: s})
				dst := sealDocument(b, r, nil, kdf)
				b.ReportAllocs()
				for b.Loop() {
					dst = sealDocument(b, r, dst[:0], kdf)
				}
			})
		}
	}
}

func BenchmarkOpenDocument(b *testing.B) {
	for _, s := range []Suite{EAX, GCM} {
		b.Run(s.String(), func(b *testing.B) {
			r := testRing(b, Options{Suite: s})
			tokens := benchTokens(b, r)
			o := r.NewOpener()
			defer o.Close()
			dst := make([]byte, 0, 256)
			b.ReportAllocs()
			for b.Loop() {
				o.forget() // each round is another document
				openDocument(b, o, dst, tokens)
			}
		})
	}
}

// benchTokens are the three values of one document.
func benchTokens(tb testing.TB, r *Keyring) (tokens [][]byte) {
	d, err := r.NewDocument("users", benchSubject, true, HKDF)
	if err != nil {
		tb.Fatal(err)
	}
	defer d.Close()
	for _, f := range benchFields {
		token, err := d.Seal(nil, f.path, []byte(f.value))
		if err != nil {
			tb.Fatal(err)
		}
		tokens = append(tokens, token)
	}
	return tokens
}

func openDocument(tb testing.TB, o *Opener, dst []byte, tokens [][]byte) {
	for i, f := range benchFields {
		got, err := o.Open(dst[:0], "users", f.path, benchSubject, true, HKDF, tokens[i])
		if err != nil || string(got) != f.value {
			tb.Fatalf("got %q, %v, want %q", got, err, f.value)
		}
	}
}

func BenchmarkSealLarge(b *testing.B) {
	for _, s := range []Suite{EAX, GCM} {
		b.Run(s.String(), func(b *testing.B) {
			r := testRing(b, Options{Suite: s})
			value := make([]byte, 1<<20)
			d, err := r.NewDocument("users", benchSubject, true, HKDF)
			if err != nil {
				b.Fatal(err)
			}
			var dst []byte
			b.SetBytes(int64(len(value)))
			for b.Loop() {
				d.sealed = 0
				if dst, err = d.Seal(dst[:0], "p", value); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The allocations are the key schedules of KEK and DEK, which Go cannot reuse, and GCM's tables.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		return // the race detector makes pools drop things at random
	}
	for s, most := range map[Suite]float64{EAX: 2, GCM: 4} {
		r := testRing(t, Options{Suite: s})
		dst := sealDocument(t, r, nil, HKDF)
		if n := testing.AllocsPerRun(1000, func() { dst = sealDocument(t, r, dst[:0], HKDF) }); n > most {
			t.Errorf("%v: %v allocations for a document, want at most %v", s, n, most)
		}
		tokens, o := benchTokens(t, r), r.NewOpener()
		dst = make([]byte, 0, 256)
		open := func() {
			o.forget()
			openDocument(t, o, dst, tokens)
		}
		if n := testing.AllocsPerRun(1000, open); n > most {
			t.Errorf("%v: %v allocations to open a document, want at most %v", s, n, most)
		}
		o.Close()
	}
}

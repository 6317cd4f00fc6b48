package proxy

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	kgzip "github.com/klauspost/compress/gzip"
)

func pack(text []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(text) // a bytes.Buffer takes everything
	z.Close()
	return out.Bytes()
}

// Unpackers of many bodies share decompressors. Whatever the body before was, the next is read as if by a new one.
func TestUnpackerAfterOthers(t *testing.T) {
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(3, uint64(worker)))
			for i := range 100 {
				text := bytes.Repeat(fmt.Appendf(nil, "worker %d body %d ", worker, i), 1+rnd.IntN(4000))
				packed := pack(text)
				var want error
				switch rnd.IntN(6) {
				case 0:
					packed = packed[:rnd.IntN(len(packed))]
					want = io.ErrUnexpectedEOF
				case 1:
					packed = append(packed, packed...)
					want = errTrailing
				case 2:
					packed[len(packed)-6] ^= 1
					want = kgzip.ErrChecksum
				case 3:
					packed[0] = 0
					want = kgzip.ErrHeader
				}
				u := newUnpacker(iotest.HalfReader(bytes.NewReader(packed)), gzipped, 0)
				got, err := io.ReadAll(u)
				switch {
				case !errors.Is(err, want):
					t.Errorf("got error %v, want %v", err, want)
				case want == nil && !bytes.Equal(got, text):
					t.Errorf("got %d other bytes, want %d", len(got), len(text))
				}
				if n, again := u.Read(make([]byte, 1)); n != 0 || again == nil || err != nil && again != err {
					t.Errorf("after the end: got %d, %v, want what came before, %v", n, again, err)
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkGunzip unpacks bulks with the checks, and by the library alone.
func BenchmarkGunzip(b *testing.B) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for _, docs := range []int{1, 10_000} {
		var text []byte
		for range docs {
			text = fmt.Appendf(text, `{"index":{"_id":"%d"}}`+"\n"+`{"username":"user%d","credit_card_num":"6767-2293-%04d-5169","direccion":"%x %x","foto_dni":"http://images.example/%d.jpg"}`+"\n",
				rnd.IntN(1e9), rnd.IntN(1e9), rnd.IntN(1e4), rnd.Uint64(), rnd.Uint32(), rnd.IntN(1e8))
		}
		packed := pack(text)
		buf := make([]byte, 256<<10)
		drain := func(b *testing.B, r io.Reader) {
			for {
				if _, err := r.Read(buf); err == io.EOF {
					return
				} else if err != nil {
					b.Fatal(err)
				}
			}
		}
		b.Run(fmt.Sprintf("strict/%d", docs), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				drain(b, newUnpacker(bytes.NewReader(packed), gzipped, 100))
			}
		})
		b.Run(fmt.Sprintf("alone/%d", docs), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				z, err := kgzip.NewReader(bytes.NewReader(packed))
				if err != nil {
					b.Fatal(err)
				}
				drain(b, z)
			}
		})
	}
}

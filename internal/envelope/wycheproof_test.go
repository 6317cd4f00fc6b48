package envelope

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	goeax "github.com/ProtonMail/go-crypto/eax"

	"crypto/aes"
)

// hexBytes is a byte string that JSON spells in hexadecimal.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

type aeadCase struct {
	TcID                       int
	Key, IV, AAD, Msg, CT, Tag hexBytes
	Result                     string
}

func readJSON(t testing.TB, name string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

func aeadCases(t testing.TB, name string, want int) []aeadCase {
	t.Helper()
	var file struct {
		TestGroups []struct{ Tests []aeadCase }
	}
	readJSON(t, name, &file)
	var all []aeadCase
	for _, g := range file.TestGroups {
		all = append(all, g.Tests...)
	}
	if len(all) != want {
		t.Fatalf("%s: got %d cases, want %d", name, len(all), want)
	}
	return all
}

func TestWycheproofEAX(t *testing.T) {
	for _, c := range aeadCases(t, "aes_eax_test.json", 240) {
		var e eax
		if err := e.init(c.Key); err != nil {
			t.Fatalf("case %d: %v", c.TcID, err)
		}
		plain := bytes.Repeat([]byte{0xaa}, len(c.CT))
		ok := e.open(plain, c.IV, c.CT, c.AAD, c.Tag)
		if ok != (c.Result == "valid") {
			t.Errorf("case %d: open gives %v, want %s", c.TcID, ok, c.Result)
			continue
		}
		if !ok {
			if !bytes.Equal(plain, bytes.Repeat([]byte{0xaa}, len(c.CT))) {
				t.Errorf("case %d: refused, but something was decrypted", c.TcID)
			}
			continue
		}
		if !bytes.Equal(plain, c.Msg) {
			t.Errorf("case %d: got plaintext %x, want %x", c.TcID, plain, c.Msg)
		}
		text := bytes.Clone(c.Msg) // in place
		tag := e.seal(text, c.IV, text, c.AAD)
		if !bytes.Equal(text, c.CT) || !bytes.Equal(tag[:], c.Tag) {
			t.Errorf("case %d: seal gives %x %x, want %x %x", c.TcID, text, tag, c.CT, c.Tag)
		}
	}
}

// Our GCM is the standard library's, reached through box: 32-byte keys and 12-byte nonces.
func TestWycheproofGCM(t *testing.T) {
	ran := 0
	for _, c := range aeadCases(t, "aes_gcm_test.json", 316) {
		if len(c.Key) != keySize || len(c.IV) != gcmNonceSize || len(c.Tag) != tagSize {
			continue
		}
		ran++
		var b box
		if err := b.init(GCM, c.Key); err != nil {
			t.Fatal(err)
		}
		sealed := append(append(bytes.Clone(c.IV), c.CT...), c.Tag...)
		got, ok := b.open([]byte("x"), sealed, c.AAD)
		if ok != (c.Result == "valid") {
			t.Errorf("case %d: open gives %v, want %s", c.TcID, ok, c.Result)
		}
		want := "x"
		if ok {
			want += string(c.Msg)
		}
		if string(got) != want {
			t.Errorf("case %d: got %x, want %x", c.TcID, got, want)
		}
	}
	if ran < 60 {
		t.Errorf("only %d cases have our sizes", ran)
	}
}

// The derivations lean on crypto/hkdf, and kekHKDF on the first block being one HMAC.
func TestWycheproofHKDF(t *testing.T) {
	var file struct {
		TestGroups []struct {
			Tests []struct {
				TcID                 int
				IKM, Salt, Info, OKM hexBytes
				Size                 int
				Result               string
			}
		}
	}
	readJSON(t, "hkdf_sha256_test.json", &file)
	ran := 0
	for _, g := range file.TestGroups {
		for _, c := range g.Tests {
			ran++
			got, err := hkdf.Key(sha256.New, c.IKM, c.Salt, string(c.Info), c.Size)
			if (err == nil) != (c.Result == "valid") {
				t.Errorf("case %d: %v, want %s", c.TcID, err, c.Result)
				continue
			}
			if err != nil {
				continue
			}
			if !bytes.Equal(got, c.OKM) {
				t.Errorf("case %d: got %x, want %x", c.TcID, got, c.OKM)
			}
			prk, err := hkdf.Extract(sha256.New, c.IKM, c.Salt)
			if err != nil {
				t.Fatal(err)
			}
			m := newPRF(prk).get()
			m.buf = append(append(m.buf[:0], c.Info...), 1)
			if first, n := m.sum(), min(c.Size, sha256.Size); !bytes.Equal(first[:n], c.OKM[:n]) {
				t.Errorf("case %d: first block is %x, want %x", c.TcID, first[:n], c.OKM[:n])
			}
		}
	}
	if ran != 86 {
		t.Errorf("got %d cases, want 86", ran)
	}
}

func TestKEKIsHKDFExpand(t *testing.T) {
	p := newPRF(bytes.Repeat([]byte{7}, keySize))
	for i := range 3 { // the first use of a state differs from later ones inside the standard library
		head := bytes.Repeat([]byte{byte(i)}, offWrap)
		var got [keySize]byte
		kekHKDF(&got, p, head)
		want, err := hkdf.Expand(sha256.New, p.key, labelKEK+string(head), keySize)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:], want) {
			t.Errorf("got %x, want %x", got, want)
		}
	}
}

// The carry out of the low half of the counter, in both ways of making the key stream.
func TestEAXCounterCarry(t *testing.T) {
	var e eax
	if err := e.init(make([]byte, keySize)); err != nil {
		t.Fatal(err)
	}
	for _, first := range []block{
		{8: 0xff, 9: 0xff, 10: 0xff, 11: 0xff, 12: 0xff, 13: 0xff, 14: 0xff, 15: 0xff},
		block(bytes.Repeat([]byte{0xff}, blockSize)),
	} {
		e.n = first
		short, long := make([]byte, ctrDirect), make([]byte, ctrDirect+1)
		e.ctr(short, short)
		e.ctr(long, long)
		if !bytes.Equal(short, long[:ctrDirect]) {
			t.Errorf("from %x: %x, want %x", first, short, long[:ctrDirect])
		}
	}
}

func TestDouble(t *testing.T) {
	for _, c := range []struct{ in, want block }{
		{block{15: 1}, block{15: 2}},
		{block{8: 0x80}, block{7: 1}},
		{block{0: 0x80}, block{15: 0x87}},
		{block{0: 0xc0, 15: 0x80}, block{0: 0x80, 14: 1, 15: 0x87}},
	} {
		got := c.in
		double(&got)
		if got != c.want {
			t.Errorf("double(%x) = %x, want %x", c.in, got, c.want)
		}
	}
}

// FuzzEAXAgainstOther compares with another implementation. That one refuses some nonces that EAX
// allows; those are left to the Wycheproof cases.
func FuzzEAXAgainstOther(f *testing.F) {
	for _, c := range aeadCases(f, "aes_eax_test.json", 240) {
		f.Add([]byte(c.Key), []byte(c.IV), []byte(c.AAD), []byte(c.Msg))
	}
	f.Fuzz(func(t *testing.T, key, nonce, data, msg []byte) {
		c, err := aes.NewCipher(key)
		if err != nil || len(nonce) == 0 || len(nonce) > 1024 {
			return
		}
		other, err := goeax.NewEAXWithNonceAndTagSize(c, len(nonce), tagSize)
		if err != nil {
			return
		}
		want := other.Seal(nil, nonce, msg, data)
		var e eax
		if err := e.init(key); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, len(msg))
		tag := e.seal(text, nonce, msg, data)
		if got := append(text, tag[:]...); !bytes.Equal(got, want) {
			t.Fatalf("seal gives %x, want %x", got, want)
		}
		plain := make([]byte, len(msg))
		if !e.open(plain, nonce, want[:len(msg)], data, want[len(msg):]) || !bytes.Equal(plain, msg) {
			t.Fatal("does not open what the other sealed")
		}
		if len(want) > 0 {
			want[len(key)%len(want)] ^= 1
			if e.open(plain, nonce, want[:len(msg)], data, want[len(msg):]) {
				t.Fatal("opens what was changed")
			}
		}
	})
}

package envelope

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	goeax "github.com/ProtonMail/go-crypto/eax"
	"golang.org/x/crypto/scrypt"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew; that is a change of the format")

// vectorFile is testdata/vectors.json, described in docs/envelope.md "Vectors".
type vectorFile struct {
	Comment string         `json:"comment"`
	Keys    []keyVector    `json:"keys"`
	Values  []valueVector  `json:"values"`
	Refused []refuseVector `json:"refused"`
}

type keyVector struct {
	Name     string   `json:"name"`
	Text     string   `json:"text"`
	Bare     bool     `json:"bare,omitempty"`
	Root     hexBytes `json:"root"`
	KeyID    string   `json:"key_id"`
	TokenKey string   `json:"token_key"`
}

// place is where a value was found and what the rule there says.
type place struct {
	Key     string `json:"key"`
	Scope   string `json:"scope"`
	Path    string `json:"path"`
	Subject string `json:"subject,omitempty"`
	Bound   bool   `json:"bound"`
	KDF     string `json:"kdf"`
}

type valueVector struct {
	Name string `json:"name"`
	place
	Suite uint8    `json:"suite"`
	KEK   hexBytes `json:"kek"`
	DEK   hexBytes `json:"dek"`
	Value string   `json:"value"`
	Token string   `json:"token"`
}

type refuseVector struct {
	Name string `json:"name"`
	place
	Token  string `json:"token"`
	Reason string `json:"reason"`
}

func (p place) subject() []byte {
	if !p.Bound {
		return nil
	}
	return []byte(p.Subject)
}

func (p place) kdf() KDF {
	if p.KDF == ScryptPerSubject.String() {
		return ScryptPerSubject
	}
	return HKDF
}

var reasons = map[string]error{
	"auth": ErrAuth, "malformed": ErrMalformed, "profile": ErrProfile, "unbound": ErrUnbound, "unknown-key": ErrUnknownKey,
}

func TestVectors(t *testing.T) {
	if *update {
		b, err := json.MarshalIndent(makeVectors(t), "", " ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/vectors.json", append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var file vectorFile
	readJSON(t, "vectors.json", &file)
	if len(file.Keys) < 4 || len(file.Values) < 30 || len(file.Refused) < 15 {
		t.Fatalf("the file has %d keys, %d values, %d refused", len(file.Keys), len(file.Values), len(file.Refused))
	}
	ring, roots := ringOf(t, file.Keys)
	for _, v := range file.Values {
		got, err := ring.Open(nil, v.Scope, v.Path, v.subject(), v.Bound, v.kdf(), []byte(v.Token))
		if err != nil || string(got) != v.Value {
			t.Errorf("%s: got %q, %v, want %q", v.Name, got, err, v.Value)
		}
		ref, err := refOpen(roots[v.Key], v.place, v.Token)
		if err != nil {
			t.Errorf("%s, second implementation: %v", v.Name, err)
		} else if string(ref.value) != v.Value || !bytes.Equal(ref.kek, v.KEK) || !bytes.Equal(ref.dek, v.DEK) || ref.suite != v.Suite {
			t.Errorf("%s, second implementation: got %q %x %x, want %q %x %x", v.Name, ref.value, ref.kek, ref.dek, v.Value, v.KEK, v.DEK)
		}
	}
	for _, v := range file.Refused {
		want, ok := reasons[v.Reason]
		if !ok {
			t.Fatalf("%s: unknown reason %q", v.Name, v.Reason)
		}
		if got, err := ring.Open(nil, v.Scope, v.Path, v.subject(), v.Bound, v.kdf(), []byte(v.Token)); !errors.Is(err, want) || len(got) > 0 {
			t.Errorf("%s: got %q, %v, want %v", v.Name, got, err, want)
		}
	}
}

// ringOf loads the vectors' keys, checking what the file says of them. It leaves out the key named "absent".
func ringOf(t *testing.T, keys []keyVector) (*Keyring, map[string][]byte) {
	t.Helper()
	var loaded []*Key
	roots := map[string][]byte{}
	for _, v := range keys {
		k, err := ParseKey(v.Text, KeyOptions{AllowBarePassphrase: v.Bare})
		if err != nil {
			t.Fatalf("%s: %v", v.Name, err)
		}
		if !bytes.Equal(k.root, v.Root) || k.ID().String() != v.KeyID || k.TokenKeyText() != v.TokenKey {
			t.Errorf("%s: root %x, id %s, token key %s; want %x, %s, %s", v.Name, k.root, k.ID(), k.TokenKeyText(), v.Root, v.KeyID, v.TokenKey)
		}
		ref, err := refRoot(v.Text)
		if err != nil || !bytes.Equal(ref, v.Root) {
			t.Errorf("%s, second implementation: root %x, %v, want %x", v.Name, ref, err, v.Root)
		}
		roots[v.Name] = k.root
		if v.Name != "absent" {
			loaded = append(loaded, k)
		}
	}
	r, err := NewKeyring(loaded[0], loaded[1:], Options{})
	if err != nil {
		t.Fatal(err)
	}
	return r, roots
}

// makeVectors seals under a deterministic source of random bytes, so that the same code gives the same file.
func makeVectors(t *testing.T) vectorFile {
	cryptotest.SetGlobalRandom(t, 1)
	f := vectorFile{Comment: "Test keys only. Specified in docs/envelope.md; made by: go test ./internal/envelope -run TestVectors -update"}
	keys := map[string]*Key{}
	for _, name := range []string{"primary", "previous", "absent", "passphrase", "bare"} {
		var text string
		var err error
		switch name {
		case "passphrase":
			text, err = GeneratePassphraseKey("correct horse battery staple: ñ€𝟙")
		case "bare":
			text = "correct horse battery staple"
		default:
			text, err = GenerateKey()
		}
		if err != nil {
			t.Fatal(err)
		}
		k, err := ParseKey(text, KeyOptions{AllowBarePassphrase: true})
		if err != nil {
			t.Fatal(err)
		}
		keys[name] = k
		f.Keys = append(f.Keys, keyVector{name, text, name == "bare", k.root, k.ID().String(), k.TokenKeyText()})
	}
	ring := func(key string, suite Suite) *Keyring {
		r, err := NewKeyring(keys[key], nil, Options{Suite: suite})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	seal := func(r *Keyring, p place, value string) string {
		d, err := r.NewDocument(p.Scope, p.subject(), p.Bound, p.kdf())
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		token, err := d.Seal(nil, p.Path, []byte(value))
		if err != nil {
			t.Fatal(err)
		}
		return string(token)
	}
	add := func(name string, suite Suite, r *Keyring, p place, value string) string {
		token := seal(r, p, value)
		ref, err := refOpen(keys[p.Key].root, p, token)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f.Values = append(f.Values, valueVector{name, p, uint8(suite), ref.kek, ref.dek, value, token})
		return token
	}
	refuse := func(name string, p place, token, reason string) {
		f.Refused = append(f.Refused, refuseVector{name, p, token, reason})
	}

	const card = `"4111-1111-1111-1111"`
	base := place{Key: "primary", Scope: "users", Path: "credit_card_num", Subject: "Ana", Bound: true, KDF: "hkdf"}
	with := func(change func(*place)) place { p := base; change(&p); return p }
	unbound := with(func(p *place) { p.Subject, p.Bound = "", false })
	slow := with(func(p *place) { p.KDF = "scrypt-per-subject" })
	for _, suite := range []Suite{EAX, GCM} {
		r := ring("primary", suite)
		bound := add(fmt.Sprintf("%v bound", suite), suite, r, base, card)
		free := add(fmt.Sprintf("%v unbound", suite), suite, r, unbound, card)
		scrypted := add(fmt.Sprintf("%v scrypt", suite), suite, r, slow, card)
		for _, n := range []int{1, 30, 31, 32, 33, 63, 64, 65} { // around the padding's edges, and EAX's direct blocks
			add(fmt.Sprintf("%v %d bytes", suite, n), suite, r, base, strings.Repeat("7", n))
		}
		for _, v := range []string{`{"pan":"4111","exp":[1,2]}`, `"é\u00e9\ud800\n"`, `-1.0E+5`, `true`, `"` + string([]byte{0x7f}) + `"`} {
			add(fmt.Sprintf("%v value %s", suite, v), suite, r, base, v)
		}
		add(fmt.Sprintf("%v numeric subject", suite), suite, r, with(func(p *place) { p.Subject = "4711" }), card)
		add(fmt.Sprintf("%v long names", suite), suite, r, with(func(p *place) {
			p.Scope, p.Path, p.Subject = strings.Repeat("s", MaxScope), strings.Repeat("payment.", 30)+"pän", strings.Repeat("ñ", MaxSubject/2)
		}), card)
		for _, key := range []string{"previous", "passphrase", "bare"} {
			add(fmt.Sprintf("%v %s key", suite, key), suite, ring(key, suite), with(func(p *place) { p.Key = key }), card)
		}

		n := suite.String()
		raw := func(i int, x byte) string {
			b, err := base64.RawURLEncoding.DecodeString(bound[len(prefix):])
			if err != nil {
				t.Fatal(err)
			}
			b[i] ^= x
			return prefix + base64.RawURLEncoding.EncodeToString(b)
		}
		refuse(n+" other subject", with(func(p *place) { p.Subject = "Bob" }), bound, "auth")
		refuse(n+" other path", with(func(p *place) { p.Path = "credit_card_ccv" }), bound, "auth")
		refuse(n+" other scope", with(func(p *place) { p.Scope = "customers" }), bound, "auth")
		refuse(n+" unbound value under a rule with subject", base, free, "unbound")
		refuse(n+" bound value under a rule without subject", unbound, bound, "profile")
		refuse(n+" scrypt value under an hkdf rule", base, scrypted, "profile")
		refuse(n+" unknown key", with(func(p *place) { p.Key = "absent" }), seal(ring("absent", suite), base, card), "unknown-key")
		refuse(n+" reserved source", base, raw(1, 2), "profile")
		refuse(n+" reserved flag", base, raw(1, 8), "profile")
		refuse(n+" unknown suite", base, raw(0, 7), "malformed")
		refuse(n+" salt changed", base, raw(offSalt, 1), "auth")
		refuse(n+" subject tag changed", base, raw(offTag, 1), "auth")
		refuse(n+" wrapped DEK changed", base, raw(offWrap+20, 1), "auth")
		refuse(n+" value nonce changed", base, raw(suite.headerSize(), 1), "auth")
		refuse(n+" last byte changed", base, raw(suite.headerSize()+suite.boxSize(32)-1, 1), "auth")
		refuse(n+" unused bits set", base, bound[:len(bound)-1]+string(alphabet[sextet[bound[len(bound)-1]]|1]), "malformed")
		refuse(n+" cut", base, bound[:len(bound)-4], "malformed")
		refuse(n+" line end inside", base, bound[:60]+"\n"+bound[60:], "malformed")
		refuse(n+" padded base64", base, bound+"==", "malformed")
	}
	return f
}

// refOpened is what the second implementation finds.
type refOpened struct {
	suite           uint8
	kek, dek, value []byte
}

// refOpen is a second implementation of docs/envelope.md, "Opening", which shares no code with the package:
// plain hkdf, hmac and library AEADs, in the order of the text. It is for intact values.
func refOpen(root []byte, p place, token string) (out refOpened, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(token, "esp1."))
	if err != nil {
		return out, err
	}
	sized := func(s string) string { return string(binary.BigEndian.AppendUint32(nil, uint32(len(s)))) + s }
	expand := func(prk []byte, info string) []byte {
		k, err := hkdf.Expand(sha256.New, prk, info, 32)
		if err != nil {
			panic(err)
		}
		return k
	}
	aead := func(key []byte) (cipher.AEAD, int) {
		c, err := aes.NewCipher(key)
		if err != nil {
			panic(err)
		}
		if b[0] == 1 {
			a, err := goeax.NewEAX(c)
			if err != nil {
				panic(err)
			}
			return a, 16
		}
		a, err := cipher.NewGCM(c)
		if err != nil {
			panic(err)
		}
		return a, 12
	}
	out.suite = b[0]
	wantTag := make([]byte, 16)
	if p.Bound {
		h := hmac.New(sha256.New, expand(root, "esproxy/1/subject-key\x00"+sized(p.Scope)))
		h.Write(b[:22])
		h.Write([]byte(p.Subject))
		wantTag = h.Sum(nil)[:16]
	}
	if !bytes.Equal(wantTag, b[22:38]) {
		return out, errors.New("subject tag")
	}
	if b[1]&3 == 1 {
		k := expand(root, "esproxy/1/scrypt-key\x00"+sized(p.Scope))
		out.kek, err = scrypt.Key([]byte(sized(p.Subject)+sized(string(k))), b[6:22], 16384, 8, 1, 32)
		if err != nil {
			return out, err
		}
	} else {
		out.kek = expand(expand(root, "esproxy/1/wrap-key\x00"+sized(p.Scope)), "esproxy/1/kek\x00"+string(b[:38]))
	}
	kek, n := aead(out.kek)
	wrapEnd := 38 + n + 32 + 16
	if out.dek, err = kek.Open(nil, b[38:38+n], b[38+n:wrapEnd], []byte("esproxy/1/wrap\x00"+string(b[:38]))); err != nil {
		return out, fmt.Errorf("wrap: %w", err)
	}
	dek, n := aead(out.dek)
	plain, err := dek.Open(nil, b[wrapEnd:wrapEnd+n], b[wrapEnd+n:], []byte("esproxy/1/value\x00"+string(b[:1])+sized(p.Scope)+sized(p.Path)))
	if err != nil {
		return out, fmt.Errorf("value: %w", err)
	}
	plain = bytes.TrimRight(plain, "\x00")
	out.value = bytes.TrimSuffix(plain, []byte{0x80})
	if len(out.value) != len(plain)-1 {
		return out, errors.New("padding")
	}
	return out, nil
}

// refRoot is docs/envelope.md "Key texts", again without the package's code, for texts that are right.
func refRoot(text string) ([]byte, error) {
	salt, pass := []byte("esproxy bare pw1"), text
	if rest, ok := strings.CutPrefix(text, "esk1:"); ok {
		b, err := base64.RawURLEncoding.DecodeString(rest)
		if err != nil {
			return nil, err
		}
		if sum := sha256.Sum256([]byte("esproxy/1/esk1\x00" + string(b[:32]))); !bytes.Equal(sum[:4], b[32:]) {
			return nil, errors.New("checksum")
		}
		return hkdf.Key(sha256.New, b[:32], nil, "esproxy/1/root\x00", 32)
	}
	if rest, ok := strings.CutPrefix(text, "espw1:"); ok {
		var err error
		if salt, err = base64.RawURLEncoding.DecodeString(rest[:22]); err != nil {
			return nil, err
		}
		pass = rest[23:]
	}
	return scrypt.Key([]byte(pass), salt, 1<<17, 8, 1, 32)
}

// What this package seals, the second implementation opens, for fresh keys too.
func TestSecondImplementation(t *testing.T) {
	text, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseKey(text, KeyOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []Suite{EAX, GCM} {
		r, err := NewKeyring(k, nil, Options{Suite: suite})
		if err != nil {
			t.Fatal(err)
		}
		for n := 1; n < 200; n++ {
			p := place{Scope: "s", Path: "a.b", Subject: "é", Bound: n%2 == 0}
			d, err := r.NewDocument(p.Scope, p.subject(), p.Bound, HKDF)
			if err != nil {
				t.Fatal(err)
			}
			value := bytes.Repeat([]byte{'1'}, n)
			token, err := d.Seal(nil, p.Path, value)
			d.Close()
			if err != nil {
				t.Fatal(err)
			}
			if got, err := refOpen(k.root, p, string(token)); err != nil || !bytes.Equal(got.value, value) {
				t.Fatalf("%v, %d bytes: %q, %v", suite, n, got.value, err)
			}
		}
	}
}

// fakeClock is a clock that tests move.
type fakeClock struct{ now time.Time }

func (c *fakeClock) Now() time.Time { return c.now }

// The worked example of the specification is the first value of the file.
func TestWorkedExample(t *testing.T) {
	doc, err := os.ReadFile("../../docs/envelope.md")
	if err != nil {
		t.Fatal(err)
	}
	_, example, ok := strings.Cut(string(doc), "## Worked example")
	if !ok {
		t.Fatal("the specification has no worked example")
	}
	var file vectorFile
	readJSON(t, "vectors.json", &file)
	k, v := file.Keys[0], file.Values[0]
	wrap, err := wrapKeyOf(k.Root, v.Scope)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := subjectKeyOf(k.Root, v.Scope)
	if err != nil {
		t.Fatal(err)
	}
	oneLine := strings.ReplaceAll(example, "\n", "")
	for name, want := range map[string]string{
		"master key": k.Text, "token": v.Token, "root": fmt.Sprintf("%x", []byte(k.Root)), "value": v.Value,
		"KEK": fmt.Sprintf("%x", []byte(v.KEK)), "DEK": fmt.Sprintf("%x", []byte(v.DEK)),
		"wrap key": fmt.Sprintf("%x", wrap), "subject key": fmt.Sprintf("%x", subject),
	} {
		if !strings.Contains(oneLine, want) {
			t.Errorf("the worked example lacks the %s %s", name, want)
		}
	}
}

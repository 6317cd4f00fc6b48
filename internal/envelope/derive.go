package envelope

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"sync"

	"golang.org/x/crypto/scrypt"
)

// Every derivation and every piece of associated data begins with its own label. A label ends in a zero
// byte and has no other, so none is the beginning of another. docs/envelope.md lists them.
const (
	labelRoot       = "esproxy/1/root\x00"
	labelKeyID      = "esproxy/1/key-id\x00"
	labelToken      = "esproxy/1/access-token\x00"
	labelWrapKey    = "esproxy/1/wrap-key\x00"
	labelSubjectKey = "esproxy/1/subject-key\x00"
	labelScryptKey  = "esproxy/1/scrypt-key\x00"
	labelKEK        = "esproxy/1/kek\x00"
	labelWrap       = "esproxy/1/wrap\x00"
	labelValue      = "esproxy/1/value\x00"
	labelKeySum     = "esproxy/1/esk1\x00"
	labelTokenSum   = "esproxy/1/estk1\x00"
)

// appendSized appends x after its length, so that neighbours cannot trade bytes.
func appendSized[T string | []byte](dst []byte, x T) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(x)))
	return append(dst, x...)
}

// rootFromSecret derives the root of an "esk1:" key from its 32 random bytes.
func rootFromSecret(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, labelRoot, keySize)
}

// The cost of turning a passphrase into a root, once at start: 128 MiB and a fraction of a second.
const passphraseN, scryptR, scryptP = 1 << 17, 8, 1

// rootFromPassphrase derives the root of an "espw1:" key or a bare passphrase.
func rootFromPassphrase(passphrase string, salt []byte) ([]byte, error) {
	return scrypt.Key([]byte(passphrase), salt, passphraseN, scryptR, scryptP, keySize)
}

func keyIDOf(root []byte) (KeyID, error) {
	b, err := hkdf.Expand(sha256.New, root, labelKeyID, len(KeyID{}))
	if err != nil {
		return KeyID{}, err
	}
	return KeyID(b), nil
}

func tokenKeyOf(root []byte) ([]byte, error) {
	return hkdf.Expand(sha256.New, root, labelToken, keySize)
}

func wrapKeyOf(root []byte, scope string) ([]byte, error) { return scopeKey(root, labelWrapKey, scope) }
func subjectKeyOf(root []byte, scope string) ([]byte, error) {
	return scopeKey(root, labelSubjectKey, scope)
}
func scryptKeyOf(root []byte, scope string) ([]byte, error) {
	return scopeKey(root, labelScryptKey, scope)
}

func scopeKey(root []byte, label, scope string) ([]byte, error) {
	return hkdf.Expand(sha256.New, root, string(appendSized([]byte(label), scope)), keySize)
}

// subjectTag sets tag to what says, before any costly derivation, that a header belongs to subject.
// head is bytes 0 to 21 of the value.
func subjectTag(tag []byte, subjectKey *prf, head, subject []byte) {
	m := subjectKey.get()
	m.buf = append(append(m.buf[:0], head...), subject...)
	copy(tag[:subjTagSize], m.sum())
	subjectKey.put(m)
}

// kekHKDF sets kek to HKDF-Expand(wrap key, label ‖ head, 32). head is bytes 0 to 37 of the value.
//
// An output of one hash length is HKDF's first block, HMAC(key, info ‖ 0x01), so the keyed state can be
// reused, which hkdf.Expand cannot do.
func kekHKDF(kek *[keySize]byte, wrapKey *prf, head []byte) {
	m := wrapKey.get()
	m.buf = append(append(append(m.buf[:0], labelKEK...), head...), 1)
	copy(kek[:], m.sum())
	clear(m.out[:])
	wrapKey.put(m)
}

// subjectN is the scrypt cost of ScryptPerSubject. It belongs to the flag and is never read from a value.
const subjectN = 1 << 14

// kekScrypt derives the KEK of one subject and salt.
func kekScrypt(kek *[keySize]byte, scryptKey, subject, salt []byte) error {
	secret := make([]byte, 0, 8+len(subject)+len(scryptKey))
	secret = appendSized(appendSized(secret, subject), scryptKey)
	out, err := scrypt.Key(secret, salt, subjectN, scryptR, scryptP, keySize)
	copy(kek[:], out)
	clear(secret)
	clear(out)
	return err
}

// appendWrapData appends the associated data of a wrapped DEK. head is bytes 0 to 37 of the value.
func appendWrapData(dst, head []byte) []byte {
	return append(append(dst, labelWrap...), head...)
}

// appendValueData appends the associated data of a value.
func appendValueData(dst []byte, s Suite, scope, path string) []byte {
	dst = append(append(dst, labelValue...), byte(s))
	return appendSized(appendSized(dst, scope), path)
}

// checksum guards key texts against slips of the hand. It is no secret and protects nothing else.
func checksum(label string, data []byte) []byte {
	h := sha256.New()
	h.Write([]byte(label))
	h.Write(data)
	return h.Sum(nil)[:4]
}

// prf is HMAC-SHA256 under one key, safe for concurrent use: it hands out keyed states and takes them back.
type prf struct {
	key  []byte
	pool sync.Pool
}

func newPRF(key []byte) *prf {
	p := &prf{key: key}
	p.pool.New = func() any {
		m := &mac{h: hmac.New(sha256.New, p.key)}
		m.h.Reset() // makes the standard library keep the keyed state instead of hashing the key again
		return m
	}
	return p
}

func (p *prf) get() *mac { return p.pool.Get().(*mac) }

func (p *prf) put(m *mac) {
	clear(m.buf)
	p.pool.Put(m)
}

// mac is one keyed state with room for a message and a sum.
type mac struct {
	h   hash.Hash
	buf []byte
	out [sha256.Size]byte
}

// sum gives HMAC of m.buf. It is valid until the next call.
func (m *mac) sum() []byte {
	m.h.Reset()
	m.h.Write(m.buf)
	return m.h.Sum(m.out[:0])
}

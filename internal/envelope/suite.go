package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"slices"
)

const gcmNonceSize = 12

// box is one AEAD key in one of the two suites. It gives both the same shape: nonce ‖ ciphertext ‖ tag.
// One goroutine at a time.
type box struct {
	suite Suite
	gcm   cipher.AEAD // suite 2; makes its own random nonces
	eax   eax         // suite 1
}

// init sets suite and key (32 bytes).
func (b *box) init(s Suite, key []byte) error {
	b.suite = s
	if s == EAX {
		return b.eax.init(key)
	}
	var err error
	b.gcm, err = newGCM(key)
	return err
}

// newGCM is a function of its own so that the compiler, which learns from a profile that it is worth while, puts aes.NewCipher
// into it: it sees then that the block cipher is copied and needs no memory of the collector's. That halves the
// allocations of a document, and the garbage.
//
//go:noinline
func newGCM(key []byte) (cipher.AEAD, error) {
	c, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(c)
}

// clear forgets the key, as far as Go lets us: the schedule inside crypto/aes is left to the collector.
func (b *box) clear() { *b = box{} }

// seal replaces the plaintext at buf[at:] by nonce, ciphertext and tag, in place. It gives the longer
// buf. The caller has seen to the capacity, so that no plaintext stays behind in an outgrown array.
func (b *box) seal(buf []byte, at int, data []byte, rnd *randomness) []byte {
	n := len(buf) - at
	if b.suite == GCM {
		return b.gcm.Seal(buf[:at], nil, buf[at:], data)
	}
	buf = slices.Grow(buf, eaxNonceSize+tagSize)[:at+b.suite.boxSize(n)]
	text := buf[at+eaxNonceSize:][:n]
	copy(text, buf[at:at+n])
	nonce := buf[at:][:eaxNonceSize]
	rnd.take(nonce)
	tag := b.eax.seal(text, nonce, text, data)
	copy(buf[len(buf)-tagSize:], tag[:])
	return buf
}

// open appends to dst the plaintext of sealed, which is nonce, ciphertext and tag. The two do not
// overlap. Where the value does not authenticate, dst comes back as it was and its spare capacity holds
// no plaintext.
func (b *box) open(dst, sealed, data []byte) ([]byte, bool) {
	if len(sealed) < b.suite.boxSize(0) {
		return dst, false
	}
	if b.suite == GCM {
		out, err := b.gcm.Open(dst, nil, sealed, data)
		if err != nil {
			return dst, false
		}
		return out, true
	}
	nonce, text, tag := sealed[:eaxNonceSize], sealed[eaxNonceSize:len(sealed)-tagSize], sealed[len(sealed)-tagSize:]
	out := slices.Grow(dst, len(text))[:len(dst)+len(text)]
	if !b.eax.open(out[len(dst):], nonce, text, data, tag) {
		return dst, false
	}
	return out, true
}

package envelope

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
	"encoding/binary"
	"math/bits"
)

// EAX by Bellare, Rogaway and Wagner (https://eprint.iacr.org/2003/069), over AES.
//
// EAX is CTR encryption under a key stream that starts at OMAC(nonce), authenticated by OMAC over nonce,
// associated data and ciphertext, each under its own tweak. It is written here because the known library
// panics on some nonces and takes twice the time.

const (
	eaxNonceSize = 16
	blockSize    = aes.BlockSize

	// ctrDirect is up to where single block calls are cheaper than making a key stream, which copies
	// the key schedule. Card numbers and DEKs (32 bytes) stay below it.
	ctrDirect = 4 * blockSize
)

type block = [blockSize]byte

// The three tweaks of OMAC.
const (
	omacNonce = iota
	omacData
	omacText
)

// eax is AES-EAX under one key. It keeps scratch space inside: one goroutine at a time.
type eax struct {
	aes     cipher.Block
	dbl     block    // 2·E(0), for a complete last block
	quad    block    // 4·E(0), for a padded last block
	start   [3]block // E(tweak), the state after OMAC's first block
	n, h, c block    // OMAC of nonce, data, ciphertext
	in, out block    // one block of key stream
}

// init sets the key: 16, 24 or 32 bytes.
func (e *eax) init(key []byte) error {
	b, err := aes.NewCipher(key)
	if err != nil {
		return err
	}
	e.aes = b
	e.dbl = block{}
	b.Encrypt(e.dbl[:], e.dbl[:])
	e.start[omacNonce] = e.dbl // its tweak is 0
	double(&e.dbl)
	e.quad = e.dbl
	double(&e.quad)
	for t := omacData; t <= omacText; t++ {
		e.start[t] = block{blockSize - 1: byte(t)}
		b.Encrypt(e.start[t][:], e.start[t][:])
	}
	return nil
}

// seal writes the ciphertext of plain to dst and gives the tag. dst and plain have one length and are
// the same memory or do not overlap.
func (e *eax) seal(dst, nonce, plain, data []byte) block {
	e.omac(&e.n, omacNonce, nonce)
	e.omac(&e.h, omacData, data)
	e.ctr(dst, plain)
	e.omac(&e.c, omacText, dst[:len(plain)])
	return e.tag()
}

// open checks tag and only then writes the plaintext of text to dst. Where the tag is wrong it leaves
// dst alone and gives false.
func (e *eax) open(dst, nonce, text, data []byte, tag []byte) bool {
	e.omac(&e.n, omacNonce, nonce)
	e.omac(&e.h, omacData, data)
	e.omac(&e.c, omacText, text)
	want := e.tag()
	if subtle.ConstantTimeCompare(want[:], tag) != 1 {
		return false
	}
	e.ctr(dst, text)
	return true
}

func (e *eax) tag() block {
	t := e.n
	xor(&t, e.h[:])
	xor(&t, e.c[:])
	return t
}

// omac sets sum to OMAC(tweak block ‖ data).
func (e *eax) omac(sum *block, tweak byte, data []byte) {
	if len(data) == 0 { // the tweak block is the last one
		*sum = block{blockSize - 1: tweak}
		xor(sum, e.dbl[:])
		e.aes.Encrypt(sum[:], sum[:])
		return
	}
	*sum = e.start[tweak]
	for len(data) > blockSize {
		xor(sum, data[:blockSize])
		e.aes.Encrypt(sum[:], sum[:])
		data = data[blockSize:]
	}
	if len(data) == blockSize {
		xor(sum, data)
		xor(sum, e.dbl[:])
	} else {
		for i, c := range data {
			sum[i] ^= c
		}
		sum[len(data)] ^= 0x80
		xor(sum, e.quad[:])
	}
	e.aes.Encrypt(sum[:], sum[:])
}

// ctr applies the key stream that starts at e.n, counting modulo 2^128.
func (e *eax) ctr(dst, src []byte) {
	if len(src) > ctrDirect {
		cipher.NewCTR(e.aes, e.n[:]).XORKeyStream(dst, src)
		return
	}
	hi, lo := binary.BigEndian.Uint64(e.n[:8]), binary.BigEndian.Uint64(e.n[8:])
	for len(src) > 0 {
		binary.BigEndian.PutUint64(e.in[:8], hi)
		binary.BigEndian.PutUint64(e.in[8:], lo)
		e.aes.Encrypt(e.out[:], e.in[:])
		n := subtle.XORBytes(dst, src, e.out[:])
		dst, src = dst[n:], src[n:]
		var carry uint64
		lo, carry = bits.Add64(lo, 1, 0)
		hi += carry
	}
	e.out = block{}
}

// double multiplies by x in GF(2^128), in constant time.
func double(b *block) {
	hi, lo := binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])
	carry := hi >> 63
	binary.BigEndian.PutUint64(b[:8], hi<<1|lo>>63)
	binary.BigEndian.PutUint64(b[8:], lo<<1^carry*0x87)
}

// xor adds the first 16 bytes of src to b.
func xor(b *block, src []byte) {
	binary.LittleEndian.PutUint64(b[:8], binary.LittleEndian.Uint64(b[:8])^binary.LittleEndian.Uint64(src[:8]))
	binary.LittleEndian.PutUint64(b[8:], binary.LittleEndian.Uint64(b[8:])^binary.LittleEndian.Uint64(src[8:16]))
}

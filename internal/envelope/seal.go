package envelope

import (
	"crypto/rand"
	"encoding/base64"
	"slices"
	"sync"
)

// The only file that asks for random bytes. Those inside cipher.NewGCMWithRandomNonce are the standard
// library's own.

// random fills b. The standard library ends the process rather than return without randomness.
func random(b []byte) { _, _ = rand.Read(b) }

// randomness fetches random bytes in one system call for one document and hands each out once.
type randomness struct {
	buf  [128]byte
	left []byte
}

// fetch makes n bytes ready, at most len(buf).
func (r *randomness) fetch(n int) {
	r.left = r.buf[:n]
	random(r.left)
}

// take fills out, which is no longer than buf.
func (r *randomness) take(out []byte) {
	if len(r.left) < len(out) {
		r.fetch(len(r.buf))
	}
	copy(out, r.left)
	clear(r.left[:len(out)])
	r.left = r.left[len(out):]
}

// keptBuffer is the largest buffer that goes back to a pool.
const keptBuffer = 256 << 10

// Document seals the values of one document under one rule, with one DEK. One goroutine at a time; not
// to be touched after Close.
type Document struct {
	redacted
	open   bool
	suite  Suite
	scope  string
	header [maxHeader]byte
	text   []byte // prefix and the header in base64, as far as whole groups of three bytes go
	dek    box
	kek    box
	key    [keySize]byte
	sealed int
	rnd    randomness
	data   []byte
	raw    []byte
}

var documents = sync.Pool{New: func() any { return new(Document) }}

// NewDocument draws a DEK for one document under the rule named scope and wraps it under the primary
// key. subject is the user the document is about where the rule has one (bound), nil where it has none.
// It gives ErrPlace or ErrSubject for arguments the format cannot hold, ErrProfile for ScryptPerSubject
// without a subject, ErrBusy when too many derivations are running.
func (r *Keyring) NewDocument(scope string, subject []byte, bound bool, kdf KDF) (*Document, error) {
	if err := checkPlace(scope, subject, bound); err != nil {
		return nil, err
	}
	if kdf > ScryptPerSubject || kdf == ScryptPerSubject && !bound {
		return nil, ErrProfile
	}
	keys, err := r.primary.scope(scope)
	if err != nil {
		return nil, err
	}
	d := documents.Get().(*Document)
	d.open, d.suite, d.scope = true, r.suite, scope
	if err := d.begin(r, keys, subject, Header{Suite: r.suite, Source: kdf, Bound: bound, KeyID: r.primary.id}); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// begin writes the header: everything up to the value's own nonce.
func (d *Document) begin(r *Keyring, keys *scopeKeys, subject []byte, h Header) error {
	if h.Suite == GCM { // its nonces come from elsewhere
		d.rnd.fetch(saltSize + keySize)
	}
	head := d.header[:offWrap]
	head[0], head[1] = byte(h.Suite), h.flags()
	copy(head[offKeyID:], h.KeyID[:])
	salt := head[offSalt:offTag]
	if h.Source == ScryptPerSubject {
		r.scrypt.salt(salt, saltRef{h.KeyID, h.Suite, d.scope, string(subject)})
	} else {
		d.rnd.take(salt)
	}
	clear(head[offTag:])
	if h.Bound {
		subjectTag(head[offTag:], keys.subject, head[:offTag], subject)
	}
	if h.Source == ScryptPerSubject {
		ref := kekRef{h.KeyID, d.scope, string(subject), [saltSize]byte(salt)}
		if _, err := r.scrypt.kek(&d.key, ref, keys.scrypt, true); err != nil {
			return err
		}
	} else {
		kekHKDF(&d.key, keys.wrap, head)
	}
	if err := d.kek.init(h.Suite, d.key[:]); err != nil {
		return err
	}
	d.rnd.take(d.key[:])
	if err := d.dek.init(h.Suite, d.key[:]); err != nil {
		return err
	}
	d.data = appendWrapData(d.data[:0], head)
	d.kek.seal(append(head, d.key[:]...), offWrap, d.data, &d.rnd) // stays inside d.header, which has room for it
	clear(d.key[:])
	d.kek.clear()
	d.text = base64.RawURLEncoding.AppendEncode(append(d.text[:0], prefix...), d.header[:wholeGroups(h.Suite.headerSize())])
	return nil
}

// Seal appends to dst the text of value sealed for the field at path: "esp1." and base64url, without
// quotes. value is a JSON value as written, 1 byte to MaxValue; path is the canonical dotted path. On
// error dst comes back as it was.
func (d *Document) Seal(dst []byte, path string, value []byte) ([]byte, error) {
	switch {
	case !d.open:
		return dst, ErrClosed
	case len(path) == 0 || len(path) > MaxPath:
		return dst, ErrPlace
	case len(value) == 0 || len(value) > MaxValue || d.sealed >= MaxValuesPerDocument:
		return dst, ErrLimit
	}
	d.sealed++
	d.data = appendValueData(d.data[:0], d.suite, d.scope, path)
	// What d.text has not, the end of the header, and the value.
	rest := d.header[wholeGroups(d.suite.headerSize()):d.suite.headerSize()]
	at := len(rest)
	// Room for everything first, so that no plaintext stays behind in an outgrown array.
	raw := slices.Grow(d.raw[:0], at+d.suite.boxSize(paddedLen(len(value))))
	raw = append(raw, rest...)
	raw = append(raw, value...)
	raw = append(raw, 0x80)
	pad := raw[len(raw) : at+paddedLen(len(value))]
	clear(pad)
	raw = d.dek.seal(raw[:len(raw)+len(pad)], at, d.data, &d.rnd)
	d.raw = raw
	dst = append(slices.Grow(dst, TokenLen(d.suite, len(value))), d.text...)
	return base64.RawURLEncoding.AppendEncode(dst, raw), nil
}

// wholeGroups is the largest multiple of three up to n: so many bytes encode to base64 on their own.
func wholeGroups(n int) int { return n / 3 * 3 }

// Close forgets the DEK. A second Close does nothing as long as the document has not been handed out again.
func (d *Document) Close() {
	if !d.open {
		return
	}
	raw, data, text := d.raw[:0], d.data[:0], d.text[:0]
	if cap(raw) > keptBuffer {
		raw = nil
	}
	*d = Document{raw: raw, data: data, text: text}
	documents.Put(d)
}

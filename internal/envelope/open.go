package envelope

import (
	"bytes"
	"crypto/subtle"
	"encoding/base64"
	"slices"
	"sync"
)

// MaxDerivations is how many scrypt runs one Opener may cause, so that one reply cannot occupy the process.
const MaxDerivations = 1000

// Opener opens the values of one reply, or of one run. It remembers the last header, so that the fields of one
// document unwrap their DEK once. One goroutine at a time; not to be touched after Close.
type Opener struct {
	redacted
	ring *Keyring // nil after Close
	runs int      // scrypt derivations this opener caused
	raw  []byte
	data []byte
	kek  box
	key  [keySize]byte

	// What dek belongs to. An empty head means none.
	head    []byte
	header  Header
	text    []byte // the whole groups of head in base64; raw begins with their bytes
	scope   string
	subject []byte
	dek     box
}

var openers = sync.Pool{New: func() any { return new(Opener) }}

// NewOpener gives an Opener over the ring. Close it.
func (r *Keyring) NewOpener() *Opener {
	o := openers.Get().(*Opener)
	o.ring = r
	return o
}

// Open opens one value on its own. See Opener.Open.
func (r *Keyring) Open(dst []byte, scope, path string, subject []byte, bound bool, kdf KDF, token []byte) ([]byte, error) {
	o := r.NewOpener()
	defer o.Close()
	return o.Open(dst, scope, path, subject, bound, kdf, token)
}

// Open appends to dst the JSON value sealed in token. scope and path say where the value was found; subject is
// the document's where the rule has one (bound), nil where it has none; kdf is the rule's. A rule with
// ScryptPerSubject also opens values under HKDF, which are no weaker; a rule with HKDF does not open
// the others.
//
// On error dst comes back as it was. Errors, in this order: ErrPlace, ErrSubject (arguments),
// ErrMalformed, ErrProfile, ErrUnbound, ErrUnknownKey, ErrCompromised (what the value says of itself), then ErrAuth or
// ErrBusy. The subject is checked before any scrypt runs.
func (o *Opener) Open(dst []byte, scope, path string, subject []byte, bound bool, kdf KDF, token []byte) ([]byte, error) {
	r := o.ring
	if r == nil {
		return dst, ErrClosed
	}
	known := len(o.head) > 0 && o.scope == scope && bytes.Equal(o.subject, subject) && bound == (len(subject) > 0)
	if !known {
		if err := checkPlace(scope, subject, bound); err != nil {
			return dst, err
		}
	}
	if len(path) == 0 || len(path) > MaxPath {
		return dst, ErrPlace
	}
	h, same, err := o.read(token)
	if err != nil {
		return dst, err
	}
	switch {
	case r.fips && h.Suite != GCM,
		h.Source == ScryptPerSubject && kdf != ScryptPerSubject,
		h.Bound && !bound:
		return dst, ErrProfile
	case bound && !h.Bound:
		return dst, ErrUnbound
	}
	head, sealed := o.raw[:h.Suite.headerSize()], o.raw[h.Suite.headerSize():]
	if !known || !same {
		key := r.keys[h.KeyID]
		if key == nil {
			return dst, ErrUnknownKey
		}
		if r.compromised[h.KeyID] && !r.rotation {
			return dst, ErrCompromised
		}
		if err := o.unwrap(key, h, head, scope, subject); err != nil {
			return dst, err
		}
		o.text = append(o.text[:0], token[len(prefix):][:wholeGroups(len(head))/3*4]...)
	}
	o.data = appendValueData(o.data[:0], h.Suite, scope, path)
	out, ok := o.dek.open(dst, sealed, o.data)
	if !ok {
		return dst, ErrAuth
	}
	end, ok := unpad(out[len(dst):])
	if !ok {
		clear(out[len(dst):])
		return dst, ErrAuth
	}
	return out[:len(dst)+end], nil
}

// read sets o.raw to the bytes of token and gives what its header says. It is as strict as Peek. same is set when the
// header is that of the value before: the fields of one document then decode and check it once, which is
// more than half of their text.
func (o *Opener) read(token []byte) (h Header, same bool, err error) {
	text, err := tokenText(token)
	if err != nil {
		return h, false, err
	}
	n := base64.RawURLEncoding.DecodedLen(len(text))
	from := len(o.text)
	if from > 0 && from <= len(text) && string(text[:from]) == string(o.text) {
		o.raw = slices.Grow(o.raw, max(0, n-len(o.raw)))[:n]
	} else {
		from = 0
		o.raw = slices.Grow(o.raw[:0], n)[:n]
		o.text = o.text[:0] // o.raw no longer begins with it
	}
	if !decode64(o.raw[from/4*3:], text[from:]) {
		return h, false, ErrMalformed
	}
	if head := o.head; from > 0 && len(o.raw) > len(head) && string(o.raw[:len(head)]) == string(head) && fits(o.header.Suite, n) {
		return o.header, true, nil
	}
	h, err = headerOf(o.raw[:offSalt], n)
	return h, false, err
}

// unwrap makes o.dek the DEK of the value whose header is head.
func (o *Opener) unwrap(key *Key, h Header, head []byte, scope string, subject []byte) error {
	o.forget()
	keys, err := key.scope(scope)
	if err != nil {
		return err
	}
	// The subject first: it is cheap, it covers suite, flags, key id and salt, and nobody without the key can make one.
	var want [subjTagSize]byte
	if h.Bound {
		subjectTag(want[:], keys.subject, head[:offTag], subject)
	}
	if subtle.ConstantTimeCompare(want[:], head[offTag:offWrap]) != 1 {
		return ErrAuth
	}
	defer clear(o.key[:])
	if h.Source == ScryptPerSubject {
		ref := kekRef{h.KeyID, scope, string(subject), [saltSize]byte(head[offSalt:offTag])}
		ran, err := o.ring.scrypt.kek(&o.key, ref, keys.scrypt, o.runs < MaxDerivations)
		if ran {
			o.runs++
		}
		if err != nil {
			return err
		}
	} else {
		kekHKDF(&o.key, keys.wrap, head[:offWrap])
	}
	if err := o.kek.init(h.Suite, o.key[:]); err != nil {
		return err
	}
	defer o.kek.clear()
	o.data = appendWrapData(o.data[:0], head[:offWrap])
	if _, ok := o.kek.open(o.key[:0], head[offWrap:], o.data); !ok {
		return ErrAuth
	}
	if err := o.dek.init(h.Suite, o.key[:]); err != nil {
		return err
	}
	o.head = append(o.head, head...)
	o.header = h
	o.scope = scope
	o.subject = append(o.subject, subject...)
	return nil
}

// unpad gives the length of the value: zeros at the end are dropped, then one 0x80. Only authenticated
// bytes come here, so its time tells nobody anything.
func unpad(b []byte) (int, bool) {
	i := len(b) - 1
	for i >= 0 && b[i] == 0 {
		i--
	}
	return i, i > 0 && b[i] == 0x80
}

// forget drops the remembered DEK.
func (o *Opener) forget() {
	clear(o.subject)
	o.head, o.text, o.scope, o.subject = o.head[:0], o.text[:0], "", o.subject[:0]
	o.dek.clear()
}

// Close forgets every key. A second Close does nothing as long as the opener has not been handed out again.
func (o *Opener) Close() {
	if o.ring == nil {
		return
	}
	o.forget()
	o.kek.clear()
	clear(o.key[:])
	raw, data, head, text, subject := o.raw[:0], o.data[:0], o.head, o.text, o.subject
	if cap(raw) > keptBuffer {
		raw = nil
	}
	*o = Opener{raw: raw, data: data, head: head, text: text, subject: subject}
	openers.Put(o)
}

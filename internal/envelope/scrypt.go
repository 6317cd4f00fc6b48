package envelope

import (
	"container/list"
	"sync"
	"sync/atomic"
	"time"
)

// How long one subject's salt serves. The second bound keeps random 12-byte nonces under one KEK far
// from a repetition (docs/envelope.md "Message limits").
const (
	saltLife  = 24 * time.Hour
	saltWraps = 1 << 20
)

// derivations runs scrypt for the profile ScryptPerSubject: few at a time, and as seldom as possible. All
// methods are safe for concurrent use.
type derivations struct {
	runs  atomic.Uint64
	slots chan struct{}
	wait  time.Duration
	now   func() time.Time

	mu    sync.Mutex
	keks  *lru[kekRef, [keySize]byte]
	salts *lru[saltRef, *userSalt]
}

// kekRef names one derived KEK.
type kekRef struct {
	id             KeyID
	scope, subject string
	salt           [saltSize]byte
}

// saltRef names whose salt it is. The key and the suite are in it because a KEK serves one of each.
type saltRef struct {
	id             KeyID
	suite          Suite
	scope, subject string
}

type userSalt struct {
	salt  [saltSize]byte
	born  time.Time
	wraps int
}

func newDerivations(opt Options) *derivations {
	return &derivations{
		slots: make(chan struct{}, opt.Derivations),
		wait:  opt.DerivationWait,
		now:   opt.Now,
		keks:  newLRU[kekRef, [keySize]byte](opt.ScryptCache),
		salts: newLRU[saltRef, *userSalt](opt.ScryptCache),
	}
}

// salt gives the salt for one more wrap, a new one where the old has served.
func (d *derivations) salt(out []byte, ref saltRef) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	s, ok := d.salts.get(ref)
	if age := time.Duration(0); ok {
		age = now.Sub(s.born)
		ok = age >= 0 && age < saltLife && s.wraps < saltWraps
	}
	if !ok {
		s = &userSalt{born: now}
		random(s.salt[:])
		d.salts.put(ref, s)
	}
	s.wraps++
	copy(out, s.salt[:])
}

// kek sets out to the KEK that ref names, from the cache or by scrypt with secret, and reports whether it ran
// scrypt. Where mayRun is false or no place gets free in time it gives ErrBusy.
func (d *derivations) kek(out *[keySize]byte, ref kekRef, secret []byte, mayRun bool) (ran bool, err error) {
	if d.cached(out, ref) {
		return false, nil
	}
	if !mayRun || !d.acquire() {
		return false, ErrBusy
	}
	defer func() { <-d.slots }()
	if d.cached(out, ref) { // somebody else derived it while this one waited
		return false, nil
	}
	d.runs.Add(1)
	if err := kekScrypt(out, secret, []byte(ref.subject), ref.salt[:]); err != nil {
		return true, err
	}
	d.mu.Lock()
	d.keks.put(ref, *out)
	d.mu.Unlock()
	return true, nil
}

func (d *derivations) cached(out *[keySize]byte, ref kekRef) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	k, ok := d.keks.get(ref)
	if ok {
		*out = k
	}
	return ok
}

func (d *derivations) acquire() bool {
	select {
	case d.slots <- struct{}{}:
		return true
	default:
	}
	if d.wait <= 0 {
		return false
	}
	t := time.NewTimer(d.wait)
	defer t.Stop()
	select {
	case d.slots <- struct{}{}:
		return true
	case <-t.C:
		return false
	}
}

// lru is a map of bounded size that forgets what was used least recently. It overwrites what it forgets.
type lru[K comparable, V any] struct {
	max   int
	order *list.List // of *lruEntry, most recent first
	byKey map[K]*list.Element
}

type lruEntry[K comparable, V any] struct {
	key   K
	value V
}

func newLRU[K comparable, V any](max int) *lru[K, V] {
	return &lru[K, V]{max: max, order: list.New(), byKey: make(map[K]*list.Element)}
}

func (l *lru[K, V]) get(key K) (V, bool) {
	e, ok := l.byKey[key]
	if !ok {
		var none V
		return none, false
	}
	l.order.MoveToFront(e)
	return e.Value.(*lruEntry[K, V]).value, true
}

func (l *lru[K, V]) put(key K, value V) {
	if e, ok := l.byKey[key]; ok {
		e.Value.(*lruEntry[K, V]).value = value
		l.order.MoveToFront(e)
		return
	}
	l.byKey[key] = l.order.PushFront(&lruEntry[K, V]{key, value})
	if l.order.Len() > l.max {
		last := l.order.Back()
		old := l.order.Remove(last).(*lruEntry[K, V])
		delete(l.byKey, old.key)
		var none V
		old.value = none
	}
}

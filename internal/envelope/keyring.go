package envelope

import (
	"crypto/fips140"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"
	"unicode/utf8"
)

// Options of a Keyring. The zero value is ready to use.
type Options struct {
	// Suite seals new values. Zero means EAX, or GCM in FIPS mode.
	Suite Suite
	// Compromised lists previous keys that open values for rotation only (ForRotation).
	Compromised []KeyID
	// ScryptCache bounds how many derived keys and how many subjects' salts the profile
	// ScryptPerSubject remembers. Zero means 4096.
	ScryptCache int
	// Derivations is how many scrypt runs may go on at once, each with 16 MiB. Zero means one for each
	// processor, at least 2.
	Derivations int
	// DerivationWait is how long to wait for a free place before ErrBusy. Zero means 1 s, negative not at all.
	DerivationWait time.Duration
	// Now is the clock for the age of salts. Nil means time.Now.
	Now func() time.Time
}

// Keyring holds the keys of a process: one that seals, and all that open. It is immutable, safe for
// concurrent use, and prints as "[redacted]".
type Keyring struct {
	redacted
	primary     *Key
	keys        map[KeyID]*Key
	ids         []KeyID // primary first
	compromised map[KeyID]bool
	rotation    bool
	suite       Suite
	fips        bool
	scrypt      *derivations
}

// NewKeyring makes a ring in which primary seals and opens, and previous keys only open. Two keys with
// one id are an error, even when they are the same key: a value could not say which is meant. In FIPS
// mode (GODEBUG=fips140=on) only GCM seals or opens.
func NewKeyring(primary *Key, previous []*Key, opt Options) (*Keyring, error) {
	r := &Keyring{
		primary:     primary,
		keys:        make(map[KeyID]*Key),
		compromised: make(map[KeyID]bool),
		suite:       opt.Suite,
		fips:        fips140.Enabled(),
	}
	for _, k := range append([]*Key{primary}, previous...) {
		if k == nil || k.material == nil {
			return nil, errors.New("keyring: a key is missing")
		}
		if r.keys[k.ID()] != nil {
			return nil, fmt.Errorf("keyring: two keys have the id %s; remove one", k.ID())
		}
		r.keys[k.ID()] = k
		r.ids = append(r.ids, k.ID())
	}
	for _, id := range opt.Compromised {
		if r.keys[id] == nil || id == primary.ID() {
			return nil, fmt.Errorf("keyring: key %s is marked compromised but is not a previous key", id)
		}
		r.compromised[id] = true
	}
	switch {
	case r.suite == 0 && r.fips:
		r.suite = GCM
	case r.suite == 0:
		r.suite = EAX
	case r.suite != EAX && r.suite != GCM:
		return nil, fmt.Errorf("keyring: unknown suite %d", opt.Suite)
	case r.suite == EAX && r.fips:
		return nil, errors.New("keyring: FIPS mode allows suite gcm only; set the suite to gcm")
	}
	if opt.ScryptCache <= 0 {
		opt.ScryptCache = 4096
	}
	if opt.Derivations <= 0 {
		opt.Derivations = max(2, runtime.GOMAXPROCS(0))
	}
	if opt.DerivationWait == 0 {
		opt.DerivationWait = time.Second
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	r.scrypt = newDerivations(opt)
	return r, nil
}

// ForRotation gives the same ring, with the same caches, which also opens values under keys marked
// compromised.
func (r *Keyring) ForRotation() *Keyring {
	c := *r
	c.rotation = true
	return &c
}

// PrimaryID is the id of the key that seals.
func (r *Keyring) PrimaryID() KeyID { return r.primary.ID() }

// IDs are the ids of all keys, the primary first.
func (r *Keyring) IDs() []KeyID { return slices.Clone(r.ids) }

// Has reports whether a key with this id is loaded, compromised or not.
func (r *Keyring) Has(id KeyID) bool { return r.keys[id] != nil }

// Suite is the suite that seals.
func (r *Keyring) Suite() Suite { return r.suite }

// TokenKey is the primary key's access-token key, a copy. Only the primary key verifies tokens.
func (r *Keyring) TokenKey() []byte { return r.primary.TokenKey() }

// TokenLen is the length of the text that Seal appends for a JSON value of n bytes.
func (r *Keyring) TokenLen(n int) int { return TokenLen(r.suite, n) }

// ScryptRuns counts the scrypt derivations since the ring was made, for metrics.
func (r *Keyring) ScryptRuns() uint64 { return r.scrypt.runs.Load() }

// checkPlace refuses scopes and subjects that the format cannot hold.
func checkPlace(scope string, subject []byte, bound bool) error {
	if len(scope) == 0 || len(scope) > MaxScope {
		return ErrPlace
	}
	for i := range len(scope) {
		switch c := scope[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-':
		default:
			return ErrPlace
		}
	}
	if bound != (len(subject) > 0) || len(subject) > MaxSubject || !utf8.Valid(subject) {
		return ErrSubject
	}
	return nil
}

// Package policy holds what the operator wrote in fields.yaml: which values are
// protected, in which indices, under which subject, and who may see them.
//
// A Policy is plain immutable data. It is built once by Parse, shared by all
// requests without locks, and replaced as a whole when the file changes.
//
// Parse is strict: it reports every mistake of the file at once, each with its
// place, because a policy that is half understood protects half of the values.
package policy

import (
	"strings"
	"time"
)

// Policy is one read of fields.yaml. It is immutable and safe for concurrent use.
type Policy struct {
	Rules  []*Rule           // in the order of the file; never empty
	Grants map[string]*Grant // by name; always holds "full"
	Tokens Tokens
	Allow  []Allow
	KeyID  string // eight lower-case hex digits that MASTER_KEY's id must equal, or ""

	byName    map[string]*Rule
	conflicts map[[2]int]*Conflict // by ordinals of two rules, the smaller first
}

// Tokens says which access tokens are refused although they are authentic.
type Tokens struct {
	Revoked   map[string]bool // token ids
	NotBefore time.Time       // tokens issued before it are refused; zero: none are
	MaxTTL    time.Duration   // longest lifetime a token may have, above zero
}

// DefaultMaxTTL is the longest lifetime of a token where the policy names none.
const DefaultMaxTTL = 720 * time.Hour

// FullGrant is the name of the built-in grant that reveals everything as plain text.
const FullGrant = "full"

// Rule gives the rule of that name, or nil.
func (p *Policy) Rule(name string) *Rule { return p.byName[name] }

// Mode says what happens to a protected value on its way to Elasticsearch.
type Mode uint8

const (
	// Encrypt seals the value; authorized callers can have it back.
	Encrypt Mode = iota + 1
	// Drop replaces the value by null before it leaves the proxy; nobody can have it back.
	Drop
)

// Mask names how a value is shown to a caller whose grant says "masked".
type Mask uint8

const (
	// MaskFull shows nothing of the value. It is the mask of a field that names none.
	MaskFull Mask = iota
	// MaskLast4 shows the last four characters of strings of eight or more.
	MaskLast4
	// MaskFirst6Last4 shows the first six and last four characters of strings of fifteen or more.
	MaskFirst6Last4
	// MaskEmail shows the first character of the local part and the domain.
	MaskEmail
)

// KDF names how a rule's key-encryption keys are derived; see docs/envelope.md.
type KDF uint8

const (
	// HKDF derives the KEK from the root by HKDF. It is the default.
	HKDF KDF = iota
	// ScryptPerSubject derives the KEK by one scrypt per subject and salt.
	ScryptPerSubject
)

// Sentinel says whether the cluster itself refuses plain values at a rule's paths; see docs/operations.md.
type Sentinel uint8

const (
	// SentinelOff leaves the check to the proxy. It is the default.
	SentinelOff Sentinel = iota
	// SentinelOn adds the check to indices and templates that are made through the proxy, and warns where it is missing.
	SentinelOn
	// SentinelRequired does the same, and refuses writes to an index without it.
	SentinelRequired
)

// Reveal is what one grant shows of one field.
type Reveal uint8

const (
	// Sealed leaves the value as it is stored.
	Sealed Reveal = iota
	// Masked shows the value through the field's mask.
	Masked
	// Plain shows the value.
	Plain
)

// Field is one protected path of a rule.
type Field struct {
	Path  string   // canonical dotted path, for example "payment.cards.pan"
	Parts []string // Path split at dots; never empty, no empty part
	Mode  Mode
	Mask  Mask
	Rule  *Rule // the rule that names it
}

// Rule protects fields of the indices its patterns name. Its Name is the scope
// that is authenticated into every value sealed under it.
type Rule struct {
	Name         string   // [a-z0-9_-]{1,64}
	Indices      []string // patterns over index, alias and data-stream names
	Subject      string   // canonical path of the subject; "" when the rule has one key
	SubjectParts []string
	KDF          KDF
	AllowScripts bool // scripts: allow
	Sentinel     Sentinel
	Fields       []*Field

	ordinal int
	byPath  map[string]*Field
}

// Field gives the field at a canonical path, or nil. A path below a protected path is not a field.
func (r *Rule) Field(path string) *Field { return r.byPath[path] }

// claimed gives the field at path or at the nearest path above it, or nil.
func (r *Rule) claimed(path string) *Field {
	for {
		if f := r.byPath[path]; f != nil {
			return f
		}
		i := strings.LastIndexByte(path, '.')
		if i < 0 {
			return nil
		}
		path = path[:i]
	}
}

// Grant is a named set of reveals. Exact "rule.field" entries beat "rule.*", which beat "*".
type Grant struct {
	Name   string
	Reveal map[string]Reveal
}

// Of says what the grant shows of f: the entry "rule.path" beats "rule.*", which beats "*".
// Values that were dropped do not exist any more, so they are always Sealed.
func (g *Grant) Of(f *Field) Reveal {
	if f.Mode == Drop {
		return Sealed
	}
	for _, key := range [...]string{f.Rule.Name + "." + f.Path, f.Rule.Name + ".*", "*"} {
		if how, ok := g.Reveal[key]; ok {
			return how
		}
	}
	return Sealed
}

// String is the word that stands for m in fields.yaml.
func (m Mode) String() string { return word(modes, m) }

// String is the word that stands for m in fields.yaml.
func (m Mask) String() string { return word(masks, m) }

// String is the word that stands for k in fields.yaml.
func (k KDF) String() string { return word(kdfs, k) }

// String is the word that stands for s in fields.yaml.
func (s Sentinel) String() string { return word(sentinels, s) }

// ParseSentinel gives what a word of fields.yaml means, and false for any other word.
func ParseSentinel(text string) (Sentinel, bool) {
	for _, w := range sentinels {
		if w.word == text {
			return w.value, true
		}
	}
	return SentinelOff, false
}

// String is the word that stands for r in fields.yaml.
func (r Reveal) String() string { return word(reveals, r) }

// named is one word of fields.yaml and what it means.
type named[T comparable] struct {
	word  string
	value T
}

var (
	modes   = []named[Mode]{{"encrypt", Encrypt}, {"drop", Drop}}
	masks   = []named[Mask]{{"full", MaskFull}, {"last4", MaskLast4}, {"first6last4", MaskFirst6Last4}, {"email", MaskEmail}}
	kdfs    = []named[KDF]{{"hkdf", HKDF}, {"scrypt-per-subject", ScryptPerSubject}}
	reveals = []named[Reveal]{{"plain", Plain}, {"masked", Masked}, {"sealed", Sealed}}
	scripts = []named[bool]{{"refuse", false}, {"allow", true}}

	sentinels = []named[Sentinel]{{"off", SentinelOff}, {"on", SentinelOn}, {"required", SentinelRequired}}
)

func word[T comparable](words []named[T], v T) string {
	for _, w := range words {
		if w.value == v {
			return w.word
		}
	}
	return "unknown"
}

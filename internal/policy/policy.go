// Package policy holds what the operator wrote in fields.yaml: which values are
// protected, in which indices, under which subject, and who may see them.
//
// A Policy is plain immutable data. It is built once by Parse, shared by all
// requests without locks, and replaced as a whole when the file changes.
package policy

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
	Fields       []*Field

	ordinal int
}

// Grant is a named set of reveals. Exact "rule.field" entries beat "rule.*", which beat "*".
type Grant struct {
	Name   string
	Reveal map[string]Reveal
}

// Policy is everything the operator wrote.
type Policy struct {
	Rules  []*Rule
	Grants map[string]*Grant
}

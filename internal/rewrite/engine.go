package rewrite

import (
	"context"
	"io"

	"github.com/esproxy/esproxy/internal/policy"
)

// Sealer makes sealed values. It is safe for concurrent use.
type Sealer interface {
	// NewDocument begins the values of one document under one rule: a fresh DEK.
	// subject is nil when the rule names none. ErrBusy means: try later (429).
	NewDocument(rule *policy.Rule, subject []byte) (DocumentSealer, error)
	// IsToken reports whether s matches the reserved token grammar.
	IsToken(s []byte) bool
}

// DocumentSealer seals the values of one document. It is for one goroutine.
type DocumentSealer interface {
	// Seal appends the token (without quotes) for the JSON value at the canonical path.
	Seal(dst []byte, path string, value []byte) ([]byte, error)
	// Close forgets the DEK.
	Close()
}

// Opener opens sealed values. It is safe for concurrent use.
type Opener interface {
	// NewSession returns a session that may reuse work between values that share a header.
	NewSession() OpenSession
}

// OpenSession opens the values of one reply. It is for one goroutine.
type OpenSession interface {
	// Open appends the JSON value that token holds if it authenticates under rule, path and
	// subject (nil when the rule names none). An error may have a method Reason() string that gives its
	// class for metrics, such as "unknown_key"; "busy" means: try later (429). Without one it is "auth".
	Open(dst []byte, rule *policy.Rule, path string, subject, token []byte) ([]byte, error)
	// Close forgets keys.
	Close()
}

// Viewer is what one caller may see; nil means a caller without a grant.
// It is safe for concurrent use.
type Viewer interface {
	// Reveal says how f is shown to the caller.
	Reveal(f *policy.Field) policy.Reveal
	// Mask appends the masked form, one JSON string, of the JSON value.
	Mask(dst []byte, f *policy.Field, value []byte) []byte
}

// Caller sends small requests to Elasticsearch with the credentials of the client
// whose request is being served. It is safe for concurrent use.
type Caller interface {
	// Do sends one request and returns the status and at most max bytes of the body; a longer body
	// is an error. path is escaped and begins with a slash; it may carry a query.
	Do(ctx context.Context, method, path string, body []byte, max int64) (status int, reply []byte, err error)
}

// Resolved is what a name in a request stands for.
type Resolved struct {
	// Names are all names under which a rule may claim the target: the name itself, the
	// indices, aliases and data streams it resolves to, and those that resolve to the same index.
	Names []string
	// Write is the concrete index that a write to the name goes to, "" if it is not known or does not exist yet.
	Write string
	// Routing is what a document is written or looked up with there when the request gives no routing: an alias can have one.
	Routing string
	// System is set when every name begins with a dot and is no backing index of a data stream.
	System bool
	// Failures is set when the name reaches the failure store of a data stream: what failed rests there below
	// document.source, in the form in which it was sent.
	Failures bool
}

// Ref names one document.
type Ref struct {
	Index, ID, Routing string
}

// Stored is one document as a look-up found it.
type Stored struct {
	Found       bool
	Index       string // concrete index
	SeqNo       int64
	PrimaryTerm int64
	Source      []byte // the requested paths of _source, as JSON; nil when there is none
}

// Cluster answers questions about the cluster, from a cached view where it can.
// It is safe for concurrent use. Errors are *Fault (503 when the cluster did not answer).
type Cluster interface {
	// Resolve tells what one name (no comma, no wildcard; date math is allowed) stands for.
	Resolve(ctx context.Context, name string) (Resolved, error)
	// Expand tells all names that an index expression (commas, wildcards, exclusions, _all, "" for all)
	// reaches, with those of Resolve for each. An expression it can't expand gives an error.
	Expand(ctx context.Context, expression string) (Resolved, error)
	// Ready is called before a write goes to a target that rules protect. It makes sure, once per
	// target, that the protected fields are mapped and that stored values lie under a loaded key.
	Ready(ctx context.Context, caller Caller, name string, rules []*policy.Rule) error
	// Documents looks up stored documents, realtime, in the order of refs, with the caller's
	// credentials and after a 403 with the proxy's own. paths limit what _source holds.
	Documents(ctx context.Context, caller Caller, refs []Ref, paths []string) ([]Stored, error)
	// Read asks for a path with GET, with the caller's credentials and after a refusal with the proxy's own: for what a
	// request refers to by its name, such as stored scripts. The answer is not for the client. A body over max bytes is an error.
	Read(ctx context.Context, caller Caller, path string, max int64) (status int, body []byte, err error)
	// Changed tells that a request may have changed indices, aliases, data streams, templates or mappings:
	// the next question is answered from a view that is younger than the call.
	Changed()
}

// Budget is the memory that bodies of all requests share.
type Budget interface {
	// Acquire waits until n bytes are free. It gives a 429 *Fault when it waited too long.
	Acquire(ctx context.Context, n int64) error
	// TryAcquire is Acquire for what can be done without: it reports at once whether n bytes were free.
	TryAcquire(n int64) bool
	// Release gives n bytes back.
	Release(n int64)
}

// Counter counts events for metrics and the audit line. It is safe for concurrent use.
type Counter interface {
	// Sealed counts values sealed of a field.
	Sealed(f *policy.Field, n int)
	// Opened counts values shown of a field, plain or masked, from index.
	Opened(f *policy.Field, how policy.Reveal, index string, n int)
	// Unopened counts values that stayed sealed for a caller with a grant, by reason.
	Unopened(reason string, n int)
	// Refused counts refused requests and items by fault type.
	Refused(faultType string)
}

// Limits bound memory. All are bytes.
type Limits struct {
	MaxDocument int64 // one document or bulk line
	MaxHit      int64 // one hit of a reply
}

// Engine makes plans. Its fields are set before its first use; from then on it is safe for concurrent use.
type Engine struct {
	Policy  *policy.Policy
	Sealer  Sealer
	Opener  Opener
	Cluster Cluster
	Budget  Budget
	Limits  Limits
	// PublishAddress is the "host:port" that stands for the HTTP addresses of nodes in replies; "" means the one that the client used.
	PublishAddress string
	// PassAddresses leaves the HTTP addresses of nodes in replies as they are.
	PassAddresses bool
	// Turns, if not nil, keeps writes apart from changes of names.
	Turns *Turns
	// CanHaveSentinels tells whether the cluster can, and if not, why; nil: it can.
	CanHaveSentinels func(ctx context.Context) (ok bool, why string)

	compiled compiled
}

// Call is what is known of a request before its body is read.
type Call struct {
	Method          string
	Path            string // raw and escaped as received, beginning with a slash
	Query           string // raw, without the question mark
	ContentType     []string
	ContentEncoding []string
	Accept          []string
	HasBody         bool // a Content-Length above zero or chunked
	// Authority is the "host:port" that the client reached the proxy by; "" when its Host header is none.
	Authority string
	Viewer    Viewer
	Caller    Caller
	Counter   Counter
}

// Plan is what to do with one request. A plan serves one request and is not for concurrent use.
type Plan struct {
	Route string // the table's path template, for metrics; bounded in number
	// API is the name of the Elasticsearch API, for example "search".
	API string
	// Target is the method, path and query that go upstream. A Transform may change it until its
	// Request has returned or written its first byte.
	Target Target
	// ContentType, if not "", is that of a body which the client did not send. Known when Target is.
	ContentType string
	// Transform is nil when both bodies pass untouched and undecoded.
	Transform Transform
	// Looks is true when the Transform writes the body as it reads it or refuses it: what the client sent may then go up
	// as it came, packed.
	Looks bool
	// Done, if not nil, is to be called before the first byte of the reply goes to the client, and when the
	// exchange is over, whatever came of it.
	Done func()
}

// Target is a request line: method, raw path and raw query.
type Target struct {
	Method, Path, Query string
}

// Transform carries the bodies of one request. Its methods are called in order by one goroutine,
// except that Reply may be called while Request still runs.
type Transform interface {
	// Request reads the decoded body and writes what goes upstream. It changes plan.Target before
	// the first byte, if at all. An error before the first byte is answered to the client (a *Fault as it
	// is, others as 502 or 400 by the proxy); after it the upstream request is cut.
	// Another goroutine may read or write for a time, never two at once. A body that has a method Stop() can be made to fail while it is
	// read: the transform calls it when it has failed elsewhere.
	// Answered is true when the transform makes the whole reply itself and nothing goes upstream.
	Request(ctx context.Context, plan *Plan, body io.Reader, up io.Writer) (answered bool, err error)
	// Reply is asked when the reply's head is there. It returns nil when the reply passes untouched,
	// and else a function that rewrites the decoded body. Reply is called with status 200 and a nil
	// upstream body when Request answered.
	// again asks for the whole exchange to be repeated: Request is then called with a nil body.
	Reply(ctx context.Context, head ReplyHead) (rewrite func(in io.Reader, out io.Writer) error, again bool, err error)
	// Close gives back memory and keys. It is called exactly once.
	Close()
}

// ReplyHead is what the plan needs of a reply's head.
type ReplyHead struct {
	Status      int
	ContentType string
}

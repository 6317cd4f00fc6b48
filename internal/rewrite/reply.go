package rewrite

import (
	"bytes"
	"context"
	"errors"
	"io"

	"github.com/esproxy/esproxy/internal/policy"
)

// replyKind says which grammar a reply follows from its root.
type replyKind uint8

const (
	replySearch   replyKind = iota // hits.hits[], aggregations
	replyGet                       // the root is a hit
	replySource                    // the root is the document
	replyMget                      // docs[], each a hit
	replyMsearch                   // responses[], each a search reply
	replyUpdate                    // get beside _index and _id
	replyExplain                   // the same, of _explain
	replyAsync                     // response, a search reply
	replyRankEval                  // details, by ids of the client's: hits[].hit
	replyTable                     // columns and rows of SQL and ES|QL
	replyEvents                    // hits.events[] and hits.sequences[] of EQL
)

// opening opens the sealed values of one reply. Values are opened in slots alone: places where the
// endpoint's grammar, followed from the root, makes the server write a document. A document, an aggregation's value or
// a highlight may look like a reply and never is one.
type opening struct {
	eng     *Engine
	viewer  Viewer
	caller  Caller
	counter Counter
	kind    replyKind

	// index, id and routing are the request's, for replies that do not tell their own; "" otherwise.
	index, id, routing string
	// fallback are the rules for hits without _index (filter_path can cut it) when index is "": set only when every
	// target of the request is under exactly these.
	fallback *target
	// typedKeys is set when the request asked for typed_keys: names of aggregations then begin with their type.
	typedKeys bool
	// topHits are the places of top_hits aggregations, known from the request's body, for replies without typed keys:
	// names from the root's aggregations on, with bucketStep after each one that answers with buckets.
	topHits [][]string
	// sourceWhole is set when nothing of the request filters _source or the reply, so that a document which shows
	// no subject has none.
	sourceWhole bool
	// tableRules are the rules under which cells of a table may open, columnar tells that its values are columns, and
	// unknownForm that it is not known which they are.
	tableRules            []*policy.Rule
	columnar, unknownForm bool
	// soloUnits, if not 0, stands for the constant of that name.
	soloUnits int
}

const (
	// maxBlock is how many hits wait for one look-up of subjects.
	maxBlock = 512
	// maxHeld is how many bytes of output wait for it.
	maxHeld = 256 << 10
	// maxAggs is the depth to which aggregations are followed.
	maxAggs = 64
)

// Reasons for Counter.Unopened.
const (
	notStrict    = "not_strict_json"
	tooLarge     = "too_large"
	noGrant      = "no_grant"
	noSubject    = "no_subject"
	lookupFailed = "lookup_failed"
	notAuthentic = "auth"
	twiceThere   = "duplicate_member"
	noColumns    = "no_columns"
	keysBusy     = "busy" // of an OpenSession: too many keys are being derived at once
)

// rewrite copies the reply from in to out and opens what the caller may see. An error of in, of out or of the
// memory budget is returned and means that the reply was cut.
func (o *opening) rewrite(ctx context.Context, in io.Reader, out io.Writer) error {
	r := newReplier(ctx, o, newStream(ctx, in, out, o.eng.Budget))
	r.mayShare = true
	defer r.close()
	err := r.root()
	if err == nil {
		err = r.s.finish()
	}
	if isNotStrict(err) {
		r.unopened(notStrict, 1)
		if err = r.release(); err == nil {
			err = r.s.passRest()
		}
	}
	if err == nil {
		err = r.release()
	}
	if err == nil && r.crew != nil {
		err = r.crew.finish()
	}
	if err == nil {
		err = r.s.flush()
	}
	return err
}

// isNotStrict tells text that is not strict JSON from failures of a reader, a writer or the budget.
func isNotStrict(err error) bool {
	var syntax *syntaxError
	return errors.Is(err, errShort) || errors.As(err, &syntax)
}

// replier is the work on one reply.
type replier struct {
	hand
	s       *stream
	ctx     context.Context
	h       hitReader
	u       unit
	targets map[string]*shownTarget // by the JSON text of the index name
	last    []byte                  // the name asked for last, and its target
	lastT   *shownTarget
	held    []heldUnit
	big     []byte // buffers for output that is held and that is not, whichever is not in use
	small   []byte
	counts  map[string]int

	second   bool  // a unit was read before
	mayShare bool  // the reply may be opened by several goroutines
	solo     int   // units that were opened without a crew
	crew     *crew // nil: this goroutine opens all
}

// heldUnit is a unit in the stream's output that waits for a look-up or a worker.
type heldUnit struct {
	base int
	u    unit
}

func newReplier(ctx context.Context, o *opening, s *stream) *replier {
	r := &replier{hand: hand{o: o, session: o.eng.Opener.NewSession()}, s: s, ctx: ctx, targets: map[string]*shownTarget{}, counts: map[string]int{}}
	s.full = r.release
	r.h = hitReader{u: &r.u, resolve: r.target, whole: o.sourceWhole}
	return r
}

// close tells the counter what was done and forgets keys and plaintext.
func (r *replier) close() {
	if c := r.crew; c != nil { // after an error or a panic
		c.close()
		defer c.failure() // a panic of a worker's, which goes on when all is given back
	}
	r.hand.close()
	for _, t := range r.targets {
		if t == nil || r.o.counter == nil {
			continue
		}
		for i := range t.fields {
			if f := &t.fields[i]; f.opened > 0 {
				r.o.counter.Opened(f.field, f.how, t.index, f.opened)
			}
		}
	}
	for reason, n := range r.counts {
		if r.o.counter == nil {
			break
		}
		r.o.counter.Unopened(reason, n)
	}
	clear(r.big[:cap(r.big)])
	r.s.close()
}

func (r *replier) unopened(reason string, n int) {
	if n > 0 {
		r.counts[reason] += n
	}
}

// tally counts what became of a unit's tokens.
func (r *replier) tally(u *unit) {
	for i := range u.tokens {
		if p := &u.tokens[i]; p.shown {
			p.field.opened++
		} else if p.reason != "" {
			r.unopened(p.reason, 1)
		}
	}
}

// target gives what is protected in the index whose name is the JSON string index, nil where nothing is.
func (r *replier) target(index []byte) *shownTarget {
	if r.last != nil && bytes.Equal(index, r.last) {
		return r.lastT
	}
	t, ok := r.targets[string(index)]
	if !ok {
		t = r.newTarget(index)
		r.targets[string(index)] = t
	}
	r.last, r.lastT = append(r.last[:0], index...), t
	return t
}

func (r *replier) newTarget(index []byte) *shownTarget {
	name := r.o.index
	if index != nil {
		name = string(unescape(nil, index[1:len(index)-1]))
	}
	var t *target
	switch {
	case name != "":
		t = r.o.eng.hitTarget(r.ctx, name)
	case index == nil:
		t = r.o.fallback
	}
	if t == nil {
		return nil
	}
	return r.shown(t, name)
}

// shown tells what the caller may see of a target.
func (r *replier) shown(t *target, name string) *shownTarget {
	shown := &shownTarget{target: t, index: name}
	_, shown.remote = onRemote(name)
	for i, rule := range t.rules {
		for _, f := range rule.Fields {
			how := policy.Sealed
			if r.o.viewer != nil {
				how = r.o.viewer.Reveal(f)
			}
			shown.fields = append(shown.fields, shownField{field: f, rule: i, how: how})
		}
	}
	return shown
}

// root follows the grammar of the endpoint.
func (r *replier) root() error {
	if _, err := r.s.peek(); err != nil {
		return err
	}
	switch r.o.kind {
	case replyGet:
		return r.unit(r.readHit)
	case replyUpdate, replyExplain:
		return r.unit(r.readAround)
	case replySource:
		return r.unit(r.h.document)
	case replyMget:
		return r.only("docs", func() error { return r.hits(r.readHit) })
	case replyMsearch:
		return r.only("responses", func() error { return r.s.array(r.search) })
	case replyRankEval:
		return r.only("details", func() error {
			return r.s.object(func([]byte) error {
				return r.only("hits", func() error {
					return r.s.array(func() error { return r.only("hit", func() error { return r.unit(r.readHit) }) })
				})
			})
		})
	case replyAsync:
		return r.only("response", r.search)
	case replyTable:
		return r.table()
	case replyEvents:
		return r.events()
	}
	return r.search()
}

func (r *replier) readHit(pos int) (int, error) { return r.h.hit(pos, formHit, -1) }

func (r *replier) readAround(pos int) (int, error) { return r.h.hit(pos, formAround, -1) }

// only walks an object and calls f for the one member of that name. A second one is copied.
func (r *replier) only(want string, f func() error) error {
	there := false
	return r.s.object(func(name []byte) error {
		if there || string(name) != want {
			return r.s.copyValue()
		}
		there = true
		return f()
	})
}

// search reads a search reply.
func (r *replier) search() error {
	var hits, aggs bool
	return r.s.object(func(name []byte) error {
		switch {
		case !hits && string(name) == "hits":
			hits = true
			return r.only("hits", func() error { return r.hits(r.readHit) })
		case !aggs && string(name) == "aggregations":
			aggs = true
			if r.o.typedKeys {
				return r.typedAggs(0)
			}
			if len(r.o.topHits) > 0 {
				return r.plainAggs(r.o.topHits)
			}
		}
		return r.s.copyValue()
	})
}

func (r *replier) hits(read func(pos int) (int, error)) error {
	return r.s.array(func() error { return r.unit(read) })
}

// topHitsBody reads the body of a top_hits aggregation. Its hits have a _source filter of their own.
func (r *replier) topHitsBody() error {
	whole := r.h.whole
	r.h.whole = false
	err := r.only("hits", func() error {
		return r.only("hits", func() error { return r.hits(r.readHit) })
	})
	r.h.whole = whole
	return err
}

// unit reads one unit, opens it and puts it out.
func (r *replier) unit(read func(pos int) (int, error)) error { return r.unitOf('{', read) }

// unitOf does so for a unit that begins with the given byte.
func (r *replier) unitOf(first byte, read func(pos int) (int, error)) error {
	c, err := r.s.peek()
	if err != nil {
		return err
	}
	if c != first {
		return r.s.copyValue()
	}
	limit := r.o.eng.Limits.MaxHit
	end, err := r.try(read, r.s.buf[r.s.pos:r.s.end])
	if errors.Is(err, errShort) {
		raw, ok, cerr := r.s.capture(limit)
		if cerr != nil {
			return cerr
		}
		if !ok {
			r.unopened(tooLarge, 1)
			return nil
		}
		end, err = r.try(read, raw)
	}
	if err != nil {
		return err
	}
	if int64(end) > limit {
		r.unopened(tooLarge, 1)
		return r.s.pass(end)
	}
	raw := r.s.buf[r.s.pos : r.s.pos+end]
	r.s.drop(end)
	if err := r.put(raw); err != nil {
		return err
	}
	r.s.shrink()
	return nil
}

func (r *replier) try(read func(pos int) (int, error), b []byte) (int, error) {
	r.u.reset()
	r.h.b, r.h.twice = b, 0
	if r.second { // the first one is often the only one, and to note its names costs more than to read it
		if r.h.told == nil {
			r.h.told = new(told)
		}
		r.h.told.next = 0
	}
	r.second = true
	end, err := read(0)
	if err == nil {
		r.unopened(twiceThere, r.h.twice)
	}
	return end, err
}

package rewrite

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// maxBadItems is how many items of one bulk may be refused before the whole request is.
const maxBadItems = 10_000

// maxOut is how much of a block waits sealed: tiny values grow tenfold.
const maxOut = 1 << 20

// sealedSize is what a block becomes most of the time: two to two and a half times as long.
const sealedSize = sealedBlock * 5 / 2

// keepPlaces is how long a bulk believes what a name stands for: a body may stream for hours.
const keepPlaces = time.Second

// maxActionLine bounds one action line.
const maxActionLine = 64 << 10

// item is one bulk action with its source line, while its block is being dealt with.
type item struct {
	action
	lead      int  // place after the item before: blank lines may lie between
	line, src span // places in the block
	ordinal   int
	place     *bulkPlace
	fault     *Fault
	doc       part
	update    *updateBody
	look      int // 1 + place in the block's look-ups, 0: none
}

// end is the place after the item in the block.
func (it *item) end() int {
	if it.kind == actionDelete {
		return it.line.end + 1
	}
	return it.src.end + 1
}

// bulk carries one `_bulk` request.
type bulk struct {
	eng      *Engine
	call     *Call
	writing  *writing
	index    string // default index, from path or query
	routing  string // default routing
	query    string // of the request, for repeated items
	filter   *filterPath
	opening  *opening // opens what updates return; nil when the caller may not see anything
	started  time.Time
	finished atomic.Bool

	lines  *lines
	places map[string]*bulkPlace
	first  map[string]*target // by index: the rules when this bulk first met it
	placed time.Time          // when places was begun
	last   *bulkPlace
	known  *known
	main   *stage
	second *stage // nil as long as one goroutine deals with all blocks
	relay  *relay // of the two

	total   int
	bad     []badItem
	badHeld int64 // bytes of budget for them
	sources bool  // an update asks for _source
	again   repeats
	wrote   bool
}

// bulkPlace is a place with what hinders writes to it.
type bulkPlace struct {
	place
	moved bool // see bulk.moved
	fault *Fault
	ready bool
}

// Request implements Transform.
func (t *bulk) Request(ctx context.Context, plan *Plan, body io.Reader, up io.Writer) (answered bool, err error) {
	t.lines = newLines(ctx, body, t.eng.Budget, t.eng.Limits.MaxDocument)
	t.lines.pooled = true
	t.places = make(map[string]*bulkPlace)
	t.main = t.newStage()
	t.known = &t.main.memory
	if err = t.run(ctx, up); err != nil {
		return false, err
	}
	t.finished.Store(true)
	if t.total > 0 && len(t.bad) == t.total {
		return t.allBad(ctx)
	}
	if !t.wrote {
		// Nothing but blank lines, or nothing at all: Elasticsearch says what is wrong.
		_, err = up.Write(t.lines.buf)
	}
	return false, err
}

// allBad answers without Elasticsearch, which is only asked whether it knows the caller.
func (t *bulk) allBad(ctx context.Context) (answered bool, err error) {
	status, _, err := t.call.Caller.Do(ctx, "GET", "/_cluster/health?filter_path=status", nil, 1<<16)
	if err != nil {
		return false, err
	}
	if status == 401 {
		return false, &Fault{Status: 401, Type: "security_exception", Reason: "Elasticsearch does not accept the credentials of this request"}
	}
	return true, nil
}

// frameFault refuses a body whose framing or action lines are broken.
func frameFault(ordinal int, err error) *Fault {
	what := "it is too long"
	if !errors.Is(err, errLongLine) {
		what = documentFault(err).Reason
		var s *syntaxError
		if errors.As(err, &s) {
			what = s.Error()
		} else if errors.Is(err, errShort) {
			what = "it ends too early"
		}
	}
	return &Fault{Status: 400, Type: "esproxy_bad_bulk", Reason: "Malformed action/metadata line of action [" + strconv.Itoa(ordinal) + "] (counted from 0): " + what + "; an action line is exactly one object with one action and ends in a newline"}
}

// readBlock reads whole items until the block is full. more is false at the end of the body.
func (s *stage) readBlock(ctx context.Context, up io.Writer) (more bool, err error) {
	s.block = s.block[:0]
	if now := time.Now(); now.Sub(s.placed) > keepPlaces {
		clear(s.places)
		s.last, s.placed = nil, now
	}
	l := s.lines
	l.whole = false
	lead := l.start
	for {
		line, err := l.next()
		switch {
		case err == io.EOF:
			s.trail = span{lead, l.start}
			return false, nil
		case err == errBlockFull:
			l.back(lead)
			return true, nil
		case err == io.ErrUnexpectedEOF:
			return false, unterminatedFault()
		case err == errLongLine:
			return false, frameFault(s.total, err)
		case err != nil:
			return false, err
		}
		text := l.buf[line.start:line.end]
		if blank(text) {
			if l.start-lead > blockSize/2 { // a body of nothing else must not fill the memory
				lead = l.start
				if !l.whole {
					l.discard()
					lead = 0
				}
			}
			continue
		}
		if len(text) > maxActionLine {
			return false, frameFault(s.total, errLongLine)
		}
		if len(s.block) < cap(s.block) {
			s.block = s.block[:len(s.block)+1]
		} else {
			s.block = append(s.block, item{})
		}
		s.most = max(s.most, len(s.block))
		it := &s.block[len(s.block)-1]
		if err := s.scan.parseAction(text, &it.action); err != nil {
			return false, frameFault(s.total, err)
		}
		if it.routing == "" {
			it.routing = s.routing
		}
		it.lead, it.line, it.src, it.ordinal, it.fault, it.look = lead, line, span{}, s.total, nil, 0
		pl := s.placeOf(ctx, it.index)
		it.place = pl
		if pl.t != nil {
			l.toSeal()
		}
		if it.routing == "" {
			it.routing = pl.route
		}
		if pl.fault != nil {
			it.fault = pl.fault
		}
		if it.kind != actionDelete {
			it.src, err = l.next()
			switch {
			case err == errBlockFull:
				l.back(lead)
				s.block = s.block[:len(s.block)-1]
				return true, nil
			case err == errLongLine:
				s.total++
				return true, s.longLine(ctx, up)
			case err == io.EOF, err == io.ErrUnexpectedEOF:
				return false, unterminatedFault()
			case err != nil:
				return false, err
			}
		}
		s.total++
		l.whole = true
		lead = l.start
	}
}

// longLine deals with the last item of the block, whose source line is over the limit: the block before
// it is sent, and the line is skipped, or passed when no rule applies to it.
func (s *stage) longLine(ctx context.Context, up io.Writer) error {
	it := s.block[len(s.block)-1]
	s.buf, s.ahead = s.lines.buf, false
	action := append([]byte(nil), s.buf[it.lead:it.line.end+1]...)
	s.block = s.block[:len(s.block)-1]
	if err := s.sendBlock(ctx, up); err != nil {
		return err
	}
	s.block = s.block[:0]
	if it.place.t == nil && it.fault == nil {
		s.wrote = true
		if _, err := up.Write(action); err != nil {
			return err
		}
		return s.skip(up)
	}
	if it.fault == nil {
		it.fault = tooLargeFault(s.eng.Limits.MaxDocument)
	}
	if err := s.reject(&it); err != nil {
		return err
	}
	return s.skip(nil)
}

// skip passes a long line to w, or nowhere.
func (t *bulk) skip(w io.Writer) error {
	err := t.lines.skip(w)
	if err == io.ErrUnexpectedEOF {
		return unterminatedFault()
	}
	return err
}

func unterminatedFault() *Fault {
	return &Fault{Status: 400, Type: "illegal_argument_exception", Reason: "The bulk request must be terminated by a newline [\\n]"}
}

// placeOf resolves the index of an action.
func (t *bulk) placeOf(ctx context.Context, index string) *bulkPlace {
	if index == "" {
		index = t.index
	}
	if t.last != nil && t.last.name == index {
		return t.last
	}
	pl, ok := t.places[index]
	if !ok {
		pl = &bulkPlace{place: place{name: index}}
		if index != "" { // without a name Elasticsearch refuses the item itself
			err := t.writing.enter(ctx, index)
			var found *place
			if err == nil {
				found, err = t.eng.place(AsOf(ctx, t.placed), index)
			}
			if err != nil {
				pl.fault = asFault(err)
			} else {
				pl.place = *found
				pl.moved = t.moved(found)
			}
		}
		if len(t.places) > 10_000 {
			clear(t.places)
		}
		t.places[index] = pl
	}
	t.last = pl
	return pl
}

// moved reports whether other rules apply to the place than when this bulk first met its index: what known remembers
// of its documents is then told by rules that are gone.
func (t *bulk) moved(pl *place) bool {
	first, ok := t.first[pl.index]
	if !ok {
		if t.first == nil {
			t.first = make(map[string]*target)
		}
		if len(t.first) >= 10_000 {
			return true // not remembered; only updates that need another item's document are refused for it
		}
		t.first[pl.index] = pl.t
		return false
	}
	return first != pl.t
}

// sendBlock reads the block's documents, looks up what they need, seals them and sends them.
func (s *stage) sendBlock(ctx context.Context, up io.Writer) error {
	s.out = s.out[:0]
	if s.untouched() {
		// Nothing to seal, nothing refused: the block goes up as it is, without a copy.
		if !s.toWrite() {
			return errOver
		}
		s.wrote = true
		end := s.block[len(s.block)-1].end()
		if s.trail.there() {
			end = s.trail.end
		}
		_, err := up.Write(s.buf[s.block[0].lead:end])
		return err
	}
	if cap(s.out) == 0 && len(s.buf) > sealedBlock/2 {
		s.out = make([]byte, 0, sealedSize) // to grow to it would leave as much garbage
	}
	seal := s.sealBlock
	if s.ahead {
		seal = s.sealAhead
	}
	if err := seal(ctx, up); err != nil {
		return err
	}
	if s.trail.there() && (s.wrote || len(s.out) > 0) {
		s.out = append(s.out, s.buf[s.trail.start:s.trail.end]...)
	}
	if len(s.out) == 0 {
		return nil
	}
	s.wrote = true
	_, err := up.Write(s.out)
	return err
}

// prepare reads the block's documents and looks up what they need.
func (s *stage) prepare(ctx context.Context) {
	s.refs, s.lookErr = s.refs[:0], nil
	clear(s.paths)
	for i := range s.block {
		it := &s.block[i]
		if it.fault == nil && it.place.t != nil {
			s.readItem(ctx, it)
		}
	}
	if len(s.refs) == 0 {
		return
	}
	paths := make([]string, 0, len(s.paths))
	for p := range s.paths {
		paths = append(paths, p)
	}
	s.stored, s.lookErr = s.eng.Cluster.Documents(ctx, s.call.Caller, s.refs, paths)
	if s.lookErr == nil && len(s.stored) != len(s.refs) {
		s.lookErr = &Fault{Status: 503, Type: "esproxy_lookup_failed", Reason: "the look-up of stored documents was not answered whole; try again"}
	}
}

// sealBlock seals the items of a block that depend on others, or on the cluster.
func (s *stage) sealBlock(ctx context.Context, up io.Writer) error {
	if !s.toWrite() {
		return errOver
	}
	s.prepare(ctx)
	for i := range s.block {
		it := &s.block[i]
		if it.fault == nil {
			size := len(s.out)
			if err := s.sealItem(ctx, it); err != nil {
				s.out = s.out[:size]
				it.fault = asFault(err)
			}
		}
		if it.fault != nil {
			if err := s.reject(it); err != nil {
				return err
			}
		}
		if err := s.spill(up); err != nil {
			return err
		}
	}
	return nil
}

// spill writes the output when much of it waits.
func (s *stage) spill(up io.Writer) error {
	if len(s.out) <= maxOut {
		return nil
	}
	s.wrote = true
	if _, err := up.Write(s.out); err != nil {
		return err
	}
	if s.out = s.out[:0]; cap(s.out) > 4*maxOut {
		s.out = nil // after a very large document
	}
	return nil
}

// untouched reports whether all items of the block are for targets without rules.
func (s *stage) untouched() bool {
	for i := range s.block {
		if it := &s.block[i]; it.place.t != nil || it.fault != nil {
			return false
		}
	}
	return len(s.block) > 0
}

// reject remembers a refused item.
func (t *bulk) reject(it *item) error {
	if it.fault.Status == 401 {
		return it.fault // Elasticsearch would not have read one item
	}
	if !t.filter.perItem() {
		return &Fault{Status: 400, Type: it.fault.Type, Reason: "action [" + strconv.Itoa(it.ordinal) + "] (counted from 0) is refused, and the parameter [filter_path] leaves no entry for each item in which to say so: " + it.fault.Reason}
	}
	if len(t.bad) >= maxBadItems {
		return &Fault{Status: 400, Type: "esproxy_bad_bulk", Reason: "more than " + strconv.Itoa(maxBadItems) + " items of this bulk are refused; the last: " + it.fault.Reason}
	}
	if t.call.Counter != nil {
		t.call.Counter.Refused(it.fault.Type)
	}
	name := it.index
	if name == "" {
		name = t.index
	}
	// An id may be as long as its line.
	cost := int64(len(name)+len(it.id)) + 256
	if err := t.eng.Budget.Acquire(t.lines.ctx, cost); err != nil {
		return err
	}
	t.badHeld += cost
	t.bad = append(t.bad, badItem{ordinal: it.ordinal, action: it.kind.String(), index: strings.Clone(name), id: strings.Clone(it.id), hasID: it.hasID, fault: it.fault})
	return nil
}

// Reply implements Transform.
func (t *bulk) Reply(ctx context.Context, head ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
	if head.Status != 200 {
		return nil, false, nil
	}
	if !t.finished.Load() {
		return nil, false, &Fault{Status: 502, Type: "esproxy_upstream_failed", Reason: "Elasticsearch answered a bulk before it had read it; nothing is known of its items"}
	}
	s := &splice{bad: t.bad, total: t.total, filter: t.filter, counter: t.call.Counter, budget: t.eng.Budget, limit: t.eng.Limits.MaxHit}
	if t.total > 0 && len(t.bad) == t.total {
		return func(_ io.Reader, out io.Writer) error {
			return s.own(out, time.Since(t.started).Milliseconds())
		}, false, nil
	}
	if t.sources {
		s.open = t.opening
	}
	// A reply that lacks entries does not tell which item one is of; the conflict is the client's then.
	if t.again.any() && t.filter.perItem() {
		s.wanted = t.again.wanted
		s.replace = func(ordinal int, item []byte) ([]byte, error) { return t.again.replace(ctx, t, ordinal, item) }
	}
	if len(s.bad) == 0 && s.open == nil && s.replace == nil {
		return nil, false, nil
	}
	return func(in io.Reader, out io.Writer) error { return s.rewrite(ctx, in, out) }, false, nil
}

// Close implements Transform.
func (t *bulk) Close() {
	if t.lines != nil {
		t.lines.close()
	}
	t.again.close()
	for _, stage := range []*stage{t.main, t.second} {
		if stage != nil {
			stage.close()
		}
	}
	t.main, t.second, t.known = nil, nil, nil
	if t.badHeld > 0 {
		t.eng.Budget.Release(t.badHeld)
		t.badHeld = 0
	}
}

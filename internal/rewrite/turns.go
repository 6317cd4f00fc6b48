package rewrite

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Turns lets writes and changes of names take turns. A write is judged by what its target's name stands for; if an alias
// were moved to a protected index before Elasticsearch has executed it, plaintext would lie there. So a change that brings a
// rule to a name waits for the writes to that name which are under way, and later ones wait for the change.
//
// All engines of a process share one Turns, also across reloads. It knows nothing of other processes. A nil Turns lets
// everything through. It is safe for concurrent use.
type Turns struct {
	// Patience is how long a change waits for writes, and a write for a change; 0 means 20 s.
	Patience time.Duration

	mu      sync.Mutex
	ended   chan struct{} // closed when somebody's turn ends
	writes  map[*writing]struct{}
	changes map[*nameChange]struct{}
	begun   int // changes so far
}

// writing is one request that writes, from when its target is judged until it is answered. names are those of its targets.
type writing struct {
	turns *Turns
	names []string // sorted; under turns.mu
	many  bool     // more names than are remembered: it may write to any
}

// maxTurnNames bounds what is remembered of one request.
const maxTurnNames = 10_000

// nameChange is one request that changes what names stand for.
type nameChange struct {
	number int
	names  []string // sorted
	going  bool     // no write to the names is under way
}

// meets reports whether a write to name may go where the change matters. Of expressions and date math it is not known.
func (c *nameChange) meets(name string) bool {
	if base, _, ok := strings.Cut(name, "::"); ok && !strings.HasPrefix(name, "<") {
		name = base
	}
	_, found := slices.BinarySearch(c.names, name)
	return found || strings.ContainsAny(name, "<*,") || name == "_all" || name == ""
}

// holdsUp reports whether the change has to wait for w.
func (c *nameChange) holdsUp(w *writing) bool { return w.many || slices.ContainsFunc(w.names, c.meets) }

func (c *nameChange) overlaps(o *nameChange) bool { return slices.ContainsFunc(o.names, c.meets) }

func busyFault(reason string) *Fault {
	return &Fault{Status: 503, Type: "esproxy_names_busy", Reason: reason}
}

// wait gives up the lock until somebody's turn ends.
func (t *Turns) wait(ctx context.Context, until <-chan time.Time, reason string) error {
	if t.ended == nil {
		t.ended = make(chan struct{})
	}
	ended := t.ended
	t.mu.Unlock()
	defer t.mu.Lock()
	select {
	case <-ended:
		return nil
	case <-until:
		return busyFault(reason)
	case <-ctx.Done():
		return busyFault(reason)
	}
}

// wake is called with the lock held.
func (t *Turns) wake() {
	if t.ended != nil {
		close(t.ended)
		t.ended = nil
	}
}

func (t *Turns) patience() <-chan time.Time {
	if t.Patience > 0 {
		return time.After(t.Patience)
	}
	return time.After(20 * time.Second)
}

// write begins a request that writes; nothing is held up before enter.
func (t *Turns) write() *writing {
	if t == nil {
		return nil
	}
	return &writing{turns: t}
}

// enter is called before name is resolved for a write. A request that has written to a name of a waiting change
// already goes on, as the change waits for it.
func (w *writing) enter(ctx context.Context, name string) error {
	if w == nil {
		return nil
	}
	t := w.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, found := slices.BinarySearch(w.names, name); found {
		return nil
	}
	var until <-chan time.Time
	for w.mustWait(name) {
		if until == nil {
			until = t.patience()
		}
		if err := t.wait(ctx, until, "what a name of this request stands for is being changed, so it is not known which rules apply; try again"); err != nil {
			return err
		}
	}
	if len(w.names) == 0 {
		if t.writes == nil {
			t.writes = map[*writing]struct{}{}
		}
		t.writes[w] = struct{}{}
	}
	if len(w.names) >= maxTurnNames {
		w.many = true
		return nil
	}
	at, _ := slices.BinarySearch(w.names, name)
	w.names = slices.Insert(w.names, at, strings.Clone(name))
	return nil
}

func (w *writing) mustWait(name string) bool {
	for c := range w.turns.changes {
		if c.meets(name) && (c.going || !c.holdsUp(w)) {
			return true
		}
	}
	return false
}

// exit ends the request's turn. It may be called more than once.
func (w *writing) exit() {
	if w == nil {
		return
	}
	t := w.turns
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(w.names) == 0 {
		return
	}
	w.names, w.many = nil, false
	delete(t.writes, w)
	if len(t.changes) > 0 {
		t.wake()
	}
}

// change begins a change of what names (sorted) stand for, once no write to them is under way. waited tells that another change
// came before, so that what these names stand for is to be looked up again. end may be called more than once.
func (t *Turns) change(ctx context.Context, names []string) (end func(), waited bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.begun++
	c := &nameChange{number: t.begun, names: names}
	if t.changes == nil {
		t.changes = map[*nameChange]struct{}{}
	}
	t.changes[c] = struct{}{} // from now on nobody else begins to write to the names
	drop := func() {
		if _, ok := t.changes[c]; ok {
			delete(t.changes, c)
			t.wake()
		}
	}
	until := t.patience()
	for {
		writes, changes := t.before(c)
		waited = waited || changes
		if !writes && !changes {
			break
		}
		if err := t.wait(ctx, until, "writes to a name that this request would bring under a rule are still under way, and were judged by what the name stands for now; try again when they have ended"); err != nil {
			drop()
			return nil, false, err
		}
	}
	c.going = true
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		drop()
	}, waited, nil
}

// before reports whether writes, or changes that began earlier, stand before c.
func (t *Turns) before(c *nameChange) (writes, changes bool) {
	for w := range t.writes {
		writes = writes || c.holdsUp(w)
	}
	for o := range t.changes {
		changes = changes || o != c && o.number < c.number && c.overlaps(o)
	}
	return writes, changes
}

// takeTurns prepares the turns of a request and gives what ends them, after done.
func (r *request) takeTurns(done func()) func() {
	r.writing = r.Turns.write()
	return func() {
		if done != nil {
			done()
		}
		r.writing.exit()
		if r.turnEnds != nil {
			r.turnEnds()
		}
	}
}

// change makes the request wait for its turn when it brings a rule to a name: group are expressions for names that it may bring together. The turn ends
// with the request.
func (r *request) change(ctx context.Context, group []string) error {
	if r.Turns == nil {
		return nil
	}
	if len(group) < 2 {
		return nil // nothing is brought together
	}
	for {
		names, err := r.gaining(ctx, group)
		if err != nil || len(names) == 0 {
			return err
		}
		slices.Sort(names)
		end, waited, err := r.Turns.change(ctx, names)
		if err != nil {
			return err
		}
		if !waited {
			r.turnEnds = end
			return nil
		}
		end()
	}
}

// gaining gives all names that those of a group are known with, if some of them would come under a rule that does not apply to
// it now.
func (r *request) gaining(ctx context.Context, group []string) ([]string, error) {
	ctx = AsOf(ctx, time.Now())
	set := map[string]bool{}
	for _, name := range group {
		found, err := r.Cluster.Expand(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, n := range found.Names {
			set[n] = true
		}
	}
	var all []string
	for n := range set {
		all = append(all, n)
	}
	rules := r.rulesOf(all)
	gains := false
	for _, n := range all {
		if len(rules) == 0 || strings.ContainsAny(n, "*:") {
			continue
		}
		found, err := r.Cluster.Resolve(ctx, n)
		if err != nil {
			return nil, err
		}
		gains = gains || len(r.rulesOf(found.Names)) < len(rules)
	}
	if !gains {
		return nil, nil
	}
	return all, nil
}

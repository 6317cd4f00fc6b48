//go:build !nodevnode

package devnode

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"time"
)

// contextID makes an id that says whether it ever was one.
func contextID(kind byte, number int64) string {
	b := make([]byte, 25)
	b[0] = kind
	binary.BigEndian.PutUint64(b[1:], uint64(number))
	rand.Read(b[9:])
	return base64.RawURLEncoding.EncodeToString(b)
}

func contextNumber(kind byte, id string) (int64, bool) {
	b, err := base64.RawURLEncoding.DecodeString(id)
	if err != nil || len(b) != 25 || b[0] != kind {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b[1:9])), true
}

// sweep drops expired scrolls and points in time. The caller holds the lock.
func (n *Node) sweep() *esError {
	now := n.now()
	for id, s := range n.scrolls {
		if now.After(s.expires) {
			delete(n.scrolls, id)
			if err := closeViews(s.views); err != nil {
				return n.broken(err)
			}
		}
	}
	for id, p := range n.pits {
		if now.After(p.expires) {
			delete(n.pits, id)
			if err := closeViews(p.views); err != nil {
				return n.broken(err)
			}
		}
	}
	return nil
}

func (n *Node) nextContext() int64 {
	n.autoMu.Lock()
	defer n.autoMu.Unlock()
	n.contexts++
	return n.contexts
}

func (n *Node) openScroll(r *request, s *searchSpec, o resolveOptions, keep string, start time.Time) (*response, *esError) {
	d, err := keepAlive(keep)
	if err != nil {
		return nil, err
	}
	var msgs []string
	if s.from > 0 {
		msgs = append(msgs, "using [from] is not allowed in a scroll context")
	}
	if s.size == 0 {
		msgs = append(msgs, "[size] cannot be [0] in a scroll context")
	}
	if len(s.after) > 0 {
		msgs = append(msgs, "[search_after] cannot be used in a scroll context")
	}
	if s.pit != "" {
		msgs = append(msgs, "using [point in time] is not allowed in a scroll context")
	}
	if len(msgs) > 0 {
		return nil, validation(msgs...)
	}
	if s.track > 0 || s.track == 0 {
		s.track = -1
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	if err := n.sweep(); err != nil {
		return nil, err
	}
	ixs, err := n.resolve(r.target(), o)
	if err != nil {
		return nil, err
	}
	vs, err := views(ixs)
	if err != nil {
		return nil, err
	}
	if err := windowError(n, vs, s); err != nil {
		return nil, err
	}
	f, err := n.run(vs, s, false)
	if err != nil {
		return nil, err
	}
	num := n.nextContext()
	id := contextID('s', num)
	n.scrolls[id] = &scroll{spec: s, found: f, pos: s.size, expires: n.now().Add(d), number: num}
	body, err := n.page(s, f, 0, s.size, []any{"_scroll_id", id}, start)
	if err != nil {
		return nil, err
	}
	return ok(body), nil
}

func missingContext(num int64) *esError {
	return errf(404, "search_context_missing_exception", "No search context found for id [%d]", num)
}

// nextScroll serves _search/scroll.
func (n *Node) nextScroll(r *request) (*response, *esError) {
	start := time.Now()
	if err := r.allow("scroll scroll_id rest_total_hits_as_int", "", ""); err != nil {
		return nil, err
	}
	id, keep := r.param("scroll_id"), r.param("scroll")
	if len(r.segs) == 3 {
		id = r.seg(2)
	}
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		for _, m := range v.mem {
			switch m.key {
			case "scroll_id":
				id = m.v.textOr("")
			case "scroll":
				keep = m.v.textOr("")
			default:
				return nil, illegalArg("Unknown parameter [%s] in request body or parameter is of the wrong type[%s] ", m.key, m.v.startToken())
			}
		}
	}
	if id == "" {
		return nil, validation("scrollId is missing")
	}
	d := time.Duration(0)
	if keep != "" {
		var err *esError
		if d, err = keepAlive(keep); err != nil {
			return nil, err
		}
	}
	num, known := contextNumber('s', id)
	if !known {
		return nil, badScrollID()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	if err := n.sweep(); err != nil {
		return nil, err
	}
	sc := n.scrolls[id]
	if sc == nil {
		inner := missingContext(num)
		e := errf(404, "search_phase_execution_exception", "all shards failed")
		e.root, e.cause = inner, inner
		e.extra = []any{"phase", "query", "grouped", true, "failed_shards", []*jv{obj("shard", -1, "index", nil, "reason", inner.body(false))}}
		return nil, e
	}
	spec := *sc.spec
	spec.totalAsInt = spec.totalAsInt || r.param("rest_total_hits_as_int") == "true"
	var head []any
	if keep != "" {
		head = []any{"_scroll_id", id}
		sc.expires = n.now().Add(d)
	} else {
		delete(n.scrolls, id)
	}
	body, err := n.page(&spec, sc.found, sc.pos, spec.size, head, start)
	if err != nil {
		return nil, err
	}
	sc.pos += spec.size
	return ok(body), nil
}

func badScrollID() *esError {
	e := illegalArg("Cannot parse scroll id")
	e.cause = &esError{typ: "e_o_f_exception", noText: true}
	return e
}

// clearScroll serves DELETE _search/scroll.
func (n *Node) clearScroll(r *request) (*response, *esError) {
	if err := r.allow("scroll_id", "", ""); err != nil {
		return nil, err
	}
	ids := splitList(r.param("scroll_id"))
	if len(r.segs) == 3 {
		ids = splitList(r.seg(2))
	}
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		s := v.get("scroll_id")
		if s == nil {
			return nil, validation("no scroll ids specified")
		}
		ids = nil
		if s.k == kArr {
			for _, e := range s.arr {
				ids = append(ids, e.textOr(""))
			}
		} else {
			ids = []string{s.textOr("")}
		}
	}
	if len(ids) == 0 {
		return nil, validation("no scroll ids specified")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if slices.Equal(ids, []string{"_all"}) {
		ids = slices.Collect(maps.Keys(n.scrolls))
		n.scrolls = map[string]*scroll{}
		return ok(obj("succeeded", true, "num_freed", len(ids))), nil
	}
	freed := 0
	for _, id := range ids {
		if _, known := contextNumber('s', id); !known {
			return nil, badScrollID()
		}
		if _, open := n.scrolls[id]; open {
			delete(n.scrolls, id)
			freed++
		}
	}
	return okIf(freed > 0, obj("succeeded", true, "num_freed", freed)), nil
}

// openPit serves POST {index}/_pit.
func (n *Node) openPit(r *request) (*response, *esError) {
	if err := r.allow("keep_alive ignore_unavailable", "preference routing expand_wildcards allow_partial_search_results max_concurrent_shard_requests", "index_filter"); err != nil {
		return nil, err
	}
	if !r.has("keep_alive") {
		return nil, validation("[keep_alive] is not specified")
	}
	if len(r.body) > 0 {
		return nil, unsupported("a body when a point in time is opened")
	}
	d, err := keepAlive(r.param("keep_alive"))
	if err != nil {
		return nil, err
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	if err := n.sweep(); err != nil {
		return nil, err
	}
	ixs, err := n.resolve(r.target(), o)
	if err != nil {
		return nil, err
	}
	num := n.nextContext()
	p := &pit{expires: n.now().Add(d), number: num}
	for _, ix := range ixs {
		p.views = append(p.views, ix.view().freeze())
	}
	id := contextID('p', num)
	n.pits[id] = p
	return ok(obj("id", id, "_shards", obj("total", len(ixs), "successful", len(ixs), "skipped", 0, "failed", 0))), nil
}

func badPitID() *esError {
	e := illegalArg("java.io.EOFException")
	e.cause = &esError{typ: "e_o_f_exception", noText: true, cause: &esError{typ: "buffer_underflow_exception", noText: true}}
	return e
}

func (n *Node) pitOf(id string) (*pit, *esError) {
	num, known := contextNumber('p', id)
	if !known {
		return nil, badPitID()
	}
	p := n.pits[id]
	if p == nil || n.now().After(p.expires) {
		inner := missingContext(num)
		e := errf(404, "search_phase_execution_exception", "all shards failed")
		e.root = inner
		e.extra = []any{"phase", "query", "grouped", true, "failed_shards", []*jv{obj("shard", 0, "index", nil, "node", n.id, "reason", inner.body(false))}}
		return nil, e
	}
	return p, nil
}

// closePit serves DELETE _pit.
func (n *Node) closePit(r *request) (*response, *esError) {
	if err := r.allow("", "", ""); err != nil {
		return nil, err
	}
	if len(r.body) == 0 {
		return nil, bodyRequired()
	}
	v, err := r.json()
	if err != nil {
		return nil, err
	}
	id := v.get("id").textOr("")
	if id == "" {
		return nil, illegalArg("Required [id]")
	}
	if _, known := contextNumber('p', id); !known {
		return nil, badPitID()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	p := n.pits[id]
	if p == nil {
		return okIf(false, obj("succeeded", false, "num_freed", 0)), nil
	}
	delete(n.pits, id)
	if err := closeViews(p.views); err != nil {
		return nil, n.broken(err)
	}
	return ok(obj("succeeded", true, "num_freed", max(1, len(p.views)))), nil
}

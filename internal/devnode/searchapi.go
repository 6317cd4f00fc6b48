//go:build !nodevnode

package devnode

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"
)

// scroll is an open scroll: its hits were found once and are handed out.
type scroll struct {
	spec    *searchSpec
	found   *found
	views   []*view
	pos     int
	expires time.Time
	number  int64
}

// pit is a point in time: frozen views of some indices.
type pit struct {
	views   []*view
	expires time.Time
	number  int64
}

const searchDo = "q size from sort _source _source_includes _source_excludes track_total_hits scroll version seq_no_primary_term ignore_unavailable allow_no_indices rest_total_hits_as_int track_scores index"
const searchSkip = "preference routing timeout batched_reduce_size ccs_minimize_roundtrips max_concurrent_shard_requests pre_filter_shard_size request_cache typed_keys allow_partial_search_results expand_wildcards ignore_throttled search_type"
const searchNo = "analyzer analyze_wildcard default_operator df docvalue_fields explain lenient stats stored_fields suggest_field suggest_mode suggest_size suggest_text terminate_after min_compatible_shard_node force_synthetic_source source source_content_type"

// target is the index expression of a request: from the path, or from the
// index parameter, which is the same thing to Elasticsearch.
func (r *request) target() string {
	if len(r.segs) > 0 && !strings.HasPrefix(r.segs[0], "_") || len(r.segs) > 0 && r.segs[0] == "_all" {
		return r.seg(0)
	}
	return r.param("index")
}

func (r *request) resolveOptions() (resolveOptions, *esError) {
	var o resolveOptions
	var err *esError
	if o.ignoreUnavailable, err = r.flag("ignore_unavailable", false); err != nil {
		return o, err
	}
	allow, err := r.flag("allow_no_indices", true)
	o.forbidNone = !allow
	return o, err
}

// searchParams puts the query string over a search body, as RestSearchAction
// does.
func (r *request) searchParams(s *searchSpec) *esError {
	var err *esError
	if q, ok := r.params["q"]; ok {
		if s.q, err = queryString(q); err != nil {
			return err
		}
	}
	for name, to := range map[string]*int{"size": &s.size, "from": &s.from} {
		if r.has(name) {
			if *to, err = r.integer(name, 0); err != nil {
				return err
			}
			if *to < 0 {
				return illegalArg("[%s] parameter cannot be negative, found [%d]", name, *to)
			}
		}
	}
	if v, ok := r.params["sort"]; ok {
		for _, part := range splitList(v) {
			f, dir, found := strings.Cut(part, ":")
			k := sortKey{field: f, desc: f == "_score"}
			if found {
				switch dir {
				case "asc":
					k.desc = false
				case "desc":
					k.desc = true
				default:
					return illegalArg("Unknown sort order [%s]", dir)
				}
			}
			k.max = k.desc
			s.sort = append(s.sort, k)
		}
	}
	if f := sourceParams(r); f.configured {
		s.source = f
	}
	if v, ok := r.params["track_total_hits"]; ok {
		p := &queryParser{}
		if err := p.searchMember(member{key: "track_total_hits", v: val(v)}, s); err != nil {
			return err
		}
	}
	for name, to := range map[string]*bool{"version": &s.version, "seq_no_primary_term": &s.seqNo, "track_scores": &s.trackScores, "rest_total_hits_as_int": &s.totalAsInt} {
		if *to, err = r.flag(name, *to); err != nil {
			return err
		}
	}
	if s.totalAsInt {
		s.track = -1
	}
	return nil
}

// queryString reads the simplest query strings: * and field:word.
func queryString(q string) (query, *esError) {
	if q == "*" || q == "*:*" {
		return matchAllQuery{1}, nil
	}
	f, w, ok := strings.Cut(q, ":")
	if !ok || f == "" || w == "" || strings.ContainsAny(q, " *?~\"()[]{}^/\\+!<>=&|") || strings.Contains(w, ":") || w[0] == '-' || f[0] == '-' {
		return nil, unsupported("query strings beyond field:word")
	}
	return &matchQuery{field: f, v: val(w), boost: 1}, nil
}

func newSpec() *searchSpec { return &searchSpec{size: 10, track: 10000} }

// search serves _search.
func (n *Node) search(r *request) (*response, *esError) {
	start := time.Now()
	if err := r.allow(searchDo, searchSkip, searchNo); err != nil {
		return nil, err
	}
	s := newSpec()
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		if err := parseSearch(v, r.body, s); err != nil {
			return nil, err
		}
	}
	if err := r.searchParams(s); err != nil {
		return nil, err
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	if sc, ok := r.params["scroll"]; ok {
		return n.openScroll(r, s, o, sc, start)
	}
	body, err := n.searchNow(r.target(), s, o, start)
	if err != nil {
		return nil, err
	}
	return ok(body), nil
}

func windowError(n *Node, vs []*view, s *searchSpec) *esError {
	if s.from+s.size <= 10000 || len(vs) == 0 {
		return nil
	}
	return n.shardsFailed(vs[0].ix, illegalArg("Result window is too large, from + size must be less than or equal to: [10000] but was [%d]. See the scroll api for a more efficient way to request large data sets. This limit can be set by changing the [index.max_result_window] index level setting.", s.from+s.size), true)
}

// searchNow runs one search without a scroll.
func (n *Node) searchNow(target string, s *searchSpec, o resolveOptions, start time.Time) (*jv, *esError) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	var vs []*view
	var head []any
	if s.pit != "" {
		if target != "" {
			return nil, validation("[indices] cannot be used with point in time. Do not specify any index with point in time.")
		}
		p, err := n.pitOf(s.pit)
		if err != nil {
			return nil, err
		}
		vs, head = p.views, []any{"pit_id", s.pit}
	} else {
		ixs, err := n.resolve(target, o)
		if err != nil {
			return nil, err
		}
		if vs, err = views(ixs); err != nil {
			return nil, err
		}
	}
	if len(s.after) > 0 && s.from > 0 {
		return nil, validation("[from] parameter must be set to 0 when [search_after] is used.")
	}
	if err := windowError(n, vs, s); err != nil {
		return nil, err
	}
	f, err := n.run(vs, s, s.pit != "")
	if err != nil {
		return nil, err
	}
	return n.page(s, f, s.from, s.size, head, start)
}

// views opens the live views of indices. Aliases with a filter are refused
// when they are made, so names need no filters here.
func views(ixs []*index) ([]*view, *esError) {
	var vs []*view
	for _, ix := range ixs {
		vs = append(vs, ix.view())
	}
	return vs, nil
}

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

// count serves _count.
func (n *Node) count(r *request) (*response, *esError) {
	if err := r.allow("q ignore_unavailable allow_no_indices index", "preference routing expand_wildcards ignore_throttled", "analyzer analyze_wildcard default_operator df lenient min_score terminate_after source source_content_type"); err != nil {
		return nil, err
	}
	s := newSpec()
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		p := &queryParser{src: r.body}
		if v.k != kObj {
			return nil, p.fail(v.off, "Expected [START_OBJECT] but found [%s]", v.startToken())
		}
		for _, m := range v.mem {
			if m.key != "query" {
				return nil, p.fail(m.off, "request does not support [%s]", m.key)
			}
			if s.q, err = p.parse(m.v); err != nil {
				return nil, err
			}
		}
	}
	if q, has := r.params["q"]; has {
		var err *esError
		if s.q, err = queryString(q); err != nil {
			return nil, err
		}
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if err := n.usable(); err != nil {
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
	s.sort = []sortKey{{field: "_doc"}}
	f, err := n.run(vs, s, false)
	if err != nil {
		return nil, err
	}
	return ok(obj("count", f.total, "_shards", obj("total", len(vs), "successful", len(vs), "skipped", 0, "failed", 0))), nil
}

// msearch serves _msearch: pairs of a header line and a body line.
func (n *Node) msearch(r *request) (*response, *esError) {
	start := time.Now()
	if err := r.allow("index rest_total_hits_as_int ignore_unavailable allow_no_indices", searchSkip+" max_concurrent_searches", ""); err != nil {
		return nil, err
	}
	if len(r.body) == 0 {
		return nil, errf(400, "parse_exception", "request body or source parameter is required")
	}
	if r.body[len(r.body)-1] != '\n' {
		return nil, illegalArg("The msearch request must be terminated by a newline [\\n]")
	}
	def, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	type one struct {
		target string
		o      resolveOptions
		s      *searchSpec
	}
	var all []one
	lines := bytes.Split(r.body[:len(r.body)-1], []byte("\n"))
	for i := 0; i < len(lines); {
		x := one{target: r.target(), o: def, s: newSpec()}
		// An empty header line stands for {}; a leading empty line is skipped.
		if len(all) == 0 && i == 0 && len(lines[0]) == 0 {
			i++
			continue
		}
		if h := bytes.TrimSpace(lines[i]); len(h) > 0 {
			if err := msearchHeader(h, &x.target, &x.o); err != nil {
				return nil, err
			}
		}
		i++
		if i == len(lines) {
			break
		}
		v, jerr := parseJSON(lines[i])
		if jerr != nil {
			return nil, syntaxError(jerr, true)
		}
		if err := parseSearch(v, lines[i], x.s); err != nil {
			return nil, err
		}
		i++
		if r.param("rest_total_hits_as_int") == "true" {
			x.s.totalAsInt, x.s.track = true, -1
		}
		all = append(all, x)
	}
	if len(all) == 0 {
		return nil, validation("no requests added")
	}
	list := []*jv{}
	for _, x := range all {
		b, err := n.searchNow(x.target, x.s, x.o, time.Now())
		if err != nil {
			if err.status == 501 {
				return nil, err
			}
			list = append(list, err.reply())
			continue
		}
		b.put("status", 200)
		list = append(list, b)
	}
	return ok(obj("took", time.Since(start).Milliseconds(), "responses", list)), nil
}

func msearchHeader(line []byte, target *string, o *resolveOptions) *esError {
	v, jerr := parseJSON(line)
	if jerr != nil {
		return syntaxError(jerr, true)
	}
	for _, m := range v.mem {
		switch m.key {
		case "index", "indices":
			if m.v.k == kArr {
				var names []string
				for _, e := range m.v.arr {
					names = append(names, e.textOr(""))
				}
				*target = strings.Join(names, ",")
			} else {
				*target = m.v.textOr("")
			}
		case "ignore_unavailable":
			o.ignoreUnavailable = m.v.text() == "true"
		case "allow_no_indices":
			o.forbidNone = m.v.text() == "false"
		case "search_type", "preference", "routing", "request_cache", "expand_wildcards", "ccs_minimize_roundtrips", "allow_partial_search_results":
		default:
			return illegalArg("key [%s] is not supported in the metadata section", m.key)
		}
	}
	return nil
}

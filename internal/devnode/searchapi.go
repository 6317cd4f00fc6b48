//go:build !nodevnode

package devnode

import (
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

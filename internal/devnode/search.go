//go:build !nodevnode

package devnode

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// searchSpec is one parsed search.
type searchSpec struct {
	q           query
	from, size  int
	sort        []sortKey
	after       []*jv
	source      sourceFilter
	fields      []fieldSpec
	track       int // how many hits to count; -1: all, 0: do not count
	version     bool
	seqNo       bool
	trackScores bool
	pit         string
	totalAsInt  bool
}

type sortKey struct {
	field    string
	desc     bool
	first    bool // missing: _first
	unmapped string
	max      bool // of several values take the greatest
	format   string
}

// elsewhereSearch are members of a search body that this node has not.
var elsewhereSearch = strings.Fields(`aggregations aggs collapse docvalue_fields derived explain ext highlight indices_boost
	knn min_score post_filter profile query_vector rank rescore retriever runtime_mappings script_fields slice
	stats stored_fields sub_searches suggest terminate_after`)

// parseSearch reads a search body.
func parseSearch(v *jv, src []byte, s *searchSpec) *esError {
	p := &queryParser{src: src}
	if v.k != kObj {
		return p.fail(v.off, "Expected [START_OBJECT] but found [%s]", v.startToken())
	}
	for _, m := range v.mem {
		if err := p.searchMember(m, s); err != nil {
			return err
		}
	}
	return nil
}

func (p *queryParser) searchMember(m member, s *searchSpec) (err *esError) {
	switch m.key {
	case "query":
		s.q, err = p.parse(m.v)
	case "from", "size":
		i, e := strconv.Atoi(m.v.text())
		if e != nil {
			return p.fail(m.v.off, "Unknown key for a %s in [%s].", m.v.startToken(), m.key)
		}
		if i < 0 {
			return illegalArg("[%s] parameter cannot be negative, found [%d]", m.key, i)
		}
		if m.key == "from" {
			s.from = i
		} else {
			s.size = i
		}
	case "sort":
		s.sort, err = p.sortKeys(m.v)
	case "search_after":
		if m.v.k != kArr {
			return p.fail(m.v.off, "Unknown key for a %s in [search_after].", m.v.startToken())
		}
		if len(m.v.arr) == 0 {
			return illegalArg("Values must contains at least one value.")
		}
		s.after = m.v.arr
	case "_source":
		s.source, err = sourceBody(m.v)
	case "fields":
		s.fields, err = p.fieldSpecs(m.v)
	case "track_total_hits":
		switch t := m.v.text(); t {
		case "true":
			s.track = -1
		case "false":
			s.track = 0
		default:
			i, e := strconv.Atoi(t)
			if e != nil || i < -1 {
				return illegalArg("[track_total_hits] parameter must be positive or equals to -1, got %s", t)
			}
			s.track = i
		}
	case "version":
		s.version = m.v.isTrue()
	case "seq_no_primary_term":
		s.seqNo = m.v.isTrue()
	case "track_scores":
		s.trackScores = m.v.isTrue()
	case "timeout":
	case "pit":
		if s.pit = m.v.get("id").textOr(""); s.pit == "" {
			return illegalArg("Required [id]")
		}
	case "explain", "profile":
		if m.v.text() != "false" {
			err = unsupported("[%s] in a search", m.key)
		}
	default:
		if slices.Contains(elsewhereSearch, m.key) {
			return unsupported("[%s] in a search", m.key)
		}
		err = p.fail(m.v.off, "Unknown key for a %s in [%s].", m.v.startToken(), m.key)
	}
	return err
}

func (v *jv) textOr(def string) string {
	if v == nil || !v.scalar() {
		return def
	}
	return v.text()
}

func (p *queryParser) sortKeys(v *jv) ([]sortKey, *esError) {
	vs := []*jv{v}
	if v.k == kArr {
		vs = v.arr
	}
	var out []sortKey
	for _, e := range vs {
		switch e.k {
		case kStr:
			out = append(out, sortKey{field: e.s, desc: e.s == "_score"})
		case kObj:
			for _, m := range e.mem {
				k := sortKey{field: m.key, desc: m.key == "_score"}
				set := false
				order := func(t string) *esError {
					switch strings.ToLower(t) {
					case "asc":
						k.desc = false
					case "desc":
						k.desc = true
					default:
						return illegalArg("No enum constant org.elasticsearch.search.sort.SortOrder.%s", strings.ToUpper(t))
					}
					return nil
				}
				if m.v.scalar() {
					if err := order(m.v.text()); err != nil {
						return nil, err
					}
				}
				for _, o := range m.v.mem {
					var err *esError
					switch o.key {
					case "order":
						err = order(o.v.text())
					case "missing":
						switch o.v.text() {
						case "_last":
						case "_first":
							k.first = true
						default:
							err = unsupported("[missing] values other than _first and _last in a sort")
						}
					case "unmapped_type":
						k.unmapped = o.v.text()
					case "mode":
						set = true
						switch strings.ToLower(o.v.text()) {
						case "min":
						case "max":
							k.max = true
						default:
							err = unsupported("the sort mode [%s]", o.v.text())
						}
					case "format":
						k.format = o.v.text()
					default:
						err = unsupported("[%s] in a sort", o.key)
					}
					if err != nil {
						return nil, err
					}
				}
				if !set {
					k.max = k.desc
				}
				out = append(out, k)
			}
		default:
			return nil, illegalArg("malformed sort format, within the sort array, an object, or an actual string are allowed")
		}
	}
	for i := range out {
		if out[i].field == "_geo_distance" || out[i].field == "_script" {
			return nil, unsupported("the sort [%s]", out[i].field)
		}
		if out[i].desc && !out[i].max && v.k != kObj {
			out[i].max = out[i].max || out[i].field == "_score"
		}
	}
	return out, nil
}

// sortValue is one value of a hit's sort.
type sortValue struct {
	kind  byte // 's' text, 'i' integer, 'f' double
	null  bool
	s     string
	i     int64
	f     float64
	shown any
}

// hit is one search hit.
type hit struct {
	e     *entry
	view  *view
	shard int
	score float32
	sort  []sortValue
}

// sortable is a sort key as one index sees it.
type sortable struct {
	key sortKey
	f   *field
}

func (s *searcher) sortables(keys []sortKey) ([]sortable, *esError) {
	var out []sortable
	for _, k := range keys {
		switch k.field {
		case "_score", "_doc", "_shard_doc", "_index":
			out = append(out, sortable{key: k})
			continue
		case "_id":
			return nil, s.n.shardsFailed(s.v.ix, illegalArg("Fielddata access on the _id field is disallowed, you can re-enable it by updating the dynamic cluster setting: indices.id_field_data.enabled"), true)
		case "_seq_no":
			out = append(out, sortable{key: k})
			continue
		}
		f := s.v.mapping.lookup(k.field)
		if f == nil || f.isObject() {
			if k.unmapped == "" {
				return nil, s.n.shardsFailed(s.v.ix, queryShardError(s.v.ix, "No mapping found for ["+k.field+"] in order to sort on", nil), false)
			}
			f = &field{typ: k.unmapped, dates: defaultDates}
			if !leafTypes[k.unmapped] {
				return nil, unsupported("[unmapped_type] [%s]", k.unmapped)
			}
		}
		if f.typ == "text" {
			return nil, s.n.shardsFailed(s.v.ix, illegalArg("Fielddata is disabled on [%s] in [%s]. Text fields are not optimised for operations that require per-document field data like aggregations and sorting, so these operations are disabled by default. Please use a keyword field instead. Alternatively, set fielddata=true on [%s] in order to load field data by uninverting the inverted index. Note that this can use significant memory.", k.field, s.v.name, k.field), true)
		}
		if !f.hasDocValues() {
			return nil, s.n.shardsFailed(s.v.ix, illegalArg("Can't load fielddata on [%s] because fielddata is unsupported on fields of type [%s]. Use doc values instead.", k.field, f.typ), true)
		}
		out = append(out, sortable{key: k, f: f})
	}
	return out, nil
}

// value is a document's value for one sort key.
func (k sortable) value(h *hit) (sortValue, *esError) {
	switch k.key.field {
	case "_score":
		return sortValue{kind: 'f', f: float64(h.score), shown: h.score}, nil
	case "_doc", "_seq_no":
		return sortValue{kind: 'i', i: h.e.seq, shown: h.e.seq}, nil
	case "_shard_doc":
		n := int64(h.shard)<<32 | h.e.seq
		return sortValue{kind: 'i', i: n, shown: n}, nil
	case "_index":
		return sortValue{kind: 's', s: h.e.ix, shown: h.e.ix}, nil
	}
	vals := h.e.vals[k.key.field]
	if len(vals) == 0 {
		return k.missing(), nil
	}
	best := vals[0]
	for _, v := range vals[1:] {
		if (v.term > best.term) == k.key.max && v.term != best.term {
			best = v
		}
	}
	return k.from(best)
}

func (k sortable) missing() sortValue {
	high := k.key.desc == k.key.first
	switch {
	case floatType(k.f.typ):
		if high {
			return sortValue{kind: 'f', f: math.Inf(1), shown: "Infinity"}
		}
		return sortValue{kind: 'f', f: math.Inf(-1), shown: "-Infinity"}
	case k.f.typ == "keyword" || k.f.typ == "ip":
		return sortValue{kind: 's', null: true}
	}
	lo, hi := int64(math.MinInt64), int64(math.MaxInt64)
	if k.f.typ == "integer" || k.f.typ == "short" || k.f.typ == "byte" {
		lo, hi = math.MinInt32, math.MaxInt32
	}
	n := lo
	if high {
		n = hi
	}
	return sortValue{kind: 'i', i: n, shown: n}
}

func (k sortable) from(v value) (sortValue, *esError) {
	switch {
	case floatType(k.f.typ):
		return sortValue{kind: 'f', f: v.dbl, shown: v.dbl}, nil
	case k.f.typ == "keyword":
		return sortValue{kind: 's', s: v.term, shown: v.term}, nil
	case k.f.typ == "ip":
		return sortValue{kind: 's', s: v.term, shown: ipText(v.term)}, nil
	case k.f.typ == "date" && k.key.format != "":
		fs, err := compileDates(k.key.format)
		if err != nil {
			return sortValue{}, err
		}
		return sortValue{kind: 'i', i: v.num, shown: fs[0].format(v.num)}, nil
	}
	return sortValue{kind: 'i', i: v.num, shown: v.num}, nil
}

// after reads one search_after value.
func (k sortable) after(v *jv, now time.Time) (sortValue, *esError) {
	bad := func() *esError {
		return illegalArg("Failed to parse search_after value for field [%s].", k.key.field)
	}
	if !v.scalar() {
		return sortValue{}, bad()
	}
	if v.k == kNull && k.f != nil {
		return k.missing(), nil
	}
	t := v.text()
	switch {
	case k.f == nil && k.key.field == "_index":
		return sortValue{kind: 's', s: t}, nil
	case k.f == nil && k.key.field == "_score" || k.f != nil && floatType(k.f.typ):
		f, err := strconv.ParseFloat(t, 64)
		if err != nil && !math.IsInf(f, 0) {
			return sortValue{}, bad()
		}
		return sortValue{kind: 'f', f: f}, nil
	case k.f != nil && k.f.typ == "keyword":
		return sortValue{kind: 's', s: t}, nil
	case k.f != nil && k.f.typ == "ip":
		x, err := (&docParser{}).scalar(k.f, v)
		if err != nil {
			return sortValue{}, bad()
		}
		return sortValue{kind: 's', s: x.term}, nil
	}
	if i, err := strconv.ParseInt(t, 10, 64); err == nil {
		return sortValue{kind: 'i', i: i}, nil
	}
	if k.f != nil && k.f.typ == "date" {
		fs, spec := k.f.dates, k.f.format
		if k.key.format != "" {
			var err *esError
			if fs, err = compileDates(k.key.format); err != nil {
				return sortValue{}, err
			}
			spec = k.key.format
		}
		ms, err := dateMath(fs, spec, t, false, time.UTC, now)
		if err != nil {
			return sortValue{}, bad()
		}
		return sortValue{kind: 'i', i: ms}, nil
	}
	return sortValue{}, bad()
}

func (k sortKey) compare(a, b sortValue) int {
	if a.null || b.null {
		c := 0
		switch {
		case a.null && !b.null:
			c = 1
		case !a.null && b.null:
			c = -1
		}
		if k.first {
			c = -c
		}
		return c
	}
	var c int
	switch {
	case a.kind == 's' && b.kind == 's':
		c = strings.Compare(a.s, b.s)
	case a.kind == 'i' && b.kind == 'i':
		c = cmp.Compare(a.i, b.i)
	default:
		c = cmp.Compare(a.float(), b.float())
	}
	if k.desc {
		return -c
	}
	return c
}

func (v sortValue) float() float64 {
	if v.kind == 'i' {
		return float64(v.i)
	}
	return v.f
}

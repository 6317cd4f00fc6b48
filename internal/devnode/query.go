//go:build !nodevnode

package devnode

import (
	"slices"
	"strconv"
	"strings"
	"time"

	bindex "github.com/blevesearch/bleve_index_api"
)

// hits maps the matching documents of one index to their scores.
type hits map[*entry]float32

// query is one parsed clause.
type query interface {
	eval(s *searcher) (hits, *esError)
}

// searcher evaluates queries on one view.
type searcher struct {
	n     *Node
	v     *view
	r     bindex.IndexReader
	now   time.Time
	score bool
}

type (
	matchAllQuery  struct{ boost float32 }
	matchNoneQuery struct{}
	termQuery      struct {
		field string
		vals  []*jv
		multi bool // terms: constant score
		boost float32
	}
	matchQuery struct {
		field string
		v     *jv
		and   bool
		boost float32
	}
	rangeQuery struct {
		field            string
		lo, hi           *jv
		loOpen, hiOpen   bool
		format, timeZone string
		boost            float32
	}
	existsQuery struct {
		field string
		boost float32
	}
	idsQuery struct {
		ids   []string
		boost float32
	}
	boolQuery struct {
		must, filter, should, mustNot []query
		min                           int // -1: default
		boost                         float32
	}
	constQuery struct {
		q     query
		boost float32
	}
)

// queryParser carries the request's text for error positions.
type queryParser struct {
	src   []byte
	depth int
}

func (p *queryParser) fail(off int, format string, args ...any) *esError {
	e := errf(400, "parsing_exception", format, args...)
	l, c := lineCol(p.src, off)
	e.extra = []any{"line", l, "col", c}
	return e
}

var elsewhereQueries = strings.Fields(`boosting combined_fields common dis_max distance_feature field_masking_span fuzzy
	function_score geo_bounding_box geo_distance geo_grid geo_polygon geo_shape has_child has_parent intervals knn
	match_bool_prefix match_phrase match_phrase_prefix more_like_this multi_match nested parent_id percolate pinned
	prefix query_string rank_feature regexp rule script script_score semantic shape simple_query_string span_containing
	span_first span_multi span_near span_not span_or span_term span_within sparse_vector terms_set text_expansion
	type weighted_tokens wildcard wrapper`)

// parse reads one query object.
func (p *queryParser) parse(v *jv) (query, *esError) {
	if v.k != kObj {
		return nil, p.fail(v.off, "[_na] query malformed, must start with start_object")
	}
	if len(v.mem) == 0 {
		l, c := lineCol(p.src, v.end-1)
		return nil, illegalArg("query malformed, empty clause found at [%d:%d]", l, c)
	}
	if p.depth++; p.depth > 30 {
		return nil, illegalArg("The nested depth of the query exceeds the maximum nested depth for queries set in [indices.query.bool.max_nested_depth]")
	}
	defer func() { p.depth-- }()
	m := v.mem[0]
	if slices.Contains(elsewhereQueries, m.key) {
		return nil, unsupported("the query [%s]", m.key)
	}
	if m.v.k != kObj {
		return nil, p.fail(m.v.off, "[%s] query malformed, no start_object after query name", m.key)
	}
	var q query
	var err *esError
	switch m.key {
	case "match_all":
		b := float32(1)
		b, err = p.options(m.v, m.key, nil)
		q = matchAllQuery{b}
	case "match_none":
		q = matchNoneQuery{}
	case "term":
		q, err = p.term(m.v)
	case "terms":
		q, err = p.terms(m.v)
	case "match":
		q, err = p.match(m.v)
	case "range":
		q, err = p.rangeQuery(m.v)
	case "exists":
		x := existsQuery{}
		x.boost, err = p.options(m.v, m.key, map[string]func(*jv) *esError{"field": func(v *jv) *esError { x.field = v.text(); return nil }})
		if err == nil && x.field == "" {
			err = p.fail(m.v.end-1, "[exists] must be provided with a [field]")
		}
		q = &x
	case "ids":
		x := idsQuery{}
		x.boost, err = p.options(m.v, m.key, map[string]func(*jv) *esError{"values": func(v *jv) *esError {
			vs := []*jv{v}
			if v.k == kArr {
				vs = v.arr
			}
			for _, e := range vs {
				if !e.scalar() {
					return p.fail(e.off, "[ids] values must be strings")
				}
				x.ids = append(x.ids, e.text())
			}
			return nil
		}})
		q = &x
	case "bool":
		q, err = p.boolean(m.v)
	case "constant_score":
		x := constQuery{}
		x.boost, err = p.options(m.v, m.key, map[string]func(*jv) *esError{"filter": func(v *jv) (err *esError) {
			x.q, err = p.parse(v)
			return err
		}})
		if err == nil && x.q == nil {
			err = p.fail(m.v.end-1, "[constant_score] requires a 'filter' element")
		}
		q = &x
	default:
		l, c := lineCol(p.src, m.v.off)
		e := p.fail(m.v.off, "unknown query [%s]", m.key)
		e.cause = errf(400, "named_object_not_found_exception", "[%d:%d] unknown field [%s]", l, c, m.key)
		return nil, e
	}
	if err != nil {
		return nil, err
	}
	if len(v.mem) > 1 {
		return nil, p.fail(v.mem[1].off, "[%s] malformed query, expected [END_OBJECT] but found [FIELD_NAME]", m.key)
	}
	return q, nil
}

// options reads the members of a clause: boost, and what set names.
func (p *queryParser) options(v *jv, name string, set map[string]func(*jv) *esError) (float32, *esError) {
	boost := float32(1)
	for _, m := range v.mem {
		if f, ok := set[m.key]; ok {
			if err := f(m.v); err != nil {
				return 0, err
			}
			continue
		}
		switch m.key {
		case "boost":
			f, err := strconv.ParseFloat(m.v.text(), 32)
			if err != nil || f < 0 {
				return 0, p.fail(m.v.off, "[%s] failed to parse field [boost]", name)
			}
			boost = float32(f)
		case "_name", "case_insensitive", "fuzziness", "analyzer", "minimum_should_match", "prefix_length", "max_expansions",
			"zero_terms_query", "fuzzy_transpositions", "fuzzy_rewrite", "auto_generate_synonyms_phrase_query", "relation", "rewrite":
			return 0, unsupported("[%s] in a %s query", m.key, name)
		default:
			return 0, p.fail(m.v.off, "[%s] query does not support [%s]", name, m.key)
		}
	}
	return boost, nil
}

func (p *queryParser) oneField(v *jv, name string) (member, *esError) {
	if len(v.mem) == 0 {
		return member{}, illegalArg("field name is null or empty")
	}
	if len(v.mem) > 1 {
		return member{}, p.fail(v.mem[1].off, "[%s] query doesn't support multiple fields, found [%s] and [%s]", name, v.mem[0].key, v.mem[1].key)
	}
	return v.mem[0], nil
}

func (p *queryParser) term(v *jv) (query, *esError) {
	m, err := p.oneField(v, "term")
	if err != nil {
		return nil, err
	}
	if m.v.k == kArr {
		return nil, p.fail(m.v.off, "[term] query does not support array of values")
	}
	q := &termQuery{field: m.key, boost: 1}
	val := m.v
	if m.v.k == kObj {
		val = nil
		set := func(v *jv) *esError { val = v; return nil }
		if q.boost, err = p.options(m.v, "term", map[string]func(*jv) *esError{"value": set, "term": set}); err != nil {
			return nil, err
		}
	}
	if val == nil || val.k == kNull {
		return nil, illegalArg("value cannot be null")
	}
	if !val.scalar() {
		return nil, p.fail(val.off, "[term] query does not support array of values")
	}
	q.vals = []*jv{val}
	return q, nil
}

func (p *queryParser) terms(v *jv) (query, *esError) {
	q := &termQuery{multi: true, boost: 1}
	for _, m := range v.mem {
		switch {
		case m.v.k == kArr:
			if q.field != "" {
				return nil, p.fail(m.v.off, "[terms] query does not support multiple fields")
			}
			q.field = m.key
			for _, e := range m.v.arr {
				if e.k == kNull {
					return nil, p.fail(e.off, "No value specified for terms query")
				}
				if !e.scalar() {
					return nil, p.fail(e.off, "[terms] query does not support nested values")
				}
				q.vals = append(q.vals, e)
			}
		case m.v.k == kObj:
			return nil, unsupported("terms lookup")
		case m.key == "boost":
			b, err := p.options(&jv{k: kObj, mem: []member{m}}, "terms", nil)
			if err != nil {
				return nil, err
			}
			q.boost = b
		case m.key == "_name":
			return nil, unsupported("[_name] in a terms query")
		default:
			return nil, p.fail(m.v.off, "[terms] query does not support [%s]", m.key)
		}
	}
	if q.field == "" {
		return nil, p.fail(v.end-1, "[terms] query requires a field name, followed by array of terms or a document lookup specification")
	}
	return q, nil
}

func (p *queryParser) match(v *jv) (query, *esError) {
	m, err := p.oneField(v, "match")
	if err != nil {
		return nil, err
	}
	q := &matchQuery{field: m.key, v: m.v, boost: 1}
	if m.v.k == kArr {
		return nil, p.fail(m.v.off, "[match] unknown token [START_ARRAY] after [%s]", m.key)
	}
	if m.v.k == kObj {
		q.v = nil
		q.boost, err = p.options(m.v, "match", map[string]func(*jv) *esError{
			"query": func(v *jv) *esError { q.v = v; return nil },
			"operator": func(v *jv) *esError {
				switch strings.ToLower(v.text()) {
				case "and":
					q.and = true
				case "or":
				default:
					return illegalArg("No enum constant org.elasticsearch.index.query.Operator.%s", strings.ToUpper(v.text()))
				}
				return nil
			},
			"lenient": func(v *jv) *esError {
				if v.text() == "true" {
					return unsupported("[lenient] in a match query")
				}
				return nil
			},
		})
		if err != nil {
			return nil, err
		}
	}
	if q.v == nil || q.v.k == kNull {
		return nil, p.fail(v.end-1, "No text specified for text query")
	}
	if !q.v.scalar() {
		return nil, p.fail(q.v.off, "[match] unknown token [%s] after [query]", q.v.startToken())
	}
	return q, nil
}

func (p *queryParser) rangeQuery(v *jv) (query, *esError) {
	m, err := p.oneField(v, "range")
	if err != nil {
		return nil, err
	}
	if m.v.k != kObj {
		return nil, p.fail(m.v.off, "[range] query does not support [%s]", m.key)
	}
	q := &rangeQuery{field: m.key}
	bound := func(to **jv, open *bool, isOpen bool) func(*jv) *esError {
		return func(v *jv) *esError {
			if !v.scalar() {
				return p.fail(v.off, "[range] query does not support values of type [%s]", v.startToken())
			}
			*to, *open = v, isOpen
			if v.k == kNull {
				*to = nil
			}
			return nil
		}
	}
	str := func(to *string) func(*jv) *esError {
		return func(v *jv) *esError { *to = v.text(); return nil }
	}
	q.boost, err = p.options(m.v, "range", map[string]func(*jv) *esError{
		"gte": bound(&q.lo, &q.loOpen, false), "gt": bound(&q.lo, &q.loOpen, true),
		"lte": bound(&q.hi, &q.hiOpen, false), "lt": bound(&q.hi, &q.hiOpen, true),
		"format": str(&q.format), "time_zone": str(&q.timeZone),
	})
	return q, err
}

func (p *queryParser) boolean(v *jv) (query, *esError) {
	q := &boolQuery{min: -1}
	list := func(to *[]query) func(*jv) *esError {
		return func(v *jv) *esError {
			vs := []*jv{v}
			if v.k == kArr {
				vs = v.arr
			}
			for _, e := range vs {
				c, err := p.parse(e)
				if err != nil {
					return err
				}
				*to = append(*to, c)
			}
			return nil
		}
	}
	var err *esError
	q.boost, err = p.options(v, "bool", map[string]func(*jv) *esError{
		"must": list(&q.must), "filter": list(&q.filter), "should": list(&q.should), "must_not": list(&q.mustNot),
		"minimum_should_match": func(v *jv) *esError {
			i, e := strconv.Atoi(v.text())
			if e != nil || i < 0 {
				return unsupported("minimum_should_match [%s]", v.text())
			}
			q.min = i
			return nil
		},
	})
	return q, err
}

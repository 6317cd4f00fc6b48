//go:build !nodevnode

package devnode

import (
	"context"
	"math"
	"math/big"
	"net/netip"
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
		field                  string
		lo, hi                 *jv
		loOpen, hiOpen         bool
		format, timeZone, name string
		boost                  float32
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

func (q matchAllQuery) eval(s *searcher) (hits, *esError) {
	h := make(hits, len(s.v.docs))
	for _, e := range s.v.docs {
		h[e] = q.boost
	}
	return h, nil
}

func (matchNoneQuery) eval(*searcher) (hits, *esError) { return hits{}, nil }

// field looks a query's field up and refuses what cannot be searched. A nil
// field without an error is unmapped: nothing matches.
func (s *searcher) field(name string) (*field, *esError) {
	f := s.v.mapping.lookup(name)
	if f == nil || f.isObject() {
		return nil, nil
	}
	if f.typ == "binary" {
		return nil, s.failed(illegalArg("Binary fields do not support searching"))
	}
	if !f.searchable() {
		return nil, s.failed(illegalArg("Cannot search on field [%s] since it is not indexed nor has doc values.", name))
	}
	return f, nil
}

// failed is a query error as one shard reports it.
func (s *searcher) failed(cause *esError) *esError {
	return s.n.shardsFailed(s.v.ix, queryShardError(s.v.ix, "failed to create query: "+cause.reason, cause), false)
}

func (s *searcher) broken(err error) *esError {
	return errf(500, "exception", "the embedded node's index failed: %v", err)
}

// postings gives the documents that hold a term, with its frequency.
func (s *searcher) postings(field, term string) (map[*entry]uint64, *esError) {
	r, err := s.r.TermFieldReader(context.Background(), []byte(clean(term)), field, true, false, false)
	if err != nil {
		return nil, s.broken(err)
	}
	defer r.Close()
	out := make(map[*entry]uint64, r.Count())
	for {
		d, err := r.Next(nil)
		if err != nil {
			return nil, s.broken(err)
		}
		if d == nil {
			return out, nil
		}
		id, err := s.r.ExternalID(d.ID)
		if err != nil {
			return nil, s.broken(err)
		}
		if e := s.v.docs[id]; e != nil {
			out[e] = d.Freq
		}
	}
}

// bm25 scores a term as Lucene's BM25 with k1 1.2 and b 0.75 does. Fields
// without norms count every document as average.
func (s *searcher) bm25(name string, f *field, post map[*entry]uint64, boost float32) hits {
	h := make(hits, len(post))
	var docs, tokens int64
	lengths := map[*entry]int64{}
	for _, e := range s.v.docs {
		vs := e.vals[name]
		if len(vs) == 0 {
			continue
		}
		docs++
		if f.typ == "text" && !f.noNorms {
			l := e.textLength(name)
			tokens += l
			if _, ok := post[e]; ok {
				lengths[e] = l
			}
		}
	}
	n := float64(len(post))
	idf := float32(math.Log(1 + (float64(docs)-n+0.5)/(n+0.5)))
	weight := boost * 2.2 * idf
	for e, freq := range post {
		norm := float32(1 / 1.2)
		if l, ok := lengths[e]; ok && tokens > 0 {
			avg := float32(float64(tokens) / float64(docs))
			norm = 1 / (1.2 * ((1 - 0.75) + 0.75*float32(lossyLength(l))/avg))
		}
		tf := float32(freq)
		if f.typ != "text" {
			tf = 1
		}
		h[e] = weight - weight/(1+tf*norm)
	}
	return h
}

// lossyLength is a field length as Lucene's one-byte norm keeps it
// (SmallFloat.intToByte4): exact up to 40, then four significant bits.
func lossyLength(l int64) int64 {
	const free = 24
	if l < free {
		return l
	}
	l -= free
	if l < 16 {
		return free + l
	}
	shift := 0
	for v := l; v >= 16; v >>= 1 {
		shift++
	}
	return free + l>>shift<<shift
}

func (e *entry) textLength(name string) int64 {
	var l int64
	for _, v := range e.vals[name] {
		l += int64(len(wordAnalyzer.Analyze([]byte(clean(v.term)))))
	}
	return l
}

// terms turns a query value into index terms for a field. An IP value may be
// a whole network. No terms: the value can never match.
func (s *searcher) terms(name string, f *field, v *jv) (lo, hi string, any bool, err *esError) {
	t := v.text()
	switch f.typ {
	case "keyword", "text":
		return t, t, true, nil
	case "boolean":
		switch {
		case t == "true":
			return "T", "T", true, nil
		case t == "false" || t == "":
			return "F", "F", true, nil
		}
		return "", "", false, s.failed(illegalArg("Can't parse boolean value [%s], expected [true] or [false]", t))
	case "ip":
		if p, e := netip.ParsePrefix(t); e == nil {
			a, b := prefixRange(p)
			return ipTerm(a), ipTerm(b), true, nil
		}
		a, e := netip.ParseAddr(t)
		if e != nil {
			return "", "", false, s.failed(illegalArg("'%s' is not an IP string literal.", t))
		}
		return ipTerm(a), ipTerm(a), true, nil
	case "date":
		a, e := s.date(f, f.format, t, false, time.UTC)
		if e != nil {
			return "", "", false, e
		}
		b, e := s.date(f, f.format, t, true, time.UTC)
		if e != nil {
			return "", "", false, e
		}
		return longTerm(a), longTerm(b), true, nil
	}
	if floatType(f.typ) {
		x, e := strconv.ParseFloat(t, 64)
		if e != nil {
			return "", "", false, s.failed(errf(400, "number_format_exception", "For input string: \"%s\"", t))
		}
		if f.typ == "float" {
			x = float64(float32(x))
		}
		return doubleTerm(x), doubleTerm(x), true, nil
	}
	r, good := wholeNumber(t)
	if !good {
		return "", "", false, s.failed(errf(400, "number_format_exception", "For input string: \"%s\"", t))
	}
	if !r.IsInt() || !r.Num().IsInt64() {
		return "", "", false, nil
	}
	return longTerm(r.Num().Int64()), longTerm(r.Num().Int64()), true, nil
}

func wholeNumber(t string) (*big.Rat, bool) {
	f, err := strconv.ParseFloat(t, 64)
	if err != nil || math.Abs(f) > 1e30 || f != 0 && math.Abs(f) < 1e-30 || strings.ContainsAny(t, "_xXpPnN") {
		return nil, false
	}
	return new(big.Rat).SetString(t)
}

func prefixRange(p netip.Prefix) (netip.Addr, netip.Addr) {
	lo := p.Masked().Addr()
	b := lo.As16()
	bits := p.Bits()
	if lo.Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	hi := netip.AddrFrom16(b)
	return lo, hi
}

func (s *searcher) date(f *field, spec, t string, up bool, loc *time.Location) (int64, *esError) {
	fs := f.dates
	if spec == "" {
		spec = defaultDateFormat
		if f.format != "" {
			spec = f.format
		}
	} else if spec != f.format {
		var err *esError
		if fs, err = compileDates(spec); err != nil {
			return 0, err
		}
	}
	ms, err := dateMath(fs, spec, t, up, loc, s.now)
	if err != nil {
		return 0, s.n.shardsFailed(s.v.ix, err, false)
	}
	return ms, nil
}

// between gives the documents with a term in [lo, hi]; empty hi: no limit.
func (s *searcher) between(name, lo, hi string) (map[*entry]uint64, *esError) {
	if lo == hi && lo != "" {
		return s.postings(name, lo)
	}
	var end []byte
	if hi != "" {
		end = []byte(hi)
	}
	d, err := s.r.FieldDictRange(name, []byte(lo), end)
	if err != nil {
		return nil, s.broken(err)
	}
	defer d.Close()
	out := map[*entry]uint64{}
	for {
		t, err := d.Next()
		if err != nil {
			return nil, s.broken(err)
		}
		if t == nil {
			return out, nil
		}
		if hi != "" && t.Term > hi {
			return out, nil
		}
		p, perr := s.postings(name, t.Term)
		if perr != nil {
			return nil, perr
		}
		for e := range p {
			out[e] = 1
		}
	}
}

func constant(post map[*entry]uint64, boost float32) hits {
	h := make(hits, len(post))
	for e := range post {
		h[e] = boost
	}
	return h
}

// metaTerm answers term queries on _id and _index.
func (s *searcher) metaTerm(q *termQuery) (hits, bool, *esError) {
	switch q.field {
	case "_id":
		var ids []string
		for _, v := range q.vals {
			ids = append(ids, v.text())
		}
		h, err := idsQuery{ids: ids, boost: q.boost}.eval(s)
		return h, true, err
	case "_index":
		for _, v := range q.vals {
			if wildcard(v.text(), s.v.name) {
				h, err := matchAllQuery{q.boost}.eval(s)
				return h, true, err
			}
		}
		return hits{}, true, nil
	}
	if strings.HasPrefix(q.field, "_") && slices.Contains(metadataFields, q.field) {
		return nil, true, unsupported("queries on [%s]", q.field)
	}
	return nil, false, nil
}

func (q *termQuery) eval(s *searcher) (hits, *esError) {
	if h, done, err := s.metaTerm(q); done {
		return h, err
	}
	f, err := s.field(q.field)
	if err != nil || f == nil {
		return hits{}, err
	}
	all := map[*entry]uint64{}
	for _, v := range q.vals {
		lo, hi, some, err := s.terms(q.field, f, v)
		if err != nil {
			return nil, err
		}
		if !some {
			continue
		}
		p, err := s.between(q.field, lo, hi)
		if err != nil {
			return nil, err
		}
		for e, n := range p {
			all[e] = n
		}
	}
	scored := f.typ == "keyword" || f.typ == "text" || f.typ == "boolean"
	if q.multi || f.noIndex || !scored || !s.score {
		return constant(all, q.boost), nil
	}
	return s.bm25(q.field, f, all, q.boost), nil
}

func (q *matchQuery) eval(s *searcher) (hits, *esError) {
	f, err := s.field(q.field)
	if err != nil {
		return hits{}, err
	}
	if f == nil || f.typ != "text" {
		return (&termQuery{field: q.field, vals: []*jv{q.v}, boost: q.boost}).eval(s)
	}
	out := hits{}
	count := map[*entry]int{}
	seen := map[string]int{}
	var terms []string
	for _, t := range wordAnalyzer.Analyze([]byte(clean(q.v.text()))) {
		if seen[string(t.Term)]++; seen[string(t.Term)] == 1 {
			terms = append(terms, string(t.Term))
		}
	}
	for _, t := range terms {
		p, err := s.postings(q.field, t)
		if err != nil {
			return nil, err
		}
		// A repeated word counts as often as it was written.
		for e, x := range s.bm25(q.field, f, p, q.boost*float32(seen[t])) {
			out[e] += x
			count[e]++
		}
	}
	if q.and {
		for e := range out {
			if count[e] < len(terms) {
				delete(out, e)
			}
		}
	}
	return out, nil
}

func (q *rangeQuery) eval(s *searcher) (hits, *esError) {
	if strings.HasPrefix(q.field, "_") && slices.Contains(metadataFields, q.field) {
		return nil, unsupported("range queries on [%s]", q.field)
	}
	f, err := s.field(q.field)
	if err != nil || f == nil {
		return hits{}, err
	}
	if f.typ == "text" {
		return nil, unsupported("range queries on text fields")
	}
	lo, hi, some, err := q.bounds(s, f)
	if err != nil || !some {
		return hits{}, err
	}
	post, err := s.between(q.field, lo, hi)
	if err != nil {
		return nil, err
	}
	return constant(post, q.boost), nil
}

// bounds are the first and the last term of the range, both included.
func (q *rangeQuery) bounds(s *searcher, f *field) (lo, hi string, some bool, err *esError) {
	switch {
	case f.typ == "keyword":
		if q.lo != nil {
			if lo = q.lo.text(); q.loOpen {
				lo += "\x00"
			}
		}
		if q.hi != nil {
			// The greatest term below an open bound has no name, so the
			// bound itself is taken off by comparing below.
			return q.keywordBounds(s, lo)
		}
		return lo, "", true, nil
	case f.typ == "date":
		loc := time.UTC
		if q.timeZone != "" {
			l, ok := zone(q.timeZone)
			if !ok {
				return "", "", false, unsupported("the time zone [%s]", q.timeZone)
			}
			loc = l
		}
		a, b := int64(math.MinInt64), int64(math.MaxInt64)
		if q.lo != nil {
			if a, err = s.date(f, q.format, q.lo.text(), q.loOpen, loc); err != nil {
				return
			}
			if q.loOpen {
				a++
			}
		}
		if q.hi != nil {
			if b, err = s.date(f, q.format, q.hi.text(), !q.hiOpen, loc); err != nil {
				return
			}
			if q.hiOpen {
				b--
			}
		}
		return longTerm(a), longTerm(b), a <= b, nil
	case floatType(f.typ):
		a, b := math.Inf(-1), math.Inf(1)
		for _, x := range []struct {
			v    *jv
			to   *float64
			open bool
			dir  float64
		}{{q.lo, &a, q.loOpen, math.Inf(1)}, {q.hi, &b, q.hiOpen, math.Inf(-1)}} {
			if x.v == nil {
				continue
			}
			d, e := strconv.ParseFloat(x.v.text(), 64)
			if e != nil {
				return "", "", false, s.failed(errf(400, "number_format_exception", "For input string: \"%s\"", x.v.text()))
			}
			if f.typ == "float" {
				d = float64(float32(d))
			}
			if x.open {
				d = math.Nextafter(d, x.dir)
			}
			*x.to = d
		}
		return doubleTerm(a), doubleTerm(b), a <= b, nil
	case f.typ == "ip" || f.typ == "boolean":
		return "", "", false, unsupported("range queries on fields of type [%s]", f.typ)
	}
	return q.wholeBounds(s)
}

func (q *rangeQuery) keywordBounds(s *searcher, lo string) (string, string, bool, *esError) {
	hi := q.hi.text()
	if !q.hiOpen {
		return lo, hi, hi >= lo && hi != "", nil
	}
	last := ""
	found := false
	d, err := s.r.FieldDictRange(q.field, []byte(lo), []byte(hi))
	if err != nil {
		return "", "", false, s.broken(err)
	}
	defer d.Close()
	for {
		t, err := d.Next()
		if err != nil {
			return "", "", false, s.broken(err)
		}
		if t == nil || t.Term >= hi {
			return lo, last, found && last != "", nil
		}
		last, found = t.Term, true
	}
}

func (q *rangeQuery) wholeBounds(s *searcher) (string, string, bool, *esError) {
	a, b := big.NewInt(math.MinInt64), big.NewInt(math.MaxInt64)
	one := big.NewInt(1)
	for _, x := range []struct {
		v    *jv
		to   **big.Int
		open bool
		up   bool
	}{{q.lo, &a, q.loOpen, true}, {q.hi, &b, q.hiOpen, false}} {
		if x.v == nil {
			continue
		}
		r, ok := wholeNumber(x.v.text())
		if !ok {
			return "", "", false, s.failed(errf(400, "number_format_exception", "For input string: \"%s\"", x.v.text()))
		}
		// Div rounds down for the positive denominators of big.Rat.
		i := new(big.Int).Div(r.Num(), r.Denom())
		switch {
		case x.up && (!r.IsInt() || x.open):
			i.Add(i, one)
		case !x.up && r.IsInt() && x.open:
			i.Sub(i, one)
		}
		*x.to = i
	}
	if a.Cmp(b) > 0 || a.Cmp(big.NewInt(math.MaxInt64)) > 0 || b.Cmp(big.NewInt(math.MinInt64)) < 0 {
		return "", "", false, nil
	}
	if !a.IsInt64() {
		a = big.NewInt(math.MinInt64)
	}
	if !b.IsInt64() {
		b = big.NewInt(math.MaxInt64)
	}
	return longTerm(a.Int64()), longTerm(b.Int64()), true, nil
}

func zone(s string) (*time.Location, bool) {
	if _, off, ok := parseOffset(s, true); ok {
		return time.FixedZone(s, off), true
	}
	l, err := time.LoadLocation(s)
	return l, err == nil
}

func (q *existsQuery) eval(s *searcher) (hits, *esError) {
	if strings.HasPrefix(q.field, "_") && slices.Contains(metadataFields, q.field) {
		return nil, unsupported("exists queries on [%s]", q.field)
	}
	out := map[*entry]uint64{}
	names := []string{}
	s.v.mapping.root.walk("", func(path string, f *field) {
		if wildcard(q.field, path) || strings.HasPrefix(path, q.field+".") && s.v.mapping.at(strings.Split(q.field, ".")) != nil && s.v.mapping.at(strings.Split(q.field, ".")).isObject() {
			names = append(names, path)
		}
	})
	for _, name := range names {
		p, err := s.postings(existsField, name)
		if err != nil {
			return nil, err
		}
		for e := range p {
			out[e] = 1
		}
	}
	return constant(out, q.boost), nil
}

func (q idsQuery) eval(s *searcher) (hits, *esError) {
	h := hits{}
	for _, id := range q.ids {
		if e := s.v.docs[id]; e != nil {
			h[e] = q.boost
		}
	}
	return h, nil
}

func (q *constQuery) eval(s *searcher) (hits, *esError) {
	h, err := q.q.eval(s)
	for e := range h {
		h[e] = q.boost
	}
	return h, err
}

func (q *boolQuery) eval(s *searcher) (hits, *esError) {
	var out hits
	and := func(h hits, scored bool) {
		if out == nil {
			out = hits{}
			for e, x := range h {
				if !scored {
					x = 0
				}
				out[e] = x
			}
			return
		}
		for e := range out {
			if x, ok := h[e]; !ok {
				delete(out, e)
			} else if scored {
				out[e] += x
			}
		}
	}
	for _, c := range q.must {
		h, err := c.eval(s)
		if err != nil {
			return nil, err
		}
		and(h, true)
	}
	for _, c := range q.filter {
		h, err := c.eval(s)
		if err != nil {
			return nil, err
		}
		and(h, false)
	}
	need := q.min
	if need < 0 {
		need = 0
		if len(q.must)+len(q.filter) == 0 && len(q.should) > 0 {
			need = 1
		}
	}
	if len(q.should) > 0 {
		sum, count := hits{}, map[*entry]int{}
		for _, c := range q.should {
			h, err := c.eval(s)
			if err != nil {
				return nil, err
			}
			for e, x := range h {
				sum[e] += x
				count[e]++
			}
		}
		if need > 0 {
			for e := range sum {
				if count[e] < need {
					delete(sum, e)
				}
			}
			and(sum, true)
		} else if out != nil {
			for e := range out {
				out[e] += sum[e]
			}
		} else {
			and(sum, true)
		}
	} else if need > 0 {
		return hits{}, nil
	}
	if out == nil {
		all := float32(0)
		if len(q.mustNot) == 0 {
			all = 1
		}
		out, _ = matchAllQuery{all}.eval(s)
	}
	for _, c := range q.mustNot {
		h, err := c.eval(s)
		if err != nil {
			return nil, err
		}
		for e := range h {
			delete(out, e)
		}
	}
	if q.boost != 1 {
		for e := range out {
			out[e] *= q.boost
		}
	}
	return out, nil
}

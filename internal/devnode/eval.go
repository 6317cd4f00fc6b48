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
)

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

//go:build !nodevnode

package devnode

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"
)

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

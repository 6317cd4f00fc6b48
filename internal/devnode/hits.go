//go:build !nodevnode

package devnode

import (
	"cmp"
	"slices"
	"time"
)

// found is the sorted outcome of a search.
type found struct {
	hits   []hit // all of them, in order
	total  int   // before search_after
	max    float32
	scored bool
	// showMax says that the reply has a max_score: not when scores are only
	// one of several sort keys.
	showMax bool
	shards  int
}

// run finds and orders all hits of a search on some views.
func (n *Node) run(views []*view, s *searchSpec, isPit bool) (*found, *esError) {
	keys := s.sort
	if len(keys) == 1 && keys[0].field == "_score" && keys[0].desc {
		keys = nil
	}
	f := &found{shards: len(views), scored: len(keys) == 0 || s.trackScores}
	f.showMax = f.scored
	for _, k := range keys {
		f.scored = f.scored || k.field == "_score"
	}
	if isPit && len(keys) > 0 {
		keys = append(slices.Clone(keys), sortKey{field: "_shard_doc"})
	}
	if len(s.after) > 0 && len(s.after) != len(keys) && !(isPit && len(s.after) == len(keys)-1) {
		e := illegalArg("search_after has %d value(s) but sort has %d.", len(s.after), len(keys))
		if len(keys) == 0 {
			e = illegalArg("Sort must contain at least one field.")
		}
		if len(views) == 0 {
			return nil, e
		}
		return nil, n.shardsFailed(views[0].ix, e, true)
	}
	q := s.q
	if q == nil {
		q = matchAllQuery{1}
	}
	for i, v := range views {
		if err := n.runOne(v, i, q, keys, s, f); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(f.hits, func(a, b hit) int {
		if len(keys) == 0 {
			if c := cmp.Compare(b.score, a.score); c != 0 {
				return c
			}
		}
		for i, k := range keys {
			if c := k.compare(a.sort[i], b.sort[i]); c != 0 {
				return c
			}
		}
		return cmp.Or(cmp.Compare(a.shard, b.shard), cmp.Compare(a.e.seq, b.e.seq))
	})
	return f, nil
}

func (n *Node) runOne(v *view, shard int, q query, keys []sortKey, s *searchSpec, f *found) *esError {
	r, rerr := v.reader()
	if rerr != nil {
		return errf(500, "exception", "the embedded node's index failed: %v", rerr)
	}
	defer r.Close()
	sr := &searcher{n: n, v: v, r: r, now: n.now(), score: f.scored}
	ks, err := sr.sortables(keys)
	if err != nil {
		return err
	}
	var after []sortValue
	for i, a := range s.after {
		x, err := ks[i].after(a, sr.now)
		if err != nil {
			return n.shardsFailed(v.ix, err, true)
		}
		after = append(after, x)
	}
	hs, err := q.eval(sr)
	if err != nil {
		return err
	}
	f.total += len(hs)
	for e, score := range hs {
		h := hit{e: e, view: v, shard: shard, score: score}
		f.max = max(f.max, score)
		for _, k := range ks {
			x, err := k.value(&h)
			if err != nil {
				return err
			}
			h.sort = append(h.sort, x)
		}
		if after != nil {
			c := 0
			for i := range after {
				if c = keys[i].compare(h.sort[i], after[i]); c != 0 {
					break
				}
			}
			if c <= 0 {
				continue
			}
		}
		f.hits = append(f.hits, h)
	}
	return nil
}

// page renders a part of the hits with the head of a search reply.
func (n *Node) page(s *searchSpec, f *found, from, size int, head []any, start time.Time) (*jv, *esError) {
	o := obj(head...)
	o.put("took", time.Since(start).Milliseconds())
	o.put("timed_out", false)
	o.put("_shards", obj("total", f.shards, "successful", f.shards, "skipped", 0, "failed", 0))
	h := &jv{k: kObj}
	switch {
	case s.totalAsInt:
		h.put("total", f.total)
	case s.track > 0 && f.total > s.track:
		h.put("total", obj("value", s.track, "relation", "gte"))
	case s.track != 0:
		h.put("total", obj("value", f.total, "relation", "eq"))
	}
	lo := min(from, len(f.hits))
	part := f.hits[lo:min(lo+size, len(f.hits))]
	switch {
	case f.shards == 0:
		h.put("max_score", float32(0))
	case f.showMax && f.total > 0 && size > 0:
		h.put("max_score", f.max)
	default:
		h.put("max_score", nil)
	}
	list := []*jv{}
	for i := range part {
		v, err := part[i].render(s, f.scored)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	h.put("hits", list)
	o.put("hits", h)
	return o, nil
}

func (h *hit) render(s *searchSpec, scored bool) (*jv, *esError) {
	e := h.e
	o := obj("_index", e.ix, "_id", e.id)
	if s.version {
		o.put("_version", e.version)
	}
	if s.seqNo {
		o.put("_seq_no", e.seq)
		o.put("_primary_term", 1)
	}
	if scored {
		o.put("_score", h.score)
	} else {
		o.put("_score", nil)
	}
	if e.routing != "" {
		o.put("_routing", e.routing)
	}
	if len(e.ignored) > 0 {
		o.put("_ignored", e.ignored)
	}
	if !s.source.off {
		o.put("_source", s.source.apply(e.source))
	}
	if len(s.fields) > 0 {
		fs, ign, err := fetchFields(h.view.mapping, e, s.fields)
		if err != nil {
			return nil, err
		}
		if len(fs.mem) > 0 {
			o.put("fields", fs)
		}
		if len(ign.mem) > 0 {
			o.put("ignored_field_values", ign)
		}
	}
	if len(h.sort) > 0 {
		l := []*jv{}
		for _, v := range h.sort {
			l = append(l, val(v.shown))
		}
		o.put("sort", l)
	}
	return o, nil
}

package rewrite

import "bytes"

// Aggregation results carry names that the client chose, and the value of a scripted_metric is whatever its script
// returned. So a top_hits body counts only where the type of every aggregation on the way is certain: told by the
// server (typed_keys) or known from the request (topHitsOf).

// aggKind is what the grammar needs to know of an aggregation type.
type aggKind uint8

const (
	aggOther   aggKind = iota // no documents inside
	aggTopHits                // hits.hits[]
	aggSingle                 // sub-aggregations are members of its body
	aggBuckets                // sub-aggregations are members of each of its buckets
)

// replyAggs are the names of types in typed keys (InternalAggregation.getType and its kin).
var replyAggs = map[string]aggKind{
	"top_hits": aggTopHits,

	"filter": aggSingle, "global": aggSingle, "missing": aggSingle, "nested": aggSingle, "reverse_nested": aggSingle,
	"sampler": aggSingle, "random_sampler": aggSingle, "children": aggSingle, "parent": aggSingle,

	"sterms": aggBuckets, "lterms": aggBuckets, "dterms": aggBuckets, "ulterms": aggBuckets, "umsterms": aggBuckets,
	"srareterms": aggBuckets, "lrareterms": aggBuckets, "sigsterms": aggBuckets, "siglterms": aggBuckets,
	"multi_terms": aggBuckets, "filters": aggBuckets, "adjacency_matrix": aggBuckets, "range": aggBuckets,
	"date_range": aggBuckets, "geo_distance": aggBuckets, "ip_range": aggBuckets, "ip_prefix": aggBuckets,
	"histogram": aggBuckets, "date_histogram": aggBuckets, "auto_date_histogram": aggBuckets,
	"variable_width_histogram": aggBuckets, "composite": aggBuckets, "geohash_grid": aggBuckets,
	"geotile_grid": aggBuckets, "geohex_grid": aggBuckets, "categorize_text": aggBuckets, "time_series": aggBuckets,
}

// requestAggs are the names of types in requests.
var requestAggs = map[string]aggKind{
	"top_hits": aggTopHits,

	"filter": aggSingle, "global": aggSingle, "missing": aggSingle, "nested": aggSingle, "reverse_nested": aggSingle,
	"sampler": aggSingle, "diversified_sampler": aggSingle, "random_sampler": aggSingle, "children": aggSingle, "parent": aggSingle,

	"terms": aggBuckets, "rare_terms": aggBuckets, "significant_terms": aggBuckets, "significant_text": aggBuckets,
	"multi_terms": aggBuckets, "filters": aggBuckets, "adjacency_matrix": aggBuckets, "range": aggBuckets,
	"date_range": aggBuckets, "geo_distance": aggBuckets, "ip_range": aggBuckets, "ip_prefix": aggBuckets,
	"histogram": aggBuckets, "date_histogram": aggBuckets, "auto_date_histogram": aggBuckets,
	"variable_width_histogram": aggBuckets, "composite": aggBuckets, "geohash_grid": aggBuckets,
	"geotile_grid": aggBuckets, "geohex_grid": aggBuckets, "categorize_text": aggBuckets, "time_series": aggBuckets,
}

// bucketStep stands in opening.topHits for the buckets of the aggregation before it. No name can be this.
const bucketStep = "[]"

// bucketMembers are members that the server writes beside sub-aggregations. An aggregation of such
// a name can't be told from them.
var bucketMembers = map[string]bool{
	"meta": true, "doc_count": true, "doc_count_error_upper_bound": true, "sum_other_doc_count": true, "buckets": true,
	"key": true, "key_as_string": true, "from": true, "from_as_string": true, "to": true, "to_as_string": true,
	"bg_count": true, "score": true, "value": true, "after_key": true, "interval": true, "seed": true, "probability": true,
	"min": true, "max": true, "min_as_string": true, "max_as_string": true, "mask": true, "is_ipv6": true,
	"prefix_length": true, "netmask": true, "regex": true, "max_matching_length": true,
}

// typedAggs follows an object of aggregations, or a body or bucket that holds some, by typed keys. No other
// member's name has a #; the type is what stands before the first one, as names may hold it too.
func (r *replier) typedAggs(depth int) error {
	if depth > maxAggs {
		return r.s.copyValue()
	}
	return r.s.object(func(name []byte) error {
		kind, _, ok := bytes.Cut(name, []byte("#"))
		if !ok {
			return r.s.copyValue()
		}
		switch replyAggs[string(kind)] {
		case aggTopHits:
			return r.topHitsBody()
		case aggSingle:
			return r.typedAggs(depth + 1)
		case aggBuckets:
			return r.buckets(func() error { return r.typedAggs(depth + 1) })
		}
		return r.s.copyValue()
	})
}

// buckets calls f for each bucket of an aggregation's body, in a list or under keys.
func (r *replier) buckets(f func() error) error {
	return r.only("buckets", func() error {
		c, err := r.s.peek()
		if err != nil {
			return err
		}
		if c == '[' {
			return r.s.array(f)
		}
		return r.s.object(func([]byte) error { return f() })
	})
}

// plainAggs follows the paths of opening.topHits from an object of aggregations, a body or a bucket on.
func (r *replier) plainAggs(paths [][]string) error {
	return r.s.object(func(name []byte) error {
		var under, inBuckets [][]string
		for _, p := range paths {
			if p[0] != string(name) {
				continue
			}
			switch {
			case len(p) == 1:
				return r.topHitsBody()
			case p[1] == bucketStep && len(p) > 2:
				inBuckets = append(inBuckets, p[2:])
			default:
				under = append(under, p[1:])
			}
		}
		switch {
		case len(inBuckets) > 0:
			return r.buckets(func() error { return r.plainAggs(inBuckets) })
		case len(under) > 0:
			return r.plainAggs(under)
		}
		return r.s.copyValue()
	})
}

// topHitsOf finds the places of top_hits aggregations in the answer to a search request's body, in the form of
// opening.topHits. It gives none where the body is no strict JSON, and leaves out what could be mistaken.
func topHitsOf(body []byte) [][]string {
	h := hitReader{b: body}
	var out [][]string
	count := 0
	end, err := h.members(skipSpace(body, 0), func(name []byte, pos int) (int, error) {
		if n := string(name); n != "aggs" && n != "aggregations" {
			return h.skip(pos)
		}
		count++
		return h.requested(pos, nil, &out, 0)
	})
	if err != nil || count != 1 || skipSpace(body, end) != len(body) {
		return nil
	}
	return out
}

// requested reads an object of aggregations in a request, whose results appear at the place at.
func (h *hitReader) requested(pos int, at []string, out *[][]string, depth int) (end int, err error) {
	if depth > maxAggs {
		return h.skip(pos)
	}
	return h.members(pos, func(name []byte, pos int) (int, error) {
		here := append(at[:len(at):len(at)], string(name))
		mistakable := bucketMembers[string(name)]
		kind, types, subs, below := aggOther, 0, 0, 0
		end, err := h.members(pos, func(name []byte, pos int) (int, error) {
			switch n := string(name); n {
			case "meta":
			case "aggs", "aggregations":
				below = pos
				subs++
			default:
				kind = requestAggs[n]
				types++
			}
			return h.skip(pos)
		})
		if err != nil || types != 1 || subs > 1 || mistakable {
			return end, err
		}
		switch kind {
		case aggTopHits:
			*out = append(*out, here)
			return end, nil
		case aggBuckets:
			here = append(here, bucketStep)
		case aggOther:
			return end, nil
		}
		if subs == 1 {
			_, err = h.requested(below, here, out, depth+1)
		}
		return end, err
	})
}

package rewrite

import (
	"slices"

	"github.com/esproxy/esproxy/internal/policy"
)

// aggs reads {"aggregation name": {"type": {…}, "aggs": {…}}}. The names are the client's and may equal those of
// fields.
func (g *guard) aggs(v *treeValue) error {
	for i := range v.kids {
		def := &v.kids[i]
		for j := range def.kids {
			if err := g.aggMember(&def.kids[j]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *guard) aggMember(m *treeValue) error {
	switch kind := string(m.name); kind {
	case "aggs", "aggregations":
		return g.aggs(m)
	case "meta":
		return nil
	case "filter":
		return g.query(m)
	case "filters", "adjacency_matrix":
		return g.namedQueries(m.member("filters"))
	case "top_hits":
		g.topHits = true
		return g.search(m)
	case "composite":
		return g.composite(m)
	case "scripted_metric":
		return g.scriptedMetric(m)
	default:
		return g.aggBody(m, kind)
	}
}

// namedQueries reads {"name": query} or a list of queries.
func (g *guard) namedQueries(v *treeValue) error {
	if v == nil {
		return nil
	}
	for i := range v.kids {
		if err := g.query(&v.kids[i]); err != nil {
			return err
		}
	}
	return nil
}

// aggOptions are the members that may stand beside the name of a protected field in an aggregation, because none of
// them stands for one of its values.
var aggOptions = map[string]bool{
	"field": true, "size": true, "shard_size": true, "order": true, "min_doc_count": true, "shard_min_doc_count": true,
	"show_term_doc_count_error": true, "collect_mode": true, "execution_hint": true, "value_type": true,
	"format": true, "keyed": true, "precision_threshold": true, "rehash": true, "script": true, "percents": true, "tdigest": true,
	"hdr": true, "compression": true, "sigma": true, "show_distribution": true, "max_doc_count": true, "precision": true,
	"max_docs_per_value": true, "jlh": true, "gnd": true, "chi_square": true, "mutual_information": true,
	"percentage": true, "p_value": true, "script_heuristic": true, "background_filter": true,
	"filter_duplicate_text": true, "source_fields": true, "similarity_threshold": true, "max_unique_tokens": true,
	"missing_bucket": true, "missing_order": true, "unit": true, "mode": true, "buckets": true, "numeric_type": true,
	"time_zone": true, "calendar_interval": true, "fixed_interval": true, "minimum_interval": true, "wrap_longitude": true,
	"probability": true, "seed": true, "sort": true,
}

// aggBody reads the options of one aggregation, at any depth.
func (g *guard) aggBody(v *treeValue, kind string) error {
	if v.isArray() {
		for i := range v.kids {
			if err := g.aggBody(&v.kids[i], kind); err != nil {
				return err
			}
		}
		return nil
	}
	refused := func(f *policy.Field) error { return guardFault(f, "an aggregation") }
	field := g.listed(v.member("field"))
	for i := range v.kids {
		m := &v.kids[i]
		name := string(m.name)
		if field != nil && !aggOptions[name] && !partition(m) {
			return refused(field)
		}
		var err error
		switch name {
		case "order", "buckets_path", "field", "meta", "source_fields": // names of aggregations; fields
		case "filter", "background_filter":
			err = g.query(m)
		case "filters":
			err = g.namedQueries(m)
		case "sort":
			err = g.sort(m, nil)
		case "script", "script_heuristic":
			err = g.script(m, field)
		case "fields":
			err = g.aggFields(v, m, kind)
		default:
			if m.isScalar() || scalars(m) {
				if f := g.named(m.name, atOrBelow); f != nil {
					return refused(f)
				}
			} else {
				err = g.aggBody(m, kind)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// aggFields reads "fields" of matrix_stats (names), frequent_item_sets and others (objects with "field").
func (g *guard) aggFields(v, m *treeValue, kind string) error {
	if scalars(m) {
		if f := g.listed(m); f != nil && (v.member("missing") != nil || v.member("include") != nil || v.member("exclude") != nil) {
			return guardFault(f, "an aggregation")
		}
		return nil
	}
	return g.aggBody(m, kind)
}

// partition reports whether m is an "include" that only says which part of all terms is wanted.
func partition(m *treeValue) bool {
	return string(m.name) == "include" && m.isObject() && m.member("partition") != nil
}

// scalars reports whether v is an array of scalars with at least one of them.
func scalars(v *treeValue) bool {
	return v.isArray() && len(v.kids) > 0 && !slices.ContainsFunc(v.kids, func(k treeValue) bool { return !k.isScalar() })
}

// composite reads the sources of a composite aggregation and what it is to go on after: {"source name": value}.
func (g *guard) composite(v *treeValue) error {
	after := v.member("after")
	for i := range v.kids {
		m := &v.kids[i]
		switch string(m.name) {
		case "after", "size":
			continue
		case "sources":
		default:
			if err := g.aggBody(m, "composite"); err != nil {
				return err
			}
			continue
		}
		err := g.each(m, func(sources *treeValue) error {
			for j := range sources.kids {
				source := &sources.kids[j]
				for k := range source.kids {
					kind := &source.kids[k]
					field := g.listed(kind.member("field"))
					if field == nil {
						field = g.scriptReads(kind.member("script"))
					}
					if field != nil && !orNull(after.member(string(source.name))).isNull() {
						return guardFault(field, "the member [after] of a composite aggregation")
					}
					if err := g.aggBody(kind, "composite"); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	// A source that is missing here is an error upstream; its value is still a constant.
	for i := range orNull(after).kids {
		m := &after.kids[i]
		if f := g.named(m.name, atOrBelow); f != nil && !m.isNull() {
			return guardFault(f, "the member [after] of a composite aggregation")
		}
	}
	return nil
}

// scriptedMetric reads the scripts of a scripted_metric as one, as they share their parameters.
func (g *guard) scriptedMetric(v *treeValue) error {
	var field *policy.Field
	for i := range v.kids {
		if f := g.scriptReads(&v.kids[i]); f != nil {
			field = f
		}
	}
	params := v.member("params")
	if field != nil && params != nil && len(params.kids) > 0 {
		return guardFault(field, "a script with params")
	}
	for i := range v.kids {
		if string(v.kids[i].name) == "params" {
			continue
		}
		if err := g.script(&v.kids[i], field); err != nil {
			return err
		}
	}
	return nil
}

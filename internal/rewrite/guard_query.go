package rewrite

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// clauseShape says where a query clause has its field names and constants.
type clauseShape uint8

const (
	shapeNone      clauseShape = iota + 1 // no constant for a field: match_all, ids, exists …
	shapeContainer                        // other queries under option names
	shapeField                            // {"field name": constant or options}
	shapeNamed                            // {"field": "field name", …constants}
	shapeText                             // {"query": text, "fields": […]}
	shapeLike                             // more_like_this
	shapePercolate
	shapeWrapper
	shapeScript
)

// clauses are the query clauses of Elasticsearch 7 to 9 (org.elasticsearch.search.SearchModule.registerQueryParsers,
// and those of x-pack).
var clauses = map[string]clauseShape{
	"match_all": shapeNone, "match_none": shapeNone, "ids": shapeNone, "exists": shapeNone, "type": shapeNone,
	"parent_id": shapeNone,

	"bool": shapeContainer, "constant_score": shapeContainer, "boosting": shapeContainer, "dis_max": shapeContainer,
	"nested": shapeContainer, "has_child": shapeContainer, "has_parent": shapeContainer, "function_score": shapeContainer,
	"script_score": shapeContainer, "pinned": shapeContainer, "rule": shapeContainer, "rule_query": shapeContainer,
	"indices": shapeContainer, "span_near": shapeContainer, "span_or": shapeContainer, "span_not": shapeContainer,
	"span_first": shapeContainer, "span_containing": shapeContainer, "span_within": shapeContainer, "span_multi": shapeContainer,

	"term": shapeField, "terms": shapeField, "terms_set": shapeField, "match": shapeField, "match_phrase": shapeField,
	"match_phrase_prefix": shapeField, "match_bool_prefix": shapeField, "range": shapeField, "prefix": shapeField,
	"wildcard": shapeField, "regexp": shapeField, "fuzzy": shapeField, "intervals": shapeField, "span_term": shapeField,
	"span_gap": shapeField, "common": shapeField, "text_expansion": shapeField, "weighted_tokens": shapeField,
	"geo_shape": shapeField, "geo_distance": shapeField, "geo_bounding_box": shapeField, "geo_polygon": shapeField,
	"geo_grid": shapeField, "shape": shapeField,

	"distance_feature": shapeNamed, "rank_feature": shapeNamed, "semantic": shapeNamed, "sparse_vector": shapeNamed, "knn": shapeNamed,
	"span_field_masking": shapeNamed, "field_masking_span": shapeNamed,

	"multi_match": shapeText, "combined_fields": shapeText, "query_string": shapeText, "simple_query_string": shapeText,
	"kql": shapeText,

	"more_like_this": shapeLike, "percolate": shapePercolate, "wrapper": shapeWrapper, "script": shapeScript,
}

// query reads a query: an object of clauses, or a list of them.
func (g *guard) query(v *treeValue) error {
	return g.each(v, func(q *treeValue) error {
		if !q.isObject() {
			return nil
		}
		for i := range q.kids {
			if err := g.clause(&q.kids[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// clause reads one clause; m is the member that names it.
func (g *guard) clause(m *treeValue) error {
	name := string(m.name)
	switch clauses[name] {
	case shapeNone:
		return g.noDocument(m, "the clause ["+name+"]")
	case shapeContainer:
		return g.container(m)
	case shapeField:
		return g.fieldKeyed(m, name)
	case shapeNamed:
		return g.fieldNamed(m, name)
	case shapeText:
		return g.fieldsText(m, name)
	case shapeLike:
		return g.like(m)
	case shapePercolate:
		for _, member := range [...]string{"document", "documents"} {
			if f := g.documentNames(m.member(member), ""); f != nil {
				return guardFault(f, "the clause [percolate]")
			}
		}
		return nil
	case shapeWrapper:
		return g.wrapper(m)
	case shapeScript:
		return g.script(m.member("script"), nil)
	}
	return g.unknownMember(m)
}

// kqlColons finds the operators of KQL that stand where a colon can.
var kqlColons = regexp.MustCompile(`[<>]=?`)

// kqlText is luceneText for Kibana's query language.
func (g *guard) kqlText(text []byte) *policy.Field {
	return g.luceneText(kqlColons.ReplaceAll(bytes.ReplaceAll(text, []byte{'"'}, []byte{' '}), []byte{':'}))
}

// container reads a clause, or a part of one, that holds queries under option names. Unknown members that
// are objects are read as what they most likely are, and refused when they name a protected field.
func (g *guard) container(v *treeValue) error {
	return g.each(v, func(o *treeValue) error {
		if !o.isObject() {
			return nil
		}
		for i := range o.kids {
			if err := g.containerMember(&o.kids[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (g *guard) containerMember(m *treeValue) error {
	switch string(m.name) {
	case "must", "must_not", "should", "filter", "query", "queries", "positive", "negative", "organic", "match",
		"clauses", "include", "exclude", "little", "big", "no_match_query", "rescore_query", "knn":
		return g.query(m)
	case "functions", "script_score", "pinned":
		return g.container(m)
	case "script":
		return g.script(m, nil)
	case "inner_hits":
		return g.each(m, func(h *treeValue) error {
			if h.isObject() {
				return g.search(h)
			}
			return nil
		})
	case "gauss", "linear", "exp":
		return g.fieldKeyed(m, string(m.name))
	case "field_value_factor": // "missing" is a number that stands for the field's value
		return g.fieldNamed(m, "field_value_factor")
	case "match_criteria":
		return g.criteria(m)
	}
	if m.isScalar() {
		return nil // minimum_should_match, boost, path, score_mode …
	}
	return g.unknownMember(m)
}

// criteria reads the metadata of a rule query: values for names of its own. One that is called like a protected field stands
// for it.
func (g *guard) criteria(v *treeValue) error {
	if f := g.documentNames(v, ""); f != nil {
		return guardFault(f, "the member [match_criteria]")
	}
	return nil
}

// fieldKeyed reads {"field name": constant or options}. Options stand beside names only in a few clauses (boost in
// terms); one that is called like a protected field is taken for the field.
func (g *guard) fieldKeyed(v *treeValue, clause string) error {
	if !v.isObject() {
		return g.unknown(v)
	}
	for i := range v.kids {
		m := &v.kids[i]
		if f := g.named(m.name, andAbove); f != nil {
			return guardFault(f, "the clause ["+clause+"]")
		}
		if err := g.options(m, clause); err != nil {
			return err
		}
	}
	return nil
}

// options reads the options under a field name that is not protected. Some lead to another field.
func (g *guard) options(v *treeValue, clause string) error {
	for i := range v.kids {
		m := &v.kids[i]
		switch string(m.name) {
		case "use_field":
			if f := g.listed(m); f != nil {
				return guardFault(f, "the clause ["+clause+"]")
			}
		case "script", "minimum_should_match_script":
			if err := g.script(m, nil); err != nil {
				return err
			}
			continue
		}
		if !m.isScalar() {
			if err := g.options(m, clause); err != nil {
				return err
			}
		}
	}
	return nil
}

// fieldNamed reads {"field": "field name", …}.
func (g *guard) fieldNamed(v *treeValue, clause string) error {
	if f := g.listed(v.member("field")); f != nil {
		for i := range v.kids {
			switch string(v.kids[i].name) {
			case "field", "factor", "modifier", "boost", "_name":
			default:
				return guardFault(f, "the clause ["+clause+"]")
			}
		}
	}
	return g.container(v)
}

// fieldsText reads a text that is searched in listed fields.
func (g *guard) fieldsText(v *treeValue, clause string) error {
	query := v.member("query")
	if query == nil {
		return nil
	}
	text := g.text(query)
	for _, member := range [...]string{"fields", "default_field"} {
		if f := g.listed(v.member(member)); f != nil && string(text) != "*" {
			return guardFault(f, "the clause ["+clause+"]")
		}
	}
	switch clause {
	case "query_string":
		if f := g.luceneText(text); f != nil {
			return guardFault(f, "the clause [query_string]")
		}
	case "kql": // like Lucene's where names matter, with comparisons, and quotes around names
		if f := g.kqlText(text); f != nil {
			return guardFault(f, "the clause [kql]")
		}
	}
	return nil
}

// like reads more_like_this. Texts and documents stand for all its fields.
func (g *guard) like(v *treeValue) error {
	fields := g.listed(v.member("fields"))
	for _, member := range [...]string{"like", "unlike", "docs", "like_text"} {
		m := v.member(member)
		if m == nil {
			continue
		}
		err := g.each(m, func(item *treeValue) error {
			if fields != nil && (!item.isObject() || item.member("doc") != nil) { // others name stored documents
				return guardFault(fields, "the clause [more_like_this]")
			}
			of := g
			if index := item.member("_index"); g.elsewhere != nil && item.member("doc") != nil && index.isScalar() && !index.isNull() {
				rules, err := g.elsewhere(string(g.text(index)))
				if err != nil {
					return err
				}
				of = newGuard(slices.Concat(g.rules, rules), g.body)
			}
			if f := of.documentNames(item.member("doc"), ""); f != nil {
				return guardFault(f, "the clause [more_like_this]")
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// plainOptions are the members of the parts of a search that hold no constant for a field, whatever the policy calls a field.
var plainOptions = map[string]bool{
	"field": true, "format": true, "include_unmapped": true, "id": true, "keep_alive": true, "max": true, "type": true, "value": true, "values": true,
	"boost": true, "_name": true, "ignore_unmapped": true, "rrf": true, "rank_constant": true, "rank_window_size": true, "window_size": true,
}

// noDocument refuses a value at a protected path in a part of a search where none belongs; the server refuses it too, and quotes it.
func (g *guard) noDocument(v *treeValue, where string) error {
	return g.each(v, func(o *treeValue) error {
		for i := range o.kids {
			m := &o.kids[i]
			if f := g.named(m.name, atOrBelow); f != nil && !plainOptions[string(m.name)] && !m.isNull() {
				return guardFault(f, where)
			}
			if err := g.noDocument(m, where); err != nil {
				return err
			}
		}
		return nil
	})
}

// documentNames gives the protected field that a document holds a value for, or nil. A trailing dot is
// dropped, as the server does.
func (g *guard) documentNames(v *treeValue, prefix string) *policy.Field {
	if v == nil {
		return nil
	}
	for i := range v.kids {
		m := &v.kids[i]
		path := prefix
		if m.name != nil {
			name := m.name
			for len(name) > 0 && name[len(name)-1] == '.' {
				name = name[:len(name)-1]
			}
			if path != "" {
				path += "."
			}
			path += string(name)
			for _, f := range g.fields {
				if atOrUnder([]byte(path), f.Path) && !m.isNull() {
					return f
				}
			}
		}
		if f := g.documentNames(m, path); f != nil {
			return f
		}
	}
	return nil
}

// wrapper reads the query that a wrapper clause holds in base64
// (org.elasticsearch.index.query.WrapperQueryBuilder).
func (g *guard) wrapper(v *treeValue) error {
	query := v.member("query")
	if query == nil {
		return nil
	}
	unread := &Fault{Status: 400, Type: "esproxy_protected_query", Reason: "the clause [wrapper] holds a query that cannot be read; send the query itself"}
	inner, err := base64.StdEncoding.DecodeString(string(g.text(query)))
	if err != nil {
		return unread
	}
	root, err := strictTree(inner)
	if err != nil || !root.isObject() {
		return unread
	}
	sub := *g
	sub.body = inner
	return sub.query(&root)
}

func (g *guard) rescore(v *treeValue) error {
	for i := range v.kids {
		m := &v.kids[i]
		var err error
		switch string(m.name) {
		case "query", "script", "learning_to_rank":
			err = g.container(m)
			if err == nil && string(m.name) == "script" {
				err = g.script(m, nil)
			}
		case "window_size":
		default:
			err = g.unknownMember(m)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// retriever reads a tree of retrievers: {"standard": {…}}. Their options are those of search bodies and of
// queries.
func (g *guard) retriever(v *treeValue) error {
	return g.each(v, func(r *treeValue) error {
		for i := range r.kids {
			kind := &r.kids[i]
			if string(kind.name) == "knn" {
				if err := g.fieldNamed(kind, "knn"); err != nil {
					return err
				}
				continue
			}
			// An entry of a list of retrievers may be {"retriever": …, "weight": …}.
			if string(kind.name) == "retriever" {
				if err := g.retriever(kind); err != nil {
					return err
				}
				continue
			}
			for _, member := range [...]string{"field", "fields"} {
				// rrf, linear: a text over fields; text_similarity_reranker: one over what was found.
				if f := g.listed(kind.member(member)); f != nil && (kind.member("query") != nil || kind.member("inference_text") != nil) {
					return guardFault(f, "the retriever")
				}
			}
			for j := range kind.kids {
				m := &kind.kids[j]
				var err error
				switch string(m.name) {
				case "retriever", "retrievers":
					err = g.retriever(m)
				case "query", "filter":
					err = g.query(m) // a text has its fields beside it
				case "match_criteria":
					err = g.criteria(m)
				case "field", "fields", "inference_text", "ids", "docs":
				default:
					err = g.searchMember(kind, m)
				}
				if err != nil {
					return err
				}
			}
		}
		return nil
	})
}

// highlight reads the highlight part. Names of fields carry no constant; highlight queries do.
func (g *guard) highlight(v *treeValue) error {
	if err := g.query(orNull(v.member("highlight_query"))); err != nil {
		return err
	}
	fields := v.member("fields")
	if fields == nil {
		return nil
	}
	return g.each(fields, func(o *treeValue) error {
		for i := range o.kids {
			if err := g.query(orNull(o.kids[i].member("highlight_query"))); err != nil {
				return err
			}
		}
		return nil
	})
}

var nullValue = treeValue{kind: 'n'}

func orNull(v *treeValue) *treeValue {
	if v == nil {
		return &nullValue
	}
	return v
}

// sort reads sort and, beside it, search_after, whose values stand for the sort's fields.
func (g *guard) sort(v, after *treeValue) error {
	return g.each(v, func(s *treeValue) error {
		if s.isString() {
			return g.sortAfter(g.named(g.text(s), atOrBelow), after)
		}
		for i := range s.kids {
			m := &s.kids[i]
			switch string(m.name) {
			case "_score", "_doc", "_shard_doc":
				continue
			case "_script":
				if err := g.script(m.member("script"), nil); err != nil {
					return err
				}
			case "_geo_distance", "_geoDistance":
				if err := g.fieldKeyed(m, "_geo_distance"); err != nil {
					return err
				}
			default:
				if err := g.sortField(m, after); err != nil {
					return err
				}
			}
			if err := g.sortNested(m); err != nil {
				return err
			}
		}
		return nil
	})
}

func (g *guard) sortField(m, after *treeValue) error {
	f := g.named(m.name, atOrBelow)
	if f == nil {
		return nil
	}
	order := m
	if m.isObject() {
		if missing := m.member("missing"); missing != nil {
			if text := string(g.text(missing)); text != "_last" && text != "_first" {
				return guardFault(f, "the member [missing] of [sort]")
			}
		}
		order = m.member("order")
	}
	if order != nil {
		if text := string(g.text(order)); text != "asc" && text != "desc" && text != "ASC" && text != "DESC" {
			return guardFault(f, "the part [sort]")
		}
	}
	return g.sortAfter(f, after)
}

func (g *guard) sortAfter(f *policy.Field, after *treeValue) error {
	if f != nil && after != nil && len(after.kids) > 0 {
		return guardFault(f, "the part [search_after]")
	}
	return nil
}

// sortNested reads the filters of nested sorts.
func (g *guard) sortNested(m *treeValue) error {
	if err := g.query(orNull(m.member("nested_filter"))); err != nil {
		return err
	}
	for n := m.member("nested"); n != nil; n = n.member("nested") {
		if err := g.query(orNull(n.member("filter"))); err != nil {
			return err
		}
	}
	return nil
}

// suggest reads the suggest part: a suggester always has a text, its own or the common one.
func (g *guard) suggest(v *treeValue) error {
	for i := range v.kids {
		if err := g.suggester(&v.kids[i]); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) suggester(v *treeValue) error {
	if f := g.listed(v.member("field")); f != nil {
		return guardFault(f, "the part [suggest]")
	}
	for i := range v.kids {
		m := &v.kids[i]
		if string(m.name) == "collate" {
			if err := g.collate(m); err != nil {
				return err
			}
			continue
		}
		if !m.isScalar() {
			if err := g.suggester(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// collate reads a template for queries, into which a suggestion is filled; its params stand beside it.
func (g *guard) collate(m *treeValue) error {
	query := m.member("query")
	if query == nil {
		return nil
	}
	// As one object, so that a template finds its params: those of collate count.
	script := treeValue{kind: '{'}
	if query.isObject() {
		for _, kid := range query.kids {
			if string(kid.name) != "params" || m.member("params") == nil {
				script.kids = append(script.kids, kid)
			}
		}
	} else {
		source := *query
		source.name = []byte("source")
		script.kids = append(script.kids, source)
	}
	if params := m.member("params"); params != nil {
		script.kids = append(script.kids, *params)
	}
	return g.template(&script, map[string]any{"suggestion": "1"})
}

// runtime reads runtime_mappings. A runtime field of the name of a protected field, of what is above or below it or of a
// subject would shadow what is stored; a script that reads a protected field must bring no constants.
func (g *guard) runtime(v *treeValue) error {
	for i := range v.kids {
		m := &v.kids[i]
		names := []string{string(m.name)}
		for _, sub := range orNull(m.member("fields")).kids {
			names = append(names, string(m.name)+"."+string(sub.name))
		}
		if path, rule := g.shadowed(names, m.member("fields") != nil); rule != nil {
			return &Fault{Status: 400, Type: "esproxy_protected_query", Reason: "the part [runtime_mappings] defines a runtime field at, above or below [" + path + "], which rule [" + rule.Name +
				"] protects or takes the subject from; give the runtime field another name"}
		}
		for _, name := range names {
			if strings.HasPrefix(name, SentinelPrefix) {
				return &Fault{Status: 400, Type: "esproxy_protected_query", Reason: "the part [runtime_mappings] defines a runtime field whose name begins with " + SentinelPrefix +
					", which would hide under which keys stored values lie; give the runtime field another name"}
			}
		}
		if err := g.script(m.member("script"), nil); err != nil {
			return err
		}
	}
	return nil
}

// shadowed gives the protected or subject path that a runtime field with these names would stand for.
// composite is set when the first name itself emits nothing.
func (g *guard) shadowed(names []string, composite bool) (string, *policy.Rule) {
	if composite {
		names = names[1:]
	}
	for _, name := range names {
		if f := g.named([]byte(name), andAbove); f != nil {
			return f.Path, f.Rule
		}
		for _, r := range g.rules {
			if r.Subject != "" && (atOrUnder([]byte(name), r.Subject) || above([]byte(name), r.Subject)) {
				return r.Subject, r
			}
		}
	}
	return "", nil
}

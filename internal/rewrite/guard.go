package rewrite

import (
	"bytes"
	"errors"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// The query guard keeps plaintext constants on protected fields from going upstream in search bodies and URLs:
// the server keeps them in task descriptions, slow logs and audit logs, and they could match nothing anyway.
//
// It follows the grammar of search bodies from the root, so that names of aggregations, of
// suggestions and of options are not taken for field names. In clauses it does not know it refuses whatever
// names a protected field.
//
// What remains, and stands in docs/design.md: a value that is pasted into a search over all fields (query_string or
// multi_match without a field, or with the field "*") goes upstream, as nothing tells that it belongs to a
// protected field; so does one under a field alias or multi-field that an earlier mapping has put elsewhere; and
// scripts can build names while they run.

// queryInfo is what a search body tells about the reply.
type queryInfo struct {
	// topHits are the places of top_hits aggregations, as topHitsOf gives them.
	topHits [][]string
	// sourceFiltered is set when some hits (of the search, of inner_hits or of top_hits) may come with a part of
	// _source or none.
	sourceFiltered bool
}

// guardQuery reads one search body (also of _count, _delete_by_query and others that hold a query) in
// one strict pass and refuses it (*Fault, 400) when it holds a constant for a field that rules
// protect. An empty body holds none.
func (e *Engine) guardQuery(rules []*policy.Rule, body []byte) (queryInfo, error) {
	return newGuard(rules, body).searchBody()
}

// searchBody reads the guard's body.
func (g *guard) searchBody() (queryInfo, error) {
	var info queryInfo
	if skipSpace(g.body, 0) == len(g.body) {
		return info, nil
	}
	root, err := strictTree(g.body)
	if err != nil {
		return info, badBodyFault(err)
	}
	g.info = &info
	err = g.search(&root)
	if err == nil && g.topHits {
		info.topHits = topHitsOf(g.body)
	}
	return info, err
}

// guardURL does the same for the decoded parameters of a search in the URL.
func guardURL(rules []*policy.Rule, params [][2]string) error {
	g := newGuard(rules, nil)
	var q, df, suggest string
	for _, p := range params {
		switch p[0] {
		case "q":
			q = p[1]
		case "df":
			df = p[1]
		case "suggest_field":
			suggest = p[1]
		}
	}
	if q != "" {
		if f := g.named([]byte(df), andAbove); f != nil && q != "*" {
			return guardFault(f, "the parameter [q] with [df]")
		}
		if f := g.luceneText([]byte(q)); f != nil {
			return guardFault(f, "the parameter [q]")
		}
	}
	// A suggestion always has a text: suggest_text, or else q.
	if f := g.named([]byte(suggest), andAbove); f != nil {
		return guardFault(f, "the parameter [suggest_text]")
	}
	return nil
}

// badBodyFault is the refusal of a body that is not strict JSON.
func badBodyFault(err error) error {
	var s *syntaxError
	if errors.As(err, &s) {
		return &Fault{Status: 400, Type: "esproxy_bad_request", Reason: "the body is not JSON that can be read in one way only (RFC 8259): " + s.Error(), Cause: err}
	}
	return err
}

// guardFault is the refusal of a constant. where is a phrase of our own, never the client's text.
func guardFault(f *policy.Field, where string) error {
	return &Fault{Status: 400, Type: "esproxy_protected_query", Reason: where + " holds or may hold a value for [" + f.Path + "], which rule [" + f.Rule.Name +
		"] protects: a sealed field cannot be searched by value, and the value would reach Elasticsearch in clear; search other fields, or the subject"}
}

// guard is the state of one pass over one body.
type guard struct {
	body    []byte
	fields  []*policy.Field
	rules   []*policy.Rule
	info    *queryInfo
	topHits bool // an aggregation asks for hits
	// scripts reads a stored script or template by its id, nil when there is none; the field is nil where none can be read.
	scripts func(id string) (*templateText, error)
	// elsewhere gives the rules of another index that a query names a document for; nil where it cannot be asked.
	elsewhere func(index string) ([]*policy.Rule, error)
}

func newGuard(rules []*policy.Rule, body []byte) *guard {
	g := &guard{body: body, rules: rules, info: &queryInfo{}}
	for _, r := range rules {
		g.fields = append(g.fields, r.Fields...)
	}
	return g
}

func (g *guard) text(v *treeValue) []byte { return v.text(g.body) }

// reach says whether the objects that a protected field lies in count as well.
type reach bool

const (
	atOrBelow reach = false // the field, and sub-fields such as "card.keyword"
	andAbove  reach = true  // also its parents: a flattened parent is searched through all its leaves
)

// named gives the protected field that a field name in a query stands for, or nil. The name may hold wildcards;
// "*" alone is the same as naming no field, and stands for none.
func (g *guard) named(name []byte, how reach) *policy.Field {
	if len(name) == 0 {
		return nil
	}
	wild := bytes.IndexByte(name, '*') >= 0
	for _, f := range g.fields {
		if wild && patternNames(string(name), f.Path) || !wild && (atOrUnder(name, f.Path) || how == andAbove && above(name, f.Path)) {
			return f
		}
	}
	return nil
}

// atOrUnder reports whether name is path or lies below it.
func atOrUnder(name []byte, path string) bool {
	return len(name) >= len(path) && string(name[:len(path)]) == path && (len(name) == len(path) || name[len(path)] == '.')
}

// above reports whether path lies below name.
func above(name []byte, path string) bool {
	return len(path) > len(name) && path[len(name)] == '.' && path[:len(name)] == string(name)
}

// patternNames reports whether a pattern with wildcards means path, or what is below a path that its
// front part means. "*" and "*.suffix" say nothing of a path, so they mean none below it.
func patternNames(pattern, path string) bool {
	if strings.Trim(pattern, "*") == "" {
		return false
	}
	if policy.Glob(pattern, path) {
		return true
	}
	for i := range len(pattern) {
		if pattern[i] != '.' {
			continue
		}
		if front := pattern[:i]; strings.Trim(front, "*") != "" && policy.Glob(front, path) {
			return true
		}
	}
	return false
}

// search reads the members of a search body.
func (g *guard) search(v *treeValue) error {
	if !v.isObject() {
		return g.unknown(v)
	}
	for i := range v.kids {
		if err := g.searchMember(v, &v.kids[i]); err != nil {
			return err
		}
	}
	return nil
}

func (g *guard) searchMember(v, m *treeValue) error {
	switch string(m.name) {
	case "query":
		if m.isString() { // no query of a search
			if f := g.roughly(string(g.text(m))); f != nil {
				return guardFault(f, "the query text")
			}
			return nil
		}
		return g.query(m)
	case "post_filter", "index_filter", "filter":
		return g.query(m)
	case "aggs", "aggregations":
		return g.aggs(m)
	case "sort":
		return g.sort(m, v.member("search_after"))
	case "suggest":
		return g.suggest(m)
	case "highlight":
		return g.highlight(m)
	case "collapse", "pinned":
		return g.container(m)
	case "rescore":
		return g.each(m, g.rescore)
	case "knn":
		return g.each(m, func(k *treeValue) error { return g.fieldNamed(k, "knn") })
	case "sub_searches":
		return g.each(m, func(k *treeValue) error { return g.search(k) })
	case "source", "inner_hits": // source: that of _reindex
		if m.isObject() {
			return g.search(m)
		}
		return nil
	case "retriever":
		return g.retriever(m)
	case "runtime_mappings":
		return g.runtime(m)
	case "script_fields":
		for i := range m.kids {
			if err := g.script(m.kids[i].member("script"), nil); err != nil {
				return err
			}
		}
		return nil
	case "script":
		return g.script(m, nil)
	case "_source":
		if m.kind != 't' {
			g.info.sourceFiltered = true
		}
		return nil
	case "stored_fields": // with it, hits have no _source unless it names _source
		g.info.sourceFiltered = true
		return nil
	case "fields", "docvalue_fields", "fielddata_fields", "search_after", "indices_boost", "stats", "track_total_hits",
		"from", "size", "timeout", "min_score", "version", "seq_no_primary_term", "explain", "profile", "track_scores",
		"terminate_after", "ignore_unmapped", "max_docs", "conflicts", "index", "dest", "remote",
		"keep_alive", "wait_for_completion_timeout", "batched_reduce_size", "lang":
		return nil
	case "pit", "slice", "rank", "name", "params", "id":
		return g.noDocument(m, "the member ["+string(m.name)+"]")
	case "field": // _terms_enum
		if f := g.named(g.text(m), andAbove); f != nil && (v.member("string") != nil || v.member("search_after") != nil) {
			return guardFault(f, "the member [string]")
		}
		return nil
	case "string", "case_insensitive":
		return nil
	}
	return g.unknownMember(m)
}

// each calls f for an object, or for each element of an array.
func (g *guard) each(v *treeValue, f func(*treeValue) error) error {
	if !v.isArray() {
		return f(v)
	}
	for i := range v.kids {
		if err := g.each(&v.kids[i], f); err != nil {
			return err
		}
	}
	return nil
}

// unknown reads a value whose grammar is not known here. A query clause in it is read as one.
func (g *guard) unknown(v *treeValue) error {
	switch {
	case v.isObject():
		for _, name := range [...]string{"field", "default_field", "fields"} {
			if f := g.listed(v.member(name)); f != nil && len(v.kids) > 1 {
				return guardFault(f, "an unknown clause")
			}
		}
		for i := range v.kids {
			if err := g.unknownMember(&v.kids[i]); err != nil {
				return err
			}
		}
	case v.isArray():
		for i := range v.kids {
			if err := g.unknown(&v.kids[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *guard) unknownMember(m *treeValue) error {
	if f := g.named(m.name, atOrBelow); f != nil {
		return guardFault(f, "an unknown clause")
	}
	if !m.isScalar() {
		switch string(m.name) {
		case "_source", "docvalue_fields", "stored_fields": // names, in lists; or a document
			if f := g.documentNames(m, ""); f != nil {
				return guardFault(f, "an unknown clause")
			}
			return nil
		case "aggs", "aggregations":
			return g.aggs(m)
		case "script":
			return g.script(m, nil)
		case "inner_hits":
			return g.search(m)
		}
		if _, known := clauses[string(m.name)]; known && m.isObject() {
			return g.clause(m)
		}
	}
	return g.unknown(m)
}

// listed gives the first protected field that a field name, or one of a list of them, stands for; a boost ("^2") is
// left out.
func (g *guard) listed(v *treeValue) *policy.Field {
	switch {
	case v.isString():
		name := g.text(v)
		if i := bytes.LastIndexByte(name, '^'); i >= 0 {
			if f := g.named(name, andAbove); f != nil {
				return f
			}
			name = name[:i]
		}
		return g.named(name, andAbove)
	case v.isArray() || v.isObject(): // an object: {"field": …} of a list
		for i := range v.kids {
			if f := g.listed(&v.kids[i]); f != nil {
				return f
			}
		}
	}
	return nil
}

package rewrite

import (
	_ "embed"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

//go:embed routes.tsv
var routesTSV string

// route is one row of the table.
type route struct {
	method, template, api string
	verdict               verdict  // on the request
	reply                 string   // verdict on the reply: pass, open, items, none or the name of another rewriting; for people and tests
	reason                string   // of both verdicts, in words for the refusal and for docs/endpoints.md
	params                []string // name of each path segment that is a parameter, "" for fixed words
	also                  *route   // a further row of this form, whose parameters have other names
}

// members are what a body is documented to have at its top, for all rows of this form together.
func (r *route) members() []string {
	all := documentedMembers(r.api)
	for r = r.also; r != nil; r = r.also {
		all = append(slices.Clip(all), documentedMembers(r.api)...)
	}
	return all
}

// verdict names what is done with a request.
type verdict string

// The verdicts of the table. What each does stands in plan.go.
const (
	verdictPass              verdict = "pass"        // the API takes no body; one that holds something is refused
	verdictAdmin             verdict = "admin"       // the body is read strictly and passes as it is
	verdictRefuse            verdict = "refuse"      // refused, unless every target is a system index that no rule names
	verdictUnprotected       verdict = "unprotected" // passes where no rule applies to any target
	verdictBulk              verdict = "bulk"
	verdictDoc               verdict = "doc"
	verdictCreate            verdict = "create"
	verdictUpdate            verdict = "update"
	verdictSearch            verdict = "search"
	verdictAsync             verdict = "async"
	verdictAsyncGet          verdict = "async_get"
	verdictScroll            verdict = "scroll"
	verdictMsearch           verdict = "msearch"
	verdictMget              verdict = "mget"
	verdictGet               verdict = "get"
	verdictSource            verdict = "source"
	verdictExplain           verdict = "explain"
	verdictQuery             verdict = "query"
	verdictTermsEnum         verdict = "terms_enum"
	verdictUpdateByQuery     verdict = "update_by_query"
	verdictReindex           verdict = "reindex"
	verdictCopy              verdict = "copy"
	verdictESQL              verdict = "esql"
	verdictSQL               verdict = "sql"
	verdictEQL               verdict = "eql"
	verdictTableGet          verdict = "table_get"
	verdictEventsGet         verdict = "events_get"
	verdictView              verdict = "view"
	verdictCreateIndex       verdict = "create_index"
	verdictRollover          verdict = "rollover"
	verdictMapping           verdict = "mapping"
	verdictIndexTemplate     verdict = "index_template"
	verdictComponentTemplate verdict = "component_template"
	verdictLegacyTemplate    verdict = "legacy_template"
	verdictSimulateTemplate  verdict = "simulate_template"
	verdictPipeline          verdict = "pipeline"
	verdictSettings          verdict = "settings"
	verdictAliases           verdict = "aliases"
	verdictRoles             verdict = "roles"
	verdictJob               verdict = "job"
	verdictFollow            verdict = "follow"
	verdictRestore           verdict = "restore"
	verdictCreateFrom        verdict = "create_from"
	verdictSamples           verdict = "samples"
	verdictDocuments         verdict = "documents"
	verdictBinary            verdict = "binary"
	verdictPromQL            verdict = "promql"
	verdictSimulate          verdict = "simulate"
	verdictTerms             verdict = "terms"
	verdictMonitoring        verdict = "monitoring"
	verdictSearchTemplate    verdict = "search_template"
	verdictMsearchTemplate   verdict = "msearch_template"
	verdictRenderTemplate    verdict = "render_template"
	verdictScript            verdict = "script"
	verdictExecute           verdict = "execute"
	verdictRankEval          verdict = "rank_eval"
	verdictApplication       verdict = "application"
	verdictQueryRules        verdict = "query_rules"
	verdictEvent             verdict = "event"
)

// routeNode is one step of the route trie. Fixed words are compared raw and beat parameters, as in
// Elasticsearch's PathTrie; net/http's ServeMux would clean and decode the path.
//
// It has slices where maps come to mind: the table is built at every start. A thousand small maps, and members.tsv read
// whether needed or not, took 2.4 ms of the 10 to the first answer; this takes 0.7.
type routeNode struct {
	word     string
	fixed    []*routeNode // sorted by word
	wildcard *routeNode
	rows     []*route // one for each method
}

// routes is the table, parsed once.
var routes = mustParseRoutes(routesTSV)

func mustParseRoutes(tsv string) *routeNode {
	root := &routeNode{}
	rows := make([]route, strings.Count(tsv, "\n"))
	params := make([]string, 0, strings.Count(tsv, "/"))
	for i := 0; tsv != ""; i++ {
		var line string
		line, tsv, _ = strings.Cut(tsv, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		var f [6]string
		for k := range f {
			var ok bool
			if f[k], line, ok = strings.Cut(line, "\t"); ok != (k < len(f)-1) {
				panic(fmt.Sprintf("routes.tsv:%d: there must be 6 columns", i+1))
			}
		}
		r := &rows[i]
		*r = route{method: f[0], template: f[1], api: f[2], verdict: verdict(f[3]), reply: f[4], reason: f[5]}
		n, at := root, len(params)
		for seg := range strings.SplitSeq(strings.Trim(r.template, "/"), "/") {
			switch {
			case seg == "":
			case strings.HasPrefix(seg, "{"):
				params = append(params, strings.Trim(seg, "{}"))
				if n.wildcard == nil {
					n.wildcard = &routeNode{}
				}
				n = n.wildcard
			default:
				params = append(params, "")
				n = n.grow(seg)
			}
		}
		r.params = params[at:len(params):len(params)]
		if first := n.row(r.method); first != nil { // templates that differ in parameter names alone: the first counts
			r.also, first.also = first.also, r
			continue
		}
		n.rows = append(n.rows, r)
	}
	return root
}

// at is the place of a fixed word.
func (n *routeNode) at(word string) (int, bool) {
	return slices.BinarySearchFunc(n.fixed, word, func(n *routeNode, word string) int { return strings.Compare(n.word, word) })
}

// next is the node behind a fixed word, nil when there is none.
func (n *routeNode) next(word string) *routeNode {
	if i, ok := n.at(word); ok {
		return n.fixed[i]
	}
	return nil
}

// grow is next, and makes the node.
func (n *routeNode) grow(word string) *routeNode {
	if last := len(n.fixed) - 1; last >= 0 && n.fixed[last].word == word { // neighbours in the table
		return n.fixed[last]
	}
	i, ok := n.at(word)
	if !ok {
		n.fixed = slices.Insert(n.fixed, i, &routeNode{word: word})
	}
	return n.fixed[i]
}

// row is the row for a method, nil when there is none.
func (n *routeNode) row(method string) *route {
	for _, r := range n.rows {
		if r.method == method {
			return r
		}
	}
	return nil
}

// splitPath splits a raw path at slashes; empty segments at the end vanish.
func splitPath(path string) []string {
	path = strings.TrimRight(strings.TrimPrefix(path, "/"), "/")
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
}

// find returns the row for method and segments. known tells that some row has this path with another method.
func (n *routeNode) find(method string, segs []string) (r *route, known bool) {
	if len(segs) == 0 {
		return n.row(method), len(n.rows) > 0
	}
	if next := n.next(segs[0]); next != nil {
		if r, known = next.find(method, segs[1:]); r != nil {
			return r, true
		}
	}
	if n.wildcard != nil {
		r, also := n.wildcard.find(method, segs[1:])
		return r, known || also
	}
	return nil, known
}

// matched is a request's route with its path parameters, decoded.
type matched struct {
	*route
	values map[string]string
}

// findRoute finds the row for a request line. Parameters are decoded after matching.
func findRoute(method, path string) (_ *matched, fault *Fault) {
	segs := splitPath(path)
	for _, s := range segs {
		if s == "" {
			return nil, &Fault{Status: 400, Type: "esproxy_bad_request", Reason: "the path has an empty segment; Elasticsearch has no such route"}
		}
	}
	r, known := routes.find(method, segs)
	if r == nil {
		if method == "OPTIONS" && known {
			m := &matched{route: &route{method: method, template: "(options)", api: "options", verdict: verdictPass}, values: make(map[string]string)}
			for i, s := range segs {
				if m.values[strconv.Itoa(i)], fault = decodeSegment(s); fault != nil {
					return nil, fault
				}
			}
			return m, nil
		}
		if known && len(segs) > 0 && noIndex(segs[0]) { // then rows with an index in their path don't have it
			next := routes.next(segs[0])
			if known = next != nil; known {
				_, known = next.find(method, segs[1:])
			}
		}
		return nil, unknownEndpoint(method, path, known)
	}
	m := &matched{route: r, values: make(map[string]string)}
	for i, name := range r.params {
		if name == "" {
			continue
		}
		v, fault := decodeSegment(segs[i])
		if fault != nil {
			return nil, fault
		}
		// No index is called so: this is an endpoint of a plugin or a later version, such as OpenSearch's _bulk/stream. Where no
		// body belongs the server may say so.
		if name == "index" && r.verdict != verdictPass && noIndex(v) {
			return nil, unknownEndpoint(method, path, false)
		}
		if name == "type" && strings.HasPrefix(v, "_") { // nor is any type
			return nil, unknownEndpoint(method, path, false)
		}
		m.values[name] = v
	}
	return m, nil
}

// noIndex reports whether no index can have a name.
func noIndex(name string) bool {
	return strings.HasPrefix(name, "_") && !strings.HasPrefix(name, "_all")
}

func decodeSegment(seg string) (string, *Fault) {
	for i := range len(seg) {
		if seg[i] >= utf8.RuneSelf { // which the server takes for a character of Latin-1, and so for another name
			return "", refuse(400, "esproxy_bad_request", "the path has a character beyond ASCII as it is; write it percent-encoded, as %C3%A9 for é")
		}
	}
	v, err := url.PathUnescape(seg)
	// Elasticsearch replaces what is not UTF-8, so that a look-up might find another document.
	if err != nil || !utf8.ValidString(v) {
		return "", refuse(400, "esproxy_bad_request", "the path does not decode: a percent sign must be followed by two hexadecimal digits, and the result must be UTF-8")
	}
	return v, nil
}

// unknownEndpoint refuses what the table does not have. known tells that it has the path with another method.
func unknownEndpoint(method, path string, known bool) *Fault {
	reason := "this path is not in the proxy's table of Elasticsearch endpoints, so it is not known whether it carries protected values"
	if known {
		reason = "this path is in the proxy's table of Elasticsearch endpoints, but not with method [" + method + "]; use a method that Elasticsearch documents for it"
	}
	if hint := allowHint(method, path); hint != "" {
		reason += "; where it carries no protected values, an operator can let it pass unread by this line of the policy: " + hint
	} else if !known {
		reason += "; where it carries no protected values, send it to Elasticsearch directly"
	}
	return &Fault{Status: 403, Type: unknownType, Reason: reason}
}

const unknownType = "esproxy_unknown_endpoint"

// changesNames reports whether a request of this row may change what names stand for, or mappings.
func (r *route) changesNames() bool {
	if r.method == "GET" || r.method == "HEAD" || r.method == "OPTIONS" {
		return false
	}
	api := strings.TrimPrefix(r.api, "compat7.")
	switch api {
	case "indices.refresh", "indices.flush", "indices.forcemerge", "indices.clear_cache", "indices.analyze", "indices.validate_query",
		"indices.resolve_index", "indices.simulate_template", "indices.simulate_index_template", "indices.disk_usage",
		"indices.reload_search_analyzers":
		return false
	case "cluster.put_component_template", "cluster.delete_component_template", "cluster.put_settings", "snapshot.restore",
		"searchable_snapshots.mount", "unlisted.put_mapping", "dangling_indices.import_dangling_index", "features.reset_features",
		// A transform makes its target with aliases, and takes it away again when it is asked to.
		"transform.start_transform", "transform.reset_transform", "transform.delete_transform", "rollup.put_job":
		return true
	}
	return strings.HasPrefix(api, "indices.") || strings.HasPrefix(api, "ccr.") || strings.HasPrefix(api, "streams.") || strings.HasPrefix(api, "ilm.")
}

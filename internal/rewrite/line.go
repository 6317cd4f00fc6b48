package rewrite

import (
	"context"
	_ "embed"
	"net/url"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/policy"
)

// checkLine refuses a request whose path or query brings a value for a protected field, on every row of the table. Elasticsearch
// keeps request lines in access logs, slow logs, task descriptions and error texts.
//
// It is the hot path: it allocates nothing while there is nothing to look at, and asks the cluster only where something
// was found.
func (e *Engine) checkLine(ctx context.Context, m *matched, call *Call) error {
	if len(e.Policy.Rules) == 0 {
		return nil
	}
	for name, v := range m.values {
		if err := e.checkSegment(ctx, m, call, name, v); err != nil {
			return err
		}
	}
	for rest := call.Query; rest != ""; {
		pair := rest
		if i := strings.IndexAny(rest, "&;"); i >= 0 {
			pair, rest = rest[:i], rest[i+1:]
		} else {
			rest = ""
		}
		name, v, _ := strings.Cut(pair, "=")
		if documentedParam(name) && !lineParams[name] {
			continue
		}
		if err := e.checkParam(ctx, m, call, name, v); err != nil {
			return err
		}
	}
	return nil
}

// lineParams are documented parameters that hold values, or say what another one holds.
var lineParams = map[string]bool{"q": true, "df": true, "suggest_field": true, "source": true, "source_content_type": true}

// target gives the name of the path parameter that names what a request is about.
func (r *route) target() string {
	if strings.HasPrefix(r.template, "/_data_stream/{name}") {
		return "name"
	}
	return "index"
}

// lineRules gives the rules that a request can carry values for outside of documents: those that its index or data stream
// reaches, and all of them where the path names none, or names only a default for what the body says.
func (e *Engine) lineRules(ctx context.Context, m *matched, call *Call) ([]*policy.Rule, error) {
	name, ok := m.values[m.target()]
	switch m.verdict {
	case verdictBulk, verdictMsearch, verdictMget:
		ok = false
	}
	if !ok || noIndex(name) {
		return e.Policy.Rules, nil
	}
	params, fault := parseQuery(call.Query)
	if fault != nil {
		return e.Policy.Rules, nil
	}
	if other, given := lookParam(params, "index"); given && other != name { // path and query are one map to Elasticsearch
		return e.Policy.Rules, nil
	}
	in, err := e.reach(ctx, name)
	return in.rules, err
}

// checkSegment looks at one parameter of the path: "card:4111" and "card = 4111" hold a value for the field card.
func (e *Engine) checkSegment(ctx context.Context, m *matched, call *Call, name, v string) error {
	i := strings.IndexAny(v, ":=")
	if i < 0 || strings.TrimSpace(v[i+1:]) == "" || fieldOf(e.Policy.Rules, v[:i]) == nil {
		return nil
	}
	rules := e.Policy.Rules
	if name != m.target() { // a name of that form is no index of a rule and would pass
		var err error
		if rules, err = e.lineRules(ctx, m, call); err != nil {
			return err
		}
	}
	f := fieldOf(rules, v[:i])
	if f == nil {
		return nil
	}
	return refuse(400, "esproxy_protected_query", "the part {"+name+"} of the path begins with ["+f.Path+"], which rule ["+f.Rule.Name+
		"] protects, and a value for it: the value would reach Elasticsearch in clear and stand in its logs; name the document or object otherwise")
}

// fieldOf gives the field at or above which a name lies, or nil. White space around the name and dots at its end don't
// count, as the server drops both.
func fieldOf(rules []*policy.Rule, name string) *policy.Field {
	name = strings.TrimRight(strings.TrimSpace(name), ".")
	for _, rule := range rules {
		for _, f := range rule.Fields {
			if len(name) >= len(f.Path) && name[:len(f.Path)] == f.Path && (len(name) == len(f.Path) || name[len(f.Path)] == '.') {
				return f
			}
		}
	}
	return nil
}

// checkParam looks at one parameter of the query, as it was written.
func (e *Engine) checkParam(ctx context.Context, m *matched, call *Call, name, v string) error {
	n, err := url.QueryUnescape(name)
	value, err2 := url.QueryUnescape(v)
	if err != nil || err2 != nil || !utf8.ValidString(n) || !utf8.ValidString(value) {
		rules, err := e.lineRules(ctx, m, call)
		if err != nil || len(rules) == 0 {
			return err
		}
		return badQueryFault()
	}
	if n == "source" || n == "source_content_type" {
		rules, err := e.lineRules(ctx, m, call)
		if err != nil || len(rules) == 0 {
			return err
		}
		return refuse(400, "esproxy_bad_request", "the parameter ["+n+"] carries a body in the URL, where it would be logged; send it as the body")
	}
	if n == "q" && !guardsURL[m.verdict] {
		rules, err := e.lineRules(ctx, m, call)
		if err != nil {
			return err
		}
		return guardURL(rules, [][2]string{{"q", value}})
	}
	if (n == "df" || n == "suggest_field") && !guardsURL[m.verdict] && fieldOf(e.Policy.Rules, value) != nil {
		rules, err := e.lineRules(ctx, m, call)
		if err != nil {
			return err
		}
		if f := fieldOf(rules, value); f != nil { // that goes with q or suggest_text
			return guardFault(f, "the parameter ["+n+"]")
		}
		return nil
	}
	if documentedParam(n) || value == "" || fieldOf(e.Policy.Rules, n) == nil {
		return nil
	}
	rules, err := e.lineRules(ctx, m, call)
	if err != nil {
		return err
	}
	if f := fieldOf(rules, n); f != nil {
		return refuse(400, "esproxy_protected_query", "the query of the URL has a parameter with the name of ["+f.Path+"], which rule ["+f.Rule.Name+
			"] protects: its value would reach Elasticsearch in clear, and no API of Elasticsearch takes such a parameter; send values in the body of a document")
	}
	return nil
}

// guardsURL are the verdicts that read the parameter q on their own way.
var guardsURL = map[verdict]bool{
	verdictSearch: true, verdictAsync: true, verdictQuery: true, verdictTermsEnum: true, verdictUpdateByQuery: true, verdictExplain: true,
}

func badQueryFault() *Fault {
	return refuse(400, "esproxy_bad_request", "the query of the URL does not decode: a percent sign must be followed by two hexadecimal digits, and the result must be UTF-8")
}

//go:embed members.tsv
var membersTSV string

// documented is members.tsv, read when a request first asks for it.
var documented = sync.OnceValues(func() (params map[string]bool, members map[string][]string) { return mustParseMembers(membersTSV) })

// documentedParam reports whether any API documents a query parameter of this name.
func documentedParam(name string) bool {
	params, _ := documented()
	return params[name]
}

// documentedMembers are the members that an API documents at the top of its body.
func documentedMembers(api string) []string {
	_, members := documented()
	return members[api]
}

// mustParseMembers reads members.tsv: the union of all query parameters, and by API the members at the top of its body.
func mustParseMembers(tsv string) (params map[string]bool, members map[string][]string) {
	params, members = map[string]bool{}, map[string][]string{}
	for line := range strings.Lines(tsv) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		api, names, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		if !ok {
			panic("members.tsv: a line without a tab")
		}
		if api != "?" {
			members[api] = strings.Fields(names)
			continue
		}
		for name := range strings.FieldsSeq(names) {
			params[name] = true
		}
	}
	return params, members
}

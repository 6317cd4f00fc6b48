package rewrite

import (
	"strings"
	"sync"

	"github.com/esproxy/esproxy/internal/policy"
)

// documentWords are the fixed words of endpoints that write documents. No allowed path has one, not even in the place of a
// parameter.
var documentWords = map[string]bool{
	"_bulk": true, "_doc": true, "_create": true, "_update": true, "_update_by_query": true, "_reindex": true, "_all": true,
}

// CheckAllow judges the endpoints that a policy lets pass unread by the table of endpoints. It gives every mistake; nil when
// there is none.
func CheckAllow(p *policy.Policy) policy.Problems {
	var out policy.Problems
	for i := range p.Allow {
		if why := badAllow(&p.Allow[i]); why != "" {
			out = append(out, p.Allow[i].Bad(p.Allow[i].Method+" "+p.Allow[i].Path+" "+why))
		}
	}
	return out
}

func badAllow(a *policy.Allow) string {
	segs := splitPath(a.Path)
	if len(segs) == 0 || !strings.HasPrefix(segs[0], "_") || documentWords[segs[0]] {
		return "can't be allowed: its first segment could name an index, and what goes there must be read; allow paths that begin with a fixed word such as /_plugins"
	}
	for _, s := range segs[1:] {
		if documentWords[s] {
			return "can't be allowed: [" + s + "] writes documents, which must be sealed"
		}
	}
	if r := routes.overlapping(a.Method, segs, true); r != nil {
		return "can't be allowed: the proxy knows [" + r.method + " " + r.template + "] and reads it; its verdict stands"
	}
	return ""
}

// overlapping gives a row that a path of the template could be found by. first is set at the first segment, where what begins with an
// underscore is no index.
func (n *routeNode) overlapping(method string, segs []string, first bool) *route {
	if len(segs) == 0 {
		return n.row(method)
	}
	for _, next := range n.fixed {
		if next.word == segs[0] || strings.HasPrefix(segs[0], "{") {
			if r := next.overlapping(method, segs[1:], false); r != nil {
				return r
			}
		}
	}
	if n.wildcard != nil && !first {
		return n.wildcard.overlapping(method, segs[1:], false)
	}
	return nil
}

// allowed finds what the policy says of an endpoint that is not in the table. Segments are compared raw, parameters decoded after.
func (e *Engine) allowed(method, path string) *policy.Allow {
	if len(e.Policy.Allow) == 0 {
		return nil
	}
	segs := splitPath(path)
next:
	for i := range e.Policy.Allow {
		a := &e.Policy.Allow[i]
		want := splitPath(a.Path)
		if a.Method != method || len(want) != len(segs) {
			continue
		}
		for k, w := range want {
			if !strings.HasPrefix(w, "{") {
				if segs[k] != w {
					continue next
				}
				continue
			}
			v, fault := decodeSegment(segs[k])
			if fault != nil || v == "" || v == "." || v == ".." || documentWords[v] {
				continue next
			}
		}
		return a
	}
	return nil
}

// allowHint gives the line of the policy that would allow a request, "" when nothing may. Of the path only words go into it that
// stand in the table or have the form of an endpoint's; all else may be a value.
func allowHint(method, path string) string {
	segs := splitPath(path)
	for i, s := range segs {
		if !endpointWord(s) && !tableWords()[s] {
			segs[i] = "{x}"
		}
	}
	a := policy.Allow{Method: method, Path: "/" + strings.Join(segs, "/")}
	switch method {
	case "GET", "HEAD", "POST", "PUT", "DELETE":
		if badAllow(&a) == "" {
			return `allow: [{method: ` + a.Method + `, path: "` + a.Path + `"}]`
		}
	}
	return ""
}

// endpointWord reports whether a segment is an underscore and lower-case letters, as endpoints have it.
func endpointWord(s string) bool {
	return len(s) > 1 && len(s) <= 32 && s[0] == '_' && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// tableWords are all fixed words of the table.
var tableWords = sync.OnceValue(func() map[string]bool {
	words := map[string]bool{}
	var walk func(n *routeNode)
	walk = func(n *routeNode) {
		for _, next := range n.fixed {
			words[next.word] = true
			walk(next)
		}
		if n.wildcard != nil {
			walk(n.wildcard)
		}
	}
	walk(routes)
	return words
})

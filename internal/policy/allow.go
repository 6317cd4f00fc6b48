package policy

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// Allow is one endpoint that the proxy's table does not have and the operator lets pass unread.
type Allow struct {
	Method string // GET, HEAD, POST, PUT or DELETE
	Path   string // a template: "/_plugins/_ism/policies/{id}"

	Line, Col int // where it stands in the policy file, File
	File      string
}

// Bad makes a problem of a, for checks that need to know more than this package does.
func (a *Allow) Bad(text string) Problem {
	return Problem{File: a.File, Line: a.Line, Col: a.Col, Text: text}
}

var allowedMethods = []string{"GET", "HEAD", "POST", "PUT", "DELETE"}

// maxSegments is how many segments the path of an allowed endpoint may have.
const maxSegments = 16

// allow reads a list of {method, path}.
func (p *parser) allow(n *yaml.Node, out *Policy) {
	p.list(n, "allow", func(_ int, v *yaml.Node) {
		a := Allow{File: p.file, Line: v.Line, Col: v.Column}
		ok := true
		p.mapping(v, "an allowed endpoint", keys{
			"method": {required: true, read: func(n *yaml.Node) {
				if a.Method = n.Value; !p.isText(n, "method") {
					ok = false
				} else if !slices.Contains(allowedMethods, a.Method) {
					p.bad(n, "method %s is none of %s; write one of them", quoted(a.Method), strings.Join(allowedMethods, ", "))
					ok = false
				}
			}},
			"path": {required: true, read: func(n *yaml.Node) {
				if a.Path = n.Value; !p.isText(n, "path") {
					ok = false
				} else if why := badTemplate(a.Path); why != "" {
					p.bad(n, "path %s %s", quoted(a.Path), why)
					ok = false
				}
			}},
		})
		if !ok || a.Method == "" || a.Path == "" {
			return
		}
		if slices.ContainsFunc(out.Allow, func(b Allow) bool { return b.Method == a.Method && b.Path == a.Path }) {
			p.bad(v, "%s %s is allowed a second time; remove one", a.Method, a.Path)
			return
		}
		out.Allow = append(out.Allow, a)
	})
}

// badTemplate says what is wrong with a path template, "" for nothing.
func badTemplate(path string) string {
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return "does not begin with a slash; write it as /_plugins/name/{id}"
	}
	segs := strings.Split(rest, "/")
	if len(segs) > maxSegments || len(path) > maxPath {
		return "is too long; 16 segments are enough for any endpoint"
	}
	for _, s := range segs {
		name, isParam := strings.CutPrefix(s, "{")
		if isParam {
			name, isParam = strings.CutSuffix(name, "}")
		}
		plain := name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
		if s != name && !isParam || !plain && (isParam || !plainSegment(s)) {
			return "has a segment that is neither a plain word (letters, digits, _ - .) nor a name in braces; write * and the like as {name}"
		}
	}
	return ""
}

// plainSegment reports whether s is a word that stands in a path as it is, and no step up or down.
func plainSegment(s string) bool {
	return s != "" && s != "." && s != ".." && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.") == ""
}

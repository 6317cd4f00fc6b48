package rewrite

import (
	"bytes"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// node is one step of the protected paths of a target's rules. A nil node stands for a
// place below which nothing is protected.
type node struct {
	name     string
	children []*node
	field    *policy.Field // set where a protected value sits; such a node has no children
	subject  int           // 1 + the place in target.rules of the rule whose subject sits here, else 0
	also     []int         // further such rules: several rules may share a subject path
}

// child returns the node for one part of a name, or nil.
func (n *node) child(part []byte) *node {
	if n == nil {
		return nil
	}
	for _, c := range n.children {
		if string(part) == c.name {
			return c
		}
	}
	return nil
}

// descend follows a member name, which may be dotted. below is true when the name
// goes on below a protected path.
func (n *node) descend(name []byte) (to *node, below bool) {
	for n != nil {
		if n.field != nil {
			return nil, true
		}
		dot := bytes.IndexByte(name, '.')
		if dot < 0 {
			return n.child(name), false
		}
		n, name = n.child(name[:dot]), name[dot+1:]
	}
	return nil, false
}

func (n *node) add(parts []string) *node {
	for _, part := range parts {
		next := n.child([]byte(part))
		if next == nil {
			next = &node{name: part}
			n.children = append(n.children, next)
		}
		n = next
	}
	return n
}

// failedAt is where a failure store keeps the document that failed
// (org.elasticsearch.action.bulk.FailureStoreDocumentConverter).
const failedAt = "document.source"

// target is the united rules of one write target or hit, compiled. It is immutable.
type target struct {
	rules    []*policy.Rule
	root     *node
	failures bool // of a failure store: paths begin with failedAt, and stand at the root as well
}

// newTarget compiles rules that policy.Match found free of conflicts.
func newTarget(rules []*policy.Rule, failures bool) *target {
	t := &target{rules: rules, root: &node{}, failures: failures}
	for i, r := range rules {
		for _, f := range r.Fields {
			for _, parts := range t.placesOf(f.Parts) {
				t.root.add(parts).field = f
			}
		}
		for _, parts := range t.placesOf(r.SubjectParts) {
			n := t.root.add(parts)
			if n.subject == 0 {
				n.subject = i + 1
			} else {
				n.also = append(n.also, i)
			}
		}
	}
	return t
}

// placesOf gives the places of a path in documents of the target: of a failure store two, unless the path may meet failedAt.
func (t *target) placesOf(parts []string) [][]string {
	switch {
	case len(parts) == 0:
		return nil
	case !t.failures:
		return [][]string{parts}
	}
	at := strings.Split(failedAt, ".")
	places := [][]string{slices.Concat(at, parts)}
	if parts[0] != at[0] {
		places = append(places, parts)
	}
	return places
}

// shifted gives rules as they are in a failure store, for what names fields: their copies protect the same values below failedAt.
func shifted(rules []*policy.Rule) []*policy.Rule {
	var out []*policy.Rule
	for _, r := range rules {
		c := *r
		c.Fields = nil
		if r.Subject != "" {
			c.Subject = failedAt + "." + r.Subject
			c.SubjectParts = strings.Split(c.Subject, ".")
		}
		for _, f := range r.Fields {
			g := *f
			g.Path = failedAt + "." + f.Path
			g.Parts = strings.Split(g.Path, ".")
			g.Rule = &c
			c.Fields = append(c.Fields, &g)
		}
		out = append(out, &c)
	}
	return out
}

// rule returns the place of r in t.rules.
func (t *target) rule(r *policy.Rule) int {
	for i := range t.rules {
		if t.rules[i] == r {
			return i
		}
	}
	return -1
}

// paths returns every protected path and every subject path, for the _source filter of a look-up.
func (t *target) paths() []string {
	var out []string
	for _, r := range t.rules {
		out = append(out, t.pathsOf(r.SubjectParts)...)
		for _, f := range r.Fields {
			out = append(out, t.pathsOf(f.Parts)...)
		}
	}
	return out
}

// pathsOf gives the places of a path as dotted names.
func (t *target) pathsOf(parts []string) (out []string) {
	for _, p := range t.placesOf(parts) {
		out = append(out, strings.Join(p, "."))
	}
	return out
}

// hasSubject reports whether any rule of t has a subject.
func (t *target) hasSubject() bool {
	for _, r := range t.rules {
		if r.Subject != "" {
			return true
		}
	}
	return false
}

// emptyPart reports whether a dotted name has an empty part.
func emptyPart(name []byte) bool {
	return len(name) == 0 || name[0] == '.' || bytes.Contains(name, []byte(".."))
}

// reservedMember is the prefix of member names that belong to the proxy.
const reservedMember = "esproxy_"

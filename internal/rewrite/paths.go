package rewrite

import (
	"bytes"

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

// target is the united rules of one write target or hit, compiled. It is immutable.
type target struct {
	rules []*policy.Rule
	root  *node
}

// newTarget compiles rules that policy.Match found free of conflicts.
func newTarget(rules []*policy.Rule) *target {
	t := &target{rules: rules, root: &node{}}
	for i, r := range rules {
		for _, f := range r.Fields {
			t.root.add(f.Parts).field = f
		}
		if r.Subject == "" {
			continue
		}
		n := t.root.add(r.SubjectParts)
		if n.subject == 0 {
			n.subject = i + 1
		} else {
			n.also = append(n.also, i)
		}
	}
	return t
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
		if r.Subject != "" {
			out = append(out, r.Subject)
		}
		for _, f := range r.Fields {
			out = append(out, f.Path)
		}
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

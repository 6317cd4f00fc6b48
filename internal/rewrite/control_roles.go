package rewrite

import (
	"slices"

	"github.com/esproxy/esproxy/internal/policy"
)

// roles looks for constants in the queries of document level security: {"names": patterns, "query": …} at any depth, as
// roles, role descriptors of API keys and cross-cluster access have them.
func (c *controlPass) roles(v *treeValue) error {
	if q := v.member("query"); q != nil {
		var rules []*policy.Rule
		for _, r := range c.rules {
			if slices.ContainsFunc(c.texts(v.member("names")), r.CouldMatch) {
				rules = append(rules, r)
			}
		}
		if err := newGuard(rules, c.body).roleQuery(q); err != nil {
			return err
		}
	}
	for i := range v.kids {
		if err := c.roles(&v.kids[i]); err != nil {
			return err
		}
	}
	return nil
}

// roleQuery reads such a query: an object, its text, or a template, which must not name a protected field.
func (g *guard) roleQuery(q *treeValue) error {
	if q.isString() {
		text := g.text(q)
		root, err := strictTree(text)
		if err != nil || !root.isObject() {
			return g.roleTemplate(text)
		}
		inner := *g
		inner.body = text
		return inner.roleQuery(&root)
	}
	template := q.member("template")
	if template == nil {
		return g.query(q)
	}
	if source := template.member("source"); source.isObject() {
		return g.query(source)
	}
	if source := scriptSource(template); source != nil {
		return g.roleTemplate(g.text(source))
	}
	return nil
}

func (g *guard) roleTemplate(text []byte) error {
	words := lexScript(text)
	for _, f := range g.fields {
		if mentions(words, f) {
			return guardFault(f, "the query template of a role")
		}
	}
	return nil
}

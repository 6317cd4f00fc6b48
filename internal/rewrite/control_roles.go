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
		g := newGuard(rules, c.body)
		g.scripts = c.scripts
		if err := g.roleQuery(q); err != nil {
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
	if source := scriptSource(template); source != nil {
		if err := g.roleTemplate(g.text(source)); err != nil {
			return err
		}
	}
	return g.template(template, map[string]any{"_user": map[string]any{"username": "1", "full_name": "1", "email": "1", "roles": []any{"1"}, "metadata": map[string]any{}}})
}

func (g *guard) roleTemplate(text []byte) error {
	words := lexScript(unescapedUnits(text))
	for _, f := range g.fields {
		if mentions(words, f) {
			return guardFault(f, "the query template of a role")
		}
	}
	return nil
}

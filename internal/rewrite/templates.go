package rewrite

import "github.com/esproxy/esproxy/internal/policy"

// TemplateKind is a kind of templates that Elasticsearch keeps.
type TemplateKind uint8

const (
	IndexTemplate TemplateKind = iota
	LegacyTemplate
	ComponentTemplate
)

// Path is where templates of the kind are read and put.
func (k TemplateKind) Path() string {
	return [...]string{"/_index_template", "/_template", "/_component_template"}[k]
}

// String is the name of the kind.
func (k TemplateKind) String() string {
	return [...]string{"index template", "legacy template", "component template"}[k]
}

// CompleteTemplate gives a stored template (the body that a PUT takes) with the mappings and, where sentinels is set, the sentinels that
// rules want in it, just as the proxy does with one that passes. within tells whether there is anything to want: some rule claims
// every index that the template makes. Other templates, and component templates, are never changed. What conflicts with a rule gives a *Fault.
func CompleteTemplate(kind TemplateKind, rules []*policy.Rule, body []byte, sentinels bool) (out []byte, within bool, err error) {
	control := [...]controlKind{controlIndexTemplate, controlLegacyTemplate, controlComponentTemplate}[kind]
	least := policy.SentinelOn
	if !sentinels {
		least = policy.SentinelRequired + 1
	}
	if kind != ComponentTemplate {
		root, err := strictTree(body)
		if err != nil {
			return body, false, badBodyFault(err)
		}
		c := &controlPass{guard: newGuard(rules, body)}
		if _, all := templateRules(c.patterns(&root), nil, rules); len(all) == 0 {
			return body, false, nil
		}
	}
	out, err = controlled(control, rules, body, newGuard, least)
	return out, kind != ComponentTemplate, err
}

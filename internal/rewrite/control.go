package rewrite

import (
	"bytes"
	"slices"

	"github.com/esproxy/esproxy/internal/policy"
)

// controlKind names a kind of body that defines how indices store or change documents.
type controlKind uint8

const (
	controlCreate            controlKind = iota // PUT /{index}: settings, mappings, aliases
	controlMapping                              // PUT /{index}/_mapping, PUT /_data_stream/{name}/_mappings
	controlIndexTemplate                        // PUT /_index_template/{name}
	controlComponentTemplate                    // PUT /_component_template/{name}
	controlLegacyTemplate                       // PUT /_template/{name}
	controlSimulate                             // POST /_index_template/_simulate: read, not rewritten
	controlPipeline                             // PUT /_ingest/pipeline/{id}
	controlSettings                             // PUT /{index}/_settings
	controlAliases                              // POST /_aliases, PUT /{index}/_alias/{name}
	controlRoles                                // PUT /_security/role/{name} and bodies of API keys, which hold roles
	controlResize                               // POST /{index}/_clone/{target} and its kin, _rollover without mappings: settings and aliases
)

// control reads a control body and gives the body that goes upstream: the same bytes, or the body with the
// mappings that protected fields need. What would let a protected value rest in another form, go to another
// place or get lost is refused with a *Fault (400).
//
// rules are those of the targets. For templates and pipelines the body or nothing tells the targets, so they
// are all rules of the policy; the rules of a template are then those whose patterns overlap index_patterns.
//
// Mappings are added
//   - to bodies that create indices and to mappings, and to a template when each of its patterns lies wholly within one of
//     the rule's: elsewhere the addition would make a field of that name unsearchable in indices that no rule names.
//     What is not added here is added by the first write;
//   - for a path of several parts only where its parent is in the body: the server may know the parent as
//     nested or flattened from elsewhere, and a guess of ours would make it refuse the client's request.
//
// A component template is for indices that nobody knows yet, so its mappings and settings are left alone, but for the names of
// sentinels; the index template that uses it and the first write decide.
//
// A definition that conflicts is refused even where the patterns only overlap: the protected index would be
// made wrong, and cannot be mended in place. dynamic_templates don't matter, as explicit mappings beat them.
//
// Where mappings are added to a body that makes indices, the sentinels of those rules are added too that say on or required. A put
// mapping gets none: in an index that takes writes already it could lose documents, see docs/operations.md.
func (e *Engine) control(kind controlKind, rules []*policy.Rule, body []byte) ([]byte, error) {
	return controlled(kind, rules, body, newGuard, policy.SentinelOn)
}

// control is Engine.control with stored scripts looked up, and for a cluster as it is: without painless, sentinels are added only where
// they are required.
func (r *request) control(kind controlKind, rules []*policy.Rule, body []byte) ([]byte, error) {
	least := policy.SentinelOn
	if r.CanHaveSentinels != nil && slices.ContainsFunc(rules, func(r *policy.Rule) bool { return r.Sentinel == policy.SentinelOn }) {
		if ok, _ := r.CanHaveSentinels(r.ctx); !ok {
			least = policy.SentinelRequired
		}
	}
	return controlled(kind, rules, body, r.newGuard, least)
}

func controlled(kind controlKind, rules []*policy.Rule, body []byte, newGuard func([]*policy.Rule, []byte) *guard, least policy.Sentinel) ([]byte, error) {
	if len(rules) == 0 {
		return body, nil
	}
	if skipSpace(body, 0) == len(body) {
		if kind != controlCreate {
			return body, nil
		}
		body = []byte("{}")
	}
	root, err := strictTree(body)
	if err != nil {
		return nil, badBodyFault(err)
	}
	if !root.isObject() {
		return nil, badBodyFault(badSyntax(root.start, "expected an object"))
	}
	c := &controlPass{guard: newGuard(rules, body)}
	switch kind {
	case controlPipeline:
		err = c.pipeline(&root)
	case controlSettings:
		err = c.settings(&root)
	case controlAliases:
		err = c.aliasActions(&root)
	case controlMapping:
		err = c.mapping(controlPlace{at: &root}, fieldsOf(rules))
	case controlCreate:
		c.sentinels = withSentinel(rules, least)
		err = c.template(controlPlace{at: &root}, fieldsOf(rules))
	case controlRoles:
		err = c.roles(&root)
	case controlResize:
		if s := root.member("settings"); s != nil {
			err = c.settings(s)
		}
		if err == nil {
			err = c.aliases(root.member("aliases"))
		}
	case controlComponentTemplate:
		err = c.aliases(root.member("template").member("aliases"))
		if err == nil {
			err = c.reserved(root.member("template").member("mappings"))
		}
		if err == nil {
			err = c.plainValues(orNull(root.member("template").member("mappings")))
		}
	case controlIndexTemplate, controlSimulate, controlLegacyTemplate:
		var within []*policy.Rule
		at := &root
		if kind != controlLegacyTemplate {
			at = root.member("template")
		}
		rules, within = templateRules(c.patterns(&root), at.member("aliases"), rules)
		if len(rules) == 0 {
			return body, nil
		}
		c.guard = newGuard(rules, body)
		c.sentinels = withSentinel(within, least)
		add := fieldsOf(within)
		if kind == controlLegacyTemplate {
			err = c.template(controlPlace{at: &root}, add)
		} else {
			err = c.template(controlPlace{at: &root}.member("template"), add)
		}
	}
	if err != nil {
		return nil, err
	}
	if kind == controlSimulate {
		return body, nil
	}
	return c.edited(), nil
}

// controlPass is the state of one pass over one control body.
type controlPass struct {
	*guard
	stored    bool           // the mapping is one that the server gave
	sentinels []*policy.Rule // whose sentinels are added
	edits     []edit
}

// edit replaces body[start:end].
type edit struct {
	start, end int
	text       []byte
}

func (c *controlPass) edited() []byte {
	if len(c.edits) == 0 {
		return c.body
	}
	slices.SortStableFunc(c.edits, func(a, b edit) int { return a.start - b.start })
	var out []byte
	from := 0
	for _, e := range c.edits {
		out = append(append(out, c.body[from:e.start]...), e.text...)
		from = e.end
	}
	return append(out, c.body[from:]...)
}

// controlPlace is an object of the body, or where it would be if it were there.
type controlPlace struct {
	at      *treeValue // the innermost object that is there
	missing []string   // names of the members below it that are not, or are null
}

// member gives the place of a member.
func (p controlPlace) member(name string) controlPlace {
	if len(p.missing) == 0 {
		if m := p.at.member(name); m != nil && !m.isNull() {
			return controlPlace{at: m}
		}
	}
	return controlPlace{at: p.at, missing: append(slices.Clone(p.missing), name)}
}

// there gives the object, or nil when it is missing.
func (p controlPlace) there() *treeValue {
	if len(p.missing) > 0 {
		return nil
	}
	return p.at
}

// add plans the insertion of members, each the text of a name, a colon and a value, into the object at p.
func (c *controlPass) add(p controlPlace, members [][]byte) {
	if len(members) == 0 {
		return
	}
	text := bytes.Join(members, []byte(","))
	for i := len(p.missing) - 1; i >= 0; i-- {
		text = append(append([]byte{'{'}, text...), '}')
		if i == 0 {
			if null := p.at.member(p.missing[0]); null != nil {
				c.edits = append(c.edits, edit{null.start, null.end, text})
				return
			}
		}
		text = append(append(appendJSONString(nil, p.missing[i]), ':'), text...)
	}
	if len(p.at.kids) > 0 {
		text = append([]byte{','}, text...)
	}
	// Several insertions at one place come in the order in which they were planned.
	c.edits = append(c.edits, edit{p.at.end - 1, p.at.end - 1, text})
}

// withSentinel gives the rules that say at least so much.
func withSentinel(rules []*policy.Rule, least policy.Sentinel) (out []*policy.Rule) {
	for _, r := range rules {
		if r.Sentinel >= least {
			out = append(out, r)
		}
	}
	return out
}

func fieldsOf(rules []*policy.Rule) []*policy.Field {
	var out []*policy.Field
	for _, r := range rules {
		out = append(out, r.Fields...)
	}
	return out
}

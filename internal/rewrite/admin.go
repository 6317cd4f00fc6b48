package rewrite

import (
	"bytes"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/policy"
)

// controlled makes a transform of a change to a small body.
func (r *request) controlled(change func(body []byte) ([]byte, error)) (Transform, error) {
	return &control{whole: whole{eng: r.Engine, call: r.call}, change: change}, nil
}

// treeBody carries a small body that is read whole where there are rules.
func (r *request) treeBody(f func(body []byte, root *treeValue) ([]byte, error)) (Transform, error) {
	if !r.call.HasBody || len(r.Policy.Rules) == 0 {
		return nil, nil
	}
	return r.controlled(func(body []byte) ([]byte, error) {
		if skipSpace(body, 0) == len(body) {
			return body, nil
		}
		root, err := strictTree(body)
		if err != nil {
			return nil, badBodyFault(err)
		}
		return f(body, &root)
	})
}

// administration carries bodies of mappings, templates, pipelines, settings and aliases.
func (r *request) administration() (Transform, error) {
	switch r.verdict {
	case verdictCreateIndex:
		return r.createIndex(r.value("index"))
	case verdictRollover:
		return r.rollover()
	case verdictMapping, verdictSettings:
		name := r.value("index")
		if name == "" {
			name = r.value("name")
		}
		in, err := r.reach(r.ctx, name)
		if err != nil {
			return nil, err
		}
		if len(in.rules) == 0 {
			return nil, nil
		}
		kind := controlSettings
		if r.verdict == verdictMapping {
			kind = controlMapping
		}
		alike := r.alike(name)
		return r.controlled(func(body []byte) ([]byte, error) {
			out, err := r.control(kind, in.rules, body)
			if err == nil && !alike {
				return body, nil // fields of one rule are nothing to the indices of others; the first write sees to them
			}
			return out, err
		})
	}
	if len(r.Policy.Rules) == 0 {
		return nil, nil
	}
	var kind controlKind
	switch r.verdict {
	case verdictIndexTemplate:
		kind = controlIndexTemplate
	case verdictComponentTemplate:
		kind = controlComponentTemplate
	case verdictLegacyTemplate:
		kind = controlLegacyTemplate
	case verdictSimulateTemplate:
		kind = controlSimulate
	case verdictPipeline:
		kind = controlPipeline
	case verdictAliases:
		kind = controlAliases
	case verdictRoles:
		kind = controlRoles
	default:
		return nil, r.unread()
	}
	if kind == controlSimulate && !r.call.HasBody {
		return nil, nil
	}
	return r.controlled(func(body []byte) ([]byte, error) {
		rules := r.Policy.Rules
		if kind == controlAliases {
			named, err := r.aliasNames(body)
			if err != nil {
				return nil, err
			}
			if rules, err = r.aliasRules(named); err != nil {
				return nil, err
			}
			if err := r.change(r.ctx, named); err != nil {
				return nil, err
			}
			if len(rules) == 0 {
				return body, r.filtersElsewhere(body)
			}
		}
		if kind == controlRoles {
			if err := r.roleAliases(body); err != nil {
				return nil, err
			}
		}
		out, err := r.control(kind, rules, body)
		if err != nil {
			return nil, err
		}
		switch kind {
		case controlIndexTemplate:
			err = r.composed(out)
		case controlComponentTemplate:
			err = r.component(out)
		}
		return out, err
	})
}

// filtersElsewhere reads the filters of aliases, in a body that changes aliases or makes an index, where no rule applies to any of
// these: they may still bring documents for other indices.
func (r *request) filtersElsewhere(body []byte) error {
	if !namesElsewhere(body) {
		return nil
	}
	root, err := strictTree(body)
	if err != nil {
		return badBodyFault(err)
	}
	c := &controlPass{guard: r.newGuard(nil, body)}
	if err := c.aliases(root.member("aliases")); err != nil {
		return err
	}
	return c.aliasActions(&root)
}

// alike reports whether every index that a name stands for is under the same rules.
func (r *request) alike(name string) bool {
	if name == "" || name == "_all" || strings.ContainsAny(name, "*,") {
		return false
	}
	all, err := r.indices(r.ctx, name)
	return err == nil && !slices.ContainsFunc(all, func(t *target) bool { return t != all[0] || t == nil || t.failures })
}

// roleAliases looks at the queries of roles by the rules of what their names stand for, since a role may name an alias. What the names
// themselves say is looked at in control.
func (r *request) roleAliases(body []byte) error {
	if skipSpace(body, 0) == len(body) {
		return nil
	}
	root, err := strictTree(body)
	if err != nil {
		return badBodyFault(err)
	}
	c := &controlPass{guard: newGuard(nil, body)}
	var walk func(v *treeValue) error
	walk = func(v *treeValue) error {
		if q := v.member("query"); q != nil {
			var names []string
			for _, name := range c.texts(v.member("names")) {
				if strings.HasPrefix(name, "/") { // a regular expression: any name
					name = "*"
				}
				names = append(names, name)
			}
			rules, err := r.aliasRules(names)
			if err != nil {
				return err
			}
			if err := r.newGuard(rules, body).roleQuery(q); err != nil {
				return err
			}
		}
		for i := range v.kids {
			if err := walk(&v.kids[i]); err != nil {
				return err
			}
		}
		return nil
	}
	return walk(&root)
}

// aliasNames gives the expressions for all indices and aliases that a change of aliases names. The body of a single alias may name
// them once more, and then it counts (org.elasticsearch.rest.action.admin.indices.RestIndexPutAliasAction).
func (r *request) aliasNames(body []byte) (expressions []string, err error) {
	for _, name := range []string{r.value("index"), r.value("name")} {
		if name != "" {
			expressions = append(expressions, name)
		}
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return expressions, nil
	}
	if err := strictJSON(body); err != nil {
		return nil, documentFault(err)
	}
	add := func(what gjson.Result) {
		for _, member := range []string{"index", "indices", "alias", "aliases"} {
			for _, one := range what.Get(member).Array() {
				expressions = append(expressions, one.String())
			}
		}
	}
	root := gjson.ParseBytes(body)
	add(root)
	for _, action := range root.Get("actions").Array() {
		action.ForEach(func(_, what gjson.Result) bool {
			add(what)
			return true
		})
	}
	return expressions, nil
}

// aliasRules gives the rules of everything that expressions reach.
func (r *request) aliasRules(expressions []string) ([]*policy.Rule, error) {
	var names []string
	for _, expression := range expressions {
		found, err := r.Cluster.Expand(r.ctx, expression)
		if err != nil {
			return nil, err
		}
		names = append(names, found.Names...)
	}
	return r.rulesOf(names), nil
}

// createIndex carries the creation of an index: the rules of its name and of the aliases it gets apply.
func (r *request) createIndex(name string) (Transform, error) {
	found, err := r.Cluster.Resolve(r.ctx, name)
	if err != nil {
		return nil, err
	}
	if !r.call.HasBody {
		rules, conflict := r.Policy.Match(found.Names)
		if conflict != nil {
			return nil, conflictFaultOf(conflict)
		}
		if len(rules) == 0 {
			return nil, nil
		}
	}
	return r.controlled(func(body []byte) ([]byte, error) {
		names := append([]string(nil), found.Names...)
		if len(body) > 0 {
			if err := strictJSON(body); err != nil {
				return nil, documentFault(err)
			}
			aliases, err := r.bodyAliases(body)
			if err != nil {
				return nil, err
			}
			names = append(names, aliases...)
			if len(aliases) > 0 {
				if err := r.change(r.ctx, append(aliases, name)); err != nil {
					return nil, err
				}
			}
		}
		rules, conflict := r.Policy.Match(names)
		if conflict != nil {
			return nil, conflictFaultOf(conflict)
		}
		if len(rules) == 0 {
			return body, r.filtersElsewhere(body)
		}
		return r.control(controlCreate, rules, body)
	})
}

// bodyAliases gives the names of the aliases that a body which makes an index gives it. In them date math is computed.
func (r *request) bodyAliases(body []byte) (names []string, err error) {
	gjson.GetBytes(body, "aliases").ForEach(func(alias, _ gjson.Result) bool {
		name := alias.String()
		names = append(names, name)
		if strings.HasPrefix(name, "<") {
			var found Resolved
			if found, err = r.Cluster.Resolve(r.ctx, name); err != nil {
				return false
			}
			names = append(names, found.Names...)
		}
		return true
	})
	return names, err
}

// rulesOf gives the rules that apply to any of the names, also where they cannot be united.
func (r *request) rulesOf(names []string) (rules []*policy.Rule) {
	for _, rule := range r.Policy.Rules {
		if rule.MatchesAny(names) {
			rules = append(rules, rule)
		}
	}
	return rules
}

// rollover is like a creation where its body has a mapping; without one the first write sees to it.
func (r *request) rollover() (Transform, error) {
	group := []string{r.value("alias")}
	next := r.value("new_index")
	if next != "" {
		group = append(group, next)
	}
	if !r.call.HasBody {
		return nil, r.change(r.ctx, group)
	}
	found, err := r.Cluster.Expand(r.ctx, r.value("alias"))
	if err != nil {
		return nil, err
	}
	names := found.Names
	if next != "" {
		if found, err = r.Cluster.Resolve(r.ctx, next); err != nil {
			return nil, err
		}
		names = slices.Concat(names, found.Names)
	}
	return r.resized(names, group, func(rules []*policy.Rule, body []byte) ([]byte, error) {
		kind := controlResize
		if gjson.GetBytes(body, "mappings").Exists() {
			kind = controlCreate
		}
		return r.control(kind, rules, body)
	})
}

// resized carries a body that makes an index out of another one; names are those of both. What is in group comes to be known by the
// aliases in the body.
func (r *request) resized(names, group []string, change func(rules []*policy.Rule, body []byte) ([]byte, error)) (Transform, error) {
	return r.controlled(func(body []byte) ([]byte, error) {
		if len(bytes.TrimSpace(body)) == 0 {
			return body, r.change(r.ctx, group)
		}
		if err := strictJSON(body); err != nil {
			return nil, documentFault(err)
		}
		aliases, err := r.bodyAliases(body)
		if err != nil {
			return nil, err
		}
		if err := r.change(r.ctx, slices.Concat(group, aliases)); err != nil {
			return nil, err
		}
		rules := r.rulesOf(slices.Concat(names, aliases))
		if len(rules) == 0 {
			return body, r.filtersElsewhere(body)
		}
		return change(rules, body)
	})
}

// termsEnum refuses the enumeration of a protected field by a beginning of its values.
func (r *request) termsEnum(rules []*policy.Rule, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if err := strictJSON(body); err != nil {
		return documentFault(err)
	}
	field := gjson.GetBytes(body, "field").String()
	for _, rule := range rules {
		for _, f := range rule.Fields {
			if field == f.Path || len(field) > len(f.Path) && field[:len(f.Path)] == f.Path && field[len(f.Path)] == '.' {
				return refuse(400, "esproxy_protected_query", "the values of field ["+f.Path+"] are sealed; its terms cannot be listed")
			}
		}
	}
	if filter := gjson.GetBytes(body, "index_filter"); filter.Exists() {
		_, err := r.guardQuery(rules, []byte(`{"query":`+filter.Raw+`}`))
		return err
	}
	return nil
}

// updateByQuery refuses scripts that write to protected targets.
func updateByQuery(rules []*policy.Rule, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	if err := strictJSON(body); err != nil {
		return documentFault(err)
	}
	if gjson.GetBytes(body, "script").Exists() {
		if fault := scriptFault(&target{rules: rules}); fault != nil {
			return fault
		}
	}
	return nil
}

// reindex lets documents be copied into a protected place only from places under the same rules, and without a script.
func (r *request) reindex(body []byte) error {
	if len(body) == 0 {
		return nil
	}
	root, err := strictTree(body)
	if err != nil {
		return badBodyFault(err)
	}
	doc := gjson.ParseBytes(body)
	var sources []string
	for _, s := range append(doc.Get("source.index").Array(), doc.Get("source.indices").Array()...) {
		for _, one := range bytes.Split([]byte(s.String()), []byte(",")) {
			sources = append(sources, string(one))
		}
	}
	dest := doc.Get("dest.index").String()
	if dest == "" || len(sources) == 0 {
		// Elasticsearch says what is missing. Until then constants belong to no place.
		return r.newGuard(r.Policy.Rules, body).search(&root)
	}
	if err := r.writing.enter(r.ctx, dest); err != nil {
		return err
	}
	to, err := r.place(r.ctx, dest)
	if err != nil {
		return err
	}
	for _, name := range sources {
		in, err := r.reach(r.ctx, name)
		if err != nil {
			return err
		}
		// All of source but the index and the remote host is the body of a search (org.elasticsearch.index.reindex.ReindexRequest).
		if err := r.newGuard(in.named, body).search(&root); err != nil {
			return err
		}
	}
	if script := root.member("script"); script != nil {
		if err := r.reindexScript(script, r.newGuard(nil, body)); err != nil {
			return err
		}
	}
	if to.t == nil {
		return nil
	}
	if doc.Get("source.remote").Exists() {
		return refuse(400, "esproxy_unsealed_source", "documents of a remote cluster are not sealed for the target; read them there and write them through the proxy")
	}
	if doc.Get("script").Exists() {
		if fault := scriptFault(to.t); fault != nil {
			return fault
		}
	}
	for _, name := range sources {
		if bytes.ContainsAny([]byte(name), "*") || name == "_all" {
			return refuse(400, "esproxy_unsealed_source", "name the source indices of a copy into a protected index one by one: each must be under the same rules")
		}
		if err := r.sameRules(name, to.t.rules, "the source ["+name+"]"); err != nil {
			return err
		}
	}
	return r.Cluster.Ready(r.ctx, r.call.Caller, to.name, to.t.rules)
}

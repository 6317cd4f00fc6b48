package rewrite

import (
	"net/url"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/tidwall/gjson"
)

// Index templates take mappings and settings from component templates, which name no index. So what a composable template makes of
// its components is judged when either is put: by the server's own simulation, asked with the caller's credentials. A server
// that can't be asked refuses the template itself, or lacks component templates.

// maxTemplates bounds what is read of templates, in bytes.
const maxTemplates = 8 << 20

// composed judges an index template together with its component templates. body is what goes upstream.
func (r *request) composed(body []byte) error {
	root := gjson.ParseBytes(body)
	if len(root.Get("composed_of").Array()) == 0 {
		return nil
	}
	rules := templateRulesOf(root, r.Policy.Rules)
	if len(rules) == 0 {
		return nil
	}
	status, reply, err := r.call.Caller.Do(r.ctx, "POST", "/_index_template/_simulate", body, maxTemplates)
	if err != nil {
		return err
	}
	if status != 200 || !gjson.ValidBytes(reply) {
		return nil
	}
	return unfit(rules, gjson.GetBytes(reply, "template"), "the component templates in [composed_of] do not suit it: ")
}

// component judges a component template by the index templates that use it.
func (r *request) component(body []byte) error {
	name := r.value("name")
	template := gjson.GetBytes(body, "template")
	if name == "" || unfit(r.Policy.Rules, template, "") == nil {
		return nil
	}
	status, reply, err := r.call.Caller.Do(r.ctx, "GET", "/_index_template?filter_path="+url.QueryEscape("index_templates.index_template.index_patterns,index_templates.index_template.composed_of,index_templates.index_template.template.mappings.properties"), nil, maxTemplates)
	if err != nil {
		return err
	}
	if status != 200 || !gjson.ValidBytes(reply) {
		return nil
	}
	for _, t := range gjson.GetBytes(reply, "index_templates.#.index_template").Array() {
		uses := slices.ContainsFunc(t.Get("composed_of").Array(), func(c gjson.Result) bool { return c.String() == name })
		if !uses {
			continue
		}
		rules := undefined(templateRulesOf(t, r.Policy.Rules), t.Get("template.mappings.properties"))
		if err := unfit(rules, template, "an index template for a protected index uses this component template: "); err != nil {
			return err
		}
	}
	return nil
}

// undefined gives rules without the fields that an index template defines itself: what it says beats its components.
func undefined(rules []*policy.Rule, properties gjson.Result) (out []*policy.Rule) {
	for _, r := range rules {
		left := *r
		left.Fields = nil
		for _, f := range r.Fields {
			if !defines(properties, f.Path) {
				left.Fields = append(left.Fields, f)
			}
		}
		out = append(out, &left)
	}
	return out
}

func defines(properties gjson.Result, path string) (found bool) {
	properties.ForEach(func(name, v gjson.Result) bool {
		rest, below := strings.CutPrefix(path, name.String()+".")
		found = name.String() == path || below && defines(v.Get("properties"), rest)
		return !found
	})
	return found
}

// templateRulesOf gives the rules that a composable template's patterns may meet.
func templateRulesOf(t gjson.Result, rules []*policy.Rule) (out []*policy.Rule) {
	var patterns []string
	for _, p := range t.Get("index_patterns").Array() {
		patterns = append(patterns, strings.Split(p.String(), ",")...)
	}
	out, _ = templateRules(patterns, nil, rules)
	return out
}

// unfit tells what of a template's mappings and settings sealed values could not rest under.
func unfit(rules []*policy.Rule, template gjson.Result, where string) error {
	if len(rules) == 0 {
		return nil
	}
	fault := MappingFault(rules, []byte(template.Get("mappings").Raw))
	if settings := template.Get("settings").Raw; fault == nil && settings != "" {
		if root, err := strictTree([]byte(settings)); err == nil && root.isObject() {
			c := &controlPass{guard: newGuard(rules, []byte(settings))}
			if err := c.settings(&root); err != nil {
				fault = asFault(err)
			}
		}
	}
	if fault == nil {
		return nil
	}
	told := *fault
	told.Reason = where + told.Reason
	return &told
}

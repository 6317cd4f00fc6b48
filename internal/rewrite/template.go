package rewrite

import (
	"maps"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// templateText is a template, or a stored script of another language.
type templateText struct {
	lang   string // "mustache" for templates
	source []byte
	plain  bool // values are not escaped for JSON
}

// searchTemplate carries searches by template: `_search/template`, `_render/template` and, with another body, those of search
// applications. The request goes up as it came; what it becomes is judged like a search body.
func (r *request) searchTemplate() (Transform, error) {
	in, err := r.reach(r.ctx, r.value("index"))
	if err != nil {
		return nil, err
	}
	if r.value("index") == "" { // it names no index, or may continue a point in time
		in = r.everything()
	}
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	if r.verdict == verdictSearchTemplate && r.call.Viewer != nil {
		q.opening = r.opening(replySearch, "")
		q.opening.fallback = r.onlyTarget()
	}
	if len(in.rules) == 0 {
		return r.unruled(q, func(body []byte) error {
			_, err := r.templated(nil, body, r.values["id"])
			return err
		})
	}
	if err := guardURL(in.named, r.urlParams()); err != nil {
		return nil, err
	}
	q.check = func(body []byte) error {
		info, err := r.templated(in.named, body, r.values["id"])
		if err == nil && q.opening != nil {
			q.opening.topHits = info.topHits
			q.opening.sourceWhole = !info.sourceFiltered && !r.filtersSource()
		}
		return err
	}
	return q, nil
}

// everything is what a request reaches that names no index.
func (r *request) everything() reached {
	return reached{rules: r.Policy.Rules, named: append(r.Policy.Rules[:len(r.Policy.Rules):len(r.Policy.Rules)], shifted(r.Policy.Rules)...)}
}

// templated judges the body of a search by template (org.elasticsearch.script.mustache.SearchTemplateRequest). id, if not
// "", is the one of the path, which beats the body.
func (r *request) templated(rules []*policy.Rule, body []byte, id string) (queryInfo, error) {
	var info queryInfo
	root := treeValue{kind: '{'}
	if skipSpace(body, 0) < len(body) {
		var err error
		if root, err = strictTree(body); err != nil {
			return info, badBodyFault(err)
		}
	}
	g := r.newGuard(rules, body)
	var source *treeValue
	for i := range root.kids {
		m := &root.kids[i]
		switch string(m.name) {
		case "source", "template", "inline":
			if source != nil || id != "" || root.member("id") != nil {
				return info, refuse(400, "esproxy_bad_request", "a search by template has more than one template; give one of [id] and [source]")
			}
			source = m
		case "id", "params", "explain", "profile", "project_routing":
		default:
			return info, refuse(400, "esproxy_bad_request", "a search by template has a member that Elasticsearch does not know; its members are id, source, params, explain and profile")
		}
	}
	if f := g.documentNames(root.member("params"), ""); f != nil {
		return info, guardFault(f, "a parameter of the template")
	}
	var text *templateText
	var err error
	switch {
	case source != nil:
		if text, err = inlineTemplate(source, body); err != nil {
			return info, err
		}
		if err := g.storedTemplate(text); err != nil {
			return info, err
		}
	default:
		if m := root.member("id"); m != nil && id == "" {
			id = string(g.text(m))
		}
		if id == "" {
			return info, nil // Elasticsearch says that a template is missing
		}
		if text, err = r.storedScript(id); err != nil || text == nil {
			return info, err
		}
	}
	rendered, err := r.fillIn(text, root.member("params"), body)
	if err != nil {
		return info, err
	}
	return r.guardRendered(rules, rendered)
}

// guardRendered judges what a template became.
func (r *request) guardRendered(rules []*policy.Rule, rendered []byte) (queryInfo, error) {
	if err := strictJSON(rendered); err != nil {
		return queryInfo{}, errNoJSON()
	}
	return r.guardQuery(rules, rendered)
}

// inlineTemplate gives the template of a request: a text, or an object, which the server keeps as a text.
func inlineTemplate(source *treeValue, body []byte) (*templateText, error) {
	if source.isObject() {
		text, err := appendTreeJSON(nil, source, body)
		return &templateText{lang: "mustache", source: text}, templateFault(err)
	}
	text, err := templateParams(source, body)
	if err != nil {
		return nil, templateFault(err)
	}
	s, ok := text.(string)
	if !ok {
		return nil, refuse(400, "esproxy_bad_request", "a template is neither a text nor an object")
	}
	return &templateText{lang: "mustache", source: []byte(s)}, nil
}

// fillIn renders a template. params may be nil.
func (r *request) fillIn(t *templateText, params *treeValue, body []byte) ([]byte, error) {
	values := map[string]any{}
	if params.isObject() {
		v, err := templateParams(params, body)
		if err != nil {
			return nil, templateFault(err)
		}
		values = v.(map[string]any)
	}
	return renderText(t, values)
}

func renderText(t *templateText, values map[string]any) ([]byte, error) {
	if t.lang != "mustache" {
		return nil, templateFault(badTemplate("the stored script of that id is no template"))
	}
	parts, err := parseMustache(t.source)
	if err != nil {
		return nil, templateFault(err)
	}
	out, err := renderMustache(parts, values, t.plain)
	return out, templateFault(err)
}

// storedTemplate judges the text of a template without its parameters: what stands in it goes up, whether a rendering shows it or not.
// Every combination of sections that are there and that are not is tried, up to a bound; what is in none that is JSON
// must not name a protected field.
func (g *guard) storedTemplate(t *templateText) error {
	parts, err := parseMustache(t.source)
	if err != nil {
		return templateFault(err)
	}
	o := &outline{there: map[string]bool{}}
	o.names(parts)
	seen := map[*mustachePart]bool{}
	for _, there := range o.choices() {
		o.there, o.out, o.used = there, nil, nil
		o.write(parts)
		if strictJSON(o.out) != nil {
			continue
		}
		if _, err := g.within(o.out).searchBody(); err != nil {
			return err
		}
		for _, p := range o.used {
			seen[p] = true
		}
	}
	return g.unseenText(parts, seen)
}

// within gives a guard for another body under the same rules.
func (g *guard) within(body []byte) *guard {
	return &guard{body: body, fields: g.fields, rules: g.rules, info: &queryInfo{}, scripts: g.scripts, elsewhere: g.elsewhere}
}

// template judges a template inside of a body: its text, inline or stored, and what it becomes with its params and with what the
// server adds. Without params there is nothing new in a stored one.
func (g *guard) template(script *treeValue, added map[string]any) error {
	source := script
	if script.isObject() {
		if source = script.member("source"); source == nil {
			source = script.member("inline")
		}
	}
	params := script.member("params")
	if f := g.documentNames(params, ""); f != nil {
		return guardFault(f, "a parameter of a template")
	}
	some := params.isObject() && len(params.kids) > 0
	var text *templateText
	var err error
	if id := script.member("id"); source == nil {
		if !some || !id.isScalar() {
			return nil
		}
		if g.scripts == nil {
			return templateFault(badTemplate("a stored one with params cannot be read at this place"))
		}
		if text, err = g.scripts(string(g.text(id))); err != nil {
			return err
		}
		if text == nil { // it may be stored later, when the params are there already
			return templateFault(badTemplate("the stored one of that id is not there; store it first"))
		}
	} else {
		if text, err = inlineTemplate(source, g.body); err != nil {
			return err
		}
		if err := g.storedTemplate(text); err != nil || !some {
			return err
		}
	}
	values, err := templateParams(params, g.body)
	if err != nil {
		return templateFault(err)
	}
	all := maps.Clone(added)
	maps.Copy(all, values.(map[string]any))
	rendered, err := renderText(text, all)
	if err != nil {
		return err
	}
	if strictJSON(rendered) != nil {
		return errNoJSON()
	}
	_, err = g.within(rendered).searchBody()
	return err
}

func errNoJSON() error {
	return templateFault(badTemplate("with these parameters it is not JSON that can be read in one way only"))
}

// unseenText refuses a text that no outline showed in JSON and that names a protected field.
func (g *guard) unseenText(parts []mustachePart, seen map[*mustachePart]bool) error {
	for i := range parts {
		p := &parts[i]
		if p.kind == mustacheText && !seen[p] {
			text := unescapedUnits([]byte(p.text))
			for _, f := range g.fields {
				if hasWord(text, f.Path) {
					return templateFault(badTemplate("a part of it that names [" + f.Path + "], which rule [" + f.Rule.Name + "] protects, is no JSON before the parameters are filled in"))
				}
			}
		}
		if err := g.unseenText(p.kids, seen); err != nil {
			return err
		}
	}
	return nil
}

// outline writes a template with a digit for each value, which is right in a text, as a number and between both.
type outline struct {
	order []string
	there map[string]bool // by name of section
	out   []byte
	used  []*mustachePart
}

// maxOutlineNames is of how many names of sections all combinations are tried.
const maxOutlineNames = 6

// names lists the names of all sections.
func (o *outline) names(parts []mustachePart) {
	for i := range parts {
		p := &parts[i]
		if p.kind == mustacheSection || p.kind == mustacheInverted {
			if !o.there[p.text] {
				o.there[p.text] = true
				o.order = append(o.order, p.text)
			}
		}
		o.names(p.kids)
	}
}

// choices gives the combinations of sections to try: all of few names; of many, all there, none there, and each one
// otherwise than all.
func (o *outline) choices() []map[string]bool {
	var out []map[string]bool
	if n := len(o.order); n <= maxOutlineNames {
		for bits := range 1 << n {
			there := make(map[string]bool, n)
			for i, name := range o.order {
				there[name] = bits>>i&1 == 0
			}
			out = append(out, there)
		}
		return out
	}
	for flip := -2; flip < min(len(o.order), 64); flip++ {
		there := make(map[string]bool, len(o.order))
		for i, name := range o.order {
			there[name] = flip != -2 && i != flip
		}
		out = append(out, there)
	}
	return out
}

func (o *outline) write(parts []mustachePart) {
	for i := range parts {
		p := &parts[i]
		switch p.kind {
		case mustacheNothing:
		case mustacheText:
			o.out = append(o.out, p.text...)
			o.used = append(o.used, p)
		case mustacheSection, mustacheInverted:
			if o.there[p.text] == (p.kind == mustacheSection) {
				o.write(p.kids)
			}
		case mustacheURL:
			o.write(p.kids)
		default:
			o.out = append(o.out, '1')
		}
	}
}

// stored carries the storing of a template or a script (org.elasticsearch.script.StoredScriptSource). It is there for all indices, so all
// rules are asked.
func (r *request) stored() (Transform, error) {
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		g := r.newGuard(r.Policy.Rules, body)
		script := root.member("script")
		if err := g.members(root, "script"); err != nil || script == nil {
			return body, err
		}
		if err := g.members(script, "lang", "source", "code", "options"); err != nil {
			return nil, err
		}
		source := script.member("source")
		if code := script.member("code"); source == nil {
			source = code
		} else if code != nil {
			return nil, refuse(400, "esproxy_bad_request", "a stored script has both [source] and [code]; give [source]")
		}
		if source == nil {
			return body, nil
		}
		if lang := script.member("lang"); lang != nil && !strings.EqualFold(string(g.text(lang)), "mustache") {
			return body, g.script(script, nil)
		}
		text, err := inlineTemplate(source, body)
		if err != nil {
			return nil, err
		}
		return body, r.newGuard(r.everything().named, body).storedTemplate(text)
	})
}

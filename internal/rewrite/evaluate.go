package rewrite

import (
	"maps"
	"net/url"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/policy"
)

// execute carries a trial of a script (org.elasticsearch.painless.action.PainlessExecuteAction). Its document is sealed
// as if it were written to the index that the request names, so that the script sees what it will see there.
func (r *request) execute() (Transform, error) {
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		setup := root.member("context_setup")
		index := string(r.newGuard(nil, body).text(orNull(setup.member("index"))))
		if m := setup.member("index"); m == nil || m.isNull() {
			index = ""
		}
		in, err := r.reached(index)
		if err != nil || len(in.rules) == 0 {
			return body, err
		}
		c := &controlPass{guard: r.newGuard(in.named, body)}
		if err := c.members(root, "script", "context", "context_setup"); err != nil {
			return nil, err
		}
		if err := c.members(setup, "document", "index", "query"); err != nil {
			return nil, err
		}
		if err := c.script(root.member("script"), nil); err != nil {
			return nil, err
		}
		if err := c.query(orNull(setup.member("query"))); err != nil {
			return nil, err
		}
		doc := setup.member("document")
		if _, remote := onRemote(index); index == "" || remote || !doc.isObject() {
			if f := c.documentNames(doc, ""); f != nil {
				return nil, refuse(400, "esproxy_bad_request", "a document holds a value for ["+f.Path+"], which rule ["+f.Rule.Name+"] protects, and names no index of this cluster that it could be sealed for; give [context_setup] an [index]")
			}
			return body, nil
		}
		pl, err := r.place(r.ctx, index)
		if err != nil {
			return nil, err
		}
		if pl.t == nil {
			return body, nil
		}
		seal := sealing{eng: r.Engine, counter: r.call.Counter}
		defer seal.close()
		if err := r.sealInto(c, &seal, newDocScanner(r.Sealer.IsToken), pl, doc, nil, nil); err != nil {
			return nil, err
		}
		return c.edited(), nil
	})
}

// reached is Engine.reach; no index stands for all.
func (r *request) reached(index string) (reached, error) {
	if index == "" {
		return r.everything(), nil
	}
	return r.reach(r.ctx, index)
}

// rankEval carries an evaluation of searches against rated documents (org.elasticsearch.index.rankeval.RankEvalSpec): searches,
// and templates with parameters.
func (r *request) rankEval() (Transform, error) {
	in, err := r.reached(r.value("index"))
	if err != nil {
		return nil, err
	}
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	if r.call.Viewer != nil {
		q.opening = r.opening(replyRankEval, "")
		q.opening.fallback = r.onlyTarget()
	}
	check := func(body []byte) error {
		if skipSpace(body, 0) == len(body) {
			return nil
		}
		root, err := strictTree(body)
		if err != nil {
			return badBodyFault(err)
		}
		return r.rated(in.named, body, &root)
	}
	if len(in.rules) == 0 {
		return r.unruled(q, check)
	}
	q.check = check
	return q, nil
}

func (r *request) rated(rules []*policy.Rule, body []byte, root *treeValue) error {
	g := r.newGuard(rules, body)
	if err := g.members(root, "requests", "templates", "metric", "max_concurrent_searches"); err != nil {
		return err
	}
	if err := g.unknown(orNull(root.member("metric"))); err != nil {
		return err
	}
	templates := map[string]*templateText{}
	for i := range orNull(root.member("templates")).kids {
		one := &root.member("templates").kids[i]
		if err := g.members(one, "id", "template"); err != nil {
			return err
		}
		text, err := r.scriptTemplate(g, one.member("template"))
		if err != nil {
			return err
		}
		if text != nil {
			templates[string(g.text(orNull(one.member("id"))))] = text
		}
	}
	for _, text := range templates {
		if err := g.storedTemplate(text); err != nil {
			return err
		}
	}
	for i := range orNull(root.member("requests")).kids {
		one := &root.member("requests").kids[i]
		if err := g.members(one, "id", "request", "ratings", "params", "template_id", "summary_fields"); err != nil {
			return err
		}
		if search := one.member("request"); search != nil {
			if _, err := r.guardQuery(rules, body[search.start:search.end]); err != nil {
				return err
			}
		}
		for k := range orNull(one.member("ratings")).kids {
			if err := g.members(&one.member("ratings").kids[k], "_index", "_id", "rating"); err != nil {
				return err
			}
		}
		if f := g.documentNames(one.member("params"), ""); f != nil {
			return guardFault(f, "a parameter of the template")
		}
		text := templates[string(g.text(orNull(one.member("template_id"))))]
		if text == nil {
			continue
		}
		rendered, err := r.fillIn(text, one.member("params"), body)
		if err != nil {
			return err
		}
		if _, err := r.guardRendered(rules, rendered); err != nil {
			return err
		}
	}
	return nil
}

// scriptTemplate gives the template that a script object is, inline or stored; nil when there is none.
func (r *request) scriptTemplate(g *guard, script *treeValue) (*templateText, error) {
	if script == nil {
		return nil, nil
	}
	if script.isString() {
		return inlineTemplate(script, g.body)
	}
	if err := g.members(script, "source", "inline", "id", "lang", "params", "options"); err != nil {
		return nil, err
	}
	if f := g.documentNames(script.member("params"), ""); f != nil {
		return nil, guardFault(f, "a parameter of the template")
	}
	if kind := script.member("options").member("content_type"); kind != nil && !strings.HasPrefix(string(g.text(kind)), "application/json") {
		return nil, templateFault(badTemplate("it escapes its values for something else than JSON"))
	}
	source := script.member("source")
	if source == nil {
		source = script.member("inline")
	} else if script.member("inline") != nil {
		return nil, refuse(400, "esproxy_bad_request", "a template has both [source] and [inline]; give [source]")
	}
	id := script.member("id")
	switch {
	case source != nil && id == nil:
		return inlineTemplate(source, g.body)
	case source == nil && id.isScalar():
		return r.storedScript(string(g.text(id)))
	case source != nil:
		return nil, refuse(400, "esproxy_bad_request", "a template has both [source] and [id]; give one of them")
	}
	return nil, nil
}

// application carries search applications: a template that is stored with the indices that it searches.
func (r *request) application() (Transform, error) {
	if r.api == "search_application.put" {
		return r.treeBody(r.putApplication)
	}
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	if r.api == "search_application.search" && r.call.Viewer != nil {
		q.opening = r.opening(replySearch, "")
	}
	if len(r.Policy.Rules) == 0 {
		if q.opening == nil {
			return nil, nil
		}
		return q, nil
	}
	q.check = func(body []byte) error {
		info, err := r.searchApplication(body)
		if err == nil && q.opening != nil {
			q.opening.topHits = info.topHits
			q.opening.sourceWhole = !info.sourceFiltered && !r.filtersSource()
		}
		return err
	}
	return q, nil
}

func (r *request) putApplication(body []byte, root *treeValue) ([]byte, error) {
	all := r.newGuard(r.Policy.Rules, body)
	var indices []string
	if m := root.member("indices"); m != nil {
		for i := range m.kids {
			indices = append(indices, string(all.text(&m.kids[i])))
		}
		if m.isString() {
			indices = append(indices, string(all.text(m)))
		}
	}
	in, err := r.reached(strings.Join(indices, ","))
	if err != nil || len(in.rules) == 0 {
		return body, err
	}
	g := r.newGuard(in.named, body)
	if err := g.members(root, "indices", "name", "analytics_collection_name", "updated_at_millis", "template"); err != nil {
		return nil, err
	}
	template := root.member("template")
	if err := g.members(template, "script"); err != nil { // the dictionary, a JSON schema, names parameters
		return nil, err
	}
	script := template.member("script")
	text, err := r.scriptTemplate(g, script)
	if err != nil || text == nil {
		return body, err
	}
	if err := g.storedTemplate(text); err != nil {
		return nil, err
	}
	// With the parameters that it is stored with it may already be a search; others may have to come first.
	if rendered, err := r.fillIn(text, script.member("params"), body); err == nil && strictJSON(rendered) == nil {
		if _, err := r.guardQuery(in.named, rendered); err != nil {
			return nil, err
		}
	}
	return body, nil
}

// searchApplication judges the parameters that a search of an application brings, with what is stored of it.
func (r *request) searchApplication(body []byte) (queryInfo, error) {
	var info queryInfo
	root := treeValue{kind: '{'}
	if skipSpace(body, 0) < len(body) {
		var err error
		if root, err = strictTree(body); err != nil {
			return info, badBodyFault(err)
		}
	}
	reply, err := r.readStored("/_application/search_application/"+url.PathEscape(r.value("name")), "the search application")
	if err != nil || reply == nil {
		return info, err
	}
	var indices []string
	for _, one := range gjson.GetBytes(reply, "indices").Array() {
		indices = append(indices, one.String())
	}
	in, err := r.reached(strings.Join(indices, ","))
	if err != nil || len(in.rules) == 0 {
		return info, err
	}
	g := r.newGuard(in.named, body)
	if err := g.members(&root, "params"); err != nil {
		return info, err
	}
	if f := g.documentNames(root.member("params"), ""); f != nil {
		return info, guardFault(f, "a parameter of the search application")
	}
	script := gjson.GetBytes(reply, "template.script")
	source := script.Get("source")
	text := &templateText{lang: "mustache", source: []byte(source.String())}
	switch {
	case source.IsObject():
		text.source = []byte(source.Raw)
	case source.Type != gjson.String && script.Get("id").Exists():
		if text, err = r.storedScript(script.Get("id").String()); err != nil || text == nil {
			return info, err
		}
	case source.Type != gjson.String:
		return info, templateFault(badTemplate("the search application has none that can be read"))
	}
	values := map[string]any{}
	for _, params := range []string{script.Get("params").Raw, paramsText(&root, body)} { // the later ones win
		if params == "" {
			continue
		}
		one := []byte(params)
		tree, err := strictTree(one)
		if err != nil {
			return info, badBodyFault(err)
		}
		v, err := templateParams(&tree, one)
		if err != nil {
			return info, templateFault(err)
		}
		if object, ok := v.(map[string]any); ok {
			maps.Copy(values, object)
		}
	}
	rendered, err := renderText(text, values)
	if err != nil {
		return info, err
	}
	return r.guardRendered(in.named, rendered)
}

// paramsText gives the text of a body's params, "" where it has none.
func paramsText(root *treeValue, body []byte) string {
	if m := root.member("params"); m != nil {
		return string(body[m.start:m.end])
	}
	return ""
}

// queryRules carries query rules, and trials of them: values for names of the client's choice. A name that is that of a protected field
// stands for the field.
func (r *request) queryRules() (Transform, error) {
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		g := r.newGuard(r.Policy.Rules, body)
		if r.api == "query_rules.test" {
			if f := g.documentNames(root.member("match_criteria"), ""); f != nil {
				return nil, guardFault(f, "the member [match_criteria]")
			}
			return body, g.members(root, "match_criteria")
		}
		rule := func(v *treeValue) error {
			for _, c := range g.listOf(v.member("criteria")) {
				if f := g.named(g.text(orNull(c.member("metadata"))), andAbove); f != nil && c.member("values") != nil {
					return guardFault(f, "a criterion of the query rule")
				}
				if err := g.members(c, "type", "metadata", "values"); err != nil {
					return err
				}
			}
			if err := g.unknown(orNull(v.member("actions"))); err != nil {
				return err
			}
			return g.members(v, "rule_id", "type", "criteria", "actions", "priority")
		}
		if r.api == "query_rules.put_rule" {
			return body, rule(root)
		}
		for _, one := range g.listOf(root.member("rules")) {
			if err := rule(one); err != nil {
				return nil, err
			}
		}
		return body, g.members(root, "rules", "ruleset_id")
	})
}

// listOf gives the elements of an array, or the one value that is none.
func (g *guard) listOf(v *treeValue) (out []*treeValue) {
	if v == nil {
		return nil
	}
	if !v.isArray() {
		return []*treeValue{v}
	}
	for i := range v.kids {
		out = append(out, &v.kids[i])
	}
	return out
}

// event passes an event of behavioral analytics where no rule names the data stream that Elasticsearch writes it to.
// One that holds a protected field is refused.
func (r *request) event() (Transform, error) {
	in, err := r.reach(r.ctx, "behavioral_analytics-events-"+r.value("collection_name"))
	if err != nil {
		return nil, err
	}
	if len(in.rules) > 0 {
		return nil, r.refused()
	}
	return r.documents()
}

package rewrite

import (
	"context"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// language carries a query of ES|QL or SQL, whose targets are in its text.
func (r *request) language(lang language) (Transform, error) {
	if len(r.Policy.Rules) == 0 {
		return nil, nil
	}
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	if r.call.Viewer != nil && r.route.reply == "open" {
		q.opening = r.opening(replyTable, "")
	}
	q.check = func(body []byte) error { return r.checkLanguage(q, lang, body) }
	return q, nil
}

// checkLanguage looks for constants on protected fields in the text and in what is beside it, and tells the opening which
// rules the rows are under.
func (r *request) checkLanguage(q *query, lang language, body []byte) error {
	if blank(body) {
		return nil
	}
	b, err := r.readLanguage(lang, body)
	if err != nil {
		return err
	}
	rules, err := r.textRules(b.text)
	if err != nil {
		return err
	}
	// A text that reads nothing (ROW) is under no index, and still could be a value with its name.
	if b.elsewhere || b.text == nil || len(b.text.sources) == 0 {
		rules = r.anyRules()
	}
	if q.opening != nil && b.text != nil && !b.text.unsure && !b.elsewhere && !b.text.gives(rules) {
		q.opening.tableRules = r.tableRules(b.text.sources)
		q.opening.index = strings.Join(b.text.sources, ",")
		q.opening.columnar = b.columnar
	}
	return b.check(rules)
}

// gives reports whether the text itself makes a column with the name of a subject or a protected field: what stands there is then
// the caller's choice, and proves nothing of whose value it is. So does a subject that was one of several of a document, whose
// values are not opened elsewhere either.
func (t *langText) gives(rules []*policy.Rule) bool {
	for _, r := range rules {
		if r.Subject != "" && (t.given[r.Subject] || t.apart[r.Subject] || t.groups) {
			return true
		}
		for _, f := range r.Fields {
			if t.given[f.Path] {
				return true
			}
		}
	}
	return false
}

// languageBody is the body of a request in a query language.
type languageBody struct {
	body      []byte
	root      treeValue
	text      *langText // nil when there is none, as with a cursor
	query     string
	columnar  bool
	elsewhere bool // names are those of another cluster
}

func (r *request) readLanguage(lang language, body []byte) (*languageBody, error) {
	root, err := strictTree(body)
	if err != nil {
		return nil, badBodyFault(err)
	}
	b := &languageBody{body: body, root: root}
	if c := root.member("columnar"); c != nil {
		b.columnar = c.kind == 't' || c.isString() && string(c.text(body)) == "true"
	}
	if c := root.member("catalog"); c != nil && !c.isNull() {
		b.elsewhere = true
	}
	if text := root.member("query"); text.isString() {
		b.query = string(text.text(body))
		b.text, err = newLangText(lang, b.query, readLangParams(root.member("params"), body))
		// The first of several values, where that is asked for.
		if m := root.member("field_multi_value_leniency"); b.text != nil && m != nil && !m.isNull() && string(m.text(body)) != "false" {
			b.text.groups = true
		}
	}
	return b, err
}

// readLangParams reads params: a list of values, of {"name": value}, or of {"type": …, "value": …}.
func readLangParams(v *treeValue, body []byte) langParams {
	p := langParams{named: map[string]langParam{}}
	if !v.isArray() {
		return p
	}
	for i := range v.kids {
		one := &v.kids[i]
		if !one.isObject() {
			p.list = append(p.list, langParam{text: string(one.text(body))})
			continue
		}
		for j := range one.kids {
			m := &one.kids[j]
			param := langParam{text: string(m.text(body))}
			for k := range m.kids {
				param.text = string(m.kids[k].text(body))
				if name := string(m.kids[k].name); name == "identifier" || name == "pattern" {
					param.name = true
					break
				}
			}
			p.named[string(m.name)] = param
			if j == 0 || string(m.name) == "value" {
				p.list = append(p.list[:i], param)
			}
		}
		if len(p.list) == i {
			p.list = append(p.list, langParam{})
		}
	}
	return p
}

// check refuses a body that holds a constant for a field of the rules.
func (b *languageBody) check(rules []*policy.Rule) error {
	if len(rules) == 0 {
		return nil
	}
	g := newGuard(rules, b.body)
	for i := range b.root.kids {
		m := &b.root.kids[i]
		var err error
		switch string(m.name) {
		case "query":
			if b.text != nil {
				err = b.text.guardText(g, b.query)
			}
		case "filter":
			err = g.query(m)
		case "runtime_mappings":
			err = g.runtime(m)
		case "tables": // {"table": {"column": {"keyword": [values]}}}
			for j := range m.kids {
				for k := range m.kids[j].kids {
					if f := g.named(m.kids[j].kids[k].name, andAbove); f != nil {
						return guardFault(f, "the member [tables]")
					}
				}
			}
		case "params", "fields":
		default:
			if !m.isScalar() {
				err = g.unknownMember(m)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// anyRules gives all rules, and with their paths in failure stores: what a query may name whose targets are not known.
func (r *request) anyRules() []*policy.Rule {
	return slices.Concat(r.Policy.Rules, shifted(r.Policy.Rules))
}

// textRules gives the rules that apply to anything a text reads; all of them where that can't be told. A name that is no
// index, alias or data stream may be a view, with a query of its own.
func (r *request) textRules(t *langText) ([]*policy.Rule, error) {
	var rules []*policy.Rule
	if t == nil {
		return nil, nil
	}
	for _, source := range t.sources {
		in, err := r.reach(r.ctx, source)
		if err != nil {
			return nil, err
		}
		for _, rule := range in.named {
			if !slices.Contains(rules, rule) {
				rules = append(rules, rule)
			}
		}
		for part := range strings.SplitSeq(source, ",") {
			if _, remote := onRemote(part); remote || t.unsure || strings.HasPrefix(part, "-") {
				continue
			}
			if strings.Contains(part, "*") {
				for _, rule := range r.Policy.Rules {
					if rule.CouldMatch(part) && !slices.Contains(rules, rule) {
						rules = append(rules, rule)
					}
				}
				continue
			}
			if one, err := r.Cluster.Resolve(r.ctx, part); err != nil || one.Write == "" && len(one.Names) < 2 {
				t.unsure = true
			}
		}
	}
	if t.unsure {
		return r.anyRules(), nil
	}
	return rules, nil
}

// tableRules gives the rules that each index which the sources reach is under: rows do not tell their index.
func (r *request) tableRules(sources []string) []*policy.Rule {
	var common []*policy.Rule
	for i, source := range sources {
		rules, err := r.commonRules(r.ctx, source)
		if err != nil {
			return nil
		}
		if i == 0 {
			common = rules
			continue
		}
		common = slices.DeleteFunc(slices.Clone(common), func(rule *policy.Rule) bool { return !slices.Contains(rules, rule) })
	}
	return common
}

// commonRules gives the rules that each index of an expression is under.
func (e *Engine) commonRules(ctx context.Context, expression string) ([]*policy.Rule, error) {
	all, err := e.Cluster.Expand(ctx, expression)
	if err != nil || all.Failures { // what failed lies under other paths
		return nil, err
	}
	var common []*policy.Rule
	first := true
	for _, name := range all.Names {
		names := []string{name}
		if local, remote := onRemote(name); remote {
			if strings.Contains(local, "*") {
				return nil, nil
			}
			names[0] = local
		} else if strings.Contains(name, "*") {
			continue // the expression itself
		} else {
			one, err := e.Cluster.Resolve(ctx, name)
			if err != nil {
				return nil, err
			}
			if one.Write != name {
				continue // an alias or a data stream
			}
			names = one.Names
		}
		rules, conflict := e.Policy.Match(names)
		if conflict != nil {
			return nil, nil
		}
		if first {
			common, first = rules, false
			continue
		}
		common = slices.DeleteFunc(slices.Clone(common), func(rule *policy.Rule) bool { return !slices.Contains(rules, rule) })
	}
	return common, nil
}

// eql carries a search of events; its targets are in the path.
func (r *request) eql() (Transform, error) {
	in, err := r.reach(r.ctx, r.value("index"))
	if err != nil {
		return nil, err
	}
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	if r.call.Viewer != nil {
		q.opening = r.opening(replyEvents, "")
		q.opening.fallback = r.onlyTarget()
		q.opening.sourceWhole = !r.filtersSource()
	}
	if len(in.rules) == 0 {
		if q.opening == nil {
			return nil, nil
		}
		return q, nil
	}
	q.check = func(body []byte) error {
		if blank(body) {
			return nil
		}
		b, err := r.readLanguage(langEQL, body)
		if err != nil {
			return err
		}
		if b.text != nil {
			b.text.category = "event.category"
			if m := b.root.member("event_category_field"); m.isString() {
				b.text.category = string(m.text(body))
			}
		}
		return b.check(in.named)
	}
	return q, nil
}

// view carries a query of ES|QL that is kept under a name. It is guarded like one that is run. Its name must be under the
// rules of what it reads, so that queries of the view are guarded too, and it must show protected fields under their own names.
func (r *request) viewQuery() (Transform, error) {
	if len(r.Policy.Rules) == 0 {
		return nil, nil
	}
	return r.controlled(func(body []byte) ([]byte, error) {
		if blank(body) {
			return body, nil
		}
		b, err := r.readLanguage(langESQL, body)
		if err != nil || b.text == nil {
			return body, err
		}
		b.text.view = true
		rules, err := r.textRules(b.text)
		if err != nil {
			return nil, err
		}
		name := r.value("name")
		for _, source := range b.text.sources {
			in, err := r.reach(r.ctx, source)
			if err != nil {
				return nil, err
			}
			for _, rule := range in.rules {
				if !rule.Matches(name) {
					return nil, refuse(400, "esproxy_protected_query", "the view reads what rule ["+rule.Name+"] protects, but no pattern of the rule matches the view's name, so that queries of the view would not be guarded; give the view a name that the rule's indices match")
				}
			}
		}
		return body, b.check(rules)
	})
}

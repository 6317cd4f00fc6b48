package rewrite

import (
	"bytes"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// passing carries a request that is checked and goes up as it is.
//
// Under the verdict admin the body configures something and holds no document. What the API documents passes, whatever the
// policy names: a user's password is no protected field called password. What it does not document is refused when it
// brings a value or a script for a protected field.
func (r *request) passing() (Transform, error) {
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	var err error
	if r.verdict == verdictAdmin {
		q.check, err = r.members()
	} else {
		q.check, err = r.noBody()
	}
	if q.check == nil {
		return nil, err
	}
	return q, nil
}

// noBody gives the check of a body where none belongs; nil when there is none or no rule is reached. A body that holds
// nothing passes, so that the server says what it thinks of it. Any other is refused here, as it is there, because
// the server's refusal comes after the body went up.
func (r *request) noBody() (func(body []byte) error, error) {
	if !r.call.HasBody {
		return nil, nil
	}
	rules, err := r.lineRules(r.ctx, r.matched, r.call)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	return func(body []byte) error {
		if holdsNothing(body) {
			return nil
		}
		return refuse(400, "esproxy_bad_request", "request ["+r.method+" "+r.template+"] does not support having a body; send it without one")
	}, nil
}

// holdsNothing reports whether a body is white space or an empty object.
func holdsNothing(body []byte) bool {
	pos := skipSpace(body, 0)
	if pos == len(body) {
		return true
	}
	if body[pos] != '{' {
		return false
	}
	if pos = skipSpace(body, pos+1); pos == len(body) || body[pos] != '}' {
		return false
	}
	return skipSpace(body, pos+1) == len(body)
}

// ownFields are the fields that searches over users, roles and API keys are documented to have. They are not those of
// documents, whatever the policy calls protected.
var ownFields = map[string][]string{
	"security.query_user":     {"username", "roles", "full_name", "email", "enabled", "metadata"},
	"security.query_role":     {"name", "description", "applications", "metadata"},
	"security.query_api_keys": {"id", "type", "name", "username", "realm_name", "metadata", "creation", "expiration", "invalidated", "invalidation", "access", "certificate_identity"},
}

// members gives the check of a body that may hold what the row's APIs document.
func (r *request) members() (func(body []byte) error, error) {
	return r.membersOnly(func(rules []*policy.Rule, body []byte) error {
		if own, ok := ownFields[r.api]; ok {
			if err := checkMembers(rules, r.route.members(), body); err != nil {
				return err
			}
			root, err := strictTree(body)
			if err != nil {
				return badBodyFault(err)
			}
			g := newGuard(rules, body)
			g.fields = slices.DeleteFunc(g.fields, func(f *policy.Field) bool { return slices.Contains(own, f.Parts[0]) })
			return g.search(&root)
		}
		return checkMembers(rules, r.route.members(), body)
	})
}

// membersOnly gives a check of a body in strict JSON; nil when there is none or no rule is reached.
func (r *request) membersOnly(check func(rules []*policy.Rule, body []byte) error) (func(body []byte) error, error) {
	if !r.call.HasBody {
		return nil, nil
	}
	rules, err := r.lineRules(r.ctx, r.matched, r.call)
	if err != nil || len(rules) == 0 {
		return nil, err
	}
	if fault := jsonKind(r.call.ContentType); fault != nil {
		return nil, fault
	}
	return func(body []byte) error {
		if skipSpace(body, 0) == len(body) {
			return nil
		}
		if err := strictJSON(body); err != nil {
			return badBodyFault(err)
		}
		return check(rules, body)
	}, nil
}

// checkMembers reads the members at the top of a body that is strict JSON. Those that are documented are not looked into; *
// stands for names of the client's choice.
func checkMembers(rules []*policy.Rule, documented []string, body []byte) error {
	free := slices.Contains(documented, "*")
	return eachMember(body, func(name, value []byte) error {
		if slices.Contains(documented, string(name)) {
			return nil
		}
		return newGuard(rules, value).undocumented(name, free && name != nil && !carriers[string(name)])
	})
}

// carriers are members that hold documents, queries and scripts in other APIs, and hardly are names of the client's choice.
var carriers = map[string]bool{"doc": true, "docs": true, "document": true, "documents": true, "upsert": true, "_source": true, "source": true, "script": true, "params": true, "query": true}

// checkFirst adds to a transform, whose own reading follows its endpoint's grammar, what that grammar has no place for: a
// document in the members that the API does not have, and an array in the place of an object.
func (r *request) checkFirst(t Transform) error {
	if q, ok := t.(*query); !r.call.HasBody || ok && q.anyForm {
		return nil
	}
	check := onlyObject
	switch r.verdict {
	case verdictBulk, verdictDoc, verdictCreate, verdictUpdate, verdictMsearch, verdictMonitoring, verdictDocuments, verdictSamples, verdictBinary, verdictPromQL, verdictUnprotected:
		return nil // documents, lines, or no JSON
	case verdictJob, verdictFollow, verdictRestore, verdictCreateFrom, verdictCopy, verdictSettings, verdictRoles, verdictComponentTemplate,
		verdictCreateIndex, verdictRollover, verdictMapping, verdictIndexTemplate, verdictLegacyTemplate, verdictSimulateTemplate, verdictPipeline, verdictAliases,
		verdictTermsEnum, verdictReindex, verdictApplication, verdictSQL, verdictESQL, verdictEQL, verdictView:
		rules, err := r.lineRules(r.ctx, r.matched, r.call)
		if err != nil {
			return err
		}
		members := r.route.members()
		if len(members) == 0 && strings.HasPrefix(r.api, "inference.") { // an API that newer specifications lack
			members = jobMembers["inference"]
		}
		if r.verdict == verdictMapping { // rows of other names, and bodies with a type
			members = slices.Concat(members, documentedMembers("indices.put_mapping"), []string{"_doc"})
		}
		if len(rules) > 0 && len(members) > 0 {
			check = func(body []byte) error {
				if err := onlyObject(body); err != nil || skipSpace(body, 0) == len(body) {
					return err
				}
				if err := strictJSON(body); err != nil {
					return badBodyFault(err)
				}
				if err := checkMembers(rules, members, body); err != nil {
					return err
				}
				return queryIsText(rules, r.verdict, body)
			}
		}
	}
	switch t := t.(type) {
	case *control:
		change := t.change
		t.change = func(body []byte) ([]byte, error) {
			if err := check(body); err != nil {
				return nil, err
			}
			return change(body)
		}
	case *query:
		if then := t.check; then != nil {
			t.check = func(body []byte) error {
				if err := check(body); err != nil {
					return err
				}
				return then(body)
			}
		}
	}
	return nil
}

// queryIsText reads what stands in the place of a query's text in the query languages and is none.
func queryIsText(rules []*policy.Rule, v verdict, body []byte) error {
	switch v {
	case verdictSQL, verdictESQL, verdictEQL, verdictView:
		return eachMember(body, func(name, value []byte) error {
			if string(name) != "query" || value[0] == '"' {
				return nil
			}
			return newGuard(rules, value).undocumented(name, false)
		})
	}
	return nil
}

// onlyObject refuses an array where an object belongs: readers of single members find nothing in it.
func onlyObject(body []byte) error {
	if at := skipSpace(body, 0); at < len(body) && body[at] == '[' {
		return badBodyFault(badSyntax(at, "expected an object"))
	}
	return nil
}

// mgetMembers are what a document of _mget is asked for by (org.elasticsearch.action.get.MultiGetRequest).
var mgetMembers = []string{"_index", "_type", "_id", "routing", "_routing", "parent", "_parent", "stored_fields", "_stored_fields", "fields",
	"version", "_version", "version_type", "_version_type"} // and _source, whose members are read

// checkMget reads the body of _mget, which names documents and holds none.
func checkMget(rules []*policy.Rule, body []byte) error {
	return eachMember(body, func(name, value []byte) error {
		switch string(name) {
		case "ids":
			return nil
		case "docs":
			return eachElement(value, func(doc []byte) error {
				if doc[0] != '{' {
					return nil // an id
				}
				return checkMembers(rules, mgetMembers, doc)
			})
		}
		return newGuard(rules, value).undocumented(name, false)
	})
}

// eachMember calls f for each member at the top of strict JSON; of anything but an object, once for the whole without a name.
func eachMember(body []byte, f func(name, value []byte) error) error {
	pos := skipSpace(body, 0)
	if body[pos] != '{' {
		return f(nil, body[pos:])
	}
	for {
		if pos = skipSpace(body, pos+1); body[pos] == '}' {
			return nil
		}
		end, flags, err := scanName(body, pos)
		if err != nil {
			return badBodyFault(err)
		}
		name := body[pos+1 : end-1]
		if flags&hasEscape != 0 {
			name = unescape(nil, name)
		}
		if pos, err = skipColon(body, end); err != nil {
			return badBodyFault(err)
		}
		if end, err = skipValue(body, pos, 0); err != nil {
			return badBodyFault(err)
		}
		if err = f(name, body[pos:end]); err != nil {
			return err
		}
		if pos = skipSpace(body, end); body[pos] == '}' {
			return nil
		}
	}
}

// eachElement calls f for each element of an array, or for the value itself when it is none.
func eachElement(value []byte, f func(element []byte) error) error {
	if value[0] != '[' {
		return f(value)
	}
	for pos := 0; ; {
		if pos = skipSpace(value, pos+1); value[pos] == ']' {
			return nil
		}
		end, err := skipValue(value, pos, 0)
		if err != nil {
			return badBodyFault(err)
		}
		if err = f(value[pos:end]); err != nil {
			return err
		}
		if pos = skipSpace(value, end); value[pos] == ']' {
			return nil
		}
	}
}

// undocumented reads a member that the API's documentation does not have. free tells that names are the client's choice
// there: then a member counts only at the protected path itself, and texts are not taken for queries.
func (g *guard) undocumented(name []byte, free bool) error {
	root, err := strictTree(g.body)
	if err != nil {
		return badBodyFault(err)
	}
	if root.isNull() {
		return nil
	}
	root.name = name
	f := g.heldAt(&root, nil, nil, free)
	if f == nil {
		f = g.texts(&root, free)
	}
	if f == nil && !free {
		return g.unknownMember(&root)
	}
	if f == nil {
		return nil
	}
	return refuse(400, "esproxy_protected_query", "the body holds or may hold a value for ["+f.Path+"], which rule ["+f.Rule.Name+
		"] protects, in a member that this API does not document; it would reach Elasticsearch in clear; leave that member out")
}

// heldAt gives the protected field that a value other than null lies at: at any depth, or when rooted only from the
// root on. path is the way to v, each name after a dot; in is the field that v lies under.
func (g *guard) heldAt(v *treeValue, path []byte, in *policy.Field, rooted bool) *policy.Field {
	name := bytes.TrimRight(v.name, ".") // which the server drops
	if v.name != nil {
		path = append(append(path, '.'), name...)
	}
	for _, f := range g.fields {
		if in != nil || v.name == nil {
			break
		}
		way := append(path, '.')
		if !rooted { // what is new can only match up to its end
			way = way[max(0, len(path)-len(name)-len(f.Path)-1):]
		}
		if i := bytes.Index(way, []byte("."+f.Path+".")); i == 0 || i > 0 && !rooted {
			in = f
		}
	}
	if v.isScalar() {
		if v.isNull() {
			return nil
		}
		return in
	}
	for i := range v.kids {
		if f := g.heldAt(&v.kids[i], path, in, rooted); f != nil {
			return f
		}
	}
	return nil
}

// texts gives the protected field that a string in v gives a value to: as a script with a constant or with parameters beside
// it, or as a query.
func (g *guard) texts(v *treeValue, free bool) *policy.Field {
	if v.isString() {
		text := g.text(v)
		if f := g.scriptNames(text); f != nil && hasConstant(lexScript(text), g.fields) {
			return f
		}
		if free {
			return nil
		}
		return g.luceneText(text)
	}
	params := v.member("params")
	for i := range v.kids {
		m := &v.kids[i]
		if m.isString() && params != nil && len(params.kids) > 0 {
			if f := g.scriptNames(g.text(m)); f != nil {
				return f
			}
		}
		if f := g.texts(m, free); f != nil {
			return f
		}
	}
	return nil
}

// scriptNames gives the protected field that a text names as a script does, or nil.
func (g *guard) scriptNames(text []byte) *policy.Field {
	words := lexScript(text)
	for _, f := range g.fields {
		if mentions(words, f) {
			return f
		}
	}
	return nil
}

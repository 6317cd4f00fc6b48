package rewrite

import (
	"cmp"
	"context"
	"mime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
)

// Plan tells what to do with a request, from all that is known before its body is read. It may ask the
// cluster what names stand for. An error is a *Fault: the request is refused.
func (e *Engine) Plan(ctx context.Context, call *Call) (*Plan, error) {
	m, fault := findRoute(call.Method, call.Path)
	if fault != nil {
		if a := e.allowed(call.Method, call.Path); a != nil && fault.Type == unknownType {
			p := &Plan{Route: a.Path, API: "allowed", Target: Target{call.Method, call.Path, call.Query}}
			if a.Method != "GET" && a.Method != "HEAD" { // nobody knows what it does
				p.Done = e.Cluster.Changed
			}
			return p, nil
		}
		return nil, fault
	}
	p := &Plan{Route: m.template, API: m.api, Target: Target{call.Method, call.Path, call.Query}}
	if m.changesNames() {
		p.Done = e.Cluster.Changed
	}
	if err := e.checkLine(ctx, m, call); err != nil {
		return nil, err
	}
	holdsAddresses := !e.PassAddresses && (m.reply == replyNodes || m.reply == replyCatNodes)
	if m.verdict == verdictPass && !call.HasBody && !holdsAddresses {
		return p, nil
	}
	r := &request{Engine: e, ctx: ctx, call: call, matched: m}
	if m.verdict == verdictPass || m.verdict == verdictAdmin {
		var err error
		if call.HasBody {
			if p.Transform, err = r.passing(); err != nil {
				return nil, err
			}
		}
		if holdsAddresses {
			if err := r.addresses(p); err != nil {
				return nil, err
			}
		}
		return p, nil
	}
	if r.params, fault = parseQuery(call.Query); fault != nil {
		return nil, fault
	}
	if fault = r.checkParams(); fault != nil {
		return nil, fault
	}
	if r.Turns != nil {
		p.Done = r.takeTurns(p.Done)
	}
	transform, err := r.transform(p)
	if err != nil {
		r.writing.exit()
		return nil, err
	}
	if transform == nil {
		return p, nil
	}
	if fault = r.checkDialect(transform); fault == nil {
		err = r.checkFirst(transform)
	} else {
		err = fault
	}
	if err != nil {
		r.writing.exit()
		transform.Close()
		return nil, err
	}
	p.Transform = transform
	if q, ok := transform.(*query); ok {
		p.Looks = q.anyForm
	}
	return p, nil
}

// request is one request while its plan is made.
type request struct {
	*Engine
	*matched
	ctx    context.Context
	call   *Call
	params []param

	writing  *writing
	turnEnds func() // of a change of names
}

func refuse(status int, kind, reason string) *Fault {
	return &Fault{Status: status, Type: kind, Reason: reason}
}

// checkParams refuses parameters that would move a body or a target out of sight. Path parameters and query parameters
// are one map to Elasticsearch (RestRequest.params).
func (r *request) checkParams() *Fault {
	for _, p := range r.params {
		if p.name == "type" {
			return refuse(400, "esproxy_bad_request", "the parameter [type] is not supported; types are gone from Elasticsearch")
		}
		if v, ok := r.values[p.name]; ok && v != p.value {
			return refuse(400, "esproxy_bad_request", "the path and the query give different values for ["+p.name+"]; give it once")
		}
	}
	return nil
}

// value is a parameter of path or query.
func (r *request) value(name string) string {
	if v, ok := r.values[name]; ok {
		return v
	}
	v, _ := lookParam(r.params, name)
	return v
}

// checkDialect refuses bodies and replies in other forms than JSON where bodies are read.
func (r *request) checkDialect(t Transform) *Fault {
	if q, ok := t.(*query); ok && q.opening == nil && (q.anyForm || r.verdict == verdictScroll || r.verdict == verdictMget || r.verdict == verdictGet || r.verdict == verdictSource || r.verdict == verdictAsyncGet) {
		return nil // looked at in read
	}
	if r.call.HasBody {
		if fault := jsonOnly(r.call.ContentType); fault != nil {
			return fault
		}
	}
	for _, a := range r.call.Accept {
		if compat7(a) {
			return compat7Fault()
		}
	}
	// Of a bulk the reply is read whenever an item is refused, so it must be JSON for everybody.
	_, isBulk := t.(*bulk)
	if !isBulk && (r.call.Viewer == nil || !opens(t)) {
		return nil
	}
	reason := ""
	if f, ok := lookParam(r.params, "format"); ok && f != "json" {
		reason = "the parameter [format]"
	}
	for _, a := range r.call.Accept {
		for _, one := range strings.Split(a, ",") {
			name, _, _ := strings.Cut(one, ";")
			switch name = strings.ToLower(strings.TrimSpace(name)); name {
			case "", "*/*", "application/*", "application/json", "application/vnd.elasticsearch+json", "application/x-ndjson", "application/vnd.elasticsearch+x-ndjson", "text/plain":
			default:
				reason = "the header [Accept]"
			}
		}
	}
	if reason != "" {
		if isBulk {
			return refuse(406, "esproxy_not_acceptable", reason+" asks for a reply into which refused items cannot be put; ask for JSON")
		}
		return refuse(406, "esproxy_not_acceptable", reason+" asks for a form in which values are not opened; ask for JSON, or send the request without X-Esproxy-Authorization")
	}
	return nil
}

// opens reports whether t opens values for a caller.
func opens(t Transform) bool {
	switch t := t.(type) {
	case *query:
		return t.opening != nil
	case *singleUpdate:
		return t.opening != nil
	case *bulk:
		return t.opening != nil
	}
	return false
}

// compat7 reports whether a media type asks for an API that is not surely that of 8 or 9: the server
// reads any number of digits ("07" too) and trims what Java calls white space.
func compat7(value string) bool {
	rest := strings.ToLower(value)
	for {
		_, after, ok := strings.Cut(rest, "compatible-with")
		if !ok {
			return false
		}
		version, _, _ := strings.Cut(after, ",")
		version, _, _ = strings.Cut(version, ";")
		version = strings.TrimFunc(strings.TrimPrefix(strings.TrimFunc(version, blankRune), "="), blankRune)
		if version != "8" && version != "9" {
			return true
		}
		rest = after
	}
}

func compat7Fault() *Fault {
	return refuse(406, "esproxy_content_type", "compatible-with=7 brings back typed routes, which are read differently by different versions; use compatible-with=8 or 9")
}

// jsonOnly refuses content types other than JSON in UTF-8. Elasticsearch itself refuses a body without a type.
func jsonOnly(values []string) *Fault {
	if len(values) == 1 && compat7(values[0]) {
		return compat7Fault()
	}
	return jsonKind(values)
}

// jsonKind is jsonOnly for bodies that hold no document and are the same in version 7.
func jsonKind(values []string) *Fault {
	if len(values) == 0 {
		return nil
	}
	if len(values) > 1 || strings.Contains(values[0], ",") {
		return refuse(400, "esproxy_content_type", "the request has more than one Content-Type; send one")
	}
	kind, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return refuse(400, "esproxy_content_type", "the Content-Type cannot be read; send application/json")
	}
	switch kind {
	case "application/json", "application/x-ndjson", "application/*", "application/vnd.elasticsearch+json", "application/vnd.elasticsearch+x-ndjson":
	default:
		return refuse(406, "esproxy_content_type", "where values are protected, bodies are read as JSON only; send application/json or application/x-ndjson")
	}
	if c, ok := params["charset"]; ok && !strings.EqualFold(c, "utf-8") && !strings.EqualFold(c, "utf8") {
		return refuse(415, "esproxy_content_type", "bodies are read as UTF-8 only; send charset=utf-8")
	}
	return nil
}

// transform gives what carries the request; nil when both bodies pass untouched.
func (r *request) transform(p *Plan) (Transform, error) {
	switch r.verdict {
	case verdictBulk:
		return r.bulk()
	case verdictDoc, verdictCreate:
		return r.document()
	case verdictUpdate:
		return r.update(p)
	case verdictSearch, verdictQuery, verdictTermsEnum, verdictAsync, verdictUpdateByQuery:
		return r.search()
	case verdictExplain:
		return r.explain()
	case verdictMsearch, verdictMsearchTemplate:
		return r.msearch()
	case verdictSearchTemplate, verdictRenderTemplate:
		return r.searchTemplate()
	case verdictScript:
		return r.stored()
	case verdictExecute:
		return r.execute()
	case verdictRankEval:
		return r.rankEval()
	case verdictApplication:
		return r.application()
	case verdictQueryRules:
		return r.queryRules()
	case verdictEvent:
		return r.event()
	case verdictScroll, verdictAsyncGet, verdictMget, verdictGet, verdictSource:
		return r.read()
	case verdictReindex:
		return r.controlled(func(body []byte) ([]byte, error) { return body, r.reindex(body) })
	case verdictCopy:
		return r.copyIndex()
	case verdictJob:
		return r.job()
	case verdictFollow:
		return r.follow()
	case verdictRestore:
		return r.restore()
	case verdictCreateFrom:
		return r.createFrom()
	case verdictSamples:
		return r.samples()
	case verdictDocuments:
		return r.documents()
	case verdictBinary:
		return r.binary()
	case verdictPromQL:
		return r.promQL()
	case verdictESQL:
		return r.language(langESQL)
	case verdictSQL:
		return r.language(langSQL)
	case verdictEQL:
		return r.eql()
	case verdictTableGet, verdictEventsGet:
		return r.read()
	case verdictView:
		return r.viewQuery()
	case verdictSimulate:
		return r.simulate()
	case verdictTerms:
		return r.terms()
	case verdictMonitoring:
		return r.monitoring()
	case verdictUnprotected, verdictRefuse:
		return nil, r.unread()
	}
	return r.administration()
}

// writeIndex checks a name that a single write goes to.
func (r *request) writeIndex() (*place, error) {
	index := r.value("index")
	if index == "" || strings.ContainsAny(index, ",*") {
		return nil, refuse(400, "esproxy_bad_request", "a write needs the name of one index, alias or data stream in the path")
	}
	if err := r.writing.enter(r.ctx, index); err != nil {
		return nil, err
	}
	return r.place(r.ctx, index)
}

func (r *request) bulk() (Transform, error) {
	t := &bulk{eng: r.Engine, call: r.call, writing: r.writing, index: r.value("index"), routing: r.value("routing"), started: time.Now()}
	t.query = keepParams(r.call.Query, func(name string) bool {
		switch name {
		case "index", "filter_path", "pretty", "human", "format":
			return true
		}
		return false
	})
	if raw, ok := lookParam(r.params, "filter_path"); ok {
		var err error
		if t.filter, err = newFilterPath(raw); err != nil {
			return nil, refuse(400, "esproxy_bad_request", "the parameter [filter_path] cannot be read")
		}
	}
	for _, name := range []string{"_source", "_source_includes", "_source_excludes"} {
		if v, ok := lookParam(r.params, name); ok && v != "false" {
			t.sources = true
		}
	}
	if r.call.Viewer != nil {
		t.opening = r.opening(replyUpdate, "")
	}
	if r.call.HasBody { // the dialect must be right before anything can be framed
		if fault := jsonOnly(r.call.ContentType); fault != nil {
			return nil, fault
		}
	}
	return t, nil
}

func (r *request) document() (Transform, error) {
	pl, err := r.writeIndex()
	if err != nil || pl.t == nil {
		return nil, err
	}
	return &document{whole: whole{eng: r.Engine, call: r.call}, place: pl, id: r.value("id"), routing: r.value("routing")}, nil
}

func (r *request) update(p *Plan) (Transform, error) {
	pl, err := r.writeIndex()
	if err != nil || pl.t == nil {
		return nil, err
	}
	t := &singleUpdate{
		whole: whole{eng: r.Engine, call: r.call}, place: pl, id: r.value("id"), routing: r.value("routing"),
		seqNo: r.value("if_seq_no"), term: r.value("if_primary_term"), target: p.Target,
	}
	if n := r.value("retry_on_conflict"); n != "" {
		times, err := strconv.ParseInt(n, 10, 64)
		if err != nil {
			return nil, refuse(400, "esproxy_bad_request", "the parameter [retry_on_conflict] is no whole number")
		}
		t.retries = int(min(max(times, 0), maxRetries))
	}
	if r.call.Viewer != nil {
		t.opening = r.opening(replyUpdate, pl.name)
		t.opening.id, t.opening.routing = t.id, t.routing
	}
	return t, nil
}

// unread passes a request whose body is not read when no rule applies to any of its targets.
func (r *request) unread() error {
	index, ok := r.values["index"]
	if ok {
		if index == "views" && len(r.Policy.Rules) > 0 && strings.HasPrefix(r.template, "/{index}/{type}/_search") {
			return refuse(403, "esproxy_refused_endpoint", "on OpenSearch this is a search of a view, and which indices it reads is not known here; search the indices themselves")
		}
		if r.method != "GET" && r.method != "HEAD" { // some write documents
			if err := r.writing.enter(r.ctx, index); err != nil {
				return err
			}
		}
		in, err := r.reach(r.ctx, index)
		if err != nil {
			return err
		}
		if len(in.rules) == 0 && (r.verdict == verdictUnprotected || in.system) {
			return nil
		}
	} else if len(r.Policy.Rules) == 0 {
		return nil
	}
	return r.refused()
}

func (r *request) refused() error {
	return refuse(403, "esproxy_refused_endpoint", "the endpoint ["+r.method+" "+r.template+"] is refused where values are protected: "+r.reason)
}

// copyIndex lets an index be copied only under the rules of the source: what is plain there stays plain in the copy.
// The body may give the copy aliases that bring it under further rules.
func (r *request) copyIndex() (Transform, error) {
	to, err := r.Cluster.Resolve(r.ctx, cmp.Or(r.value("target"), r.value("target_index")))
	if err != nil {
		return nil, err
	}
	from, err := r.Cluster.Resolve(r.ctx, r.value("index"))
	if err != nil {
		return nil, err
	}
	same := func(aliases []string) error {
		rules, conflict := r.Policy.Match(slices.Concat(to.Names, aliases))
		if conflict != nil {
			return conflictFaultOf(conflict)
		}
		return r.sameRules(r.value("index"), rules, "the index ["+r.value("index")+"]")
	}
	if err := same(nil); err != nil || !r.call.HasBody {
		return nil, err // a copy has none of the aliases of its source
	}
	return r.resized(slices.Concat(from.Names, to.Names), to.Names, func(rules []*policy.Rule, body []byte) ([]byte, error) {
		aliases, err := r.bodyAliases(body)
		if err != nil {
			return nil, err
		}
		if err := same(aliases); err != nil {
			return nil, err
		}
		return r.control(controlResize, rules, body)
	})
}

// sameRules refuses a copy of a source under rules, those of its destination, when something that the source's name
// stands for lacks one of them.
func (r *request) sameRules(source string, rules []*policy.Rule, what string) error {
	if len(rules) == 0 {
		return nil
	}
	indices, err := r.indices(r.ctx, source)
	if err != nil {
		return err
	}
	for _, t := range indices {
		for _, rule := range rules {
			if t == nil || t.rule(rule) < 0 {
				return refuse(400, "esproxy_unsealed_source", what+" is not, or not wholly, under rule ["+rule.Name+"], so its values are not sealed for the target; read its documents and write them through the proxy")
			}
		}
	}
	return nil
}

package rewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

// planEngine knows an alias, a wildcard and a data stream.
func planEngine(t testing.TB) (*Engine, *fakeCluster) {
	e, cluster, _ := fakeEngine(t)
	all := Resolved{Names: []string{"user", "user-1", "deep", "shop", "plain"}}
	cluster.names["user*"] = Resolved{Names: []string{"user", "user-1"}}
	cluster.names["*"], cluster.names["_all"], cluster.names[""] = all, all, all
	cluster.names["alias"] = Resolved{Names: []string{"alias", "user-1"}, Write: "user-1"}
	cluster.names["both"] = Resolved{Names: []string{"both", "user", "deep"}, Write: "user"}
	return e, cluster
}

// carriesValues are the verdicts of endpoints for documents and queries.
var carriesValues = map[verdict]bool{
	verdictBulk: true, verdictDoc: true, verdictCreate: true, verdictUpdate: true, verdictSearch: true, verdictQuery: true, verdictAsync: true,
	verdictUpdateByQuery: true, verdictExplain: true,
}

// Every row, with every kind of name, with and without body and grant, gives a plan or a refusal; what is planned can be
// carried out on any body without a panic, and gives all memory back.
//
// Bodies with a protected value, of the right form or not, do not go up through the endpoints that can carry one.
func TestPlanEveryRow(t *testing.T) {
	e, _ := planEngine(t)
	budget := e.Budget.(*fakeBudget)
	ctx := context.Background()
	bodies := []string{"", "{}", "{}\n", `{"index":{"_index":"user"}}` + "\n" + `{"username":"Ana","card":"canary1"}` + "\n", `{"query":{"term":{"card":"canary1"}}}`, `{"doc":{"card":"canary1"}}`, `{"username":"Ana","card":"canary1"}`, "[]", `{"a`, "\xff", `null`}
	plans, refusals := 0, 0
	for _, f := range tableRows(t) {
		for _, name := range []string{"user", "plain", ".kibana", "user*", "_all", "alias", "both", "a,user", "%3Cuser-%7Bnow%7D%3E"} {
			for _, viewer := range []Viewer{nil, fullViewer} {
				path := "/" + strings.Join(fillTemplate(f[1], func(param string) string {
					if param == "id" {
						return "1"
					}
					return name
				}), "/")
				for i, body := range bodies {
					if i > 3 && name != "user" && name != "both" {
						break
					}
					call := &Call{Method: f[0], Path: path, HasBody: body != "", Viewer: viewer, Caller: &fakeCaller{}, Counter: &fakeCounter{}}
					if body != "" {
						call.ContentType = []string{"application/json"}
					}
					plan, err := e.Plan(ctx, call)
					if err != nil {
						var fault *Fault
						if plan != nil || !errors.As(err, &fault) || fault.Status < 400 || fault.Reason == "" || strings.Contains(fault.Error(), "canary") {
							t.Fatalf("%s %s: %v", f[0], path, err)
						}
						refusals++
						continue
					}
					plans++
					if plan.Route == "" || plan.API == "" || plan.Target.Method != f[0] || plan.Target.Path != path {
						t.Fatalf("%s %s: plan %+v", f[0], path, plan)
					}
					tr := plan.Transform
					if tr == nil {
						continue
					}
					var in io.Reader
					if body != "" {
						in = strings.NewReader(body)
					}
					var up strings.Builder
					answered, err := tr.Request(ctx, plan, in, &up)
					if err != nil && asFault(err).Status == 500 {
						t.Errorf("%s %s: %v", f[0], path, err)
					}
					if err == nil && carriesValues[verdict(f[3])] && (verdict(f[3]) != verdictDoc && verdict(f[3]) != verdictCreate || !strings.HasPrefix(body, `{"query"`) && !strings.HasPrefix(body, `{"doc"`)) && name == "user" && strings.Contains(up.String(), "canary1") {
						t.Errorf("%s %s: plain text went up: %s", f[0], path, up.String())
					}
					if err == nil && !answered {
						for _, reply := range []string{`{"took":1,"errors":false,"hits":{"hits":[]},"items":[],"docs":[],"responses":[]}`, `{`} {
							rewrite, _, err := tr.Reply(ctx, ReplyHead{Status: 200, ContentType: "application/json"})
							if err != nil || rewrite == nil {
								continue
							}
							rewrite(strings.NewReader(reply), io.Discard)
							break
						}
					}
					tr.Close()
					if budget.out != 0 {
						t.Fatalf("%s %s: %d bytes of the budget are out", f[0], path, budget.out)
					}
				}
			}
		}
	}
	t.Logf("%d plans, %d refusals", plans, refusals)
	if plans < 10_000 || refusals < 1000 {
		t.Errorf("%d plans, %d refusals", plans, refusals)
	}
}

func kindOf(p *Plan) string {
	if p.Transform == nil {
		return "pass"
	}
	s := strings.TrimPrefix(fmt.Sprintf("%T", p.Transform), "*rewrite.")
	if opens(p.Transform) {
		s += " opens"
	}
	return s
}

func TestPlanKinds(t *testing.T) {
	e, _ := planEngine(t)
	for _, c := range []struct {
		line          string
		plain, viewer string // what is planned without and with a grant; "!type" is a refusal
	}{
		{"PUT /user/_doc/1", "document", "document"}, {"PUT /user/_doc/1/", "document", "document"}, {"POST /user/_doc", "document", "document"}, {"POST /user/_create/1", "document", "document"},
		{"PUT /us%65r/_doc/1", "document", "document"}, {"PUT /alias/_doc/1", "document", "document"}, {"PUT /plain/_doc/1", "pass", "pass"}, {"PUT /.kibana/_doc/1", "pass", "pass"},
		{"PUT /both/_doc/1", "!esproxy_rule_conflict", "!esproxy_rule_conflict"}, {"PUT /user*/_doc/1", "!esproxy_bad_request", "!esproxy_bad_request"}, {"PUT /a,user/_doc/1", "!esproxy_bad_request", "!esproxy_bad_request"},
		{"PUT /a%2Cuser/_doc/1", "!esproxy_bad_request", "!esproxy_bad_request"},
		{"POST /user/_update/1", "singleUpdate", "singleUpdate opens"}, {"POST /plain/_update/1", "pass", "pass"},
		{"POST /views/x/_search", "!esproxy_refused_endpoint", "!esproxy_refused_endpoint"}, {"POST /plain/x/_search", "pass", "pass"},
		{"POST /_bulk", "bulk", "bulk opens"}, {"PUT /plain/_bulk", "bulk", "bulk opens"}, {"POST /_bulk?index=user", "bulk", "bulk opens"}, {"POST /user/_bulk?index=user", "bulk", "bulk opens"},
		{"POST /user/_bulk?index=other", "!esproxy_bad_request", "!esproxy_bad_request"}, {"POST /_bulk?index=user&index=plain", "!esproxy_bad_request", "!esproxy_bad_request"}, {"POST /_bulk?index=user;index=plain", "!esproxy_bad_request", "!esproxy_bad_request"},
		{"PUT /user/_doc/1?id=2", "!esproxy_bad_request", "!esproxy_bad_request"}, {"PUT /user/_doc/1?i%64=2", "!esproxy_bad_request", "!esproxy_bad_request"}, {"PUT /user/_doc/1?type=x", "!esproxy_bad_request", "!esproxy_bad_request"},
		{"GET /user/_search?source=%7B%7D", "!esproxy_bad_request", "!esproxy_bad_request"}, {"POST /user/_search?source_content_type=application/json", "!esproxy_bad_request", "!esproxy_bad_request"},
		{"PUT /user/_doc/1?%zz", "!esproxy_bad_request", "!esproxy_bad_request"}, {"GET /_cluster/health?%zz", "!esproxy_bad_request", "!esproxy_bad_request"},
		{"POST /user/_search", "query", "query opens"}, {"GET /user/_search", "query", "query opens"}, {"POST /plain/_search", "query", "query opens"}, {"POST /_search", "query", "query opens"},
		{"GET /user/_doc/1", "pass", "query opens"}, {"HEAD /user/_doc/1", "pass", "pass"}, {"GET /user/_source/1", "pass", "query opens"}, {"POST /_mget", "query", "query opens"},
		{"POST /_search/scroll", "query", "query opens"}, {"POST /_msearch", "query", "query opens"},
		{"PUT /user", "control", "control"}, {"PUT /user/_mapping", "control", "control"}, {"PUT /plain/_mapping", "pass", "pass"},
		{"GET /_nodes/stats", "pass", "pass"}, {"DELETE /user/_doc/1", "query", "query"}, {"DELETE /plain/_doc/1", "pass", "pass"},
		{"POST /user/foo", "!esproxy_refused_endpoint", "!esproxy_refused_endpoint"}, {"POST /.kibana/foo", "pass", "pass"},
		{"POST /_sql", "query", "query opens"}, {"POST /_query", "query", "query opens"}, {"POST /_sql/translate", "query", "query"}, {"GET /_query/async/x", "pass", "query opens"},
		{"POST /_query/async/x/stop", "query", "query opens"}, {"GET /_sql/async/x", "pass", "query opens"}, {"POST /user/_eql/search", "query", "query opens"}, {"POST /plain/_eql/search", "pass", "query opens"},
		{"GET /_eql/search/x", "pass", "query opens"}, {"PUT /_query/view/x", "control", "control"}, {"GET /_query/view", "pass", "pass"}, {"POST /_sql/close", "query", "query"},
	} {
		for i, want := range []string{c.plain, c.viewer} {
			call := &Call{HasBody: true, ContentType: []string{"application/json"}, Caller: &fakeCaller{}, Counter: &fakeCounter{}}
			if i == 1 {
				call.Viewer = fullViewer
			}
			var target string
			call.Method, target, _ = strings.Cut(c.line, " ")
			call.Path, call.Query, _ = strings.Cut(target, "?")
			call.HasBody = call.Method != "GET" && call.Method != "HEAD"
			plan, err := e.Plan(context.Background(), call)
			got := ""
			if err != nil {
				got = "!" + asFault(err).Type
			} else {
				got = kindOf(plan)
				if plan.Transform != nil {
					plan.Transform.Close()
				}
			}
			if got != want {
				t.Errorf("%s: got %s, want %s (%v)", c.line, got, want, err)
			}
		}
	}
}

func TestPlanDialect(t *testing.T) {
	e, _ := planEngine(t)
	for _, c := range []struct {
		line        string
		contentType []string
		accept      []string
		viewer      bool
		status      int // 0: planned
	}{
		{line: "PUT /user/_doc/1", contentType: []string{"application/json"}},
		{line: "PUT /user/_doc/1", contentType: []string{"application/json; charset=utf-8"}},
		{line: "PUT /user/_doc/1", contentType: []string{"Application/JSON;charset=\"UTF-8\""}},
		{line: "PUT /user/_doc/1", contentType: []string{"application/vnd.elasticsearch+json;compatible-with=8"}, accept: []string{"application/vnd.elasticsearch+json; compatible-with=9"}},
		{line: "PUT /user/_doc/1"}, // Elasticsearch refuses that itself
		{line: "POST /_bulk", contentType: []string{"application/x-ndjson"}},
		{line: "PUT /user/_doc/1", contentType: []string{"application/yaml"}, status: 406},
		{line: "PUT /user/_doc/1", contentType: []string{"application/cbor"}, status: 406},
		{line: "PUT /user/_doc/1", contentType: []string{"application/smile"}, status: 406},
		{line: "PUT /user/_doc/1", contentType: []string{"text/plain"}, status: 406},
		{line: "POST /_bulk", contentType: []string{"application/vnd.elasticsearch+cbor;compatible-with=8"}, status: 406},
		{line: "PUT /user/_doc/1", contentType: []string{"application/json; charset=utf-16"}, status: 415},
		{line: "PUT /user/_doc/1", contentType: []string{"application/json; charset=iso-8859-1"}, status: 415},
		{line: "PUT /user/_doc/1", contentType: []string{"application/json", "application/yaml"}, status: 400},
		{line: "PUT /user/_doc/1", contentType: []string{"application/json, application/yaml"}, status: 400},
		{line: "PUT /user/_doc/1", contentType: []string{"application/json;;=x"}, status: 400},
		{line: "PUT /user/_doc/1", contentType: []string{""}, status: 400},
		{line: "PUT /user/_doc/1", contentType: []string{"application/vnd.elasticsearch+json;compatible-with=7"}, status: 406},
		{line: "POST /_bulk", contentType: []string{"application/vnd.elasticsearch+x-ndjson; compatible-with=7"}, status: 406},
		{line: "PUT /user/_doc/1", contentType: []string{"application/json"}, accept: []string{"application/vnd.elasticsearch+json;Compatible-With = 7"}, status: 406},
		{line: "PUT /plain/_doc/1", contentType: []string{"application/yaml"}},
		{line: "PUT /plain/_doc/1", contentType: []string{"application/cbor", "x"}, accept: []string{"application/cbor"}},
		{line: "POST /user/_search", contentType: []string{"application/json"}, accept: []string{"application/yaml"}},
		{line: "POST /user/_search", contentType: []string{"application/json"}, accept: []string{"application/yaml"}, viewer: true, status: 406},
		{line: "POST /user/_search?format=cbor", contentType: []string{"application/json"}, viewer: true, status: 406},
		{line: "POST /user/_search?format=json", contentType: []string{"application/json"}, accept: []string{"*/*", "text/plain, application/json;q=0.5"}, viewer: true},
		{line: "GET /user/_doc/1?format=yaml", viewer: true, status: 406},
		{line: "GET /user/_doc/1?format=yaml"},
		{line: "PUT /user/_doc/1?format=yaml", contentType: []string{"application/json"}, viewer: true},
	} {
		call := &Call{ContentType: c.contentType, Accept: c.accept, Caller: &fakeCaller{}, Counter: &fakeCounter{}}
		if c.viewer {
			call.Viewer = fullViewer
		}
		var target string
		call.Method, target, _ = strings.Cut(c.line, " ")
		call.Path, call.Query, _ = strings.Cut(target, "?")
		call.HasBody = call.Method != "GET"
		plan, err := e.Plan(context.Background(), call)
		switch {
		case c.status == 0 && err != nil || c.status != 0 && (err == nil || asFault(err).Status != c.status):
			t.Errorf("%s %v %v: %v", c.line, c.contentType, c.accept, err)
		case err == nil && plan.Transform != nil:
			plan.Transform.Close()
		}
	}
}

// A failing view of the cluster refuses, it does not pass.
type failingNames struct {
	*fakeCluster
	err error
}

func (c failingNames) Resolve(context.Context, string) (Resolved, error) { return Resolved{}, c.err }
func (c failingNames) Expand(context.Context, string) (Resolved, error)  { return Resolved{}, c.err }

func TestPlanWithoutNames(t *testing.T) {
	e, cluster := planEngine(t)
	e.Cluster = failingNames{cluster, &Fault{Status: 503, Type: "esproxy_lookup_failed"}}
	for _, line := range []string{"PUT /plain/_doc/1", "POST /plain/_update/1", "POST /plain/_search", "PUT /plain", "PUT /plain/_mapping", "POST /plain/foo"} {
		method, path, _ := strings.Cut(line, " ")
		plan, err := e.Plan(context.Background(), &Call{Method: method, Path: path, HasBody: true, ContentType: []string{"application/json"}, Caller: &fakeCaller{}})
		if err == nil || asFault(err).Status != 503 {
			t.Errorf("%s: %+v, %v", line, plan, err)
		}
	}
	o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(`{"index":{"_index":"plain"}}`+"\n{}\n"), nil)
	if !o.answered || !strings.Contains(o.reply, "503") {
		t.Errorf("bulk: %v, %s", o.err, o.reply)
	}
}

func TestPlanDone(t *testing.T) {
	e, _ := planEngine(t)
	for line, want := range map[string]bool{"DELETE /plain": true, "PUT /plain/_alias/x": true, "GET /plain": false, "GET /plain/_search": false} {
		method, path, _ := strings.Cut(line, " ")
		plan, err := e.Plan(context.Background(), &Call{Method: method, Path: path, Caller: &fakeCaller{}})
		if err != nil || (plan.Done != nil) != want {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// Single documents: as they came where nothing is protected in them, sealed where it is, refused where that is not possible.
func TestSingleDocument(t *testing.T) {
	e, cluster, crypto := fakeEngine(t)
	call := func(line string) *Call {
		c := updateCall("", "")
		c.Method, c.Path, _ = strings.Cut(line, " ")
		return c
	}
	up := func(Target, []byte) (int, string) { return 201, `{"result":"created","_source":{"card":"esp1.x"}}` }
	for _, c := range []struct{ in, out string }{
		{` {"city" : 1} ` + "\n", ` {"city" : 1} ` + "\n"}, {"", ""}, {`{"username":"Ana","card":1}`, `{"username":"Ana","card":"` + fakeToken("users", "card", "Ana", "1") + `"}`},
	} {
		for name, cut := range cuts {
			o := exchange(t, e, call("PUT /user/_doc/1"), cut(strings.NewReader(c.in)), up)
			if o.err != nil || o.up != c.out || !strings.Contains(o.reply, "created") {
				t.Errorf("%s, %s: %v, %s", c.in, name, o.err, o.up)
			}
		}
	}
	counter := &fakeCounter{}
	counted := call("POST /user/_doc")
	counted.Counter = counter
	exchange(t, e, counted, strings.NewReader(`{"username":"Ana","items":[{"card":1},{"card":2}]}`), up)
	if counter.n["sealed users.items.card"] != 2 {
		t.Errorf("counted %v", counter.n)
	}
	none := func(Target, []byte) (int, string) { t.Error("it went up"); return 200, "" }
	for _, c := range []struct {
		in, kind string
		prepare  func()
	}{
		{`{"card":1}`, "esproxy_subject", func() {}},
		{`{"username":"Ana","card":1} x`, "esproxy_bad_document", func() {}},
		{"\n", "esproxy_bad_document", func() {}},
		{strings.Repeat(" ", 1<<10) + `{}`, "esproxy_document_too_large", func() { e.Limits.MaxDocument = 1 << 10 }},
		{`{}`, "esproxy_wrong_key", func() { cluster.ready = &Fault{Status: 503, Type: "esproxy_wrong_key"} }},
		{`{"username":"Ana","card":1}`, "esproxy_busy", func() { cluster.ready = nil; crypto.busy = true }},
		{`{}`, "esproxy_busy", func() { e.Budget.(*fakeBudget).max = 1 }},
	} {
		c.prepare()
		o := exchange(t, e, call("PUT /user/_create/1"), strings.NewReader(c.in), none)
		if o.err == nil || asFault(o.err).Type != c.kind {
			t.Errorf("%.40s: %v", c.in, o.err)
		}
	}
}

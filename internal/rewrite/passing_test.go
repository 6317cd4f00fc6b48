package rewrite

import (
	"context"
	"io"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/policy"
)

// sendLine plans a request and gives what goes upstream, or the refusal.
func sendLine(e *Engine, line, contentType, body string) (up string, fault *Fault) {
	method, target, _ := strings.Cut(line, " ")
	path, query, _ := strings.Cut(target, "?")
	call := &Call{Method: method, Path: path, Query: query, HasBody: body != "", Caller: &fakeCaller{}, Counter: &fakeCounter{}}
	if contentType != "" {
		call.ContentType = []string{contentType}
	}
	plan, err := e.Plan(context.Background(), call)
	if err != nil {
		return "", asFault(err)
	}
	if plan.Transform == nil {
		return body, nil
	}
	defer plan.Transform.Close()
	var out strings.Builder
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	if _, err = plan.Transform.Request(context.Background(), plan, in, &out); err != nil {
		return "", asFault(err)
	}
	return out.String(), nil
}

// adminEngine protects names that administrative bodies use for other things, and a nested path.
func adminEngine(t testing.TB) *Engine {
	e, cluster := planEngine(t)
	p, err := policy.Parse("fields.yaml", []byte(`version: 1
rules:
  - name: users
    indices: ["user", "user-*"]
    subject: login
    fields:
      card: {mode: encrypt}
      password: {mode: encrypt}
      name: {mode: encrypt}
      type: {mode: encrypt}
      query: {mode: encrypt}
      metadata: {mode: encrypt}
      username: {mode: encrypt}
      payment.number: {mode: encrypt}
`))
	if err != nil {
		t.Fatal(err)
	}
	e.Policy = p
	cluster.names["logs"] = Resolved{Names: []string{"logs"}}
	return e
}

// Requests that clients make pass as they are, whatever the policy calls protected.
func TestAdministrationPasses(t *testing.T) {
	e := adminEngine(t)
	for _, c := range []struct{ line, body string }{
		{"PUT /_security/user/x", `{"password":"secret1","roles":["a"],"full_name":"A B","email":"a@b.c","metadata":{"name":"x","type":4},"username":"x"}`},
		{"POST /_security/user/x/_password", `{"password":"secret1"}`},
		{"PUT /_security/user/_password", ` {"password":"secret1"} `},
		{"PUT /_security/privilege", `{"kibana-.kibana":{"all":{"application":"kibana-.kibana","name":"all","actions":["login:","query:x","name:y"],"metadata":{"type":"x"}}}}`},
		{"POST /_security/_query/api_key", `{"query":{"bool":{"must":[{"term":{"name":"x"}},{"term":{"username":"y"}},{"term":{"type":"rest"}}]}},"sort":["name"],"aggs":{"a":{"terms":{"field":"username"}}}}`},
		{"POST /_security/_query/user", `{"query":{"term":{"username":"x"}}}`},
		{"DELETE /_security/api_key", `{"name":"my key","username":"x"}`},
		{"POST /_security/user/_has_privileges", `{"cluster":["all"],"index":[{"names":["user"],"privileges":["read"]}]}`},
		{"POST /_security/oauth2/token", `{"grant_type":"password","username":"x","password":"y"}`},
		{"PUT /_ilm/policy/p", `{"policy":{"phases":{"hot":{"actions":{"rollover":{"max_age":"1d"}}}},"_meta":{"name":"x"}}}`},
		{"PUT /_slm/policy/p", `{"name":"<s-{now/d}>","schedule":"0 0 * * * ?","repository":"r","config":{"metadata":{"name":"x"}}}`},
		{"PUT /_snapshot/r", `{"type":"fs","settings":{"location":"/x","compress":true}}`},
		{"PUT /_snapshot/r/s", `{"indices":"user","metadata":{"taken_by":"x","name":"y"},"include_global_state":false}`},
		{"PUT /_cluster/settings", `{"persistent":{"cluster.routing.allocation.enable":"all","query":"x"},"transient":{"name":null}}`},
		{"POST /_cluster/reroute", `{"commands":[{"move":{"index":"user","shard":0,"from_node":"a","to_node":"b"}}]}`},
		{"POST /_connector", `{"name":"c","description":"d","index_name":"search-c","service_type":"mysql"}`},
		{"PUT /_license", `{"license":{"uid":"x","type":"basic","issued_to":"name:x"}}`},
		{"PUT /_ml/trained_models/m/vocabulary", `{"vocabulary":["name","type","card"]}`},
		{"PUT /_data_stream/user/_lifecycle", `{"data_retention":"7d"}`},
		{"POST /_data_stream/_modify", `{"actions":[{"add_backing_index":{"data_stream":"d","index":"i"}}]}`},
		{"PUT /_synonyms/s", `{"synonyms_set":[{"id":"name","synonyms":"a => b"}]}`},
		{"DELETE /_search/scroll", `{"scroll_id":["DXF1ZXJ5"]}`},
		{"DELETE /_pit", `{"id":"abc=="}`},
		{"POST /_search/scroll", `{"scroll":"1m","scroll_id":"DXF1ZXJ5"}`},
		{"POST /_mget", `{"docs":[{"_index":"user","_id":"name:x","routing":"r","_source":["card"]},{"_id":"2","stored_fields":["a"]}]}`},
		{"POST /_mget", `{"docs":["a"],"ids":["1","card:2"]}`},
		{"PUT /_inference/text_embedding/e", `{"service":"x","service_settings":{"api_key":"k","type":"t"},"task_settings":{"name":"x"},"chunking_settings":{"type":"none"}}`},
		// Members that nobody documents and that hold nothing for a protected field.
		{"PUT /_ilm/policy/p", `{"policy":{},"extra":{"a":[1,"b",null]}}`},
		{"PUT /_ilm/policy/p", `{"card":null}`},
		// Bodies that hold nothing where none belongs, and any body where no rule applies.
		{"POST /user/_refresh", `{}`}, {"POST /_refresh", " { }\n"}, {"POST /_flush", "\n"}, {"GET /_cat/health", `{}`}, {"DELETE /user/_doc/1", `{}`}, {"GET /user/_doc/1", `{}`},
		{"POST /plain/_refresh", `{"card":"4111"}`}, {"POST /.kibana/_refresh", "\xff\x00"}, {"GET /plain/_doc/card:4111", "card: 4111"},
		{"POST /plain/_refresh?card=4111&q=card:4111&source=x", ``},
	} {
		if up, fault := sendLine(e, c.line, "application/json", c.body); fault != nil || up != c.body {
			t.Errorf("%s %s: %q, %v", c.line, c.body, up, fault)
		}
	}
}

func TestAdministrationRefuses(t *testing.T) {
	e := adminEngine(t)
	for _, c := range []struct{ line, contentType, body, kind string }{
		{"PUT /_security/user/x", "", `{"password":"a","card":"CANARY"}`, "esproxy_protected_query"},
		{"PUT /_security/user/x", "", `{"c\u0061rd":"CANARY"}`, "esproxy_protected_query"},
		{"PUT /_security/user/x", "", `{"type":"CANARY"}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"payment":{"number":"CANARY"}}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"payment.number":"CANARY"}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"payment.number.":"CANARY"}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"a":[{"b":{"payment":[{"number":["CANARY"]}]}}]}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"a":{"card":{"b":["CANARY"]}}}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"query":{"term":{"card":"CANARY"}}}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"x":{"match":{"card":{"query":"CANARY"}}}}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"x":"card:CANARY"}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"script":"ctx._source.card='CANARY'"}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"script":{"source":"ctx._source.card='CANARY'"}}`, "esproxy_protected_query"},
		{"PUT /_ilm/policy/p", "", `{"a":[{"source":"ctx._source.card=params.v","params":{"v":"CANARY"}}]}`, "esproxy_protected_query"},
		{"PUT /_security/privilege", "", `{"card":"CANARY"}`, "esproxy_protected_query"},
		{"PUT /_security/privilege", "", `{"payment":{"number":"CANARY"}}`, "esproxy_protected_query"},
		{"PUT /_security/privilege", "", `{"script":{"source":"ctx._source.card='CANARY'"}}`, "esproxy_protected_query"},
		{"POST /_security/_query/user", "", `{"query":{"term":{"card":"CANARY"}}}`, "esproxy_protected_query"},
		{"PUT /user/_sample/config", "", `{"rate":0.1,"if":"ctx.card == 'CANARY'"}`, "esproxy_protected_query"},
		{"POST /_mget", "", `{"docs":[{"_id":"1","card":"CANARY"}]}`, "esproxy_protected_query"},
		{"POST /_mget", "", `{"card":"CANARY"}`, "esproxy_protected_query"},
		{"POST /plain/_mget", "", `{"docs":[{"_index":"user","_id":"1","card":"CANARY"}]}`, "esproxy_protected_query"},
		{"POST /_search/scroll", "", `{"scroll_id":"x","card":"CANARY"}`, "esproxy_protected_query"},
		{"DELETE /_search/scroll", "", `[{"card":"CANARY"}]`, "esproxy_protected_query"},
		{"GET /_async_search/x", "", `{"card":"CANARY"}`, "esproxy_bad_request"},
		// What holds something where nothing belongs.
		{"GET /_cat/health", "", `{"card":"CANARY"}`, "esproxy_bad_request"}, {"POST /user/_refresh", "", `{"a":1}`, "esproxy_bad_request"},
		{"HEAD /user/_doc/1", "", `{"card":"CANARY"}`, "esproxy_bad_request"}, {"DELETE /user/_doc/1", "", `{"card":"CANARY"}`, "esproxy_bad_request"},
		{"DELETE /user", "", `[]`, "esproxy_bad_request"}, {"GET /user/_doc/1", "", `{}{"card":"CANARY"}`, "esproxy_bad_request"},
		{"GET /_cat/health", "", "{}\ufeff", "esproxy_bad_request"}, {"GET /_cat/health", "", "/* CANARY */{}", "esproxy_bad_request"},
		{"GET /plain/_stats?index=user", "", `{"card":"CANARY"}`, "esproxy_bad_request"}, {"GET /plain/_stats?%69ndex=user", "", `{"card":"CANARY"}`, "esproxy_bad_request"},
		{"GET /_plugin", "", `{"card":"CANARY"}`, "esproxy_bad_request"}, {"OPTIONS /user/_doc/1", "", `{"card":"CANARY"}`, "esproxy_bad_request"},
		// Other dialects.
		{"PUT /_ilm/policy/p", "application/yaml", "policy: {}", "esproxy_content_type"}, {"PUT /_ilm/policy/p", "application/cbor", "\xa0", "esproxy_content_type"},
		{"PUT /_ilm/policy/p", "application/x-www-form-urlencoded", "card=CANARY", "esproxy_content_type"}, {"PUT /_ilm/policy/p", "application/json; charset=utf-16", `{}`, "esproxy_content_type"},
		{"PUT /_ilm/policy/p", "", "\ufeff{\"card\":\"CANARY\"}", "esproxy_bad_request"}, {"PUT /_ilm/policy/p", "", `{"policy":{/* card:CANARY */}}`, "esproxy_bad_request"},
		{"PUT /_ilm/policy/p", "", "{\"policy\":{\"c\xc1\xa1rd\":\"CANARY\"}}", "esproxy_bad_request"}, {"PUT /_ilm/policy/p", "", `{"policy":{}}{"card":"CANARY"}`, "esproxy_bad_request"},
		{"PUT /_ilm/policy/p", "", `{"policy":{},"policy":{}}`, "esproxy_bad_request"},
	} {
		up, fault := sendLine(e, c.line, c.contentType, c.body)
		if fault == nil || fault.Type != c.kind || up != "" || strings.Contains(fault.Reason, "CANARY") {
			t.Errorf("%s %q: got %q, %v, want %s", c.line, c.body, up, fault, c.kind)
		}
	}
}

// Values in the request line are refused on every row, before anything is asked of the body.
func TestRequestLines(t *testing.T) {
	e := adminEngine(t)
	canary := []string{"card:CANARY", "card%3ACANARY", "card=CANARY", "%20card%20:%20CANARY", "c%61rd.keyword:CANARY", "card.:CANARY", "payment.number%3dCANARY"}
	for _, f := range tableRows(t) {
		for _, value := range canary {
			n := strings.Count(f[1], "{")
			for at := range n {
				i := -1
				path := "/" + strings.Join(fillTemplate(f[1], func(name string) string {
					if i++; i == at {
						return value
					}
					return "user"
				}), "/")
				if _, fault := sendLine(e, f[0]+" "+path, "", ""); fault == nil || strings.Contains(fault.Reason, "CANARY") {
					t.Errorf("%s %s: %v", f[0], path, fault)
				}
			}
		}
		path := "/" + strings.Join(fillTemplate(f[1], func(string) string { return "user" }), "/")
		for _, query := range []string{"q=card:CANARY", "q=a+AND+card%3ACANARY", "%71=card:CANARY", "q=card:(CANARY)", "card=CANARY", "pretty&c%61rd=CANARY", "pretty;card.=CANARY", "card.x=CANARY", "payment.number=CANARY",
			"source=%7B%7D", "source_content_type=application/json", "sourc%65=%7B%7D"} {
			if _, fault := sendLine(e, f[0]+" "+path+"?"+query, "", ""); fault == nil || strings.Contains(fault.Reason, "CANARY") {
				t.Errorf("%s %s?%s: %v", f[0], path, query, fault)
			}
		}
	}
	for _, line := range []string{"OPTIONS /user/_doc/card:CANARY", "OPTIONS /user/_doc/1?card=CANARY"} {
		if _, fault := sendLine(e, line, "", ""); fault == nil {
			t.Errorf("%s passes", line)
		}
	}
}

// Request lines that clients send, with words that a policy may protect.
func TestOrdinaryRequestLinesPass(t *testing.T) {
	e := adminEngine(t)
	for _, line := range []string{
		"GET /user/_doc/x-card:4111", "GET /user/_doc/a%20card:1", "GET /user/_doc/bmFtZQ==", "GET /user/_doc/card:", "GET /user/_doc/cards:1", "GET /user/_doc/card", "DELETE /user/_doc/discard=1",
		"GET /.kibana/_doc/name:x", "PUT /plain/_doc/name:x", "GET /_cat/indices?h=index,card&s=name:asc&v", "GET /_cat/indices?h=a&h=b", "GET /_nodes/hot_threads?type=cpu", "GET /_security/api_key?name=x&username=y&realm_name=z",
		"GET /_search?q=card:*", "GET /_search?q=_exists_:card", "GET /_search?q=name", "GET /user/_count?q=login:x", "POST /user/_refresh?card", "POST /user/_refresh?card=", "GET /_cluster/health?filter_path=card", "GET /_nodes/_all/stats",
		"GET /user/_search?_source_includes=card&sort=card:asc", "GET /_tasks/abc:12", "GET /_cluster/state/metadata/user", "GET /plain/_search?source=%7B%7D&source_content_type=application/json",
		"OPTIONS /user/_doc/1", "GET /_wat", "GET /_data_stream/plain?name=a",
	} {
		if _, fault := sendLine(e, line, "", ""); fault != nil {
			t.Errorf("%s: %v", line, fault)
		}
	}
}

func TestHoldsNothing(t *testing.T) {
	for body, want := range map[string]bool{
		"": true, " \n": true, "{}": true, " { \n} \r\n": true, "{": false, "{}{}": false, "[]": false, "null": false, `{"a":1}`: false, "{}//": false, "\ufeff{}": false, "\x00": false, "{} x": false,
	} {
		if holdsNothing([]byte(body)) != want {
			t.Errorf("%q", body)
		}
	}
}

// Ordinary request lines cost nothing to look at.
func TestCheckLineAllocates(t *testing.T) {
	e := adminEngine(t)
	for _, line := range ordinaryLines {
		m, call := lineCall(t, line)
		if n := testing.AllocsPerRun(100, func() {
			if err := e.checkLine(context.Background(), m, call); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

var ordinaryLines = []string{"POST /_bulk", "POST /user/_bulk?filter_path=items.*.error&refresh=false", "POST /user/_search?typed_keys=true&ignore_unavailable=true&request_cache=true", "PUT /user/_doc/bmFtZQ==?routing=1"}

func lineCall(t testing.TB, line string) (*matched, *Call) {
	method, target, _ := strings.Cut(line, " ")
	path, query, _ := strings.Cut(target, "?")
	m, fault := findRoute(method, path)
	if fault != nil {
		t.Fatal(fault)
	}
	return m, &Call{Method: method, Path: path, Query: query}
}

func BenchmarkCheckLine(b *testing.B) {
	e := adminEngine(b)
	for _, line := range ordinaryLines {
		m, call := lineCall(b, line)
		b.Run(strings.Fields(m.method + " " + m.api)[1], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := e.checkLine(context.Background(), m, call); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzCheckMembers(f *testing.F) {
	f.Add([]byte(`{"a":{"card":1},"password":[{"b":"card:x"}]}`))
	f.Add([]byte(`[{"docs":[1,{"x":{}}]}]`))
	f.Fuzz(func(t *testing.T, body []byte) {
		if strictJSON(body) != nil {
			return
		}
		e := adminEngine(t)
		for _, documented := range [][]string{nil, {"password"}, {"*"}} {
			err := checkMembers(e.Policy.Rules, documented, body)
			root, _ := strictTree(body)
			g := newGuard(e.Policy.Rules, body)
			// What stands at a protected path from the root on is found however it is written.
			if err == nil && documented == nil && g.documentNames(&root, "") != nil && g.heldAt(&root, nil, nil, true) != nil {
				t.Errorf("%q passes", body)
			}
		}
		if err := checkMget(e.Policy.Rules, body); err != nil {
			_ = asFault(err)
		}
	})
}

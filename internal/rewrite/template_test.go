package rewrite

import (
	"strings"
	"testing"
)

// storedReply is what GET _scripts/{id} answers.
func storedReply(lang, source string) string {
	quoted := string(appendJSONString(nil, source))
	return `{"_id":"x","found":true,"script":{"lang":"` + lang + `","source":` + quoted + `,"options":{"content_type":"application/json;charset=utf-8"}}}`
}

// templateCaller knows some stored scripts.
func templateCaller() *fakeCaller {
	return &fakeCaller{answers: map[string]string{
		"GET /_scripts/title":    storedReply("mustache", `{"query":{"match":{"title":"{{q}}"}},"size":"{{size}}{{^size}}10{{/size}}"}`),
		"GET /_scripts/field":    storedReply("mustache", `{"query":{"match":{"{{f}}":"{{q}}"}}}`),
		"GET /_scripts/partial":  storedReply("mustache", `{"query":{{> other}}}`),
		"GET /_scripts/a%2Fb":    storedReply("mustache", `{"query":{"match_all":{}}}`),
		"GET /_scripts/painless": storedReply("painless", `doc['n'].value * params.factor`),
		"GET /_scripts/reads":    storedReply("painless", `doc['card'].value == params.v`),
	}}
}

func TestSearchTemplates(t *testing.T) {
	e, _ := planEngine(t)
	const title = `"{\"query\":{\"match\":{\"title\":\"{{q}}\"}},\"size\":{{size}}}"`
	for _, c := range []struct{ line, body, refused string }{
		{"POST /user/_search/template", `{"source":` + title + `,"params":{"q":"4111","size":10}}`, ""},
		{"GET /user/_search/template", `{"source":{"query":{"match":{"title":"{{q}}"}},"size":"{{size}}"},"params":{"q":"4111","size":10},"explain":true}`, ""},
		{"POST /user/_search/template", `{"id":"title","params":{"q":"4111"}}`, ""},
		{"POST /user/_search/template", `{"id":"a/b"}`, ""},
		{"POST /user/_search/template", `{"id":"not there","params":{"q":"4111"}}`, ""},
		{"POST /user/_search/template", `{"source":"{\"query\":{\"bool\":{\"filter\":[{{#l}}{\"term\":{\"tag\":\"{{.}}\"}},{{/l}}{\"exists\":{\"field\":\"card\"}}]}},\"_source\":{{#toJson}}s{{/toJson}}}","params":{"l":["a","b"],"s":["title","card"]}}`, ""},
		{"POST /plain/_search/template", `{"source":{"query":{"match":{"card":"{{q}}"}}},"params":{"q":"4111"}}`, ""},
		{"POST /plain/_search/template", `{"source":"{{> p}}","params":{"card":"4111"}}`, ""},
		{"POST /user/_search/template", `{"source":{"query":{"match":{"card":"{{q}}"}}},"params":{"q":"4111"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":{"query":{"match":{"{{f}}":"{{q}}"}}},"params":{"q":"4111","f":"card"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":{"query":{"match":{"{{f}}":"{{q}}"}}},"params":{"q":"4111","f":"title"}}`, ""},
		{"POST /user/_search/template", `{"source":{"query":{"match":{"ca{{f}}":"{{q}}"}}},"params":{"q":"4111","f":"rd"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":"{\"query\":{{#toJson}}c{{/toJson}}}","params":{"c":{"term":{"card":"4111"}}}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":"{\"query\":{{{c}}}}","params":{"c":"{\"term\":{\"card\":\"4111\"}}"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":"{\"query\":{\"match\":{\"title\":\"{{{c}}}\"}}}","params":{"c":"x\"}},\"post_filter\":{\"term\":{\"card\":\"4111"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":"{{=<% %>=}}{\"query\":{\"term\":{\"<%f%>\":\"<%q%>\"}}}","params":{"f":"card","q":"4111"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":{"query":{"match":{"title":"x"}}},"params":{"card":"4111"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":{"query":{"match":{"title":"x"}}},"params":{"card":null}}`, ""},
		{"POST /user/_search/template", `{"source":"{\"query\":{\"match_all\":{}}{{#never}},\"post_filter\":{\"term\":{\"card\":\"4111\"}}{{/never}}}"}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"source":"{ {{#never}}\"card\":\"4111\"{{/never}} {{{rest}}} }","params":{"rest":"\"query\":{\"match_all\":{}}"}}`, "esproxy_template_refused"},
		{"POST /user/_search/template", `{"id":"field","params":{"f":"card","q":"4111"}}`, "esproxy_protected_query"},
		{"POST /user/_search/template", `{"id":"partial"}`, "esproxy_template_refused"},
		{"POST /user/_search/template", `{"id":"reads","params":{"v":"4111"}}`, "esproxy_template_refused"},
		{"POST /user/_search/template", `{"source":"{{> p}}"}`, "esproxy_template_refused"},
		{"POST /user/_search/template", `{"source":"{\"a\":{{q}}","params":{"q":"x"}}`, "esproxy_template_refused"},
		{"POST /user/_search/template", `{"source":"{}","id":"field"}`, "esproxy_bad_request"},
		{"POST /user/_search/template", `{"source":"{}","template":"{}"}`, "esproxy_bad_request"},
		{"POST /user/_search/template", `{"source":"{}","query":{"term":{"card":"4111"}}}`, "esproxy_bad_request"},
		{"POST /user/_search/template", `{"source":"{}"`, "esproxy_bad_request"},
		{"POST /user/_search/template?q=card:4111", `{"source":"{}"}`, "esproxy_protected_query"},
		{"POST /_search/template", `{"source":{"query":{"match":{"card":"{{q}}"}}},"params":{"q":"4111"}}`, "esproxy_protected_query"},
		{"POST /alias/_search/template", `{"source":{"query":{"match":{"card":"{{q}}"}}},"params":{"q":"4111"}}`, "esproxy_protected_query"},
		{"POST /_render/template", `{"source":` + title + `,"params":{"q":"4111","size":10}}`, ""},
		{"POST /_render/template", `{"source":{"query":{"match":{"card":"{{q}}"}}},"params":{"q":"4111"}}`, "esproxy_protected_query"},
		{"GET /_render/template/field", `{"params":{"f":"title","q":"4111"}}`, ""},
		{"GET /_render/template/field", `{"params":{"f":"card","q":"4111"}}`, "esproxy_protected_query"},
		{"GET /_render/template/field", `{"params":{"f":"card","q":"4111"},"source":"{}"}`, "esproxy_bad_request"},
		{"POST /_msearch/template", "{\"index\":\"user\"}\n" + `{"id":"title","params":{"q":"4111"}}` + "\n{\"index\":\"plain\"}\n" + `{"source":{"query":{"term":{"card":"4111"}}}}` + "\n", ""},
		{"POST /user/_msearch/template", "{}\n" + `{"id":"field","params":{"f":"card","q":"4111"}}` + "\n", "esproxy_protected_query"},
		{"POST /plain/_msearch/template", "{\"index\":\"user\"}\n" + `{"source":{"query":{"term":{"card":"4111"}}}}` + "\n", "esproxy_protected_query"},
	} {
		up, fault := carry(t, e, c.line, jsonType, c.body, templateCaller())
		switch {
		case c.refused == "":
			if fault != nil || up != c.body {
				t.Errorf("%s %s: %v, %q", c.line, c.body, fault, up)
			}
		case fault == nil || fault.Type != c.refused || up != "":
			t.Errorf("%s %s: %v, want %s", c.line, c.body, fault, c.refused)
		case strings.Contains(fault.Reason, "4111"):
			t.Errorf("%s: the reason holds a value", c.line)
		}
	}
	caller := templateCaller()
	caller.status = 403
	if _, fault := carry(t, e, "POST /user/_search/template", jsonType, `{"id":"title"}`, caller); fault == nil || fault.Type != "esproxy_lookup_failed" {
		t.Errorf("a template that cannot be read: %v", fault)
	}
}

func TestStoredScripts(t *testing.T) {
	e, _ := planEngine(t)
	for _, c := range []struct{ line, body, refused string }{
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":{"query":{"match":{"title":"{{q}}"}},"size":"{{size}}"}}}`, ""},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"{\"query\":{\"match\":{\"title\":\"{{q}}\"}},\"size\":{{size}}{{^size}}10{{/size}},\"_source\":[\"card\"]}"}}`, ""},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"{\"query\":{\"terms\":{\"tag\":[{{#l}}\"{{.}}\"{{^last}},{{/last}}{{/l}}]}}}"}}`, ""},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"Dear {{name}}, the watch {{ctx.watch_id}} fired"}}`, ""},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"{\"query\":{{#toJson}}clause{{/toJson}}}","options":{"content_type":"application/json"}}}`, ""},
		{"POST /_scripts/a/score", `{"script":{"lang":"painless","source":"doc['n'].value * 1000"}}`, ""},
		{"PUT /_scripts/a", `{"script":{"lang":"painless","source":"doc['card'].size() == 0 ? 0 : 1"}}`, ""},
		{"PUT /_scripts/a", `{"script":{"lang":"painless","source":"doc['card'].value == '4111'"}}`, "esproxy_protected_query"},
		{"PUT /_scripts/a/update", `{"script":{"lang":"painless","source":"ctx._source.card = '4111'"}}`, "esproxy_protected_query"},
		{"PUT /_scripts/a", `{"script":{"lang":"painless","source":"doc['n'].value","params":{"card":"4111"}}}`, "esproxy_protected_query"},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":{"query":{"term":{"card":"4111"}}}}}`, "esproxy_protected_query"},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"{\"query\":{\"match_all\":{}}{{#x}},\"post_filter\":{\"term\":{\"key\":\"4111\"}}{{/x}}}"}}`, "esproxy_protected_query"},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"{ {{{a}}} \"card\":\"4111\"}"}}`, "esproxy_template_refused"},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"{ {{{a}}} \"\\u0063ard\":\"4111\"}"}}`, "esproxy_template_refused"},
		{"PUT /_scripts/a", `{"script":{"lang":"mustache","source":"{{> b}}"}}`, "esproxy_template_refused"},
		{"PUT /_scripts/a", `{"card":"4111","script":{"lang":"mustache","source":"{}"}}`, "esproxy_protected_query"},
	} {
		up, fault := carry(t, e, c.line, jsonType, c.body, templateCaller())
		if c.refused == "" && (fault != nil || up != c.body) || c.refused != "" && (fault == nil || fault.Type != c.refused) {
			t.Errorf("%s %s: %v, %q", c.line, c.body, fault, up)
		}
	}
}

// A stored script with params is judged with its source.
func TestStoredScriptsInSearches(t *testing.T) {
	e, _ := planEngine(t)
	search := func(script string) string {
		return `{"query":{"script_score":{"query":{"match_all":{}},"script":` + script + `}}}`
	}
	for _, c := range []struct{ line, body, refused string }{
		{"POST /user/_search", search(`{"id":"painless","params":{"factor":2}}`), ""},
		{"POST /user/_search", search(`{"id":"reads"}`), ""},
		{"POST /user/_search", search(`{"id":"not there","params":{"a":1}}`), ""},
		{"POST /plain/_search", search(`{"id":"reads","params":{"v":"4111"}}`), ""},
		{"POST /user/_search", search(`{"id":"reads","params":{"v":"4111"}}`), "esproxy_protected_query"},
		{"POST /user/_search", search(`{"id":"painless","params":{"factor":2,"card":"4111"}}`), "esproxy_protected_query"},
		{"POST /user/_search", search(`{"source":"1","params":{"a":{"card":"4111"}}}`), ""},
		{"POST /user/_search", search(`{"source":"1","params":{"pay":{"iban":"4111"}}}`), "esproxy_protected_query"},
		{"PUT /_ingest/pipeline/p", `{"processors":[{"script":{"id":"painless","params":{"factor":2}}}]}`, ""},
		{"PUT /_ingest/pipeline/p", `{"processors":[{"script":{"id":"reads","params":{"v":"4111"}}}]}`, "esproxy_pipeline_refused"},
		{"PUT /_ingest/pipeline/p", `{"processors":[{"script":{"id":"not there","params":{"v":"4111"}}}]}`, "esproxy_pipeline_refused"},
		{"PUT /_watcher/watch/w", `{"input":{"search":{"request":{"indices":["user"],"template":{"id":"field","params":{"f":"title","q":"{{ctx.payload.q}}"}}}}}}`, ""},
		{"PUT /_watcher/watch/w", `{"input":{"search":{"request":{"indices":["user"],"template":{"id":"field","params":{"f":"card","q":"4111"}}}}}}`, "esproxy_protected_query"},
	} {
		up, fault := carry(t, e, c.line, jsonType, c.body, templateCaller())
		if c.refused == "" && (fault != nil || up != c.body) || c.refused != "" && (fault == nil || fault.Type != c.refused) {
			t.Errorf("%s %s: %v, %q", c.line, c.body, fault, up)
		}
	}
	caller := templateCaller()
	caller.status = 403
	if _, fault := carry(t, e, "POST /user/_search", jsonType, search(`{"id":"painless","params":{"factor":2}}`), caller); fault == nil || fault.Type != "esproxy_lookup_failed" {
		t.Errorf("a script that cannot be read: %v", fault)
	}
}

// Templates inside of other bodies: those of phrase suggesters and of roles.
func TestTemplatesInside(t *testing.T) {
	e, _ := planEngine(t)
	collate := func(members string) string {
		return `{"suggest":{"text":"4111","s":{"phrase":{"field":"title","collate":{` + members + `,"prune":true}}}}}`
	}
	role := func(template string) string {
		return `{"indices":[{"names":["user"],"privileges":["read"],"query":{"template":` + template + `}}]}`
	}
	const search, put = "POST /user/_search", "PUT /_security/role/r"
	judgeAll(t, e, templateCaller, []judged{
		{search, collate(`"query":{"source":{"match":{"{{field_name}}":"{{suggestion}}"}}},"params":{"field_name":"title"}`), "", ""},
		{search, collate(`"query":{"source":"{\"match\":{\"{{f}}\":\"{{suggestion}}\"}}"},"params":{"f":"title","other":"4111"}`), "", ""},
		{search, collate(`"query":"{\"match\":{\"title\":\"{{suggestion}}\"}}"`), "", ""},
		{search, collate(`"query":{"source":{"match":{"{{f}}":"{{v}}"}}},"params":{"f":"card","v":"4111"}`), "esproxy_protected_query", ""},
		{search, collate(`"query":{"source":{"match":{"{{f}}":"{{v}}"}},"params":{"f":"card","v":"4111"}}`), "esproxy_protected_query", ""},
		{search, collate(`"query":"{\"match\":{\"{{f}}\":\"{{v}}\"}}","params":{"f":"card","v":"4111"}`), "esproxy_protected_query", ""},
		{search, collate(`"query":"{\"match\":{\"\\u0063ard\":\"4111\"}}"`), "esproxy_protected_query", ""},
		{search, collate(`"query":{"id":"field"},"params":{"f":"card","q":"4111"}`), "esproxy_protected_query", ""},
		{search, collate(`"query":{"id":"field"},"params":{"f":"title","q":"4111"}`), "", ""},
		{search, collate(`"query":{"source":{"match":{"title":"x"}}},"params":{"card":"4111"}`), "esproxy_protected_query", ""},
		{put, role(`{"source":"{\"term\":{\"owner\":\"{{_user.username}}\"}}"}`), "", ""},
		{put, role(`{"source":"{\"terms\":{\"group\":{{#toJson}}_user.roles{{/toJson}}}}","params":{"x":"4111"}}`), "", ""},
		{put, role(`{"source":{"term":{"owner":"{{_user.metadata.id}}"}}}`), "", ""},
		{put, role(`{"id":"field"}`), "", ""},
		{put, role(`{"source":{"term":{"card":"4111"}}}`), "esproxy_protected_query", ""},
		{put, role(`{"source":"{\"term\":{\"\\u0063ard\":\"4111\"}}"}`), "esproxy_protected_query", ""},
		{put, role(`{"source":"{\"term\":{\"{{f}}\":\"{{v}}\"}}","params":{"f":"card","v":"4111"}}`), "esproxy_protected_query", ""},
		{put, role(`{"id":"field","params":{"f":"card","q":"4111"}}`), "esproxy_protected_query", ""},
		{put, role(`{"source":"{{> p}}"}`), "esproxy_template_refused", ""},
	})
}

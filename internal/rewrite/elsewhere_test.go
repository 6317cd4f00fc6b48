package rewrite

import (
	"strings"
	"testing"
)

// A body may name another index than the path, and bring a value for it.
func TestValuesForAnotherIndex(t *testing.T) {
	e, _ := planEngine(t)
	like := func(index string) string {
		return `{"query":{"bool":{"must":{"more_like_this":{"fields":["city"],"like":[{"_index":"` + index + `","doc":{"city":"x","card":"4111"}}]}}}}}`
	}
	for _, request := range []string{"POST /plain/_search", "POST /plain/_count", "POST /plain/_delete_by_query", "POST /plain/_update_by_query", "POST /plain/_validate/query",
		"POST /plain/_explain/1", "POST /plain/_async_search", "POST /plain/_search/template", "POST /plain/_rank_eval"} {
		body := func(index string) string {
			switch request {
			case "POST /plain/_search/template":
				return `{"source":` + like(index) + `}`
			case "POST /plain/_rank_eval":
				return `{"requests":[{"id":"a","request":` + like(index) + `,"ratings":[]}]}`
			}
			return like(index)
		}
		if up, fault := carry(t, e, request, jsonType, body("user"), &fakeCaller{}); fault == nil || fault.Type != "esproxy_protected_query" {
			t.Errorf("%s: %v, %s", request, fault, up)
		}
		if up, fault := carry(t, e, request, jsonType, body("plain"), &fakeCaller{}); fault != nil || up != body("plain") {
			t.Errorf("%s: %v, %s", request, fault, up)
		}
	}
	for _, c := range [][2]string{
		{"POST /plain/_search", `{"query":{"more\u005flike_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}}`},
		{"POST /plain/_search", `{"query":{"wrapper":{"query":"eyJtb3JlX2xpa2VfdGhpcyI6eyJsaWtlIjp7Il9pbmRleCI6InVzZXIiLCJkb2MiOnsiY2FyZCI6IjQxMTEifX19fQ=="}}}`},
		{"POST /_msearch", `{"index":"plain"}` + "\n" + like("user") + "\n"},
		{"PUT /plain/_alias/shown", `{"filter":{"more_like_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}}`},
		{"POST /_aliases", `{"actions":[{"add":{"index":"plain","alias":"shown","filter":{"more_like_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}}}]}`},
		{"PUT /plain-9", `{"aliases":{"shown":{"filter":{"more_like_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}}}}`},
		{"POST /plain/_clone/plain-9", `{"aliases":{"shown":{"filter":{"more_like_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}}}}`},
		{"POST /plain/_termvectors", `{"_index":"user","doc":{"card":"4111"}}`},
		{"PUT /_transform/t", `{"source":{"index":"plain","query":{"more_like_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}},"dest":{"index":"plain-2"},"latest":{"unique_key":["a"],"sort":"b"}}`},
		{"PUT /_watcher/watch/w", `{"input":{"search":{"request":{"indices":["plain"],"body":{"query":{"more_like_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}}}}}}`},
		// Values where no value belongs.
		{"POST /user/_search", `{"query":{"exists":{"card":"4111"}}}`},
		{"POST /user/_search", `{"query":{"ids":{"values":["1"],"card":"4111"}}}`},
		{"POST /user/_search", `{"query":{"rank_feature":{"field":"card","saturation":{"pivot":4111}}}}`},
		{"POST /user/_search", `{"params":{"card":"4111"}}`},
		{"POST /user/_search", `{"slice":{"id":0,"max":2,"card":"4111"}}`},
	} {
		if up, fault := carry(t, e, c[0], jsonType, c[1], &fakeCaller{}); fault == nil || fault.Type != "esproxy_protected_query" {
			t.Errorf("%s %s: %v, %s", c[0], c[1], fault, up)
		}
	}
	for _, c := range [][3]string{
		{"POST /plain/_search", `{"query":{"match":{"card":"\u0034111"}}}`, "application/json"},
		{"POST /plain/_search", "query:\n  term:\n    card: 4111\n", "application/yaml"},
		{"POST /plain/_search", `{"query":{"more_like_this":{"like":"4111","fields":["card"]}}, "x":1, "x":2}`, "application/json"},
		{"POST /user/_search", `{"query":{"exists":{"field":"card"}},"pit":{"id":"x"},"slice":{"id":0,"max":2}}`, "application/json"},
		{"POST /plain/_termvectors", `{"doc":{"card":"4111"}}`, "application/json"},
	} {
		if up, fault := carry(t, e, c[0], c[2], c[1], &fakeCaller{}); fault != nil || up != c[1] {
			t.Errorf("%s %s: %v, %s", c[0], c[1], fault, up)
		}
	}
}

// A long search of unprotected indices is not held: it may be longer than a document.
func TestLongSearches(t *testing.T) {
	e, _ := planEngine(t)
	e.Limits.MaxDocument = 100 << 10
	like := `{"more_like_this":{"like":{"_index":"user","doc":{"card":"4111"}}}}`
	filler := `{"term":{"city":"` + strings.Repeat(`caf\u00e9 \u003c `, 20_000) + `"}}`
	for _, c := range [][2]string{
		{`{"query":{"bool":{"should":[` + filler + `]}}}`, ""},
		{`{"query":{"bool":{"should":[` + filler + `,` + like + `]}}}`, "esproxy_document_too_large"},
		{`{"query":{"bool":{"should":[` + like + `,` + filler + `]}}}`, "esproxy_document_too_large"},
		{`{"query":{"bool":{"should":[` + like + `,` + filler[:17*4800] + `"}}]}}}`, "esproxy_protected_query"},
		{`{"query":{"bool":{"should":[` + filler[:17*3600] + `"}},` + like + `]}}}`, "esproxy_protected_query"},
	} {
		up, fault := carry(t, e, "POST /plain/_search", jsonType, c[0], &fakeCaller{})
		if c[1] == "" && (fault != nil || up != c[0]) || c[1] != "" && (fault == nil || fault.Type != c[1] || strings.Contains(up, "4111")) {
			t.Errorf("%.60s: %v, %d bytes", c[0], fault, len(up))
		}
	}
	// Wherever the word stands, it is found.
	for at := firstLook - 40; at < firstLook+20; at++ {
		body := `{"query":{"bool":{"should":[{"term":{"city":"` + strings.Repeat("x", at-50) + `"}},` + like + `]}}}`
		if up, fault := carry(t, e, "POST /plain/_search", jsonType, body, &fakeCaller{}); fault == nil || strings.Contains(up, "4111") {
			t.Fatalf("%d: %d bytes went up", at, len(up))
		}
	}
}

// All of a reindex's source is a search, and its script names fields of the source and chooses the index that is written to.
func TestReindexBodies(t *testing.T) {
	e, _ := planEngine(t)
	script := func(s string) string {
		return `{"source":{"index":"plain"},"dest":{"index":"plain-2"},"script":{"source":"` + s + `"}}`
	}
	for body, want := range map[string]string{
		`{"source":{"index":"user","post_filter":{"term":{"card":"4111"}}},"dest":{"index":"plain"}}`:                                 "esproxy_protected_query",
		`{"source":{"index":"user","aggs":{"a":{"filter":{"term":{"card":"4111"}}}}},"dest":{"index":"plain"}}`:                       "esproxy_protected_query",
		`{"source":{"index":["user"],"suggest":{"text":"4111","s":{"term":{"field":"card"}}}},"dest":{"index":"plain"}}`:              "esproxy_protected_query",
		`{"source":{"index":"user"},"dest":{"index":"plain"},"script":{"source":"if (ctx._source.card == '4111') ctx.op='noop'"}}`:    "esproxy_protected_query",
		`{"source":{"index":"user"},"dest":{"index":"plain"},"script":{"source":"ctx._source.card == params.x","params":{"x":4111}}}`: "esproxy_protected_query",
		`{"source":{"index":"user","query":{"term":{"card":"4111"}}}}`:                                                                "esproxy_protected_query",
		script(`ctx._index='user'`):                            "esproxy_script_refused",
		script(`ctx._index = \"user\"; ctx._id='1'`):           "esproxy_script_refused",
		script(`ctx['_index']='user-' + ctx._source.day`):      "esproxy_script_refused",
		script(`ctx?._index='user'`):                           "esproxy_script_refused",
		script(`ctx._index = 'use' + 'r'`):                     "esproxy_script_refused",
		script(`ctx._index = 'x' == 'y' ? 'z' : 'user'`):       "esproxy_script_refused",
		script(`ctx._index = 'x' + ';' == 'y' ? 'z' : 'user'`): "esproxy_script_refused",
		script(`ctx._index = 'x'.replace('x','user')`):         "esproxy_script_refused",
		script(`ctx._index += 'r'`):                            "esproxy_script_refused",
		script(`ctx._index = ctx._source.index`):               "esproxy_script_refused",
		script(`def c = ctx; c['_in'+'dex']='user'`):           "esproxy_script_refused",
		script(`ctx['_in'+'dex']='user'`):                      "esproxy_script_refused",
		script(`ctx['_index'+'']='user'`):                      "esproxy_script_refused",
		script(`ctx.put('_index','user')`):                     "esproxy_script_refused",
		script(`ctx /* */ ._index='user'`):                     "esproxy_script_refused",
		script(`metadata().index='user'`):                      "esproxy_script_refused",
		script(`def m = metadata(); m.setIndex('user')`):       "esproxy_script_refused",
		script(`f(ctx)`):                                       "esproxy_script_refused",
		script(`ctx`):                                          "esproxy_script_refused",
		script(`ctx._index = 'plain-' + (ctx._index.substring('plain-'.length(), ctx._index.length())) + '-1'`):             "",
		script(`ctx._index = 'plain-3'; ctx._id = ctx._index + '1'`):                                                        "",
		script(`if (ctx._index == 'user') { ctx._index = 'plain' }`):                                                        "",
		script(`ctx._source.tag = ctx._source.remove('flag'); ctx.op = 'noop'; ctx._routing = 'x'`):                         "",
		`{"source":{"index":"user"},"dest":{"index":"plain"},"script":{"source":"ctx._source.remove('card')"}}`:             "",
		`{"source":{"index":"user","size":100,"_source":["card","city"],"sort":"card"},"dest":{"index":"plain"}}`:           "",
		`{"source":{"remote":{"host":"http://x:9200","username":"u"},"index":"far"},"dest":{"index":"plain"},"max_docs":1}`: "",
	} {
		up, fault := carry(t, e, "POST /_reindex", jsonType, body, &fakeCaller{})
		if want == "" && (fault != nil || up != body) || want != "" && (fault == nil || fault.Type != want) {
			t.Errorf("%s: %v, %s", body, fault, up)
		}
	}
	up, fault := carry(t, e, "PUT /_ingest/pipeline/p", jsonType, `{"processors":[{"script":{"source":"metadata().index = 'user'"}}]}`, &fakeCaller{})
	if fault == nil || fault.Type != "esproxy_pipeline_refused" {
		t.Errorf("%v, %s", fault, up)
	}
}

package rewrite

import (
	"strings"
	"testing"
)

// judge is one request: a body, and the type of the refusal or what goes up ("" for the same body).
type judged struct{ line, body, refused, up string }

func judgeAll(t *testing.T, e *Engine, caller func() *fakeCaller, cases []judged) {
	t.Helper()
	for _, c := range cases {
		up, fault := carry(t, e, c.line, jsonType, c.body, caller())
		switch {
		case c.refused != "":
			if fault == nil || fault.Type != c.refused || up != "" {
				t.Errorf("%s %s: %v, want %s", c.line, c.body, fault, c.refused)
			} else if strings.Contains(fault.Reason, "4111") {
				t.Errorf("%s: the reason holds a value", c.line)
			}
		case fault != nil:
			t.Errorf("%s %s: %v", c.line, c.body, fault)
		case c.up == "" && up != c.body, c.up != "" && !strings.Contains(up, c.up):
			t.Errorf("%s %s: %s goes up", c.line, c.body, up)
		}
	}
}

func TestExecute(t *testing.T) {
	e, _ := planEngine(t)
	const line = "POST /_scripts/painless/_execute"
	token := fakeToken("users", "card", "ana", `"4111"`)
	judgeAll(t, e, templateCaller, []judged{
		{line, `{"script":{"source":"params.count / params.total","params":{"count":100.0,"total":1000.0}}}`, "", ""},
		{line, `{"script":{"source":"doc['n'].value > params.least","params":{"least":3}},"context":"filter","context_setup":{"index":"user","document":{"n":4},"query":{"match_all":{}}}}`, "", ""},
		{line, `{"script":{"source":"doc['card'].size()"},"context":"score","context_setup":{"index":"user","document":{"username":"ana","card":"4111"}}}`, "", `{"username":"ana","card":"` + token + `"}`},
		{line, `{"script":"1","context_setup":{"index":"alias","document":{"username":"ana","card":"4111"}}}`, "", `"card":"` + token + `"`},
		{line, `{"script":"1","context_setup":{"index":"plain","document":{"card":"4111"}}}`, "", ""},
		{line, `{"script":"1","context_setup":{"index":"user","document":{"card":"4111"}}}`, "esproxy_subject", ""},
		{line, `{"script":"1","context_setup":{"index":"user","document":{"username":"ana","card.":"4111"}}}`, "esproxy_bad_document", ""},
		{line, `{"script":"1","context_setup":{"index":"far:user","document":{"username":"ana","card":"4111"}}}`, "esproxy_bad_request", ""},
		{line, `{"script":"1","context_setup":{"document":{"card":"4111"}}}`, "esproxy_bad_request", ""},
		{line, `{"script":"1","context_setup":{"index":null,"document":{"card":"4111"}}}`, "esproxy_bad_request", ""},
		{line, `{"script":{"source":"1","params":{"card":"4111"}}}`, "esproxy_protected_query", ""},
		{line, `{"script":{"source":"doc['card'].value == '4111'"},"context":"filter","context_setup":{"index":"user","document":{}}}`, "esproxy_protected_query", ""},
		{line, `{"script":{"id":"reads","params":{"v":"4111"}}}`, "esproxy_protected_query", ""},
		{line, `{"script":"1","context_setup":{"index":"user","query":{"term":{"card":"4111"}}}}`, "esproxy_protected_query", ""},
		{line, `{"script":"1","card":"4111"}`, "esproxy_protected_query", ""},
		{line, `{"script":"1","context_setup":{"index":"user","card":"4111"}}`, "esproxy_protected_query", ""},
	})
}

func TestRankEval(t *testing.T) {
	e, _ := planEngine(t)
	const rated = `"ratings":[{"_index":"user","_id":"1","rating":3}]`
	judgeAll(t, e, templateCaller, []judged{
		{"POST /user/_rank_eval", `{"requests":[{"id":"a","request":{"query":{"match":{"title":"4111"}}},` + rated + `,"summary_fields":["card"]}],"metric":{"precision":{"k":20,"relevant_rating_threshold":1}}}`, "", ""},
		{"GET /user/_rank_eval", `{"requests":[{"id":"a","template_id":"t","params":{"q":"4111"},"ratings":[]}],"templates":[{"id":"t","template":{"source":"{\"query\":{\"match\":{\"title\":\"{{q}}\"}}}"}}],"metric":{"dcg":{}}}`, "", ""},
		{"POST /user/_rank_eval", `{"requests":[{"id":"a","template_id":"t","params":{"q":"4111"},"ratings":[]}],"templates":[{"id":"t","template":{"id":"title"}}]}`, "", ""},
		{"POST /plain/_rank_eval", `{"requests":[{"id":"a","request":{"query":{"match":{"card":"4111"}}},"ratings":[]}]}`, "", ""},
		{"POST /_rank_eval", `{"requests":[{"id":"a","request":{"query":{"match":{"card":"4111"}}},"ratings":[]}]}`, "esproxy_protected_query", ""},
		{"POST /user/_rank_eval", `{"requests":[{"id":"a","template_id":"t","params":{"q":"4111","f":"card"},"ratings":[]}],"templates":[{"id":"t","template":{"id":"field"}}]}`, "esproxy_protected_query", ""},
		{"POST /user/_rank_eval", `{"requests":[{"id":"a","template_id":"t","params":{"q":"4111","f":"card"},"ratings":[]}],"templates":[{"id":"t","template":{"inline":{"query":{"match":{"{{f}}":"{{q}}"}}}}}]}`, "esproxy_protected_query", ""},
		{"POST /user/_rank_eval", `{"requests":[],"templates":[{"id":"t","template":{"source":{"query":{"match":{"card":"4111"}}}}}]}`, "esproxy_protected_query", ""},
		{"POST /user/_rank_eval", `{"requests":[{"id":"a","params":{"card":"4111"},"ratings":[]}]}`, "esproxy_protected_query", ""},
		{"POST /user/_rank_eval", `{"requests":[{"id":"a","ratings":[{"_id":"1","card":"4111"}]}]}`, "esproxy_protected_query", ""},
		{"POST /user/_rank_eval", `{"requests":[],"card":"4111"}`, "esproxy_protected_query", ""},
		{"POST /user/_rank_eval", `{"requests":[`, "esproxy_bad_request", ""},
	})
}

func TestSearchApplications(t *testing.T) {
	e, _ := planEngine(t)
	caller := func() *fakeCaller {
		c := templateCaller()
		c.answers["GET /_application/search_application/app"] = `{"name":"app","indices":["user"],"template":{"script":{"source":{"query":{"match":{"{{f}}":"{{q}}"}}},"lang":"mustache","params":{"f":"title","q":"*"}}}}`
		c.answers["GET /_application/search_application/text"] = `{"name":"text","indices":["user","plain"],"template":{"script":{"source":"{\"query\":{\"match\":{\"{{f}}\":\"{{q}}\"}}}","lang":"mustache"}}}`
		c.answers["GET /_application/search_application/open"] = `{"name":"open","indices":["plain"],"template":{"script":{"source":"{{> x}}"}}}`
		return c
	}
	const put = "PUT /_application/search_application/app"
	judgeAll(t, e, caller, []judged{
		{put, `{"indices":["user","plain"],"template":{"script":{"source":{"query":{"query_string":{"query":"{{query_string}}","default_field":"{{default_field}}"}}},"params":{"query_string":"*","default_field":"*"}},"dictionary":{"properties":{"query_string":{"type":"string"}}}}}`, "", ""},
		{put, `{"indices":["user"]}`, "", ""},
		{put, `{"indices":["plain"],"template":{"script":{"source":{"query":{"term":{"card":"4111"}}}}}}`, "", ""},
		{put, `{"indices":["user"],"template":{"script":{"source":{"query":{"term":{"card":"4111"}}}}}}`, "esproxy_protected_query", ""},
		{put, `{"indices":["alias"],"template":{"script":{"source":{"query":{"term":{"{{f}}":"{{q}}"}},"params":{}},"params":{"f":"card","q":"4111"}}}}`, "esproxy_protected_query", ""},
		{put, `{"indices":["user"],"template":{"script":{"source":{},"params":{"card":"4111"}}}}`, "esproxy_protected_query", ""},
		{put, `{"indices":["user"],"template":{"script":{"source":{}},"dictionary":{"properties":{"card":{"enum":["4111"]}}}}}`, "esproxy_protected_query", ""},
		{"POST /_application/search_application/app/_search", `{"params":{"q":"4111"}}`, "", ""},
		{"POST /_application/search_application/app/_search", `{"params":{"f":"card","q":"4111"}}`, "esproxy_protected_query", ""},
		{"POST /_application/search_application/app/_render_query", `{"params":{"f":"card","q":"4111"}}`, "esproxy_protected_query", ""},
		{"POST /_application/search_application/text/_search", `{"params":{"f":"card","q":"4111"}}`, "esproxy_protected_query", ""},
		{"POST /_application/search_application/text/_search", `{"params":{"f":"title","q":"4111","card":"4111"}}`, "esproxy_protected_query", ""},
		{"POST /_application/search_application/open/_search", `{"params":{"card":"4111"}}`, "", ""},
		{"GET /_application/search_application/app/_search", ``, "", ""},
	})
}

func TestQueryRulesAndEvents(t *testing.T) {
	e, _ := planEngine(t)
	const rule = `"type":"pinned","actions":{"docs":[{"_index":"user","_id":"1"}]}`
	judgeAll(t, e, templateCaller, []judged{
		{"PUT /_query_rules/r", `{"rules":[{"rule_id":"a","criteria":[{"type":"contains","metadata":"user_query","values":["4111"]}],` + rule + `}]}`, "", ""},
		{"PUT /_query_rules/r/_rule/a", `{"criteria":[{"type":"always"}],` + rule + `,"priority":1}`, "", ""},
		{"POST /_query_rules/r/_test", `{"match_criteria":{"user_query":"4111"}}`, "", ""},
		{"PUT /_query_rules/r", `{"rules":[{"rule_id":"a","criteria":[{"type":"exact","metadata":"card","values":["4111"]}],` + rule + `}]}`, "esproxy_protected_query", ""},
		{"PUT /_query_rules/r", `{"rules":{"rule_id":"a","criteria":{"type":"exact","metadata":"card","values":["4111"]},` + rule + `}}`, "esproxy_protected_query", ""},
		{"PUT /_query_rules/r/_rule/a", `{"criteria":[{"type":"exact","metadata":"card","values":["4111"]}],` + rule + `}`, "esproxy_protected_query", ""},
		{"PUT /_query_rules/r/_rule/a", `{"criteria":[],"card":"4111"}`, "esproxy_protected_query", ""},
		{"POST /_query_rules/r/_test", `{"match_criteria":{"card":"4111"}}`, "esproxy_protected_query", ""},
		{"POST /user/_search", `{"query":{"rule":{"organic":{"match":{"title":"x"}},"ruleset_ids":["r"],"match_criteria":{"user_query":"4111"}}}}`, "", ""},
		{"POST /user/_search", `{"query":{"rule":{"organic":{"match":{"title":"x"}},"ruleset_ids":["r"],"match_criteria":{"card":"4111"}}}}`, "esproxy_protected_query", ""},
		{"POST /user/_search", `{"retriever":{"rule":{"retriever":{"standard":{"query":{"match_all":{}}}},"ruleset_ids":["r"],"match_criteria":{"pay":{"iban":"4111"}}}}}`, "esproxy_protected_query", ""},
		{"POST /_application/analytics/shop/event/search", `{"search":{"query":"4111"}}`, "", ""},
	})
	e.Policy = fakePolicy(t, "version: 1\nrules:\n  - name: all\n    fields:\n      card: {mode: encrypt}\n")
	judgeAll(t, e, templateCaller, []judged{
		{"POST /_application/analytics/shop/event/search", `{"search":{"query":"4111"}}`, "esproxy_refused_endpoint", ""},
	})
}

// Documents and lookups inside of searches.
func TestDocumentsInSearches(t *testing.T) {
	e, _ := planEngine(t)
	search := func(query string) string { return `{"query":` + query + `}` }
	ok, no := "", "esproxy_protected_query"
	var cases []judged
	for _, c := range [][2]string{
		{ok, `{"percolate":{"field":"query","document":{"title":"4111","card":null}}}`},
		{ok, `{"percolate":{"field":"query","index":"user","id":"1","routing":"a"}}`},
		{no, `{"percolate":{"field":"query","document":{"card":"4111"}}}`},
		{no, `{"percolate":{"field":"query","documents":[{"title":"a"},{"pay.iban":"4111"}]}}`},
		{no, `{"percolate":{"field":"query","documents":[{"items":[{"card":"4111"}]}]}}`},
		{no, `{"bool":{"filter":{"nested":{"path":"a","query":{"percolate":{"field":"query","document":{"card.":"4111"}}}}}}}`},
		{ok, `{"more_like_this":{"fields":["title"],"like":["4111",{"_index":"user","_id":"1"},{"doc":{"title":"4111"}}],"unlike":"4111"}}`},
		{ok, `{"more_like_this":{"fields":["title","card"],"like":[{"_index":"user","_id":"1"}]}}`},
		{no, `{"more_like_this":{"fields":["title","card"],"like":"4111"}}`},
		{no, `{"more_like_this":{"fields":["card"],"like":[{"_id":"1"},"4111"]}}`},
		{no, `{"more_like_this":{"like":[{"_index":"user","doc":{"card":"4111"}}]}}`},
		{no, `{"more_like_this":{"fields":["title"],"unlike":{"doc":{"pay":{"iban":"4111"}}}}}`},
		{ok, `{"terms":{"title":{"index":"user","id":"1","path":"card"}}}`},
		{ok, `{"terms":{"title":["4111"],"boost":1}}`},
		{no, `{"terms":{"card":{"index":"plain","id":"1","path":"title"}}}`},
		{no, `{"terms":{"card":["4111"]}}`},
		{ok, `{"geo_shape":{"place":{"indexed_shape":{"index":"shapes","id":"1","path":"shape"},"relation":"within"}}}`},
		{ok, `{"pinned":{"ids":["1"],"organic":{"match":{"title":"4111"}}}}`},
		{ok, `{"pinned":{"docs":[{"_index":"user","_id":"1"}],"organic":{"match":{"title":"4111"}}}}`},
		{no, `{"pinned":{"ids":["1"],"organic":{"match":{"card":"4111"}}}}`},
		{ok, `{"semantic":{"field":"title","query":"4111"}}`},
		{no, `{"semantic":{"field":"card","query":"4111"}}`},
		{ok, `{"intervals":{"title":{"match":{"query":"4111"}}}}`},
		{no, `{"intervals":{"title":{"match":{"query":"4111","use_field":"card"}}}}`},
		{no, `{"intervals":{"card":{"match":{"query":"4111"}}}}`},
		{no, `{"has_child":{"type":"c","query":{"term":{"card":"4111"}}}}`},
		{no, `{"has_parent":{"parent_type":"c","query":{"bool":{"must_not":{"prefix":{"card":"4111"}}}}}}`},
		{ok, `{"kql":{"query":"title: 4111 and card: *"}}`},
		{ok, `{"kql":{"query":"card 4111 > 7"}}`},
		{no, `{"kql":{"query":"title: x or card: 4111"}}`},
		{no, `{"kql":{"query":"card >= 4111"}}`},
		{no, `{"kql":{"query":"\"card\": 4111"}}`},
		{no, `{"kql":{"query":"pay:{ iban: 4111 }"}}`},
		{no, `{"kql":{"query":"4111","default_field":"card"}}`},
	} {
		cases = append(cases, judged{"POST /user/_search", search(c[1]), c[0], ""})
	}
	for _, c := range [][2]string{
		{ok, `{"rrf":{"retrievers":[{"standard":{"query":{"match":{"title":"4111"}}}},{"knn":{"field":"v","query_vector":[1],"k":1,"num_candidates":2}}]}}`},
		{ok, `{"text_similarity_reranker":{"retriever":{"standard":{"query":{"match_all":{}}}},"field":"title","inference_text":"4111"}}`},
		{ok, `{"pinned":{"ids":["1"],"retriever":{"standard":{"query":{"match":{"title":"4111"}}}}}}`},
		{ok, `{"linear":{"query":"4111","fields":["title^2"],"normalizer":"minmax"}}`},
		{ok, `{"rescorer":{"retriever":{"standard":{"query":{"match_all":{}}}},"rescore":{"window_size":9,"query":{"rescore_query":{"match":{"title":"4111"}}}}}}`},
		{no, `{"rrf":{"retrievers":[{"standard":{"query":{"match":{"card":"4111"}}}}]}}`},
		{no, `{"rrf":{"retrievers":[{"standard":{"query":{"match_all":{}},"filter":{"term":{"card":"4111"}}}}]}}`},
		{no, `{"linear":{"retrievers":[{"retriever":{"standard":{"query":{"match":{"card":"4111"}}}},"weight":2}]}}`},
		{no, `{"linear":{"query":"4111","fields":["title","card^2"]}}`},
		{no, `{"text_similarity_reranker":{"retriever":{"standard":{"query":{"match_all":{}}}},"field":"card","inference_text":"4111"}}`},
		{no, `{"pinned":{"ids":["1"],"retriever":{"standard":{"query":{"match":{"card":"4111"}}}}}}`},
		{no, `{"rescorer":{"retriever":{"standard":{"query":{"match_all":{}}}},"rescore":{"query":{"rescore_query":{"match":{"card":"4111"}}}}}}`},
		{no, `{"knn":{"field":"v","k":1,"filter":{"term":{"card":"4111"}}}}`},
		{no, `{"standard":{"query":{"percolate":{"field":"q","document":{"card":"4111"}}}}}`},
	} {
		cases = append(cases, judged{"POST /user/_search", `{"retriever":` + c[1] + `}`, c[0], ""})
	}
	judgeAll(t, e, templateCaller, cases)
}

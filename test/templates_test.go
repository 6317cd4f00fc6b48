package test

import (
	"strings"
	"testing"
)

// openSearchStack is a stack in front of an OpenSearch, which has templates, the percolator and rank evaluation.
func openSearchStack(t *testing.T) *stack {
	t.Helper()
	s := start(t, config{server: needOpenSearch(t)})
	t.Cleanup(func() {
		for _, id := range []string{"title", "field", "score", "reads"} {
			s.direct("DELETE", "/_scripts/"+s.prefix+id, "")
		}
	})
	s.must(s.do("PUT", "/$Puser", `{"mappings":{"properties":{"title":{"type":"text"},"n":{"type":"integer"},"rule":{"type":"percolator"},"payment":{"properties":{"cards":{"properties":{"pan":{"type":"keyword","index":false,"doc_values":false,"ignore_above":2147483647}}}}}}}}`), 200)
	s.must(s.do("PUT", "/$Puser/_doc/1?refresh=true", `{"username":"ana","title":"summer invoice","n":7,"credit_card_num":"4111222233334444"}`), 201)
	s.must(s.do("PUT", "/$Puser/_doc/2?refresh=true", `{"rule":{"match":{"title":"invoice"}}}`), 201)
	return s
}

const (
	openedCard   = "4111222233334444"
	templateLeak = "5999888877776666" // what must not go up
)

// Templates are stored and used through the proxy, and what they find is opened.
func TestTemplatesOnOpenSearch(t *testing.T) {
	s := openSearchStack(t)
	s.must(s.do("PUT", "/_scripts/$Ptitle", `{"script":{"lang":"mustache","source":{"query":{"match":{"title":"{{q}}"}},"size":"{{size}}{{^size}}10{{/size}}"}}}`), 200)
	s.must(s.do("PUT", "/_scripts/$Pfield", `{"script":{"lang":"mustache","source":"{\"query\":{\"match\":{\"{{f}}\":\"{{q}}\"}}}"}}`), 200)
	s.must(s.do("PUT", "/_scripts/$Pscore", `{"script":{"lang":"painless","source":"doc['n'].value * params.factor"}}`), 200)
	s.must(s.do("PUT", "/_scripts/$Preads", `{"script":{"lang":"painless","source":"params._source.credit_card_num == params.v ? 1 : 0"}}`), 200)

	const source = `"_source":{"username":"ana","title":"summer invoice","n":7,"credit_card_num":"` + openedCard + `"}`
	for _, c := range []struct{ method, path, body, want string }{
		{"POST", "/$Puser/_search/template", `{"id":"$Ptitle","params":{"q":"invoice"}}`, source},
		{"GET", "/$Puser/_search/template?typed_keys=true", `{"id":"$Pfield","params":{"f":"title","q":"summer"}}`, source},
		{"POST", "/_search/template", `{"source":{"query":{"bool":{"must":[{"match":{"title":"{{q}}"}},{"term":{"_index":"$Puser"}}]}}},"params":{"q":"summer"}}`, source},
		{"POST", "/$Puser/_search/template", `{"source":"{\"query\":{\"match\":{\"title\":\"{{q}}\"}},\"aggs\":{\"top\":{\"top_hits\":{}}},\"size\":0}","params":{"q":"summer"}}`, source},
		{"POST", "/$Puser/_msearch/template", "{}\n{\"id\":\"$Ptitle\",\"params\":{\"q\":\"summer\"}}\n{}\n{\"id\":\"$Pnot-there\",\"params\":{\"q\":\"summer\"}}\n", source},
		{"POST", "/$Puser/_rank_eval", `{"requests":[{"id":"hits","request":{"query":{"match":{"title":"summer"}}},"ratings":[{"_index":"$Puser","_id":"1","rating":1}],"summary_fields":["title","credit_card_num"]}],"metric":{"precision":{"k":5}}}`, `"credit_card_num":"` + openedCard + `"`},
		{"POST", "/$Puser/_rank_eval", `{"requests":[{"id":"hits","template_id":"t","params":{"q":"summer"},"ratings":[],"summary_fields":["*"]}],"templates":[{"id":"t","template":{"source":{"query":{"match":{"title":"{{q}}"}}}}}],"metric":{"precision":{"k":5}}}`, `"credit_card_num":"` + openedCard + `"`},
		{"POST", "/$Puser/_search", `{"query":{"script_score":{"query":{"match":{"title":"summer"}},"script":{"id":"$Pscore","params":{"factor":3}}}}}`, source},
		{"POST", "/$Puser/_search", `{"query":{"more_like_this":{"fields":["title"],"like":[{"doc":{"title":"summer"}}],"min_term_freq":1,"min_doc_freq":1}}}`, source},
		{"POST", "/$Puser/_search", `{"query":{"terms":{"username.keyword":{"index":"$Puser","id":"1","path":"username"}}}}`, source},
		{"POST", "/$Puser/_search", `{"query":{"percolate":{"field":"rule","document":{"title":"an invoice"}}}}`, `"_id":"2"`},
		{"POST", "/_render/template", `{"id":"$Pfield","params":{"f":"title","q":"a\"b"}}`, `"title":"a\"b"`},
		{"POST", "/_scripts/painless/_execute", `{"script":{"source":"doc['n'].value > params.least","params":{"least":3}},"context":"filter","context_setup":{"index":"$Puser","document":{"username":"ana","n":4,"credit_card_num":"` + templateLeak + `"}}}`, `"result":true`},
		{"POST", "/_scripts/painless/_execute", `{"script":{"source":"params.a + params.b","params":{"a":1,"b":2}}}`, `"result":"3"`},
	} {
		from := s.rec.count()
		a := s.must(s.as("full", c.method, c.path, c.body), 200)
		if !strings.Contains(a.body, strings.ReplaceAll(c.want, "$P", s.prefix)) {
			t.Errorf("%s %s %s: %s", c.method, c.path, c.body, tail(a.body, 1500))
		}
		if leak := s.rec.leaks(from, templateLeak); leak != "" {
			t.Errorf("%s: %s", c.path, leak)
		}
		// Without a grant it is the server's own answer.
		if a := s.must(s.do(c.method, c.path, c.body), 200); strings.Contains(a.body, openedCard) {
			t.Errorf("%s without a grant: %s", c.path, tail(a.body, 1500))
		}
	}
	if a := s.as("full", "POST", "/$Puser/_search/template", `{"id":"$Pnot-there"}`); a.status != 404 {
		t.Errorf("a template that is not there: %d %s", a.status, a.body)
	}
}

// Values for protected fields do not go up, however a template, a script or a document in a search brings them.
func TestTemplatesKeepValues(t *testing.T) {
	s := openSearchStack(t)
	s.must(s.do("PUT", "/_scripts/$Pfield", `{"script":{"lang":"mustache","source":"{\"query\":{\"match\":{\"{{f}}\":\"{{q}}\"}}}"}}`), 200)
	s.must(s.do("PUT", "/_scripts/$Preads", `{"script":{"lang":"painless","source":"params._source.credit_card_num == params.v ? 1 : 0"}}`), 200)
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/$Puser/_search/template", `{"id":"$Pfield","params":{"f":"credit_card_num","q":"LEAK"}}`},
		{"POST", "/_search/template", `{"id":"$Pfield","params":{"f":"credit_card_num","q":"LEAK"}}`},
		{"POST", "/$Puser/_search/template", `{"source":"{\"query\":{{#toJson}}c{{/toJson}}}","params":{"c":{"term":{"credit_card_num":"LEAK"}}}}`},
		{"POST", "/$Puser/_search/template", `{"source":"{\"query\":{\"match\":{\"cre\rdit_card_num\":\"{{q}}\"}}}","params":{"q":"LEAK"}}`},
		{"POST", "/$Puser/_search/template", `{"source":{"query":{"match_all":{}}},"params":{"credit_card_num":"LEAK"}}`},
		{"POST", "/$Puser/_msearch/template", "{}\n{\"id\":\"$Pfield\",\"params\":{\"f\":\"credit_card_num\",\"q\":\"LEAK\"}}\n"},
		{"POST", "/_render/template/$Pfield", `{"params":{"f":"credit_card_num","q":"LEAK"}}`},
		{"PUT", "/_scripts/$Ptitle", `{"script":{"lang":"mustache","source":{"query":{"term":{"credit_card_num":"LEAK"}}}}}`},
		{"PUT", "/_scripts/$Ptitle", `{"script":{"lang":"painless","source":"doc['credit_card_num'].value == 'LEAK'"}}`},
		{"POST", "/$Puser/_rank_eval", `{"requests":[{"id":"a","template_id":"t","params":{"f":"credit_card_num","q":"LEAK"},"ratings":[]}],"templates":[{"id":"t","template":{"id":"$Pfield"}}],"metric":{"precision":{}}}`},
		{"POST", "/$Puser/_search", `{"query":{"script_score":{"query":{"match_all":{}},"script":{"id":"$Preads","params":{"v":"LEAK"}}}}}`},
		{"POST", "/$Puser/_search", `{"query":{"percolate":{"field":"rule","document":{"credit_card_num":"LEAK"}}}}`},
		{"POST", "/$Puser/_search", `{"query":{"more_like_this":{"fields":["title"],"like":[{"doc":{"payment":{"cards":[{"pan":"LEAK"}]}}}]}}}`},
		{"POST", "/_scripts/painless/_execute", `{"script":{"source":"params.x","params":{"x":1,"credit_card_num":"LEAK"}}}`},
		{"POST", "/_scripts/painless/_execute", `{"script":"1","context":"filter","context_setup":{"index":"$Puser","document":{"credit_card_num":"LEAK"}}}`},
	} {
		from := s.rec.count()
		a := s.as("full", c.method, c.path, strings.ReplaceAll(c.body, "LEAK", templateLeak))
		if a.status < 400 || a.status >= 500 || !strings.Contains(a.body, "esproxy_") {
			t.Errorf("%s %s: %d %s", c.path, c.body, a.status, tail(a.body, 800))
		}
		if strings.Contains(a.body, templateLeak) {
			t.Errorf("%s: the refusal holds the value: %s", c.path, a.body)
		}
		if leak := s.rec.leaks(from, templateLeak); leak != "" {
			t.Errorf("%s: %s", c.path, leak)
		}
	}
	if a := s.direct("GET", "/_cluster/state/metadata", ""); strings.Contains(a.body, templateLeak) || !strings.Contains(a.body, s.prefix+"field") {
		t.Error("the cluster's state holds the value, or not the stored template")
	}
}

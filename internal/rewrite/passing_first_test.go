package rewrite

import "testing"

// TestFirst has what the walk over the table (test/walk_test.go) found: bodies and lines in which readers of known members saw no value.
func TestFirst(t *testing.T) {
	e, cluster := planEngine(t)
	cluster.names["alias"] = Resolved{Names: []string{"alias", "user"}}
	for _, c := range []struct{ line, body string }{
		{"GET /_nodes?q=4111&df=card", ""},
		{"DELETE /user/_doc/1?suggest_text=4111&suggest_field=card", ""},
		{"POST /_analyze", `[{"field":"card","text":"4111"}]`},
		{"POST /_mtermvectors", `[{"docs":[{"_index":"user","doc":{"username":"ana","card":"4111"}}]}]`},
		{"POST /_aliases", `[{"actions":[{"add":{"index":"user","alias":"a","filter":{"term":{"card":"4111"}}}}]}]`},
		{"POST /_inference/completion/m", `{"docs":[{"pay":[{"x":1},{"iban":"4111"}]}]}`},
		{"POST /_inference/m/_stream", `{"doc":{"pay":{"iban":"4111"}}}`},
		{"POST /_inference/rerank/m", `{"query":{"term":{"card":"4111"}}}`},
		{"POST /_migration/reindex", `{"source":{"index":"s","query":{"term":{"card":"{{c}}"}}},"params":{"c":"4111"}}`},
		{"POST /user/_downsample/other", `{"card":"4111"}`},
		{"PUT /user/_settings", `{"card":"4111"}`},
		{"PUT /_settings", `{"script":{"source":"ctx._source.card='4111'"}}`},
		{"POST /_snapshot/r/s/_restore", `{"docs":[{"pay.iban.":"4111"}]}`},
		{"PUT /_data_stream/user/_options", `{"docs":[{"pay.":{"iban.":"4111"}}]}`},
		{"POST /_security/_query/user", `{"doc":{"pay":{"iban":"4111"}}}`},
		{"PUT /_security/privilege", `[{"query":{"term":{"card":"4111"}}}]`},
		{"PUT /_security/privilege", `{"query":{"term":{"card":"4111"}}}`},
		{"PUT /_security/role/r", `{"indices":[{"names":["alias"],"privileges":["read"],"query":{"term":{"card":"4111"}}}]}`},
		{"PUT /_security/role/r", `{"indices":[{"names":["/us.*/"],"privileges":["read"],"query":"{\"term\":{\"card\":\"4111\"}}"}]}`},
		{"POST /_security/api_key/grant", `{"grant_type":"password","doc":{"card":"4111"}}`},
		{"PUT /_component_template/c", `{"template":{"mappings":{"_meta":{"card":"4111"}}}}`},
		{"PUT /_component_template/c", `{"template":{"mappings":{"properties":{"pay":{"properties":{"iban":{"type":"keyword","null_value":"4111"}}}}}}}`},
		{"PUT /_component_template/c", `{"template":{"mappings":{"runtime":{"r":{"type":"keyword","script":{"source":"if (doc['card'].value == '4111') emit('x')"}}}}}}`},
	} {
		if up, fault := carry(t, e, c.line, jsonType, c.body, &fakeCaller{}); fault == nil {
			t.Errorf("%s %s: went up as %s", c.line, c.body, up)
		}
	}
	for _, c := range []struct{ line, body string }{
		{"GET /_search?q=ana&df=username", ""},
		{"POST /_inference/rerank/m", `{"query":"which card?","input":["a","card: x"]}`},
		{"POST /plain/_downsample/other", `{"fixed_interval":"1h"}`},
		{"PUT /user/_settings", `{"index":{"number_of_replicas":0},"index.refresh_interval":"5s"}`},
		{"PUT /_security/privilege", `{"app":{"card":{"actions":["read"]}}}`},
		{"PUT /_security/role/r", `{"indices":[{"names":["alias","/us.*/"],"privileges":["read"],"query":{"term":{"username":"ana"}}}]}`},
		{"POST /_security/_query/user", `{"query":{"term":{"username":"ana"}}}`},
		{"PUT /_component_template/c", `{"template":{"mappings":{"_meta":{"by":"x"},"properties":{"card":{"type":"text"},"city":{"type":"keyword","null_value":"4111"}}}}}`},
		{"POST /_migration/reindex", `{"source":{"index":"s"},"mode":"upgrade"}`},
	} {
		if up, fault := carry(t, e, c.line, jsonType, c.body, &fakeCaller{}); fault != nil || up != c.body {
			t.Errorf("%s %s: went up as %q, %v", c.line, c.body, up, fault)
		}
	}
}

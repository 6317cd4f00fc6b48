package rewrite

import (
	"strings"
	"testing"
)

func TestSimulateSeals(t *testing.T) {
	e, _ := planEngine(t)
	token := fakeToken("users", "card", "ana", `"4111"`)
	for _, c := range [][3]string{
		{"POST /_ingest/pipeline/_simulate", `{"pipeline":{"processors":[{"set":{"field":"a","value":"b"}}]},"docs":[{"_index":"user","_source":{"username":"ana","card":"4111"}},{"_source":{"card2":1}}]}`, `"card":"` + token + `"}},{"_source"`},
		{"POST /_ingest/pipeline/p/_simulate", `{"docs":[{"_index":"user","_id":"1","_source":{"card":"4111","username":"ana"}}]}`, `{"card":"` + token + `","username":"ana"}`},
		{"POST /_ingest/user/_simulate", `{"docs":[{"_source":{"username":"ana","card":"4111"}}],"pipeline_substitutions":{"p":{"processors":[]}}}`, `"card":"` + token + `"`},
		{"POST /_ingest/user/_simulate", `{"docs":[{"_index":"plain","_source":{"username":"ana","card":"4111"}}]}`, `"card":"4111"`},
		{"POST /_ingest/plain/_simulate", `{"docs":[{"_source":{"card":"4111"}}],"mapping_addition":{"properties":{"card":{"type":"keyword"}}}}`, `"card":"4111"`},
		{"POST /_ingest/_simulate", `{"docs":[],"mapping_addition":{"properties":{"card":{"type":"keyword"}}},"index_template_substitutions":{"t":{"index_patterns":["user"],"template":{"mappings":{"properties":{"card":{"type":"keyword"}}}}}}}`, `"mapping_addition"`},
		{"POST /_ingest/pipeline/_simulate", `{"docs":[{"_index":"user","_source":{"username":"ana","card":"` + token + `"}}]}`, `"card":"` + token + `"`},
	} {
		up, fault := carry(t, e, c[0], jsonType, c[1], &fakeCaller{})
		if fault != nil || !strings.Contains(up, c[2]) || strings.Contains(up, "4111") && !strings.Contains(c[2], "4111") {
			t.Errorf("%s %s: %v, %s", c[0], c[1], fault, up)
		}
	}
	for _, c := range [][3]string{
		{"POST /_ingest/pipeline/_simulate", `{"docs":[{"_source":{"card":"4111"}}]}`, "esproxy_bad_request"},
		{"POST /_ingest/pipeline/_simulate", `{"docs":[{"card":"4111"}]}`, "esproxy_protected_query"},
		{"POST /_ingest/pipeline/_simulate", `{"docs":[{"_index":"user","_source":{"card":"4111"}}]}`, "esproxy_subject"},
		{"POST /_ingest/pipeline/_simulate", `{"docs":[{"_index":"user","_source":{"username":"ana","card.":"4111"}}]}`, ""},
		{"POST /_ingest/pipeline/_simulate", `{"card":"4111","docs":[]}`, "esproxy_protected_query"},
		{"POST /_ingest/pipeline/_simulate", `{"docs":[],"pipeline":{"processors":[{"set":{"field":"card","value":"4111"}}]}}`, "esproxy_pipeline_refused"},
		{"POST /_ingest/_simulate", `{"docs":[],"pipeline_substitutions":{"p":{"processors":[{"set":{"field":"card","value":"4111"}}]}}}`, "esproxy_pipeline_refused"},
		{"POST /_ingest/_simulate", `{"docs":[],"mapping_addition":{"properties":{"card":{"type":"keyword","null_value":"4111"}}}}`, "esproxy_mapping_conflict"},
		{"POST /_ingest/_simulate", `{"docs":[],"mapping_addition":{"card":"4111"}}`, "esproxy_protected_query"},
	} {
		if up, fault := carry(t, e, c[0], jsonType, c[1], &fakeCaller{}); fault == nil || c[2] != "" && fault.Type != c[2] {
			t.Errorf("%s %s: %v, %s", c[0], c[1], fault, up)
		}
	}
}

func TestTerms(t *testing.T) {
	e, _ := planEngine(t)
	for _, c := range [][2]string{
		{"GET /user/_termvectors/1", ""},
		{"POST /user/_termvectors/1?fields=card,city", `{"fields":["card"],"term_statistics":true,"per_field_analyzer":{"card":"keyword"}}`},
		{"POST /user/_termvectors", `{"doc":{"city":"x","card":null}}`},
		{"POST /plain/_termvectors", `{"doc":{"card":"4111"}}`},
		{"POST /_mtermvectors", `{"docs":[{"_index":"plain","doc":{"card":"4111"}},{"_index":"user","_id":"1"}]}`},
		{"POST /user/_mtermvectors", `{"ids":["1","2"],"parameters":{"fields":["city"]}}`},
		{"POST /_analyze", `{"analyzer":"standard","text":["the card"]}`},
		{"POST /user/_analyze", `{"field":"city","text":"x"}`},
		{"POST /plain/_analyze", `{"field":"card","text":"4111"}`},
		{"GET /_analyze?analyzer=standard&text=x", ""},
		{"POST /user/_graph/explore", `{"query":{"term":{"username":"ana"}},"vertices":[{"field":"city","include":["x"]},{"field":"card"}],"connections":{"vertices":[{"field":"city"}]},"controls":{"timeout":100}}`},
		{"POST /user/_knn_search", `{"knn":{"field":"v","query_vector":[1],"k":1,"num_candidates":2},"_source":["card"]}`},
		{"POST /user/_fleet/_fleet_search", `{"query":{"term":{"username":"ana"}}}`},
		{"POST /user/_mvt/geo/1/1/1", `{"query":{"term":{"username":"ana"}},"fields":["card"],"grid_precision":8}`},
		{"POST /_monitoring/bulk?system_id=kibana&interval=10s", "{\"index\":{\"_type\":\"kibana_stats\"}}\n{\"kibana_stats\":{\"card\":\"x\"}}\n"},
	} {
		up, fault := carry(t, e, c[0], jsonType, c[1], &fakeCaller{})
		if fault != nil || up != c[1] {
			t.Errorf("%s %s: %v, %q", c[0], c[1], fault, up)
		}
	}
	for _, c := range [][2]string{
		{"POST /user/_termvectors", `{"doc":{"card":"4111"}}`},
		{"POST /user/_termvectors", `{"doc":{"items":[{"card.":"4111"}]}}`},
		{"POST /user/_termvectors", `{"card":"4111"}`},
		{"POST /_mtermvectors", `{"docs":[{"_index":"user","doc":{"card":"4111"}}]}`},
		{"POST /plain/_mtermvectors", `{"docs":[{"_index":"user","doc":{"card":"4111"}}]}`},
		{"POST /user/_mtermvectors", `{"docs":[{"doc":{"card":"4111"}}]}`},
		{"POST /user/_mtermvectors", `{"ids":["1"],"parameters":{"doc":{"card":"4111"}}}`},
		{"POST /user/_analyze", `{"field":"card","text":"4111"}`},
		{"POST /_analyze", `{"field":"pay.iban","text":["4111"]}`},
		{"GET /user/_analyze?field=card&text=4111", ""},
		{"POST /user/_graph/explore", `{"vertices":[{"field":"card","include":[{"term":"4111","boost":1}]}]}`},
		{"POST /user/_graph/explore", `{"connections":{"vertices":[{"field":"card","exclude":["4111"]}]}}`},
		{"POST /user/_graph/explore", `{"query":{"term":{"card":"4111"}}}`},
		{"POST /user/_knn_search", `{"knn":{"field":"v"},"filter":{"term":{"card":"4111"}}}`},
		{"POST /user/_fleet/_fleet_search", `{"query":{"term":{"card":"4111"}}}`},
		{"POST /_fleet/_fleet_msearch", "{\"index\":\"user\"}\n{\"query\":{\"term\":{\"card\":\"4111\"}}}\n"},
		{"POST /user/_mvt/geo/1/1/1", `{"query":{"term":{"card":"4111"}}}`},
		{"POST /_monitoring/bulk?system_id=kibana", "{\"index\":{\"_type\":\"x\"}}\n{\"card\":\"4111\"}\n"},
	} {
		if up, fault := carry(t, e, c[0], jsonType, c[1], &fakeCaller{}); fault == nil || fault.Type != "esproxy_protected_query" {
			t.Errorf("%s %s: %v, %q", c[0], c[1], fault, up)
		}
	}
	e.Policy = fakePolicy(t, strings.Replace(fakeRules, `["shop"]`, `[".monitoring-es-*"]`, 1))
	if _, fault := carry(t, e, "POST /_monitoring/bulk", jsonType, "{}\n", nil); fault == nil || fault.Type != "esproxy_refused_endpoint" {
		t.Errorf("monitoring under a rule: %v", fault)
	}
}

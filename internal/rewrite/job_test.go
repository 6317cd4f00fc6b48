package rewrite

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// carry plans a request with a body and gives what goes up, or the fault.
func carry(t *testing.T, e *Engine, line, contentType, body string, caller Caller) (string, *Fault) {
	t.Helper()
	method, path, _ := strings.Cut(line, " ")
	path, query, _ := strings.Cut(path, "?")
	call := &Call{Method: method, Path: path, Query: query, HasBody: body != "", Caller: caller, Counter: &fakeCounter{}}
	if body != "" {
		call.ContentType = []string{contentType}
	}
	ctx := context.Background()
	plan, err := e.Plan(ctx, call)
	var up strings.Builder
	if err == nil && plan.Transform != nil {
		defer plan.Transform.Close()
		_, err = plan.Transform.Request(ctx, plan, strings.NewReader(body), &up)
	} else if err == nil {
		up.WriteString(body)
	}
	if err == nil {
		return up.String(), nil
	}
	var fault *Fault
	if !errors.As(err, &fault) {
		t.Fatalf("%s: %v", line, err)
	}
	if strings.Contains(fault.Error(), "4111") {
		t.Errorf("%s: the fault quotes the value: %v", line, fault)
	}
	return "", fault
}

const jsonType = "application/json"

func TestJobsPass(t *testing.T) {
	e, cluster := planEngine(t)
	cluster.names["user-*"] = Resolved{Names: []string{"user-1"}}
	for _, c := range [][3]string{
		{"PUT /_transform/t", `{"source":{"index":"user","query":{"term":{"username":"ana"}}},"dest":{"index":"plain"},"pivot":{"group_by":{"u":{"terms":{"field":"username"}}},"aggregations":{"n":{"value_count":{"field":"card"}}}},"description":"card","frequency":"1m"}`},
		{"PUT /_transform/t", `{"source":{"index":"user"},"dest":{"index":"user-copy"},"latest":{"unique_key":["username"],"sort":"ts"}}`},
		{"PUT /_transform/t", `{"source":{"index":"plain"},"dest":{"index":"user-sums"},"pivot":{"group_by":{"u":{"terms":{"field":"username"}}},"aggs":{"cards":{"max":{"field":"n"}}}}}`},
		{"PUT /_rollup/job/j", `{"index_pattern":"plain","rollup_index":"user","groups":{"terms":{"fields":["city"]}},"metrics":[{"field":"n","metrics":["max"]}]}`},
		{"POST /_transform/_preview", `{"source":{"index":["plain"]},"pivot":{"group_by":{"card":{"terms":{"field":"kind"}}}}}`},
		{"POST /_transform/t/_update", `{"description":"x","sync":{"time":{"field":"ts","delay":"60s"}}}`},
		{"PUT /_enrich/policy/p", `{"match":{"indices":"user","match_field":"username","enrich_fields":["card","city"],"query":{"term":{"city":"x"}}}}`},
		{"PUT /_rollup/job/j", `{"index_pattern":"user-*","rollup_index":"rolled","cron":"* * * * *","page_size":100,"groups":{"date_histogram":{"field":"ts","fixed_interval":"1h"}}}`},
		{"PUT /_ml/anomaly_detectors/j", `{"analysis_config":{"bucket_span":"15m","detectors":[{"function":"rare","by_field_name":"card"}]},"data_description":{"time_field":"ts"},"datafeed_config":{"indices":["user"],"query":{"match_all":{}}}}`},
		{"PUT /_ml/datafeeds/d", `{"job_id":"j","indices":["user"],"query":{"range":{"ts":{"gte":"now-1d"}}},"aggregations":{"b":{"date_histogram":{"field":"ts","fixed_interval":"1m"}}}}`},
		{"PUT /_ml/data_frame/analytics/a", `{"source":{"index":"user"},"dest":{"index":"user-out"},"analysis":{"outlier_detection":{}}}`},
		{"POST /_ml/trained_models/m/_infer", `{"docs":[{"text_field":"the card is here"}]}`},
		{"POST /_ml/anomaly_detectors/j/_data", "{\"ts\":1,\"v\":2}\n{\"ts\":2}{\"ts\":3}\n"},
		{"PUT /_watcher/watch/w", `{"trigger":{"schedule":{"interval":"1h"}},"input":{"search":{"request":{"indices":["user"],"body":{"query":{"term":{"username":"ana"}}}}}},"condition":{"compare":{"ctx.payload.hits.total":{"gt":0}}},"actions":{"card":{"email":{"to":"a@example.org","subject":"card"}},"keep":{"index":{"index":"plain"}}},"metadata":{"card":"a label"}}`},
		{"POST /_watcher/watch/_execute", `{"watch":{"trigger":{},"input":{"simple":{"a":1}},"actions":{}},"record_execution":false}`},
		{"POST /_inference/completion/m", `{"input":"is this a card?","task_settings":{"user":"x"}}`},
		{"POST /_ml/anomaly_detectors/j/results/records", `{"sort":"record_score","desc":true,"page":{"size":10}}`},
		{"PUT /_ml/filters/f", `{"description":"card","items":["a","b"]}`},
		{"POST /_watcher/_query/watches", `{"query":{"term":{"metadata.card":"x"}},"size":10}`},
		{"POST /_profiling/flamegraph", `{"sample_size":1000,"query":{"range":{"@timestamp":{"gte":"now-5m"}}}}`},
		{"POST /_text_structure/find_structure", "{\"name\":\"x\"}\n{\"name\":\"cardboard\"}\n"},
		{"GET /_text_structure/find_field_structure?index=user&field=city", ""},
		{"PUT /user-f/_ccr/follow", `{"remote_cluster":"r","leader_index":"user-1"}`},
		{"PUT /plain/_ccr/follow", `{"remote_cluster":"r","leader_index":"other"}`},
		{"PUT /_ccr/auto_follow/a", `{"remote_cluster":"r","leader_index_patterns":["user-*","logs-*"],"follow_index_pattern":"{{leader_index}}"}`},
		{"POST /_snapshot/r/s/_restore", `{"indices":"user","rename_pattern":"(.+)","rename_replacement":"back_$1"}`},
		{"POST /_snapshot/r/s/_restore", `{"indices":"user","rename_pattern":"user","rename_replacement":"user-2"}`},
		{"POST /_snapshot/r/s/_restore", `{"include_global_state":false}`},
		{"POST /_snapshot/r/s/_mount", `{"index":"user","renamed_index":"user-cold"}`},
		{"PUT /_create_from/plain/user-2", `{"settings_override":{"number_of_shards":1}}`},
		{"POST /_migration/reindex", `{"source":{"index":"my-stream"},"mode":"upgrade"}`},
		{"POST /user/_downsample/user-d", `{"fixed_interval":"1h"}`},
		{"GET /_prometheus/api/v1/query?query=up%7Bjob%3D%22x%22%7D", ""},
	} {
		up, fault := carry(t, e, c[0], jsonType, c[1], &fakeCaller{})
		if fault != nil || up != c[1] {
			t.Errorf("%s %s: %v, %q", c[0], c[1], fault, up)
		}
	}
}

func TestJobsRefused(t *testing.T) {
	e, _ := planEngine(t)
	snapshot := &fakeCaller{answers: map[string]string{
		"GET /_snapshot/r/s?filter_path=snapshots.indices,snapshots.data_streams": `{"snapshots":[{"indices":["plain","other"]}]}`,
	}}
	query, target, body := "esproxy_protected_query", "esproxy_unsealed_source", "esproxy_bad_request"
	for _, c := range [][3]string{
		{"PUT /_transform/t", `{"source":{"index":"user","query":{"term":{"card":"4111"}}},"dest":{"index":"plain"},"pivot":{}}`, query},
		{"PUT /_transform/t", `{"source":{"index":"user","runtime_mappings":{"x":{"type":"keyword","script":{"source":"emit(doc['card'].value == '4111' ? 'a' : 'b')"}}}},"dest":{"index":"plain"},"pivot":{}}`, query},
		{"PUT /_transform/t", `{"source":{"index":"user"},"dest":{"index":"plain"},"pivot":{"group_by":{"x":{"terms":{"field":"card","missing":"4111"}}}}}`, query},
		{"PUT /_transform/t", `{"source":{"index":"user"},"dest":{"index":"plain"},"pivot":{"aggs":{"x":{"filter":{"term":{"card":"4111"}}}}}}`, query},
		{"PUT /_transform/t", `{"source":{"index":"user"},"dest":{"index":"user-2"},"pivot":{"group_by":{"card":{"terms":{"field":"city"}}}}}`, target},
		{"PUT /_transform/t", `{"source":{"index":"plain"},"dest":{"index":"user-2"},"latest":{"unique_key":["a"],"sort":"ts"}}`, target},
		{"PUT /_transform/t", `{"source":{"index":"plain"},"dest":{"index":"x","aliases":[{"alias":"user"}]},"latest":{"unique_key":["a"],"sort":"ts"}}`, target},
		{"PUT /_transform/t", `{"source":{"index":"user*"},"dest":{"index":"user-2"},"latest":{"unique_key":["a"],"sort":"ts"}}`, target},
		{"POST /_transform/t/_update", `{"dest":{"index":"user"}}`, target},
		{"PUT /_transform/t", `{"card":"4111"}`, query},
		{"PUT /_transform/t", `{"\u0063ard":"4111"}`, query},
		{"PUT /_transform/t", `{"a":1,"a":2}`, body},
		{"PUT /_enrich/policy/p", `{"match":{"indices":"user","match_field":"a","enrich_fields":["b"],"query":{"term":{"card":"4111"}}}}`, query},
		{"PUT /_rollup/job/j", `{"index_pattern":"plain","rollup_index":"user","groups":{"terms":{"fields":["city","card"]}}}`, target},
		{"PUT /_rollup/job/j", `{"index_pattern":"plain","rollup_index":"user","metrics":[{"field":"pay","metrics":["max"]}]}`, target},
		{"PUT /_ml/anomaly_detectors/j", `{"datafeed_config":{"indices":["user"],"query":{"term":{"card":"4111"}}}}`, query},
		{"POST /_ml/datafeeds/_preview", `{"datafeed_config":{"indices":["user"],"script_fields":{"x":{"script":{"source":"doc['card'].value == params.v","params":{"v":"4111"}}}}}}`, query},
		{"PUT /_ml/data_frame/analytics/a", `{"source":{"index":"plain"},"dest":{"index":"user"},"analysis":{}}`, target},
		{"POST /_ml/data_frame/_evaluate", `{"index":"user","query":{"term":{"card":"4111"}},"evaluation":{}}`, query},
		{"POST /_ml/trained_models/m/_infer", `{"docs":[{"pay":{"iban":"4111"}}]}`, query},
		{"POST /_ml/anomaly_detectors/j/_data", "{\"ts\":1}\n{\"ts\":2,\"card\":\"4111\"}\n", query},
		{"POST /_ml/anomaly_detectors/j/_data", "{\"ts\":1}/* */{\"ts\":2}", body},
		{"PUT /_watcher/watch/w", `{"input":{"search":{"request":{"indices":["user"],"body":{"query":{"term":{"card":"4111"}}}}}}}`, query},
		{"PUT /_watcher/watch/w", `{"input":{"search":{"request":{"body":{"query":{"term":{"card":"4111"}}}}}}}`, query},
		{"PUT /_watcher/watch/w", `{"input":{"search":{"request":{"indices":["user"],"template":{"id":"x","params":{"v":"4111"}}}}}}`, "esproxy_template_refused"},
		{"PUT /_watcher/watch/w", `{"input":{"search":{"request":{"indices":["user"],"template":{"source":{"query":{"term":{"{{f}}":"{{v}}"}}},"params":{"f":"card","v":"4111"}}}}}}`, query},
		{"PUT /_watcher/watch/w", `{"input":{"chain":{"inputs":[{"a":{"simple":{"card":"4111"}}}]}}}`, query},
		{"PUT /_watcher/watch/w", `{"condition":{"compare":{"ctx.payload.hits.hits.0._source.card":{"eq":"4111"}}}}`, query},
		{"PUT /_watcher/watch/w", `{"condition":{"array_compare":{"ctx.payload.hits.hits":{"path":"_source.card","eq":{"value":"4111"}}}}}`, query},
		{"PUT /_watcher/watch/w", `{"transform":{"script":{"source":"return ['card': params.v, 'x': ctx.card]","params":{"v":"4111"}}}}`, query},
		{"PUT /_watcher/watch/w", `{"actions":{"a":{"index":{"index":"user"}}}}`, target},
		{"PUT /_watcher/watch/w", `{"actions":{"a":{"index":{"index":"{{ctx.metadata.x}}"}}}}`, target},
		{"PUT /_watcher/watch/w", `{"actions":{"a":{"index":{}}}}`, target},
		{"POST /_watcher/watch/w/_execute", `{"alternative_input":{"card":"4111"}}`, query},
		{"POST /_inference/completion/m", `{"input":"x","card":"4111"}`, query},
		{"POST /_ml/anomaly_detectors/j/results/records", `{"card":"4111"}`, query},
		{"POST /_watcher/_query/watches", `{"query":{"term":{"card":"4111"}}}`, query},
		{"POST /_profiling/flamegraph", `{"card":"4111"}`, query},
		{"POST /_text_structure/find_structure", "name,card\nx,4111\n", query},
		{"POST /_text_structure/find_structure", `{"\u0063ard":"4111"}`, query},
		{"POST /_text_structure/find_structure", "c\x00a\x00r\x00d\x004\x00", "esproxy_content_type"},
		{"POST /_text_structure/test_grok_pattern", `{"grok_pattern":"%{NUMBER:card}","text":["4111"]}`, query},
		{"PUT /user/_ccr/follow", `{"remote_cluster":"r","leader_index":"other"}`, target},
		{"PUT /_ccr/auto_follow/a", `{"remote_cluster":"r","leader_index_patterns":["logs-*"],"follow_index_pattern":"user-{{leader_index}}"}`, target},
		{"POST /_snapshot/r/s/_restore", `{"indices":"plain","rename_pattern":"plain","rename_replacement":"user"}`, target},
		{"POST /_snapshot/r/s/_restore", `{"rename_pattern":"(pl)(ain)","rename_replacement":"user-$2"}`, target},
		{"POST /_snapshot/r/s/_restore", `{"rename_pattern":"(","rename_replacement":"x"}`, body},
		// Java reads these in another way.
		{"POST /_snapshot/r/s/_restore", `{"indices":"plain","rename_pattern":"[a-z&&[p]]lain","rename_replacement":"user"}`, body},
		{"POST /_snapshot/r/s/_restore", `{"indices":"plain","rename_pattern":"[[:alpha:]p]lain","rename_replacement":"user"}`, body},
		{"POST /_snapshot/r/s/_restore", `{"indices":"plain","rename_pattern":"(.*)","rename_replacement":"$12"}`, body},
		{"POST /_snapshot/r/s/_restore", `{"indices":"plain","rename_pattern":"(.*)","rename_replacement":"` + strings.Repeat("$1", 600) + `"}`, body},
		{"POST /_snapshot/r/s/_restore", `{"rename_alias_pattern":"a","rename_alias_replacement":"user"}`, target},
		{"POST /_snapshot/r/s/_mount", `{"index":"plain","renamed_index":"user"}`, target},
		{"PUT /_create_from/plain/user-2", `{"mappings_override":{"properties":{"card":{"type":"text"}}}}`, "esproxy_mapping_conflict"},
		{"POST /plain/_downsample/user-d", `{"fixed_interval":"1h"}`, target},
		{"GET /_prometheus/api/v1/query?query=up%7Bcard%3D%224111%22%7D", "", query},
		{"POST /_arrow/_bulk", "x", "esproxy_refused_endpoint"},
	} {
		up, fault := carry(t, e, c[0], jsonType, c[1], snapshot)
		if fault == nil || fault.Type != c[2] {
			t.Errorf("%s %s: %v, %q, want %s", c[0], c[1], fault, up, c[2])
		}
	}
	if _, fault := carry(t, e, "POST /_snapshot/r/s/_restore", jsonType, `{"rename_pattern":"a","rename_replacement":"user"}`, &fakeCaller{status: 404}); fault == nil || fault.Type != target {
		t.Errorf("a snapshot that cannot be read: %v", fault)
	}
}

func TestBinaryProtocols(t *testing.T) {
	e, _ := planEngine(t)
	for kind, want := range map[string]bool{"application/x-protobuf": true, jsonType: false, "text/plain": false} {
		if _, fault := carry(t, e, "POST /_otlp/v1/logs", kind, "\x0a\x00", nil); (fault == nil) != want {
			t.Errorf("%s: %v", kind, fault)
		}
	}
	e.Policy = fakePolicy(t, strings.Replace(fakeRules, `["shop"]`, `["logs-app.otel-*"]`, 1))
	if _, fault := carry(t, e, "POST /_otlp/v1/logs", "application/x-protobuf", "\x0a\x00", nil); fault == nil || fault.Type != "esproxy_refused_endpoint" {
		t.Errorf("logs under a rule: %v", fault)
	}
	if _, fault := carry(t, e, "POST /_prometheus/api/v1/write", "application/x-protobuf", "\x0a\x00", nil); fault != nil {
		t.Errorf("metrics under no rule: %v", fault)
	}
}

func TestGoReplacement(t *testing.T) {
	for java, want := range map[string]string{"$1": "${1}", "a$1b": "a${1}b", `\$1`: "$$1", `a\\b`: `a\b`, "x": "x", "$": "$"} {
		if got := goReplacement(java); got != want {
			t.Errorf("%q: %q, want %q", java, got, want)
		}
	}
}

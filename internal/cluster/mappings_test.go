package cluster_test

import (
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/policy"
)

func TestCheckMappings(t *testing.T) {
	f := newFake(t)
	f.set("GET /_alias", 200, `{"user-1":{"aliases":{}},"user-2":{"aliases":{}},"user-3":{"aliases":{}},"user-4":{"aliases":{}},"user-5":{"aliases":{}},"plain":{"aliases":{}},".ds-user-s-2026.11.25-000001":{"aliases":{}},".fs-user-s-2026.11.25-000002":{"aliases":{}}}`)
	f.set("GET /_data_stream", 200, `{"data_streams":[{"name":"user-s","indices":[{"index_name":".ds-user-s-2026.11.25-000001"}],"failure_store":{"indices":[{"index_name":".fs-user-s-2026.11.25-000002"}]}}]}`)
	for index, mapping := range map[string]string{
		"user-1":                       `{"properties":{"card":` + sealedMapping + `}}`,
		"user-2":                       `{"properties":{"card":{"type":"text"}}}`,
		"user-3":                       `{}`,
		"user-4":                       `{"_source":{"excludes":["card"]},"properties":{"card":` + sealedMapping + `}}`,
		".ds-user-s-2026.11.25-000001": `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"fields":{"raw":{"type":"keyword"}}}}}`,
	} {
		f.set("GET /"+index+"/_mapping", 200, `{"`+index+`":{"mappings":`+mapping+`}}`)
	}
	f.set("GET /user-5/_mapping", 403, `{}`)
	rules := ruleOf("card")
	rules[0].Indices = []string{"user-*"}
	var logs logBuffer
	c := f.cluster(cluster.Config{Log: logs.logger(), Policy: func() *policy.Policy { return &policy.Policy{Rules: rules} }})
	for range 2 { // each is told once
		if n, err := c.CheckMappings(t.Context()); err != nil || n != 4 {
			t.Fatalf("%d %v", n, err)
		}
	}
	l := logs.String()
	for text, times := range map[string]int{"index=user-2": 1, "index=user-4": 1, "index=.ds-user-s-2026.11.25-000001": 1, "index=user-1": 0, "plain": 0, ".fs-": 0,
		"indices=3": 2, "esproxy doctor": 2, "indices=1": 2, "esproxy setup adds": 2, "may not read": 1} {
		if n := strings.Count(l, text); n != times {
			t.Errorf("%q is logged %d times, not %d", text, n, times)
		}
	}
	for _, a := range f.take() {
		if !strings.Contains(a, " GET /") && !strings.Contains(a, "_has_privileges") {
			t.Errorf("it sent %s", a)
		}
	}
	f.set("GET /user-1/_mapping", 500, `{}`)
	_, err := c.CheckMappings(t.Context())
	wantFault(t, err, 503, cluster.FaultUnknown)
}

// OpenSearch's simulation does not tell that a template makes data streams.
func TestReadyMakesDataStreamsWhereOnlyTheTemplateTells(t *testing.T) {
	f := newFake(t)
	f.set("POST /_index_template/_simulate_index/logs", 200, `{"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`)
	f.set("GET /_index_template", 200, `{"index_templates":[{"name":"t","index_template":{"index_patterns":["lo*"],"data_stream":{}}}]}`)
	const backing = ".ds-logs-000001"
	f.on("PUT /_data_stream/logs", func(string, string) (int, string) {
		f.set("GET /_data_stream", 200, `{"data_streams":[{"name":"logs","indices":[{"index_name":"`+backing+`"}]}]}`)
		return 200, `{"acknowledged":true}`
	})
	f.set("GET /"+backing+"/_mapping", 200, `{"`+backing+`":{"mappings":{}}}`)
	f.set("PUT /"+backing+"/_mapping", 200, `{"acknowledged":true}`)
	c := f.cluster(cluster.Config{})
	if err := c.Ready(t.Context(), f.caller(), "logs", ruleOf("card")); err != nil {
		t.Fatal(err)
	}
	if f.count("alice PUT /_data_stream/logs") != 1 || f.count("own PUT /"+backing+"/_mapping") != 1 || f.count("alice PUT /logs") != 0 {
		t.Errorf("asked %q", f.take())
	}
}

// What a template says of a protected field is not kept in an index that the first write makes: the body of a creation beats it.
func TestReadyBeatsTemplates(t *testing.T) {
	f := newFake(t)
	f.set("POST /_index_template/_simulate_index/user", 200, `{"template":{"mappings":{"properties":{"card":{"type":"text","fields":{"raw":{"type":"keyword"}}},"pay":{"type":"nested","properties":{"pan":{"type":"long"}}}}}}}`)
	body := f.creating("user", anyone)
	c := f.cluster(cluster.Config{})
	if err := c.Ready(t.Context(), f.caller(), "user", ruleOf("card", "pay.pan")); err != nil {
		t.Fatal(err)
	}
	if want := `{"mappings":{"properties":{"card":` + sealedMapping + `,"pay":{"properties":{"pan":` + sealedMapping + `},"type":"nested"}}}}`; *body != want {
		t.Errorf("created with %s", *body)
	}
}

package rewrite

import (
	"strings"
	"testing"
)

// A component template is judged where it is used, and by what the index template does not say itself.
func TestComponentTemplates(t *testing.T) {
	e, _ := planEngine(t)
	const list = "GET /_index_template?filter_path=index_templates.index_template.index_patterns%2Cindex_templates.index_template.composed_of%2Cindex_templates.index_template.template.mappings.properties"
	const simulate = "POST /_index_template/_simulate"
	used := func(patterns, properties string) string {
		return `{"index_templates":[{"index_template":{"index_patterns":["else-*"],"composed_of":["c"]}},{"index_template":{"index_patterns":` + patterns + `,"composed_of":["b","c"],"template":{"mappings":{"properties":` + properties + `}}}}]}`
	}
	for _, c := range []struct {
		line, body string
		answers    map[string]string
		status     int
		says       string // "": it passes
	}{
		{"PUT /_component_template/c", `{"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, map[string]string{list: used(`["user-*"]`, `{}`)}, 200, "uses this component template"},
		{"PUT /_component_template/c", `{"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, map[string]string{list: used(`["logs-*"]`, `{}`)}, 200, ""},
		{"PUT /_component_template/c", `{"template":{"mappings":{"properties":{"card":{"type":"text"},"pay":{"properties":{"iban":{"type":"long"}}}}}}}`, map[string]string{list: used(`["user-*"]`, `{"card":{},"pay":{"properties":{"iban":{}}}}`)}, 200, ""},
		{"PUT /_component_template/c", `{"template":{"settings":{"index":{"mapping":{"source":{"mode":"disabled"}}}}}}`, map[string]string{list: used(`["user-*"]`, `{}`)}, 200, "source.mode"},
		{"PUT /_component_template/c", `{"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, nil, 403, ""},
		{"PUT /_component_template/d", `{"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, map[string]string{list: used(`["user-*"]`, `{}`)}, 200, ""},
		{"PUT /_index_template/t", `{"index_patterns":["user-*"],"composed_of":["c"]}`, map[string]string{simulate: `{"template":{"mappings":{"properties":{"pay":{"properties":{"iban":{"type":"long"}}}}}}}`}, 200, "[composed_of]"},
		{"PUT /_index_template/t", `{"index_patterns":["user-*"],"composed_of":["c"]}`, map[string]string{simulate: `{"template":{"settings":{"index":{"number_of_shards":"1"}},"mappings":{"properties":{"a":{"type":"long"}}}}}`}, 200, ""},
		{"PUT /_index_template/t", `{"index_patterns":["logs-*"],"composed_of":["c"]}`, map[string]string{simulate: `{"template":{"mappings":{"properties":{"card":{"type":"long"}}}}}`}, 200, ""},
		{"PUT /_index_template/t", `{"index_patterns":["user-*"],"composed_of":["c"]}`, nil, 400, ""},
	} {
		method, path, _ := strings.Cut(c.line, " ")
		caller := &fakeCaller{answers: c.answers, status: c.status}
		plan, err := e.Plan(t.Context(), &Call{Method: method, Path: path, HasBody: true, ContentType: []string{"application/json"}, Caller: caller, Counter: &fakeCounter{}})
		if err != nil {
			t.Fatal(err)
		}
		var up strings.Builder
		_, err = plan.Transform.Request(t.Context(), plan, strings.NewReader(c.body), &up)
		plan.Transform.Close()
		switch {
		case c.says == "" && (err != nil || up.Len() == 0):
			t.Errorf("%s %s: %v", c.line, c.body, err)
		case c.says != "" && (err == nil || asFault(err).Type != "esproxy_mapping_conflict" || !strings.Contains(asFault(err).Reason, c.says) || up.Len() > 0):
			t.Errorf("%s %s: %v, sent %s", c.line, c.body, err, up.String())
		}
	}
}

// The fields of one rule are not added to the indices of others.
func TestMappingOfSeveralIndices(t *testing.T) {
	e, cluster := planEngine(t)
	cluster.names["user,plain"] = Resolved{Names: []string{"user", "plain"}}
	for name, adds := range map[string]bool{"user": true, "alias": true, "user,plain": false, "user*": false, "_all": false, "both": false} {
		const body = `{"properties":{"x":{"type":"long"}}}`
		err := takeTurn(e, "PUT /"+name+"/_mapping", body, func(up string) {
			if strings.Contains(up, SealedMapping) != adds || !adds && up != body {
				t.Errorf("%s: sent %s", name, up)
			}
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := takeTurn(e, "PUT /user,plain/_mapping", `{"properties":{"card":{"type":"long"}}}`, func(up string) { t.Errorf("sent %s", up) }); err == nil {
		t.Error("a wrong mapping passed")
	}
}

package rewrite

import (
	"strings"
	"testing"
)

// allowing is a policy with allowed endpoints.
func allowing(endpoints ...string) string {
	text := fakeRules + "allow:\n"
	for _, e := range endpoints {
		method, path, _ := strings.Cut(e, " ")
		text += "  - {method: " + method + ", path: \"" + path + "\"}\n"
	}
	return text
}

func TestCheckAllow(t *testing.T) {
	for endpoint, want := range map[string]string{
		"GET /_plugins/_ism/policies/{id}": "",
		"PUT /_plugins/_ism/policies/{id}": "",
		"GET /_bulk/stream":                "could name an index",
		"POST /_opendistro/_sql":           "",
		"DELETE /_search/template/{id}":    "",
		"GET /{index}/_plugin":             "could name an index",
		"GET /plain/_plugin":               "could name an index",
		"GET /_all/x":                      "could name an index",
		"POST /_plugins/_bulk":             "[_bulk] writes documents",
		"PUT /_plugins/{x}/_doc/{id}":      "[_doc] writes documents",
		"GET /_cluster/health":             "the proxy knows [GET /_cluster/health]",
		"GET /_cluster/{x}":                "the proxy knows [GET /_cluster/",
		"PUT /_scripts/{name}":             "the proxy knows [PUT /_scripts/{id}]",
		"GET /_snapshot/a/b/c/d":           "",
	} {
		problems := CheckAllow(fakePolicy(t, allowing("GET /_ok", endpoint)))
		switch {
		case want == "" && problems != nil:
			t.Errorf("%s: %v", endpoint, problems)
		case want != "" && (len(problems) != 1 || !strings.Contains(problems[0].Text, want) || problems[0].Line < 10 || problems[0].Col == 0 || problems[0].File == ""):
			t.Errorf("%s: %v, want %q", endpoint, problems, want)
		}
	}
}

func TestAllowed(t *testing.T) {
	e, _ := planEngine(t)
	e.Policy = fakePolicy(t, allowing("GET /_plugins/_ism/policies/{id}", "POST /_plugins/{name}/run", "GET /_cluster/health"))
	for _, line := range []string{
		"GET /_plugins/_ism/policies/p1", "GET /_plugins/_ism/policies/p1/", "GET /_plugins/_ism/policies/a%2Fb", "POST /_plugins/x/run?card=4111",
	} {
		up, fault := carry(t, e, line, "application/x-anything", `{"card":"4111"}`, nil)
		if fault != nil || up != `{"card":"4111"}` {
			t.Errorf("%s: %v, %q", line, fault, up)
		}
	}
	for _, line := range []string{
		"PUT /_plugins/_ism/policies/p1", "GET /_plugins/_ism/policies", "GET /_plugins/_ism/policies/p1/x", "GET /_plugins/%5Fism/policies/p1", "GET /_plugins//policies/p1",
		"GET /_plugins/_ism/policies/..", "GET /_plugins/_ism/policies/%2e%2e", "POST /_plugins/_bulk/run", "POST /_plugins/%5Fbulk/run", "POST /_plugins/%zz/run",
	} {
		if up, fault := carry(t, e, line, jsonType, "{}", nil); fault == nil || fault.Type != unknownType && fault.Type != "esproxy_bad_request" {
			t.Errorf("%s: %v, %q", line, fault, up)
		}
	}
	if _, fault := carry(t, e, "GET /_cluster/health", jsonType, `{"card":"4111"}`, nil); fault == nil {
		t.Error("the verdict of a row in the table was overridden")
	}
}

// TestAllowHint gives the line that allows a request, without values that the path may hold.
func TestAllowHint(t *testing.T) {
	e, _ := planEngine(t)
	for line, want := range map[string]string{
		"GET /_plugins/_ism/policies/4111111111111111": `allow: [{method: GET, path: "/_plugins/_ism/{x}/{x}"}]`,
		"PUT /_plugins/_ml/models/hush":                `allow: [{method: PUT, path: "/_plugins/_ml/{x}/{x}"}]`,
		"DELETE /_cluster/health":                      `allow: [{method: DELETE, path: "/_cluster/health"}]`,
		"PATCH /_plugins/x":                            "",
		"GET /some/thing/of/yours/here":                "",
		"POST /_bulk/stream":                           "",
	} {
		_, fault := carry(t, e, line, jsonType, "", nil)
		if fault == nil || fault.Type != unknownType || strings.Contains(fault.Reason, "hush") {
			t.Errorf("%s: %v", line, fault)
			continue
		}
		known := strings.Contains(fault.Reason, "but not with method")
		if want := line == "DELETE /_cluster/health"; known != want {
			t.Errorf("%s: told as a path of the table: %t, want %t", line, known, want)
		}
		if _, hint, _ := strings.Cut(fault.Reason, "policy: "); hint != want {
			t.Errorf("%s: hint %q, want %q", line, hint, want)
		}
		if want != "" {
			problems := CheckAllow(fakePolicy(t, fakeRules+want+"\n"))
			if problems != nil {
				t.Errorf("the hint for %s is refused: %v", line, problems)
			}
		}
	}
}

package rewrite

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// TestNoRowSendsACanary sends a value for a protected field through every row, in bodies of many shapes and dialects, and looks for it in what
// goes upstream. The same walk through the whole program is in package test.
func TestNoRowSendsACanary(t *testing.T) {
	e, _ := planEngine(t)
	bodies := map[string]string{
		"nothing": `{}`, "document": `{"username":"Ana","card":"CANARY"}`, "nested": `{"a":{"card":"CANARY"}}`, "list": `[{"card":"CANARY"}]`, "in a list": `{"a":[{"card":["CANARY"]}]}`, "escaped": `{"c\u0061rd":"CANARY"}`,
		"comment": `{/*CANARY*/}`, "byte order mark": "\ufeff{\"card\":\"CANARY\"}", "overlong": "{\"c\xc1\xa1rd\":\"CANARY\"}", "trailing dot": `{"card.":"CANARY"}`, "second value": `{}{"card":"CANARY"}`, "second line": "{}\n{\"card\":\"CANARY\"}\n",
		"script": `{"script":{"source":"ctx._source.card='CANARY'"}}`, "parameters": `{"script":{"source":"ctx._source.card=params.v","params":{"v":"CANARY"}}}`, "query": `{"query":{"term":{"card":"CANARY"}}}`, "query string": `{"query":{"query_string":{"query":"card:CANARY"}}}`,
		"doc": `{"doc":{"card":"CANARY"}}`, "docs": `{"docs":[{"_source":{"card":"CANARY"}}]}`, "yaml": "card: CANARY\n", "form": "card=CANARY", "utf-16": "{\x00\"\x00c\x00a\x00r\x00d\x00\"\x00:\x00\"\x00C\x00A\x00N\x00A\x00R\x00Y\x00\"\x00}\x00",
		"bulk": `{"index":{"_index":"user","_id":"1"}}` + "\n" + `{"username":"Ana","card":"CANARY"}` + "\n",
	}
	kinds := map[string]string{"yaml": "application/yaml", "form": "application/x-www-form-urlencoded"}
	// What is a document lies elsewhere than the protected path here.
	elsewhere := []string{"nested", "in a list", "script", "parameters", "query", "query string", "doc", "docs"}
	sent := 0
	for _, f := range tableRows(t) {
		path := "/" + strings.Join(fillTemplate(f[1], func(param string) string {
			switch param {
			case "index", "name", "target", "alias":
				return "user"
			}
			return "x1"
		}), "/")
		for _, name := range slices.Sorted(maps.Keys(bodies)) {
			switch v := verdict(f[3]); v {
			case verdictDoc, verdictCreate, verdictDocuments, verdictMonitoring, verdictEvent:
				if slices.Contains(elsewhere, name) {
					continue
				}
			case verdictAdmin, verdictSettings: // names of the client's choice
				if strings.HasSuffix(f[2], "settings") || documentsAnyName(f[2]) {
					if name == "nested" || name == "in a list" {
						continue
					}
				}
			case verdictJob: // it searches other indices, or what it calls a query is a text for a model
				if name == "query" || name == "query string" || name == "docs" {
					continue
				}
			case verdictSamples: // raw text, which has no comments
				if name == "comment" {
					continue
				}
			}
			kind := "application/json"
			switch {
			case name == "yaml" || name == "form":
				kind = kinds[name]
			case strings.HasSuffix(bodies[name], "\n"):
				kind = "application/x-ndjson"
			}
			up, _ := sendLine(e, f[0]+" "+path, kind, bodies[name])
			if up != "" {
				sent++
			}
			if strings.Contains(strings.ReplaceAll(up, "\x00", ""), "CANARY") {
				t.Errorf("%s %s (%s): %s goes up: %q", f[0], f[1], f[3], name, up)
			}
		}
	}
	if sent < 200 {
		t.Errorf("%d bodies went up, so nothing was tested", sent)
	}
}

func documentsAnyName(api string) bool { return slices.Contains(documentedMembers(api), "*") }

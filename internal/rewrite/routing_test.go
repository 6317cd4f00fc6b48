package rewrite

import (
	"strings"
	"testing"
)

// What an alias routes by counts in look-ups of updates, unless the request gives a routing itself.
func TestLookUpsThroughARoutingAlias(t *testing.T) {
	for _, c := range []struct{ line, body, routing string }{
		{"POST /routed/_update/1", `{"doc":{"card":"4111"}}`, "a"},
		{"POST /routed/_update/1?routing=b", `{"doc":{"card":"4111"}}`, "b"},
		{"POST /_bulk", `{"update":{"_index":"routed","_id":"1"}}` + "\n" + `{"doc":{"card":"4111"}}` + "\n", "a"},
		{"POST /_bulk", `{"update":{"_index":"routed","_id":"1","routing":"b"}}` + "\n" + `{"doc":{"card":"4111"}}` + "\n", "b"},
		{"POST /_bulk?routing=c", `{"update":{"_index":"routed","_id":"1"}}` + "\n" + `{"doc":{"card":"4111"}}` + "\n", "c"},
	} {
		e, cluster, _ := fakeEngine(t)
		cluster.names["routed"] = Resolved{Names: []string{"routed", "user-1"}, Write: "user-1", Routing: "a"}
		ref := Ref{Index: "user-1", ID: "1", Routing: c.routing}
		cluster.docs[ref] = Stored{Found: true, Index: "user-1", Source: []byte(`{"username":"Ana"}`)}
		call := updateCall("", "")
		call.Method, call.Path, _ = strings.Cut(c.line, " ")
		call.Path, call.Query, _ = strings.Cut(call.Path, "?")
		o := exchange(t, e, call, strings.NewReader(c.body), func(Target, []byte) (int, string) {
			return 200, `{"errors":false,"items":[{"update":{"_index":"user-1","status":200}}]}`
		})
		if o.err != nil || len(cluster.asked) != 1 || cluster.asked[0][0] != ref || !strings.Contains(o.up, fakeToken("users", "card", "Ana", `"4111"`)) {
			t.Errorf("%s %s: %v, asked %v, sent %s", c.line, c.body, o.err, cluster.asked, o.up)
		}
	}
}

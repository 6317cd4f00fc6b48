package rewrite

import (
	"strings"
	"testing"
)

// A failure store holds {"@timestamp":…,"document":{"id":…,"index":…,"source":{…}},"error":{…}}: values open below
// document.source, for the subject that stands there.
var failureCases = []replyCase{
	{
		name: "search of a failure store",
		in: replyHead + `{"_index":".fs-user-2026.11.25-000001","_id":"1","_source":{"@timestamp":"2026-11-25T00:00:00Z","document":{"id":"9","index":"user","source":{"card":"<<users|card|Ana|"4111">>","username":"Ana",` +
			`"items":[{"card":"<<users|items.card|Ana|1>>"}],"pay.iban":"<<users|pay.iban|Bob|2>>"}},"error":{"message":"<<users|card|Ana|"4111">>"}}}]}}`,
		want: replyHead + `{"_index":".fs-user-2026.11.25-000001","_id":"1","_source":{"@timestamp":"2026-11-25T00:00:00Z","document":{"id":"9","index":"user","source":{"card":"4111","username":"Ana",` +
			`"items":[{"card":1}],"pay.iban":"<<users|pay.iban|Bob|2>>"}},"error":{"message":"<<users|card|Ana|"4111">>"}}}]}}`,
		counts: map[string]int{"opened users.card plain in .fs-user-2026.11.25-000001": 1, "opened users.items.card plain in .fs-user-2026.11.25-000001": 1, "unopened auth": 1},
	},
	{
		name:   "fields of a failure store, the subject looked up",
		in:     `{"hits":{"hits":[{"_index":".fs-user-2026.11.25-000001","_id":"1","fields":{"document.source.card":["<<users|card|Ana|7>>"]}}]}}`,
		want:   `{"hits":{"hits":[{"_index":".fs-user-2026.11.25-000001","_id":"1","fields":{"document.source.card":[7]}}]}}`,
		docs:   map[Ref]string{{Index: ".fs-user-2026.11.25-000001", ID: "1"}: `{"document":{"source":{"username":"Ana"}}}`},
		counts: map[string]int{"opened users.card plain in .fs-user-2026.11.25-000001": 1},
		asked:  [][]Ref{{{Index: ".fs-user-2026.11.25-000001", ID: "1"}}},
	},
	{
		name:   "the shifted path means nothing in an ordinary index, and two subjects mean none",
		in:     `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana","document":{"source":{"card":"<<users|card|Ana|7>>","username":"Ana"}}}},{"_index":".fs-user-2026.11.25-000001","_source":{"username":"Ana","document":{"source":{"card":"<<users|card|Ana|7>>","username":"Bob"}}}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana","document":{"source":{"card":"<<users|card|Ana|7>>","username":"Ana"}}}},{"_index":".fs-user-2026.11.25-000001","_source":{"username":"Ana","document":{"source":{"card":"<<users|card|Ana|7>>","username":"Bob"}}}}]}}`,
		counts: map[string]int{"unopened no_subject": 1},
	},
	{
		name:   "a remote cluster: the index's own name tells the rule, and nothing is looked up there",
		in:     `{"hits":{"hits":[{"_index":"fra:user-1","_id":"1","_source":{"username":"Ana","card":"<<users|card|Ana|7>>"}},{"_index":"fra:user-1","_id":"2","_source":{"card":"<<users|card|Ana|7>>"}},{"_index":"fra:.fs-user-2026.11.25-000001","_source":{"document":{"source":{"card":"<<users|card|Ana|8>>","username":"Ana"}}}},{"_index":"fra:plain","_source":{"username":"Ana","card":"<<users|card|Ana|7>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"fra:user-1","_id":"1","_source":{"username":"Ana","card":7}},{"_index":"fra:user-1","_id":"2","_source":{"card":"<<users|card|Ana|7>>"}},{"_index":"fra:.fs-user-2026.11.25-000001","_source":{"document":{"source":{"card":8,"username":"Ana"}}}},{"_index":"fra:plain","_source":{"username":"Ana","card":"<<users|card|Ana|7>>"}}]}}`,
		counts: map[string]int{"opened users.card plain in fra:user-1": 1, "opened users.card plain in fra:.fs-user-2026.11.25-000001": 1, "unopened no_subject": 1},
	},
}

func TestFailureStoreReplies(t *testing.T) { testReplies(t, failureCases) }

// Constants are refused at the paths that they have where the search looks, on remote clusters too, and nowhere else.
func TestFailureStoreAndRemoteQueries(t *testing.T) {
	e, cluster := planEngine(t)
	cluster.names["fra:user*"] = Resolved{Names: []string{"fra:user*"}}
	cluster.names["fra:*"] = Resolved{Names: []string{"fra:*"}}
	cluster.names["plain,fra:user-1"] = Resolved{Names: []string{"plain", "fra:user-1"}}
	for _, c := range []struct {
		path, body string
		refused    bool
	}{
		{"/user::failures/_search", `{"query":{"term":{"document.source.card":"4111"}}}`, true},
		{"/user%3A%3Afailures/_search", `{"query":{"match":{"document.source.pay.iban":"4111"}}}`, true},
		{"/user::failures/_search", `{"query":{"term":{"card":"4111"}}}`, true},
		{"/user::failures/_search", `{"query":{"multi_match":{"query":"4111","fields":["document.source.*"]}}}`, true},
		{"/user::failures/_search", `{"query":{"query_string":{"query":"document.source.card:4111"}}}`, true},
		{"/user::failures/_search?q=document.source.card:4111", ``, true},
		{"/user::failures/_search", `{"query":{"term":{"document.source.username":"Ana"}}}`, false},
		{"/user::failures/_search", `{"query":{"term":{"error.type":"x"}}}`, false},
		{"/user::failures/_search", `{"query":{"exists":{"field":"document.source.card"}}}`, false},
		{"/.fs-user-2026.11.25-000001/_count", `{"query":{"term":{"document.source.card":"4111"}}}`, true},
		{"/user/_search", `{"query":{"term":{"document.source.card":"4111"}}}`, false},
		{"/_search", `{"pit":{"id":"x"},"query":{"term":{"document.source.card":"4111"}}}`, true},
		{"/fra:user*/_search", `{"query":{"term":{"card":"4111"}}}`, true},
		{"/fra:*/_search", `{"query":{"term":{"card":"4111"}}}`, true},
		{"/fra:*/_search", `{"query":{"term":{"document.source.card":"4111"}}}`, true},
		{"/plain,fra:user-1/_search", `{"query":{"term":{"card":"4111"}}}`, true},
		{"/fra:user-1::failures/_search", `{"query":{"term":{"document.source.card":"4111"}}}`, true},
		{"/fra:user-1/_search", `{"query":{"term":{"document.source.card":"4111"}}}`, false},
		{"/fra:users/_search", `{"query":{"term":{"card":"4111"}}}`, false},
		{"/fra:user*/_search", `{"query":{"term":{"username":"Ana"}}}`, false},
	} {
		path, query, _ := strings.Cut(c.path, "?")
		call := &Call{Method: "POST", Path: path, Query: query, HasBody: c.body != "", Caller: &fakeCaller{}, Counter: &fakeCounter{}}
		if c.body != "" {
			call.ContentType = []string{"application/json"}
		}
		up := ""
		plan, err := e.Plan(t.Context(), call)
		if err == nil && plan.Transform != nil {
			var out strings.Builder
			_, err = plan.Transform.Request(t.Context(), plan, strings.NewReader(c.body), &out)
			plan.Transform.Close()
			up = out.String()
		}
		switch {
		case !c.refused && err != nil:
			t.Errorf("%s %s: %v", c.path, c.body, err)
		case c.refused && (err == nil || asFault(err).Type != "esproxy_protected_query" || strings.Contains(up, "4111")):
			t.Errorf("%s %s: %v, sent %s", c.path, c.body, err, up)
		}
	}
}

// Elasticsearch writes failure stores itself. A document that is put straight into one of its indices is sealed where the failed
// document lies; through the selector nothing is written, and nothing goes up.
func TestFailureStoreWrites(t *testing.T) {
	e, _, _ := fakeEngine(t)
	const index = ".fs-user-2026.11.25-000001"
	sent := func(line, body string) outcome {
		call := updateCall("", "")
		call.Method, call.Path, _ = strings.Cut(line, " ")
		call.Path, call.Query, _ = strings.Cut(call.Path, "?")
		return exchange(t, e, call, strings.NewReader(body), func(Target, []byte) (int, string) {
			return 200, `{"errors":false,"items":[{"index":{"_index":"plain","status":201}}]}`
		})
	}
	o := sent("PUT /"+index+"/_doc/1?if_seq_no=1&if_primary_term=1", `{"card":"4111","document":{"id":"9","source":{"card":"4111","username":"Ana","note":"x"}}}`)
	token := fakeToken("users", "card", "Ana", `"4111"`)
	if want := `{"card":"` + token + `","document":{"id":"9","source":{"card":"` + token + `","username":"Ana","note":"x"}}}`; o.err != nil || o.up != want {
		t.Errorf("%v %s", o.err, o.up)
	}
	if o = sent("PUT /"+index+"/_doc/1?if_seq_no=1&if_primary_term=1", `{"document":{"source":{"card":"4111"}}}`); o.err == nil || asFault(o.err).Type != "esproxy_subject" {
		t.Errorf("without a subject: %v", o.err)
	}
	if o = sent("PUT /user::failures/_doc/1", `{"username":"Ana","card":"4111"}`); o.err == nil || asFault(o.err).Status != 400 || o.up != "" {
		t.Errorf("through the selector: %v %s", o.err, o.up)
	}
	if o = sent("POST /_bulk", `{"index":{"_index":"user::failures"}}`+"\n"+`{"username":"Ana","card":"4111"}`+"\n"+`{"index":{"_index":"plain"}}`+"\n{}\n"); o.err != nil || strings.Contains(o.up, "4111") ||
		!strings.Contains(o.reply, "write the corrected document to the data stream") {
		t.Errorf("in a bulk: %v %s %s", o.err, o.up, o.reply)
	}
	if o = sent("PUT /plain::failures/_doc/1", `{"card":"1"}`); o.err != nil || o.up != `{"card":"1"}` {
		t.Errorf("an unprotected name is Elasticsearch's to judge: %v %s", o.err, o.up)
	}
}

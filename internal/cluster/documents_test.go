package cluster_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

// answer builds an _mget reply for the refs of the request by a function of index and id.
func answer(body string, doc func(index, id string) string) string {
	var out []string
	for _, d := range gjson.Get(body, "docs").Array() {
		out = append(out, doc(d.Get("_index").Str, d.Get("_id").Str))
	}
	return `{"docs":[` + strings.Join(out, ",") + `]}`
}

func foundDoc(index, id string) string {
	return fmt.Sprintf(`{"_index":%q,"_id":%q,"_seq_no":7,"_primary_term":2,"found":true,"_source":{"user": "Ana"}}`, index, id)
}

func TestDocuments(t *testing.T) {
	f, c := someCluster(t, cluster.Config{})
	var sent string
	f.on("POST /_mget", func(_, body string) (int, string) {
		sent = body
		return 200, answer(body, func(index, id string) string {
			if id == "gone" {
				return `{"_index":"` + index + `","_id":"gone","found":false}`
			}
			return foundDoc(index, id)
		})
	})
	got, err := c.Documents(t.Context(), f.caller(), []rewrite.Ref{
		{Index: "user", ID: "1", Routing: "r"}, {Index: "none", ID: "2"}, {Index: "logs", ID: "gone"}, {Index: "user-2", ID: "4"}}, []string{"user", "a.b"})
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"docs":[{"_index":"user-1","_id":"1","routing":"r","_source":["user","a.b"]},` +
		`{"_index":".ds-logs-2026.11.02-000002","_id":"gone","_source":["user","a.b"]},{"_index":"user-2","_id":"4","_source":["user","a.b"]}]}`
	if sent != want {
		t.Errorf("sent\n%s, want\n%s", sent, want)
	}
	if s := got[0]; !s.Found || s.Index != "user-1" || s.SeqNo != 7 || s.PrimaryTerm != 2 || string(s.Source) != `{"user": "Ana"}` {
		t.Errorf("got %+v", s)
	}
	if got[1].Found || got[2].Found || !got[3].Found || got[3].Index != "user-2" {
		t.Errorf("got %+v", got)
	}
	for _, name := range []string{"never", "logs::failures", "empty"} {
		_, err := c.Documents(t.Context(), f.caller(), []rewrite.Ref{{Index: name, ID: "1"}}, nil)
		wantFault(t, err, 400, cluster.FaultName, "takes no writes")
	}
	// An alias may route what goes through it; what the request says itself is left to Elasticsearch to judge.
	f.set("GET /_alias", 200, `{"user-1":{"aliases":{"ana":{"index_routing":"a","search_routing":"a,b"},"user":{}}}}`)
	c.Changed()
	if _, err := c.Documents(t.Context(), f.caller(), []rewrite.Ref{{Index: "ana", ID: "1"}, {Index: "ana", ID: "2", Routing: "z"}, {Index: "user", ID: "3"}}, nil); err != nil {
		t.Fatal(err)
	}
	const routed = `{"docs":[{"_index":"user-1","_id":"1","routing":"a","_source":false},{"_index":"user-1","_id":"2","routing":"z","_source":false},{"_index":"user-1","_id":"3","_source":false}]}`
	if sent != routed {
		t.Errorf("sent\n%s, want\n%s", sent, routed)
	}
	f.take()
	if got, err := c.Documents(t.Context(), f.caller(), nil, nil); err != nil || len(got) != 0 || len(f.take()) != 0 {
		t.Errorf("no refs: %v %v", got, err)
	}
}

func TestDocumentsWho(t *testing.T) {
	f, c := someCluster(t, cluster.Config{})
	refs := []rewrite.Ref{{Index: "user-1", ID: "a"}, {Index: "user-2", ID: "b"}, {Index: "lone", ID: "c"}}
	denied := `{"_index":"user-2","_id":"b","error":{"type":"security_exception","reason":"no"}}`
	byAlice := func(status int, doc func(index, id string) string) {
		f.on("POST /_mget", func(auth, body string) (int, string) {
			if auth == "own" {
				return 200, answer(body, foundDoc)
			}
			return status, answer(body, doc)
		})
	}
	// One document is denied: only that is asked for with the proxy's own credentials.
	byAlice(200, func(index, id string) string {
		if id == "b" {
			return denied
		}
		return foundDoc(index, id)
	})
	got, err := c.Documents(t.Context(), f.caller(), refs, nil)
	if err != nil || !got[0].Found || !got[1].Found || !got[2].Found || got[1].Index != "user-2" {
		t.Errorf("got %+v %v", got, err)
	}
	if f.count("own POST /_mget") != 1 || f.count("alice POST /_mget") != 1 {
		t.Errorf("asked %q", f.take())
	}
	byAlice(403, foundDoc)
	if got, err = c.Documents(t.Context(), f.caller(), refs, nil); err != nil || !got[2].Found {
		t.Errorf("403: got %+v %v", got, err)
	}
	f.take()
	byAlice(401, foundDoc)
	_, err = c.Documents(t.Context(), f.caller(), refs, nil)
	wantFault(t, err, 401, cluster.FaultLookup)
	if n := f.count("own POST /_mget"); n != 0 {
		t.Error("after a 401 the proxy's own credentials were used")
	}
	for _, status := range []int{401, 403} {
		f.on("POST /_mget", func(auth, _ string) (int, string) {
			if auth == "own" {
				return status, `{}`
			}
			return 403, `{}`
		})
		_, err = c.Documents(t.Context(), f.caller(), refs, nil)
		wantFault(t, err, 403, cluster.FaultLookup, "read", "ELASTICSEARCH_USERNAME")
	}
}

func TestDocumentsFailures(t *testing.T) {
	f, c := someCluster(t, cluster.Config{})
	ref := []rewrite.Ref{{Index: "lone", ID: "a"}}
	for _, reply := range []string{``, `<html>`, `null`, `{}`, `{"docs":[]}`, `{"docs":[{}]}`, `{"docs":[{"_id":"b","found":false}]}`, `{"docs":[{"_id":"a"}]}`,
		`{"docs":[{"_id":"a","found":true}]}`, `{"docs":[{"_id":"a","found":"false"}]}`, `{"docs":[{"_id":"a","found":true,"_seq_no":"1","_primary_term":1}]}`,
		`{"docs":[{"_id":"a","error":{"type":"index_closed_exception"}}]}`, `{"docs":[{"_id":"a","found":false}`} {
		f.set("POST /_mget", 200, reply)
		_, err := c.Documents(t.Context(), f.caller(), ref, nil)
		wantFault(t, err, 503, cluster.FaultLookup)
	}
	for _, status := range []int{400, 429, 500, 502, 503} {
		f.set("POST /_mget", status, `{}`)
		_, err := c.Documents(t.Context(), f.caller(), ref, nil)
		wantFault(t, err, 503, cluster.FaultLookup)
	}
	f.srv.Close()
	_, err := c.Documents(t.Context(), f.caller(), ref, nil)
	wantFault(t, err, 503, cluster.FaultLookup)
}

// A reply over the limit is asked for again in smaller steps.
func TestDocumentsHuge(t *testing.T) {
	f, c := someCluster(t, cluster.Config{})
	var refs []rewrite.Ref
	for i := range 120 {
		refs = append(refs, rewrite.Ref{Index: "lone", ID: fmt.Sprint(i)})
	}
	pad := strings.Repeat("x", 1<<10)
	f.on("POST /_mget", func(_, body string) (int, string) {
		return 200, answer(body, func(index, id string) string {
			return `{"_index":"lone","_id":"` + id + `","_seq_no":1,"_primary_term":1,"found":true,"_source":{"u":"` + pad + `"}}`
		})
	})
	// 120 and 50 documents are too many at once, single ones (and the last 20) fit.
	got, err := c.Documents(t.Context(), f.caller(), refs, []string{"u"})
	if err != nil || !got[0].Found || !got[119].Found || len(got[60].Source) < 1<<10 {
		t.Fatalf("%v", err)
	}
	pad = strings.Repeat("x", 33<<10)
	_, err = c.Documents(t.Context(), f.caller(), refs[:2], []string{"u"})
	wantFault(t, err, 503, cluster.FaultLookup)
}

// An alias that was moved since the view was made is followed.
func TestDocumentsMovedAlias(t *testing.T) {
	f, c := someCluster(t, cluster.Config{})
	f.on("POST /_mget", func(_, body string) (int, string) {
		return 200, answer(body, func(index, id string) string {
			if index == "lone" {
				return `{"_index":"lone","_id":"a","error":{"type":"index_not_found_exception"}}`
			}
			return foundDoc(index, id)
		})
	})
	mustResolve(t, c, "sole")
	f.set("GET /_alias", 200, `{"lone-2":{"aliases":{"sole":{}}}}`)
	got, err := c.Documents(t.Context(), f.caller(), []rewrite.Ref{{Index: "sole", ID: "a"}, {Index: "lone", ID: "a"}}, nil)
	if err != nil || !got[0].Found || got[0].Index != "lone-2" || got[1].Found {
		t.Errorf("got %+v %v", got, err)
	}
}

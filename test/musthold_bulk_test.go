package test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// badItems are the seven bad items of the bulks below: by ordinal the document and the error.
var badItems = map[int]struct{ action, doc, kind string }{
	0:   {"index", `{"username":"Ana","credit_card_num":"c4n4ry"`, "esproxy_bad_document"},
	13:  {"index", `{"credit_card_num":"c4n4ry"}`, "esproxy_subject"},
	14:  {"create", `{"username":["Ana"],"credit_card_num":"c4n4ry"}`, "esproxy_subject"},
	500: {"index", `{"username":"Ana","credit_card_num":"c4n4ry","note":$T}`, "esproxy_misplaced_token"},
	501: {"index", `{"username":"Ana","credit_card_num":"c4n4ry","esproxy_x":1}`, "esproxy_reserved_name"},
	777: {"index", `{"username":"Ana","credit_card_num":"c4n4ry","text":"$L"}`, "esproxy_document_too_large"},
	999: {"index", `{"username":"Ana","username":"Bob","credit_card_num":"c4n4ry"}`, "esproxy_bad_document"},
}

// TestBulkKeepsItems sends bulks of 1,000 actions with 7 bad ones: each is answered at its place with its own
// error, and the others are carried out.
func TestBulkKeepsItems(t *testing.T) {
	t.Parallel()
	s := start(t, config{env: []string{"ESPROXY_MAX_DOCUMENT=64KiB", "ESPROXY_MAX_HIT=1MiB"}})
	s.must(s.do("PUT", "/$Puser/_doc/x", `{"username":"Ana","credit_card_num":"1"}`), 201)
	token := s.must(s.direct("GET", "/$Puser/_doc/x", ""), 200).json("_source.credit_card_num").Raw
	const actions = 1000
	for round, c := range []struct {
		name, query string
		padding     int
	}{
		{"framed whole", "", 0},
		{"streamed", "", 900},
		{"Beats and Logstash", "&filter_path=errors,items.*.error,items.*.status", 0},
		{"Beats and Logstash, streamed", "&filter_path=errors,items.*.error,items.*.status", 900},
		{"status and id", "&filter_path=items.*.status,items.*._id", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := func(i int) string { return fmt.Sprintf("r%d-%d", round, i) }
			var b strings.Builder
			for i := range actions {
				action, doc := "index", fmt.Sprintf(`{"username":"u%d","credit_card_num":"c4n4ry-%d","text":%q}`, i%50, i, strings.Repeat("x", c.padding))
				bad, isBad := badItems[i]
				switch {
				case isBad:
					action, doc = bad.action, strings.NewReplacer("$T", token, "$L", strings.Repeat("y", 70<<10)).Replace(bad.doc)
				case i%10 == 3 && i > 0: // updates of what this bulk has written
					fmt.Fprintf(&b, "{\"update\":{\"_id\":%q}}\n{\"doc\":{\"n\":%d}}\n", id(i-2), i)
					continue
				case i%10 == 5:
					fmt.Fprintf(&b, "{\"delete\":{\"_id\":%q}}\n", "nobody-"+id(i))
					continue
				case i%10 == 7:
					action = "create"
				}
				fmt.Fprintf(&b, "{%q:{\"_id\":%q}}\n%s\n", action, id(i), doc)
			}
			from := s.rec.count()
			a := s.must(s.send(request{method: "POST", path: "/$Puser/_bulk?refresh=true" + c.query, body: strings.NewReader(b.String()), header: http.Header{"Content-Type": {"application/x-ndjson"}}}), 200)
			if strings.Contains(c.query, "errors") || c.query == "" {
				if a.json("errors").Raw != "true" {
					t.Errorf("errors is %s", a.json("errors").Raw)
				}
			}
			items := a.json("items").Array()
			if len(items) != actions {
				t.Fatalf("%d items of %d", len(items), actions)
			}
			reported := 0
			for i, item := range items {
				var action string
				var got gjson.Result
				item.ForEach(func(k, v gjson.Result) bool { action, got = k.String(), v; return true })
				bad, isBad := badItems[i]
				wantAction, status := "index", int64(201)
				switch {
				case isBad:
					reported++
					wantAction, status = bad.action, 400
					if bad.kind == "esproxy_document_too_large" {
						status = 413
					}
					if kind := got.Get("error.type").String(); kind != bad.kind && !strings.Contains(c.name, "id") {
						t.Errorf("item %d: error %q, want %q: %s", i, kind, bad.kind, got.Raw)
					}
					if !strings.Contains(c.name, "id") && got.Get("error.reason").String() == "" {
						t.Errorf("item %d: no reason: %s", i, got.Raw)
					}
				case i%10 == 3:
					wantAction, status = "update", 200
					if _, ok := badItems[i-2]; ok {
						status = 404
					}
				case i%10 == 5:
					wantAction, status = "delete", 404
				case i%10 == 7:
					wantAction = "create"
				}
				if action != wantAction || got.Get("status").Int() != status {
					t.Errorf("item %d: %s, want %s with %d", i, tail(item.Raw, 300), wantAction, status)
				}
				if wantID := got.Get("_id"); wantID.Exists() && !strings.HasSuffix(wantID.String(), id(i)) && wantAction != "update" {
					t.Errorf("item %d: id %s", i, wantID.Raw)
				}
				if c.query == "" && !got.Get("_id").Exists() || strings.HasPrefix(c.query, "&filter_path=errors") && got.Get("_id").Exists() {
					t.Errorf("item %d: not cut as the reply: %s", i, got.Raw)
				}
			}
			if reported != len(badItems) {
				t.Errorf("%d bad items of %d", reported, len(badItems))
			}
			if in := s.rec.leaks(from, "c4n4ry"); in != "" {
				t.Errorf("a value went upstream: %s", tail(in, 500))
			}
			for i := range badItems {
				if got := s.direct("GET", "/$Puser/_doc/"+id(i), ""); got.status != 404 {
					t.Errorf("item %d was written: %s", i, got.body)
				}
			}
			for _, i := range []int{1, 12, 502, 998} {
				if got := s.must(s.as("full", "GET", "/$Puser/_doc/"+id(i), ""), 200).json("_source.credit_card_num").String(); got != "c4n4ry-"+strconv.Itoa(i) {
					t.Errorf("item %d reads %q", i, got)
				}
			}
		})
	}
	t.Run("a filter that hides items", func(t *testing.T) {
		a := s.do("POST", "/$Puser/_bulk?filter_path=errors,items.*.error", "{\"index\":{\"_id\":\"h\"}}\n{\"username\":\"Ana\"}\n{\"index\":{\"_id\":\"i\"}}\n{\"credit_card_num\":\"1\"}\n")
		s.must(a, 400)
		if !strings.Contains(a.body, "filter_path") {
			t.Error(a.body)
		}
	})
}

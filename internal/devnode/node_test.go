//go:build !nodevnode

package devnode_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/devnode"
)

// do sends one request straight to the node.
func do(t testing.TB, n *devnode.Node, method, target, body string) (int, string) {
	t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func want(t testing.TB, n *devnode.Node, method, target, body string, status int, parts ...string) string {
	t.Helper()
	code, got := do(t, n, method, target, body)
	if code != status {
		t.Fatalf("%s %s: got %d, want %d: %s", method, target, code, status, got)
	}
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Fatalf("%s %s: no %s in %s", method, target, p, got)
		}
	}
	return got
}

func TestUnsupportedIs501(t *testing.T) {
	n := newNode(t, "")
	want(t, n, "PUT", "/i", `{"mappings":{"properties":{"k":{"type":"keyword"}}}}`, 200)
	for _, c := range []struct{ method, target, body string }{
		{"GET", "/_sql", ""},
		{"POST", "/_sql", `{"query":"x"}`},
		{"GET", "/_cat/nodes", ""},
		{"PUT", "/_template/x", `{}`},
		{"POST", "/_reindex", `{}`},
		{"POST", "/i/_update_by_query", `{}`},
		{"POST", "/i/_search", `{"aggs":{"a":{"terms":{"field":"k"}}}}`},
		{"POST", "/i/_search", `{"query":{"query_string":{"query":"x"}}}`},
		{"POST", "/i/_search", `{"query":{"bool":{"must":{"wildcard":{"k":"x*"}}}}}`},
		{"POST", "/i/_search", `{"highlight":{}}`},
		{"POST", "/i/_search", `{"sort":[{"_script":{}}]}`},
		{"POST", "/i/_update/1", `{"script":"ctx.op='none'"}`},
		{"POST", "/i/_bulk", "{\"update\":{\"_id\":\"1\"}}\n{\"script\":\"x\"}\n"},
		{"PUT", "/i/_doc/1?version=3&version_type=external", `{}`},
		{"PUT", "/j", `{"mappings":{"properties":{"g":{"type":"geo_point"}}}}`},
		{"PUT", "/j", `{"mappings":{"runtime":{}}}`},
		{"PUT", "/j", `{"settings":{"number_of_shards":2}}`},
		{"PUT", "/j", `{"aliases":{"a":{"filter":{"match_all":{}}}}}`},
		{"GET", "/i/_search?q=a%20AND%20b", ""},
		{"GET", "/i/_search?stored_fields=k", ""},
	} {
		_, got := do(t, n, c.method, c.target, c.body)
		var e struct {
			Error struct {
				RootCause []struct{ Type, Reason string } `json:"root_cause"`
				Type      string
				Reason    string
			}
			Status int
		}
		if err := json.Unmarshal([]byte(got), &e); err != nil {
			t.Errorf("%s %s %s: %v in %s", c.method, c.target, c.body, err, got)
			continue
		}
		if e.Status != 501 || e.Error.Type != "devnode_not_implemented" || len(e.Error.RootCause) != 1 || e.Error.RootCause[0].Reason != e.Error.Reason {
			t.Errorf("%s %s %s: got %s", c.method, c.target, c.body, got)
		}
	}
	want(t, n, "GET", "/j", "", 404)
}

func TestSourceIsKeptByteForByte(t *testing.T) {
	n := newNode(t, "")
	src := "{ \"a\" : 1.0E+5,\t\"b\":\"\\ud800 \\u00e9\",\n \"big\": 123456789012345678, \"c\":[ ] }  "
	want(t, n, "PUT", "/i/_doc/1", src, 201)
	if got := want(t, n, "GET", "/i/_source/1", "", 200); got != src {
		t.Errorf("got %q, want %q", got, src)
	}
	want(t, n, "POST", "/i/_search", "", 200, `"_source":`+src)
	want(t, n, "GET", "/i/_doc/1", "", 200, `"_source":`+src)
}

func TestRestart(t *testing.T) {
	dir := t.TempDir()
	n := newNode(t, dir)
	want(t, n, "PUT", "/i", `{"mappings":{"properties":{"k":{"type":"keyword"},"d":{"type":"date","format":"yyyy-MM-dd HH:mm:ss"}},"_meta":{"a":1}},"settings":{"number_of_replicas":0,"refresh_interval":"3s"},"aliases":{"w":{"is_write_index":true}}}`, 200)
	want(t, n, "PUT", "/w/_doc/1?routing=r%20s", `{"k":"v","d":"2021-01-01 00:00:00","t":"Some words"}`, 201)
	want(t, n, "PUT", "/w/_doc/2", `{"k":"v2"}`, 201)
	want(t, n, "PUT", "/w/_doc/1?routing=r%20s", `{"k":"v",  "d":"2022-01-01 00:00:00","t":"Some words"}`, 200)
	want(t, n, "DELETE", "/w/_doc/2", "", 200)
	want(t, n, "PUT", "/gone/_doc/1", `{}`, 201)
	want(t, n, "DELETE", "/gone", "", 200)
	before := want(t, n, "GET", "/i", "", 200)
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, n, "GET", "/i/_doc/1", "", 503)

	n = newNode(t, dir)
	if after := want(t, n, "GET", "/i", "", 200); after != before {
		t.Errorf("after a restart\n got %s\nwant %s", after, before)
	}
	want(t, n, "GET", "/gone", "", 404)
	want(t, n, "GET", "/w/_doc/1", "", 200, `"_version":2,"_seq_no":2,"_primary_term":1,"_routing":"r s"`, `{"k":"v",  "d":`)
	want(t, n, "GET", "/w/_doc/2", "", 404)
	want(t, n, "POST", "/i/_search", `{"query":{"match":{"t":"WORDS"}},"sort":["d"]}`, 200, `"value":1`, `"sort":[1640995200000]`)
	want(t, n, "PUT", "/w/_doc/3", `{"k":"v3"}`, 201, `"_seq_no":4`)
}

func TestBulkOfTenThousand(t *testing.T) {
	for _, dir := range []string{"", t.TempDir()} {
		n := newNode(t, dir)
		var b strings.Builder
		for i := range 10000 {
			fmt.Fprintf(&b, "{\"index\":{\"_index\":\"big\",\"_id\":\"%d\"}}\n{\"n\":%d,\"name\":\"person %d\",\"when\":\"2021-08-23T10:35:24.123Z\"}\n", i, i, i)
		}
		start := time.Now()
		want(t, n, "POST", "/_bulk", b.String(), 200, `"errors":false`)
		took := time.Since(start)
		want(t, n, "GET", "/big/_count", `{"query":{"range":{"n":{"gte":2500,"lt":7500}}}}`, 200, `"count":5000`)
		want(t, n, "POST", "/big/_search", `{"query":{"term":{"name.keyword":"person 77"}}}`, 200, `"_id":"77"`)
		want(t, n, "POST", "/big/_search", `{"sort":[{"n":"desc"}],"size":1}`, 200, `"_id":"9999"`, `"value":10000,"relation":"eq"`)
		t.Logf("folder %v: bulk of 10,000 took %v", dir != "", took)
	}
}

func TestScrollSeesOneMoment(t *testing.T) {
	n := newNode(t, "")
	for i := range 5 {
		want(t, n, "PUT", "/i/_doc/"+strconv.Itoa(i), `{"n":`+strconv.Itoa(i)+`}`, 201)
	}
	var page struct {
		ScrollID string `json:"_scroll_id"`
		Hits     struct {
			Hits []struct {
				ID     string          `json:"_id"`
				Source json.RawMessage `json:"_source"`
			}
		}
	}
	read := func(s string) (ids string) {
		page.Hits.Hits = nil
		if err := json.Unmarshal([]byte(s), &page); err != nil {
			t.Fatal(err)
		}
		for _, h := range page.Hits.Hits {
			ids += h.ID + string(h.Source)
		}
		return ids
	}
	got := read(want(t, n, "POST", "/i/_search?scroll=1m&size=2", `{"sort":["n"]}`, 200))
	want(t, n, "PUT", "/i/_doc/3", `{"n":33}`, 200)
	want(t, n, "DELETE", "/i/_doc/4", "", 200)
	for range 2 {
		got += read(want(t, n, "POST", "/_search/scroll", `{"scroll":"1m","scroll_id":"`+page.ScrollID+`"}`, 200))
	}
	if w := `0{"n":0}1{"n":1}2{"n":2}3{"n":3}4{"n":4}`; got != w {
		t.Errorf("got %s, want %s", got, w)
	}
}

func TestGzipBothWays(t *testing.T) {
	n := newNode(t, "")
	var z bytes.Buffer
	zw := gzip.NewWriter(&z)
	if _, err := zw.Write([]byte(`{"a":"packed"}`)); err != nil {
		t.Fatal(err)
	}
	if err := zw.Close(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest("PUT", "/i/_doc/1", &z)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	if w.Code != 201 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	r = httptest.NewRequest("GET", "/i/_source/1", nil)
	r.Header.Set("Accept-Encoding", "gzip, deflate")
	w = httptest.NewRecorder()
	n.ServeHTTP(w, r)
	if w.Header().Get("Content-Encoding") != "gzip" || w.Header().Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
		t.Fatalf("headers %v", w.Header())
	}
	zr, err := gzip.NewReader(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(zr); err != nil || string(b) != `{"a":"packed"}` {
		t.Fatalf("got %q, %v", b, err)
	}
	r = httptest.NewRequest("PUT", "/i/_doc/1", strings.NewReader("not gzip"))
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Content-Encoding", "gzip")
	w = httptest.NewRecorder()
	n.ServeHTTP(w, r)
	if w.Code != 400 {
		t.Errorf("damaged gzip: got %d", w.Code)
	}
}

// TestFixedReplies checks what cannot be recorded from another server: names
// and features that differ from cluster to cluster.
func TestFixedReplies(t *testing.T) {
	n := newNode(t, "")
	want(t, n, "GET", "/", "", 200, `"number" : "8.19.8"`, `"build_flavor" : "default"`, `"tagline" : "You Know, for Search"`)
	want(t, n, "GET", "/_cluster/health", "", 200, `"status":"green","timed_out":false,"number_of_nodes":1`, `"active_shards_percent_as_number":100.0`)
	want(t, n, "GET", "/_data_stream", "", 200, `{"data_streams":[]}`)
	want(t, n, "GET", "/_data_stream/*", "", 200, `{"data_streams":[]}`)
	want(t, n, "GET", "/_data_stream/x", "", 404, `index_not_found_exception`)
	want(t, n, "GET", "/_nodes/http", "", 200, `"publish_address":"127.0.0.1:9200","max_content_length_in_bytes":104857600`)
	want(t, n, "GET", "/_cluster/settings", "", 200, `{"persistent":{},"transient":{}}`)
	want(t, n, "GET", "/_license", "", 200, `"type" : "basic"`)
	want(t, n, "GET", "/_cat/health", "", 200, ` green 1 1 0 0 0 0 0 0 0 - 100.0%`)
	want(t, n, "PUT", "/i/_doc/1", `{"a":1}`, 201)
	want(t, n, "GET", "/_cat/indices?v", "", 200, "health status index uuid ", "yellow open   i     ")
	want(t, n, "GET", "/_alias", "", 200, `{"i":{"aliases":{}}}`)
	want(t, n, "GET", "/_mapping", "", 200, `{"i":{"mappings":{"properties":{"a":{"type":"long"}}}}}`)
	want(t, n, "GET", "/_search?index=i", "", 200, `"_id":"1"`)
	want(t, n, "GET", "/_all/_count", "", 200, `"count":1`)
	want(t, n, "GET", "/i/_doc/1///", "", 200, `"found":true`)
	want(t, n, "POST", "/_refresh", "", 200, `{"_shards":{"total":2,"successful":1,"failed":0}}`)
}

func TestBodyLimit(t *testing.T) {
	n := newNode(t, "")
	r := httptest.NewRequest("POST", "/_bulk", io.LimitReader(zeros{}, 100<<20+1))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	n.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("got %d, want 413", w.Code)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestConcurrentUse(t *testing.T) {
	n := newNode(t, "")
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 25 {
				id := fmt.Sprintf("%d-%d", g, i)
				if code, b := do(t, n, "PUT", "/i/_doc/"+id, `{"g":`+strconv.Itoa(g)+`,"name":"x y"}`); code != 201 {
					t.Errorf("put: %d %s", code, b)
				}
				if code, b := do(t, n, "POST", "/i/_search", `{"query":{"match":{"name":"x"}},"sort":["g"]}`); code != 200 {
					t.Errorf("search: %d %s", code, b)
				}
				if code, b := do(t, n, "POST", "/i/_update/"+id, `{"doc":{"f`+strconv.Itoa(g)+`":1}}`); code != 200 {
					t.Errorf("update: %d %s", code, b)
				}
				if code, b := do(t, n, "POST", "/i/_search?scroll=1m&size=1", ""); code != 200 {
					t.Errorf("scroll: %d %s", code, b)
				}
			}
		})
	}
	wg.Wait()
	want(t, n, "GET", "/i/_count", "", 200, `"count":100`)
}

func FuzzBulk(f *testing.F) {
	f.Add("{\"index\":{\"_id\":\"1\"}}\n{\"a\":1}\n")
	f.Add("{\"update\":{\"_id\":\"1\"}}\n{\"doc\":{\"a\":{\"b\":[1,null,\"x\"]}},\"doc_as_upsert\":true}\n")
	f.Add("{\"delete\":{\"_id\":\"1\"}}\n{\"create\":{}}\n{\"d\":\"2021-01-01\",\"a.b\":2,\"f\":1e400}\n")
	n := newNode(f, "")
	f.Fuzz(func(t *testing.T, body string) {
		code, got := do(t, n, "POST", "/fuzz/_bulk", body)
		if code < 200 || !json.Valid([]byte(got)) {
			t.Errorf("%d %q for %q", code, got, body)
		}
		do(t, n, "DELETE", "/fuzz", "")
	})
}

func FuzzSearch(f *testing.F) {
	f.Add(`{"query":{"bool":{"must":[{"term":{"k":"a"}},{"range":{"n":{"gte":1}}}]}},"sort":["n","_score"]}`)
	f.Add(`{"query":{"range":{"d":{"gte":"2021-01-01||-1M/d","lt":"now","time_zone":"+01:00","format":"yyyy-MM-dd"}}},"fields":["*"]}`)
	f.Add(`{"query":{"match":{"t":{"query":"a b","operator":"and"}}},"_source":{"includes":["*"],"excludes":["k"]},"search_after":[1]}`)
	n := newNode(f, "")
	want(f, n, "PUT", "/fuzz", `{"mappings":{"properties":{"k":{"type":"keyword"},"n":{"type":"long"},"d":{"type":"date"},"t":{"type":"text"},"ip":{"type":"ip"},"f":{"type":"double"},"b":{"type":"boolean"}}}}`, 200)
	want(f, n, "PUT", "/fuzz/_doc/1", `{"k":"a","n":1,"d":"2021-01-01","t":"a b c","ip":"1.2.3.4","f":1.5,"b":true}`, 201)
	f.Fuzz(func(t *testing.T, body string) {
		code, got := do(t, n, "POST", "/fuzz/_search", body)
		if code < 200 || !json.Valid([]byte(got)) {
			t.Errorf("%d %q for %q", code, got, body)
		}
	})
}

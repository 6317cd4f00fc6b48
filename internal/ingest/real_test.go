package ingest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

// TestRealElasticsearch runs against the server that ESPROXY_TEST_ES_URL names: what the fake endpoint answers is what we think, this
// is what is.
func TestRealElasticsearch(t *testing.T) {
	base := strings.TrimRight(os.Getenv("ESPROXY_TEST_ES_URL"), "/")
	if base == "" {
		t.Skip("ESPROXY_TEST_ES_URL is not set")
	}
	index := fmt.Sprintf("ingest-test-%d", time.Now().UnixNano())
	ask := func(method, path, body string, into any) {
		t.Helper()
		req, err := http.NewRequest(method, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		text, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode >= 300 {
			t.Fatalf("%s %s: %d %v %s", method, path, res.StatusCode, err, text)
		}
		if into != nil {
			if err := json.Unmarshal(text, into); err != nil {
				t.Fatal(err)
			}
		}
	}
	ask("PUT", "/"+index, `{"mappings":{"properties":{"fec_alta":{"type":"date","format":"yyyy-MM-dd HH:mm:ss"},"n":{"type":"integer"}}}}`, nil)
	t.Cleanup(func() { ask("DELETE", "/"+index, "", nil); http.DefaultClient.CloseIdleConnections() })

	e := newEnv(t)
	e.api(sampleapi.Options{N: 100, Gzip: true}, "/users")
	e.opt.ProxyURL, e.opt.Index, e.opt.BatchCount = base, index, 30
	if s := e.mustRun(); s.Created != 100 || s.Updated != 0 {
		t.Errorf("first run: %s", s)
	}
	if s := e.mustRun(); s.Created != 0 || s.Updated != 100 {
		t.Errorf("second run: %s", s)
	}
	ask("POST", "/"+index+"/_refresh", "", nil)
	var found struct {
		Count int `json:"count"`
	}
	ask("POST", "/"+index+"/_count", `{"query":{"term":{"fec_alta":"2022-01-11 00:00:00"}}}`, &found)
	if found.Count != 1 {
		t.Errorf("%d documents of the 11th of January 2022, want 1", found.Count)
	}
	ask("GET", "/"+index+"/_count", "", &found)
	if found.Count != 100 {
		t.Errorf("%d documents, want 100", found.Count)
	}

	// A value that the mapping of the index refuses: the server quotes it, we must not.
	e.opt.Source, e.opt.Stdin = "-", strings.NewReader(`{"id":"a","n":"4111-canary"}`+"\n"+`{"id":"b","n":5}`)
	e.opt.DeadLetter, e.opt.Sealer = filepath.Join(t.TempDir(), "dead.ndjson"), badSealer{}
	s, err := e.run()
	if !isRejected(err) || s.Rejected != 1 || s.Created != 1 {
		t.Fatalf("error %v, %s", err, s)
	}
	list := letters(t, e.opt.DeadLetter)
	if list[0]["id"] != "a" || list[0]["status"] != 400.0 || list[0]["type"] != "document_parsing_exception" {
		t.Errorf("dead letter %v", list[0])
	}
	if strings.Contains(read(t, e.opt.DeadLetter)+e.log.String()+err.Error()+e.out.String(), "canary") {
		t.Error("the value that was refused stands in a file, log or error")
	}
}

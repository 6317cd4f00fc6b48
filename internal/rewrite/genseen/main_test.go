package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"testing"
)

func table(t *testing.T) []row {
	t.Helper()
	tsv, err := os.ReadFile("../routes.tsv")
	if err != nil {
		t.Fatal(err)
	}
	return parse(string(tsv))
}

// marked gives the rows of seen.tsv with their versions, and all versions.
func marked(t *testing.T) (map[string][]string, []string) {
	t.Helper()
	tsv, err := os.ReadFile("../seen.tsv")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	var versions []string
	for line := range strings.Lines(string(tsv)) {
		line = strings.TrimSuffix(line, "\n")
		if list, ok := strings.CutPrefix(line, "# servers: "); ok {
			versions = strings.Fields(list)
		}
		if f := strings.Split(line, "\t"); len(f) == 3 {
			rows[f[0]+" "+f[1]] = strings.Fields(f[2])
		}
	}
	return rows, versions
}

// TestSeenRowsAreOfTheTable fails when a row was taken out of the table or written in another way.
func TestSeenRowsAreOfTheTable(t *testing.T) {
	rows, versions := marked(t)
	if len(versions) < 4 || len(rows) < 400 {
		t.Fatalf("%d versions, %d rows", len(versions), len(rows))
	}
	for _, r := range table(t) {
		delete(rows, r.method+" "+r.template)
	}
	for line := range rows {
		t.Errorf("%s is in seen.tsv and not in routes.tsv", line)
	}
}

// TestServerKnowsWhatWasSeen asks a real server for each row that is marked as seen on its version, and for each that is not.
func TestServerKnowsWhatWasSeen(t *testing.T) {
	base := os.Getenv("ESPROXY_TEST_ES_URL")
	if base == "" {
		t.Skip("needs a real Elasticsearch: set ESPROXY_TEST_ES_URL")
	}
	s, err := connect(base)
	if err != nil {
		t.Fatal(err)
	}
	rows, versions := marked(t)
	if !slices.Contains(versions, s.version) {
		t.Skipf("needs a server of one of the versions %v, not %s", versions, s.version)
	}
	for _, r := range table(t) {
		known, err := s.knows(r)
		if err != nil {
			t.Fatal(err)
		}
		if was := slices.Contains(rows[r.method+" "+r.template], s.version); was != known {
			t.Errorf("%s %s: the server has it: %v, seen.tsv: %v; run: go run ./genseen", r.method, r.template, known, was)
		}
	}
}

// fakeServer has few routes, one of them for any index.
func fakeServer(t *testing.T, capabilities bool) *server {
	t.Helper()
	routes := func(path string) (methods []string) {
		switch segs := strings.Split(strings.Trim(path, "/"), "/"); {
		case path == "/_nodes/x":
			return []string{"GET"}
		case path == "/_bulk":
			return []string{"GET", "PUT", "POST"} // GET is that of any index
		case len(segs) == 1:
			return []string{"GET", "PUT"}
		case len(segs) == 2 && segs[1] == "clear":
			return []string{"POST"}
		}
		return nil
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/_nodes/_local":
			fmt.Fprint(w, `{"nodes":{"a":{"version":"1.2.3"}}}`)
		case r.URL.Path == "/_capabilities" && capabilities:
			fmt.Fprintf(w, `{"supported":%v}`, slices.Contains(routes(r.URL.Query().Get("path")), r.URL.Query().Get("method")))
		case r.URL.Path == "/_capabilities":
			fmt.Fprint(w, `{"error":"no such route"}`)
		case r.Method == "OPTIONS":
			w.Header().Set("Allow", strings.Join(routes(r.URL.Path), ","))
		case r.Method == "PUT" && r.URL.Path == "/_bulk":
			fmt.Fprint(w, `{"error":"no parameter [esproxy_nobody] for a bulk"}`)
		case !r.URL.Query().Has("esproxy_nobody"):
			t.Errorf("%s %s might be carried out", r.Method, r.URL)
		default:
			fmt.Fprintf(w, `{"error":"%s has no parameter [esproxy_nobody]"}`, r.URL.Path)
		}
	}))
	t.Cleanup(srv.Close)
	s, err := connect(srv.URL)
	if err != nil || s.version != "1.2.3" || s.asks != capabilities {
		t.Fatal(s, err)
	}
	return s
}

func TestRoutesOfAnyIndexAreNoEvidence(t *testing.T) {
	for _, capabilities := range []bool{true, false} {
		s := fakeServer(t, capabilities)
		for line, want := range map[string]bool{
			"GET /_nodes/{id}": true, "PUT /_nodes/{id}": false, "GET /{index}": true, "DELETE /{index}": false, "POST /_bulk": true, "PUT /_bulk": true, "GET /_bulk": false,
			"GET /_other": false, "POST /_cache/clear": false, "POST /{index}/clear": true,
		} {
			method, template, _ := strings.Cut(line, " ")
			if known, err := s.knows(row{method, template, "x"}); err != nil || known != want {
				t.Errorf("%s with capabilities %v: %v, %v", line, capabilities, known, err)
			}
		}
		out, err := seen([]row{{"PUT", "/_bulk", "bulk"}, {"GET", "/_other", "other"}}, []string{s.base})
		if err != nil || !strings.HasSuffix(string(out), "# servers: 1.2.3\nPUT\t/_bulk\t1.2.3\n") {
			t.Errorf("%s, %v", out, err)
		}
	}
}

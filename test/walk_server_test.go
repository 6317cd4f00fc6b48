package test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// notOnServer are rows that a walk leaves alone on a real server, with the reason. The walk over the recorder takes them all.
var notOnServer = []struct{ rows, reason string }{
	{`^DELETE `, "deletes what later visits need"},
	{`/_close|/_open|/_block/|/_freeze|/_unfreeze|/_cold`, "makes the index unreadable"},
	{`/_cluster/(settings|reroute|voting_config)|/_nodes/.*(shutdown|reload)|/_shutdown|/_features/_reset|_migration|/_desired`, "changes the cluster for everybody"},
	{`/_security/|/_license|/_snapshot|/_slm|/_ilm|/_ml/|/_watcher|/_ccr|/_autoscaling|/_transform|/_rollup|/_enrich|/_connector|/_inference|/_profiling`, "is of a module that these servers have in part or not at all"},
	{`/_tasks.*/_cancel|/_search/scroll.*/_all|/_dangling|/_forcemerge`, "reaches work or indices of others"},
}

func leftAlone(r row) bool {
	return slices.ContainsFunc(notOnServer, func(n struct{ rows, reason string }) bool {
		return regexp.MustCompile(n.rows).MatchString(r.String())
	})
}

// TestWalkOnServer sends a sample of the walk to a real server, by every row that it has, and then looks for the values in all that it
// keeps: documents, mappings, settings, templates, pipelines, stored scripts, aliases, tasks.
func TestWalkOnServer(t *testing.T) {
	needReal(t)
	walkOnServer(t, start(t, config{env: []string{"ESPROXY_LOG_LEVEL=info"}}))
}

// TestWalkOnOpenSearch does the same where data streams, search templates, percolator and rank evaluation are.
func TestWalkOnOpenSearch(t *testing.T) {
	url := strings.TrimRight(os.Getenv("ESPROXY_TEST_OS_URL"), "/")
	if url == "" {
		t.Skip("needs OpenSearch: set ESPROXY_TEST_OS_URL")
	}
	walkOnServer(t, start(t, config{server: url, env: []string{"ESPROXY_LOG_LEVEL=info"}}))
}

func walkOnServer(t *testing.T, s *stack) {
	version := ""
	s.must(s.direct("GET", "/_nodes?filter_path=nodes.*.version", ""), 200).json("nodes").ForEach(func(_, node gjson.Result) bool {
		version = node.Get("version").String()
		return false
	})
	seen, err := os.ReadFile("../internal/rewrite/seen.tsv")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]bool{}
	for line := range strings.Lines(string(seen)) {
		f := strings.Split(strings.TrimSpace(line), "\t")
		if len(f) == 3 && slices.Contains(strings.Fields(f[2]), version) {
			has[f[0]+" "+f[1]] = true
		}
	}
	if len(has) < 200 {
		t.Fatalf("version %q has %d rows in seen.tsv", version, len(has))
	}
	s.must(s.do("PUT", "/$Puser/_doc/kept?refresh=true", `{"username":"Ana","n":1}`), 201)
	s.must(s.do("PUT", "/$Pfree/_doc/kept?refresh=true", `{"n":1}`), 201)
	s.must(s.do("POST", "/_aliases", `{"actions":[{"add":{"index":"$Puser","alias":"$Palias"}}]}`), 200)
	t.Cleanup(func() { s.forget() })

	w := newWire(t, s)
	defer w.close()
	visits := map[int64]*visit{}
	var next int64
	done, alone := 0, 0
	for n, r := range tableRows(t) {
		if !has[r.method+" "+r.template] {
			continue
		}
		if leftAlone(r) {
			alone++
			continue
		}
		done++
		send := func(v visit) {
			v.row, v.value = r, next
			visits[next] = &v
			if a := w.send(&v); a.err != nil {
				t.Errorf("%s: %v", &v, a.err)
			}
		}
		list, _ := r.forms()
		list = slices.DeleteFunc(slices.Clone(list), func(f form) bool { return f.free })
		target := func() string { return spelledTargets[int(next)%4] }
		for i := range min(6, 2*len(list)) {
			next++
			f, p, d := list[(n+i)%len(list)], protectedPlaces[(n+i)%len(protectedPlaces)], dialects[0]
			if i%2 == 1 {
				d = dialects[(n+i)%len(dialects)]
			}
			at := target()
			sent := d.make(t, strings.ReplaceAll(f.fill(p, at, value(canaryHead, next)), "$P", s.prefix), f.lines())
			send(visit{what: f.name + ", " + p.name + ", " + d.name, path: r.path(at), header: sent.header, body: sent.body})
		}
		for _, u := range []string{"q=$N:$C", "$N=$C"} {
			next++
			query := strings.NewReplacer("$N", protectedPlaces[0].field, "$C", value(canaryHead, next)).Replace(u)
			send(visit{what: "query " + u, path: r.path(target()) + "?" + query})
		}
	}
	// A value that the server does hold must be found, or the search for the others says nothing.
	s.must(s.direct("PUT", "/$Pfree/_doc/control?refresh=true", `{"x":"`+value(controlHead, 1)+`"}`), 201)
	s.must(s.direct("POST", "/$P*/_refresh?expand_wildcards=all", ""), 200)
	control := false
	for _, path := range []string{
		"/$P*/_search?size=5000&expand_wildcards=all&version=true", "/$P*/_mapping?expand_wildcards=all", "/$P*/_settings?expand_wildcards=all", "/_cluster/state", "/_alias",
		"/_ingest/pipeline", "/_index_template", "/_component_template", "/_template", "/_tasks?detailed=true",
	} {
		a := s.direct("GET", path, "")
		if a.status == 404 || a.status == 400 || a.status == 405 { // not on this server
			if strings.Contains(path, "_search") {
				t.Fatalf("%s: %s", path, tail(a.body, 300))
			}
			continue
		}
		s.must(a, 200)
		for _, in := range readingsOf([]byte(a.body), 1) {
			if id, ok := find(in, canaryHead, canaryMarks); ok {
				t.Errorf("%s holds the value of %v", path, visits[id])
			}
			_, ok := find(in, controlHead, controlMarks)
			control = control || ok
		}
	}
	if !control {
		t.Error("the search does not find a value that is there")
	}
	if done < 150 || len(visits) < 600 {
		t.Errorf("%d rows and %d visits: the walk says nothing", done, len(visits))
	}
	t.Logf("%s: %d rows, %d visits; %d rows left alone:", version, done, len(visits), alone)
	for _, n := range notOnServer {
		t.Logf("  %s: %s", n.rows, n.reason)
	}
}

// forget deletes what a walk may have left beside indices.
func (s *stack) forget() {
	for _, kind := range []string{"/_data_stream", "/_index_template", "/_component_template", "/_template", "/_ingest/pipeline", "/_search/pipeline"} {
		s.direct("DELETE", kind+"/$P*", "")
	}
	a := s.direct("GET", "/_cluster/state/metadata?filter_path=metadata.stored_scripts", "")
	a.json("metadata.stored_scripts").ForEach(func(id, _ gjson.Result) bool {
		if strings.HasPrefix(id.String(), s.prefix) || id.String() == "kept" {
			s.direct("DELETE", fmt.Sprintf("/_scripts/%s", id.String()), "")
		}
		return true
	})
}

package rewrite

import (
	"os"
	"strings"
	"testing"
)

// tableRows gives the rows of the route table.
func tableRows(t testing.TB) (rows [][]string) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSuffix(routesTSV, "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 6 {
			t.Fatalf("%q has %d columns", line, len(f))
		}
		rows = append(rows, f)
	}
	return rows
}

// knownVerdicts are those that transform and administration tell apart, and pass.
var knownVerdicts = map[verdict]bool{
	verdictPass: true, verdictAdmin: true, verdictRefuse: true, verdictUnprotected: true, verdictBulk: true, verdictDoc: true, verdictCreate: true, verdictUpdate: true,
	verdictSearch: true, verdictAsync: true, verdictAsyncGet: true, verdictScroll: true, verdictMsearch: true, verdictMget: true, verdictGet: true,
	verdictSource: true, verdictExplain: true, verdictQuery: true, verdictTermsEnum: true, verdictUpdateByQuery: true, verdictReindex: true,
	verdictCopy: true, verdictCreateIndex: true, verdictRollover: true, verdictMapping: true, verdictIndexTemplate: true,
	verdictComponentTemplate: true, verdictLegacyTemplate: true, verdictSimulateTemplate: true, verdictPipeline: true, verdictSettings: true, verdictAliases: true, verdictRoles: true,
	verdictJob: true, verdictFollow: true, verdictRestore: true, verdictCreateFrom: true, verdictSamples: true, verdictDocuments: true, verdictBinary: true, verdictPromQL: true,
	verdictSimulate: true, verdictTerms: true, verdictMonitoring: true, verdictSearchTemplate: true, verdictMsearchTemplate: true, verdictRenderTemplate: true, verdictScript: true,
	verdictExecute: true, verdictRankEval: true, verdictApplication: true, verdictQueryRules: true, verdictEvent: true,
	verdictESQL: true, verdictSQL: true, verdictEQL: true, verdictTableGet: true, verdictEventsGet: true, verdictView: true,
}

func TestRouteTable(t *testing.T) {
	rows := tableRows(t)
	if len(rows) < 1030 {
		t.Errorf("%d rows", len(rows))
	}
	seen := map[string]bool{}
	used := map[verdict]bool{}
	for _, f := range rows {
		method, template, api, v, reply, reason := f[0], f[1], f[2], verdict(f[3]), f[4], f[5]
		if seen[method+" "+template] {
			t.Errorf("%s %s is there twice", method, template)
		}
		seen[method+" "+template] = true
		if !knownVerdicts[v] {
			t.Errorf("%s %s: unknown verdict %q", method, template, v)
		}
		used[v] = true
		switch method {
		case "GET", "HEAD", "POST", "PUT", "DELETE":
		default:
			t.Errorf("method %q of %s", method, template)
		}
		if api == "" || reply == "" || reason == "" || !strings.HasPrefix(template, "/") || strings.Contains(template, "//") {
			t.Errorf("row %q", f)
		}
		for _, seg := range splitPath(template) {
			if strings.HasPrefix(seg, "{") != strings.HasSuffix(seg, "}") || strings.Contains(strings.Trim(seg, "{}"), "{") {
				t.Errorf("segment %q of %s", seg, template)
			}
		}
		// Each row is found by a path of its own form, or by one of the same form and verdict that precedes it.
		path := "/" + strings.Join(fillTemplate(template, func(name string) string { return "x1" }), "/")
		m, fault := findRoute(method, path)
		if fault != nil {
			t.Errorf("%s %s: %v", method, path, fault)
			continue
		}
		if m.template != template && (m.verdict != v || shape(m.template) != shape(template)) {
			t.Errorf("%s %s is found as %s (%s), not %s (%s)", method, path, m.template, m.verdict, template, v)
		}
	}
	for v := range knownVerdicts {
		if !used[v] {
			t.Errorf("no row has the verdict %s", v)
		}
	}
}

// TestEveryEndpointHasAVerdict compares the table with the list of all endpoints of Elasticsearch 8.19 and 9, which was
// drawn from the branches of its published specification.
func TestEveryEndpointHasAVerdict(t *testing.T) {
	list, err := os.ReadFile("testdata/es-endpoints.tsv")
	if err != nil {
		t.Fatal(err)
	}
	have := map[string]string{}
	for _, f := range tableRows(t) {
		have[f[0]+" "+f[1]] = f[2]
	}
	n := 0
	for line := range strings.SplitSeq(strings.TrimSpace(string(list)), "\n") {
		f := strings.Split(line, "\t")
		if strings.HasPrefix(line, "#") || f[0] == "method" {
			continue
		}
		n++
		if api := have[f[0]+" "+f[1]]; api != f[2] {
			t.Errorf("%s %s: the table has API %q, not %q", f[0], f[1], api, f[2])
		}
	}
	if n < 1031 {
		t.Errorf("%d endpoints in the list", n)
	}
}

func shape(template string) string {
	return strings.Join(fillTemplate(template, func(string) string { return "{}" }), "/")
}

func fillTemplate(template string, value func(name string) string) []string {
	segs := splitPath(template)
	for i, s := range segs {
		if strings.HasPrefix(s, "{") {
			segs[i] = value(strings.Trim(s, "{}"))
		}
	}
	return segs
}

// The endpoints through which documents go in and out are not left unread.
func TestRouteImportantRows(t *testing.T) {
	for line, want := range map[string]verdict{
		"POST /_bulk": verdictBulk, "PUT /_bulk": verdictBulk, "POST /x/_bulk": verdictBulk, "PUT /x/_bulk": verdictBulk,
		"PUT /x/_doc/1": verdictDoc, "POST /x/_doc/1": verdictDoc, "POST /x/_doc": verdictDoc, "POST /x/_doc/": verdictDoc,
		"PUT /x/_create/1": verdictCreate, "POST /x/_create/1": verdictCreate, "POST /x/_update/1": verdictUpdate,
		"GET /x/_doc/1": verdictGet, "HEAD /x/_doc/1": verdictPass, "DELETE /x/_doc/1": verdictPass, "GET /x/_source/1": verdictSource,
		"GET /_search": verdictSearch, "POST /_search": verdictSearch, "GET /x/_search": verdictSearch, "POST /x/_search///": verdictSearch,
		"GET /_mget": verdictMget, "POST /x/_mget": verdictMget, "POST /_msearch": verdictMsearch, "GET /x/_msearch": verdictMsearch,
		"POST /_search/scroll": verdictScroll, "GET /_search/scroll/abc": verdictScroll, "POST /_reindex": verdictReindex, "POST /x/_update_by_query": verdictUpdateByQuery,
		"PUT /x": verdictCreateIndex, "PUT /x/_mapping": verdictMapping, "PUT /_index_template/a": verdictIndexTemplate, "PUT /_ingest/pipeline/p": verdictPipeline,
		// Typed paths of compatible-with=7. Fixed words are compared raw: what is escaped is a type.
		"POST /user/foo": verdictUnprotected, "PUT /user/foo/1": verdictUnprotected, "POST /user/foo/1/_update": verdictUnprotected, "POST /user/foo/_bulk": verdictRefuse,
		"GET /": verdictPass, "GET /_cluster/health": verdictPass,
	} {
		method, path, _ := strings.Cut(line, " ")
		m, fault := findRoute(method, path)
		if fault != nil || m.verdict != want {
			t.Errorf("%s: %+v, %v, want %s", line, m, fault, want)
		}
	}
}

func TestRouteRefuses(t *testing.T) {
	for line, want := range map[string]struct {
		status      int
		kind, words string
	}{
		"PATCH /user/_doc/1":           {403, "esproxy_unknown_endpoint", "method [PATCH]"},
		"put /user/_doc/1":             {403, "esproxy_unknown_endpoint", "method [put]"},
		"POST /user/%5Fdoc":            {403, "esproxy_unknown_endpoint", ""},
		"POST /user/_do%63/1":          {403, "esproxy_unknown_endpoint", ""},
		"PUT /user/_DOC/1":             {403, "esproxy_unknown_endpoint", ""},
		"TRACE /":                      {403, "esproxy_unknown_endpoint", "method [TRACE]"},
		"OPTIONS /user/foo/bar/baz":    {403, "esproxy_unknown_endpoint", ""},
		"GET /_unknown/endpoint/of/es": {403, "esproxy_unknown_endpoint", ""},
		"POST /_bulk/stream":           {403, "esproxy_unknown_endpoint", ""},
		"PUT /_foo":                    {403, "esproxy_unknown_endpoint", ""},
		"POST /%5Ffoo/_doc":            {403, "esproxy_unknown_endpoint", ""},
		"PUT //user/_doc/1":            {400, "esproxy_bad_request", "empty segment"},
		"PUT /user//_doc/1":            {400, "esproxy_bad_request", "empty segment"},
		"PUT /user/_doc//1":            {400, "esproxy_bad_request", "empty segment"},
		"PUT /user/_doc/%":             {400, "esproxy_bad_request", "does not decode"},
		"PUT /us%4/_doc/1":             {400, "esproxy_bad_request", "does not decode"},
		"PUT /user/_doc/%zz":           {400, "esproxy_bad_request", "does not decode"},
		"PUT /user/_doc/%ff":           {400, "esproxy_bad_request", "does not decode"},
		"PUT /us%ED%A0%80er/_doc/1":    {400, "esproxy_bad_request", "does not decode"},
		"PUT /user/_doc/%C1%A3":        {400, "esproxy_bad_request", "does not decode"},
	} {
		method, path, _ := strings.Cut(line, " ")
		m, fault := findRoute(method, path)
		if fault == nil {
			t.Errorf("%s: %s", line, m.template)
			continue
		}
		if fault.Status != want.status || fault.Type != want.kind || !strings.Contains(fault.Reason, want.words) {
			t.Errorf("%s: %d %v", line, fault.Status, fault)
		}
	}
	if m, fault := findRoute("OPTIONS", "/user/_doc/1"); fault != nil || m.verdict != verdictPass {
		t.Errorf("OPTIONS of a known path: %v", fault)
	}
}

func TestRouteValues(t *testing.T) {
	for path, want := range map[string][2]string{
		"/user/_doc/1": {"user", "1"}, "/user/_doc/1/": {"user", "1"}, "/user/_doc/a+b": {"user", "a+b"}, "/user/_doc/a%20b": {"user", "a b"}, "/us%65r/_doc/%2F": {"user", "/"},
		"/user/_doc/%2e%2e": {"user", ".."}, "/user/_doc/..": {"user", ".."}, "/%3Cuser-%7Bnow%2Fd%7D%3E/_doc/%C3%A9": {"<user-{now/d}>", "é"}, "/user/_doc/_doc": {"user", "_doc"}, "/user/_doc/a;b": {"user", "a;b"},
		"/user/_doc/%25": {"user", "%"}, "/_all/_doc/1": {"_all", "1"},
	} {
		m, fault := findRoute("PUT", path)
		if fault != nil || m.values["index"] != want[0] || m.values["id"] != want[1] {
			t.Errorf("%s: %v, %v", path, m, fault)
		}
	}
	// Elasticsearch takes such bytes for Latin-1: the index "usÃ©r".
	if m, fault := findRoute("PUT", "/us\u00e9r/_doc/1"); fault == nil || fault.Status != 400 {
		t.Errorf("%v", m)
	}
}

func TestChangesNames(t *testing.T) {
	for line, want := range map[string]bool{
		"PUT /x": true, "DELETE /x": true, "POST /_aliases": true, "PUT /x/_alias/a": true, "PUT /_index_template/a": true, "PUT /x/_mapping": true, "POST /x/_rollover": true,
		"PUT /_component_template/a": true, "PUT /_data_stream/a": true, "POST /x/_refresh": false, "POST /_transform/t/_start": true, "DELETE /_transform/t": true, "POST /x/_freeze": true, "PUT /_security/user/u": false, "POST /_data_stream/_modify": true, "GET /x": false, "HEAD /x": false, "POST /x/_search": false, "PUT /x/_doc/1": false, "POST /_bulk": false,
	} {
		method, path, _ := strings.Cut(line, " ")
		m, fault := findRoute(method, path)
		if fault != nil || m.changesNames() != want {
			t.Errorf("%s: %v", line, fault)
		}
	}
}

func FuzzRoute(f *testing.F) {
	for _, s := range []string{"/user/_doc/1", "//", "/%", "/a/_bulk/", "/_search/scroll/x", "/a/b/c/d/e"} {
		f.Add("PUT", s)
	}
	f.Fuzz(func(t *testing.T, method, path string) {
		m, fault := findRoute(method, path)
		if fault != nil {
			return
		}
		if m.verdict == verdictPass && m.api == "options" {
			return
		}
		if got, want := len(splitPath(path)), len(splitPath(m.template)); got != want || m.method != method {
			t.Fatalf("%s %q is found as %s", method, path, m.template)
		}
		for i, seg := range splitPath(m.template) {
			if !strings.HasPrefix(seg, "{") && splitPath(path)[i] != seg {
				t.Fatalf("%q is found as %s", path, m.template)
			}
		}
	})
}

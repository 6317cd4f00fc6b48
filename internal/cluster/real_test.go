package cluster_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

// The tests in this file ask a real Elasticsearch at ESPROXY_TEST_ES_URL. Names begin with "clu" and a random part.

type realES struct {
	t      *testing.T
	caller *httpCaller
	prefix string
}

func newReal(t *testing.T) *realES {
	t.Helper()
	base := os.Getenv("ESPROXY_TEST_ES_URL")
	if base == "" {
		t.Skip("ESPROXY_TEST_ES_URL is not set")
	}
	return &realES{t, newCaller(t, strings.TrimRight(base, "/"), ""), fmt.Sprintf("clu%x", time.Now().UnixNano())}
}

// do sends a request and fails the test if the status is 400 or above.
func (r *realES) do(method, path, body string) string {
	r.t.Helper()
	status, reply, err := r.caller.Do(context.Background(), method, path, []byte(body), 1<<24)
	if err != nil || status >= 400 {
		r.t.Fatalf("%s %s: %d %s %v", method, path, status, reply, err)
	}
	return string(reply)
}

// later deletes something at the end.
func (r *realES) later(paths ...string) {
	r.t.Cleanup(func() {
		for _, p := range paths {
			_, _, _ = r.caller.Do(context.Background(), http.MethodDelete, p, nil, 1<<20)
		}
	})
}

func (r *realES) cluster(cfg cluster.Config) *cluster.Cluster {
	cfg.Own = r.caller
	c := cluster.New(cfg)
	r.t.Cleanup(c.Close)
	return c
}

func ruleOf(paths ...string) []*policy.Rule {
	r := &policy.Rule{Name: "users", Indices: []string{"*"}}
	for _, p := range paths {
		r.Fields = append(r.Fields, &policy.Field{Path: p, Parts: strings.Split(p, "."), Mode: policy.Encrypt, Rule: r})
	}
	return []*policy.Rule{r}
}

func mustResolve(t *testing.T, c *cluster.Cluster, name string) rewrite.Resolved {
	t.Helper()
	r, err := c.Resolve(t.Context(), name)
	if err != nil {
		t.Fatalf("Resolve(%q): %v", name, err)
	}
	return r
}

func wantNames(t *testing.T, what string, got rewrite.Resolved, write string, names ...string) {
	t.Helper()
	slices.Sort(names)
	if !slices.Equal(got.Names, names) || got.Write != write {
		t.Errorf("%s: got names %q write %q, want %q write %q", what, got.Names, got.Write, names, write)
	}
}

func TestRealResolve(t *testing.T) {
	r := newReal(t)
	p := r.prefix
	r.later("/"+p+"-a", "/"+p+"-b", "/"+p+"-c", "/_index_template/"+p, "/_template/"+p)
	c := r.cluster(cluster.Config{})

	wantNames(t, "unknown", mustResolve(t, c, p+"-a"), "", p+"-a")
	r.do("PUT", "/"+p+"-a", `{"aliases":{"`+p+`-al":{"is_write_index":true},"`+p+`-other":{}}}`)
	r.do("PUT", "/"+p+"-b", `{"aliases":{"`+p+`-al":{}}}`)
	wantNames(t, "index", mustResolve(t, c, p+"-a"), p+"-a", p+"-a", p+"-al", p+"-other")
	wantNames(t, "alias", mustResolve(t, c, p+"-al"), p+"-a", p+"-a", p+"-b", p+"-al", p+"-other")
	wantNames(t, "sole", mustResolve(t, c, p+"-other"), p+"-a", p+"-a", p+"-al", p+"-other")
	wantNames(t, "selector", mustResolve(t, c, p+"-b::data"), p+"-b", p+"-al", p+"-b")

	e, err := c.Expand(t.Context(), p+"-*,-"+p+"-b")
	if err != nil || !slices.Contains(e.Names, p+"-al") || !slices.Contains(e.Names, p+"-b") || e.System {
		t.Errorf("Expand: %v %v", e, err)
	}
	// An alias made after the view is seen at once.
	r.do("POST", "/_aliases", `{"actions":[{"add":{"index":"`+p+`-b","alias":"`+p+`-new"}}]}`)
	wantNames(t, "new alias", mustResolve(t, c, p+"-new"), p+"-b", p+"-al", p+"-b", p+"-new")

	r.do("PUT", "/_index_template/"+p, `{"index_patterns":["`+p+`-t*"],"template":{"aliases":{"`+p+`-al":{},"{index}-x":{}}}}`)
	got := mustResolve(t, c, p+"-t1")
	wantNames(t, "template", got, "", p+"-t1", p+"-al", p+"-t1-x")
	r.do("PUT", "/_template/"+p, `{"index_patterns":["`+p+`-l*"],"aliases":{"`+p+`-other":{}}}`)
	c.Changed() // as after a request through the proxy; templates made around it count after keepTemplates
	wantNames(t, "legacy template", mustResolve(t, c, p+"-l1"), "", p+"-l1", p+"-other")
}

// Data streams are known by what the server says of them. OpenSearch has them in the builds that tests run against.
func TestRealDataStreams(t *testing.T) {
	base := strings.TrimRight(os.Getenv("ESPROXY_TEST_OS_URL"), "/")
	if base == "" {
		t.Skip("needs an OpenSearch: set ESPROXY_TEST_OS_URL")
	}
	r := &realES{t, newCaller(t, base, ""), fmt.Sprintf("clu%x", time.Now().UnixNano())}
	p := r.prefix
	r.later("/_data_stream/"+p+"*", "/_index_template/"+p)
	c := r.cluster(cluster.Config{})
	r.do("PUT", "/_index_template/"+p, `{"index_patterns":["`+p+`-*"],"priority":700,"data_stream":{}}`)
	wantNames(t, "before", mustResolve(t, c, p+"-s"), "", p+"-s")
	if err := c.Ready(t.Context(), r.caller, p+"-s", ruleOf("card", "pay.pan")); err != nil {
		t.Fatal(err)
	}
	first, second := ".ds-"+p+"-s-000001", ".ds-"+p+"-s-000002"
	wantNames(t, "stream", mustResolve(t, c, p+"-s"), first, p+"-s", first)
	if m := r.do("GET", "/"+first+"/_mapping", ""); !strings.Contains(m, `"pan":{"type":"keyword","index":false,"doc_values":false}`) {
		t.Errorf("mapping %s", m)
	}
	r.do("POST", "/"+p+"-s/_rollover", "")
	c.Changed()
	wantNames(t, "after a rollover", mustResolve(t, c, p+"-s"), second, p+"-s", first, second)
	wantNames(t, "backing index", mustResolve(t, c, first), first, p+"-s", first)
	if err := c.Ready(t.Context(), r.caller, p+"-s", ruleOf("card", "pay.pan")); err != nil {
		t.Fatal(err)
	}
	if m := r.do("GET", "/"+second+"/_mapping", ""); !strings.Contains(m, `"card":{"type":"keyword","index":false,"doc_values":false}`) {
		t.Errorf("mapping %s", m)
	}
	e, err := c.Expand(t.Context(), ".ds-"+p+"*")
	if err != nil || !slices.Contains(e.Names, p+"-s") || e.Failures {
		t.Errorf("Expand: %v %v", e, err)
	}
}

func TestRealDateMath(t *testing.T) {
	r := newReal(t)
	c := r.cluster(cluster.Config{})
	for _, expr := range []string{
		"<x-{now/d}>", "<x-{now-1M/M}>", "<x-{now/w{uuuu-MM-dd}}>", "<x-{now/1d}-y>", `<x-\{q\}>`, "<x-{now+13M-2d{yy.M.d|Europe/Berlin}}>",
		"<x-{now/d{yyyy.MM.dd|+02:00}}>", "<x-{now/d{dd|+2}}>", "<x-{now/y{yyyy.D}}-{now/M{MM}}>", "<x-{now-5y{uuuu}}>", "<x-{now/h-1h{yyyy.MM.dd.HH|America/St_Johns}}>",
		"<x>", "<x-{now-1w/w{yyyy.MM.dd|-0330}}>", "<x-{now+1M/M-1d{'d'dd}}>", "<x-{now{yyyy.MM|Z}}>", "<x-{now/d{yyy}}>", "<x-{now+d}>", "<x-{now/d{DDD}}>",
	} {
		got, err := c.Resolve(t.Context(), expr)
		status, reply, _ := r.caller.Do(t.Context(), "GET", "/"+url.PathEscape(expr)+"/_doc/1", nil, 1<<20)
		want := gjson.GetBytes(reply, "error.index").Str
		if err != nil {
			t.Logf("%s: refused by us (%v); server %d %s", expr, err, status, want)
			var f *rewrite.Fault
			if !errors.As(err, &f) || f.Status != 400 {
				t.Errorf("%s: %v", expr, err)
			}
			continue
		}
		if status != 404 || !slices.Contains(got.Names, want) {
			t.Errorf("%s: got %q, the server says %d %q", expr, got.Names, status, want)
		}
	}
}

func TestRealDocuments(t *testing.T) {
	r := newReal(t)
	p := r.prefix
	r.later("/" + p + "-a")
	c := r.cluster(cluster.Config{})
	r.do("PUT", "/"+p+"-a", `{"aliases":{"`+p+`-al":{}},"mappings":{"dynamic":false}}`)
	r.do("PUT", "/"+p+"-a/_doc/1?routing=q", `{"user":"Ana","a.b":"esp1.x","a":{"c":1},"rest":true}`)
	r.do("PUT", "/"+p+"-a/_doc/%3C2%3E", `{"user":"Bo","n":12345678901234567890}`)
	got, err := c.Documents(t.Context(), r.caller, []rewrite.Ref{
		{Index: p + "-al", ID: "1", Routing: "q"}, {Index: p + "-none", ID: "1"}, {Index: p + "-a", ID: "<2>"}, {Index: p + "-a", ID: "3"},
	}, []string{"user", "a.b", "n"})
	if err != nil {
		t.Fatal(err)
	}
	if !got[0].Found || got[0].Index != p+"-a" || got[0].PrimaryTerm != 1 || string(got[0].Source) != `{"user":"Ana","a.b":"esp1.x"}` {
		t.Errorf("first: %+v %s", got[0], got[0].Source)
	}
	if got[1].Found || got[3].Found {
		t.Errorf("missing ones found: %+v", got)
	}
	if !got[2].Found || string(got[2].Source) != `{"user":"Bo","n":12345678901234567890}` {
		t.Errorf("third: %+v %s", got[2], got[2].Source)
	}
	got, err = c.Documents(t.Context(), nil, []rewrite.Ref{{Index: p + "-a", ID: "<2>"}}, nil)
	if err != nil || !got[0].Found || got[0].Source != nil {
		t.Errorf("without paths: %+v %v", got, err)
	}
	// An alias that routes: the document lies on the shard of the alias's routing, not on that of its id.
	r.later("/" + p + "-r")
	r.do("PUT", "/"+p+"-r", `{"settings":{"number_of_shards":5,"number_of_replicas":0},"aliases":{"`+p+`-routed":{"index_routing":"a","search_routing":"a"}}}`)
	for i := range 10 {
		r.do("PUT", fmt.Sprintf("/%s-routed/_doc/%d", p, i), `{"user":"Ana"}`)
	}
	for i := range 10 {
		got, err := c.Documents(t.Context(), r.caller, []rewrite.Ref{{Index: p + "-routed", ID: fmt.Sprint(i)}}, []string{"user"})
		if err != nil || !got[0].Found {
			t.Errorf("routed %d: %+v %v", i, got, err)
		}
	}
	var refs []rewrite.Ref
	for i := range 2500 {
		refs = append(refs, rewrite.Ref{Index: p + "-a", ID: fmt.Sprint("x", i)})
	}
	refs[2400].ID, refs[2400].Routing = "1", "q"
	got, err = c.Documents(t.Context(), r.caller, refs, []string{"user"})
	if err != nil || len(got) != 2500 || !got[2400].Found || got[2399].Found {
		t.Errorf("many: %v", err)
	}
}

// logBuffer is a buffer for a logger that a test reads.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func TestRealReady(t *testing.T) {
	r := newReal(t)
	p := r.prefix
	r.later("/"+p+"-new", "/"+p+"-old", "/"+p+"-sub", "/"+p+"-tn", "/_index_template/"+p)
	var logs logBuffer
	c := r.cluster(cluster.Config{Log: logs.logger()})
	rules := ruleOf("card", "payment.cards.pan", "n.x", "s.t.u")
	field := func(index, path string) string {
		m := r.do("GET", "/"+index+"/_mapping", "")
		return gjson.Get(m, strings.ReplaceAll(index, ".", `\.`)+".mappings."+path).Raw
	}
	const sealed = `{"type":"keyword","index":false,"doc_values":false}` // the server leaves the default of ignore_above out

	// A missing index is created with the mapping.
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := c.Ready(context.Background(), r.caller, p+"-new", rules); err != nil {
				t.Errorf("new: %v", err)
			}
		})
	}
	wg.Wait()
	if got := field(p+"-new", "properties.payment.properties.cards.properties.pan"); got != sealed {
		t.Errorf("new: %s", got)
	}
	wantNames(t, "new", mustResolve(t, c, p+"-new"), p+"-new", p+"-new")

	// An existing one gets what is missing; parents keep their kind.
	r.do("PUT", "/"+p+"-old", `{"mappings":{"properties":{"card":{"type":"text"},"n":{"type":"nested","properties":{"y":{"type":"long"}}},
		"s":{"subobjects":false,"properties":{"v.w":{"type":"long"}}},"payment":{"properties":{"cards":{"properties":{"pan":{"type":"keyword","index":false,"doc_values":false,"ignore_above":10}}}}}}}}`)
	if err := c.Ready(t.Context(), r.caller, p+"-old", rules); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"properties.n.properties.x": sealed, "properties.n.type": `"nested"`, `properties.s.properties.t\.u`: sealed,
		"properties.payment.properties.cards.properties.pan": sealed, "properties.card": `{"type":"text"}`,
	} {
		if got := field(p+"-old", path); got != want {
			t.Errorf("old %s: got %s, want %s", path, got, want)
		}
	}
	if l := logs.String(); !strings.Contains(l, "field=card") || !strings.Contains(l, "reindex") {
		t.Errorf("no warning for card: %s", l)
	}

	r.do("PUT", "/"+p+"-sub", `{"mappings":{"subobjects":false,"dynamic":"strict"}}`)
	if err := c.Ready(t.Context(), r.caller, p+"-sub", rules); err != nil {
		t.Fatal(err)
	}
	if got := field(p+"-sub", `properties.payment\.cards\.pan`); got != sealed {
		t.Errorf("sub: %s", got)
	}

	// A template's own mapping is completed at creation.
	r.do("PUT", "/_index_template/"+p, `{"index_patterns":["`+p+`-tn*"],"template":{"mappings":{"dynamic":false,"properties":{"n":{"type":"nested"}}}}}`)
	if err := c.Ready(t.Context(), r.caller, p+"-tn", rules); err != nil {
		t.Fatal(err)
	}
	if got := field(p+"-tn", "properties.n"); got != `{"type":"nested","properties":{"x":`+sealed+`}}` {
		t.Errorf("template: %s", got)
	}
}

func TestRealWrongKey(t *testing.T) {
	r := newReal(t)
	p := r.prefix
	r.later("/"+p+"-a", "/"+p+"-b")
	pol := ruleOf("card")
	cfg := cluster.Config{
		KeyID:      func(tok []byte) (string, bool) { return string(tok[5:9]), len(tok) > 9 },
		LoadedKeys: []string{"good"},
	}
	c := r.cluster(cfg)
	r.do("PUT", "/"+p+"-a", `{"mappings":{"properties":{"card":{"type":"keyword"}}}}`)
	r.do("PUT", "/"+p+"-a/_doc/1?refresh", `{"card":["esp1.evil1234"],"rest":"esp1.good5678"}`)
	err := c.Ready(t.Context(), r.caller, p+"-a", pol)
	var f *rewrite.Fault
	if !errors.As(err, &f) || f.Type != cluster.FaultWrongKey || f.Status != 503 || !strings.Contains(f.Reason, "evil") || !strings.Contains(f.Reason, "good") {
		t.Fatalf("got %v", err)
	}
	r.do("PUT", "/"+p+"-b/_doc/1", `{"card":"esp1.evil1234"}`)
	r.do("PUT", "/"+p+"-b/_doc/2?refresh", `{"card":"esp1.good1234"}`)
	if err := c.Ready(t.Context(), r.caller, p+"-b", pol); err != nil {
		t.Errorf("mixed keys: %v", err)
	}
}

func TestRealMaxContentLength(t *testing.T) {
	r := newReal(t)
	if n := r.cluster(cluster.Config{}).MaxContentLength(t.Context()); n != 104857600 {
		t.Errorf("got %d", n)
	}
}

package cluster_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/rewrite"
)

const (
	someAliases = `{"user-1":{"aliases":{"user":{"is_write_index":true},"people":{}}},"user-2":{"aliases":{"user":{}}},
		"lone":{"aliases":{"sole":{},"never":{"is_write_index":false}}},".kibana_1":{"aliases":{".kibana":{}}},".fs-old-2026.11.01-000001":{"aliases":{}},
		"logs":{"aliases":{"logs-al":{"is_write_index":true}}},"empty":{"aliases":{"empty-al":{}}}}`
	someStreams = `{"data_streams":[{"name":"logs","indices":[{"index_name":".ds-logs-2026.11.01-000001"},{"index_name":".ds-logs-2026.11.02-000002"}],
		"failure_store":{"enabled":true,"indices":[{"index_name":".fs-logs-2026.11.01-000001"}]}},{"name":"empty","indices":[]}]}`
)

// someCluster has these, and limits of replies a thousandth of the real ones.
func someCluster(t *testing.T, cfg cluster.Config) (*fake, *cluster.Cluster) {
	f := newFake(t)
	f.shrink = 1 << 10
	f.set("GET /_alias", 200, someAliases)
	f.set("GET /_data_stream", 200, someStreams)
	return f, f.cluster(cfg)
}

func TestResolve(t *testing.T) {
	clk := newClock()
	f, c := someCluster(t, cluster.Config{Now: clk.now})
	const b1, b2, fs = ".ds-logs-2026.11.01-000001", ".ds-logs-2026.11.02-000002", ".fs-logs-2026.11.01-000001"
	for _, tc := range []struct {
		name, write string
		names       []string
		system      bool
	}{
		{"user-1", "user-1", []string{"user-1", "user", "people"}, false},
		{"user", "user-1", []string{"user-1", "user-2", "user", "people"}, false},
		{"people", "user-1", []string{"user-1", "user", "people"}, false},
		{"user-2::data", "user-2", []string{"user-2", "user"}, false},
		{"sole", "lone", []string{"lone", "sole", "never"}, false},
		{"never", "", []string{"lone", "sole", "never"}, false},
		{"logs", b2, []string{"logs", "logs-al", b1, b2}, false},
		{"logs-al", b2, []string{"logs", "logs-al", b1, b2}, false},
		{"logs::failures", "", []string{"logs", "logs-al", b1, b2, fs}, false},
		{b1, b1, []string{"logs", "logs-al", b1}, false},
		{fs, fs, []string{"logs", "logs-al", fs}, false},
		{".fs-old-2026.11.01-000001", ".fs-old-2026.11.01-000001", []string{".fs-old-2026.11.01-000001"}, false},
		{"empty", "", []string{"empty", "empty-al"}, false},
		{".kibana", ".kibana_1", []string{".kibana", ".kibana_1"}, true},
		{"none", "", []string{"none"}, false},
		{".none", "", []string{".none"}, true},
		{".fs-gone-2026.11.01-000001", "", []string{".fs-gone-2026.11.01-000001"}, false},
		{"Upper", "", []string{"Upper"}, false},
		{"a b", "", []string{"a b"}, false},
		{"7", "", []string{"7"}, false},
		{"<user-{now/d{d}}>", "", []string{"user-24"}, false},
		{"<none-{now{HH.mm}}>", "", []string{"none-12.30", "none-12.29", "none-12.31"}, false},
	} {
		for range 2 { // the second answer comes from a cache
			got := mustResolve(t, c, tc.name)
			wantNames(t, tc.name, got, tc.write, tc.names...)
			if got.System != tc.system {
				t.Errorf("%s: system %v", tc.name, got.System)
			}
			if want := strings.HasPrefix(tc.name, ".fs-") || strings.HasSuffix(tc.name, "::failures"); got.Failures != want {
				t.Errorf("%s: failures %v", tc.name, got.Failures)
			}
		}
	}
	f.take()
	mustResolve(t, c, "user")
	if a := f.take(); len(a) != 0 {
		t.Errorf("a known name asked %q", a)
	}
	for _, name := range []string{"", "a,b", "user*", "_all", "other:index", "user::all", "user::", "<x-{now", "<x-{now+1q}>", "<x-{2001-01-01||/d}>", "<x-{now{YYYY}}>"} {
		if strings.HasPrefix(name, "<") && !strings.HasSuffix(name, ">") {
			continue // no date math; the server refuses such names
		}
		_, err := c.Resolve(t.Context(), name)
		wantFault(t, err, 400, cluster.FaultName)
	}
}

func TestExpand(t *testing.T) {
	clk := newClock()
	_, c := someCluster(t, cluster.Config{Now: clk.now})
	all := []string{"user-1", "user-2", "user", "people", "lone", "sole", "never", ".kibana_1", ".kibana", "logs", "logs-al", "empty", "empty-al",
		".ds-logs-2026.11.01-000001", ".ds-logs-2026.11.02-000002", ".fs-logs-2026.11.01-000001", ".fs-old-2026.11.01-000001"}
	for _, tc := range []struct {
		expr, write string
		names       []string
	}{
		{"", "", all}, {"_all", "", all}, {"*", "", all}, {"lone,*", "", all}, {"-user-*", "", all}, {"lone,-lone", "", all},
		{"user-*", "", []string{"user-*", "user-1", "user-2", "user", "people"}},
		{"us*,-user-1", "", []string{"us*", "user-1", "user-2", "user", "people"}},
		{"sole,none", "", []string{"sole", "lone", "never", "none"}},
		{"sole", "lone", []string{"sole", "lone", "never"}},
		{"fra:user*,lone", "", []string{"fra:user*", "sole", "lone", "never"}},
		{"em*::failures", "", []string{"em*", "empty", "empty-al"}},
		{"<lon{now/d{'e'}}>", "lone", []string{"sole", "lone", "never"}},
		{"<{now/d{'us'}}*>", "", []string{"us*", "user-1", "user-2", "user", "people"}},
		{".ki*", "", []string{".ki*", ".kibana", ".kibana_1"}},
		{"log*", "", []string{"log*", "logs", "logs-al", ".ds-logs-2026.11.01-000001", ".ds-logs-2026.11.02-000002"}},
		{"lone,.fs-l*", "", []string{"lone", "sole", "never", ".fs-l*", "logs", "logs-al", ".fs-logs-2026.11.01-000001"}},
		{"lone,.fs-gone-2026.11.01-000001", "", []string{"lone", "sole", "never", ".fs-gone-2026.11.01-000001"}},
	} {
		for range 2 {
			got, err := c.Expand(t.Context(), tc.expr)
			if err != nil {
				t.Fatalf("%s: %v", tc.expr, err)
			}
			wantNames(t, tc.expr, got, tc.write, tc.names...)
			if got.System != (tc.expr == ".ki*") {
				t.Errorf("%s: system %v", tc.expr, got.System)
			}
			if want := len(tc.names) == len(all) || strings.Contains(tc.expr, "failures") || strings.Contains(tc.expr, ".fs-"); got.Failures != want {
				t.Errorf("%s: failures %v", tc.expr, got.Failures)
			}
		}
	}
	_, err := c.Expand(t.Context(), "a,<b-{then}>")
	wantFault(t, err, 400, cluster.FaultName)
}

// waitCtx tells when somebody waits for its end.
type waitCtx struct {
	context.Context
	waits chan struct{}
}

func (w waitCtx) Done() <-chan struct{} {
	select {
	case w.waits <- struct{}{}:
	default:
	}
	return w.Context.Done()
}

// A miss must see a change made before the request, even while an older refresh is under way, and requests that wait
// together share one refresh.
func TestMissIsFresh(t *testing.T) {
	f := newFake(t)
	c := f.cluster(cluster.Config{})
	mustResolve(t, c, "unknown") // there is a view
	begun, goOn := make(chan struct{}), make(chan struct{})
	f.on("GET /_alias", func(string, string) (int, string) {
		f.set("GET /_alias", 200, `{"user-1":{"aliases":{"new":{}}}}`)
		close(begun)
		<-goOn
		return 200, `{}` // what was true when it began
	})
	early := make(chan error)
	go func() { _, err := c.Resolve(context.Background(), "unknown"); early <- err }()
	<-begun
	f.take()
	var wg sync.WaitGroup
	ctx := waitCtx{t.Context(), make(chan struct{}, 20)}
	for range 20 {
		wg.Go(func() {
			r, err := c.Resolve(ctx, "new")
			if err != nil || r.Write != "user-1" {
				t.Errorf("got %+v %v", r, err)
			}
		})
	}
	for range 20 {
		<-ctx.waits
	}
	close(goOn)
	wg.Wait()
	if err := <-early; err != nil {
		t.Error(err)
	}
	if n := f.count("own GET /_alias"); n != 1 {
		t.Errorf("%d refreshes for 20 requests that waited together", n)
	}
}

func TestViewFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		spoil func(*fake)
		words []string
	}{
		"refused":     {func(f *fake) { f.srv.Close() }, []string{"reachable"}},
		"401":         {func(f *fake) { f.setAll(401, `{"error":{"type":"security_exception"}}`) }, []string{"ELASTICSEARCH_USERNAME", "monitor", "view_index_metadata"}},
		"403":         {func(f *fake) { f.set("GET /_data_stream", 403, `{}`) }, []string{"ELASTICSEARCH_USERNAME", "view_index_metadata"}},
		"503":         {func(f *fake) { f.set("GET /_alias", 503, `{}`) }, []string{"reachable"}},
		"no alias":    {func(f *fake) { f.set("GET /_alias", 404, `{}`) }, nil},
		"garbage":     {func(f *fake) { f.set("GET /_alias", 200, `<html>`) }, nil},
		"null":        {func(f *fake) { f.set("GET /_alias", 200, `null`) }, nil},
		"list":        {func(f *fake) { f.set("GET /_alias", 200, `[]`) }, nil},
		"streams":     {func(f *fake) { f.set("GET /_data_stream", 200, `{"data_streams":[{"indices":[{}]}]}`) }, nil},
		"truncated":   {func(f *fake) { f.set("GET /_data_stream", 200, `{"data_streams":[`) }, nil},
		"uuids":       {func(f *fake) { f.set("GET /_all/_settings/index.uuid", 200, `[1`) }, nil},
		"huge":        {func(f *fake) { f.set("GET /_alias", 200, strings.Repeat(" ", 64<<10)+"{}") }, nil},
		"partial eye": {func(f *fake) { f.set("POST /_security/user/_has_privileges", 200, `{"has_all_requested":false}`) }, []string{"view_index_metadata"}},
	} {
		t.Run(name, func(t *testing.T) {
			clk := newClock()
			f, c := someCluster(t, cluster.Config{Now: clk.now, ViewMaxAge: time.Minute})
			mustResolve(t, c, "user")
			clk.move(50 * time.Second)
			if name == "partial eye" {
				clk.move(-50*time.Second + 6*time.Minute) // the privileges are asked again after a while
			}
			tc.spoil(f)
			_, err := c.Resolve(t.Context(), "unknown")
			wantFault(t, err, 503, cluster.FaultUnknown, tc.words...)
			if name != "partial eye" {
				mustResolve(t, c, "user") // the old view is good enough for what it knows
			}
			clk.move(20 * time.Second)
			_, err = c.Resolve(t.Context(), "user")
			wantFault(t, err, 503, cluster.FaultUnknown, tc.words...)
			_, err = c.Expand(t.Context(), "user")
			wantFault(t, err, 503, cluster.FaultUnknown)
			err = c.Ready(t.Context(), f.caller(), "user", ruleOf("card"))
			wantFault(t, err, 503, cluster.FaultUnknown)
			_, err = c.Documents(t.Context(), f.caller(), []rewrite.Ref{{Index: "user", ID: "1"}}, []string{"card"})
			wantFault(t, err, 503, cluster.FaultUnknown)
		})
	}
}

func TestNoDataStreams(t *testing.T) {
	f := newFake(t)
	f.set("GET /_data_stream", 405, `{}`)
	f.set("GET /_resolve/index/*", 200, `{"data_streams":[{"name":"a","backing_indices":[".ds-a-000001",".ds-a-000002"]},{"name":"b","backing_indices":".ds-b-000001"}]}`)
	c := f.cluster(cluster.Config{})
	wantNames(t, "list", mustResolve(t, c, "a"), ".ds-a-000002", "a", ".ds-a-000001", ".ds-a-000002")
	wantNames(t, "string", mustResolve(t, c, "b"), ".ds-b-000001", "b", ".ds-b-000001")
	f.set("GET /_resolve/index/*", 501, `{}`)
	c.Changed()
	wantNames(t, "none", mustResolve(t, c, "a"), "", "a")
}

func TestFutureNames(t *testing.T) {
	f := newFake(t)
	clk := newClock()
	c := f.cluster(cluster.Config{Now: clk.now})
	f.set("POST /_index_template/_simulate_index/u-1", 200, `{"template":{"aliases":{"user":{},"{index}-al":{}}},"overlapping":[]}`)
	wantNames(t, "simulated", mustResolve(t, c, "u-1"), "", "u-1", "user", "u-1-al")

	// Without the privilege for it, templates are matched here; the highest priority wins.
	f.set("POST /_index_template/_simulate_index/v-1", 403, `{}`)
	f.set("GET /_index_template", 200, `{"index_templates":[
		{"index_template":{"index_patterns":["v-*"],"priority":5,"template":{"aliases":{"user":{}}},"composed_of":["comp"]}},
		{"index_template":{"index_patterns":["*"],"template":{"aliases":{"low":{}}}}}]}`)
	f.set("GET /_component_template/comp", 200, `{"component_templates":[{"component_template":{"template":{"aliases":{"comp-al":{}}}}}]}`)
	wantNames(t, "matched", mustResolve(t, c, "v-1"), "", "v-1", "user", "comp-al")

	f.set("GET /_template", 200, `{"t":{"index_patterns":["w-*","w*"],"aliases":{"user":{}}},"o":{"index_patterns":["x"],"aliases":{"no":{}}}}`)
	wantNames(t, "legacy", mustResolve(t, c, "w-1"), "", "w-1", "user")

	f.set("GET /_template", 403, `{}`)
	clk.move(time.Minute)
	_, err := c.Resolve(t.Context(), "w-1")
	wantFault(t, err, 503, cluster.FaultUnknown, "monitor")
	f.set("POST /_index_template/_simulate_index/w-1", 500, `{}`)
	_, err = c.Resolve(t.Context(), "w-1")
	wantFault(t, err, 503, cluster.FaultUnknown)
}

func TestClosedAndCancelled(t *testing.T) {
	d := &deadCaller{asked: make(chan struct{}, 1)}
	c := cluster.New(cluster.Config{Own: d, ViewEvery: time.Millisecond})
	<-d.asked
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := c.Resolve(ctx, "x")
	wantFault(t, err, 503, cluster.FaultUnknown)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cause %v", err)
	}
	done := make(chan error)
	go func() { _, err := c.Resolve(context.Background(), "x"); done <- err }()
	c.Close() // ends what hangs
	wantFault(t, <-done, 503, cluster.FaultUnknown)
	_, err = c.Resolve(t.Context(), "x")
	wantFault(t, err, 503, cluster.FaultUnknown)
}

func TestTimeout(t *testing.T) {
	c := cluster.New(cluster.Config{Own: &deadCaller{}, ViewEvery: -1, Timeout: time.Millisecond})
	defer c.Close()
	_, err := c.Resolve(t.Context(), "x")
	wantFault(t, err, 503, cluster.FaultUnknown)
	if n := c.MaxContentLength(t.Context()); n != 104857600 {
		t.Errorf("got %d", n)
	}
}

func TestTimerRefreshes(t *testing.T) {
	f := newFake(t)
	asked := make(chan struct{}, 100)
	f.on("GET /_alias", func(string, string) (int, string) {
		select {
		case asked <- struct{}{}:
		default:
		}
		return 200, `{}`
	})
	f.cluster(cluster.Config{ViewEvery: time.Millisecond})
	<-asked
	<-asked
}

// warnings is a log that hands its warnings on.
type warnings chan string

func (w warnings) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }
func (w warnings) Handle(_ context.Context, r slog.Record) error    { w <- r.Message; return nil }
func (w warnings) WithAttrs([]slog.Attr) slog.Handler               { return w }
func (w warnings) WithGroup(string) slog.Handler                    { return w }

// TestTimerWarns: each time that refreshes begin to fail gives one warning.
func TestTimerWarns(t *testing.T) {
	f := newFake(t)
	asked := make(chan int, 1000)
	status := func(code int) {
		f.on("GET /_alias", func(string, string) (int, string) {
			select {
			case asked <- code:
			default:
			}
			return code, `{}`
		})
	}
	status(500)
	w := make(warnings, 1000)
	f.cluster(cluster.Config{ViewEvery: time.Millisecond, Log: slog.New(w)})
	warned := func() {
		t.Helper()
		select {
		case <-w:
		case <-time.After(10 * time.Second):
			t.Fatal("no warning")
		}
	}
	warned()
	status(200)
	for n := 0; n < 2; { // the second is asked when the first was used
		if <-asked == 200 {
			n++
		}
	}
	status(500)
	warned()
	for n := 0; n < 3; {
		if <-asked == 500 {
			n++
		}
	}
	if len(w) > 0 {
		t.Errorf("warned once more: %s", <-w)
	}
}

func TestDateMath(t *testing.T) {
	now := time.Date(2024, 2, 29, 23, 45, 10, 5, time.UTC) // a Thursday
	for expr, want := range map[string]string{
		"<a-{now}>":                                  "a-2024.02.29",
		"<a-{now/d}>":                                "a-2024.02.29",
		"<a-{now+1y}>":                               "a-2025.02.28",
		"<a-{now+1M{MM.dd}}>":                        "a-03.29",
		"<a-{now/M-1d+1M}>":                          "a-2024.02.29",
		"<a-{now-1M/M{uuuu.MM}}>":                    "a-2024.01",
		"<a-{now/w}>":                                "a-2024.02.26",
		"<a-{now/d{yyyy.MM.dd|+02:00}}>":             "a-2024.03.01",
		"<a-{now{HHmm|+0530}}>":                      "a-0515",
		"<a-{now{HH|-1}}>":                           "a-22",
		"<a-{now/h+15m{HH-mm-ss|America/New_York}}>": "a-18-15-00",
		"<a-{now-45m/m{H.m.s}}>":                     "a-23.0.0",
		"<a-{now/s{s}}-{now{yy}}>":                   "a-10-24",
		"<a-{now{DDD}}>":                             "a-060",
		`<a\{b\}\\c>`:                                `a{b}\c`,
		"<a>":                                        "a",
		"<a-{now/1y}>":                               "a-2024.01.01",
		"<{now{'x'yyyy}}>":                           "x2024",
	} {
		got, err := cluster.EvalDateMath(expr, now)
		if err != nil || got != want {
			t.Errorf("%s: got %q %v, want %q", expr, got, err, want)
		}
	}
	for _, expr := range []string{"<>", "<{now>", "<a}>", "<a-{now/2d}>", "<a-{now+}>", "<a-{now+1}>", "<a-{now*1d}>", "<a-{now+1x}>", "<a-{}>", "<a-{now{}}>", "<a-{now{|Z}}>",
		"<a-{now{yyyy|}}>", "<a-{now{yyyy|CET}}>", "<a-{now{yyyy|Local}}>", "<a-{now{yyyy|../x}}>", "<a-{now{yyyy|+25}}>", "<a-{now{yyyy|+18:01}}>", "<a-{now{MMM}}>", "<a-{now{8yyyy}}>",
		"<a-{now{ww}}>", "<a-{now{yyyy}x}>", "<a-{now{y'}}>", "<a-{now{y''}}>", "<a-{now{y[M]}}>", "<a-{now{basic_date}}>", `<a-{now{\{}}>`, `<a\>`, "<a-{now/d{yyyy{}}>", "<a-{now+99999999999999999999d}>", "<a-{now{é}}>"} {
		if got, err := cluster.EvalDateMath(expr, now); err == nil {
			t.Errorf("%s: got %q, want a refusal", expr, got)
		} else {
			wantFault(t, err, 400, cluster.FaultName)
		}
	}
}

func TestAutoCreateSetting(t *testing.T) {
	for _, tc := range []struct {
		setting, name string
		want          bool
	}{
		{"true", "a", true}, {"false", "a", false}, {"+a*,-*", "ab", true}, {"+a*,-*", "b", false}, {"-a*,+*", "ab", false}, {"a,b", "b", true}, {"a,b", "c", false}, {" -x , * ", "y", true},
	} {
		if got := cluster.AutoCreates(tc.setting, tc.name); got != tc.want {
			t.Errorf("%q %q: got %v", tc.setting, tc.name, got)
		}
	}
}

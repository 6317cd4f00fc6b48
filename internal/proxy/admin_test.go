package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := client(t).Get(url)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body(t, resp)
}

func TestAdmin(t *testing.T) {
	url, _ := recorder(t, ok)
	next := errors.New("no policy")
	cfg := proxy.Config{Nodes: []string{url}, AdminListen: "127.0.0.1:0", Version: "1.2.3"}
	cfg.Reload = func(context.Context) (*proxy.State, error) {
		return &proxy.State{Planner: planFunc(raw), Judge: judge{}}, next
	}
	p := start(t, nil, cfg)
	admin := "http://" + p.AdminAddr().String()
	if code, b := get(t, admin+"/healthz"); code != 200 || b != "ok\n" {
		t.Errorf("healthz: %d %q", code, b)
	}
	if code, b := get(t, admin+"/readyz"); code != 503 || b != "policy and keys are not loaded\n" {
		t.Errorf("readyz without state: %d %q", code, b)
	}
	resp, err := client(t).Get(p.url)
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, resp, 503, "esproxy_not_ready")
	reload := func() (int, string) {
		resp, err := client(t).Post(admin+"/-/reload", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, body(t, resp)
	}
	if code, b := reload(); code != 500 || !strings.Contains(b, "no policy") {
		t.Errorf("reload: %d %q", code, b)
	}
	if _, b := get(t, admin+"/metrics"); !strings.Contains(b, "esproxy_reload_success 0\n") {
		t.Error("the gauge does not tell of the failed reload")
	}
	next = nil
	if code, b := reload(); code != 200 || b != "reloaded\n" {
		t.Errorf("reload: %d %q", code, b)
	}
	if code, b := get(t, admin+"/readyz"); code != 200 || b != "ok\n" {
		t.Errorf("readyz: %d %q", code, b)
	}
	next = errors.New("broken policy")
	reload()
	if code, _ := get(t, p.url+"/x"); code != 200 {
		t.Errorf("after a failed reload: %d", code)
	}
	_, b := get(t, admin+"/metrics")
	for _, want := range []string{
		`esproxy_requests_total{class="2xx",method="GET",route="/test"} 1`,
		`esproxy_refused_total{type="esproxy_not_ready"} 1`,
		`esproxy_upstream_node_up{node="` + strings.TrimPrefix(url, "http://") + `"} 1`,
		"esproxy_memory_budget_bytes 6.7108864e+07", "esproxy_reload_success 0\n", `version="1.2.3"`,
	} {
		if !strings.Contains(b, want) {
			t.Errorf("metrics hold no %q", want)
		}
	}
	if code, b := get(t, admin+"/version"); code != 200 || !strings.Contains(b, `"version":"1.2.3"`) {
		t.Errorf("version: %d %q", code, b)
	}
	if code, _ := get(t, admin+"/-/reload"); code != 405 {
		t.Errorf("GET reload: %d", code)
	}
}

// TestReadyNeedsUpstream: readiness asks when nothing was heard of the nodes.
func TestReadyNeedsUpstream(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }))
	clock := &manualClock{now: time.Unix(1e9, 0)}
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.URL}, AdminListen: "127.0.0.1:0", Clock: clock})
	admin := "http://" + p.AdminAddr().String()
	if code, b := get(t, admin+"/readyz"); code != 200 {
		t.Errorf("with a node that answers 401: %d %s", code, b)
	}
	up.Close()
	clock.add(time.Minute)
	if code, b := get(t, admin+"/readyz"); code != 503 || b != "no Elasticsearch node answers\n" {
		t.Errorf("without a node: %d %s", code, b)
	}
}

// TestDrain: requests in flight end, new connections are refused, readiness tells.
func TestDrain(t *testing.T) {
	arrived, goOn := make(chan bool), make(chan bool)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if head, _ := readHead(r); strings.HasPrefix(head, "HEAD") { // readiness asks
			io.WriteString(c, reply("200 OK", "", ""))
			return
		}
		arrived <- true
		<-goOn
		io.WriteString(c, reply("200 OK", "", "done"))
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}, AdminListen: "127.0.0.1:0"})
	got := make(chan string)
	go func() {
		resp, err := client(t).Get(p.url)
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got <- string(b)
	}()
	<-arrived
	stopped := make(chan error)
	go func() { stopped <- p.stop() }()
	for {
		if c, err := net.Dial("tcp", p.addr); err != nil {
			break
		} else {
			c.Close()
		}
	}
	if code, b := get(t, "http://"+p.AdminAddr().String()+"/readyz"); code != 503 || !strings.Contains(b, "draining") {
		t.Errorf("readyz: %d %q", code, b)
	}
	goOn <- true
	if b := <-got; b != "done" {
		t.Errorf("the request in flight got %q", b)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestDrainTimeout: what does not end in time is cut, and Run says so.
func TestDrainTimeout(t *testing.T) {
	arrived, cut := make(chan bool), make(chan bool)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead(r)
		arrived <- true
		io.Copy(io.Discard, r)
		close(cut)
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}, DrainTimeout: 50 * time.Millisecond})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-arrived
	if err := p.stop(); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Run: %v", err)
	}
	<-cut
}

// TestSwap: a request in flight keeps the state that it began with.
func TestSwap(t *testing.T) {
	url, _ := recorder(t, ok)
	entered, goOn := make(chan bool), make(chan bool)
	name := func(n string, wait bool) *proxy.State {
		return &proxy.State{Judge: judge{}, Planner: with(t, func(*rewrite.Call) *fake {
			return &fake{
				request: func(context.Context, *rewrite.Plan, io.Reader, io.Writer) (bool, error) {
					if wait {
						entered <- true
						<-goOn
					}
					return true, nil
				},
				reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
					return func(_ io.Reader, out io.Writer) error { _, err := io.WriteString(out, n); return err }, false, nil
				},
			}
		})}
	}
	p := start(t, nil, proxy.Config{Nodes: []string{url}})
	p.Swap(name("old", true))
	got := make(chan string)
	go func() {
		resp, err := client(t).Get(p.url)
		if err != nil {
			got <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		got <- string(b)
	}()
	<-entered
	p.Swap(name("new", false))
	if _, b := get(t, p.url); b != "new" {
		t.Errorf("a new request got %q", b)
	}
	goOn <- true
	if b := <-got; b != "old" {
		t.Errorf("the request in flight got %q", b)
	}
}

// TestAudit: one line per granted request, with counts and never a header, and none without a grant.
func TestAudit(t *testing.T) {
	url, _ := recorder(t, ok)
	var audit, logs safeBuffer
	rule := &policy.Rule{Name: "users"}
	field := &policy.Field{Path: "pan", Rule: rule}
	p := start(t, with(t, func(c *rewrite.Call) *fake {
		return &fake{reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
			return func(in io.Reader, out io.Writer) error {
				c.Counter.Opened(field, policy.Plain, "user", 2)
				c.Counter.Opened(field, policy.Masked, "user", 1)
				c.Counter.Sealed(field, 1)
				c.Counter.Unopened("subject", 4)
				_, err := io.Copy(out, in)
				return err
			}, false, nil
		}}
	}), proxy.Config{Nodes: []string{url}, Audit: jsonLog(&audit), Log: jsonLog(&logs), AdminListen: "127.0.0.1:0"})
	body(t, post(t, p.url, nil, "X-Opaque-Id", "none"))
	body(t, post(t, p.url, nil, "X-Esproxy-Authorization", "Bearer good", "X-Opaque-Id", `a"é`+strings.Repeat("x", 200)))
	p.stop() // the line follows the reply
	lines := strings.Split(strings.TrimSpace(audit.String()), "\n")
	if len(lines) != 1 {
		t.Fatalf("%d lines: %s", len(lines), audit.String())
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(lines[0]), &line); err != nil {
		t.Fatal(err)
	}
	for key, want := range map[string]string{
		"token": `"t1"`, "who": `"alice\\n"`, "grant": `"full"`, "status": "200", "indices": `["user"]`, "api": `"test"`,
		"opened": `{"users.pan":{"masked":1,"plain":2}}`, "sealed": `{"users.pan":1}`, "unopened": `{"subject":4}`,
	} {
		if got, _ := json.Marshal(line[key]); string(got) != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	if id := line["opaque_id"].(string); !strings.HasPrefix(id, `a\"\u00e9xxx`) || len(id) > 150 {
		t.Errorf("opaque_id %q", id)
	}
	if all := audit.String() + logs.String(); strings.Contains(all, "Bearer") {
		t.Error("a header is in the logs")
	}
}

// TestCallers: a plan's own questions go with the client's credentials, and with nothing else of its head.
func TestCallers(t *testing.T) {
	url, got := recorder(t, ok)
	p := start(t, planFunc(func(c *rewrite.Call) (*rewrite.Plan, error) {
		status, b, err := c.Caller.Do(context.Background(), "POST", "/_mget?x=1", []byte(`{"docs":[]}`), 100)
		if status != 200 || string(b) != `{"ok":true}` || err != nil {
			t.Errorf("got %d %q %v", status, b, err)
		}
		if _, _, err := c.Caller.Do(context.Background(), "GET", "/", nil, 5); err == nil {
			t.Error("a reply that is too long was taken")
		}
		return raw(c)
	}), proxy.Config{Nodes: []string{url}, Own: proxy.Credentials{Username: "u", Password: "p"}})
	body(t, post(t, p.url, strings.NewReader("{}"), "Authorization", "ApiKey k", "Es-Security-Runas-User", "r", "X-Opaque-Id", "o", "X-Other", "x", "X-Esproxy-Authorization", "Bearer good"))
	h := got()[0].req.Header
	if len(h) != 5 || h.Get("Authorization") != "ApiKey k" || h.Get("Es-Security-Runas-User") != "r" || h.Get("X-Opaque-Id") != "o" ||
		h.Get("Content-Type") != "application/json" || got()[0].body != `{"docs":[]}` || got()[0].req.RequestURI != "/_mget?x=1" {
		t.Errorf("the question had the head %v", h)
	}
	if _, _, err := p.Own().Do(context.Background(), "GET", "/", nil, 100); err != nil {
		t.Fatal(err)
	}
	all := got()
	if user, pass, _ := all[len(all)-1].req.BasicAuth(); user != "u" || pass != "p" {
		t.Errorf("own credentials %q %q", user, pass)
	}
}

// TestGrantsNeedCover: on a plain listener that is not loopback a grant is refused, unless allowed.
func TestGrantsNeedCover(t *testing.T) {
	url, _ := recorder(t, ok)
	for _, allowed := range []bool{false, true} {
		s, err := proxy.New(proxy.Config{Listen: "0.0.0.0:0", Nodes: []string{url}, AllowPlainGrants: allowed})
		if err != nil {
			t.Fatal(err)
		}
		s.Swap(&proxy.State{Planner: planFunc(raw), Judge: judge{}})
		p := run(t, s)
		_, port, _ := net.SplitHostPort(p.addr)
		resp := post(t, "http://127.0.0.1:"+port, nil, "X-Esproxy-Authorization", "Bearer good")
		if allowed {
			body(t, resp)
			if resp.StatusCode != 200 {
				t.Errorf("allowed: %d", resp.StatusCode)
			}
		} else {
			wantFault(t, resp, 403, "esproxy_bad_grant")
		}
	}
}

// TestWatch: content counts, not time or absence.
func TestWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f")
	write := func(s string) {
		if err := os.WriteFile(file, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("before")
	w := proxy.NewWatch([]string{file})
	write("a")
	clock := &manualClock{ticks: make(chan time.Time), asked: make(chan bool)}
	ctx, cancel := context.WithCancel(context.Background())
	changes := 0
	ended := make(chan bool)
	go func() {
		w.Run(ctx, time.Second, clock, func() { changes++ })
		close(ended)
	}()
	<-clock.asked
	for i, step := range []struct {
		do   func()
		want int
	}{
		{func() {}, 1}, // what changed before the first tick
		{func() {}, 1},
		{func() { write("b") }, 2},
		{func() { write("b") }, 2},
		{func() { os.Remove(file) }, 2},
		{func() { write("b") }, 2},
		{func() { write("c") }, 3},
	} {
		step.do()
		clock.ticks <- time.Time{}
		<-clock.asked
		if changes != step.want {
			t.Errorf("step %d: %d changes, want %d", i, changes, step.want)
		}
	}
	cancel()
	<-ended
}

func TestNewRefusesSettings(t *testing.T) {
	for _, nodes := range [][]string{nil, {"localhost:9200"}, {"ftp://h"}, {"http://user:secret@h"}, {"http://h?x"}, {"http://user:sec ret@h:x"}} {
		_, err := proxy.New(proxy.Config{Nodes: nodes})
		if err == nil {
			t.Errorf("%q was taken", nodes)
		} else if strings.Contains(err.Error(), "sec") {
			t.Errorf("%v quotes a password", err)
		}
	}
	if _, err := proxy.New(proxy.Config{Nodes: []string{"https://h"}, Upstream: proxy.UpstreamTLS{Fingerprint: "ab"}}); err == nil {
		t.Error("a short fingerprint was taken")
	}
}

// TestRefusalsInTheLog: at the level info a refusal that is not the client's doing leaves a line, and others none.
func TestRefusalsInTheLog(t *testing.T) {
	url, _ := recorder(t, ok)
	var logs safeBuffer
	status := 400
	p := start(t, planFunc(func(*rewrite.Call) (*rewrite.Plan, error) {
		return nil, &rewrite.Fault{Status: status, Type: "esproxy_test", Reason: "secret", Cause: errors.New("secret")}
	}), proxy.Config{Nodes: []string{url}, Log: slog.New(slog.NewJSONHandler(&logs, nil))})
	get(t, p.url+"/x")
	if strings.Contains(logs.String(), "refused") {
		t.Errorf("a refusal with 400 is logged: %s", logs.String())
	}
	status = 503
	get(t, p.url+"/x")
	if got := logs.String(); !strings.Contains(got, `"level":"WARN","msg":"refused","type":"esproxy_test","status":503,"cause":"*errors.errorString"`) || strings.Contains(got, "secret") {
		t.Errorf("a refusal with 503: %s", got)
	}
}

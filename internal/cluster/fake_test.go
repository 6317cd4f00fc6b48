package cluster_test

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// fake is an Elasticsearch that answers what a test puts into it, and writes down who asked what.
type fake struct {
	t   *testing.T
	srv *httptest.Server

	shrink int64 // see httpCaller; set before callers are made

	mu    sync.Mutex
	reply map[string]func(auth, body string) (int, string) // by "METHOD /path", without the query
	asked []string                                         // "auth METHOD /path"
}

// newFake answers as a cluster without security, data streams and indices does.
func newFake(t *testing.T) *fake {
	f := &fake{t: t, reply: map[string]func(string, string) (int, string){}}
	f.srv = httptest.NewServer(f)
	t.Cleanup(f.srv.Close)
	f.set("GET /_alias", 200, `{}`)
	f.set("GET /_data_stream", 200, `{"data_streams":[]}`)
	f.set("GET /_all/_settings/index.uuid", 200, `{}`)
	f.set("GET /_template", 200, `{}`)
	f.set("GET /_index_template", 200, `{"index_templates":[]}`)
	f.set("GET /_cluster/settings", 200, `{"defaults":{"action":{"auto_create_index":"true"}}}`)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Method + " " + r.URL.Path
	f.mu.Lock()
	f.asked = append(f.asked, strings.TrimSpace(r.Header.Get("Authorization")+" "+key))
	h := f.reply[key]
	f.mu.Unlock()
	status, reply := 400, `{"error":"no handler found for uri"}`
	if strings.HasPrefix(key, "POST /_index_template/_simulate_index/") && h == nil {
		status, reply = 200, `{}`
	}
	if h != nil {
		status, reply = h(r.Header.Get("Authorization"), string(body))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, reply)
}

func (f *fake) on(key string, h func(auth, body string) (int, string)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reply[key] = h
}

func (f *fake) set(key string, status int, reply string) {
	f.on(key, func(string, string) (int, string) { return status, reply })
}

// setAll makes every endpoint known so far answer the same.
func (f *fake) setAll(status int, reply string) {
	f.mu.Lock()
	keys := maps.Clone(f.reply)
	f.mu.Unlock()
	for k := range keys {
		f.set(k, status, reply)
	}
}

// take gives what was asked since the last call.
func (f *fake) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.asked
	f.asked = nil
	return a
}

func (f *fake) count(what string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, a := range f.asked {
		if a == what {
			n++
		}
	}
	return n
}

// clock is a clock that stands until it is moved.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Date(2026, 11, 24, 12, 30, 15, 0, time.UTC)} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// cluster makes one with credentials "own" and no timer.
func (f *fake) cluster(cfg cluster.Config) *cluster.Cluster {
	f.t.Helper()
	cfg.Own = f.as("own")
	if cfg.ViewEvery == 0 {
		cfg.ViewEvery = -1
	}
	c := cluster.New(cfg)
	f.t.Cleanup(c.Close)
	return c
}

func (f *fake) caller() rewrite.Caller { return f.as("alice") }

func (f *fake) as(auth string) *httpCaller {
	c := newCaller(f.t, f.srv.URL, auth)
	c.shrink = f.shrink
	return c
}

// wantFault checks status, type and that the reason says each of the words.
func wantFault(t *testing.T, err error, status int, typ string, words ...string) {
	t.Helper()
	var f *rewrite.Fault
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want a fault", err)
	}
	if f.Status != status || f.Type != typ {
		t.Errorf("got %d %s (%v, cause %v), want %d %s", f.Status, f.Type, f, f.Cause, status, typ)
	}
	for _, w := range words {
		if !strings.Contains(f.Reason, w) {
			t.Errorf("reason %q does not say %q", f.Reason, w)
		}
	}
}

var _ rewrite.Caller = (*httpCaller)(nil)

// deadCaller never answers until the context ends.
type deadCaller struct{ asked chan struct{} }

func (d *deadCaller) Do(ctx context.Context, _, _ string, _ []byte, _ int64) (int, []byte, error) {
	select {
	case d.asked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return 0, nil, ctx.Err()
}

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// planFunc is a Planner.
type planFunc func(c *rewrite.Call) (*rewrite.Plan, error)

func (f planFunc) Plan(_ context.Context, c *rewrite.Call) (*rewrite.Plan, error) { return f(c) }

func planOf(c *rewrite.Call, t rewrite.Transform) *rewrite.Plan {
	return &rewrite.Plan{Route: "/test", API: "test", Target: rewrite.Target{Method: c.Method, Path: c.Path, Query: c.Query}, Transform: t}
}

// raw plans every request as one that passes.
func raw(c *rewrite.Call) (*rewrite.Plan, error) { return planOf(c, nil), nil }

// fake is a Transform. Nil functions copy the request and leave the reply.
type fake struct {
	request func(ctx context.Context, plan *rewrite.Plan, body io.Reader, up io.Writer) (bool, error)
	reply   func(head rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error)
	closed  atomic.Int32
}

func (f *fake) Request(ctx context.Context, plan *rewrite.Plan, body io.Reader, up io.Writer) (bool, error) {
	if f.request == nil {
		_, err := io.Copy(up, body)
		return false, err
	}
	return f.request(ctx, plan, body, up)
}

func (f *fake) Reply(_ context.Context, head rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
	if f.reply == nil {
		return nil, false, nil
	}
	return f.reply(head)
}

func (f *fake) Close() { f.closed.Add(1) }

// with plans every request with a transform of its own and checks at the test's end that each was closed once.
func with(t *testing.T, newFake func(c *rewrite.Call) *fake) planFunc {
	t.Helper()
	var mu sync.Mutex
	var all []*fake
	t.Cleanup(func() {
		mu.Lock()
		defer mu.Unlock()
		for i, f := range all {
			if n := f.closed.Load(); n != 1 {
				t.Errorf("transform %d was closed %d times, want once", i, n)
			}
		}
	})
	return func(c *rewrite.Call) (*rewrite.Plan, error) {
		f := newFake(c)
		mu.Lock()
		all = append(all, f)
		mu.Unlock()
		return planOf(c, f), nil
	}
}

// judge knows the one good header "Bearer good".
type judge struct{}

type viewer struct{}

func (viewer) Reveal(*policy.Field) policy.Reveal                { return policy.Plain }
func (viewer) Mask(dst []byte, _ *policy.Field, _ []byte) []byte { return dst }
func (judge) Judge(authz, _ []string, secure bool) (*proxy.Grantee, error) {
	switch {
	case len(authz) == 0:
		return nil, nil
	case !secure:
		return nil, errors.New("a grant is not accepted here")
	case len(authz) > 1 || authz[0] != "Bearer good":
		return nil, errors.New("the grant header is malformed")
	}
	return &proxy.Grantee{TokenID: "t1", Who: "alice\n", Grant: "full", Viewer: viewer{}}, nil
}

// instance is a running proxy.
type instance struct {
	*proxy.Server
	addr string // host:port
	url  string
	stop func() error // ends it and waits; may be called twice
}

// start runs a proxy in front of nodes.
func start(t *testing.T, planner proxy.Planner, cfg proxy.Config) *instance {
	t.Helper()
	cfg.Listen = "127.0.0.1:0"
	s, err := proxy.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if planner != nil {
		s.Swap(&proxy.State{Planner: planner, Judge: judge{}})
	}
	return run(t, s)
}

func run(t *testing.T, s *proxy.Server) *instance {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	stop := sync.OnceValue(func() error {
		cancel()
		return <-ended
	})
	t.Cleanup(func() { stop() })
	select {
	case <-s.Started():
	case err := <-ended:
		t.Fatal(err)
	}
	return &instance{Server: s, addr: s.Addr().String(), url: "http://" + s.Addr().String(), stop: stop}
}

// wire is an upstream below HTTP: it hands each connection to a function.
type wire struct {
	url   string
	conns *atomic.Int32
}

func newWire(t *testing.T, serve func(n int, c net.Conn, r *bufio.Reader)) *wire {
	t.Helper()
	url, conns := proxy.Listen(t, serve)
	return &wire{url, conns}
}

// readHead reads up to the empty line.
func readHead(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		b.WriteString(line)
		if err != nil || line == "\r\n" {
			return b.String(), err
		}
	}
}

// exchange sends request bytes as they are and returns all bytes of the reply until the server closes;
// the request should ask for that.
func exchange(t *testing.T, addr, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		t.Fatalf("no reply: %v", err)
	}
	return string(b)
}

// client is an HTTP client whose connections end with the test.
func client(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 200}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 30 * time.Second}
}

func body(t *testing.T, resp *http.Response) string {
	t.Helper()
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("reading the reply: %v", err)
	}
	return string(b)
}

func wantFault(t *testing.T, resp *http.Response, status int, typ string) string {
	t.Helper()
	b := body(t, resp)
	if resp.StatusCode != status || !strings.Contains(b, `"type":"`+typ+`"`) {
		t.Fatalf("got %d %s, want %d %s", resp.StatusCode, b, status, typ)
	}
	if got := resp.Header.Get("X-Elastic-Product"); got != "Elasticsearch" {
		t.Errorf("X-Elastic-Product %q", got)
	}
	return b
}

// safeBuffer is a buffer for logs.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func jsonLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func reply(status, headers, body string) string {
	return fmt.Sprintf("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s", status, headers, len(body), body)
}

var quiet = log.New(io.Discard, "", 0)

// manualClock stands until it is moved. After gives ticks, and tells asked first, where they are set.
type manualClock struct {
	mu    sync.Mutex
	now   time.Time
	ticks chan time.Time
	asked chan bool
}

func (c *manualClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *manualClock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *manualClock) After(time.Duration) <-chan time.Time {
	if c.asked != nil {
		c.asked <- true
	}
	return c.ticks
}

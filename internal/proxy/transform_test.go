package proxy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// seen is what a recording upstream was sent.
type seen struct {
	req  *http.Request
	body string
	err  error
}

// recorder is an upstream that records and answers by answer.
func recorder(t *testing.T, answer func(w http.ResponseWriter, s seen)) (url string, got func() []seen) {
	t.Helper()
	var mu sync.Mutex
	var all []seen
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		rec := seen{req: r, body: string(b), err: err}
		mu.Lock()
		all = append(all, rec)
		mu.Unlock()
		answer(w, rec)
	}))
	s.Config.ErrorLog = quiet
	s.Start()
	t.Cleanup(s.Close)
	return s.URL, func() []seen { mu.Lock(); defer mu.Unlock(); return append([]seen(nil), all...) }
}

func ok(w http.ResponseWriter, _ seen) {
	w.Header().Set("Content-Type", "application/json")
	io.WriteString(w, `{"ok":true}`)
}

func packed(t *testing.T, kind, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&b)
	if kind == "deflate" {
		w = zlib.NewWriter(&b)
	}
	io.WriteString(w, s)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func post(t *testing.T, url string, body io.Reader, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequest("POST", url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// upper makes bodies upper case, so that tests see which bytes went through a transform.
func upper(c *rewrite.Call) *fake {
	return &fake{
		request: func(_ context.Context, _ *rewrite.Plan, body io.Reader, up io.Writer) (bool, error) {
			b, err := io.ReadAll(body)
			if err != nil {
				return false, err
			}
			_, err = up.Write(bytes.ToUpper(b))
			return false, err
		},
		reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
			return func(in io.Reader, out io.Writer) error {
				b, err := io.ReadAll(in)
				if err != nil {
					return err
				}
				_, err = out.Write(bytes.ToUpper(b))
				return err
			}, false, nil
		},
	}
}

func TestTransformSmall(t *testing.T) {
	url, got := recorder(t, func(w http.ResponseWriter, s seen) {
		w.Header().Set("Etag", "x")
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		if s.req.Header.Get("Accept-Encoding") == "gzip" {
			w.Header().Set("Content-Encoding", "gzip")
			w.Write(packed(t, "gzip", `{"ok":true}`))
			return
		}
		ok(w, s)
	})
	p := start(t, with(t, upper), proxy.Config{Nodes: []string{url}})
	for _, kind := range []string{"", "gzip", "GZIP", "deflate", "identity"} {
		send := []byte("doc")
		if k := strings.ToLower(kind); k == "gzip" || k == "deflate" {
			send = packed(t, k, "doc")
		}
		header := []string{"X-Esproxy-Authorization", "Bearer good", "Accept-Encoding", "gzip, br", "X_ESPROXY_AUTHORIZATION", "Bearer good"}
		if kind != "" {
			header = append(header, "Content-Encoding", kind)
		}
		resp := post(t, p.url+"/x", bytes.NewReader(send), header...)
		if b := body(t, resp); b != `{"OK":TRUE}` || resp.StatusCode != 200 {
			t.Fatalf("%q: reply %d %q", kind, resp.StatusCode, b)
		}
		h := resp.Header
		if h.Get("Content-Encoding") != "" || h.Get("Etag") != "" || h.Get("Cache-Control") != "no-store" || h.Get("X-Elastic-Product") != "Elasticsearch" {
			t.Errorf("%q: reply head %v", kind, h)
		}
		all := got()
		s := all[len(all)-1]
		if s.body != "DOC" || s.req.ContentLength != 3 || s.req.Header.Get("Content-Encoding") != "" || s.req.Header.Get("Accept-Encoding") != "gzip" {
			t.Errorf("%q: upstream got %q, length %d, %v", kind, s.body, s.req.ContentLength, s.req.Header)
		}
		for name := range s.req.Header {
			if strings.HasPrefix(strings.ToLower(strings.ReplaceAll(name, "_", "-")), "x-esproxy") {
				t.Errorf("%s went up", name)
			}
		}
	}
}

// A body that the client did not send has the type that the transform tells.
func TestTransformAddsABody(t *testing.T) {
	url, got := recorder(t, ok)
	adds := func(*rewrite.Call) *fake {
		return &fake{request: func(_ context.Context, plan *rewrite.Plan, _ io.Reader, up io.Writer) (bool, error) {
			plan.ContentType = "application/json"
			_, err := io.WriteString(up, "{}")
			return false, err
		}}
	}
	p := start(t, with(t, adds), proxy.Config{Nodes: []string{url}})
	req, err := http.NewRequest("PUT", p.url+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body(t, resp)
	if s := got()[0]; s.body != "{}" || s.req.Header.Get("Content-Type") != "application/json" || resp.StatusCode != 200 {
		t.Errorf("upstream got %q, %v; status %d", s.body, s.req.Header, resp.StatusCode)
	}
}

func TestBadEncodings(t *testing.T) {
	url, got := recorder(t, ok)
	p := start(t, with(t, upper), proxy.Config{Nodes: []string{url}})
	good := packed(t, "gzip", "document")
	bomb := packed(t, "gzip", strings.Repeat("\x00", 40<<20))
	damaged := bytes.Clone(good)
	damaged[len(damaged)-6] ^= 1
	for name, c := range map[string]struct {
		body   []byte
		header []string
		status int
		typ    string
	}{
		"unknown":      {good, []string{"Content-Encoding", "br"}, 415, "esproxy_unsupported_encoding"},
		"list":         {good, []string{"Content-Encoding", "gzip, br"}, 415, "esproxy_unsupported_encoding"},
		"two":          {good, []string{"Content-Encoding", "gzip", "Content-Encoding", "gzip"}, 415, "esproxy_unsupported_encoding"},
		"two types":    {good, []string{"Content-Type", "application/json"}, 400, "esproxy_bad_header"},
		"cut":          {good[:len(good)-3], []string{"Content-Encoding", "gzip"}, 400, "esproxy_bad_body"},
		"head cut":     {good[:4], []string{"Content-Encoding", "gzip"}, 400, "esproxy_bad_body"},
		"checksum":     {damaged, []string{"Content-Encoding", "gzip"}, 400, "esproxy_bad_body"},
		"multi-member": {append(bytes.Clone(good), good...), []string{"Content-Encoding", "gzip"}, 400, "esproxy_bad_body"},
		"trailing":     {append(bytes.Clone(good), 0), []string{"Content-Encoding", "gzip"}, 400, "esproxy_bad_body"},
		"not packed":   {[]byte("document"), []string{"Content-Encoding", "gzip"}, 400, "esproxy_bad_body"},
		"raw deflate":  {[]byte("\x4b\xca\x4f\x2e\x01\x00"), []string{"Content-Encoding", "deflate"}, 400, "esproxy_bad_body"},
		"bomb":         {bomb, []string{"Content-Encoding", "gzip"}, 413, "esproxy_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			wantFault(t, post(t, p.url+"/x", bytes.NewReader(c.body), c.header...), c.status, c.typ)
		})
	}
	if n := len(got()); n != 0 {
		t.Errorf("%d requests went up", n)
	}
}

// TestForgetful: a transform that forgets the error of a broken body can't make a whole one of it.
func TestForgetful(t *testing.T) {
	url, got := recorder(t, ok)
	good := packed(t, "gzip", strings.Repeat("document", 100))
	p := start(t, with(t, func(*rewrite.Call) *fake {
		return &fake{request: func(_ context.Context, _ *rewrite.Plan, body io.Reader, up io.Writer) (bool, error) {
			io.CopyN(up, body, 100) // and leaves the rest unread
			return false, nil
		}}
	}), proxy.Config{Nodes: []string{url}})
	wantFault(t, post(t, p.url, bytes.NewReader(append(good, 1)), "Content-Encoding", "gzip"), 400, "esproxy_bad_body")
	if n := len(got()); n != 0 {
		t.Errorf("%d requests went up", n)
	}
}

// TestTransformLarge: beyond 256 KiB a body goes up in chunks, whole and in order, by writes of any size.
func TestTransformLarge(t *testing.T) {
	url, got := recorder(t, ok)
	want := strings.Repeat("0123456789abcdef", 100<<10)
	for _, size := range []int{100, 4 << 10, 64 << 10, 300 << 10, len(want)} {
		p := start(t, with(t, func(*rewrite.Call) *fake {
			return &fake{request: func(_ context.Context, plan *rewrite.Plan, body io.Reader, up io.Writer) (bool, error) {
				plan.Target.Path = "/other"
				buf := make([]byte, size)
				for {
					n, err := io.ReadFull(body, buf)
					if _, werr := up.Write(buf[:n]); werr != nil {
						return false, werr
					}
					if err == io.EOF || err == io.ErrUnexpectedEOF {
						return false, nil
					} else if err != nil {
						return false, err
					}
				}
			}}
		}), proxy.Config{Nodes: []string{url}})
		resp := post(t, p.url+"/x?a=b", strings.NewReader(want))
		if b := body(t, resp); b != `{"ok":true}` {
			t.Fatalf("reply %q", b)
		}
		all := got()
		s := all[len(all)-1]
		if s.body != want || s.req.ContentLength != -1 || s.req.RequestURI != "/other?a=b" {
			t.Errorf("size %d: upstream got %d bytes, length %d, %s", size, len(s.body), s.req.ContentLength, s.req.RequestURI)
		}
		p.stop()
	}
}

// TestCutRequests: when the body fails after bytes went up, Elasticsearch never sees its end, and the client
// gets the fault.
func TestCutRequests(t *testing.T) {
	large := strings.Repeat("x", 1<<20)
	type end struct {
		n     int
		whole bool
	}
	ends := make(chan end, 1)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		n, err := io.Copy(io.Discard, req.Body)
		ends <- end{int(n), err == nil}
	})
	for name, c := range map[string]struct {
		fail   func(up io.Writer) error
		limit  int64
		status int
		typ    string
	}{
		"fault":                 {func(io.Writer) error { return &rewrite.Fault{Status: 400, Type: "esproxy_test", Reason: "no"} }, 0, 400, "esproxy_test"},
		"error":                 {func(io.Writer) error { return errors.New("no") }, 0, 502, "esproxy_upstream_failed"},
		"panic":                 {func(io.Writer) error { panic("secret") }, 0, 500, "esproxy_internal"},
		"over limit":            {func(up io.Writer) error { _, err := io.WriteString(up, large); return err }, 1 << 20, 413, "esproxy_too_large"},
		"over limit, forgotten": {func(up io.Writer) error { io.WriteString(up, large); return nil }, 1 << 20, 413, "esproxy_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			var logs safeBuffer
			s, err := proxy.New(proxy.Config{Listen: "127.0.0.1:0", Nodes: []string{up.url}, Log: jsonLog(&logs)})
			if err != nil {
				t.Fatal(err)
			}
			s.Swap(&proxy.State{Judge: judge{}, MaxContentLength: func(context.Context) int64 { return c.limit }, Planner: with(t, func(*rewrite.Call) *fake {
				return &fake{request: func(_ context.Context, _ *rewrite.Plan, body io.Reader, up io.Writer) (bool, error) {
					if _, err := io.WriteString(up, large[:512<<10]); err != nil {
						t.Error(err)
					}
					return false, c.fail(up)
				}}
			})})
			p := run(t, s)
			wantFault(t, post(t, p.url, strings.NewReader("{}")), c.status, c.typ)
			if got := <-ends; got.whole {
				t.Errorf("upstream read a whole body of %d bytes", got.n)
			}
			if strings.Contains(logs.String(), "secret") {
				t.Error("the log holds the panic's value")
			}
			if name == "panic" && !strings.Contains(logs.String(), "transform_test.go") {
				t.Errorf("the log doesn't say where: %s", logs.String())
			}
		})
	}
}

// TestEarlyReplies: a refusal that comes while the body still goes up reaches the client, and the transform
// is stopped, whichever side it waits for. A success so early is none.
func TestEarlyReplies(t *testing.T) {
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		status := strings.TrimPrefix(strings.Fields(head)[1], "/")
		io.ReadFull(r, make([]byte, 100<<10))
		if status != "0" {
			io.WriteString(c, reply(status+" X", "X-Mark: 1\r\nConnection: close\r\n", `{"early":1}`))
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c) // unread bytes would reset the connection, and the reply with it
		}
	})
	p := start(t, with(t, func(*rewrite.Call) *fake {
		return &fake{reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
			t.Error("the transform was asked about a reply to a request it had not finished")
			return nil, false, nil
		}}
	}), proxy.Config{Nodes: []string{up.url}})
	for _, endless := range []bool{true, false} {
		for _, status := range []int{413, 503, 200, 0} {
			c, err := net.Dial("tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			fmt.Fprintf(c, "POST /%d HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", status)
			chunk := fmt.Sprintf("%x\r\n%s\r\n", 64<<10, strings.Repeat("x", 64<<10))
			for range 6 {
				io.WriteString(c, chunk)
			}
			if endless { // else the proxy waits for us
				go func() {
					for {
						if _, err := io.WriteString(c, chunk); err != nil {
							return
						}
					}
				}()
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("%d, endless %v: %v", status, endless, err)
			}
			if status >= 400 {
				if resp.StatusCode != status || resp.Header.Get("X-Mark") != "1" {
					t.Errorf("got %d, want %d", resp.StatusCode, status)
				}
				if b := body(t, resp); b != `{"early":1}` {
					t.Errorf("got %q", b)
				}
			} else {
				wantFault(t, resp, 502, "esproxy_upstream_failed")
			}
			c.Close()
		}
	}
}

// TestKilledBulk kills the upstream at many places of a bulk; no client may see a status below 400.
func TestKilledBulk(t *testing.T) {
	const size = 2 << 20
	for _, at := range []int{0, 1, 100 << 10, 1 << 20, size - 1} {
		up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
			readHead(r)
			io.ReadFull(r, make([]byte, at))
			c.(*net.TCPConn).SetLinger(0)
		})
		p := start(t, with(t, func(*rewrite.Call) *fake { return &fake{} }), proxy.Config{Nodes: []string{up.url}})
		for _, n := range []int{size, 1000} {
			if n < at {
				continue
			}
			resp := post(t, p.url+"/_bulk", strings.NewReader(strings.Repeat("x", n)))
			wantFault(t, resp, 502, "esproxy_upstream_failed")
		}
		p.stop()
	}
}

func TestSlowBody(t *testing.T) {
	url, _ := recorder(t, ok)
	p := start(t, with(t, upper), proxy.Config{Nodes: []string{url}, SlowWindow: 200 * time.Millisecond, SlowRate: 1 << 20})
	// Nothing more comes.
	got := exchange(t, p.addr, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n123")
	if !strings.HasPrefix(got, "HTTP/1.1 408") || !strings.Contains(got, "esproxy_slow_body") {
		t.Errorf("silent client: %q", got)
	}
	// Something comes, but too little.
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n\r\n")
	ended := make(chan string)
	go func() {
		b, _ := io.ReadAll(c)
		ended <- string(b)
	}()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			io.WriteString(c, "x")
			continue
		case got := <-ended:
			if !strings.HasPrefix(got, "HTTP/1.1 408") {
				t.Errorf("trickling client: %q", got)
			}
			return
		}
	}
}

func TestMaxContentLength(t *testing.T) {
	url, got := recorder(t, ok)
	s, err := proxy.New(proxy.Config{Listen: "127.0.0.1:0", Nodes: []string{url}})
	if err != nil {
		t.Fatal(err)
	}
	s.Swap(&proxy.State{Judge: judge{}, MaxContentLength: func(context.Context) int64 { return 1000 }, Planner: with(t, func(*rewrite.Call) *fake {
		return &fake{request: func(_ context.Context, _ *rewrite.Plan, body io.Reader, up io.Writer) (bool, error) {
			b, err := io.ReadAll(body)
			if err != nil {
				return false, err
			}
			_, err = up.Write(append(b, b...))
			return false, err
		}}
	})})
	p := run(t, s)
	if b := body(t, post(t, p.url, strings.NewReader(strings.Repeat("x", 500)))); b != `{"ok":true}` {
		t.Errorf("a body that fits: %s", b)
	}
	if b := wantFault(t, post(t, p.url, strings.NewReader(strings.Repeat("x", 600))), 413, "esproxy_too_large"); !strings.Contains(b, "about 500 bytes") {
		t.Errorf("no hint in %s", b)
	}
	wantFault(t, post(t, p.url, strings.NewReader(strings.Repeat("x", 1001))), 413, "esproxy_too_large")
	got413 := exchange(t, p.addr, "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n")
	if !strings.HasPrefix(got413, "HTTP/1.1 413") {
		t.Errorf("a length over the limit: %q", got413)
	}
	if n := len(got()); n != 1 {
		t.Errorf("%d requests went up, want 1", n)
	}
}

// TestBudget: bodies share the memory; who waits too long gets 429, and nothing is lost on the way.
func TestBudget(t *testing.T) {
	url, _ := recorder(t, ok)
	p := start(t, with(t, func(*rewrite.Call) *fake { return &fake{} }), proxy.Config{Nodes: []string{url}, Memory: 200 << 10, BusyWait: 50 * time.Millisecond})
	doc := strings.Repeat("x", 100<<10)
	if b := body(t, post(t, p.url, strings.NewReader(doc))); b != `{"ok":true}` {
		t.Fatalf("got %s", b)
	}
	if err := p.Budget().Acquire(context.Background(), 190<<10); err != nil {
		t.Fatal(err)
	}
	wantFault(t, post(t, p.url, strings.NewReader(doc)), 429, "esproxy_busy")
	p.Budget().Release(190 << 10)
	if err := p.Budget().Acquire(context.Background(), 200<<10); err != nil {
		t.Fatalf("memory was not given back: %v", err)
	}
	p.Budget().Release(200 << 10)
	var f *rewrite.Fault
	if err := p.Budget().Acquire(context.Background(), 201<<10); !errors.As(err, &f) || f.Status != 413 {
		t.Errorf("more than all: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	p.Budget().Acquire(context.Background(), 200<<10)
	if err := p.Budget().Acquire(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	p.Budget().Release(200 << 10)
}

package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// TestPassHead sends a head with all that a hop may spoil and compares what arrives and what comes back.
func TestPassHead(t *testing.T) {
	heads := make(chan string, 1)
	answer := "HTTP/1.1 201 Created\r\nX-elastic-product: Elasticsearch\r\nWarning: 299 one\r\nWarning: 299 two\r\nLocation: /i/_doc/%31\r\n" +
		"content-type: application/vnd.elasticsearch+json;compatible-with=8\r\ncontent-encoding: gzip\r\nConnection: X-Gone\r\nX-Gone: 1\r\ncontent-length: 5\r\n\r\n\x1f\x8b\x00\x01\xff"
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		rest := make([]byte, 7)
		io.ReadFull(r, rest)
		heads <- head + string(rest)
		io.WriteString(c, answer)
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url + "/base/"}})
	got := exchange(t, p.addr, "PUT /i%2F//x/%31;a=1+2/?q=%c3%a9&&b;=| HTTP/1.1\r\nHost: client\r\nContent-Type: application/json; charset=utf-8\r\n"+
		"Content-Encoding: br\r\nX-A: 1\r\nX-A: 2\r\nAuthorization: ApiKey abc\r\nX-Opaque-Id: o\r\nX-ESPROXY-Foo: secret\r\nx-esproxy-bar: secret\r\n"+
		"Idempotency-Key: k\r\nConnection: close, X-Hop\r\nX-Hop: gone\r\nKeep-Alive: 3\r\nContent-Length: 7\r\n\r\n\x00\x01{\r\n}\xff")
	sent := <-heads
	line, rest, _ := strings.Cut(sent, "\r\n")
	if want := "PUT /base/i%2F//x/%31;a=1+2/?q=%c3%a9&&b;=| HTTP/1.1"; line != want {
		t.Errorf("request line %q, want %q", line, want)
	}
	want := strings.ToLower("Host: " + strings.TrimPrefix(up.url, "http://") + "\r\nContent-Length: 7\r\nAuthorization: ApiKey abc\r\nContent-Encoding: br\r\n" +
		"Content-Type: application/json; charset=utf-8\r\nIdempotency-Key: k\r\nX-A: 1\r\nX-A: 2\r\nX-Opaque-Id: o\r\n\r\n")
	if got := strings.ToLower(rest[:len(rest)-7]); got != want {
		t.Errorf("head\n%q, want\n%q", got, want)
	}
	if !strings.HasSuffix(rest, "\x00\x01{\r\n}\xff") {
		t.Errorf("body of %q", rest)
	}
	wantReply := "HTTP/1.1 201 Created\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\nContent-Type: application/vnd.elasticsearch+json;compatible-with=8\r\n" +
		"Location: /i/_doc/%31\r\nWarning: 299 one\r\nWarning: 299 two\r\nX-Elastic-Product: Elasticsearch\r\nConnection: close\r\n\r\n\x1f\x8b\x00\x01\xff"
	if got != wantReply {
		t.Errorf("reply\n%q, want\n%q", got, wantReply)
	}
}

// TestPassTargets: each target arrives as it was sent.
func TestPassTargets(t *testing.T) {
	lines := make(chan string, 1)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			line, _, _ := strings.Cut(head, "\r\n")
			lines <- line
			io.WriteString(c, reply("200 OK", "", ""))
		}
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}})
	for _, target := range []string{"/", "/?", "//_search", `//a"b`, "/a/../b/./c", "/%2e%2E/x", "/a?b?c", "/a|b", "/é", "/_search?q=a%20b+c&pretty", "/*/_search", "/<logs-{now%2Fd}>"} {
		exchange(t, p.addr, "GET "+target+" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		if got, want := <-lines, "GET "+target+" HTTP/1.1"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestRefusedHeads(t *testing.T) {
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) { t.Error("a connection was made") })
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}})
	for name, c := range map[string]struct{ line, header, status, typ string }{
		"absolute":     {"GET http://h/x", "", "400", "esproxy_bad_target"},
		"star":         {"OPTIONS *", "", "400", "esproxy_bad_target"},
		"connect":      {"CONNECT h:1", "", "400", "esproxy_bad_target"},
		"fragment":     {"GET /x#y", "", "400", "esproxy_bad_target"},
		"long line":    {"GET /" + strings.Repeat("a", 4096), "", "400", "esproxy_head_too_large"},
		"long head":    {"GET /", "X-A: " + strings.Repeat("a", 14<<10) + "\r\n", "400", "esproxy_head_too_large"},
		"grant":        {"GET /", "X-Esproxy-Authorization: Bearer bad\r\n", "403", "esproxy_bad_grant"},
		"two grants":   {"GET /", "X-Esproxy-Authorization: Bearer good\r\nx-esproxy-authorization: Bearer good\r\n", "403", "esproxy_bad_grant"},
		"hidden grant": {"GET /", "X-Esproxy-Authorization: Bearer bad\r\nConnection: X-Esproxy-Authorization\r\n", "403", "esproxy_bad_grant"},
	} {
		got := exchange(t, p.addr, c.line+" HTTP/1.1\r\nHost: h\r\nAccept: application/vnd.elasticsearch+json; compatible-with=8\r\nConnection: close\r\n"+c.header+"\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 "+c.status) || !strings.Contains(got, `"type":"`+c.typ+`"`) ||
			!strings.Contains(got, "Content-Type: application/vnd.elasticsearch+json;compatible-with=8\r\n") || strings.Contains(got, "Date:") {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// TestPassFraming: chunked stays chunked, lengths stay, HEAD has a length and no body, trailers arrive.
func TestPassFraming(t *testing.T) {
	heads := make(chan string, 1)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		switch {
		case strings.HasPrefix(head, "HEAD"):
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n")
		case strings.HasPrefix(head, "POST"):
			chunks := ""
			for !strings.HasSuffix(chunks, "\r\n\r\n") {
				line, err := r.ReadString('\n')
				if err != nil {
					break
				}
				chunks += line
			}
			head += chunks
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3\r\nabc\r\n0\r\nX-T: v\r\n\r\n")
		case strings.HasPrefix(head, "GET"):
			io.WriteString(c, "HTTP/1.1 204 No Content\r\n\r\n")
		}
		heads <- head
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}})
	got := exchange(t, p.addr, "HEAD / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	<-heads
	if want := "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nConnection: close\r\n\r\n"; got != want {
		t.Errorf("HEAD: %q, want %q", got, want)
	}
	got = exchange(t, p.addr, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
	<-heads
	if want := "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"; got != want {
		t.Errorf("204: %q, want %q", got, want)
	}
	got = exchange(t, p.addr, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nTransfer-Encoding: chunked\r\nTrailer: X-R, X-Esproxy-T\r\n\r\n2\r\nhi\r\n0\r\nX-R: w\r\nX-Esproxy-T: no\r\n\r\n")
	sent := <-heads
	if !strings.Contains(sent, "Transfer-Encoding: chunked\r\n") || !strings.HasSuffix(sent, "2\r\nhi\r\n0\r\nX-R: w\r\n\r\n") || strings.Contains(sent, "Esproxy") {
		t.Errorf("chunked request: %q", sent)
	}
	if !strings.Contains(got, "Transfer-Encoding: chunked\r\n") || !strings.HasSuffix(got, "3\r\nabc\r\n0\r\nX-T: v\r\n\r\n") {
		t.Errorf("chunked reply: %q", got)
	}
}

// TestExpect: the body is asked for only when it is wanted.
func TestExpect(t *testing.T) {
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		if strings.HasPrefix(head, "PUT /no") {
			io.WriteString(c, reply("401 Unauthorized", "", "{}"))
			return
		}
		io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
		io.ReadFull(r, make([]byte, 2))
		io.WriteString(c, reply("200 OK", "", "{}"))
	})
	p := start(t, planFunc(func(c *rewrite.Call) (*rewrite.Plan, error) {
		if c.Path == "/refused" {
			return nil, &rewrite.Fault{Status: 400, Type: "esproxy_test", Reason: "no"}
		}
		return raw(c)
	}), proxy.Config{Nodes: []string{up.url}})
	for path, want := range map[string]string{"/refused": "HTTP/1.1 400", "/no": "HTTP/1.1 401", "/yes": "HTTP/1.1 100"} {
		c, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "PUT %s HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n", path)
		r := bufio.NewReader(c)
		line, _ := r.ReadString('\n')
		if !strings.HasPrefix(line, want) {
			t.Errorf("%s: got %q, want %q", path, line, want)
		}
		if path == "/yes" {
			readHead(r)
			io.WriteString(c, "{}")
			if line, _ := r.ReadString('\n'); !strings.HasPrefix(line, "HTTP/1.1 200") {
				t.Errorf("after the body: %q", line)
			}
		}
		c.Close()
	}
}

// TestNoReplay: a write whose connection breaks after it was sent is not sent again, whatever its headers;
// a GET on a stale connection is.
func TestNoReplay(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]int{}
	serve := func(n int, c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			method, _, _ := strings.Cut(head, " ")
			mu.Lock()
			seen[method]++
			mu.Unlock()
			if strings.Contains(head, " /break") && (n == 1 || method != "GET") {
				return // after reading, without an answer
			}
			io.WriteString(c, reply("200 OK", "", "{}"))
		}
	}
	for _, method := range []string{"POST", "DELETE", "PUT", "GET"} {
		first, second := newWire(t, serve), newWire(t, serve)
		nodes := []string{first.url}
		if method != "GET" {
			nodes = append(nodes, second.url)
		}
		p := start(t, planFunc(raw), proxy.Config{Nodes: nodes})
		warm := func() { // one pooled connection per node
			for range nodes {
				resp, err := client(t).Get(p.url + "/warm")
				if err != nil {
					t.Fatal(err)
				}
				body(t, resp)
			}
		}
		warm()
		mu.Lock()
		clear(seen)
		mu.Unlock()
		req, _ := http.NewRequest(method, p.url+"/break", nil)
		req.Header.Set("Idempotency-Key", "k")
		req.Header.Set("X-Idempotency-Key", "k")
		resp, err := client(t).Transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if method == "GET" {
			if b := body(t, resp); resp.StatusCode != 200 || b != "{}" {
				t.Errorf("GET on a stale connection: %d %s", resp.StatusCode, b)
			}
		} else {
			wantFault(t, resp, 502, "esproxy_upstream_failed")
			mu.Lock()
			if seen[method] != 1 {
				t.Errorf("%s was sent %d times", method, seen[method])
			}
			mu.Unlock()
		}
		p.stop()
	}
}

// TestNodes: a node that refuses connections is skipped, also for writes, and left out for a while.
func TestNodes(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	deadURL := "http://" + dead.Addr().String()
	dead.Close()
	var got sync.Map
	node := func(name string) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			n, _ := got.LoadOrStore(name, new([]string))
			*(n.(*[]string)) = append(*(n.(*[]string)), string(b))
			io.WriteString(w, name)
		}))
		t.Cleanup(s.Close)
		return s
	}
	a, b := node("a"), node("b")
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{deadURL, a.URL, b.URL}})
	c := client(t)
	count := map[string]int{}
	for i := range 12 {
		resp, err := c.Post(p.url+"/x", "application/json", strings.NewReader(fmt.Sprint(i)))
		if err != nil {
			t.Fatal(err)
		}
		count[body(t, resp)]++
	}
	if count["a"]+count["b"] != 12 || count["a"] < 3 || count["b"] < 3 {
		t.Errorf("replies by node: %v", count)
	}
	p.stop()

	p = start(t, planFunc(raw), proxy.Config{Nodes: []string{deadURL}})
	resp, err := c.Get(p.url)
	if err != nil {
		t.Fatal(err)
	}
	wantFault(t, resp, 502, "esproxy_upstream_failed")
}

// TestCutReply: a reply that breaks off is never ended like a whole one.
func TestCutReply(t *testing.T) {
	for name, answer := range map[string]string{
		"length":  "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
		"chunked": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
		"head":    "HTTP/1.1 200 OK\r\nContent-Le",
	} {
		up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
			readHead(r)
			io.WriteString(c, answer)
		})
		p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}, AdminListen: "127.0.0.1:0"})
		resp, err := client(t).Get(p.url)
		if name == "head" {
			if err != nil {
				t.Fatal(err)
			}
			wantFault(t, resp, 502, "esproxy_upstream_failed")
			continue
		}
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if err == nil {
			t.Errorf("%s: the reply looked whole", name)
		}
		if _, m := get(t, "http://"+p.AdminAddr().String()+"/metrics"); !strings.Contains(m, `esproxy_requests_total{class="aborted",method="GET",route="/test"} 1`) {
			t.Errorf("%s: the metric does not tell", name)
		}
	}
}

// TestClientGone: a body that breaks off is never ended like a whole one upstream.
func TestClientGone(t *testing.T) {
	ends := make(chan string, 1)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		b, _ := io.ReadAll(r)
		ends <- string(b)
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(c, "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
	c.Close()
	if got := <-ends; strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("upstream got a whole body: %q", got)
	}
}

// plainProxy is a plain httputil.ReverseProxy in front of target.
func plainProxy(t *testing.T, target string) string {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	rp := httputil.NewSingleHostReverseProxy(u)
	rp.ErrorLog = quiet
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost = 64
	rp.Transport = tr
	s := httptest.NewUnstartedServer(rp)
	s.Config.ErrorLog = quiet
	s.Start()
	t.Cleanup(func() {
		s.Close()
		tr.CloseIdleConnections()
	})
	return s.URL
}

// TestBodyTakenAway is golang/go#40747 made to happen: when a handler begins its reply, net/http's server reads
// the rest of the request's body, which the transport is still sending; the transport then finds the body
// closed or short, breaks the connection, and the reply is cut.
func TestBodyTakenAway(t *testing.T) {
	const rounds = 20
	large := reply("200 OK", "", strings.Repeat("0123456789abcdef", 1<<19)) // more than socket buffers hold
	kilo := strings.Repeat("x", 1<<10)
	began := make(chan bool, 1)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			if _, err := readHead(r); err != nil {
				return
			}
			io.WriteString(c, large[:100<<10])
			began <- true
			if _, err := io.CopyN(io.Discard, r, 64<<10); err != nil {
				return
			}
			io.WriteString(c, large[100<<10:])
		}
	})
	cut := func(addr string) (bad int) {
		for range rounds {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			io.WriteString(c, "POST /i/_search HTTP/1.1\r\nHost: h\r\nContent-Length: 65536\r\n\r\n")
			<-began
			for range 64 {
				io.WriteString(c, kilo)
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			var n int64
			if err == nil {
				n, err = io.Copy(io.Discard, resp.Body)
			}
			if err != nil || n != 16<<19 {
				bad++
			}
			c.Close()
		}
		return bad
	}
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}})
	if n := cut(p.addr); n > 0 {
		t.Errorf("%d of %d replies were cut", n, rounds)
	}
	plain := strings.TrimPrefix(plainProxy(t, up.url), "http://")
	n := 0
	for tries := 0; n == 0 && tries < 10; tries++ {
		n = cut(plain)
	}
	t.Logf("a plain ReverseProxy cut %d of %d", n, rounds)
	if n == 0 {
		t.Error("a plain ReverseProxy cut no reply, so this test does not provoke golang/go#40747")
	}
}

// TestLargeRepliesToSmallPosts looks for the same by mere load, as ordinary searches bring it about.
func TestLargeRepliesToSmallPosts(t *testing.T) {
	const requests = 1500
	large := bytes.Repeat([]byte("0123456789abcdef"), 16<<10)
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		w.Write(large)
	}))
	defer up.Close()
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.URL}})
	c := client(t)
	var wg sync.WaitGroup
	work := make(chan int)
	for range 16 {
		wg.Go(func() {
			for range work {
				resp, err := c.Post(p.url+"/i/_search", "application/json", strings.NewReader(`{"query":{"match_all":{}}}`))
				if err != nil {
					t.Error(err)
					continue
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil || n != int64(len(large)) {
					t.Errorf("got %d bytes and %v", n, err)
				}
			}
		})
	}
	for i := range requests {
		work <- i
	}
	close(work)
	wg.Wait()
}

// TestPassLargeBodies: bodies of some size pass both ways under the race detector's eyes.
func TestPassLargeBodies(t *testing.T) {
	up := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}))
	defer up.Close()
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.URL}})
	want := bytes.Repeat([]byte("echo of a stream\n"), 200<<10)
	req, _ := http.NewRequestWithContext(context.Background(), "POST", p.url, struct{ io.Reader }{bytes.NewReader(want)})
	resp, err := client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := body(t, resp); got != string(want) {
		t.Errorf("got %d bytes, want %d", len(got), len(want))
	}
}

// TestBrokenChunks: a client whose framing is broken hears of it, and Elasticsearch sees no end of the body.
func TestBrokenChunks(t *testing.T) {
	ends := make(chan string, 1)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		b, _ := io.ReadAll(r)
		ends <- string(b)
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}})
	got := exchange(t, p.addr, "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 400") || !strings.Contains(got, "esproxy_bad_body") {
		t.Errorf("got %q", got)
	}
	if got := <-ends; strings.HasSuffix(got, "0\r\n\r\n") {
		t.Errorf("upstream got a whole body: %q", got)
	}
}

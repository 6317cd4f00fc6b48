package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// scripted is a node whose connections are each served by a function. It hears which connection it is, counted from 1.
type scripted struct {
	pool  *pool
	conns *atomic.Int32
}

func newScripted(t *testing.T, serve func(n int, c net.Conn, r *bufio.Reader)) *scripted {
	t.Helper()
	s := &scripted{}
	url, conns := Listen(t, serve)
	s.conns = conns
	var err error
	if s.pool, err = newPool(&Config{Nodes: []string{url}, Clock: systemClock{}, DialTimeout: 5 * time.Second}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.pool.close)
	return s
}

// newStale is a node that answers one request over its first connection and ends that by end; later connections are good. bodies
// counts the requests over those, and ended is told when end has returned.
func newStale(t *testing.T, end func(c net.Conn)) (s *scripted, bodies *atomic.Int32, ended chan bool) {
	t.Helper()
	bodies, ended = new(atomic.Int32), make(chan bool, 1)
	s = newScripted(t, func(n int, c net.Conn, r *bufio.Reader) {
		if n > 1 {
			answerAll(c, r, okReply, func(*http.Request, string) { bodies.Add(1) })
			return
		}
		http.ReadRequest(r)
		io.WriteString(c, okReply)
		end(c)
		ended <- true
	})
	if _, body, err := s.send(get()); body != "ok" || err != nil {
		t.Fatalf("got %q, %v", body, err)
	}
	return s, bodies, ended
}

// reset ends a connection without a farewell.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// dialAndKeep makes n connections to the node that are kept for later requests.
func (s *scripted) dialAndKeep(t *testing.T, n int) []*upConn {
	t.Helper()
	node := s.pool.nodes[0]
	var all []*upConn
	for range n {
		c, err := node.dial(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	for _, c := range all {
		node.idle.keep(c)
	}
	return all
}

// send does one request and reads the reply to its end.
func (s *scripted) send(o *outgoing) (status int, body string, err error) {
	if o.header == nil {
		o.header = http.Header{}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	resp, err := s.pool.do(ctx, o)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	_, err = io.CopyBuffer(struct{ io.Writer }{&b}, resp.Body, make([]byte, blockSize)) // as replies are passed on
	return resp.StatusCode, b.String(), err
}

func get() *outgoing { return &outgoing{method: "GET", target: "/"} }
func post(body string) *outgoing {
	return &outgoing{method: "POST", target: "/x", data: []byte(body)}
}

const okReply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// answer reads requests and answers each with reply, until the connection ends.
func answerAll(c net.Conn, r *bufio.Reader, reply string, seen func(*http.Request, string)) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		if seen != nil {
			seen(req, string(b))
		}
		io.WriteString(c, reply)
	}
}

// A connection is used again only when its reply has ended and nothing stands behind it: the next request would get what
// belongs to another one.
func TestConnectionReuse(t *testing.T) {
	for name, c := range map[string]struct {
		reply       string
		body        string
		broken      bool // the reply is not whole
		connections int  // for three requests
	}{
		"length":                 {okReply, "ok", false, 1},
		"chunks":                 {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", false, 1},
		"chunks and trailer":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: A\r\n\r\n2\r\nok\r\n0\r\nA: b\r\n\r\n", "ok", false, 1},
		"no content":             {"HTTP/1.1 204 No Content\r\n\r\n", "", false, 1},
		"not modified":           {"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", "", false, 1},
		"empty":                  {"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "", false, 1},
		"early hints":            {"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + okReply, "ok", false, 1},
		"chunks and a length":    {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok", false, 1},
		"1.0, kept":              {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", "ok", false, 1},
		"close":                  {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", "ok", false, 3},
		"version 1.0":            {"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok", false, 3},
		"a second reply":         {okReply + "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", "ok", false, 3},
		"bytes behind":           {okReply + "x", "ok", false, 3},
		"a body without content": {"HTTP/1.1 204 No Content\r\n\r\nevil", "", false, 3},
		"cut":                    {"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", "ok", true, 3},
		"cut in chunks":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nok", "ok", true, 3},
		"to the end":             {"HTTP/1.1 200 OK\r\n\r\nok", "ok", false, 3},
		"no last chunk":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "ok", true, 3},
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				if c.broken || name == "to the end" {
					if _, err := http.ReadRequest(r); err == nil {
						io.WriteString(conn, c.reply)
					}
					return
				}
				answerAll(conn, r, c.reply, nil)
			})
			for range 3 {
				if _, body, err := s.send(get()); body != c.body || (err != nil) != c.broken {
					t.Fatalf("got %q, %v", body, err)
				}
			}
			if n := int(s.conns.Load()); n != c.connections {
				t.Errorf("%d connections, want %d", n, c.connections)
			}
		})
	}
}

// A reply that a node sends before it was asked is nobody's.
func TestUnsolicitedReply(t *testing.T) {
	sent := make(chan bool)
	s := newScripted(t, func(n int, c net.Conn, r *bufio.Reader) {
		if n > 1 {
			answerAll(c, r, okReply, nil)
			return
		}
		http.ReadRequest(r)
		io.WriteString(c, okReply)
		<-sent // the first reply was read, and the connection kept
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
		sent <- true
		io.Copy(io.Discard, r)
	})
	if _, body, err := s.send(get()); body != "ok" || err != nil {
		t.Fatalf("got %q, %v", body, err)
	}
	sent <- true
	<-sent
	if _, body, err := s.send(post("{}")); body != "ok" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
}

// A kept connection that the node has closed is replaced, and a request with a body goes to the node once.
func TestStaleConnection(t *testing.T) {
	for name, end := range map[string]func(net.Conn){"closed": func(c net.Conn) { c.Close() }, "reset": reset} {
		t.Run(name, func(t *testing.T) {
			s, bodies, ended := newStale(t, end)
			<-ended
			for range 3 {
				if _, body, err := s.send(post("{}")); body != "ok" || err != nil {
					t.Fatalf("got %q, %v", body, err)
				}
			}
			if n := bodies.Load(); n != 3 || s.conns.Load() != 2 {
				t.Errorf("%d bodies over %d connections", n, s.conns.Load())
			}
		})
	}
}

// A request that a node has read and not answered is repeated only when that changes nothing.
func TestUnansweredRequests(t *testing.T) {
	for name, c := range map[string]struct {
		o     *outgoing
		heard int32
	}{"GET": {get(), 2}, "POST": {post("{}"), 1}, "DELETE": {&outgoing{method: "DELETE", target: "/x"}, 1}, "GET with a body": {&outgoing{method: "GET", target: "/", data: []byte("{}")}, 1}} {
		t.Run(name, func(t *testing.T) {
			var heard atomic.Int32
			s := newScripted(t, func(n int, conn net.Conn, r *bufio.Reader) {
				if n == 1 {
					http.ReadRequest(r)
					io.WriteString(conn, okReply)
				}
				if req, err := http.ReadRequest(r); err == nil {
					io.Copy(io.Discard, req.Body)
					heard.Add(1)
				}
			})
			if _, _, err := s.send(get()); err != nil {
				t.Fatal(err)
			}
			if status, _, err := s.send(c.o); err == nil {
				t.Errorf("status %d", status)
			}
			if n := heard.Load(); n != c.heard {
				t.Errorf("the request was sent %d times, want %d", n, c.heard)
			}
		})
	}
}

// Nothing in a request can become a second one.
func TestInjection(t *testing.T) {
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
		answerAll(c, r, okReply, func(req *http.Request, b string) {
			t.Errorf("%s %s %v %q went up", req.Method, req.RequestURI, req.Header, b)
		})
	})
	for _, o := range []*outgoing{
		{method: "GET", target: "/ HTTP/1.1\r\nX: y"}, {method: "GET", target: "/a b"}, {method: "GET", target: "/a\x00"}, {method: "GET", target: "/a\x7f"}, {method: "GET", target: "/\n"},
		{method: "GET", target: "/", header: http.Header{"A": {"b\r\nC: d"}}}, {method: "GET", target: "/", header: http.Header{"A": {"b\nC: d"}}}, {method: "GET", target: "/", header: http.Header{"A": {"b\x00"}}},
		{method: "GET", target: "/", header: http.Header{"A: b\r\nC": {"d"}}}, {method: "GET", target: "/", header: http.Header{"A ": {"d"}}},
		{method: "GET", target: ""}, {method: "", target: "/"}, {method: "GET / HTTP/1.1\r\nA: b\r\n\r\nGET", target: "/"},
		{method: "GET", target: "/", header: http.Header{"": {"d"}}}, {method: "GET", target: "/", header: http.Header{"A\t": {"d"}}}, {method: "GET", target: "/", header: http.Header{"A": {"b\x0b"}}},
		{method: "GET", target: "/", header: http.Header{"A": {"b\x7f"}}}, {method: "GET", target: "/", header: http.Header{"A:": {"d"}}},
	} {
		if status, _, err := s.send(o); err == nil {
			t.Errorf("%q %q: status %d", o.target, o.header, status)
		}
	}
	// Framing is the proxy's own, whatever the header says.
	one := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
		answerAll(c, r, okReply, func(req *http.Request, b string) {
			if b != "{}" || req.ContentLength != 2 || len(req.TransferEncoding) > 0 || req.Host == "evil" {
				t.Errorf("%q, %d, %q, %q", b, req.ContentLength, req.TransferEncoding, req.Host)
			}
		})
	})
	o := post("{}")
	o.header = http.Header{"Content-Length": {"99"}, "Transfer-Encoding": {"chunked"}, "Trailer": {"A"}, "Host": {"evil"}}
	if _, body, err := one.send(o); body != "ok" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
}

// Heads of replies are bounded, however many replies 1xx come before.
func TestLongHeads(t *testing.T) {
	for name, part := range map[string]string{"field": strings.Repeat("x", 4096), "hints": "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
				http.ReadRequest(r)
				if name == "field" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nA: ")
				}
				for range 4 * maxReplyHead / len(part) {
					if _, err := io.WriteString(c, part); err != nil {
						return
					}
				}
				io.Copy(io.Discard, r)
			})
			if status, _, err := s.send(post("{}")); err == nil {
				t.Errorf("status %d", status)
			}
		})
	}
}

// A request ends when its context does, in whatever it waits for, and its connection with it.
func TestCanceled(t *testing.T) {
	for _, name := range []string{"head", "body", "sending", "expect"} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
				http.ReadRequest(r)
				if name == "body" {
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
				}
				cancel()
				if name != "sending" {
					io.Copy(io.Discard, r)
				} else {
					<-ctx.Done()
				}
			})
			o := post("{}")
			if name == "sending" {
				o = stream(50<<20, false)
			}
			o.header = http.Header{}
			if name == "expect" {
				o = stream(10, false)
				o.stream = &onRead{o.stream, func() { t.Error("the body was read") }}
				o.header = http.Header{"Expect": {"100-continue"}}
			}
			resp, err := s.pool.do(ctx, o)
			if err == nil {
				_, err = io.ReadAll(resp.Body)
				resp.Body.Close()
			}
			if err == nil {
				t.Error("the request did not fail")
			}
			if n := len(s.pool.nodes[0].idle.conns); n != 0 {
				t.Errorf("%d connections are kept", n)
			}
		})
	}
}

// gathering holds what is written until Flush, so that several TLS records arrive at once.
type gathering struct {
	net.Conn
	buf  bytes.Buffer
	hold bool
}

func (g *gathering) Write(p []byte) (int, error) {
	if g.hold {
		return g.buf.Write(p)
	}
	return g.Conn.Write(p)
}

// Over TLS connections are kept too, and one with bytes that nobody asked for is not, also when they came with the reply's
// own and the socket has nothing more.
func TestTLSReuse(t *testing.T) {
	certs, _ := serverCertificate()
	for name, c := range map[string]struct {
		writes []string
		want   int32
	}{"clean": {[]string{okReply}, 1}, "in the record": {[]string{okReply + "evil"}, 3}, "in a record behind": {[]string{okReply, okReply}, 3}} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, func(_ int, raw net.Conn, _ *bufio.Reader) {
				g := &gathering{Conn: raw}
				conn := tls.Server(g, &tls.Config{Certificates: certs})
				r := bufio.NewReader(conn)
				for {
					if _, err := http.ReadRequest(r); err != nil {
						return
					}
					g.hold = true
					for _, w := range c.writes {
						io.WriteString(conn, w)
					}
					g.hold = false
					g.buf.WriteTo(raw)
				}
			})
			n := s.pool.nodes[0]
			n.tls = &tls.Config{InsecureSkipVerify: true} // whose certificate it is is another test's matter
			for range 3 {
				if _, body, err := s.send(get()); err != nil || body != "ok" {
					t.Fatalf("got %q, %v", body, err)
				}
			}
			if n := s.conns.Load(); n != c.want {
				t.Errorf("%d connections, want %d", n, c.want)
			}
		})
	}
}

// What is idle for too long is closed, and no more are kept than maxIdle.
func TestIdleBounds(t *testing.T) {
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) { answerAll(c, r, okReply, nil) })
	n := s.pool.nodes[0]
	all := s.dialAndKeep(t, maxIdle+5)
	if len(n.idle.conns) != maxIdle {
		t.Errorf("%d connections are kept", len(n.idle.conns))
	}
	for _, c := range n.idle.conns[:100] {
		c.since = c.since.Add(-idleTimeout)
	}
	n.idle.sweep()
	if len(n.idle.conns) != maxIdle-100 {
		t.Errorf("%d connections are left", len(n.idle.conns))
	}
	for _, c := range n.idle.conns {
		c.since = c.since.Add(-idleTimeout)
	}
	if _, _, err := s.send(get()); err != nil || len(n.idle.conns) != 1 || slices.Contains(all, n.idle.conns[0]) {
		t.Errorf("%v; %d connections are kept, and old ones among them", err, len(n.idle.conns))
	}
}

func TestForeignHostNames(t *testing.T) {
	if _, err := newPool(&Config{Nodes: []string{"http://bücher.example:9200"}, Clock: systemClock{}}); err == nil || !strings.Contains(err.Error(), "xn--") {
		t.Errorf("got %v", err)
	}
}

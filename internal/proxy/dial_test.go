package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"
)

// One client needs one connection, many at once not more than there are.
func TestConnectionCount(t *testing.T) {
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) { answerAll(c, r, okReply, nil) })
	for i := range 1000 {
		o := get()
		if i%2 == 1 {
			o = post("{}")
		}
		if _, body, err := s.send(o); body != "ok" || err != nil {
			t.Fatalf("%q, %v", body, err)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections for 1000 requests in turn", n)
	}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 50 {
				if _, body, err := s.send(post("{}")); body != "ok" || err != nil {
					t.Errorf("%q, %v", body, err)
				}
			}
		})
	}
	wg.Wait()
	if n := s.conns.Load(); n > 20 {
		t.Errorf("%d connections for 20 clients", n)
	}
}

// The reply to HEAD has no body, whatever its length says, and its connection is used again.
func TestHead(t *testing.T) {
	for _, framing := range []string{"Content-Length: 1000", "Transfer-Encoding: chunked", "A: b"} {
		s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			answerAll(c, r, "HTTP/1.1 200 OK\r\n"+framing+"\r\n\r\n", nil)
		})
		for range 3 {
			if status, body, err := s.send(&outgoing{method: "HEAD", target: "/"}); status != 200 || body != "" || err != nil {
				t.Errorf("%s: %d, %q, %v", framing, status, body, err)
			}
		}
		if n := s.conns.Load(); n != 1 {
			t.Errorf("%s: %d connections", framing, n)
		}
	}
}

// What is no HTTP reply, or one of two meanings, is none, and its connection ends.
func TestBadReplies(t *testing.T) {
	for name, reply := range map[string]string{
		"nothing":           "",
		"rubbish":           "hello\r\n\r\n",
		"half a head":       "HTTP/1.1 200 OK\r\nContent-",
		"two lengths":       "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
		"a list of lengths": "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nok",
		"a signed length":   "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
		"another coding":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"two codings":       "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"a wrong chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
		"an overlong chunk": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nok\r\n0\r\n\r\n",
		"another protocol":  "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nok",
		"a small status":    "HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nok",
	} {
		t.Run(name, func(t *testing.T) {
			s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
				if _, err := http.ReadRequest(r); err == nil {
					io.WriteString(c, reply)
				}
			})
			if status, body, err := s.send(get()); err == nil {
				t.Errorf("%d %q", status, body)
			}
			if n := len(s.pool.nodes[0].idle.conns); n != 0 {
				t.Errorf("%d connections are kept", n)
			}
		})
	}
}

// serverCertificate is that of the standard library's test servers, which names example.com.
func serverCertificate() (chain []tls.Certificate, cert *x509.Certificate) {
	server := httptest.NewTLSServer(nil)
	defer server.Close()
	return server.TLS.Certificates, server.Certificate()
}

// secureScripted is a node behind TLS, and what its name was when it was asked.
func secureScripted(t *testing.T, serve func(n int, c net.Conn, r *bufio.Reader)) (s *scripted, names chan string, roots *x509.CertPool) {
	t.Helper()
	certs, cert := serverCertificate()
	roots = x509.NewCertPool()
	roots.AddCert(cert)
	names = make(chan string, 10)
	s = newScripted(t, func(n int, raw net.Conn, _ *bufio.Reader) {
		c := tls.Server(raw, &tls.Config{Certificates: certs, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			names <- h.ServerName
			return nil, nil
		}})
		if c.Handshake() == nil {
			serve(n, c, bufio.NewReader(c))
		}
	})
	return s, names, roots
}

// A node must have the name of its URL, which it is told, and an authority that is known.
func TestNames(t *testing.T) {
	for name, c := range map[string]struct {
		known bool
		host  string
		fails bool
	}{"good": {true, "example.com", false}, "another name": {true, "elsewhere.test", true}, "unknown authority": {false, "example.com", true}} {
		t.Run(name, func(t *testing.T) {
			s, names, roots := secureScripted(t, func(_ int, c net.Conn, r *bufio.Reader) { answerAll(c, r, okReply, nil) })
			if !c.known {
				roots = x509.NewCertPool()
			}
			s.pool.nodes[0].tls = &tls.Config{RootCAs: roots, ServerName: c.host}
			o := stream(1<<20, true)
			touched := false
			o.stream = &onRead{o.stream, func() { touched = true }}
			_, body, err := s.send(o)
			if (err != nil) != c.fails || err == nil && body != "ok" {
				t.Errorf("%q, %v", body, err)
			}
			if touched == c.fails {
				t.Errorf("the body was read: %v", touched)
			}
			if got := <-names; got != c.host {
				t.Errorf("asked for %q", got)
			}
			if up := s.pool.nodes[0].up(time.Now()); up == c.fails {
				t.Errorf("the node is up: %v", up)
			}
		})
	}
}

// A connection, with its handshake, has one time to open; and its request may be given up before.
func TestSilentHandshake(t *testing.T) {
	for _, cancelled := range []bool{false, true} {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan bool, 1)
		s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			r.Peek(1) // the client's hello
			if cancelled {
				cancel()
			}
			io.Copy(io.Discard, r)
			ended <- true
		})
		n := s.pool.nodes[0]
		n.tls = &tls.Config{ServerName: "example.com"}
		want := context.Canceled
		if !cancelled {
			n.dialTimeout = 20 * time.Millisecond
			want = context.DeadlineExceeded
		}
		_, err := s.pool.do(ctx, post("{}"))
		if !errors.Is(err, want) && !(want == context.DeadlineExceeded && errors.Is(err, os.ErrDeadlineExceeded)) {
			t.Errorf("cancelled %v: %v", cancelled, err)
		}
		<-ended // the connection is not left behind
		if !n.up(time.Now()) != !cancelled {
			t.Errorf("cancelled %v: the node is up: %v", cancelled, n.up(time.Now()))
		}
		cancel()
	}
}

// Addresses of nodes become what is dialed and what the Host field says.
func TestNodeAddresses(t *testing.T) {
	for raw, want := range map[string][2]string{
		"http://es":                           {"es:80", "es"},
		"https://es":                          {"es:443", "es"},
		"http://es:9200/":                     {"es:9200", "es:9200"},
		"http://127.0.0.1:9200":               {"127.0.0.1:9200", "127.0.0.1:9200"},
		"http://[::1]":                        {"[::1]:80", "[::1]"},
		"https://[2001:db8::1]:9200":          {"[2001:db8::1]:9200", "[2001:db8::1]:9200"},
		"http://[fe80::1%25eth0]:9200":        {"[fe80::1%eth0]:9200", "[fe80::1]:9200"},
		"http://xn--bcher-kva.example/a%20b/": {"xn--bcher-kva.example:80", "xn--bcher-kva.example"},
	} {
		p, err := newPool(&Config{Nodes: []string{raw}, Clock: systemClock{}})
		if err != nil {
			t.Errorf("%s: %v", raw, err)
			continue
		}
		if n := p.nodes[0]; n.name != want[0] || n.host != want[1] {
			t.Errorf("%s: dials %q, Host: %q", raw, n.name, n.host)
		}
	}
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
		answerAll(c, r, okReply, func(req *http.Request, _ string) {
			if req.RequestURI != "/a%20b/x?" {
				t.Errorf("target %q", req.RequestURI)
			}
		})
	})
	s.pool.nodes[0].prefix = "/a%20b"
	if _, body, err := s.send(&outgoing{method: "GET", target: "/x?"}); body != "ok" || err != nil {
		t.Errorf("%q, %v", body, err)
	}
}

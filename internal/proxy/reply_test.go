package proxy_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// TestOpenedReplies: how a rewritten reply ends tells whether it is whole.
func TestOpenedReplies(t *testing.T) {
	answers := map[string]string{
		"cut":          "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + strings.Repeat("x", 50),
		"cut late":     "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 500000),
		"whole":        reply("200 OK", "", strings.Repeat("x", 500000)),
		"small":        reply("200 OK", "Content-Encoding: identity\r\n", "x"),
		"br":           reply("200 OK", "Content-Encoding: br\r\n", "x"),
		"gzip":         reply("200 OK", "Content-Encoding: gzip\r\n", string(packed(t, "gzip", "xxx"))),
		"broken gzip":  reply("200 OK", "Content-Encoding: gzip\r\n", string(packed(t, "gzip", "xxx")[:20])),
		"deflate":      reply("200 OK", "Content-Encoding: deflate\r\n", string(packed(t, "deflate", "xxx"))),
		"chunked, cut": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n",
	}
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		head, _ := readHead(r)
		name, _, _ := strings.Cut(head, " HTTP")
		name = strings.ReplaceAll(strings.TrimPrefix(name, "GET /"), "%20", " ")
		io.WriteString(c, answers[name])
	})
	copyFake := func(*rewrite.Call) *fake {
		return &fake{reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
			return func(in io.Reader, out io.Writer) error {
				io.Copy(out, in) // forgets the error
				return nil
			}, false, nil
		}}
	}
	p := start(t, with(t, copyFake), proxy.Config{Nodes: []string{up.url}})
	for name := range answers {
		t.Run(name, func(t *testing.T) {
			resp, err := client(t).Get(p.url + "/" + strings.ReplaceAll(name, " ", "%20"))
			var b []byte
			if err == nil {
				defer resp.Body.Close()
				b, err = io.ReadAll(resp.Body)
			}
			switch name {
			case "whole", "small", "gzip", "deflate":
				if err != nil || resp.StatusCode != 200 || strings.Trim(string(b), "x") != "" || len(b) == 0 {
					t.Errorf("got %v, %.100q", err, b)
				}
			case "cut late", "chunked, cut", "cut":
				if err == nil && resp.StatusCode < 400 {
					t.Errorf("the reply looked whole: %d bytes", len(b))
				}
			default:
				if err != nil || resp.StatusCode != 502 {
					t.Errorf("got %v, %v", err, resp)
				}
			}
		})
	}
}

// TestFirstHitsEarly: what the transform has written goes out before the upstream's next bytes are there.
func TestFirstHitsEarly(t *testing.T) {
	goOn := make(chan bool)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfirst")
		<-goOn
		io.WriteString(c, "after")
	})
	for i := range 4 {
		compress, copyReply := i%2 > 0, copyByOne
		if i > 1 {
			copyReply = copyByTwo
		}
		p := start(t, with(t, func(*rewrite.Call) *fake {
			return &fake{reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) { return copyReply, false, nil }}
		}), proxy.Config{Nodes: []string{up.url}, CompressOpened: compress})
		resp := post(t, p.url, nil, "Accept-Encoding", "gzip")
		var r io.Reader = resp.Body
		if compress {
			if resp.Header.Get("Content-Encoding") != "gzip" {
				t.Fatalf("reply head %v", resp.Header)
			}
			z, err := gzip.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			r = z
		}
		buf := make([]byte, 5)
		if _, err := io.ReadFull(r, buf); err != nil || string(buf) != "first" {
			t.Fatalf("got %q, %v", buf, err)
		}
		goOn <- true
		if rest, err := io.ReadAll(r); err != nil || string(rest) != "after" {
			t.Fatalf("got %q, %v", rest, err)
		}
		resp.Body.Close()
	}
}

func copyByOne(in io.Reader, out io.Writer) error { _, err := io.Copy(out, in); return err }

// copyByTwo reads in one goroutine and writes in another, as the opening of a long reply does.
func copyByTwo(in io.Reader, out io.Writer) error {
	pieces, done := make(chan []byte, 4), make(chan error, 1)
	go func() {
		var failed error
		for p := range pieces {
			if failed != nil {
				continue
			}
			if _, failed = out.Write(p); failed == nil && len(pieces) == 0 {
				failed = out.(interface{ Flush() error }).Flush()
			}
		}
		done <- failed
	}()
	var err error
	for err == nil {
		p := make([]byte, 50_000)
		n := 0
		n, err = in.Read(p)
		pieces <- p[:n]
	}
	close(pieces)
	if failed := <-done; failed != nil {
		return failed
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// TestOpenedByTwo: a reply may be written by another goroutine than the one that reads it, in pieces of any size. A client
// that leaves ends it.
func TestOpenedByTwo(t *testing.T) {
	var want strings.Builder
	for i := range 400_000 {
		fmt.Fprintf(&want, "%d,", i)
	}
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, reply("200 OK", "", want.String()))
	})
	for _, compress := range []bool{false, true} {
		p := start(t, with(t, func(*rewrite.Call) *fake {
			return &fake{reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) { return copyByTwo, false, nil }}
		}), proxy.Config{Nodes: []string{up.url}, CompressOpened: compress})
		resp := post(t, p.url, nil, "Accept-Encoding", "gzip")
		var r io.Reader = resp.Body
		if compress {
			z, err := gzip.NewReader(r)
			if err != nil {
				t.Fatal(err)
			}
			r = z
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want.String() {
			t.Errorf("compressed %v: %d bytes, %v", compress, len(got), err)
		}
		resp.Body.Close()
		resp = post(t, p.url, nil)
		io.CopyN(io.Discard, resp.Body, 10_000)
		resp.Body.Close() // the test's end waits for what it leaves behind
	}
}

func TestAnsweredAndRepeated(t *testing.T) {
	url, got := recorder(t, ok)
	p := start(t, with(t, func(c *rewrite.Call) *fake {
		rounds := 0
		return &fake{
			request: func(_ context.Context, _ *rewrite.Plan, body io.Reader, up io.Writer) (bool, error) {
				if (rounds == 0) != (body != nil) {
					t.Errorf("round %d: body is nil: %v", rounds, body == nil)
				}
				io.WriteString(up, strconv.Itoa(rounds))
				rounds++
				return c.Path == "/own", nil
			},
			reply: func(h rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
				if c.Path == "/own" {
					return func(_ io.Reader, out io.Writer) error { _, err := io.WriteString(out, "mine"); return err }, false, nil
				}
				return nil, c.Path == "/forever" || rounds < 3, nil
			},
		}
	}), proxy.Config{Nodes: []string{url}})
	resp := post(t, p.url+"/own", strings.NewReader("{}"), "Accept", "application/vnd.elasticsearch+json;compatible-with=9")
	if b := body(t, resp); b != "mine" || resp.Header.Get("Content-Type") != "application/vnd.elasticsearch+json;compatible-with=9" || len(got()) != 0 {
		t.Errorf("own reply %q, %v", b, resp.Header)
	}
	resp = post(t, p.url+"/again", strings.NewReader("{}"))
	if b := body(t, resp); b != `{"ok":true}` || len(got()) != 3 || got()[2].body != "2" {
		t.Errorf("after repeats %q, %d requests", b, len(got()))
	}
	wantFault(t, post(t, p.url+"/forever", strings.NewReader("{}")), 502, "esproxy_upstream_failed")
	if n := len(got()); n != 103 {
		t.Errorf("%d requests, want 103", n)
	}
}

func TestHeadWithGrant(t *testing.T) {
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead(r)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n")
	})
	p := start(t, with(t, upper), proxy.Config{Nodes: []string{up.url}})
	got := exchange(t, p.addr, "HEAD / HTTP/1.1\r\nHost: h\r\nX-Esproxy-Authorization: Bearer good\r\nConnection: close\r\n\r\n")
	if want := "HTTP/1.1 200 OK\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSlowClients: 100 clients that send and read slowly all get complete, right answers.
func TestSlowClients(t *testing.T) {
	url, _ := recorder(t, func(w http.ResponseWriter, s seen) { io.WriteString(w, s.body) })
	p := start(t, with(t, upper), proxy.Config{Nodes: []string{url}})
	var wg sync.WaitGroup
	for i := range 100 {
		wg.Go(func() {
			doc := strings.Repeat(fmt.Sprintf("client %d ", i), 5000)
			pr, pw := io.Pipe()
			go func() {
				for part := doc; part != ""; {
					n := min(len(part), 3000)
					io.WriteString(pw, part[:n])
					part = part[n:]
					time.Sleep(time.Millisecond) // slowness is what is tested
				}
				pw.Close()
			}()
			resp, err := client(t).Post(p.url, "application/json", pr)
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			var b strings.Builder
			buf := make([]byte, 2000)
			for {
				n, err := resp.Body.Read(buf)
				b.Write(buf[:n])
				if err == io.EOF {
					break
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			if b.String() != strings.ToUpper(doc) {
				t.Errorf("client %d got %d bytes", i, b.Len())
			}
		})
	}
	wg.Wait()
}

// TestBackPressure: while the client does not read, the upstream can't send on.
func TestBackPressure(t *testing.T) {
	const size = 64 << 20
	var sent counter
	stalled := make(chan bool)
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		readHead(r)
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
		block := make([]byte, 64<<10)
		for i := range size / len(block) {
			c.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
			if _, err := c.Write(block); err != nil {
				sent.set(i * len(block))
				close(stalled)
				return
			}
		}
		sent.set(size)
		close(stalled)
	})
	p := start(t, with(t, func(*rewrite.Call) *fake {
		return &fake{reply: func(rewrite.ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
			return func(in io.Reader, out io.Writer) error { _, err := io.Copy(out, in); return err }, false, nil
		}}
	}), proxy.Config{Nodes: []string{up.url}})
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	<-stalled
	if n := sent.get(); n >= size {
		t.Errorf("all %d bytes left the upstream although nobody read", n)
	}
}

type counter struct {
	mu sync.Mutex
	n  int
}

func (c *counter) set(n int) { c.mu.Lock(); c.n = n; c.mu.Unlock() }
func (c *counter) get() int  { c.mu.Lock(); defer c.mu.Unlock(); return c.n }

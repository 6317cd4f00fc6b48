package proxy

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// stream is a request whose body is read while it goes up.
func stream(n int, chunked bool) *outgoing {
	length := int64(n)
	if chunked {
		length = -1
	}
	return &outgoing{method: "POST", target: "/x", stream: strings.NewReader(strings.Repeat("b", n)), length: length, untouched: func() bool { return false }}
}

// Bodies of every way to send them arrive as they are.
func TestBodiesSent(t *testing.T) {
	type arrival struct {
		length  int64
		body    string
		trailer http.Header
	}
	arrivals := make(chan arrival, 1)
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
		answerAll(c, r, okReply, func(req *http.Request, b string) { arrivals <- arrival{req.ContentLength, b, req.Trailer} })
	})
	for _, n := range []int{0, 1, inlineSize - 1, inlineSize, inlineSize + 1, 200 << 10, 3 << 20} {
		for _, o := range []*outgoing{post(strings.Repeat("b", n)), stream(n, false), stream(n, true)} {
			length := int64(n)
			if o.length < 0 {
				length = -1
				o.trailer = http.Header{"Sum": {"1"}}
			}
			if status, _, err := s.send(o); status != 200 || err != nil {
				t.Fatalf("%d bytes: %d, %v", n, status, err)
			}
			a := <-arrivals
			if a.length != length || a.body != strings.Repeat("b", n) {
				t.Errorf("%d bytes: %d arrived, with length %d", n, len(a.body), a.length)
			}
			if length < 0 && a.trailer.Get("Sum") != "1" {
				t.Errorf("%d bytes: trailer %v", n, a.trailer)
			}
		}
	}
	if s.conns.Load() != 1 {
		t.Errorf("%d connections", s.conns.Load())
	}
}

// A node may refuse before it has read. Its reply is the answer, whatever the size of the body, and the connection is not used again.
func TestEarlyReplies(t *testing.T) {
	for _, n := range []int{20 << 10, 200 << 10, 20 << 20} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(n, chunked), func(t *testing.T) {
				done := make(chan bool)
				s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
					http.ReadRequest(r)
					io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
					<-done // the body is not read, and the connection stays
				})
				status, body, err := s.send(stream(n, chunked))
				close(done)
				if status != 413 || body != "no" || err != nil {
					t.Errorf("%d %q, %v", status, body, err)
				}
				if left := len(s.pool.nodes[0].idle.conns); left != 0 && n > 1<<20 {
					t.Errorf("%d connections are kept", left)
				}
			})
		}
	}
}

// blocking is a body that gives a part and then waits until it is cut.
type blocking struct {
	part *strings.Reader
	cut  chan struct{}
	once sync.Once
	now  atomic.Int32 // Reads that are running
}

func (b *blocking) Read(p []byte) (int, error) {
	b.now.Add(1)
	defer b.now.Add(-1)
	if n, err := b.part.Read(p); err == nil {
		return n, nil
	}
	<-b.cut
	return 0, errors.New("cut")
}

// When the reply's body has been closed, nobody reads the request's body any more: it is the client's connection.
func TestNobodyReadsAfterTheReply(t *testing.T) {
	for _, whole := range []bool{true, false} {
		s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			http.ReadRequest(r)
			io.WriteString(c, "HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy")
			io.Copy(io.Discard, r)
		})
		body := &blocking{part: strings.NewReader(strings.Repeat("b", 100<<10)), cut: make(chan struct{})}
		o := &outgoing{method: "POST", target: "/x", header: http.Header{}, stream: body, length: -1, untouched: func() bool { return false },
			cut: func() { body.once.Do(func() { close(body.cut) }) }}
		resp, err := s.pool.do(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		if whole {
			io.Copy(io.Discard, resp.Body)
		}
		resp.Body.Close()
		if n := body.now.Load(); n != 0 {
			t.Errorf("read to the end %v: %d reads are running", whole, n)
		}
	}
}

// A body whose source fails never looks like a whole one to the node.
func TestBrokenBodies(t *testing.T) {
	for _, length := range []int64{-1, 100 << 10} {
		ended := make(chan error, 1)
		s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err == nil {
				_, err = io.Copy(io.Discard, req.Body)
			}
			ended <- err
		})
		o := &outgoing{method: "POST", target: "/x", stream: io.MultiReader(strings.NewReader(strings.Repeat("b", 50<<10)), &failing{}), length: length, untouched: func() bool { return false }}
		if status, _, err := s.send(o); err == nil {
			t.Errorf("length %d: status %d", length, status)
		}
		if err := <-ended; err == nil {
			t.Errorf("length %d: the node took the body for a whole one", length)
		}
	}
}

type failing struct{}

func (*failing) Read([]byte) (int, error) { return 0, errors.New("the client is gone") }

// With Expect the body waits for the node, but not for ever.
func TestExpect(t *testing.T) {
	for name, c := range map[string]struct {
		first string
		want  int
		sent  bool
	}{"asked": {"HTTP/1.1 100 Continue\r\n\r\n", 200, true}, "refused": {"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n", 417, false}, "silent": {"", 200, true}} {
		t.Run(name, func(t *testing.T) {
			got := make(chan int, 1)
			s := newScripted(t, func(_ int, conn net.Conn, r *bufio.Reader) {
				req, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				io.WriteString(conn, c.first)
				b, _ := io.ReadAll(req.Body)
				got <- len(b)
				if c.sent {
					io.WriteString(conn, okReply)
				}
			})
			o := stream(1000, false)
			o.header = http.Header{"Expect": {"100-continue"}}
			if status, _, err := s.send(o); status != c.want || err != nil {
				t.Errorf("%d, %v", status, err)
			}
			if n := <-got; (n == 1000) != c.sent {
				t.Errorf("%d bytes of the body were sent", n)
			}
		})
	}
}

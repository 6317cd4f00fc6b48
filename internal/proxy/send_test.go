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

// With Expect the body waits for the node. A node that says nothing gets the request without Expect over another connection, and
// the body never stands behind the head that was not answered: a node that has refused takes it for a new request.
func TestExpect(t *testing.T) {
	smuggled := "DELETE /all HTTP/1.1\r\nHost: x\r\n\r\n"
	for _, c := range []struct {
		name, first string
		want        int
		bodies      []string // on each connection, behind the first head
	}{
		{"asked", "HTTP/1.1 100 Continue\r\n\r\n", 200, []string{smuggled}},
		{"asked after hints", "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n", 200, []string{smuggled}},
		{"refused", "HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n", 413, []string{""}},
		{"refused with words", "HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno", 413, []string{""}},
		{"silent", "", 200, []string{"", smuggled}},
		{"closed", "", 200, []string{"", smuggled}},
		{"half a head", "HTTP/1.1 100 Con", 200, []string{"", smuggled}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bodies := [3]chan string{}
			for i := range bodies {
				bodies[i] = make(chan string, 1)
			}
			s := newScripted(t, func(n int, conn net.Conn, r *bufio.Reader) {
				head, err := http.ReadRequest(r)
				if err != nil {
					return
				}
				if expects := len(head.Header["Expect"]) > 0; expects != (n == 1) {
					t.Errorf("connection %d: Expect %v", n, expects)
				}
				if n == 1 {
					io.WriteString(conn, c.first)
				}
				var b strings.Builder
				if n == 1 && c.name == "closed" {
					conn.Close()
				}
				io.CopyN(&b, r, int64(len(smuggled)))
				bodies[n-1] <- b.String()
				if b.Len() > 0 {
					io.WriteString(conn, okReply)
				}
			})
			o := &outgoing{method: "POST", target: "/x", header: http.Header{"Expect": {"100-continue"}}, stream: strings.NewReader(smuggled), length: int64(len(smuggled)),
				untouched: func() bool { return true }}
			status, _, err := s.send(o)
			if status != c.want || err != nil {
				t.Errorf("%d, %v", status, err)
			}
			for i, want := range c.bodies {
				if got := <-bodies[i]; got != want {
					t.Errorf("connection %d: %q came behind the head", i+1, got)
				}
			}
			if n := int(s.conns.Load()); n != len(c.bodies) {
				t.Errorf("%d connections", n)
			}
			if kept := len(s.pool.nodes[0].idle.conns); status == 413 && kept != 0 {
				t.Error("the connection is kept, whose node may wait for the body")
			}
		})
	}
}

// onRead is a small body whose first Read is told.
type onRead struct {
	io.Reader
	once func()
}

func (o *onRead) Read(p []byte) (int, error) {
	if o.once != nil {
		o.once()
		o.once = nil
	}
	return o.Reader.Read(p)
}

// A connection is not taken before a small body is there: it could go stale while a slow client sends.
func TestSlowSmallBody(t *testing.T) {
	idle := make(chan bool)
	s, bodies, ended := newStale(t, func(c net.Conn) {
		<-idle
		c.Close()
	})
	o := stream(10, false)
	o.stream = &onRead{o.stream, func() { idle <- true; <-ended }}
	if _, body, err := s.send(o); body != "ok" || err != nil || bodies.Load() != 1 {
		t.Errorf("%q, %v; %d bodies", body, err, bodies.Load())
	}
	// Nor does a client that breaks its body off cost a connection.
	broken := stream(10, false)
	broken.stream, broken.untouched = &failing{}, func() bool { return true }
	if status, _, err := s.send(broken); err == nil {
		t.Errorf("status %d", status)
	}
	if n := len(s.pool.nodes[0].idle.conns); n != 1 {
		t.Errorf("%d connections are kept", n)
	}
}

// Where a connection's end was not seen in time and nothing could be sent, the request goes over a new one, its body once.
func TestStaleUnseen(t *testing.T) {
	for name, o := range map[string]*outgoing{"data": post("{}"), "much data": post(strings.Repeat("b", 100<<10)), "stream": stream(100<<10, false), "chunks": stream(100<<10, true)} {
		t.Run(name, func(t *testing.T) {
			s, bodies, ended := newStale(t, reset)
			<-ended
			s.pool.nodes[0].idle.conns[0].quiet = func() bool { return true }
			var stopped atomic.Bool
			if o.stream != nil {
				r := o.stream.(*strings.Reader)
				size := r.Len()
				o.untouched = func() bool { return r.Len() == size && !stopped.Load() }
				o.cut = func() { stopped.Store(true) }
			}
			if _, body, err := s.send(o); body != "ok" || err != nil || bodies.Load() != 1 {
				t.Errorf("%q, %v; %d bodies", body, err, bodies.Load())
			}
		})
	}
}

// A request that makes nodes close their connections takes two of them, not all.
func TestPoison(t *testing.T) {
	var heard atomic.Int32
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
		if _, err := http.ReadRequest(r); err == nil {
			heard.Add(1)
		}
	})
	n := s.pool.nodes[0]
	s.dialAndKeep(t, 5)
	if status, _, err := s.send(get()); err == nil {
		t.Errorf("status %d", status)
	}
	if h, kept := heard.Load(), len(n.idle.conns); h != 2 || kept != 4 {
		t.Errorf("sent %d times, %d connections are kept", h, kept)
	}
}

// A body is as long as its head said, or the request fails.
func TestLengths(t *testing.T) {
	for _, real := range []int{49 << 10, 51 << 10, 5 << 10} {
		ended := make(chan string, 1)
		s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			b, err := io.ReadAll(req.Body)
			rest, _ := io.ReadAll(r)
			ended <- fmt.Sprintf("%v, %v, %d more", len(b) < 50<<10, err, len(rest))
		})
		o := stream(real, false)
		o.length = 50 << 10
		if status, _, err := s.send(o); err == nil {
			t.Errorf("%d bytes: status %d", real, status)
		}
		if got := <-ended; got != "true, unexpected EOF, 0 more" {
			t.Errorf("%d bytes for %d: %s", real, o.length, got)
		}
	}
}

// A reply that comes while the last piece of a streamed body waits ends the waiting, also when the node reads no more.
func TestLastPieceNotRead(t *testing.T) {
	done := make(chan bool)
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
		http.ReadRequest(r)
		io.WriteString(c, "HTTP/1.1 429 Busy\r\nContent-Length: 2\r\n\r\nno")
		<-done
	})
	defer close(done)
	o := &outgoing{method: "POST", target: "/x", header: http.Header{}}
	u, err := s.pool.open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	go u.wait(o, func(answer) {})
	if err := u.write(make([]byte, 32<<20), true); err == nil {
		t.Error("all was written")
	}
	a := <-u.reply
	if a.err != nil || a.resp.StatusCode != 429 {
		t.Fatal(a.err)
	}
	if b, err := io.ReadAll(a.resp.Body); string(b) != "no" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if n := len(s.pool.nodes[0].idle.conns); n != 0 {
		t.Errorf("%d connections are kept", n)
	}
}

// A streamed body, when all goes well, leaves its connection to the next request.
func TestStreamReuse(t *testing.T) {
	s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) { answerAll(c, r, okReply, nil) })
	for range 5 {
		o := &outgoing{method: "POST", target: "/x", header: http.Header{}}
		u, err := s.pool.open(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		// The time for the last piece is over, as it is when the connection is used later.
		go u.wait(o, func(answer) { u.c.SetWriteDeadline(longAgo) })
		for _, last := range []bool{false, false, true} {
			if err := u.write(make([]byte, 300<<10), last); err != nil {
				t.Fatal(err)
			}
		}
		a := <-u.reply
		if a.err != nil {
			t.Fatal(a.err)
		}
		if b, err := io.ReadAll(a.resp.Body); string(b) != "ok" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
	if n := s.conns.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A reply that is there counts, although the node has closed the connection with the rest of the request unread.
func TestReplyBeforeReset(t *testing.T) {
	for _, n := range []int{20 << 10, 200 << 10, 20 << 20} {
		s := newScripted(t, func(_ int, c net.Conn, r *bufio.Reader) {
			http.ReadRequest(r)
			io.WriteString(c, "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
		})
		for _, o := range []*outgoing{post(strings.Repeat("b", n)), stream(n, false), stream(n, true)} {
			if status, body, err := s.send(o); status != 413 || body != "no" || err != nil {
				t.Errorf("%d bytes: %d %q, %v", n, status, body, err)
			}
		}
		if kept := len(s.pool.nodes[0].idle.conns); kept != 0 {
			t.Errorf("%d connections are kept", kept)
		}
	}
}

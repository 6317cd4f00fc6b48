package proxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	maxIdle     = 128 // kept connections of a node
	idleTimeout = 90 * time.Second
	// maxReplyHead bounds the head of a reply, with the 1xx replies before it.
	maxReplyHead = 1 << 20
)

// upConn is a connection to a node. It carries one request at a time and has no goroutine of its own, so that a small
// request is one write and one read by the goroutine that serves it (net/http's transport hands each to two others: a
// bulk of one document took 25 µs longer), and a large body goes to the socket from where it lies (unprotected bulks: 1.3 to 1.7 times as fast).
type upConn struct {
	node *node
	net.Conn
	secure  bool
	raw     *countedConn
	written int64 // of raw, when this request began
	quiet   func() bool
	r       *bufio.Reader
	left    int // bytes that Read may still return: the bound of a head
	used    bool
	since   time.Time // idle
	buf     []byte    // a request's head, and a small body behind it
	names   []string
	req     http.Request // what net/http must know of the request to read its reply
}

var errLongHead = errors.New("the head of the reply is too long")

// Read is for the buffer r.
func (c *upConn) Read(p []byte) (int, error) {
	if c.left <= 0 {
		return 0, errLongHead
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}

// Close ends the connection at once. TLS gets no farewell: it could wait for the node, and a request that was given up
// must not look like one that has ended.
func (c *upConn) Close() error { return c.raw.Conn.Close() }

// write sends all of bufs, in one system call where the connection is plain.
func (c *upConn) write(bufs ...[]byte) error {
	if !c.secure {
		if len(bufs) == 1 {
			_, err := c.raw.Write(bufs[0])
			return err
		}
		nb := net.Buffers(bufs)
		n, err := nb.WriteTo(c.raw.Conn)
		c.raw.n.Add(n)
		return err
	}
	for _, b := range bufs {
		if len(b) == 0 {
			continue
		}
		if _, err := c.Conn.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// sent reports whether bytes of this request may have left.
func (c *upConn) sent() bool { return c.raw.n.Load() != c.written }

// countedConn counts what was written, below TLS too, so that it is known whether a request left the proxy.
type countedConn struct {
	net.Conn
	n atomic.Int64
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.n.Add(int64(n))
	return n, err
}

// idle is the kept connections of a node, the latest last.
type idle struct {
	mu     sync.Mutex
	conns  []*upConn
	timer  *time.Timer // runs while conns is not empty
	closed bool
}

// conn returns a connection: a kept one, or else a new one.
func (n *node) conn(ctx context.Context) (*upConn, error) {
	for {
		c := n.idle.take()
		if c == nil {
			return n.dial(ctx)
		}
		// Bytes that nobody asked for, or the end: the node has given the connection up.
		if time.Since(c.since) < idleTimeout && c.quiet() {
			c.written = c.raw.n.Load()
			return c, nil
		}
		c.Close()
	}
}

func (i *idle) take() *upConn {
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.conns) == 0 {
		return nil
	}
	last := len(i.conns) - 1
	c := i.conns[last]
	i.conns[last] = nil
	i.conns = i.conns[:last]
	return c
}

// keep takes back a connection whose request and reply have ended.
func (i *idle) keep(c *upConn) {
	c.used, c.since = true, time.Now()
	if cap(c.buf) > 2*inlineSize {
		c.buf = nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || len(i.conns) >= maxIdle {
		c.Close()
		return
	}
	i.conns = append(i.conns, c)
	if i.timer == nil {
		i.timer = time.AfterFunc(idleTimeout, i.sweep)
	}
}

// sweep closes what was idle for too long.
func (i *idle) sweep() {
	i.mu.Lock()
	defer i.mu.Unlock()
	old := 0
	for old < len(i.conns) && time.Since(i.conns[old].since) >= idleTimeout {
		i.conns[old].Close()
		old++
	}
	i.conns = append(i.conns[:0], i.conns[old:]...)
	clear(i.conns[len(i.conns):cap(i.conns)])
	if i.timer = nil; len(i.conns) > 0 && !i.closed {
		i.timer = time.AfterFunc(idleTimeout-time.Since(i.conns[0].since), i.sweep)
	}
}

func (i *idle) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
	if i.timer != nil {
		i.timer.Stop()
	}
	for _, c := range i.conns {
		c.Close()
	}
	i.conns = nil
}

// dial opens a connection, with its TLS handshake, within the time that one may take.
func (n *node) dial(ctx context.Context) (*upConn, error) {
	ctx, cancel := context.WithTimeout(ctx, n.dialTimeout)
	defer cancel()
	d := &net.Dialer{KeepAlive: 30 * time.Second}
	raw, err := d.DialContext(ctx, "tcp", n.name)
	if err != nil {
		return nil, err
	}
	c := &upConn{node: n, raw: &countedConn{Conn: raw}, quiet: quietness(raw)}
	c.Conn = raw
	if n.tls != nil {
		t := tls.Client(c.raw, n.tls)
		if err := t.HandshakeContext(ctx); err != nil {
			raw.Close()
			return nil, err
		}
		c.Conn, c.secure = t, true
		c.written = c.raw.n.Load()
		quiet := c.quiet
		c.quiet = func() bool { return quiet() && nothingDecrypted(t) }
	}
	c.r = bufio.NewReaderSize(c, 16<<10)
	return c, nil
}

// quietness returns a function that tells whether nothing, not even an end, has come in on an idle connection. It looks
// without waiting, at the cost of a system call.
func quietness(c net.Conn) func() bool {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return func() bool { return true }
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return func() bool { return false }
	}
	quiet := false
	look := func(fd uintptr) bool {
		quiet = nothingIn(fd)
		return true
	}
	return func() bool { return rc.Read(look) == nil && quiet }
}

// nothingDecrypted reports whether a TLS connection holds no more of what came in. With a deadline that is over it reads nothing from
// the network.
func nothingDecrypted(t *tls.Conn) bool {
	var b [1]byte
	t.SetReadDeadline(longAgo)
	n, err := t.Read(b[:])
	t.SetReadDeadline(time.Time{})
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

// release keeps the connection for the next request when reply and request have come to their ends, and else closes it. stop ends
// the hold of the request's context on it.
func (c *upConn) release(resp *http.Response, whole bool, stop func() bool) {
	if stop() && whole && !resp.Close && c.r.Buffered() == 0 {
		c.node.idle.keep(c)
		return
	}
	c.Close()
}

// replyBody is a reply's body. At its end the connection goes back; before, Close ends it.
type replyBody struct {
	io.ReadCloser
	end func(whole bool)
	err error
}

func (b *replyBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		b.err = err
		b.end(err == io.EOF)
	}
	return n, err
}

// Close does not close what it wraps: that would read the rest.
func (b *replyBody) Close() error {
	if b.err == nil {
		b.err = errStopped
		b.end(false)
	}
	return nil
}

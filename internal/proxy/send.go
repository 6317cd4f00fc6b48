package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

const (
	// inlineSize is the largest body that goes up in one write with its head. So much fits into the buffers of two
	// sockets, so that a node which answers without reading can't block it.
	inlineSize = 16 << 10
	// expectWait is how long a node may take to answer Expect: 100-continue before the body goes unasked.
	expectWait = time.Second
	// lastWords is how long a node's reply is waited for when it takes no more of the request.
	lastWords = 5 * time.Second
)

// outgoing is one request to Elasticsearch. Its body is data or stream or nothing.
type outgoing struct {
	method string
	target string // escaped path, and query if any; begins with a slash
	header http.Header
	data   []byte
	// stream is read while the body goes up, by another goroutine that ends before the reply's body does.
	stream    io.Reader
	untouched func() bool // whether stream can still be sent from its start
	length    int64       // of stream; -1: chunked
	trailer   http.Header // to send after a chunked stream; filled when it has ended
	// cut makes a pending read of stream return.
	cut func()
	// informed is called with 1xx replies other than 100. It may be nil.
	informed func(status int, h http.Header)
}

// again reports whether the request can be sent from its start.
func (o *outgoing) again() bool { return o.stream == nil || o.untouched() }

// safe reports whether a repetition changes nothing, even if the first request was carried out.
func (o *outgoing) safe() bool {
	return o.stream == nil && len(o.data) == 0 && (o.method == http.MethodGet || o.method == http.MethodHead)
}

// head writes the request's head into c.buf: the target as it is, the fields sorted by name.
func (c *upConn) head(o *outgoing, length int64) error {
	if strings.ContainsFunc(o.target, func(r rune) bool { return r <= ' ' || r == 0x7F }) {
		return errors.New("the target can't be sent")
	}
	b := append(c.buf[:0], o.method...)
	b = append(append(append(b, ' '), c.node.prefix...), o.target...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), c.node.host...), '\r', '\n')
	switch {
	case length < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case length > 0 || o.method == http.MethodPost || o.method == http.MethodPut || o.method == http.MethodPatch:
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), length, 10), '\r', '\n')
	}
	if len(o.trailer) > 0 && length < 0 {
		b = append(b, "Trailer: "...)
		for i, name := range sortedNames(&c.names, o.trailer) {
			if i > 0 {
				b = append(b, ", "...)
			}
			b = append(b, name...)
		}
		b = append(b, '\r', '\n')
	}
	b, err := appendFields(b, sortedNames(&c.names, o.header), o.header)
	c.buf = append(b, '\r', '\n')
	c.req.Method = o.method
	return err
}

// sortedNames gives the names of h, in an order that does not change, in *names.
func sortedNames(names *[]string, h http.Header) []string {
	list := (*names)[:0]
	for name := range h {
		list = append(list, name)
	}
	slices.Sort(list)
	*names = list
	return list
}

func appendFields(b []byte, names []string, h http.Header) ([]byte, error) {
	for _, name := range names {
		switch name {
		case "Host", "Content-Length", "Transfer-Encoding", "Trailer":
			continue // framing is ours
		}
		for _, v := range h[name] {
			// net/http's server lets none in; this is the place where one would be a second request.
			if strings.ContainsAny(name, "\r\n: ") || strings.ContainsAny(v, "\r\n\x00") {
				return b, errors.New("a header field can't be sent")
			}
			b = append(append(b, name...), ": "...)
			b = append(append(b, v...), '\r', '\n')
		}
	}
	return b, nil
}

// errNoReply means that a node closed the connection without a byte of a reply.
type errNoReply struct{ error }

func (e errNoReply) Unwrap() error { return e.error }

// exchange sends o and reads the reply's head. When the reply's body ends, or is closed, the connection goes back or is
// closed. On error the connection is closed and nothing of o.stream is read any more.
func (c *upConn) exchange(ctx context.Context, o *outgoing) (*http.Response, error) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	var s *sender
	end := func(resp *http.Response, whole bool) {
		if !whole {
			c.Close()
		}
		// In any case the sender must have ended: what it reads is the caller's.
		sent := s.finish(c, o)
		if stop() && whole && sent && !resp.Close && c.r.Buffered() == 0 {
			c.node.idle.keep(c)
			return
		}
		c.Close()
	}
	fail := func(err error) (*http.Response, error) {
		c.Close()
		stop()
		s.finish(c, o)
		return nil, err
	}
	length := o.length
	if o.stream == nil {
		length = int64(len(o.data))
	}
	if err := c.head(o, length); err != nil {
		return fail(err)
	}
	var err error
	switch {
	case length > inlineSize || length < 0 || o.stream != nil && len(o.header["Expect"]) > 0:
		s = &sender{done: make(chan struct{}), proceed: make(chan bool, 1)}
		go s.run(c, o)
	case o.stream != nil:
		at := len(c.buf)
		c.buf = slices.Grow(c.buf, int(length))[:at+int(length)]
		if _, err := io.ReadFull(o.stream, c.buf[at:]); err != nil {
			return fail(err) // nothing was sent
		}
		o.data, o.stream = c.buf[at:], nil // for another node
		err = c.write(c.buf)
	default:
		c.buf = append(c.buf, o.data...)
		err = c.write(c.buf)
	}
	if err != nil {
		if !c.sent() {
			return fail(err)
		}
		c.SetReadDeadline(time.Now().Add(lastWords))
	}
	resp, readErr := c.readReply(o, s)
	switch {
	case err != nil && (readErr != nil || resp.StatusCode < 400):
		return fail(err)
	case readErr != nil:
		return fail(readErr)
	case err != nil:
		resp.Close = true
	}
	if resp.Body == http.NoBody {
		end(resp, true)
		return resp, nil
	}
	resp.Body = &replyBody{ReadCloser: resp.Body, end: func(whole bool) { end(resp, whole) }}
	return resp, nil
}

// readReply reads the reply's head. s is nil or hears whether the body is wanted.
func (c *upConn) readReply(o *outgoing, s *sender) (*http.Response, error) {
	c.left = maxReplyHead
	if _, err := c.r.Peek(1); err != nil {
		return nil, errNoReply{err}
	}
	resp, err := c.readHead(func(status int, h http.Header) {
		switch {
		case status != http.StatusContinue:
			if o.informed != nil {
				o.informed(status, h)
			}
		case s != nil:
			s.tell(true)
		}
	})
	if s != nil && err == nil {
		s.tell(false)
	}
	return resp, err
}

// sender sends a body while the reply may already come.
type sender struct {
	proceed chan bool // with Expect: whether the body is wanted
	ended   atomic.Bool
	done    chan struct{}
	err     error // after done
}

func (s *sender) tell(wanted bool) {
	select {
	case s.proceed <- wanted:
	default:
	}
}

// finish waits for the end of the body, when all of it was there to be sent, or else ends it. It reports whether the
// connection can be used again. s may be nil.
func (s *sender) finish(c *upConn, o *outgoing) bool {
	if s == nil {
		return true
	}
	if s.ended.Load() {
		c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond)) // the node has answered and might read no more
		<-s.done
		c.SetWriteDeadline(time.Time{})
		return s.err == nil
	}
	c.Close()
	if o.cut != nil {
		o.cut()
	}
	s.tell(false)
	<-s.done
	return false
}

func (s *sender) run(c *upConn, o *outgoing) {
	defer close(s.done)
	if o.stream == nil {
		s.ended.Store(true)
		s.fail(c, c.write(c.buf, o.data))
		return
	}
	if s.fail(c, c.write(c.buf)) || len(o.header["Expect"]) > 0 && !s.wanted() {
		return
	}
	block := getBlock()
	defer putBlock(block)
	var line [20]byte
	for {
		n, err := o.stream.Read(*block)
		if err == io.EOF {
			s.ended.Store(true)
		}
		if n > 0 {
			if o.length >= 0 {
				if s.fail(c, c.write((*block)[:n])) {
					return
				}
			} else if s.fail(c, c.write(chunkLine(line[:0], n), (*block)[:n], crlf)) {
				return
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			s.err = err
			c.Close() // never an end that looks like one
			return
		}
	}
	if o.length < 0 {
		names := sortedNames(new([]string), o.trailer)
		last, err := appendFields([]byte("0\r\n"), names, o.trailer)
		if err != nil {
			s.err = err
			c.Close()
			return
		}
		s.fail(c, c.write(append(last, crlf...)))
	}
}

var crlf = []byte("\r\n")

func chunkLine(b []byte, n int) []byte { return append(strconv.AppendInt(b, int64(n), 16), crlf...) }

// fail notes an error of writing. The node may have said why before.
func (s *sender) fail(c *upConn, err error) bool {
	if err == nil {
		return false
	}
	s.err = err
	c.SetReadDeadline(time.Now().Add(lastWords))
	return true
}

// wanted waits for the node to ask for the body.
func (s *sender) wanted() bool {
	t := time.NewTimer(expectWait)
	defer t.Stop()
	select {
	case wanted := <-s.proceed:
		if !wanted {
			s.err = errStopped
		}
		return wanted
	case <-t.C:
		return true
	}
}

// upstream is a request whose body a transform writes, chunk by chunk.
type upstream struct {
	c    *upConn
	stop func() bool // ends the hold of the context on the connection

	complete atomic.Bool // the last chunk has gone out
	reply    chan answer // holds one
	line     [20]byte
}

// answer is what came of a request that was sent.
type answer struct {
	resp *http.Response
	err  error
}

// open sends the head of a chunked request and begins to wait for the reply. Its arrival, or that of the connection's end,
// is told to came, from another goroutine.
func (c *upConn) open(ctx context.Context, o *outgoing) (*upstream, error) {
	u := &upstream{c: c, reply: make(chan answer, 1)}
	u.stop = context.AfterFunc(ctx, func() { c.Close() })
	err := c.head(o, -1)
	if err == nil {
		err = c.write(c.buf)
	}
	if err != nil {
		c.Close()
		u.stop()
		return nil, err
	}
	return u, nil
}

// wait reads the reply's head and tells it to came.
func (u *upstream) wait(o *outgoing, came func(answer)) {
	c := u.c
	resp, err := c.readReply(o, nil)
	if err != nil {
		c.Close()
		u.stop()
	} else {
		end := func(whole bool) {
			if whole = whole && u.complete.Load() && !resp.Close && c.r.Buffered() == 0; u.stop() && whole {
				c.node.idle.keep(c)
				return
			}
			c.Close()
		}
		resp.Body = &replyBody{ReadCloser: resp.Body, end: end}
	}
	a := answer{resp, err}
	came(a)
	u.reply <- a
}

// write sends p as one chunk, and the end of the body behind it when last.
func (u *upstream) write(p []byte, last bool) error {
	var err error
	switch {
	case !last:
		err = u.c.write(chunkLine(u.line[:0], len(p)), p, crlf)
	case len(p) == 0:
		err = u.c.write([]byte("0\r\n\r\n"))
	default:
		err = u.c.write(chunkLine(u.line[:0], len(p)), p, []byte("\r\n0\r\n\r\n"))
	}
	if err != nil {
		u.c.SetReadDeadline(time.Now().Add(lastWords))
		return fmt.Errorf("sending: %w", err)
	}
	u.complete.Store(last)
	return nil
}

// giveUp makes a pending write return; the reply can still be read.
func (u *upstream) giveUp() { u.c.SetWriteDeadline(time.Unix(1, 0)) }

// breakOff ends the connection, so that the node never takes what it has for a whole request.
func (u *upstream) breakOff() { u.c.Close() }

package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

const (
	// inlineSize is the largest body that goes up in one write with its head. So much fits into the buffers of two
	// sockets, so that a node which answers without reading can't block it.
	inlineSize = 16 << 10
	// expectWait is how long a node may take to answer Expect: 100-continue before the request goes to it without.
	expectWait = time.Second
	// lastWords is how long a node's reply is waited for when it takes no more of the request.
	lastWords = 5 * time.Second
	// afterReply is how long the last piece of a body may still take when the reply is there.
	afterReply = 50 * time.Millisecond
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
	if !visible(o.method, 0) || !visible(o.target, 0) {
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
			if !visible(name, ':') || !fieldValue(v) {
				return b, errors.New("a header field can't be sent")
			}
			b = append(append(b, name...), ": "...)
			b = append(append(b, v...), '\r', '\n')
		}
	}
	return b, nil
}

// visible reports whether s has neither blanks nor control characters nor not, and is not empty.
func visible(s string, not byte) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c == 0x7F || c == not {
			return false
		}
	}
	return s != ""
}

// fieldValue reports whether s holds no control characters but tabs (RFC 9110, section 5.5).
func fieldValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' && c != '\t' || c == 0x7F {
			return false
		}
	}
	return true
}

// errNoReply means that a node closed the connection without a byte of a reply.
type errNoReply struct{ error }

func (e errNoReply) Unwrap() error { return e.error }

// errUnasked means that a node did not answer a head with Expect. Nothing of the body was sent.
var errUnasked = errors.New("the node did not ask for the body")

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
		c.release(resp, whole && sent, stop)
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
	expect := o.stream != nil && len(o.header["Expect"]) > 0
	switch {
	case expect:
		err = c.write(c.buf)
		c.SetReadDeadline(time.Now().Add(expectWait))
	case length > inlineSize || length < 0:
		s = newSender()
		go s.run(c, o, c.buf)
	default: // do has made small streams data
		c.buf = append(c.buf, o.data...)
		err = c.write(c.buf)
	}
	if err != nil {
		if !c.sent() {
			return fail(err)
		}
		c.SetReadDeadline(time.Now().Add(lastWords))
	}
	resp, readErr := c.readReply(o, func() {
		if expect && s == nil && err == nil {
			c.SetReadDeadline(time.Time{})
			s = newSender()
			go s.run(c, o, nil)
		}
	})
	unasked := expect && s == nil && err == nil
	var silent errNoReply
	switch {
	case unasked && (errors.As(readErr, &silent) || errors.Is(readErr, os.ErrDeadlineExceeded)):
		return fail(errUnasked)
	case unasked && readErr == nil:
		// The body stays here. A node that has answered may take what comes now for a new request.
		resp.Close = true
		c.SetReadDeadline(time.Time{})
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

// readReply reads the reply's head, and the 1xx replies before it. asked is called when the node asks for the body. The reply's own
// body reads from c.
func (c *upConn) readReply(o *outgoing, asked func()) (*http.Response, error) {
	c.left = maxReplyHead
	if _, err := c.r.Peek(1); err != nil {
		return nil, errNoReply{err}
	}
	for {
		resp, err := http.ReadResponse(c.r, &c.req)
		switch {
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusSwitchingProtocols:
			return nil, errors.New("the node switched to another protocol unasked")
		case resp.StatusCode < 100:
			return nil, fmt.Errorf("the node answered with status %d", resp.StatusCode)
		case resp.StatusCode >= 200:
			c.left = math.MaxInt
			return resp, nil
		case resp.StatusCode == http.StatusContinue:
			asked()
		case o.informed != nil:
			o.informed(resp.StatusCode, resp.Header)
		}
	}
}

// sender sends a body while the reply may already come.
type sender struct {
	stage atomic.Int32
	done  chan struct{}
	err   error // after done
}

// Stages of a sender.
const (
	beforeBody = iota // nothing of the stream was read
	inBody
	lastPiece // all that is left to send is there
	calledOff // before anything of the stream was read
)

func newSender() *sender { return &sender{done: make(chan struct{})} }

// finish waits for the end of the body, when all of it was there to be sent, or else ends it. It reports whether the
// connection can be used again. s may be nil.
func (s *sender) finish(c *upConn, o *outgoing) bool {
	if s == nil {
		return true
	}
	if s.stage.Load() == lastPiece {
		c.SetWriteDeadline(time.Now().Add(afterReply)) // the node might read no more
		<-s.done
		c.SetWriteDeadline(time.Time{})
		return s.err == nil
	}
	c.Close()
	// A stream that was not touched can still go over another connection.
	if !s.stage.CompareAndSwap(beforeBody, calledOff) && o.cut != nil {
		o.cut()
	}
	<-s.done
	return false
}

// run sends the body, behind head when that has not been sent.
func (s *sender) run(c *upConn, o *outgoing, head []byte) {
	defer close(s.done)
	if o.stream == nil {
		s.stage.Store(lastPiece)
		s.fail(c, c.write(head, o.data))
		return
	}
	if len(head) > 0 && s.fail(c, c.write(head)) {
		return
	}
	if !s.stage.CompareAndSwap(beforeBody, inBody) {
		s.err = errStopped
		return
	}
	block := getBlock()
	defer putBlock(block)
	var line [20]byte
	var total int64
	for {
		n, err := o.stream.Read(*block)
		total += int64(n)
		if o.length >= 0 {
			switch {
			case total > o.length || total < o.length && err == io.EOF:
				n, err = 0, errors.New("the body has another length than was said")
			case total == o.length:
				err = io.EOF
			}
		}
		if err == io.EOF {
			s.stage.Store(lastPiece)
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
	resp, err := c.readReply(o, func() {})
	if err != nil {
		c.Close()
		u.stop()
	} else {
		end := func(whole bool) {
			c.SetWriteDeadline(time.Time{})
			c.release(resp, whole && u.complete.Load(), u.stop)
		}
		resp.Body = &replyBody{ReadCloser: resp.Body, end: end}
	}
	// Whoever writes the end of the body has most likely written it. The node might read no more.
	c.SetWriteDeadline(time.Now().Add(afterReply))
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
func (u *upstream) giveUp() { u.c.SetWriteDeadline(longAgo) }

// breakOff ends the connection, so that the node never takes what it has for a whole request.
func (u *upstream) breakOff() { u.c.Close() }

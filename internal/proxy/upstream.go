package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstBackOff = time.Second
	maxBackOff   = 30 * time.Second
	// expectWait is how long a node may take to answer Expect: 100-continue before the body goes unasked.
	expectWait = time.Second
)

// pool is the Elasticsearch nodes. Requests go round; a node that could not be connected to is left out
// for a time that doubles.
type pool struct {
	nodes []*node
	next  atomic.Uint64
	clock Clock
	last  atomic.Int64 // when a node answered last, Unix nanoseconds
}

type node struct {
	name      string // host:port, for logs and metrics
	scheme    string
	host      string
	prefix    string // escaped path prefix without a slash at its end
	transport *http.Transport

	mu    sync.Mutex
	fails int       // failed connections in a row
	until time.Time // left out until then
}

func newPool(cfg *Config) (*pool, error) {
	if len(cfg.Nodes) == 0 {
		return nil, errors.New("no Elasticsearch URL is set")
	}
	p := &pool{clock: cfg.Clock}
	for i, raw := range cfg.Nodes {
		u, err := url.Parse(raw)
		switch {
		case err != nil: // err quotes the URL, which may hold a password
			return nil, fmt.Errorf("ELASTICSEARCH_URL, entry %d, can't be parsed", i+1)
		case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
			return nil, fmt.Errorf("ELASTICSEARCH_URL, entry %d, must begin with http:// or https:// and a host", i+1)
		case u.User != nil:
			return nil, fmt.Errorf("ELASTICSEARCH_URL, entry %d, holds a user name; set the proxy's own credentials by ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD", i+1)
		case u.RawQuery != "" || u.Fragment != "":
			return nil, fmt.Errorf("ELASTICSEARCH_URL, entry %d, must not have a query or a fragment", i+1)
		}
		tlsConfig, err := cfg.Upstream.config(u.Hostname())
		if err != nil {
			return nil, err
		}
		n := &node{name: hostPort(u), scheme: u.Scheme, host: u.Host, prefix: strings.TrimRight(u.EscapedPath(), "/")}
		n.transport = &http.Transport{
			DialContext:            dialCounted(cfg.DialTimeout),
			TLSClientConfig:        tlsConfig,
			TLSHandshakeTimeout:    cfg.DialTimeout,
			TLSNextProto:           map[string]func(string, *tls.Conn) http.RoundTripper{},
			DisableCompression:     true,
			MaxIdleConnsPerHost:    128,
			IdleConnTimeout:        90 * time.Second,
			ExpectContinueTimeout:  expectWait,
			MaxResponseHeaderBytes: 1 << 20,
			WriteBufferSize:        16 << 10,
			ReadBufferSize:         16 << 10,
		}
		p.nodes = append(p.nodes, n)
	}
	return p, nil
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

func (p *pool) close() {
	for _, n := range p.nodes {
		n.transport.CloseIdleConnections()
	}
}

func (p *pool) names() string {
	var names []string
	for _, n := range p.nodes {
		names = append(names, n.scheme+"://"+n.name)
	}
	return strings.Join(names, ",")
}

// longestPrefix gives the longest prefix and the longest host of the nodes, which bound what their URLs add to a head.
func (p *pool) longestPrefix() (prefix, host string) {
	for _, n := range p.nodes {
		if len(n.prefix) > len(prefix) {
			prefix = n.prefix
		}
		if len(n.host) > len(host) {
			host = n.host
		}
	}
	return prefix, host
}

// pick returns the next node in turn that is not left out and not in tried, else the one in back-off
// longest, else nil.
func (p *pool) pick(tried map[*node]bool) *node {
	now := p.clock.Now()
	start := p.next.Add(1)
	var spare *node
	var spareUntil time.Time
	for i := range p.nodes {
		n := p.nodes[(start+uint64(i))%uint64(len(p.nodes))]
		if tried[n] {
			continue
		}
		n.mu.Lock()
		until := n.until
		n.mu.Unlock()
		if !until.After(now) {
			return n
		}
		if spare == nil || until.Before(spareUntil) {
			spare, spareUntil = n, until
		}
	}
	return spare
}

func (n *node) failed(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	wait := min(firstBackOff<<min(n.fails, 5), maxBackOff)
	n.fails++
	n.until = now.Add(wait)
}

func (n *node) answered() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fails, n.until = 0, time.Time{}
}

func (n *node) up(now time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.until.After(now)
}

// outgoing is one request to Elasticsearch.
type outgoing struct {
	method string
	target string // escaped path, and query if any; begins with a slash
	header http.Header
	// body returns the body from its start, or nil when bytes of it are gone. It is nil when there is no body.
	body    func() io.Reader
	length  int64 // of the body; -1: chunked
	trailer http.Header
	// cut is called, from any goroutine, when the connection that carries the request was closed. It
	// stops whatever feeds the body. It may be nil.
	cut func()
	// informed is called with 1xx replies other than 100. It may be nil.
	informed func(status int, h textproto.MIMEHeader)
}

var errBadTarget = errors.New("the target can't be sent as it is")

// url makes the transport send exactly target. Opaque is copied into the request line, except that net/http
// takes two leading slashes for a host; those go as a path, which it escapes anew, so only what that
// leaves alone can be sent.
func (n *node) url(target string) (*url.URL, error) {
	path, query, hasQuery := strings.Cut(target, "?")
	path = n.prefix + path
	u := &url.URL{Scheme: n.scheme, Host: n.host, RawQuery: query, ForceQuery: hasQuery && query == ""}
	if !strings.HasPrefix(path, "//") {
		u.Opaque = path
		return u, nil
	}
	plain, err := url.PathUnescape(path)
	if err != nil {
		return nil, errBadTarget
	}
	u.Path, u.RawPath = plain, path
	if got, _, _ := strings.Cut(u.RequestURI(), "?"); got != path {
		return nil, errBadTarget
	}
	return u, nil
}

// do sends out to a node. When no byte of it reached a node it is tried on the next one. Beyond that the
// transport itself repeats GET and HEAD requests without a body on a pooled connection that had gone stale;
// nothing else is ever sent twice.
func (p *pool) do(ctx context.Context, out *outgoing) (*http.Response, error) {
	tried := map[*node]bool{}
	stale := 0
	for {
		n := p.pick(tried) // not nil: tried is smaller than nodes
		resp, sent, connected, err := n.roundTrip(ctx, out)
		if err == nil {
			n.answered()
			p.last.Store(p.clock.Now().UnixNano())
			return resp, nil
		}
		if errors.Is(err, errBadTarget) || ctx.Err() != nil {
			return nil, err
		}
		if !connected {
			n.failed(p.clock.Now())
			tried[n] = true
		} else if stale++; stale > 3 {
			return nil, err
		}
		if sent || len(tried) == len(p.nodes) || out.body != nil && out.body() == nil {
			return nil, err
		}
	}
}

// roundTrip sends out to n. sent tells whether bytes of it were written to a connection.
func (n *node) roundTrip(ctx context.Context, out *outgoing) (resp *http.Response, sent, connected bool, err error) {
	u, err := n.url(out.target)
	if err != nil {
		return nil, false, false, err
	}
	watch := &watcher{cut: out.cut, over: make(chan struct{})}
	trace := &httptrace.ClientTrace{GotConn: watch.gotConn}
	if out.informed != nil {
		trace.Got1xxResponse = func(status int, h textproto.MIMEHeader) error {
			if status != http.StatusContinue {
				out.informed(status, h)
			}
			return nil
		}
	}
	req := (&http.Request{
		Method: out.method, URL: u, Host: n.host, Header: out.header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		ContentLength: out.length, Trailer: out.trailer,
	}).WithContext(httptrace.WithClientTrace(ctx, trace))
	if out.body != nil {
		req.Body = io.NopCloser(out.body())
		if len(out.header["Expect"]) > 0 {
			held := &heldBody{Reader: out.body(), watch: watch, done: ctx.Done()}
			trace.Wait100Continue = func() { held.since.Store(time.Now().UnixNano()) }
			trace.Got100Continue = func() { held.wanted.Store(true) }
			req.Body = io.NopCloser(held)
		}
	}
	resp, err = n.transport.RoundTrip(req)
	if err != nil {
		sent, connected = watch.done()
		return nil, sent, connected, err
	}
	resp.Body = &watchedBody{resp.Body, watch}
	return resp, true, true, nil
}

// heldBody is the body of a request with Expect: 100-continue. When the node answers at once, the transport would
// send the body all the same, to keep the connection, and so ask the client for it. This body blocks
// instead: an error might overtake the reply.
type heldBody struct {
	io.Reader
	watch  *watcher
	done   <-chan struct{}
	since  atomic.Int64 // when the transport began to wait, Unix nanoseconds; 0: it didn't
	wanted atomic.Bool
}

func (b *heldBody) Read(p []byte) (int, error) {
	if since := b.since.Load(); since != 0 && !b.wanted.Load() {
		if time.Since(time.Unix(0, since)) < expectWait {
			select {
			case <-b.watch.over:
			case <-b.done:
			}
			return 0, errStopped
		}
		b.wanted.Store(true)
	}
	return b.Reader.Read(p)
}

// watcher follows the connections that one request is given.
type watcher struct {
	cut  func()
	over chan struct{} // closed when the request or its connection has ended
	once sync.Once

	mu   sync.Mutex
	conn *countedConn
	base int64 // bytes that conn had written before
	sent bool  // on an earlier connection
}

func (w *watcher) gotConn(info httptrace.GotConnInfo) {
	raw := info.Conn
	if t, ok := raw.(*tls.Conn); ok {
		raw = t.NetConn()
	}
	c, ok := raw.(*countedConn)
	if !ok {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	w.conn, w.base = c, c.written.Load()
	c.own(w)
}

// settle lets go of the connection. mu is held.
func (w *watcher) settle() {
	if w.conn == nil {
		return
	}
	w.sent = w.sent || w.conn.written.Load() != w.base
	w.conn.disown(w)
}

func (w *watcher) closed() {
	w.once.Do(func() { close(w.over) })
	if w.cut != nil {
		w.cut()
	}
}

func (w *watcher) done() (sent, connected bool) {
	w.once.Do(func() { close(w.over) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.settle()
	return w.sent, w.conn != nil
}

// watchedBody stops the watch before the connection is given back to the pool.
type watchedBody struct {
	io.ReadCloser
	watch *watcher
}

func (b *watchedBody) Close() error {
	err := b.ReadCloser.Close()
	b.watch.done()
	return err
}

// countedConn counts what was written, so that it is known whether a request left the proxy, and tells
// when the transport gave the connection up.
type countedConn struct {
	net.Conn
	written atomic.Int64

	mu     sync.Mutex
	closed bool
	owner  *watcher
}

func dialCounted(timeout time.Duration) func(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: timeout, KeepAlive: 30 * time.Second}
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &countedConn{Conn: c}, nil
	}
}

func (c *countedConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// ReadFrom copies with pooled blocks what net/http would copy with a new one each time.
func (c *countedConn) ReadFrom(r io.Reader) (n int64, err error) {
	block := getBlock()
	defer putBlock(block)
	return io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{r}, *block)
}

// own makes w the one to hear of the connection's end, until another request is given the connection.
func (c *countedConn) own(w *watcher) {
	c.mu.Lock()
	closed := c.closed
	c.owner = w
	c.mu.Unlock()
	if closed {
		w.closed()
	}
}

// disown forgets w, unless the pool has given the connection to another request already.
func (c *countedConn) disown(w *watcher) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner == w {
		c.owner = nil
	}
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	w := c.owner
	c.closed, c.owner = true, nil
	c.mu.Unlock()
	if w != nil {
		w.closed()
	}
	return err
}

const blockSize = 32 << 10

var blocks = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

func getBlock() *[]byte  { return blocks.Get().(*[]byte) }
func putBlock(b *[]byte) { blocks.Put(b) }

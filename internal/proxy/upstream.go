package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	firstBackOff = time.Second
	maxBackOff   = 30 * time.Second
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
	name        string // host:port
	scheme      string
	host        string // of the URL, for the Host field
	prefix      string // escaped path prefix without a slash at its end
	tls         *tls.Config
	dialTimeout time.Duration
	idle        idle

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
		case strings.ContainsFunc(u.Host, func(r rune) bool { return r >= 0x80 }):
			return nil, fmt.Errorf("ELASTICSEARCH_URL, entry %d, names its host in letters beyond ASCII; write the host in its xn-- form", i+1)
		case u.User != nil:
			return nil, fmt.Errorf("ELASTICSEARCH_URL, entry %d, holds a user name; set the proxy's own credentials by ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD", i+1)
		case u.RawQuery != "" || u.Fragment != "":
			return nil, fmt.Errorf("ELASTICSEARCH_URL, entry %d, must not have a query or a fragment", i+1)
		}
		tlsConfig, err := cfg.Upstream.config(u.Hostname())
		if err != nil {
			return nil, err
		}
		n := &node{name: hostPort(u), scheme: u.Scheme, host: hostField(u), prefix: strings.TrimRight(u.EscapedPath(), "/"), dialTimeout: cfg.DialTimeout}
		if u.Scheme == "https" {
			n.tls = tlsConfig
			n.tls.ServerName = u.Hostname()
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

// hostField is the Host field for u: without the zone of an IPv6 address, which means something on this machine alone.
func hostField(u *url.URL) string {
	before, rest, _ := strings.Cut(u.Host, "%")
	if end := strings.IndexByte(rest, ']'); end >= 0 {
		return before + rest[end:]
	}
	return u.Host
}

func (p *pool) close() {
	for _, n := range p.nodes {
		n.idle.close()
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

// do sends out to a node and reads the reply's head. It may change out.
func (p *pool) do(ctx context.Context, out *outgoing) (*http.Response, error) {
	if out.stream != nil && out.length >= 0 && out.length <= inlineSize && len(out.header["Expect"]) == 0 {
		// Before a connection is taken: it could go stale while a slow client sends.
		block := getBlock()
		defer putBlock(block)
		data := (*block)[:out.length]
		if _, err := io.ReadFull(out.stream, data); err != nil {
			return nil, err
		}
		out.data, out.stream = data, nil
	}
	var resp *http.Response
	err := p.carry(ctx, out, func(c *upConn) (err error) {
		resp, err = c.exchange(ctx, out)
		return err
	})
	if errors.Is(err, errUnasked) && ctx.Err() == nil {
		// Not the body after the silent head: a node that has refused meanwhile takes the body for a new request
		// (Elasticsearch does for one that is too large), and a client could have it do so on purpose.
		out.header = out.header.Clone()
		delete(out.header, "Expect")
		return p.do(ctx, out)
	}
	if err != nil {
		return nil, err
	}
	p.answered()
	return resp, nil
}

func (p *pool) answered() { p.last.Store(p.clock.Now().UnixNano()) }

// open begins a chunked request to a node.
func (p *pool) open(ctx context.Context, out *outgoing) (*upstream, error) {
	var u *upstream
	err := p.carry(ctx, out, func(c *upConn) (err error) {
		u, err = c.open(ctx, out)
		return err
	})
	return u, err
}

// carry lets use send out over a connection to a node. When no byte of it reached a node it is tried on the next one.
// Beyond that only a GET or HEAD request without a body is repeated, when a kept connection ended before a reply
// began: it had most likely gone stale. Nothing else is ever sent twice.
func (p *pool) carry(ctx context.Context, out *outgoing, use func(*upConn) error) error {
	var tried map[*node]bool
	for {
		n := p.pick(tried) // not nil: tried is smaller than nodes
		connected, err := n.carry(ctx, out, use)
		if err == nil {
			n.answered()
			return nil
		}
		if connected || ctx.Err() != nil {
			return err
		}
		n.failed(p.clock.Now())
		if tried == nil {
			tried = map[*node]bool{}
		}
		tried[n] = true
		if len(tried) == len(p.nodes) || !out.again() {
			return err
		}
	}
}

// carry tries a kept connection, and a new one when there is none or it had gone stale. connected tells whether the node could be connected to.
func (n *node) carry(ctx context.Context, out *outgoing, use func(*upConn) error) (connected bool, err error) {
	c, err := n.conn(ctx)
	for {
		if err != nil {
			return false, err
		}
		if err = use(c); err == nil || ctx.Err() != nil {
			return true, err
		}
		var silent errNoReply
		stale := c.used && (!c.sent() || out.safe() && errors.As(err, &silent))
		if !stale || !out.again() {
			return true, err
		}
		c, err = n.dial(ctx) // a request that makes nodes close must not use up all that are kept
	}
}

const blockSize = 64 << 10

var blocks = sync.Pool{New: func() any { b := make([]byte, blockSize); return &b }}

func getBlock() *[]byte  { return blocks.Get().(*[]byte) }
func putBlock(b *[]byte) { blocks.Put(b) }

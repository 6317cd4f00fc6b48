// Package cluster asks Elasticsearch the few questions that a rewriting proxy
// can't answer by itself: what a name stands for, what a stored document holds,
// how a protected field is mapped, which keys stored values lie under, and how
// large a body may be.
//
// Names are answered from a view: an immutable snapshot of all indices, aliases and
// data streams, replaced as a whole. It is refreshed on a timer and whenever a
// name is not in it, so a name that the view does not know is really unknown at the
// time of the request. When the view can't be had, requests are refused: a name
// may be an alias of a protected index, and guessing would let plaintext through.
//
// The package knows nothing of documents and cryptography. Stored sources are handed
// on as the bytes that came, and sealed values are recognised by a function it is given.
package cluster

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// Types of the faults this package makes; docs/errors.md lists them.
const (
	// FaultUnknown (503): what the cluster holds could not be learned.
	FaultUnknown = "esproxy_cluster_unknown"
	// FaultName (400): a name or index expression that is not understood, or not one name where one is due.
	FaultName = "esproxy_bad_name"
	// FaultLookup (503, 401, 403): stored documents could not be read.
	FaultLookup = "esproxy_lookup_failed"
	// FaultWrongKey (503): stored values lie under keys that are not loaded.
	FaultWrongKey = "esproxy_wrong_key"
	// FaultSentinel (503): a target lacks the check of plain values inside Elasticsearch that its rule requires.
	FaultSentinel = "esproxy_sentinel_missing"
)

// Config is what a Cluster needs. The zero value of an optional field means its default.
type Config struct {
	// Own sends requests with the proxy's own credentials, or without any when HasOwn is false. Required.
	Own rewrite.Caller
	// HasOwn tells that Own has credentials. It only changes what refusals and warnings advise.
	HasOwn bool
	// Policy gives the policy in force, for CheckKeys. Optional; without it CheckKeys finds nothing.
	Policy func() *policy.Policy
	// KeyID tells the id of the key that a sealed value names, and false for what is no sealed value.
	// Optional; without it stored keys are not checked.
	KeyID func(token []byte) (id string, ok bool)
	// LoadedKeys are the ids of all keys that can open values.
	LoadedKeys []string
	// Log gets warnings; default slog.Default().
	Log *slog.Logger
	// Now is the clock for ages and date math; default time.Now.
	Now func() time.Time
	// ViewEvery is the time between refreshes of the view; default 30 s, negative for no timer.
	ViewEvery time.Duration
	// ViewMaxAge is how long an old view serves while refreshes fail; default 5 min.
	ViewMaxAge time.Duration
	// Timeout bounds one question to the cluster; default 10 s.
	Timeout time.Duration
}

// Cluster implements rewrite.Cluster. It is safe for concurrent use. Close ends its timer.
type Cluster struct {
	own     rewrite.Caller
	hasOwn  bool
	policy  func() *policy.Policy
	keyID   func([]byte) (string, bool)
	loaded  map[string]bool
	log     *slog.Logger
	now     func() time.Time
	maxAge  time.Duration
	timeout time.Duration

	view atomic.Pointer[view]

	mu      sync.Mutex
	closed  bool
	flights int     // number of refreshes begun
	flight  *flight // the one under way, nil when there is none
	landed  *flight // the one that ended last
	mayRead time.Time
	changes int // calls of Changed

	root   context.Context // ends at Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	templates memo[future]
	auto      memo[autoCreate]
	composed  memo[[]indexTemplate]
	legacy    memo[map[string]legacyTemplate]
	length    memo[int64]
	scripted  memo[string] // why the cluster can't have sentinels, "" when it can
	ready     readiness
	warned    onceSet
}

var _ rewrite.Cluster = (*Cluster)(nil)

// New starts a Cluster and its timer; it asks nothing yet. It panics without Own, which is a mistake in wiring.
func New(cfg Config) *Cluster {
	if cfg.Own == nil {
		panic("cluster: Config.Own is nil")
	}
	c := &Cluster{
		own: cfg.Own, hasOwn: cfg.HasOwn, policy: cfg.Policy, keyID: cfg.KeyID,
		log: cfg.Log, now: cfg.Now, maxAge: cfg.ViewMaxAge, timeout: cfg.Timeout,
		loaded: make(map[string]bool, len(cfg.LoadedKeys)),
	}
	for _, id := range cfg.LoadedKeys {
		c.loaded[id] = true
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	if c.now == nil {
		c.now = time.Now
	}
	if c.maxAge == 0 {
		c.maxAge = 5 * time.Minute
	}
	if c.timeout == 0 {
		c.timeout = 10 * time.Second
	}
	every := cfg.ViewEvery
	if every == 0 {
		every = 30 * time.Second
	}
	c.root, c.cancel = context.WithCancel(context.Background())
	if every > 0 {
		c.wg.Add(1)
		go c.refreshEvery(every)
	}
	return c
}

// Close ends the timer and all refreshes, and waits for them. Questions asked later fail with 503.
func (c *Cluster) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.wg.Wait()
}

// Changed tells that a request that may have changed indices, aliases, templates or mappings went
// through: the next question about a name refreshes the view, and targets are made ready anew.
func (c *Cluster) Changed() {
	c.mu.Lock()
	c.changes++
	if v := c.view.Load(); v != nil {
		v.stale.Store(true)
	}
	c.mu.Unlock()
	c.ready.clear()
	c.templates.clear()
	c.composed.clear()
	c.legacy.clear()
	c.auto.clear()
}

// ask sends one question. A lost connection, a timeout or a reply over max is an error.
func (c *Cluster) ask(ctx context.Context, who rewrite.Caller, method, path string, body []byte, max int64) (int, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	status, reply, err := who.Do(ctx, method, path, body, max)
	if err != nil {
		return 0, nil, &lostError{err}
	}
	return status, reply, nil
}

// lostError says that no whole reply came: the connection broke, time ran out, or the reply was over the limit.
type lostError struct{ err error }

func (l *lostError) Error() string { return "no reply from elasticsearch: " + l.err.Error() }
func (l *lostError) Unwrap() error { return l.err }

// unknown is the refusal when what the cluster holds can't be learned.
func (c *Cluster) unknown(cause error) *rewrite.Fault {
	var f *rewrite.Fault
	if errors.As(cause, &f) {
		return f
	}
	return &rewrite.Fault{Status: http.StatusServiceUnavailable, Type: FaultUnknown, Cause: cause,
		Reason: "the cluster did not tell which indices, aliases and data streams it has, so it is not known which rules apply; nothing was sent. " +
			"Check that Elasticsearch is reachable from the proxy and try again"}
}

// denied is the same for a cluster that does not let the proxy ask.
func (c *Cluster) denied(status int) *rewrite.Fault {
	what := "the proxy has no credentials of its own"
	if c.hasOwn {
		what = "the proxy's own credentials are wrong or lack privileges"
	}
	return &rewrite.Fault{Status: http.StatusServiceUnavailable, Type: FaultUnknown,
		Cause: statusError(status),
		Reason: what + ", so it is not known which rules apply; nothing was sent. Set ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD " +
			"(or ELASTICSEARCH_API_KEY) to a user with the cluster privilege monitor and the index privilege view_index_metadata on all indices (*)"}
}

// statusError is the status of a reply that was not the expected one, for the log.
type statusError int

func (s statusError) Error() string {
	return "elasticsearch answered " + strconv.Itoa(int(s)) + " " + http.StatusText(int(s))
}

func isDenied(status int) bool {
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// isMissingAPI tells the answers of a build without the asked endpoint: 400 "no handler found",
// 404, or 405, all seen on real servers; 501 from partial ones.
func isMissingAPI(status int) bool {
	switch status {
	case http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented:
		return true
	}
	return false
}

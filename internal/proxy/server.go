package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// Planner makes plans from request heads. rewrite.Engine fulfils it. It must be safe for concurrent use.
// Errors are *rewrite.Fault; any other error is answered with 500.
type Planner interface {
	Plan(ctx context.Context, c *rewrite.Call) (*rewrite.Plan, error)
}

// Grantee is a caller whose grant header was accepted.
type Grantee struct {
	TokenID string // for the audit line; not the token
	Who     string
	Grant   string
	Viewer  rewrite.Viewer // never nil
}

// Judge decides on grant headers. It must be safe for concurrent use.
type Judge interface {
	// Judge is given all values of X-Esproxy-Authorization, all values of Authorization, and whether
	// the listener is one on which a grant may be shown (TLS, loopback, or allowed by the operator).
	// It returns nil and no error when there is no grant header. The text of an error is shown to the
	// client, so it says what was wrong and never quotes a header.
	Judge(authorization, bearer []string, secureListener bool) (*Grantee, error)
}

// State is everything that a reload replaces. It is immutable once given to Swap.
type State struct {
	Planner Planner
	Judge   Judge
	// MaxContentLength tells the server's http.max_content_length in bytes; nil or zero: no limit.
	MaxContentLength func(ctx context.Context) int64

	// For the line that the start logs.
	Protects []string // "rule.field"
	KeyID    string   // of the primary key
	Suite    string
}

// Config is what a Server is built from. The zero value of a number or duration means the default that
// is named beside it.
type Config struct {
	Listen string     // host:port of the data listener
	TLS    *ServerTLS // nil: plain HTTP
	// AllowPlainGrants accepts grant headers on a data listener that is neither TLS nor loopback.
	AllowPlainGrants bool
	// AdminListen is host:port of the admin listener; empty: none. It has no authentication, so it
	// belongs on loopback or on a network of the operator's own.
	AdminListen string

	Nodes    []string // URLs of Elasticsearch nodes, with an optional path prefix, without user and password
	Upstream UpstreamTLS
	Own      Credentials // for the proxy's own questions

	Memory     int64         // bytes that all bodies share; 64 MiB
	BusyWait   time.Duration // longest wait for memory; 10 s
	SlowWindow time.Duration // a body must bring SlowRate bytes per second over this time; 30 s
	SlowRate   int64         // 1024
	MaxRatio   int64         // largest ratio of unpacked to packed size beyond the first 16 MiB; 200

	ReadHeaderTimeout time.Duration // 30 s
	IdleTimeout       time.Duration // of client connections; 10 min
	DialTimeout       time.Duration // to a node, TLS handshake included; 10 s
	DrainTimeout      time.Duration // for requests in flight when Run ends; 30 s

	CompressOpened bool // gzip for opened replies, for clients that accept it

	// Reload builds a new State. It must not return secrets in errors. nil: Reload answers an error.
	Reload func(ctx context.Context) (*State, error)
	// CertInterval is how often certificate files are looked at; 10 s.
	CertInterval time.Duration

	Log     *slog.Logger // nil: discarded
	Audit   *slog.Logger // one line per granted request; nil: discarded
	Clock   Clock        // nil: the system's
	Version string
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	num := func(n *int64, v int64) {
		if *n == 0 {
			*n = v
		}
	}
	num(&c.Memory, 64<<20)
	num(&c.SlowRate, 1024)
	num(&c.MaxRatio, 200)
	def(&c.BusyWait, 10*time.Second)
	def(&c.SlowWindow, 30*time.Second)
	def(&c.ReadHeaderTimeout, 30*time.Second)
	def(&c.IdleTimeout, 10*time.Minute)
	def(&c.DialTimeout, 10*time.Second)
	def(&c.DrainTimeout, 30*time.Second)
	def(&c.CertInterval, 10*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Audit == nil {
		c.Audit = slog.New(slog.DiscardHandler)
	}
	if c.Clock == nil {
		c.Clock = systemClock{}
	}
}

// Server is the proxy. Its methods are safe for concurrent use; Run is called once.
type Server struct {
	cfg     Config
	state   atomic.Pointer[State]
	pool    *pool
	budget  *Budget
	metrics *metrics
	certs   *certStore // nil without TLS

	draining  atomic.Bool
	listening atomic.Bool
	secure    bool // grants may be shown on the data listener; set before serving

	reloading sync.Mutex
	failed    bool // the last Reload did; guarded by reloading
	probing   sync.Mutex

	started   chan struct{} // closed when addr and adminAddr are set
	addr      net.Addr
	adminAddr net.Addr
}

// New checks the configuration and loads certificates. It opens no connection and no listener.
// A State must be given to Swap before requests are served; until then they get 503.
func New(cfg Config) (*Server, error) {
	cfg.setDefaults()
	s := &Server{cfg: cfg, started: make(chan struct{})}
	var err error
	if s.pool, err = newPool(&s.cfg); err != nil {
		return nil, err
	}
	if cfg.TLS != nil {
		if s.certs, err = newCertStore(*cfg.TLS); err != nil {
			s.pool.close()
			return nil, err
		}
	}
	s.budget = NewBudget(cfg.Memory, cfg.BusyWait)
	s.metrics = newMetrics(s)
	return s, nil
}

// Swap puts a new State in force for requests that begin from now on.
func (s *Server) Swap(st *State) {
	s.state.Store(st)
	s.metrics.reloaded(true, s.cfg.Clock.Now())
}

// Budget is the memory that all bodies share, for the engine.
func (s *Server) Budget() *Budget { return s.budget }

// Started is closed when the listeners are open, after which Addr and AdminAddr may be called.
func (s *Server) Started() <-chan struct{} { return s.started }

// Addr is the address of the data listener. It blocks until the listener is open.
func (s *Server) Addr() net.Addr { <-s.started; return s.addr }

// AdminAddr is the address of the admin listener, nil without one. It blocks until the listener is open.
func (s *Server) AdminAddr() net.Addr { <-s.started; return s.adminAddr }

// Run listens and serves until ctx ends, then drains: readiness turns false, the data listener closes,
// and requests in flight have Config.DrainTimeout to end before they are cut. It returns nil after a
// drain that was complete.
func (s *Server) Run(ctx context.Context) error {
	defer s.pool.close()
	ln, err := net.Listen("tcp", s.cfg.Listen)
	if err != nil {
		return fmt.Errorf("data listener: %w", err)
	}
	defer ln.Close()
	var adminLn net.Listener
	if s.cfg.AdminListen != "" {
		if adminLn, err = net.Listen("tcp", s.cfg.AdminListen); err != nil {
			return fmt.Errorf("admin listener: %w", err)
		}
		defer adminLn.Close()
		s.adminAddr = adminLn.Addr()
	}
	s.addr = ln.Addr()
	s.secure = s.certs != nil || s.cfg.AllowPlainGrants || isLoopback(ln.Addr())

	var work sync.WaitGroup
	workCtx, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer work.Wait()
	defer stopWork()
	if s.certs != nil {
		ln = tls.NewListener(ln, s.certs.config())
		work.Go(func() {
			s.certs.watch.Run(workCtx, s.cfg.CertInterval, s.cfg.Clock, func() { s.reloadCerts(workCtx) })
		})
	}

	data := s.httpServer(http.HandlerFunc(s.serveHTTP))
	// Targets such as "*" are answered by our handler, in Elasticsearch's error shape.
	data.DisableGeneralOptionsHandler = true
	failed := make(chan error, 2)
	serve := func(srv *http.Server, ln net.Listener, name string) {
		work.Go(func() {
			if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
				failed <- fmt.Errorf("%s listener: %w", name, err)
			}
		})
	}
	if adminLn != nil {
		admin := s.httpServer(s.adminHandler())
		admin.WriteTimeout = time.Minute
		serve(admin, adminLn, "admin")
		defer admin.Close()
	}
	serve(data, ln, "data")
	s.listening.Store(true)
	close(s.started)
	s.logStart()

	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	s.draining.Store(true)
	s.listening.Store(false)
	s.cfg.Log.Info("draining", "timeout", s.cfg.DrainTimeout.String())
	drainCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.DrainTimeout)
	defer cancel()
	if drainErr := data.Shutdown(drainCtx); drainErr != nil {
		data.Close()
		s.cfg.Log.Warn("requests were cut at the end of the drain")
		err = errors.Join(err, fmt.Errorf("drain: %w", drainErr))
	}
	s.cfg.Log.Info("stopped")
	return err
}

func (s *Server) httpServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		IdleTimeout:       s.cfg.IdleTimeout,
		// The handler refuses heads far below this; what is above gets Go's plain answer and a close.
		MaxHeaderBytes: 64 << 10,
		ErrorLog:       quietErrorLog(s.cfg.Log),
		// HTTP/1.1 only: the hop's promises about heads and cut bodies are about its framing.
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){},
	}
}

func (s *Server) logStart() {
	attrs := []any{"listen", s.addr.String(), "tls", s.certs != nil, "elasticsearch", s.pool.names(), "version", s.cfg.Version}
	if s.adminAddr != nil {
		attrs = append(attrs, "admin", s.adminAddr.String())
	}
	if st := s.state.Load(); st != nil {
		attrs = append(attrs, "protects", strings.Join(st.Protects, ","), "key_id", st.KeyID, "suite", st.Suite)
	}
	s.cfg.Log.Info("serving", attrs...)
}

func isLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

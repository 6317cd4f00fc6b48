package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// exchange is one request and its reply.
type exchange struct {
	s     *Server
	st    *State
	w     http.ResponseWriter
	r     *http.Request
	ctl   *http.ResponseController
	begun time.Time

	header  http.Header // as it goes up
	grantee *Grantee    // nil without a grant
	counter *requestCounter
	plan    *rewrite.Plan
	packed  []byte // the body as it came, when it goes up so although a transform reads it
	body    *clientBody

	mu     sync.Mutex // orders 1xx replies, which come from another goroutine, with the final head
	status int        // of the head that was written; 0 before

	lost atomic.Bool // the client is gone
}

func (s *Server) serveHTTP(w http.ResponseWriter, r *http.Request) {
	x := &exchange{
		s: s, st: s.state.Load(), w: w, r: r, ctl: http.NewResponseController(w),
		begun:   s.cfg.Clock.Now(),
		counter: newRequestCounter(s.metrics),
	}
	x.body = newClientBody(w, r, s.cfg.Clock)
	s.metrics.inFlight.Inc()
	defer x.end()
	f := x.serve()
	if f != nil {
		x.refuse(f)
	}
}

// end writes the records of the request. A panic is logged by type and place, never by value: values may be documents.
func (x *exchange) end() {
	s := x.s
	s.metrics.inFlight.Dec()
	p := recover()
	if p != nil && p != http.ErrAbortHandler { //nolint:errorlint // net/http compares it so too
		s.cfg.Log.Error("panic", "type", fmt.Sprintf("%T", p), "stack", panicStack())
		s.metrics.panics.Inc()
		if x.status == 0 {
			x.refuse(fault(http.StatusInternalServerError, typeInternal, "the proxy failed at this request; its log says where", nil))
			p = nil
		}
	}
	route := "none"
	if x.plan != nil && x.plan.Route != "" {
		route = x.plan.Route
	}
	took := s.cfg.Clock.Now().Sub(x.begun)
	s.metrics.request(route, x.r.Method, x.status, p != nil, took)
	if s.cfg.Log.Enabled(context.Background(), slog.LevelDebug) {
		s.cfg.Log.Debug("request", "method", methodLabel(x.r.Method), "route", route, "status", x.status, "took", took.String(), "aborted", p != nil)
	}
	if x.grantee != nil {
		x.audit(p != nil)
	}
	if p != nil {
		panic(http.ErrAbortHandler)
	}
}

// panicStack is the functions and lines of the stack, without arguments.
func panicStack() string {
	pcs := make([]uintptr, 48)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(3, pcs)])
	var b strings.Builder
	for {
		f, more := frames.Next()
		file := f.File[strings.LastIndexByte(f.File, '/')+1:]
		fmt.Fprintf(&b, "%s %s:%d; ", f.Function, file, f.Line)
		if !more {
			return strings.TrimSuffix(b.String(), "; ")
		}
	}
}

// serve judges the head and carries the plan out. A fault that it returns was not answered yet.
func (x *exchange) serve() *rewrite.Fault {
	s, r := x.s, x.r
	if x.st == nil {
		return fault(http.StatusServiceUnavailable, typeNotReady, "the proxy has not loaded its policy and keys yet; try again later", nil)
	}
	if f := checkTarget(r); f != nil {
		return f
	}
	// Before fields named by Connection are removed: else a client's own hop could take the grant away
	// without anybody noticing, or hide a second one.
	grantee, err := x.st.Judge.Judge(r.Header[grantHeader], r.Header["Authorization"], s.secure)
	if err != nil {
		var f *rewrite.Fault
		if errors.As(err, &f) {
			return f
		}
		return fault(http.StatusForbidden, typeBadGrant, err.Error(), err)
	}
	x.grantee = grantee
	x.header = upstreamHeader(r.Header)
	path, query, hasQuery := strings.Cut(r.RequestURI, "?")
	if f := x.checkHead(r.Method, r.RequestURI); f != nil {
		return f
	}

	call := &rewrite.Call{
		Method: r.Method, Path: path, Query: query,
		ContentType: x.header["Content-Type"], ContentEncoding: x.header["Content-Encoding"], Accept: x.header["Accept"],
		HasBody: r.ContentLength != 0, Authority: authority(r),
		Caller: s.callerFor(x.header), Counter: x.counter,
	}
	if grantee != nil {
		call.Viewer = grantee.Viewer
	}
	ctx, cancel := x.context()
	defer cancel()
	plan, err := x.st.Planner.Plan(ctx, call)
	if err != nil {
		if x.lost.Load() {
			panic(http.ErrAbortHandler)
		}
		return asFault(err, http.StatusInternalServerError, typeInternal, "the proxy could not plan this request")
	}
	x.plan = plan
	if plan.Done != nil {
		defer plan.Done()
	}
	planned := rewrite.Target{Method: r.Method, Path: path, Query: query}
	target := func() string {
		switch t := plan.Target; {
		case t == planned && hasQuery:
			return t.Path + "?" + t.Query // keeps a lone question mark
		case t.Query != "":
			return t.Path + "?" + t.Query
		default:
			return t.Path
		}
	}
	if plan.Transform == nil {
		return x.pass(ctx, target())
	}
	defer plan.Transform.Close()
	return x.transform(ctx, target)
}

// context ends when the client is gone. The request's own context won't do: net/http ends it at every
// failed read, also when it was we who stopped a body, and the reply would be lost with it.
func (x *exchange) context() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(x.r.Context()))
	gone := func() {
		x.lost.Store(true)
		cancel()
	}
	x.body.onGone = gone
	stop := context.AfterFunc(x.r.Context(), func() {
		if x.body.end.Load() { // else whoever reads the body learns why
			gone()
		}
	})
	return ctx, func() {
		stop()
		cancel()
	}
}

func checkTarget(r *http.Request) *rewrite.Fault {
	switch {
	case r.Method == http.MethodConnect:
		return fault(http.StatusBadRequest, typeBadTarget, "CONNECT is not supported", nil)
	case !strings.HasPrefix(r.RequestURI, "/"):
		return fault(http.StatusBadRequest, typeBadTarget, "the request target must be a path that begins with a slash", nil)
	case strings.Contains(r.RequestURI, "#"):
		return fault(http.StatusBadRequest, typeBadTarget, "the request target must not have a fragment; write # as %23", nil)
	}
	return nil
}

// checkHead refuses what Elasticsearch would not read, with what the node's URL adds.
func (x *exchange) checkHead(method, target string) *rewrite.Fault {
	prefix, host := x.s.pool.longestPrefix()
	line, total := headSize(method, prefix+target, host, x.header, x.r.Trailer)
	switch {
	case line > maxLine:
		return fault(http.StatusBadRequest, typeHeadTooLarge, "the request line is longer than 4096 bytes; shorten the path or move parameters into the body", nil)
	case total > maxHead:
		return fault(http.StatusBadRequest, typeHeadTooLarge, "the request line and headers are together larger than 14 KiB; send fewer or shorter headers", nil)
	}
	return nil
}

// pass carries both bodies as they are.
func (x *exchange) pass(ctx context.Context, target string) *rewrite.Fault {
	out := &outgoing{method: x.plan.Target.Method, target: target, header: x.header, length: x.r.ContentLength}
	out.informed = x.inform
	if out.length != 0 {
		// Elasticsearch may answer before it has read the body. Without this net/http's server would
		// read the rest itself while we do (golang/go#40747).
		if err := x.ctl.EnableFullDuplex(); err != nil {
			return fault(http.StatusInternalServerError, typeInternal, "the connection can't carry a request body", err)
		}
		out.stream, out.untouched = x.body, x.body.untouched
		out.trailer = x.trailer()
		out.cut = x.body.halt
	}
	resp, err := x.s.pool.do(ctx, out)
	if err != nil {
		return x.upstreamFault(err)
	}
	defer resp.Body.Close()
	var change func(http.Header)
	if x.r.Method == http.MethodHead && x.grantee != nil {
		// The length of what a GET would get is not known without opening it.
		change = func(h http.Header) { openedHead(h, true, false) }
	}
	x.forward(resp, change)
	x.body.halt() // else the server waits for the rest of a body that nobody reads
	return nil
}

// trailer announces the client's trailers. net/http's server fills the map when the body ends, and the
// sender sends it after that; ours are taken out before and then again.
func (x *exchange) trailer() http.Header {
	if x.r.Trailer == nil {
		return nil
	}
	drop := func() { removeOwn(x.r.Trailer) }
	drop()
	x.body.onEnd = drop
	return x.r.Trailer
}

// upstreamFault is the refusal for a request that got no reply. It ends the connection of a client that is gone.
func (x *exchange) upstreamFault(err error) *rewrite.Fault {
	switch {
	case x.body.failed() != nil && !errors.Is(x.body.failed(), errStopped):
		// Its framing may be broken while the client still listens.
		return faultBadBody("the request's body could not be read to its end", err)
	case x.lost.Load():
		panic(http.ErrAbortHandler)
	}
	return faultUpstream("Elasticsearch could not be reached or closed the connection before it had answered. "+
		"It does the latter for bodies over its http.max_content_length, and during a search that meets a stored document in UTF-16. "+
		"Whether a write took place is not known", err)
}

// inform hands a 1xx reply on.
func (x *exchange) inform(status int, h http.Header) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.status != 0 || status < 100 || status > 199 || status == http.StatusSwitchingProtocols {
		return
	}
	dst := x.w.Header()
	clear(dst)
	copyReplyHeader(dst, h)
	x.w.WriteHeader(status)
	clear(dst)
}

// writeHead writes the reply's head. The header must be complete.
func (x *exchange) writeHead(status int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.status != 0 {
		return
	}
	x.status = status
	if x.plan != nil && x.plan.Done != nil {
		x.plan.Done() // before the client can act on the reply
	}
	noDefaults(x.w.Header())
	x.w.WriteHeader(status)
}

// forward sends the reply to the client as it is. edit may change the head.
func (x *exchange) forward(resp *http.Response, edit func(h http.Header)) {
	h := x.w.Header()
	clear(h)
	copyReplyHeader(h, resp.Header)
	if len(resp.Trailer) > 0 {
		names := make([]string, 0, len(resp.Trailer))
		for name := range resp.Trailer {
			names = append(names, name)
		}
		h["Trailer"] = []string{strings.Join(names, ", ")}
	}
	if edit != nil {
		edit(h)
	}
	if !x.body.end.Load() {
		x.lastReply()
	}
	x.writeHead(resp.StatusCode)
	// A reply without a length keeps going out as it comes in, and stays chunked however short it is.
	flush := resp.ContentLength < 0 && x.r.Method != http.MethodHead
	if flush {
		x.ctl.Flush()
	}
	block := getBlock()
	defer putBlock(block)
	for {
		n, err := resp.Body.Read(*block)
		if n > 0 {
			if _, werr := x.w.Write((*block)[:n]); werr != nil {
				panic(http.ErrAbortHandler)
			}
			if flush {
				x.ctl.Flush()
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			x.s.cfg.Log.Warn("reply broken off by Elasticsearch", "route", x.plan.Route)
			panic(http.ErrAbortHandler)
		}
	}
	for name, values := range resp.Trailer {
		h[name] = values
	}
}

// lastReply makes the server close the connection after a reply that comes before the request's body has
// ended, and leave the client time to read it. MaxBytesReader is net/http's way to say so.
func (x *exchange) lastReply() {
	var b [2]byte
	http.MaxBytesReader(x.w, io.NopCloser(strings.NewReader("xx")), 1).Read(b[:])
}

// refuse answers with f.
func (x *exchange) refuse(f *rewrite.Fault) {
	x.counter.Refused(f.Type)
	level, attrs := slog.LevelDebug, []any{"type", f.Type, "status", f.Status}
	if f.Status >= http.StatusInternalServerError {
		level = slog.LevelWarn // not the client's doing
	}
	if f.Cause != nil {
		attrs = append(attrs, "cause", causeText(f.Cause))
	}
	x.s.cfg.Log.Log(context.Background(), level, "refused", attrs...)
	h := x.w.Header()
	clear(h)
	h["Content-Type"] = []string{replyType(x.r.Header["Accept"])}
	h["X-Elastic-Product"] = []string{"Elasticsearch"}
	body := f.AppendBody(nil)
	if !x.body.end.Load() && (x.body.n.Load() > 0 || x.body.stop.Load()) {
		x.body.halt() // nobody waits for the rest
		x.lastReply()
	} else if x.r.ContentLength != 0 {
		// The server reads a small rest before it answers.
		x.body.hurry()
	}
	h["Content-Length"] = []string{fmt.Sprint(len(body))}
	x.writeHead(f.Status)
	if x.r.Method != http.MethodHead {
		x.w.Write(body)
	}
}

// causeText names the kind of an error. Texts of net errors hold addresses only, but others may quote input.
func causeText(err error) string {
	var t interface{ Timeout() bool }
	if errors.As(err, &t) {
		return fmt.Sprintf("%T (timeout: %v)", err, t.Timeout())
	}
	return fmt.Sprintf("%T", err)
}

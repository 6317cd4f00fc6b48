package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// maxRounds bounds how often a transform may ask for its exchange to be repeated.
const maxRounds = 100

// drainLimit is how much of an unwanted reply is read so that its connection can be used again.
const drainLimit = 256 << 10

// transform carries a plan out whose transform reads and writes the bodies.
func (x *exchange) transform(ctx context.Context, target func() string) *rewrite.Fault {
	reader, f := x.requestReader(ctx)
	if f != nil {
		return f
	}
	if x.plan.Looks {
		x.packed = reader.hold(freeLimit)
	}
	if x.packed == nil {
		delete(x.header, "Content-Encoding")
	}
	delete(x.header, "Expect")
	accept := transformAccept(x.header["Accept-Encoding"])
	if len(accept) > 0 {
		x.header["Accept-Encoding"] = accept
	}
	var body io.Reader = reader
	for range maxRounds {
		again, f := x.round(ctx, reader, body, target)
		if f != nil || !again {
			return f
		}
		body = nil
	}
	return faultUpstream("the request had to be repeated too often; try again later", nil)
}

// requestReader judges what the head says of the body, before a byte of it is asked for.
func (x *exchange) requestReader(ctx context.Context) (*requestReader, *rewrite.Fault) {
	if n := len(x.header["Content-Type"]); n > 1 {
		return nil, fault(http.StatusBadRequest, typeBadHeader, "the request has more than one Content-Type header", nil)
	}
	kind, ok := codingOf(x.header["Content-Encoding"])
	if x.body.length == 0 {
		kind = identity
	}
	if !ok {
		return nil, fault(http.StatusUnsupportedMediaType, typeBadEncoding, "the Content-Encoding must be one of gzip, deflate and identity, given once", nil)
	}
	if limit := x.limit(ctx); limit > 0 && x.body.length > limit {
		return nil, faultTooLarge("the body is larger than Elasticsearch's http.max_content_length of " + bytesText(limit) + "; send it in smaller requests")
	}
	if x.body.length != 0 {
		x.body.guard(x.s.cfg.SlowWindow, x.s.cfg.SlowRate)
	}
	return newRequestReader(x.body, kind, x.s.cfg.MaxRatio), nil
}

func (x *exchange) limit(ctx context.Context) int64 {
	if x.st.MaxContentLength == nil {
		return 0
	}
	return x.st.MaxContentLength(ctx)
}

// round is one request and reply. body is nil when the exchange is repeated.
func (x *exchange) round(ctx context.Context, reader *requestReader, body io.Reader, target func() string) (again bool, f *rewrite.Fault) {
	t := x.plan.Transform
	up := &upWriter{
		ctx: ctx, limit: x.limit(ctx), budget: x.s.budget,
		plain: reader.n.Load,
		halt:  x.body.halt,
		pool:  x.s.pool,
		target: func() (*outgoing, error) {
			if kind := x.plan.ContentType; kind != "" {
				x.header["Content-Type"] = []string{kind}
			}
			out := &outgoing{method: x.plan.Target.Method, target: target(), header: x.header}
			// The transform may have changed the target.
			if f := x.checkHead(out.method, out.target); f != nil {
				return nil, f
			}
			return out, nil
		},
	}
	defer up.release()
	// Also when the transform panics, the upstream request must not be left without an end.
	done := false
	defer func() {
		if !done {
			if a := up.abandon(); a != nil && a.resp != nil {
				a.resp.Body.Close()
			}
		}
	}()

	to := io.Writer(up)
	if x.packed != nil {
		to = io.Discard
	}
	answered, err := t.Request(ctx, x.plan, body, to)
	if err == nil && body != nil && !answered && reader.err == nil && up.err == nil {
		// What the transform left unread must be sound too: a checksum or rubbish may come last.
		io.Copy(io.Discard, reader)
	}
	if err == nil && reader.err == nil && x.packed != nil {
		_, err = up.Write(x.packed)
	}
	if err != nil || reader.err != nil || up.err != nil {
		done = true
		return false, x.requestFailed(up, reader, err)
	}
	if answered {
		done = true
		if up.streamed() {
			up.abandon()
			return false, fault(http.StatusInternalServerError, typeInternal, "the proxy answered a request that it had begun to send", nil)
		}
		return x.answer(ctx)
	}
	a := up.finish()
	done = true
	if a.err != nil {
		var f *rewrite.Fault
		if errors.As(a.err, &f) {
			return false, f
		}
		return false, x.upstreamFault(a.err)
	}
	defer a.resp.Body.Close()
	if up.early != nil {
		return false, x.earlyReply(a.resp)
	}
	return x.reply(ctx, a.resp)
}

// requestFailed ends a request whose body could not be carried to its end.
func (x *exchange) requestFailed(up *upWriter, reader *requestReader, err error) *rewrite.Fault {
	if early := up.abandon(); early != nil {
		if early.err != nil {
			var f *rewrite.Fault
			if errors.As(early.err, &f) {
				return f
			}
			return x.upstreamFault(early.err)
		}
		defer early.resp.Body.Close()
		return x.earlyReply(early.resp)
	}
	var f *rewrite.Fault
	var unopened *openError
	if errors.As(up.err, &unopened) && reader.err == nil {
		return x.upstreamFault(unopened)
	}
	if x.lost.Load() && !errors.As(reader.err, &f) {
		panic(http.ErrAbortHandler)
	}
	for _, e := range []error{reader.err, up.err, err} {
		if errors.As(e, &f) {
			return f
		}
	}
	return faultUpstream("the request could not be completed; try again later", err)
}

// earlyReply hands on a refusal that came before the body was sent. Anything else so early is no answer to the request.
func (x *exchange) earlyReply(resp *http.Response) *rewrite.Fault {
	if resp.StatusCode < 400 {
		return faultUpstream("Elasticsearch answered before it had read the request; whether it took place is not known", nil)
	}
	x.body.halt()
	x.forward(resp, nil)
	return nil
}

// answer sends a reply that the transform makes alone.
func (x *exchange) answer(ctx context.Context) (again bool, f *rewrite.Fault) {
	rewriteReply, again, err := x.plan.Transform.Reply(ctx, rewrite.ReplyHead{Status: http.StatusOK, ContentType: plainJSON})
	if err != nil {
		return false, asFault(err, http.StatusBadGateway, typeUpstreamFailed, "the reply could not be made")
	}
	if again {
		return true, nil
	}
	if rewriteReply == nil {
		return false, fault(http.StatusInternalServerError, typeInternal, "the proxy has no reply to this request", nil)
	}
	head := http.Header{
		"Content-Type":      {replyType(x.r.Header["Accept"])},
		"X-Elastic-Product": {"Elasticsearch"},
	}
	return false, x.open(head, http.StatusOK, bytes.NewReader(nil), nil, rewriteReply)
}

// reply decides with the transform what becomes of the reply.
func (x *exchange) reply(ctx context.Context, resp *http.Response) (again bool, f *rewrite.Fault) {
	head := rewrite.ReplyHead{Status: resp.StatusCode, ContentType: resp.Header.Get("Content-Type")}
	rewriteReply, again, err := x.plan.Transform.Reply(ctx, head)
	switch {
	case err != nil:
		return false, asFault(err, http.StatusBadGateway, typeUpstreamFailed, "the reply of Elasticsearch could not be used")
	case again:
		io.CopyN(io.Discard, resp.Body, drainLimit)
		return true, nil
	case x.r.Method == http.MethodHead && x.grantee != nil:
		// The length of the reply that a GET would get is not known without making it.
		x.forward(resp, func(h http.Header) { openedHead(h, true, false) })
		return false, nil
	case rewriteReply == nil:
		x.forward(resp, nil)
		return false, nil
	}
	kind, ok := codingOf(resp.Header["Content-Encoding"])
	if !ok {
		return false, faultUpstream("Elasticsearch answered in a content encoding that the proxy can't decode", nil)
	}
	body := &replySource{r: resp.Body}
	var in io.Reader = body
	if kind != identity && x.r.Method != http.MethodHead {
		in = newUnpacker(body, kind, 0)
	}
	return false, x.open(resp.Header, resp.StatusCode, in, body, rewriteReply)
}

package proxy

import (
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// openedHead makes h the head of a reply whose body the proxy writes. Everything that describes the body
// that Elasticsearch sent goes together, here and nowhere else.
func openedHead(h http.Header, secret, compress bool) {
	for _, name := range []string{"Content-Length", "Content-Encoding", "Transfer-Encoding", "Etag", "Trailer"} {
		delete(h, name)
	}
	if secret {
		h["Cache-Control"] = []string{"no-store"}
	}
	if compress {
		h["Content-Encoding"] = []string{"gzip"}
	}
}

// open sends a reply that rewriteReply writes from in. src is the source below in, nil when there is none.
func (x *exchange) open(head http.Header, status int, in io.Reader, src *replySource, rewriteReply func(io.Reader, io.Writer) error) *rewrite.Fault {
	out := &replyWriter{x: x, head: head, status: status}
	if x.s.cfg.CompressOpened && takesGzip(x.r.Header["Accept-Encoding"]) && x.r.Method != http.MethodHead {
		out.compress = true
	}
	block := getBlock()
	defer putBlock(block)
	out.buf = (*block)[:0]
	if src != nil {
		src.before = out.ready
	}
	if x.r.Method == http.MethodHead {
		out.commit()
		return nil
	}
	seen := &sourceReader{r: in}
	err := rewriteReply(seen, out)
	if err == nil && seen.err == nil {
		// Up to the end: a reply that Elasticsearch broke off, or a wrong checksum, is not a whole one.
		io.Copy(io.Discard, seen)
	}
	if seen.err != io.EOF && seen.err != nil {
		err = errors.Join(err, seen.err)
	}
	if err == nil {
		err = out.finish()
	}
	if err == nil {
		return nil
	}
	if out.committed || x.lost.Load() {
		x.s.cfg.Log.Warn("reply aborted", "route", x.plan.Route, "cause", causeText(err))
		panic(http.ErrAbortHandler)
	}
	return asFault(err, http.StatusBadGateway, typeUpstreamFailed, "the reply of Elasticsearch broke off or could not be read")
}

// replySource is the reply's body as it comes. Before it may have to wait for more it lets go out what is ready,
// so that the first hits don't wait for the last.
type replySource struct {
	r      io.Reader
	before func() error
}

func (s *replySource) Read(p []byte) (int, error) {
	if s.before != nil {
		if err := s.before(); err != nil {
			return 0, err
		}
	}
	return s.r.Read(p)
}

// sourceReader remembers how reading ended.
type sourceReader struct {
	r   io.Reader
	err error
}

func (s *sourceReader) Read(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.r.Read(p)
	s.err = err
	return n, err
}

// replyWriter gathers small writes and writes the head with the first bytes that go out. Those who open a reply may write from
// another goroutine than the one that reads it.
type replyWriter struct {
	mu        sync.Mutex
	x         *exchange
	head      http.Header
	status    int
	compress  bool
	buf       []byte // of a fixed capacity
	gz        *gzip.Writer
	committed bool
	dirty     bool // something was written since the last flush
}

func (w *replyWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(p)
	if n >= cap(w.buf)/2 && len(w.buf)+n > cap(w.buf) {
		// A large piece goes out as it is.
		if err := w.push(); err != nil {
			return 0, err
		}
		return n, w.send(p)
	}
	for len(p) > 0 {
		if len(w.buf) == cap(w.buf) {
			if err := w.push(); err != nil {
				return 0, err
			}
		}
		take := min(len(p), cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[:take]...)
		p = p[take:]
	}
	return n, nil
}

// commit writes the head.
func (w *replyWriter) commit() {
	if w.committed {
		return
	}
	w.committed = true
	h := w.x.w.Header()
	clear(h)
	copyReplyHeader(h, w.head)
	openedHead(h, w.x.grantee != nil, w.compress)
	if !w.x.body.end.Load() {
		w.x.lastReply()
	}
	w.x.writeHead(w.status)
}

// push hands the buffer to the server.
func (w *replyWriter) push() error {
	if len(w.buf) == 0 {
		return nil
	}
	err := w.send(w.buf)
	w.buf = w.buf[:0]
	return err
}

func (w *replyWriter) send(p []byte) error {
	w.commit()
	var dst io.Writer = w.x.w
	if w.compress {
		if w.gz == nil {
			w.gz, _ = gzip.NewWriterLevel(w.x.w, gzip.BestSpeed) // the level is valid
		}
		dst = w.gz
	}
	_, err := dst.Write(p)
	w.dirty = true
	return err
}

// ready lets go out what is ready. Where another goroutine is writing, that one does so when it has no more to write.
func (w *replyWriter) ready() error {
	if !w.mu.TryLock() {
		return nil
	}
	defer w.mu.Unlock()
	return w.flush()
}

// Flush lets everything go out that was written.
func (w *replyWriter) Flush() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.flush()
}

func (w *replyWriter) flush() error {
	if err := w.push(); err != nil || !w.dirty {
		return err
	}
	w.dirty = false
	if w.gz != nil {
		if err := w.gz.Flush(); err != nil {
			return err
		}
	}
	return w.x.ctl.Flush()
}

func (w *replyWriter) finish() error {
	if err := w.push(); err != nil {
		return err
	}
	w.commit()
	if w.gz != nil {
		return w.gz.Close()
	}
	return nil
}

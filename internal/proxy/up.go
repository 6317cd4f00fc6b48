package proxy

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/esproxy/esproxy/internal/rewrite"
)

const (
	// wholeLimit is how much of a body is held before anything goes up: within it a faulty request
	// leaves no trace upstream.
	wholeLimit = 256 << 10
	// freeLimit is how much of that is not counted, like the buffers of a connection.
	freeLimit = 16 << 10
	// sendSize is how much a streamed body gathers before it is handed to the transport.
	sendSize = 64 << 10
)

// answer is what came of a request that was sent.
type answer struct {
	resp *http.Response
	err  error
}

// upWriter is where a transform writes the body for Elasticsearch. A body within wholeLimit is sent at once and with its
// length when the transform is done. A longer one goes up in chunks while it is written; the transport's
// pace is then the writer's.
type upWriter struct {
	ctx    context.Context // of the exchange
	send   func(out *outgoing) (*http.Response, error)
	target func() *outgoing // head of the request, asked once
	halt   func()           // stops the reading of the client's body
	limit  int64            // largest body; 0: none
	plain  func() int64     // bytes that the transform has read
	budget *Budget

	buf     []byte
	charged int64
	total   int64
	err     error // sticky, what Write failed with

	pipe   *io.PipeWriter // not nil once streaming
	result chan answer    // holds one

	mu       sync.Mutex
	finished bool    // the transform is done, the end may go up
	early    *answer // what came before
	lost     bool    // the connection closed before
}

// errEarly makes a transform stop: Elasticsearch has answered, or is gone, before it had the whole body.
var errEarly = errors.New("the upstream request has ended before its body")

func (u *upWriter) Write(p []byte) (int, error) {
	if u.err != nil {
		return 0, u.err
	}
	n, err := u.write(p)
	u.err = err
	return n, err
}

func (u *upWriter) write(p []byte) (int, error) {
	u.total += int64(len(p))
	if u.limit > 0 && u.total > u.limit {
		return 0, u.tooLarge()
	}
	if u.pipe == nil {
		if len(u.buf)+len(p) <= wholeLimit {
			if err := u.grow(len(u.buf) + len(p)); err != nil {
				return 0, err
			}
			u.buf = append(u.buf, p...)
			return len(p), nil
		}
		u.start()
	}
	if len(u.buf)+len(p) >= sendSize {
		if err := u.push(u.buf); err != nil {
			return 0, err
		}
		u.buf = u.buf[:0]
		if len(p) >= sendSize {
			if err := u.push(p); err != nil {
				return 0, err
			}
			return len(p), nil
		}
	}
	u.buf = append(u.buf, p...)
	return len(p), nil
}

// grow makes room for n bytes and charges it. Capacity doubles, as append would have it.
func (u *upWriter) grow(n int) error {
	if n <= cap(u.buf) {
		return nil
	}
	size := max(4<<10, 2*cap(u.buf))
	for size < n {
		size *= 2
	}
	size = min(size, wholeLimit)
	if size > freeLimit {
		if err := u.budget.Acquire(u.ctx, int64(size)-u.charged); err != nil {
			return err
		}
		u.charged = int64(size)
	}
	grown := make([]byte, len(u.buf), size)
	copy(grown, u.buf)
	u.buf = grown
	return nil
}

func (u *upWriter) push(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if _, err := u.pipe.Write(p); err != nil {
		return errEarly
	}
	return nil
}

// tooLarge tells how much plain body would have fitted, by the growth so far.
func (u *upWriter) tooLarge() *rewrite.Fault {
	fits := u.limit
	if plain := u.plain(); plain > 0 && u.total > plain {
		fits = int64(float64(u.limit) * (float64(plain) / float64(u.total)))
	}
	return faultTooLarge("sealed, the body is larger than Elasticsearch's http.max_content_length of " + bytesText(u.limit) +
		"; about " + bytesText(fits) + " of a body like this one fit: send it in smaller requests")
}

// start begins the upstream request while the body is still being written.
func (u *upWriter) start() {
	pr, pw := io.Pipe()
	u.pipe, u.result = pw, make(chan answer, 1)
	out := u.target()
	first := true
	body := &pipeBody{r: pr}
	out.body = func() io.Reader {
		if !first && body.touched() {
			return nil
		}
		first = false
		return body
	}
	out.length = -1
	// A connection that closes must wake a transform that waits for either side.
	out.cut = func() {
		u.mu.Lock()
		u.lost = u.lost || !u.finished
		lost := u.lost
		u.mu.Unlock()
		if lost {
			pr.CloseWithError(errEarly)
			u.halt()
		}
	}
	go func() {
		resp, err := u.send(out)
		a := answer{resp, err}
		u.mu.Lock()
		if !u.finished {
			u.early = &a
		}
		stop := !u.finished
		u.mu.Unlock()
		u.result <- a
		if err != nil || stop {
			pr.CloseWithError(errEarly)
		}
		if stop {
			u.halt()
		}
	}()
}

// finish ends the body and waits for the reply's head.
func (u *upWriter) finish() answer {
	if u.pipe == nil {
		out := u.target()
		if len(u.buf) > 0 {
			out.body = func() io.Reader { return bytes.NewReader(u.buf) }
			out.length = int64(len(u.buf))
		}
		resp, err := u.send(out)
		return answer{resp, err}
	}
	if err := u.push(u.buf); err != nil {
		return <-u.result
	}
	u.mu.Lock()
	u.finished = true
	u.mu.Unlock()
	u.pipe.Close()
	return <-u.result
}

// abandon cuts the upstream request, if there is one, so that it never ends like a whole one. When the request had ended
// by itself before, abandon returns how; its reply is then the caller's to close.
func (u *upWriter) abandon(cancel func()) *answer {
	if u.pipe == nil {
		return nil
	}
	u.mu.Lock()
	early, lost := u.early, u.lost
	u.finished = true // what comes from now on is ours
	u.mu.Unlock()
	if early == nil && lost {
		a := <-u.result // it is on its way
		return &a
	}
	if early == nil {
		u.pipe.CloseWithError(errEarly)
		cancel()
		if a := <-u.result; a.resp != nil {
			a.resp.Body.Close()
		}
	}
	return early
}

// streamed reports whether bytes may have gone up.
func (u *upWriter) streamed() bool { return u.pipe != nil }

// release gives the memory back. The buffer itself is left to the collector: the transport may still read it.
func (u *upWriter) release() {
	u.budget.Release(u.charged)
	u.charged = 0
}

// pipeBody is the reading end of a streamed body. Close does nothing: whoever gives up tells the pipe why.
type pipeBody struct {
	r    *io.PipeReader
	mu   sync.Mutex
	read bool
}

func (b *pipeBody) Read(p []byte) (int, error) {
	b.mu.Lock()
	b.read = true
	b.mu.Unlock()
	return b.r.Read(p)
}

func (b *pipeBody) touched() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read
}

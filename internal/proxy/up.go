package proxy

import (
	"context"
	"errors"
	"sync"

	"github.com/esproxy/esproxy/internal/rewrite"
)

const (
	// wholeLimit is how much of a body is held before anything goes up: within it a faulty request
	// leaves no trace upstream.
	wholeLimit = 256 << 10
	// freeLimit is how much of that is not counted, like the buffers of a connection.
	freeLimit = 16 << 10
	// sendSize is how much a streamed body gathers before it goes out.
	sendSize = 64 << 10
)

// upWriter is where a transform writes the body for Elasticsearch. A body within wholeLimit is sent at once and with its
// length when the transform is done. A longer one goes up in chunks while it is written, each from the
// transform's own memory into the socket: Elasticsearch's pace is then the transform's.
type upWriter struct {
	ctx    context.Context // of the exchange
	pool   *pool
	target func() (*outgoing, error) // head of the request, asked once
	halt   func()                    // stops the reading of the client's body
	limit  int64                     // largest body; 0: none
	plain  func() int64              // bytes that the transform has read
	budget *Budget

	buf     []byte
	charged int64
	total   int64
	err     error // sticky, what Write failed with

	up *upstream // not nil once streaming

	mu       sync.Mutex
	finished bool    // the transform is done, the end may go up
	early    *answer // what came before

	failed bool // a write did: the reply, or the end of the connection, is there or about to come
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
	if u.up == nil {
		if len(u.buf)+len(p) <= wholeLimit {
			if err := u.grow(len(u.buf) + len(p)); err != nil {
				return 0, err
			}
			u.buf = append(u.buf, p...)
			return len(p), nil
		}
		if err := u.start(); err != nil {
			return 0, err
		}
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
	size := max(1<<10, 2*cap(u.buf))
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
	if err := u.up.write(p, false); err != nil {
		u.failed = true
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

// openError tells that no node took the request.
type openError struct{ error }

func (e *openError) Unwrap() error { return e.error }

// start begins the upstream request while the body is still being written.
func (u *upWriter) start() error {
	out, err := u.target()
	if err != nil {
		return err
	}
	up, err := u.pool.open(u.ctx, out)
	if err != nil {
		return &openError{err}
	}
	u.up = up
	go up.wait(out, func(a answer) {
		if a.err == nil {
			u.pool.answered()
		}
		u.mu.Lock()
		early := !u.finished
		if early {
			u.early = &a
		}
		u.mu.Unlock()
		if early { // wake the transform, which waits for either side
			up.giveUp()
			u.halt()
		}
	})
	return nil
}

// finish ends the body and waits for the reply's head.
func (u *upWriter) finish() answer {
	if u.up == nil {
		out, err := u.target()
		if err != nil {
			return answer{err: err}
		}
		out.data = u.buf
		resp, err := u.pool.do(u.ctx, out)
		return answer{resp, err}
	}
	u.mu.Lock()
	u.finished = u.early == nil
	u.mu.Unlock()
	if !u.finished {
		return <-u.up.reply
	}
	err := u.up.write(u.buf, true)
	a := <-u.up.reply
	if err != nil { // the node had answered meanwhile, or was gone
		u.early = &a
	}
	return a
}

// abandon cuts the upstream request, if there is one, so that it never ends like a whole one. When the request had ended
// by itself before, abandon returns how; its reply is then the caller's to close.
func (u *upWriter) abandon() *answer {
	if u.up == nil {
		return nil
	}
	u.mu.Lock()
	over := u.early != nil || u.failed
	u.finished = true // what comes from now on is ours
	u.mu.Unlock()
	if !over {
		u.up.breakOff()
	}
	a := <-u.up.reply
	if over {
		return &a
	}
	if a.resp != nil {
		a.resp.Body.Close()
	}
	return nil
}

// streamed reports whether bytes may have gone up.
func (u *upWriter) streamed() bool { return u.up != nil }

// release gives the memory back.
func (u *upWriter) release() {
	u.budget.Release(u.charged)
	u.charged = 0
}

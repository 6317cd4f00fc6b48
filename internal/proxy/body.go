package proxy

import (
	"errors"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// clientBody is a request's body as the client sends it. It tells how far it got, can be stopped from
// another goroutine, and, when guarded, gives up on clients that are too slow. The server closes it.
type clientBody struct {
	src    io.Reader
	ctl    *http.ResponseController
	length int64 // Content-Length, -1 when chunked
	clock  Clock

	n    atomic.Int64
	end  atomic.Bool // all of it was read
	stop atomic.Bool

	window  time.Duration // zero: not guarded
	rate    int64
	started int64         // n at the beginning of the window
	waited  time.Duration // time in this window that reading took
	set     time.Time     // when the read deadline was set last

	failure atomic.Pointer[error]
	onEnd   func() // called by the reading goroutine when all was read; may be nil
	onGone  func() // called by the reading goroutine when the client broke the body off; may be nil
}

// failed is what reading failed with, other than io.EOF.
func (b *clientBody) failed() error {
	if p := b.failure.Load(); p != nil {
		return *p
	}
	return nil
}

func (b *clientBody) fail(err error) error {
	b.failure.Store(&err)
	return err
}

var errStopped = errors.New("the request's body is no longer wanted")

func newClientBody(w http.ResponseWriter, r *http.Request, clock Clock) *clientBody {
	b := &clientBody{src: r.Body, ctl: http.NewResponseController(w), length: r.ContentLength, clock: clock}
	b.end.Store(r.ContentLength == 0)
	return b
}

// guard makes reads fail with a 408 fault when the client sends less than rate bytes per second over a
// window. Only time spent waiting for the client counts.
func (b *clientBody) guard(window time.Duration, rate int64) { b.window, b.rate = window, rate }

func (b *clientBody) Read(p []byte) (int, error) {
	if err := b.failed(); err != nil {
		return 0, err
	}
	if b.stop.Load() {
		return 0, b.fail(errStopped)
	}
	var before time.Time
	if b.window > 0 {
		before = b.clock.Now()
		if before.Sub(b.set) > b.window/8 {
			b.set = before
			// The wall clock, since the kernel's deadline is one.
			b.ctl.SetReadDeadline(time.Now().Add(b.window))
			if b.stop.Load() { // stopped meanwhile, and its deadline overwritten
				b.interrupt()
			}
		}
	}
	n, err := b.src.Read(p)
	total := b.n.Add(int64(n))
	switch {
	case err == io.EOF || b.length > 0 && total == b.length:
		b.end.Store(true)
		if err == io.EOF && b.onEnd != nil {
			b.onEnd()
		}
		if b.window > 0 {
			b.ctl.SetReadDeadline(time.Time{})
		}
		return n, err
	case err != nil && b.stop.Load():
		return n, b.fail(errStopped)
	case err != nil && b.window > 0 && errors.Is(err, os.ErrDeadlineExceeded):
		return n, b.fail(faultSlow())
	case err != nil:
		b.fail(err)
		if b.onGone != nil {
			b.onGone()
		}
		return n, err
	}
	if b.window > 0 {
		b.waited += b.clock.Now().Sub(before)
		if b.waited >= b.window {
			if float64(total-b.started) < float64(b.rate)*b.waited.Seconds() {
				return 0, b.fail(faultSlow())
			}
			b.started, b.waited = total, 0
		}
	}
	return n, nil
}

// halt lets a reader in another goroutine return with errStopped, now. It may be called at any time
// until the handler has returned and does nothing once all of the body was read.
func (b *clientBody) halt() {
	if b.end.Load() {
		return
	}
	b.stop.Store(true)
	b.interrupt()
}

// hurry gives the client little time to send the rest of a body that nobody wants any more.
func (b *clientBody) hurry() {
	if !b.end.Load() {
		b.ctl.SetReadDeadline(time.Now().Add(2 * time.Second))
	}
}

func (b *clientBody) interrupt() { b.ctl.SetReadDeadline(longAgo) }

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

// untouched reports whether nothing was read yet.
func (b *clientBody) untouched() bool { return b.n.Load() == 0 && !b.stop.Load() }

func faultSlow() *rewrite.Fault {
	return fault(http.StatusRequestTimeout, typeSlowBody, "the request's body arrived too slowly; send it faster or in smaller requests", nil)
}

package ingest

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// Clock is where the time comes from and goes. Tests inject one that does not wait.
type Clock interface {
	Now() time.Time
	// After returns a channel on which one value arrives after d.
	After(d time.Duration) <-chan time.Time
}

type systemClock struct{}

func (systemClock) Now() time.Time                         { return time.Now() }
func (systemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// Retry bounds how long failing requests are repeated. Zero fields have the defaults named.
type Retry struct {
	Initial    time.Duration // first wait, then growing by half; default 500 ms. Each wait is spread by ± 50 %.
	Max        time.Duration // longest wait of our own choice; default 60 s. A Retry-After may be longer.
	MaxElapsed time.Duration // all waits together without any progress; default 15 min
	MaxTries   int           // tries without any progress; default 20
}

func (r Retry) withDefaults() Retry {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&r.Initial, backoff.DefaultInitialInterval)
	def(&r.Max, backoff.DefaultMaxInterval)
	def(&r.MaxElapsed, backoff.DefaultMaxElapsedTime)
	if r.MaxTries <= 0 {
		r.MaxTries = 20
	}
	return r
}

// retrier waits between tries. It takes its intervals from the backoff library but not its loop:
// that one measures time by the wall clock only, and it cannot tell progress from standstill.
type retrier struct {
	clock  Clock
	limits Retry
	policy *backoff.ExponentialBackOff
	tries  int
	waited time.Duration
}

func newRetrier(clock Clock, limits Retry) *retrier {
	r := &retrier{clock: clock, limits: limits, policy: backoff.NewExponentialBackOff()}
	r.policy.InitialInterval, r.policy.MaxInterval = limits.Initial, limits.Max
	r.progress()
	return r
}

// progress starts the counts anew.
func (r *retrier) progress() {
	r.policy.Reset()
	r.tries, r.waited = 0, 0
}

// wait waits before the next try after cause, at least as long as the server asked. It returns
// cause, wrapped, when no more tries are left, and the context's error when that ends first.
func (r *retrier) wait(ctx context.Context, retryAfter time.Duration, cause error) error {
	r.tries++
	if r.tries >= r.limits.MaxTries {
		return fmt.Errorf("gave up after %d tries: %w", r.tries, cause)
	}
	d := max(r.policy.NextBackOff(), retryAfter)
	if r.waited+d > r.limits.MaxElapsed {
		return fmt.Errorf("gave up after %d tries, the next wait of %s would be over the limit: %w", r.tries, d.Round(time.Second), cause)
	}
	r.waited += d
	return sleep(ctx, r.clock, d)
}

func sleep(ctx context.Context, clock Clock, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-clock.After(d):
		return context.Cause(ctx) // both may have come at once
	}
}

// retryAfter reads the header of RFC 9110, section 10.2.3: seconds or a date. 0 is none.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if s, err := strconv.Atoi(v); err == nil {
		return time.Duration(min(max(s, 0), 1<<30)) * time.Second
	}
	if t, err := http.ParseTime(v); err == nil {
		return max(t.Sub(now), 0)
	}
	return 0
}

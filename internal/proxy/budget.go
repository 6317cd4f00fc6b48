package proxy

import (
	"context"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Budget is a weighted limit on the memory that bodies of all requests use together.
// It fulfils rewrite.Budget and is safe for concurrent use.
type Budget struct {
	size int64
	wait time.Duration
	sem  *semaphore.Weighted
	used atomic.Int64
	late atomic.Int64 // waits that were too long
}

// NewBudget returns a budget of size bytes, in which a request waits at most wait for its share.
func NewBudget(size int64, wait time.Duration) *Budget {
	return &Budget{size: size, wait: wait, sem: semaphore.NewWeighted(size)}
}

// Acquire waits until n bytes are free. The error is a 429 fault when that took too long, a 413 fault when
// n is more than the whole budget, and ctx's own when ctx ended.
func (b *Budget) Acquire(ctx context.Context, n int64) error {
	if n > b.size {
		return faultTooLarge("one document needs more memory than the proxy may use for all bodies; send a smaller one or raise ESPROXY_MEMORY")
	}
	if !b.sem.TryAcquire(n) {
		waitCtx, cancel := context.WithTimeout(ctx, b.wait)
		defer cancel()
		if err := b.sem.Acquire(waitCtx, n); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			b.late.Add(1)
			return faultBusy()
		}
	}
	b.used.Add(n)
	return nil
}

// TryAcquire reports whether n bytes were free, and takes them if so.
func (b *Budget) TryAcquire(n int64) bool {
	if !b.sem.TryAcquire(n) {
		return false
	}
	b.used.Add(n)
	return true
}

// Release gives n bytes back that were acquired.
func (b *Budget) Release(n int64) {
	if n == 0 {
		return
	}
	b.used.Add(-n)
	b.sem.Release(n)
}

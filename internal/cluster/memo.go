package cluster

import (
	"context"
	"sync"
	"time"
)

// memo keeps a bounded number of answers for a while. The zero value is ready.
type memo[T any] struct {
	mu sync.Mutex
	m  map[string]kept[T]
}

type kept[T any] struct {
	value T
	until time.Time
}

const memoSize = 4096

func (m *memo[T]) get(key string, now time.Time) (T, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k, ok := m.m[key]
	if !ok || !now.Before(k.until) {
		var zero T
		return zero, false
	}
	return k.value, true
}

func (m *memo[T]) put(key string, value T, until time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.m == nil {
		m.m = make(map[string]kept[T])
	}
	if _, ok := m.m[key]; !ok && len(m.m) >= memoSize {
		for k := range m.m { // any one makes room
			delete(m.m, k)
			break
		}
	}
	m.m[key] = kept[T]{value, until}
}

func (m *memo[T]) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.m)
}

// onceSet remembers a bounded number of warnings that were given.
type onceSet struct {
	mu sync.Mutex
	m  map[string]struct{}
}

// first reports whether s was not seen before.
func (o *onceSet) first(s string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.m[s]; ok {
		return false
	}
	if o.m == nil || len(o.m) >= memoSize {
		o.m = make(map[string]struct{})
	}
	o.m[s] = struct{}{}
	return true
}

// locks are mutexes by name that give up with a context. The zero value is ready.
type locks struct {
	mu sync.Mutex
	m  map[string]*lock
}

type lock struct {
	held  chan struct{} // capacity 1: full while held
	users int           // holders and waiters; guarded by locks.mu
}

// lock waits for the mutex of key. unlock must be called unless err is set.
func (l *locks) lock(ctx context.Context, key string) (unlock func(), err error) {
	l.mu.Lock()
	if l.m == nil {
		l.m = make(map[string]*lock)
	}
	k := l.m[key]
	if k == nil {
		k = &lock{held: make(chan struct{}, 1)}
		l.m[key] = k
	}
	k.users++
	l.mu.Unlock()
	leave := func() {
		l.mu.Lock()
		if k.users--; k.users == 0 {
			delete(l.m, key)
		}
		l.mu.Unlock()
	}
	select {
	case k.held <- struct{}{}:
		return func() { <-k.held; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, ctx.Err()
	}
}

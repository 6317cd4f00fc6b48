package cluster_test

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/esproxy/esproxy/internal/cluster"
)

// memory answers without a network, so that time can stand still around it.
type memory struct {
	index  atomic.Pointer[string] // what the alias "al" stands for
	broken atomic.Bool
}

func (m *memory) Do(_ context.Context, _, path string, _ []byte, _ int64) (int, []byte, error) {
	switch {
	case m.broken.Load():
		return 500, []byte(`{}`), nil
	case strings.HasPrefix(path, "/_alias"):
		other := map[string]string{"user": "plain", "plain": "user"}[*m.index.Load()]
		return 200, []byte(`{"` + *m.index.Load() + `":{"aliases":{"al":{}}},"` + other + `":{"aliases":{}}}`), nil
	}
	return 404, []byte(`{}`), nil
}

// What docs/design.md says of aliases that are moved around the proxy: the proxy knows of it after 30 seconds; while it can't
// read what the cluster holds, it goes by what it knew for 5 minutes and then refuses.
func TestViewIsReadEveryThirtySeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		plain, user := "plain", "user"
		m := &memory{}
		m.index.Store(&plain)
		c := cluster.New(cluster.Config{Own: m})
		defer c.Close()
		stands := func(at, index string) {
			t.Helper()
			r, err := c.Resolve(t.Context(), "al")
			if err != nil || !slices.Contains(r.Names, index) {
				t.Errorf("%s: %v %v, want %s", at, r.Names, err, index)
			}
		}
		stands("at first", "plain")
		m.index.Store(&user)
		time.Sleep(29 * time.Second)
		stands("before the timer", "plain")
		time.Sleep(2 * time.Second)
		stands("after the timer", "user")

		m.index.Store(&plain)
		c.Changed()
		stands("after a change through the proxy", "plain")

		m.broken.Store(true)
		m.index.Store(&user)
		time.Sleep(4 * time.Minute)
		stands("while the view can't be read", "plain")
		time.Sleep(90 * time.Second)
		_, err := c.Resolve(t.Context(), "al")
		wantFault(t, err, 503, cluster.FaultUnknown)
		m.broken.Store(false)
		stands("when it can be read again", "user")
	})
}

package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// A refresh that was under way when an alias was added must not hide it afterwards.
func TestChangeDuringRefresh(t *testing.T) {
	f := newFake(t)
	f.set("GET /_alias", 200, `{"plain":{"aliases":{}}}`)
	c := f.cluster(cluster.Config{})
	reading, added := make(chan struct{}), make(chan struct{})
	f.on("GET /_alias", func(string, string) (int, string) {
		close(reading)
		<-added
		return 200, `{"plain":{"aliases":{}}}` // as it was before the change
	})
	first := make(chan error, 1)
	go func() {
		_, err := c.Resolve(context.Background(), "plain")
		first <- err
	}()
	<-reading
	f.set("GET /_alias", 200, `{"plain":{"aliases":{"user":{}}}}`)
	c.Changed()
	close(added)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	r, err := c.Resolve(context.Background(), "plain")
	if err != nil || !slices.Contains(r.Names, "user") {
		t.Fatalf("%v %v", r.Names, err)
	}
}

// Many unknown names that come together cost one view, not one each.
func TestUnknownNamesShareAView(t *testing.T) {
	f := newFake(t)
	clk := newClock()
	c := f.cluster(cluster.Config{Now: clk.now})
	ctx := rewrite.AsOf(context.Background(), clk.now())
	clk.move(time.Millisecond)
	for i := range 50 {
		if _, err := c.Resolve(ctx, fmt.Sprintf("new-%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count("own GET /_alias"); n != 1 {
		t.Fatalf("%d views", n)
	}
	if n := f.count("own GET /_template"); n != 1 {
		t.Fatalf("%d looks at templates", n)
	}
	// A name that was known later needs a later view.
	if _, err := c.Resolve(rewrite.AsOf(context.Background(), clk.now()), "new-50"); err != nil {
		t.Fatal(err)
	}
	if n := f.count("own GET /_alias"); n != 2 {
		t.Fatalf("%d views", n)
	}
}

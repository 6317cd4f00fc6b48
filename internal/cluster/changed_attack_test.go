package cluster_test

import (
	"context"
	"slices"
	"testing"

	"github.com/esproxy/esproxy/internal/cluster"
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

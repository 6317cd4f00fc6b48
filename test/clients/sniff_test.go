package clients

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/elastic/go-elasticsearch/v8"
)

// TestSniffing: a client that learns the addresses of the nodes from the cluster connects to the proxy only, and goes around it when the proxy
// is told to pass addresses.
func TestSniffing(t *testing.T) {
	for setting, around := range map[string]bool{"rewrite": false, "pass": true} {
		t.Run(setting, func(t *testing.T) {
			p := start(t, "ESPROXY_DISCOVERY="+setting)
			own := strings.TrimPrefix(p.url, "http://")
			var mu sync.Mutex
			dialed := map[string]int{}
			es, err := elasticsearch.NewClient(elasticsearch.Config{
				Addresses: []string{p.url}, DiscoverNodesOnStart: true, DisableRetry: true,
				Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
					mu.Lock()
					dialed[addr]++
					mu.Unlock()
					if addr != own {
						return nil, errors.New("around the proxy")
					}
					return (&net.Dialer{}).DialContext(ctx, network, addr)
				}},
			})
			if err != nil {
				t.Fatal(err)
			}
			// The one at the start runs beside us; this one surely happened before what follows. Where addresses pass, the first may be
			// done, and then this one does not come through.
			if err := es.DiscoverNodes(); err != nil && !around {
				t.Fatal(err)
			}
			for range 5 {
				res, err := es.Cat.Indices(es.Cat.Indices.WithIndex(p.prefix + "*"))
				if around {
					if err == nil {
						res.Body.Close()
						t.Fatal("the client knows no other address; this test shows nothing")
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				res.Body.Close()
				if res.IsError() {
					t.Error(res.Status())
				}
				if err := es.DiscoverNodes(); err != nil {
					t.Error(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if got := len(dialed) > 1; got != around || dialed[own] == 0 {
				t.Errorf("the client connected to %v, the proxy is %s", dialed, own)
			}
		})
	}
}

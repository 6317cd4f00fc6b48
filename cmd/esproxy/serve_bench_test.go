package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/config"
	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/proxy"
)

// BenchmarkServe sends the usual requests through the whole proxy, in this process, to a node that stores nothing. It is what
// default.pgo, from which the compiler learns what is worth while, was made of:
//
//	go test -c -trimpath -o /tmp/esproxy.test ./cmd/esproxy
//	/tmp/esproxy.test -test.run '^$' -test.bench Serve -test.benchtime 5s -test.cpuprofile cmd/esproxy/default.pgo
func BenchmarkServe(b *testing.B) {
	for _, suite := range []envelope.Suite{envelope.GCM, envelope.EAX} {
		b.Run(suite.String(), func(b *testing.B) {
			key, err := envelope.GenerateKey()
			if err != nil {
				b.Fatal(err)
			}
			bulk := bulkOf(10_000)
			first := bulk[:bytes.Index(bulk, []byte("\n{\"index"))+1]
			engine := keyedEngine(b, key, suite)
			few, many := replyOf(b, engine, bulk, 3), replyOf(b, engine, bulk, 2000)
			node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("X-Elastic-Product", "Elasticsearch")
				w.Header().Set("Content-Type", "application/json")
				io.Copy(io.Discard, r.Body)
				switch {
				case r.URL.Query().Get("q") == "many":
					w.Write(many)
				case strings.HasSuffix(r.URL.Path, "/_search"):
					w.Write(few)
				case strings.HasSuffix(r.URL.Path, "/_bulk"):
					io.WriteString(w, `{"took":1,"errors":false,"items":[]}`)
				case r.URL.Path == "/":
					io.WriteString(w, `{"version":{"number":"8.19.8","build_flavor":"default"},"tagline":"You Know, for Search"}`)
				case strings.HasPrefix(r.URL.Path, "/_alias"):
					io.WriteString(w, `{"user":{"aliases":{}},"free":{"aliases":{}}}`)
				case strings.HasPrefix(r.URL.Path, "/_resolve/index/"):
					io.WriteString(w, `{"indices":[{"name":"user","attributes":["open"]},{"name":"free","attributes":["open"]}],"aliases":[],"data_streams":[]}`)
				case strings.HasSuffix(r.URL.Path, "/_mapping"):
					io.WriteString(w, `{"user":{"mappings":{}}}`)
				default:
					w.WriteHeader(http.StatusNotFound)
					io.WriteString(w, `{"error":{"type":"not_found","reason":"not served here"},"status":404}`)
				}
			}))
			defer node.Close()
			addr, token := serveFor(b, map[string]string{
				"MASTER_KEY": key, "ELASTICSEARCH_URL": node.URL, "ESPROXY_SUITE": suite.String(), "ESPROXY_LISTEN": "127.0.0.1:0",
				"ESPROXY_ADMIN_LISTEN": "127.0.0.1:0", "ESPROXY_FIELDS": file(b, "fields.yaml", string(config.Fields)),
			})

			query := []byte(`{"query":{"bool":{"filter":[{"term":{"color_favorito":"azul"}},{"range":{"fec_alta":{"gte":"2021-01-01"}}}]}},"size":10}`)
			for _, r := range []struct {
				name, path string
				body       []byte
				token      string
			}{
				{"bulk", "/user/_bulk", bulk, ""},
				{"one document", "/user/_bulk", first, ""},
				{"free", "/free/_bulk", bulk, ""},
				{"search", "/user/_search", query, ""},
				{"opened", "/user/_search", query, token},
				{"2,000 hits", "/user/_search?q=many", query, token},
			} {
				b.Run(r.name, func(b *testing.B) {
					request := fmt.Appendf(nil, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n", r.path, addr, len(r.body))
					if r.token != "" {
						request = fmt.Appendf(request, "X-Esproxy-Authorization: Bearer %s\r\n", r.token)
					}
					request = append(append(request, "\r\n"...), r.body...)
					c, err := net.Dial("tcp", addr)
					if err != nil {
						b.Fatal(err)
					}
					defer c.Close()
					replies := bufio.NewReaderSize(c, 64<<10)
					ask := func(to io.Writer) {
						go c.Write(request)
						resp, err := http.ReadResponse(replies, nil)
						if err != nil {
							b.Fatal(err)
						}
						if _, err := io.Copy(to, resp.Body); err != nil || resp.StatusCode != 200 {
							b.Fatalf("status %d, %v", resp.StatusCode, err)
						}
					}
					var reply bytes.Buffer
					ask(&reply)
					if bytes.Contains(reply.Bytes(), []byte("6767-2293-4172-5169")) != (r.token != "") {
						b.Fatal("the reply is not opened for a token, or it is without one")
					}
					for b.Loop() {
						ask(io.Discard)
					}
				})
			}
		})
	}
}

// serveFor runs the proxy until the test ends and gives its address, and a token that opens everything.
func serveFor(t testing.TB, env map[string]string) (addr, token string) {
	settingsEnv(t, env)
	var out bytes.Buffer
	if code := run(t.Context(), []string{"token", "--grant", "full", "--for", "benchmark"}, environ{strings.NewReader(""), &out, io.Discard}); code != 0 {
		t.Fatalf("token ended with status %d", code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	quiet := environ{strings.NewReader(""), io.Discard, io.Discard}
	cmd := newServe(quiet)
	listens, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		ended <- serve(ctx, quiet, func() (*settings, error) { return loadSettings(cmd) }, func(s *proxy.Server, _ *core) { listens <- s.Addr().String() })
	}()
	select {
	case addr = <-listens:
	case err := <-ended:
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return addr, strings.TrimSpace(out.String())
}

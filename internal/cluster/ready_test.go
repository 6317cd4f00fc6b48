package cluster_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/tidwall/gjson"
)

const sealedMapping = `{"type":"keyword","index":false,"doc_values":false,"ignore_above":2147483647}`

// demoKeys reads tokens "esp1.<id>.…".
func demoKeys(token []byte) (string, bool) {
	id, _, ok := strings.Cut(strings.TrimPrefix(string(token), "esp1."), ".")
	return id, ok
}

// creating makes the fake create the index on PUT, seen in later views.
func (f *fake) creating(name string, allow func(auth string) bool) (body *string) {
	body = new(string)
	var mu sync.Mutex
	f.on("PUT /"+name, func(auth, b string) (int, string) {
		mu.Lock()
		defer mu.Unlock()
		if !allow(auth) {
			return 403, `{"error":{"type":"security_exception"}}`
		}
		if *body != "" {
			return 400, `{"error":{"type":"resource_already_exists_exception"}}`
		}
		*body = b
		f.set("GET /_alias", 200, `{"`+name+`":{"aliases":{}}}`)
		f.set("GET /"+name+"/_mapping", 200, `{"`+name+`":`+b+`}`)
		f.set("POST /"+name+"/_search", 200, `{}`)
		return 200, `{"acknowledged":true}`
	})
	f.set("PUT /"+name+"/_mapping", 200, `{"acknowledged":true}`)
	return body
}

func anyone(string) bool { return true }

func TestReadyCreatesOnceAndCostsNothingAfter(t *testing.T) {
	f := newFake(t)
	c := f.cluster(cluster.Config{KeyID: demoKeys})
	body := f.creating("user", anyone)
	rules := ruleOf("card", "pay.pan")
	var wg sync.WaitGroup
	for range 30 {
		wg.Go(func() {
			if err := c.Ready(context.Background(), f.caller(), "user", rules); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := gjson.Get(*body, "mappings.properties.pay.properties.pan").Raw; got != sealedMapping {
		t.Errorf("created with %s", *body)
	}
	for what, want := range map[string]int{"alice PUT /user": 1, "own PUT /user/_mapping": 0, "own GET /user/_mapping": 1, "own POST /user/_search": 1} {
		if n := f.count(what); n != want {
			t.Errorf("%s: %d times, want %d", what, n, want)
		}
	}
	f.take()
	caller := f.caller()
	if n := testing.AllocsPerRun(100, func() { _ = c.Ready(context.Background(), caller, "user", rules) }); n > 0 {
		t.Errorf("%v allocations when cached", n)
	}
	if a := f.take(); len(a) != 0 {
		t.Errorf("asked %q when cached", a)
	}
	// Other rules, and an index that was deleted and made again, are looked at again.
	if err := c.Ready(t.Context(), caller, "user", ruleOf("other")); err != nil {
		t.Fatal(err)
	}
	if n := f.count("own GET /user/_mapping"); n != 1 {
		t.Errorf("other rules: %d", n)
	}
	f.set("GET /_all/_settings/index.uuid", 200, `{"user":{"settings":{"index":{"uuid":"second"}}}}`)
	f.take()
	_, _ = c.Resolve(t.Context(), "unknown") // refreshes
	if err := c.Ready(t.Context(), caller, "user", rules); err != nil {
		t.Fatal(err)
	}
	if n := f.count("own GET /user/_mapping"); n != 1 {
		t.Errorf("made again: %d", n)
	}
}

func TestReadyWhoCreates(t *testing.T) {
	notAlice := func(auth string) bool { return auth != "alice" }
	t.Run("own for auto_configure", func(t *testing.T) {
		f := newFake(t)
		f.creating("user", notAlice)
		f.on("POST /_security/user/_has_privileges", func(auth, _ string) (int, string) {
			if auth == "own" {
				return 200, `{"has_all_requested":true}`
			}
			return 200, `{"has_all_requested":false,"index":{"user":{"auto_configure":true,"create_index":false}}}`
		})
		c := f.cluster(cluster.Config{})
		if err := c.Ready(t.Context(), f.caller(), "user", ruleOf("card")); err != nil {
			t.Fatal(err)
		}
		if f.count("alice PUT /user") != 1 || f.count("own PUT /user") != 1 {
			t.Errorf("asked %q", f.take())
		}
	})
	for name, spoil := range map[string]func(*fake){
		"caller may not": func(f *fake) {
			f.on("POST /_security/user/_has_privileges", func(auth, _ string) (int, string) {
				return 200, `{"has_all_requested":true,"index":{"user":{"auto_configure":false,"create_index":false}}}`
			})
		},
		"no word on it": func(*fake) {},
		"setting forbids": func(f *fake) {
			f.set("GET /_cluster/settings", 200, `{"persistent":{"action":{"auto_create_index":"-user*,+*"}},"defaults":{}}`)
		},
		"template forbids": func(f *fake) {
			f.set("GET /_index_template", 200, `{"index_templates":[{"index_template":{"index_patterns":["us*"],"allow_auto_create":false}}]}`)
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			f.creating("user", notAlice)
			spoil(f)
			c := f.cluster(cluster.Config{})
			if err := c.Ready(t.Context(), f.caller(), "user", ruleOf("card")); err != nil {
				t.Fatal(err)
			}
			if n := f.count("own PUT /user"); n != 0 {
				t.Errorf("the proxy's own credentials made an index that the caller could not")
			}
			// The next caller is not held to this one's lack of privileges.
			tried := f.count("alice PUT /user")
			f.creating("user", anyone)
			if err := c.Ready(t.Context(), f.caller(), "user", ruleOf("card")); err != nil {
				t.Fatal(err)
			}
			if n := f.count("alice PUT /user"); n != 2*tried {
				t.Errorf("tried %d times by the first and the next one, want %d", n, 2*tried)
			}
		})
	}
}

func TestReadyDataStream(t *testing.T) {
	f := newFake(t)
	f.set("POST /_index_template/_simulate_index/logs", 200, `{"template":{"mappings":{"_data_stream_timestamp":{"enabled":true}}}}`)
	const backing = ".ds-logs-2026.11.24-000001"
	f.on("PUT /_data_stream/logs", func(string, string) (int, string) {
		f.set("GET /_data_stream", 200, `{"data_streams":[{"name":"logs","indices":[{"index_name":"`+backing+`"}]}]}`)
		f.set("GET /"+backing+"/_mapping", 200, `{"`+backing+`":{"mappings":{"_data_stream_timestamp":{"enabled":true},"properties":{"@timestamp":{"type":"date"}}}}}`)
		return 200, `{}`
	})
	var put string
	f.on("PUT /"+backing+"/_mapping", func(auth, body string) (int, string) { put = auth + body; return 200, `{}` })
	c := f.cluster(cluster.Config{})
	if err := c.Ready(t.Context(), f.caller(), "logs", ruleOf("card")); err != nil {
		t.Fatal(err)
	}
	if put != `own{"properties":{"card":`+sealedMapping+`}}` {
		t.Errorf("put %s (asked %q)", put, f.take())
	}
	// A rollover is a new target.
	f.set("GET /_data_stream", 200, `{"data_streams":[{"name":"logs","indices":[{"index_name":"`+backing+`"},{"index_name":".ds-logs-2026.11.25-000002"}]}]}`)
	f.set("GET /.ds-logs-2026.11.25-000002/_mapping", 200, `{"x":{"mappings":{}}}`)
	rolled := false
	f.on("PUT /.ds-logs-2026.11.25-000002/_mapping", func(string, string) (int, string) { rolled = true; return 200, `{}` })
	c.Changed()
	if err := c.Ready(t.Context(), f.caller(), "logs", ruleOf("card")); err != nil || !rolled {
		t.Errorf("after a rollover: %v, put %v", err, rolled)
	}
}

func TestReadyMappings(t *testing.T) {
	for _, tc := range []struct {
		name, mapping string
		fields        []string
		put           string // "" for none
		warn          []string
	}{
		{"fits", `{"properties":{"card":` + sealedMapping + `}}`, []string{"card"}, ``, nil},
		{"conflict", `{"properties":{"card":{"type":"keyword"},"b":{"type":"text"}}}`, []string{"card", "b"}, ``, []string{"field=card", "index and doc_values", "field=b", "as text", "reindex"}},
		{"9.x form", `{"properties":{"card":{"type":"keyword","index":false,"doc_values":{"enabled":false}}}}`, []string{"card"},
			`{"properties":{"card":{"type":"keyword","index":false,"doc_values":{"enabled":false},"ignore_above":2147483647}}}`, nil},
		{"ignore_above", `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"ignore_above":256,"store":true}}}`, []string{"card"},
			`{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"ignore_above":2147483647,"store":true}}}`, []string{"stores or indexes it once more"}},
		{"nested", `{"properties":{"n":{"type":"nested","properties":{"o":{"properties":{}}}}}}`, []string{"n.o.p"},
			`{"properties":{"n":{"properties":{"o":{"properties":{"p":` + sealedMapping + `}}},"type":"nested"}}}`, nil},
		{"flattened", `{"properties":{"f":{"type":"flattened","index":false}}}`, []string{"f.x"}, ``, []string{"flattened", "32,766"}},
		{"flattened well", `{"properties":{"f":{"type":"flattened","index":false,"doc_values":false}}}`, []string{"f.x"}, ``, nil},
		{"disabled", `{"properties":{"f":{"type":"object","enabled":false}}}`, []string{"f.x"}, ``, nil},
		{"leaf parent", `{"properties":{"f":{"type":"long"}}}`, []string{"f.x"}, ``, []string{"parent f", "long"}},
		{"object leaf", `{"properties":{"f":{"properties":{"x":{"type":"long"}}}}}`, []string{"f"}, ``, []string{"as an object"}},
		{"runtime", `{"runtime":{"a.b":{"type":"keyword"}}}`, []string{"a.b"}, `{"properties":{"a":{"properties":{"b":` + sealedMapping + `}}}}`, []string{"runtime field"}},
		{"subobjects", `{"subobjects":false}`, []string{"a.b"}, `{"properties":{"a.b":` + sealedMapping + `},"subobjects":false}`, nil},
		{"passthrough", `{"properties":{"p":{"type":"passthrough","priority":10}}}`, []string{"p.x"}, `{"properties":{"p":{"priority":10,"properties":{"x":` + sealedMapping + `},"type":"passthrough"}}}`, nil},
		{"synthetic", `{"_source":{"mode":"synthetic"},"properties":{"n":{"type":"nested","properties":{"x":` + sealedMapping + `}}}}`, []string{"n.x"}, ``, []string{"synthetic", "parallel arrays"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			var logs logBuffer
			f.set("GET /_alias", 200, `{"i":{"aliases":{}}}`)
			f.set("GET /i/_mapping", 200, `{"i":{"mappings":`+tc.mapping+`}}`)
			put := ""
			f.on("PUT /i/_mapping", func(auth, body string) (int, string) {
				put = body
				if auth != "own" {
					t.Errorf("put by %s", auth)
				}
				return 200, `{}`
			})
			c := f.cluster(cluster.Config{Log: logs.logger()})
			if err := c.Ready(t.Context(), f.caller(), "i", ruleOf(tc.fields...)); err != nil {
				t.Fatal(err)
			}
			if put != tc.put {
				t.Errorf("put\n%s, want\n%s", put, tc.put)
			}
			l := logs.String()
			for _, w := range tc.warn {
				if !strings.Contains(l, w) {
					t.Errorf("no %q in %s", w, l)
				}
			}
			if len(tc.warn) == 0 && l != "" {
				t.Errorf("logged %s", l)
			}
			c.Changed()
			if err := c.Ready(t.Context(), f.caller(), "i", ruleOf(tc.fields...)); err != nil || logs.String() != l {
				t.Errorf("a warning came twice, or %v", err)
			}
		})
	}
}

func TestReadyGoesOnWithoutPrivileges(t *testing.T) {
	for _, status := range []int{401, 403} {
		f := newFake(t)
		var logs logBuffer
		f.set("GET /_alias", 200, `{"i":{"aliases":{}},"j":{"aliases":{}}}`)
		for _, i := range []string{"i", "j"} {
			f.set("GET /"+i+"/_mapping", 200, `{"`+i+`":{"mappings":{}}}`)
			f.set("PUT /"+i+"/_mapping", status, `{"error":{"type":"security_exception"}}`)
		}
		c := f.cluster(cluster.Config{Log: logs.logger()})
		for _, i := range []string{"i", "j", "i"} {
			if err := c.Ready(t.Context(), f.caller(), i, ruleOf("card")); err != nil {
				t.Fatal(err)
			}
		}
		if l := logs.String(); strings.Count(l, "WARN") != 1 || !strings.Contains(l, "ELASTICSEARCH_USERNAME") || !strings.Contains(l, "manage") {
			t.Errorf("%d: logged %s", status, l)
		}
	}
}

func TestReadyFailures(t *testing.T) {
	for key, reply := range map[string]string{"GET /i/_mapping": `{}`, "PUT /i/_mapping": `{}`, "POST /i/_search": `{}`} {
		for _, status := range []int{429, 500, 503} {
			f := newFake(t)
			f.set("GET /_alias", 200, `{"i":{"aliases":{}}}`)
			f.set("GET /i/_mapping", 200, `{"i":{"mappings":{}}}`)
			f.set("PUT /i/_mapping", 200, `{}`)
			f.set(key, status, reply)
			c := f.cluster(cluster.Config{KeyID: demoKeys})
			err := c.Ready(t.Context(), f.caller(), "i", ruleOf("card"))
			wantFault(t, err, 503, cluster.FaultUnknown)
			f.set("GET /i/_mapping", 200, `{"i":{"mappings":{}}}`)
			f.set("PUT /i/_mapping", 200, `{}`)
			f.set("POST /i/_search", 200, `{}`)
			if err := c.Ready(t.Context(), f.caller(), "i", ruleOf("card")); err != nil {
				t.Errorf("%s %d: a failure was kept: %v", key, status, err)
			}
		}
	}
}

func TestWrongKey(t *testing.T) {
	f := newFake(t)
	clk := newClock()
	f.set("GET /_alias", 200, `{"i":{"aliases":{}}}`)
	f.set("GET /i/_mapping", 200, `{"i":{"mappings":{"properties":{"card":`+sealedMapping+`}}}}`)
	f.on("POST /i/_search", func(_, body string) (int, string) {
		if gjson.Get(body, "_source").Raw != `["card"]` || gjson.Get(body, "size").Int() != 50 {
			t.Errorf("asked with %s", body)
		}
		return 200, `{"hits":{"hits":[{"_source":{"card":"plain"}},{"_source":{"card":["esp1.old1.x","esp1.old2.y","esp1.none"]}}]}}`
	})
	c := f.cluster(cluster.Config{Now: clk.now, KeyID: demoKeys, LoadedKeys: []string{"new1", "new2"}})
	rules := ruleOf("card")
	for range 3 {
		wantFault(t, c.Ready(t.Context(), f.caller(), "i", rules), 503, cluster.FaultWrongKey, "old1, old2", "new1, new2", "[i]", "MASTER_KEY")
	}
	if n := f.count("own POST /i/_search"); n != 1 {
		t.Errorf("read %d times", n)
	}
	clk.move(cluster.KeepRefusal)
	f.set("POST /i/_search", 200, `{"hits":{"hits":[{"_source":{"card":"esp1.old1.x"}},{"_source":{"card":"esp1.new2.x"}}]}}`)
	if err := c.Ready(t.Context(), f.caller(), "i", rules); err != nil {
		t.Errorf("after the stored values changed: %v", err)
	}
}

func TestSampleByCaller(t *testing.T) {
	f := newFake(t)
	f.set("GET /_alias", 200, `{"i":{"aliases":{}}}`)
	f.set("GET /i/_mapping", 200, `{"i":{"mappings":{"properties":{"card":`+sealedMapping+`}}}}`)
	f.on("POST /i/_search", func(auth, _ string) (int, string) {
		if auth == "own" {
			return 403, `{}`
		}
		return 200, `{"hits":{"hits":[{"_source":{"card":"esp1.old.x"}}]}}`
	})
	c := f.cluster(cluster.Config{KeyID: demoKeys, LoadedKeys: []string{"new"}})
	wantFault(t, c.Ready(t.Context(), f.caller(), "i", ruleOf("card")), 503, cluster.FaultWrongKey, "old")
}

// Long documents are read in smaller numbers, so that the check stays in bounded memory.
func TestSampleOfLongDocuments(t *testing.T) {
	f := newFake(t)
	f.set("GET /_alias", 200, `{"i":{"aliases":{}}}`)
	f.set("GET /i/_mapping", 200, `{"i":{"mappings":{"properties":{"card":`+sealedMapping+`}}}}`)
	f.shrink = 1 << 10
	var sizes []int64
	f.on("POST /i/_search", func(_, body string) (int, string) {
		size := gjson.Get(body, "size").Int()
		sizes = append(sizes, size)
		doc := `{"_source":{"card":"esp1.old.` + strings.Repeat("x", 5<<10) + `"}}`
		return 200, `{"hits":{"hits":[` + strings.TrimSuffix(strings.Repeat(doc+",", min(int(size), 4)), ",") + `]}}`
	})
	c := f.cluster(cluster.Config{KeyID: demoKeys, LoadedKeys: []string{"new"}})
	wantFault(t, c.Ready(t.Context(), f.caller(), "i", ruleOf("card")), 503, cluster.FaultWrongKey, "old")
	if !slices.Equal(sizes, []int64{50, 5, 1}) {
		t.Errorf("asked for %d", sizes)
	}
}

const checkPolicy = `version: 1
rules:
  - name: users
    indices: ["user*", "logs"]
    fields:
      card: {mode: encrypt}
`

func TestCheckKeys(t *testing.T) {
	p, err := policy.Parse("fields.yaml", []byte(checkPolicy))
	if err != nil {
		t.Fatal(err)
	}
	f, c := someCluster(t, cluster.Config{KeyID: demoKeys, LoadedKeys: []string{"new"}, Policy: func() *policy.Policy { return p }})
	f.set("POST /user-1/_search", 200, `{"hits":{"hits":[{"_source":{"card":"esp1.new.x"}}]}}`)
	f.set("POST /user-2/_search", 200, `{}`)
	f.set("POST /logs/_search", 200, `{"hits":{"hits":[{"_source":{"card":"esp1.new.x"}}]}}`)
	if err := c.CheckKeys(t.Context()); err != nil {
		t.Fatal(err)
	}
	asked := strings.Join(f.take(), "\n")
	if strings.Contains(asked, "lone/_search") || strings.Contains(asked, "kibana") || strings.Contains(asked, ".ds-") || strings.Count(asked, "_search") != 3 {
		t.Errorf("asked %s", asked)
	}
	f.set("POST /logs/_search", 200, `{"hits":{"hits":[{"_source":{"card":"esp1.old.x"}}]}}`)
	f.set("POST /user-2/_search", 200, `{"hits":{"hits":[{"_source":{"card":"esp1.old.x"}}]}}`)
	wantFault(t, c.CheckKeys(t.Context()), 503, cluster.FaultWrongKey, "[logs]", "old", "new", "other targets")
	// An index that does not answer hides no wrong key of another.
	f.set("POST /user-2/_search", 503, `{}`)
	wantFault(t, c.CheckKeys(t.Context()), 503, cluster.FaultWrongKey, "[logs]")
	f.set("POST /logs/_search", 200, `{}`)
	wantFault(t, c.CheckKeys(t.Context()), 503, cluster.FaultUnknown)
	f.srv.Close()
	wantFault(t, c.CheckKeys(t.Context()), 503, cluster.FaultUnknown)
}

func TestReadyGivesUpWithItsRequest(t *testing.T) {
	f := newFake(t)
	f.set("GET /_alias", 200, `{"i":{"aliases":{}}}`)
	held, goOn := make(chan struct{}), make(chan struct{})
	f.on("GET /i/_mapping", func(string, string) (int, string) {
		held <- struct{}{}
		<-goOn
		return 200, `{"i":{"mappings":{}}}`
	})
	f.set("PUT /i/_mapping", 200, `{}`)
	c := f.cluster(cluster.Config{})
	done := make(chan error)
	go func() { done <- c.Ready(context.Background(), f.caller(), "i", ruleOf("card")) }()
	<-held
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := c.Ready(ctx, f.caller(), "i", ruleOf("card")) // waits for the first
	wantFault(t, err, 503, cluster.FaultUnknown)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("cause of %v", err)
	}
	close(goOn)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestMaxContentLength(t *testing.T) {
	f := newFake(t)
	clk := newClock()
	c := f.cluster(cluster.Config{Now: clk.now})
	f.set("GET /_nodes/http", 403, `{}`)
	check := func(want int64) {
		t.Helper()
		if got := c.MaxContentLength(t.Context()); got != want {
			t.Errorf("got %d, want %d", got, want)
		}
	}
	check(104857600)
	f.set("GET /_nodes/http", 200, `{"nodes":{"a":{"http":{"max_content_length_in_bytes":2000}},"b":{"http":{"max_content_length_in_bytes":1000}},"c":{}}}`)
	check(104857600)
	clk.move(30 * time.Second)
	check(1000)
	f.set("GET /_nodes/http", 200, `junk`)
	clk.move(9 * time.Minute)
	check(1000)
	clk.move(time.Minute)
	check(104857600)
}

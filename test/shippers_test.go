package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/tidwall/gjson"
)

// TestShippersStart replays what shippers ask before their first bulk.
func TestShippersStart(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/1", `{"username":"Ana","credit_card_num":"1"}`), 201) // something to protect
	replay(t, s, readTraffic(t, "shippers_start.txt"))
}

// shipper is how one program sends bulks and what it looks for in replies.
type shipper struct {
	name, path string // path with %s for the index
	action     string
	named      bool // the action line names the index
	gzip       bool
	header     http.Header
	// ok and bad are texts that the shipper looks for in a reply without and with errors, without parsing it.
	ok, bad string
}

var shippers = []shipper{
	{name: "Filebeat", path: "/_bulk?filter_path=errors%%2Citems.%%2A.error%%2Citems.%%2A.status", action: "create", named: true, gzip: true,
		header: http.Header{"Content-Type": {"application/json; charset=UTF-8"}, "Accept": {"application/json"}, "User-Agent": {"Elastic-filebeat/8.19.8"}, "X-Elastic-Product-Origin": {"beats"}}},
	{name: "Filebeat with a data stream", path: "/_bulk?filter_path=errors%%2Citems.%%2A.error%%2Citems.%%2A.status&require_data_stream=false", action: "create", named: true, gzip: true,
		header: http.Header{"Content-Type": {"application/vnd.elasticsearch+x-ndjson; compatible-with=8"}, "Accept": {"application/vnd.elasticsearch+json; compatible-with=8"}}},
	{name: "Logstash", path: "/_bulk?filter_path=errors,items.*.error,items.*.status", action: "index", named: true, gzip: true,
		header: http.Header{"Content-Type": {"application/json"}, "Connection": {"Keep-Alive"}, "X-Elastic-Product-Origin": {"logstash-output-elasticsearch"}}},
	{name: "Fluent Bit", path: "/_bulk", action: "create", named: true, ok: `"errors":false`, bad: `"status":409`,
		header: http.Header{"Content-Type": {"application/x-ndjson"}, "User-Agent": {"Fluent-Bit"}}},
	{name: "Fluent Bit, packed", path: "/_bulk/?filter_path=errors,items.*.error,items.*.status", action: "index", named: true, gzip: true, ok: `"errors":false`,
		header: http.Header{"Content-Type": {"application/x-ndjson"}, "User-Agent": {"Fluent-Bit"}}},
	{name: "Vector", path: "/_bulk?timeout=60s", action: "index", named: true, gzip: true, bad: `"errors":true`,
		header: http.Header{"Content-Type": {"application/x-ndjson"}, "Accept-Encoding": {"zstd,gzip,deflate,br"}, "User-Agent": {"Vector/0.50.0"}}},
	{name: "Fluentd", path: "/%s/_bulk", action: "index", bad: `"errors":true`,
		header: http.Header{"Content-Type": {"application/vnd.elasticsearch+x-ndjson; compatible-with=8"}, "Accept": {"application/vnd.elasticsearch+json; compatible-with=8"}, "Connection": {"keep-alive"}, "Keep-Alive": {"30"}}},
	{name: "rsyslog", path: "/_bulk?timeout=1m", action: "create", named: true,
		header: http.Header{"Content-Type": {"application/json; charset=utf-8"}, "Expect": {"100-continue"}}},
}

func (sh shipper) bulk(s *stack, index, query string, docs ...[2]string) answer {
	var b strings.Builder
	for _, d := range docs {
		name := ""
		if sh.named {
			name = fmt.Sprintf(`"_index":%q,`, index)
		}
		fmt.Fprintf(&b, `{%q:{%s"_id":%q}}`+"\n%s\n", sh.action, name, d[0], d[1])
	}
	header, body := sh.header.Clone(), b.String()
	if sh.gzip {
		header.Set("Content-Encoding", "gzip")
		body = string(gzipped(body))
	}
	path := strings.ReplaceAll(sh.path, "%%", "%")
	if strings.Contains(path, "%s") {
		path = strings.ReplaceAll(path, "%s", index)
	}
	if query != "" && strings.Contains(path, "?") {
		query = "&" + query[1:]
	}
	a := s.send(request{method: "POST", path: path + query, header: header, body: strings.NewReader(body)})
	if a.header.Get("Content-Encoding") == "gzip" {
		a.body = gunzipped(s.t, a.body)
	}
	return a
}

// statuses reads a bulk's reply as shippers do: one entry for each item, in order, each with one member.
func statuses(t *testing.T, a answer) (list []int, kinds []string) {
	t.Helper()
	var r struct {
		Errors *bool
		Items  []map[string]struct {
			Status int
			Error  *struct{ Type, Reason string }
		}
	}
	if err := json.Unmarshal([]byte(a.body), &r); err != nil || r.Errors == nil {
		t.Fatalf("the reply cannot be read: %v\n%s", err, tail(a.body, 1000))
	}
	for _, item := range r.Items {
		if len(item) != 1 {
			t.Fatalf("an item of %d members: %s", len(item), tail(a.body, 1000))
		}
		for _, v := range item {
			kind := ""
			if v.Error != nil {
				if kind = v.Error.Type; v.Error.Reason == "" {
					t.Errorf("an error without a reason: %s", tail(a.body, 1000))
				}
			}
			list, kinds = append(list, v.Status), append(kinds, kind)
		}
	}
	if *r.Errors != slices.ContainsFunc(kinds, func(k string) bool { return k != "" }) {
		t.Errorf("errors is %v: %s", *r.Errors, tail(a.body, 1000))
	}
	return list, kinds
}

// TestShippers sends bulks as each shipper does, to a protected and to an unprotected index: all well, with an item that the server
// refuses, and with one that the proxy refuses.
func TestShippers(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	for _, sh := range shippers {
		for _, index := range []string{"user", "free"} {
			t.Run(sh.name+" "+index, func(t *testing.T) {
				target := s.prefix + index
				id := func(i int) string { return fmt.Sprintf("%s-%d", strings.ReplaceAll(sh.name, " ", ""), i) }
				doc := func(i int) [2]string {
					return [2]string{id(i), fmt.Sprintf(`{"@timestamp":"2025-01-01T00:00:00.000Z","username":"u%d","message":"m","credit_card_num":"canary-%d"}`, i, i)}
				}
				from := s.rec.count()
				a := s.must(sh.bulk(s, target, "?refresh=true", doc(1), doc(2)), 200)
				if list, _ := statuses(t, a); !slices.Equal(list, []int{201, 201}) || !strings.Contains(a.body, sh.ok) {
					t.Errorf("all well: %v, %s", list, a.body)
				}
				wantBad := 400 // the document has no subject
				if index == "free" {
					wantBad = 201
				}
				// A duplicate (or one more version), a document that the server cannot take, a new one, and one that the proxy refuses where values are protected.
				a = s.must(sh.bulk(s, target, "?refresh=true", doc(1), [2]string{id(8), `{"@timestamp":"never","username":"u"}`}, [2]string{id(9), `{"credit_card_num":"canary-9"}`}, doc(3)), 200)
				want := []int{200, 400, wantBad, 201}
				if sh.action == "create" {
					want[0] = 409
				}
				list, kinds := statuses(t, a)
				if !slices.Equal(list, want) || !strings.Contains(a.body, sh.bad) {
					t.Errorf("with errors: %v, want %v, %s", list, want, a.body)
				}
				if wantBad == 400 && !strings.HasPrefix(kinds[2], "esproxy_") {
					t.Errorf("errors %q", kinds)
				}
				if index == "user" {
					if text := s.rec.leaks(from, "canary-"); text != "" || strings.Contains(a.body, "canary") {
						t.Errorf("plaintext: %s%s", text, a.body)
					}
				}
				for i := 1; i <= 3; i++ {
					got := s.must(s.as("full", "GET", "/"+target+"/_doc/"+id(i), ""), 200).json("_source.credit_card_num").String()
					if got != fmt.Sprintf("canary-%d", i) {
						t.Errorf("document %d reads %q", i, got)
					}
				}
			})
		}
	}
}

// TestShippersRetry has the server refuse one item of each first bulk with 429, and one bulk as a whole. A shipper sends again what was refused so,
// and nothing else; in the end each document is there once, and the one that the proxy refuses was never tried again.
func TestShippersRetry(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	sh := shippers[0]
	var bulks atomic.Int32
	s.rec.mu.Lock()
	s.rec.before = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
		if !strings.Contains(r.URL.Path, "_bulk") {
			return false
		}
		switch bulks.Add(1) {
		case 1: // the whole request
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"error":{"root_cause":[],"type":"circuit_breaking_exception","reason":"[parent] Data too large","durability":"TRANSIENT"},"status":429}`)
			return true
		case 2: // its second item
			lines := strings.Split(strings.TrimSpace(string(body)), "\n")
			items := make([]string, len(lines)/2)
			for i := range items {
				items[i] = `{"create":{"status":201}}`
				if i == 1 {
					items[i] = `{"create":{"status":429,"error":{"type":"es_rejected_execution_exception","reason":"rejected execution of primary operation"}}}`
					lines = slices.Delete(lines, 2, 4)
				}
			}
			res, err := http.Post(s.server+"/_bulk?refresh=true", "application/x-ndjson", strings.NewReader(strings.Join(lines, "\n")+"\n"))
			if err != nil {
				return false
			}
			res.Body.Close()
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"errors":true,"took":3,"items":[%s]}`, strings.Join(items, ","))
			return true
		}
		return false
	}
	s.rec.mu.Unlock()
	target := s.prefix + "user"
	var pending [][2]string
	for i := range 5 {
		pending = append(pending, [2]string{fmt.Sprint(i), fmt.Sprintf(`{"username":"u%d","credit_card_num":"canary-%d"}`, i, i)})
	}
	pending[2][1] = `{"credit_card_num":"canary-2"}` // without a subject
	var dropped []string
	rounds := 0
	for ; len(pending) > 0 && rounds < 10; rounds++ {
		a := sh.bulk(s, target, "", pending...)
		if a.status == http.StatusTooManyRequests {
			if a.header.Get("Retry-After") != "1" || gjson.Get(a.body, "error.type").String() != "circuit_breaking_exception" {
				t.Errorf("429 reads %v %s", a.header, a.body)
			}
			continue
		}
		s.must(a, 200)
		list, kinds := statuses(t, a)
		if len(list) != len(pending) {
			t.Fatalf("%d items for %d documents: %s", len(list), len(pending), a.body)
		}
		var again [][2]string
		for i, status := range list {
			switch {
			case status == http.StatusTooManyRequests:
				again = append(again, pending[i])
			case status >= 300:
				dropped = append(dropped, pending[i][0]+" "+kinds[i])
			}
		}
		pending = again
	}
	if rounds != 3 || !slices.Equal(dropped, []string{"2 esproxy_subject"}) {
		t.Errorf("%d rounds, dropped %q", rounds, dropped)
	}
	docs := s.must(s.as("full", "POST", "/$Puser/_mget", `{"ids":["0","1","2","3","4"]}`), 200).json("docs.#._source.credit_card_num").Raw
	if docs != `["canary-0","canary-1","canary-3","canary-4"]` {
		t.Errorf("stored: %s", docs)
	}
	if text := s.rec.leaks(0, "canary"); text != "" {
		t.Errorf("plaintext went upstream: %s", tail(text, 500))
	}
}

// TestShippersDataStream ships into a data stream, which OpenSearch has.
func TestShippersDataStream(t *testing.T) {
	server := needOpenSearch(t)
	t.Parallel()
	s := start(t, config{server: server})
	s.must(s.do("PUT", "/_index_template/$Puser-logs", `{"index_patterns":["$Puser-logs*"],"data_stream":{},"priority":500,"template":{"settings":{"number_of_replicas":0}}}`), 200)
	t.Cleanup(func() {
		s.direct("DELETE", "/_data_stream/$Puser-logs*", "")
		s.direct("DELETE", "/_index_template/$Puser-logs", "")
	})
	target := s.prefix + "user-logs-app"
	for _, sh := range shippers {
		if strings.Contains(sh.header.Get("Content-Type")+sh.path, "vnd.elasticsearch") || strings.Contains(sh.path, "require_data_stream") {
			continue // not spoken by OpenSearch
		}
		t.Run(sh.name, func(t *testing.T) {
			id := strings.ReplaceAll(sh.name, " ", "")
			good := fmt.Sprintf(`{"@timestamp":"2025-01-01T00:00:00.000Z","username":"u","credit_card_num":"canary-%s"}`, id)
			a := s.must(sh.bulk(s, target, "?refresh=true", [2]string{id + "1", good}, [2]string{id + "2", `{"username":"u","credit_card_num":"canary"}`}, [2]string{id + "3", `{"@timestamp":"2025-01-01T00:00:00.000Z","credit_card_num":"canary"}`}), 200)
			want := []int{201, 400, 400} // no time, no subject
			if sh.action == "index" {
				want[0] = 400 // a data stream takes only create
			}
			if list, _ := statuses(t, a); !slices.Equal(list, want) {
				t.Errorf("%v, want %v: %s", list, want, a.body)
			}
			hits := s.must(s.as("full", "POST", "/"+target+"/_search", `{"query":{"ids":{"values":["`+id+`1"]}}}`), 200).json("hits.hits.#._source.credit_card_num").Raw
			if sh.action == "create" && hits != `["canary-`+id+`"]` {
				t.Errorf("stored: %s", hits)
			}
		})
	}
	if text := s.rec.leaks(0, "canary"); text != "" {
		t.Errorf("plaintext went upstream: %s", tail(text, 500))
	}
}

package test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/tidwall/gjson"
)

// readForms ask for documents, values and everything that is made of them, in the ways that each API has. $I is the index.
var readForms = makeReadForms()

func makeReadForms() map[string][]string {
	search := []string{
		`{}`, `{"query":{"match_all":{}},"version":true,"seq_no_primary_term":true,"explain":true}`,
		`{"_source":["credit*","payment.*"],"fields":["*"],"docvalue_fields":["username"],"stored_fields":["_source"]}`,
		`{"_source":false,"fields":["credit_card_num","payment.cards.pan",{"field":"cuenta_numero"}]}`,
		`{"size":0,"aggs":{"a":{"terms":{"field":"credit_card_num"}},"t":{"top_hits":{"size":5}},"m":{"missing":{"field":"cuenta_numero"}},"n":{"filter":{"exists":{"field":"username"}},"aggs":{"t":{"top_hits":{"_source":true}}}}}}`,
		`{"collapse":{"field":"username","inner_hits":{"name":"i","size":3}}}`,
		`{"highlight":{"fields":{"*":{"require_field_match":false}}},"query":{"query_string":{"query":"*"}}}`,
		`{"script_fields":{"s":{"script":{"source":"params._source.credit_card_num"}},"p":{"script":{"source":"params['_source']['payment']"}}}}`,
		`{"runtime_mappings":{"r":{"type":"keyword","script":{"source":"emit(params._source.credit_card_num)"}}},"fields":["r"],"aggs":{"r":{"terms":{"field":"r"}}}}`,
		`{"sort":[{"username":"asc"}],"search_after":["A"]}`, `{"profile":true}`, `{"query":{"bool":{"filter":{"exists":{"field":"credit_card_num"}}}},"rescore":{"query":{"rescore_query":{"match_all":{}}}}}`,
		`{"aggs":{"s":{"scripted_metric":{"init_script":"state.l=[]","map_script":"state.l.add(params._source)","combine_script":"state.l","reduce_script":"states"}}}}`,
		`{"sort":[{"credit_card_num":"desc"}]}`, `{"aggs":{"a":{"max":{"field":"credit_card_num"}}}}`, // the server refuses these, with a reason
	}
	lines := func(of []string) (out []string) {
		for _, s := range of {
			out = append(out, `{"index":"$I"}`+nl+s+nl)
		}
		return out
	}
	mget := []string{`{"docs":[{"_index":"$I","_id":"kept"},{"_index":"$I","_id":"r0","_source":["credit*"]},{"_index":"$I","_id":"r1","stored_fields":["credit_card_num"]}]}`}
	query := []string{``, `{"query":{"match_all":{}}}`}
	return map[string][]string{
		"search": search, "async_search.submit": search[:8], "msearch": lines(search), "fleet.search": search[:3], "fleet.msearch": lines(search[:3]),
		"mget": mget, "count": query, "cat.count": query, "indices.validate_query": query, "explain": {`{"query":{"match_all":{}}}`},
		"get": {``}, "get_source": {``}, "scroll": {`{"scroll":"1m","scroll_id":"$S"}`}, "open_point_in_time": {``},
		"termvectors": {`{"fields":["credit_card_num","username"],"term_statistics":true}`, `{"doc":{"username":"Ana"}}`}, "mtermvectors": {`{"docs":[{"_index":"$I","_id":"kept","fields":["*"]}]}`},
		"terms_enum": {`{"field":"username"}`, `{"field":"credit_card_num"}`}, "field_caps": {`{"fields":["*"]}`, `{}`},
		"search_template": {`{"source":{"query":{"match_all":{}}}}`}, "msearch_template": lines([]string{`{"source":{"query":{"match_all":{}}}}`}), "render_search_template": {`{"source":{"query":{"match_all":{}}}}`},
		"rank_eval":     {`{"requests":[{"id":"a","request":{"query":{"match_all":{}}},"ratings":[{"_index":"$I","_id":"kept","rating":1}]}],"metric":{"precision":{}}}`},
		"graph.explore": {`{"vertices":[{"field":"username"}]}`, `{"vertices":[{"field":"credit_card_num"}]}`},
		"sql.query":     {`{"query":"SELECT * FROM \"$I\""}`}, "sql.translate": {`{"query":"SELECT * FROM \"$I\""}`},
		"esql.query": {`{"query":"FROM $I | LIMIT 10"}`, `{"query":"FROM $I METADATA _source | LIMIT 10"}`}, "esql.async_query": {`{"query":"FROM $I | LIMIT 10"}`}, "eql.search": {`{"query":"any where true"}`},
		"search_mvt": {``}, "knn_search": {`{"knn":{"field":"v","query_vector":[1],"k":1,"num_candidates":2}}`},
		"ingest.simulate":             {`{"pipeline":{"processors":[{"set":{"field":"a","value":"1"}}]},"docs":[{"_index":"$I","_source":{"username":"Ana"}}]}`},
		"scripts_painless_execute":    {`{"script":{"source":"1"}}`},
		"transform.preview_transform": {`{"source":{"index":"$I"},"latest":{"unique_key":["username"],"sort":"n"}}`},
	}
}

// stockUp stores documents with values at protected paths through the proxy and gives the values.
func stockUp(s *stack) {
	s.t.Helper()
	for i := range 4 {
		v := func(k int) string { return value(canaryHead, int64(10*i+k)) }
		s.must(s.do("PUT", fmt.Sprintf("/$Puser/_doc/r%d?refresh=true", i), fmt.Sprintf(
			`{"username":"Ana","n":%d,"credit_card_num":%q,"credit_card_ccv":%s,"cuenta_numero":{"a":%q},"payment":{"cards":[{"pan":%q},{"pan":[%s]}]},"city":"here"}`, i, v(0), v(1), v(2), v(3), v(4))), 201)
	}
	s.must(s.do("PUT", "/$Puser/_doc/kept?refresh=true", `{"username":"Ana","n":9,"credit_card_num":"`+value(canaryHead, 99)+`"}`), 201)
	s.must(s.do("PUT", "/$Pnote/_doc/1?refresh=true", `{"secret":{"text":"`+value(canaryHead, 98)+`"},"mail":"`+value(canaryHead, 97)+`"}`), 201)
	s.must(s.do("POST", "/_aliases", `{"actions":[{"add":{"index":"$Puser","alias":"$Palias"}}]}`), 200)
}

// inReply gives what of a reply holds a value, or "".
func inReply(a answer) string {
	var head bytes.Buffer
	a.header.Write(&head)
	for _, in := range append(readingsOf(head.Bytes(), 0), readingsOf([]byte(a.body), 2)...) {
		if _, ok := find(in, canaryHead, canaryMarks); ok {
			return tail(string(in), 400)
		}
	}
	return ""
}

// nearMisses are headers that are almost a grant. Each must be refused.
func nearMisses(t *testing.T, s *stack) [][]string {
	t.Helper()
	const name = "X-Esproxy-Authorization: "
	mint := func(env []string, args ...string) string {
		out, errs, code := s.commandEnv("", env, append([]string{"token", "--grant", "full", "--for", "near"}, args...)...)
		if code != 0 {
			t.Fatalf("token: %s", errs)
		}
		return strings.TrimSpace(out)
	}
	good := s.token("full")
	revoked := mint(nil, "--ttl", "1h")
	_, claims, _ := strings.Cut(revoked, ".")
	claims, _, _ = strings.Cut(claims, ".")
	raw, _ := base64.RawURLEncoding.DecodeString(claims)
	id := gjson.GetBytes(raw, "id").String()
	text, err := os.ReadFile(s.fields)
	if err != nil || id == "" {
		t.Fatalf("no policy or no id of a token: %v", err)
	}
	s.writePolicy(string(text) + "\ntokens: {revoked: [" + id + "]}\n")
	s.stop()
	s.run()
	short := mint(nil, "--ttl", "1s")
	waitFor(t, "a token that expires", func() bool {
		return s.send(request{method: "GET", path: "/", header: http.Header{"X-Esproxy-Authorization": {"Bearer " + short}}}).status == 403
	})
	return [][]string{
		{name + "Bearer " + revoked}, {name + "Bearer " + short}, {name + "Bearer " + mint([]string{"ESPROXY_AUDIENCE=another"}, "--ttl", "1h")}, {name + "Bearer " + mint([]string{"MASTER_KEY=" + otherKey}, "--ttl", "1h")},
		{name + "Bearer " + good, name + "Bearer " + good}, {name + "Bearer " + good, "x-esproxy-authorization: x"}, {name + "Bearer " + good + ", Bearer " + good}, {name + "Bearer " + good + ","},
		{"Authorization: Bearer " + good}, {name + "Bearer " + good, "Authorization: Bearer " + good}, {name + "Bearer " + strings.ToLower(good)}, {name + "Bearer " + good[:len(good)-1]}, {name + "Bearer " + good + "A"},
		{name + "Bearer " + good + "\u00a0"}, {name + "Bearer  " + good}, {name + good}, {name + "Basic " + good}, {name + "Token " + good}, {name + "MasterKey " + masterKey}, {name + "MasterKey " + good}, {name + "Bearer"}, {name},
		{name + "Bearer " + short, "Connection: X-Esproxy-Authorization"}, {name + "Bearer esq" + good[3:]}, {"Authorization: Bearer " + masterKey},
	}
}

// TestWalkWithoutGrant reads by every row, without a grant and with headers that are nearly one, and looks for plaintext in replies, in the
// proxy's log and in its metrics. A header that is nearly a grant is refused and its request goes nowhere.
func TestWalkWithoutGrant(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	misses := nearMisses(t, s)
	stockUp(s)
	if a := s.as("full", "GET", "/$Puser/_doc/r1", ""); inReply(a) == "" {
		t.Fatalf("a grant shows nothing, so the walk could not see anything: %d %s", a.status, a.body)
	}
	rows := tableRows(t)
	jobs := make(chan int)
	var mu sync.Mutex
	var replies, opened int
	fail := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		if opened++; opened < 40 {
			t.Errorf(format, args...)
		}
	}
	var done sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		done.Go(func() {
			w := newWire(t, s)
			defer w.close()
			for i := range jobs {
				r := rows[i]
				bodies, reads := readForms[strings.TrimPrefix(r.api, "compat7.")]
				if !reads {
					bodies = []string{""}
				}
				if reads || r.method == "GET" || r.method == "HEAD" {
					for j, body := range bodies {
						target := r.target(i + j)
						if strings.HasPrefix(target, "*") || target == "_all" || target == "$P%2a" { // other tests' indices stay out of it
							target = "$P*"
						}
						v := visit{row: r, path: strings.ReplaceAll(r.path(target), "/kept", fmt.Sprintf("/r%d", j%4)), body: strings.ReplaceAll(body, "$I", bodyTarget(target))}
						if body != "" {
							v.header = []string{typeOf(strings.HasSuffix(body, nl))}
						}
						a := w.send(&v)
						if in := inReply(a); in != "" {
							fail("%s %s without a grant shows a value: %s", r, body, in)
						}
						mu.Lock()
						replies++
						mu.Unlock()
					}
				}
				for j, miss := range misses {
					if raced && (i+j)%5 != 0 {
						continue
					}
					v := visit{row: r, path: r.path("$Puser"), body: bodies[0], header: append([]string{"X-Opaque-Id: near-miss"}, miss...)}
					if v.body != "" {
						v.body, v.header = strings.ReplaceAll(v.body, "$I", "$Puser"), append([]string{typeOf(strings.HasSuffix(v.body, nl))}, v.header...)
					}
					a := w.send(&v)
					if in := inReply(a); in != "" {
						fail("%s with near miss %d shows a value: %s", r, j, in)
					}
					if a.err != nil || a.status != 403 || r.method != "HEAD" && a.json("error.type").String() != "esproxy_bad_grant" {
						fail("%s with near miss %d: status %d, %v, %s", r, j, a.status, a.err, tail(a.body, 300))
					}
				}
			}
		})
	}
	for i := range rows {
		jobs <- i
	}
	close(jobs)
	done.Wait()
	for _, r := range s.rec.since(0) {
		if r.header.Get("X-Opaque-Id") == "near-miss" {
			fail("a request with a bad grant went upstream: %s %s", r.method, r.target)
		}
	}
	var metrics bytes.Buffer
	res, err := http.Get(s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if _, err := metrics.ReadFrom(res.Body); err != nil || metrics.Len() == 0 {
		t.Errorf("no metrics: %v", err)
	}
	for what, text := range map[string]string{"the log": s.log.String(), "the metrics": metrics.String()} {
		if _, ok := find([]byte(text), canaryHead, canaryMarks); ok {
			t.Errorf("%s holds a value", what)
		}
		if strings.Contains(text, s.token("full")) || strings.Contains(text, masterKey) {
			t.Errorf("%s holds a token or a key", what)
		}
	}
	t.Logf("%d replies without a grant, %d kinds of near misses for each of %d rows", replies, len(misses), len(rows))
}

// bodyTarget gives the name that a path's target has in a body.
func bodyTarget(target string) string {
	if name, ok := bodyTargets[target]; ok {
		return name
	}
	return target
}

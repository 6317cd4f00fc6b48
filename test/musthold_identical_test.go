package test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// plainRequests is traffic that touches no protected index: method, path, headers after blanks as Name=value, and body. $X stands for the
// prefix of the indices, $S for the scroll id of the last reply that had one, $T for its point in time.
var plainRequests = []struct{ line, body string }{
	{"GET /", ""},
	{"HEAD /", ""},
	{"PUT /$Xone", `{"settings":{"number_of_shards":1,"number_of_replicas":0},"mappings":{"properties":{"name":{"type":"keyword"},"n":{"type":"long"},"when":{"type":"date"},"text":{"type":"text"}}}}`},
	{"PUT /$Xone", `{}`},
	{"PUT /$XBAD", ``},
	{"PUT /$Xtwo", ``},
	{"HEAD /$Xone", ""},
	{"HEAD /$Xnone", ""},
	{"GET /$Xone/_mapping", ""},
	{"GET /$Xone/_mapping?pretty", ""},
	{"GET /$Xnone/_mapping", ""},
	{"PUT /$Xone/_mapping", `{"properties":{"more":{"type":"keyword"}}}`},
	{"PUT /$Xone/_mapping", `{"properties":{"n":{"type":"text"}}}`},
	{"PUT /$Xone/_doc/1?refresh=true", `{"name":"a","n":1.0E+5,"credit_card_num":"free","text":"one \ud83d\ude00 \/ two"}`},
	{"PUT /$Xone/_doc/1?refresh=true", `{ "name" : "a" , "n" : 1, "when":"2024-01-01" }`},
	{"PUT /$Xone/_create/1", `{"name":"b"}`},
	{"PUT /$Xone/_create/2?refresh=true", `{"name":"b","n":2}`},
	{"PUT /$Xone/_doc/3?op_type=create&refresh=wait_for", `{"name":"c","n":3,"esproxy_x":"esp1.free"}`},
	{"PUT /$Xone/_doc/4", `{"n":"no number"}`},
	{"PUT /$Xone/_doc/4", `{"n":`},
	{"PUT /$Xone/_doc/4", `{"a":1,"a":2}`},
	{"PUT /$Xone/_doc/4", `[1]`},
	{"PUT /$Xone/_doc/4", ``},
	{"PUT /$Xone/_doc/4 Content-Type=text/plain", `{"n":4}`},
	{"PUT /$Xone/_doc/4 Content-Type=none", `{"n":4}`},
	{"PUT /$Xone/_doc/4?wat=1", `{"n":4}`},
	{"PUT /$Xone/_doc/5?if_seq_no=77&if_primary_term=1", `{"n":5}`},
	{"PUT /$Xone/_doc/%C3%A9%2F+x?refresh=true", `{"name":"é","n":6}`},
	{"GET /$Xone/_doc/%C3%A9%2F+x", ""},
	{"GET /$Xone/_doc/1", ""},
	{"GET /$Xone/_doc/1?pretty", ""},
	{"GET /$Xone/_doc/1?pretty&human", ""},
	{"GET /$Xone/_doc/1?_source=name", ""},
	{"GET /$Xone/_doc/1?filter_path=_source.name,_id", ""},
	{"GET /$Xone/_doc/1?format=yaml", ""},
	{"GET /$Xone/_doc/1 Accept=application/yaml", ""},
	{"GET /$Xone/_doc/1 Accept=application/cbor", ""},
	{"GET /$Xone/_doc/1 Accept=application/vnd.elasticsearch+json;compatible-with=8", ""},
	{"GET /$Xone/_doc/1 Accept-Encoding=gzip", ""},
	{"GET /$Xone/_doc/1 X-Opaque-Id=op-1", ""},
	{"GET /$Xone/_doc/nobody", ""},
	{"GET /$Xnone/_doc/1", ""},
	{"HEAD /$Xone/_doc/1", ""},
	{"HEAD /$Xone/_doc/nobody", ""},
	{"GET /$Xone/_source/1", ""},
	{"GET /$Xone/_source/nobody", ""},
	{"HEAD /$Xone/_source/1", ""},
	{"POST /$Xone/_update/1?refresh=true", `{"doc":{"n":7}}`},
	{"POST /$Xone/_update/1", `{"doc":{"n":7}}`},
	{"POST /$Xone/_update/1?_source=true", `{"doc":{"n":8},"detect_noop":false}`},
	{"POST /$Xone/_update/nobody", `{"doc":{"n":7}}`},
	{"POST /$Xone/_update/up?refresh=true", `{"doc":{"n":7},"doc_as_upsert":true}`},
	{"POST /$Xone/_update/1", `{"docs":{"n":7}}`},
	{"POST /_bulk?refresh=true Content-Type=application/x-ndjson", "{\"index\":{\"_index\":\"$Xtwo\",\"_id\":\"1\"}}\n{\"name\":\"x\",\"credit_card_num\": 1.50}\n\n{\"create\":{\"_index\":\"$Xtwo\",\"_id\":\"2\"}}\r\n{\"name\":\"y\"}\r\n{\"update\":{\"_index\":\"$Xtwo\",\"_id\":\"1\"}}\n{\"doc\":{\"a\":1}}\n{\"delete\":{\"_index\":\"$Xtwo\",\"_id\":\"9\"}}\n"},
	{"POST /$Xtwo/_bulk Content-Type=application/x-ndjson", "{\"index\":{\"_id\":\"1\"}}\n{\"name\":}\n{\"create\":{\"_id\":\"2\"}}\n{\"name\":\"y\"}\n"},
	{"POST /$Xtwo/_bulk?filter_path=errors,items.*.error,items.*.status Content-Type=application/x-ndjson", "{\"create\":{\"_id\":\"2\"}}\n{\"name\":\"y\"}\n{\"index\":{\"_id\":\"3\"}}\n{\"name\":\"z\"}\n"},
	{"POST /$Xtwo/_bulk?pretty Content-Type=application/x-ndjson", "{\"index\":{\"_id\":\"3\"}}\n{\"name\":\"z\"}\n"},
	{"POST /$Xtwo/_bulk Content-Type=application/x-ndjson", "{\"index\":{\"_id\":\"3\"}}\n{\"name\":\"z\"}"},
	{"POST /$Xone,$Xtwo/_refresh", ""},
	{"POST /$Xone/_search", `{"query":{"match_all":{}},"sort":[{"n":"desc"}]}`},
	{"GET /$Xone/_search?q=name:a", ""},
	{"GET /$Xone/_search?size=1&sort=n:asc&pretty", ""},
	{"POST /$Xone/_search?filter_path=hits.total,hits.hits._source", `{"query":{"term":{"name":"b"}}}`},
	{"POST /$Xone/_search Accept-Encoding=gzip", `{"size":100,"query":{"exists":{"field":"n"}},"sort":["n"]}`},
	{"POST /$Xone/_search?rest_total_hits_as_int=true", `{"size":0}`},
	{"POST /$Xone/_search?typed_keys=true", `{"size":0,"aggs":{"names":{"terms":{"field":"name"}},"most":{"max":{"field":"n"}}}}`},
	{"POST /$Xone/_search", `{"size":0,"aggs":{"by":{"histogram":{"field":"n","interval":2},"aggs":{"top":{"top_hits":{"size":1}}}}}}`},
	{"POST /$Xone/_search", `{"query":{"match":{"text":"two"}},"highlight":{"fields":{"text":{}}}}`},
	{"POST /$Xone/_search", `{"query":{"wat":{}}}`},
	{"POST /$Xone/_search", `{"query":`},
	{"POST /$Xnone/_search", `{}`},
	{"POST /$Xone,$Xtwo/_search?ignore_unavailable=true", `{"size":3,"sort":["_doc"],"_source":["name"]}`},
	{"POST /$Xo*/_search", `{"query":{"ids":{"values":["1","2"]}},"sort":["n"]}`},
	{"POST /$Xone/_search?scroll=1m", `{"size":2,"sort":["n"]}`},
	{"POST /_search/scroll", `{"scroll":"1m","scroll_id":"$S"}`},
	{"DELETE /_search/scroll", `{"scroll_id":"$S"}`},
	{"POST /_search/scroll", `{"scroll":"1m","scroll_id":"bm9uZQ=="}`},
	{"POST /$Xone/_pit?keep_alive=1m", ""},
	{"POST /_search", `{"size":2,"pit":{"id":"$T"},"sort":["n"]}`},
	{"DELETE /_pit", `{"id":"$T"}`},
	{"POST /$Xone/_count", `{"query":{"range":{"n":{"gte":3}}}}`},
	{"GET /$Xone/_count", ""},
	{"POST /_mget", `{"docs":[{"_index":"$Xone","_id":"1"},{"_index":"$Xtwo","_id":"nobody"},{"_index":"$Xnone","_id":"1"}]}`},
	{"GET /$Xone/_mget", `{"ids":["1","2"]}`},
	{"POST /_msearch Content-Type=application/x-ndjson", "{\"index\":\"$Xone\"}\n{\"query\":{\"term\":{\"name\":\"a\"}}}\n{\"index\":\"$Xnone\"}\n{}\n"},
	{"POST /$Xone/_explain/1", `{"query":{"term":{"name":"a"}}}`},
	{"POST /$Xone/_field_caps?fields=*", ""},
	{"GET /$Xone/_termvectors/1?fields=text", ""},
	{"POST /$Xone/_validate/query", `{"query":{"term":{"name":"a"}}}`},
	{"POST /$Xone/_analyze", `{"field":"text","text":"One Two"}`},
	{"POST /_aliases", `{"actions":[{"add":{"index":"$Xone","alias":"$Xalias"}}]}`},
	{"GET /_alias/$Xalias", ""},
	{"GET /$Xone/_alias", ""},
	{"GET /$Xalias/_search?size=1&sort=n", ""},
	{"PUT /$Xalias/_doc/9?refresh=true", `{"n":9}`},
	{"GET /_cat/indices/$X*?h=index,docs.count,pri,rep&s=index", ""},
	{"GET /_cat/indices/$X*?v&h=index,pri&s=index", ""},
	{"GET /_cat/indices/$X*?format=json&h=index,pri&s=index", ""},
	{"GET /_cat/aliases/$X*?h=alias,index", ""},
	{"GET /_cat/count/$Xone?h=count", ""},
	{"GET /_cat", ""},
	{"PUT /_index_template/$Xt", `{"index_patterns":["$Xtt-*"],"template":{"mappings":{"properties":{"a":{"type":"keyword"}}}}}`},
	{"GET /_index_template/$Xt", ""},
	{"PUT /$Xtt-1/_doc/1", `{"a":"x"}`},
	{"GET /$Xtt-1/_mapping", ""},
	{"DELETE /_index_template/$Xt", ""},
	{"GET /_index_template/$Xnone", ""},
	{"GET /$Xone/_settings?filter_path=*.settings.index.number_of_shards", ""},
	{"PUT /$Xone/_settings", `{"index":{"refresh_interval":"5s"}}`},
	{"GET /_cluster/health/$Xone?filter_path=status,timed_out", ""},
	{"POST /$Xone/_delete_by_query?refresh=true", `{"query":{"term":{"name":"b"}}}`},
	{"POST /$Xone/_forcemerge", ""},
	{"POST /$Xone/_flush", ""},
	{"DELETE /$Xone/_doc/1", ""},
	{"DELETE /$Xone/_doc/1", ""},
	{"GET /_wat", ""},
	{"OPTIONS /$Xone/_doc/1", ""},
	{"DELETE /$Xtwo", ""},
	{"DELETE /$Xnone", ""},
}

// whole is a reply as it came, still packed.
type whole struct {
	Status int
	Header http.Header
	Coding []string // Transfer-Encoding
	Body   string
}

// headerStart is where a header begins in a request line.
var headerStart = regexp.MustCompile(` [A-Z][A-Za-z-]*=`)

// splitLine takes a request line apart. A header with the value "none" is one that is not sent.
func splitLine(line string) (method, path string, headers map[string]string) {
	headers = map[string]string{}
	method, path, _ = strings.Cut(line, " ")
	at := headerStart.FindAllStringIndex(path, -1)
	for i, m := range at {
		end := len(path)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		headers[path[m[0]+1:m[1]-1]] = path[m[1]:end]
	}
	if len(at) > 0 {
		path = path[:at[0][0]]
	}
	return method, path, headers
}

func fetch(t *testing.T, base, line, body string) whole {
	t.Helper()
	method, path, headers := splitLine(line)
	req, err := http.NewRequest(method, base, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if body == "" {
		req.Body, req.ContentLength = http.NoBody, 0
	} else {
		req.Header.Set("Content-Type", "application/json")
	}
	req.URL.Opaque = path
	for k, v := range headers {
		if req.Header[k] = []string{v}; v == "none" {
			delete(req.Header, k)
		}
	}
	res, err := passer.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return whole{res.StatusCode, res.Header, res.TransferEncoding, string(b)}
}

// volatile is what differs between two equal requests: times, and ids that the server makes up.
var volatile = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`("?(?:took|ingest_took)"?\s*:\s*)[0-9]+`), "${1}0"},
	{regexp.MustCompile(`("_scroll_id"\s*:\s*)"[^"]*"`), `$1""`},
	{regexp.MustCompile(`("(?:pit_)?id"\s*:\s*)"[A-Za-z0-9_=+/-]{30,}"`), `$1""`},
	{regexp.MustCompile(`("(?:index_)?uuid"\s*:\s*)"[^"]*"`), `$1""`},
	{regexp.MustCompile(`("created_date(?:_millis)?"\s*:\s*|"modified_date(?:_millis)?"\s*:\s*)("[^"]*"|[0-9]+)`), `$1""`},
	{regexp.MustCompile(`(\$X[a-z]+)/[A-Za-z0-9_-]{22}\]`), "$1]"},
	{regexp.MustCompile(`("timestamp"\s*:\s*)"20[0-9T:.-]+Z"`), `$1""`},
	{regexp.MustCompile(`No search context found for id \[[0-9]+\]`), ""},
	{regexp.MustCompile(`bm9uZQ==|\[[A-Za-z0-9_=-]{60,}\]`), ""},
}

// address is where a node answers, which becomes the proxy's own (docs/operations.md).
var address = regexp.MustCompile(`("publish_address"\s*:\s*)"[^"]*"`)

// steady makes replies of equal requests on the prefixes comparable.
func (w whole) steady(t *testing.T, line, prefix string) whole {
	t.Helper()
	if slices.Contains(w.Header["Content-Encoding"], "gzip") && w.Body != "" {
		z, err := gzip.NewReader(strings.NewReader(w.Body))
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		b, err := io.ReadAll(z)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		w.Body = string(b)
	}
	w.Header = maps.Clone(w.Header)
	delete(w.Header, "Date")
	delete(w.Header, "Took-Nanos")
	if !strings.HasPrefix(line, "HEAD") { // Go has checked it; it changes with what is volatile
		if v, ok := w.Header["Content-Length"]; ok {
			w.Header["Content-Length"] = []string{fmt.Sprint(len(v))}
		}
	}
	w.Body = strings.ReplaceAll(w.Body, prefix, "$X")
	for k, v := range w.Header {
		w.Header[k] = []string{strings.ReplaceAll(strings.Join(v, "\n"), prefix, "$X")}
	}
	w.Body = address.ReplaceAllString(w.Body, `$1""`)
	for _, v := range volatile {
		w.Body = v.re.ReplaceAllString(w.Body, v.to)
	}
	return w
}

// TestUnprotectedTrafficIsIdentical sends the same traffic to equal indices, directly and through the proxy: the replies must be
// the same, and what the proxy sends upstream must be what the client sent.
func TestUnprotectedTrafficIsIdentical(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/1", `{"username":"Ana","credit_card_num":"1"}`), 201) // something to protect
	list := make([]exchange, len(plainRequests))
	for i, r := range plainRequests {
		list[i] = exchange{line: r.line, body: r.body}
	}
	list = append(list, readTraffic(t, "unprotected.txt")...)
	packed := func(line, text string) exchange { return exchange{line: line, body: string(gzipped(text))} }
	list = append(list,
		exchange{line: "PUT /$Xpacked/_doc/1?refresh=true Content-Type=application/cbor", body: "\xa2\x61n\x09\x64name\x61a"},
		exchange{line: "PUT /$Xpacked/_doc/2?refresh=true Content-Type=application/smile", body: ":)\n\x00\xfa\x80n\xd2\xfb"},
		exchange{line: "POST /$Xpacked/_search Content-Type=application/cbor Accept=application/cbor", body: "\xa1\x64size\x00", changing: true},
		exchange{line: "GET /$Xpacked/_doc/1 Accept=application/smile"},
		exchange{line: "GET /$Xpacked/_doc/2"},
		exchange{line: "PUT /$Xpacked/_doc/3?refresh=true Content-Type=application/cbor", body: "\xa2\x61n"},
		packed("PUT /$Xpacked/_doc/4?refresh=true Content-Encoding=gzip", `{"n":4,"text":"`+strings.Repeat("long ", 400)+`"}`),
		packed("POST /$Xpacked/_bulk?refresh=true Content-Encoding=gzip Accept-Encoding=gzip Content-Type=application/x-ndjson", strings.Repeat(`{"index":{"_id":"5"}}`+"\n"+`{"n":5}`+"\n", 100)),
		packed("POST /$Xpacked/_search Content-Encoding=gzip Accept-Encoding=gzip", `{"query":{"match_all":{}},"sort":["n"]}`),
		packed("POST /$Xpacked/_count Content-Encoding=gzip", `{"query":{"wat":{}}}`),
		exchange{line: "GET /$Xpacked/_doc/4 Accept-Encoding=gzip,deflate,br"},
		exchange{line: "GET /$Xnone/_doc/4 Accept-Encoding=gzip"},
	)
	n := len(list) - replay(t, s, list)
	if realURL() != "" && n < 150 || n < 100 {
		t.Errorf("only %d requests", n)
	}
}

func took(w whole) whole {
	w.Header = maps.Clone(w.Header)
	delete(w.Header, "Date")
	delete(w.Header, "Took-Nanos")
	if slices.Contains(w.Header["Content-Encoding"], "gzip") {
		z, err := gzip.NewReader(strings.NewReader(w.Body))
		if err == nil {
			b, _ := io.ReadAll(z)
			w.Body = string(b)
		}
		delete(w.Header, "Content-Length")
	}
	if address.MatchString(w.Body) {
		delete(w.Header, "Content-Length")
		w.Body = address.ReplaceAllString(w.Body, `$1""`)
	}
	if volatile[0].re.MatchString(w.Body) || strings.Contains(w.Body, "took") {
		delete(w.Header, "Content-Length")
		w.Body = volatile[0].re.ReplaceAllString(w.Body, volatile[0].to)
	}
	return w
}

// sentAsItWas looks for the client's request among what the proxy sent.
func sentAsItWas(t *testing.T, s *stack, from int, line, body string) {
	t.Helper()
	method, path, headers := splitLine(line)
	for _, r := range s.rec.since(from) {
		if r.method != method || r.target != path || !bytes.Equal(r.body, []byte(body)) {
			continue
		}
		want := http.Header{}
		if body != "" {
			want["Content-Type"] = []string{"application/json"}
			want["Content-Length"] = []string{fmt.Sprint(len(body))}
		}
		for k, v := range headers {
			if v != "none" {
				want[k] = []string{v}
			} else {
				delete(want, k)
			}
		}
		delete(want, "Connection") // between the client and the proxy
		got := maps.Clone(r.header)
		if len(body) == 0 && slices.Equal(got["Content-Length"], []string{"0"}) {
			delete(got, "Content-Length")
		}
		if slices.Equal(got["User-Agent"], []string{"Go-http-client/1.1"}) {
			delete(got, "User-Agent") // this test's client has one
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: headers (-sent by the client +sent by the proxy)\n%s", line, diff)
		}
		return
	}
	t.Errorf("%s: the request did not go upstream as it was", line)
}

package test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const (
	anasCard = "6767-2293-4172-5169"
	anasDoc  = `{"username":"Ana","credit_card_num":"` + anasCard + `","color":"green"}`
)

// TestOpsNodes: requests go round the nodes; a dead one costs nobody anything, and one that dies in the middle only
// those whose requests it had begun to read.
func TestOpsNodes(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := ln.Addr().String()
	ln.Close()
	server := newServer(t)
	a, b := newRecorder(t, server), newRecorder(t, server)
	s := start(t, config{server: server, env: []string{"ELASTICSEARCH_URL=http://" + dead + "," + a.URL + "," + b.URL}})
	for i := range 20 {
		s.must(s.do("PUT", fmt.Sprintf("/$Puser/_doc/%d", i), anasDoc), 201)
	}
	if a.count() < 8 || b.count() < 8 {
		t.Errorf("one node got %d requests, the other %d", a.count(), b.count())
	}
	if up := s.metric(`esproxy_upstream_node_up{node="` + dead + `"}`); up != "0" {
		t.Errorf("the dead node counts as up: %s", up)
	}

	// A node dies with a write in its hands: nobody knows whether it took place, so it is not sent again.
	var died atomic.Bool
	b.mu.Lock()
	b.before = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.Method == "PUT" && died.CompareAndSwap(false, true) {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	b.mu.Unlock()
	for i := 0; !died.Load(); i++ {
		if i > 40 {
			t.Fatal("the node got no write")
		}
		n := a.count()
		got := s.do("PUT", fmt.Sprintf("/$Puser/_doc/lost-%d", i), anasDoc)
		if !died.Load() {
			s.must(got, 201)
			continue
		}
		if got.status != 502 || !strings.Contains(got.body, "not known") {
			t.Errorf("got %d %s", got.status, got.body)
		}
		for _, r := range a.since(n) {
			if r.method == "PUT" && strings.Contains(r.target, fmt.Sprintf("lost-%d", i)) {
				t.Error("the write was sent to the other node, too")
			}
		}
	}

	b.CloseClientConnections()
	b.Close()
	for i := range 40 {
		s.must(s.do("GET", fmt.Sprintf("/$Puser/_doc/%d", i%20), ""), 200)
	}
	for i := range 10 {
		s.must(s.do("PUT", fmt.Sprintf("/$Puser/_doc/after-%d", i), anasDoc), 201)
	}
	if a := s.adminGet("/readyz"); a.status != 200 {
		t.Errorf("not ready with one node left: %s", a.body)
	}
	a.CloseClientConnections()
	a.Close()
	if got := s.do("GET", "/$Puser/_doc/1", ""); got.status != 502 || !strings.HasPrefix(got.json("error.type").Str, "esproxy_") {
		t.Errorf("without a node: %d %s", got.status, got.body)
	}
}

func gzipped(text string) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.Bytes()
}

func gunzipped(t *testing.T, b string) string {
	t.Helper()
	r, err := gzip.NewReader(strings.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

// TestOpsGzip: compressed requests are sealed, compressed replies pass as they are without a grant, and are opened with one.
func TestOpsGzip(t *testing.T) {
	t.Parallel()
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("compress_opened=%v", compress), func(t *testing.T) {
			t.Parallel()
			s := start(t, config{env: []string{fmt.Sprintf("ESPROXY_COMPRESS_OPENED=%v", compress)}})
			// The embedded node does not compress its replies, and a real server short ones neither: this one does.
			s.rec.mu.Lock()
			s.rec.before = func(w http.ResponseWriter, r *http.Request, body []byte) bool {
				if r.Method != "GET" || r.Header.Get("Accept-Encoding") == "" || !strings.Contains(r.URL.Path, "user/") {
					return false
				}
				req, _ := http.NewRequest("GET", s.server+r.RequestURI, bytes.NewReader(body))
				res, err := passer.Do(req)
				if err != nil {
					panic(http.ErrAbortHandler)
				}
				defer res.Body.Close()
				text, _ := io.ReadAll(res.Body)
				w.Header().Set("Content-Type", res.Header.Get("Content-Type"))
				w.Header().Set("Content-Encoding", "gzip")
				w.Write(gzipped(string(text)))
				return true
			}
			s.rec.mu.Unlock()
			zipped := http.Header{"Content-Encoding": {"gzip"}, "Content-Type": {"application/x-ndjson"}}
			bulk := strings.ReplaceAll(`{"index":{"_index":"$Puser","_id":"1"}}`+"\n"+anasDoc+"\n", "$P", s.prefix)
			a := s.must(s.send(request{method: "POST", path: "/_bulk?refresh=true", header: zipped, body: bytes.NewReader(gzipped(bulk))}), 200)
			if a.json("errors").Bool() {
				t.Fatal(a.body)
			}
			for _, r := range s.rec.since(0) {
				text := r.String()
				if strings.Contains(r.header.Get("Content-Encoding"), "gzip") {
					text += gunzipped(t, string(r.body))
				}
				if strings.Contains(text, anasCard) {
					t.Errorf("plaintext went up: %s", text)
				}
			}
			stored := s.must(s.direct("GET", "/$Puser/_doc/1", ""), 200)
			if !strings.HasPrefix(stored.json("_source.credit_card_num").Str, "esp1.") {
				t.Fatalf("stored %s", stored.body)
			}

			accept := http.Header{"Accept-Encoding": {"gzip"}}
			plain := s.must(s.send(request{method: "GET", path: "/$Puser/_doc/1", header: accept}), 200)
			if plain.header.Get("Content-Encoding") != "gzip" || plain.body != string(gzipped(stored.body)) {
				t.Error("without a grant the compressed reply was changed")
			}
			opened := s.must(s.send(request{method: "GET", path: "/$Puser/_doc/1", header: accept, grant: "full"}), 200)
			if opened.header.Get("Cache-Control") != "no-store" {
				t.Errorf("header %v", opened.header)
			}
			text := opened.body
			if compress != (opened.header.Get("Content-Encoding") == "gzip") {
				t.Fatalf("header %v", opened.header)
			}
			if compress {
				text = gunzipped(t, text)
			}
			if !strings.Contains(text, `"_source":`+anasDoc) {
				t.Errorf("opened %s", text)
			}

			for name, body := range map[string][]byte{"no gzip": []byte(bulk), "cut": gzipped(bulk)[:30], "trailing": append(gzipped(bulk), "x"...)} {
				n := s.rec.count()
				a := s.send(request{method: "POST", path: "/_bulk", header: zipped, body: bytes.NewReader(body)})
				if a.status != 400 || !strings.HasPrefix(a.json("error.type").Str, "esproxy_") {
					t.Errorf("%s: %d %s", name, a.status, a.body)
				}
				if text := s.rec.leaks(n, anasCard); text != "" {
					t.Errorf("%s: plaintext went up: %s", name, text)
				}
			}
		})
	}
}

// TestOpsHead: HEAD has the head that the server gives and no body, refused ones included.
func TestOpsHead(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/1", anasDoc), 201)
	direct := s.send(request{method: "HEAD", path: "/$Puser/_doc/1", direct: true})
	plain := s.must(s.do("HEAD", "/$Puser/_doc/1", ""), 200)
	if plain.body != "" || plain.header.Get("Content-Length") != direct.header.Get("Content-Length") || plain.header.Get("Content-Type") != direct.header.Get("Content-Type") {
		t.Errorf("got %v, directly %v", plain.header, direct.header)
	}
	granted := s.must(s.as("full", "HEAD", "/$Puser/_doc/1", ""), 200)
	if v, ok := granted.header["Content-Length"]; ok {
		t.Errorf("HEAD with a grant has Content-Length %q, the length of the sealed form", v)
	}
	if granted.body != "" {
		t.Errorf("with a grant %q", granted.body)
	}
	s.must(s.do("HEAD", "/$Puser/_doc/missing", ""), 404)
	refused := s.do("HEAD", "/$Puser/_analyze", "")
	if refused.status != 403 || refused.body != "" {
		t.Errorf("refused: %d %q", refused.status, refused.body)
	}
	s.must(s.do("HEAD", "/$Puser", ""), 200)
}

// rawRequest sends text on a connection of its own and gives the reader of the answer.
func rawRequest(t *testing.T, s *stack, text string) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(conn, strings.ReplaceAll(text, "$P", s.prefix)); err != nil {
		t.Fatal(err)
	}
	return conn, bufio.NewReader(conn)
}

// TestOpsExpect: what the head alone decides is refused without asking for the body; else the body is asked for.
func TestOpsExpect(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	head := func(line, more string) string {
		return line + " HTTP/1.1\r\nHost: esproxy\r\nContent-Type: application/json\r\nExpect: 100-continue\r\nContent-Length: " + fmt.Sprint(len(anasDoc)) + "\r\n" + more + "\r\n"
	}
	for name, c := range map[string]struct {
		text   string
		status int
	}{
		"bad grant":        {head("PUT /$Puser/_doc/1", "X-Esproxy-Authorization: Bearer espt1.bad\r\n"), 403},
		"refused endpoint": {head("POST /_arrow/_bulk", ""), 403},
		"unknown endpoint": {head("POST /_nothing/of/that/kind", ""), 403},
		"content type":     {strings.Replace(head("PUT /$Puser/_doc/1", ""), "application/json", "application/cbor", 1), 406},
		"encoding":         {head("PUT /$Puser/_doc/1", "Content-Encoding: br\r\n"), 415},
		"body in the URL":  {head("PUT /$Puser/_doc/1?source=x", ""), 400},
		"too large":        {strings.Replace(head("PUT /$Puser/_doc/1", ""), fmt.Sprint("Content-Length: ", len(anasDoc)), "Content-Length: 99999999999", 1), 413},
	} {
		n := s.rec.count()
		_, r := rawRequest(t, s, c.text)
		line, err := r.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", c.status)) {
			t.Errorf("%s: got %q %v, want %d", name, line, err, c.status)
		}
		for _, r := range s.rec.since(n) {
			if strings.Contains(r.target, "_doc") || strings.Contains(r.target, "_analyze") || strings.Contains(r.target, "_nothing") {
				t.Errorf("%s: sent %s %s", name, r.method, r.target)
			}
		}
	}
	conn, r := rawRequest(t, s, head("PUT /$Puser/_doc/1", ""))
	line, err := r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "HTTP/1.1 100 ") {
		t.Fatalf("got %q %v, want 100", line, err)
	}
	r.ReadString('\n')
	io.WriteString(conn, anasDoc)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 201 {
		t.Fatalf("got %v %v", res, err)
	}
	res.Body.Close()
	if a := s.must(s.direct("GET", "/$Puser/_doc/1", ""), 200); !strings.HasPrefix(a.json("_source.credit_card_num").Str, "esp1.") {
		t.Errorf("stored %s", a.body)
	}
}

// A packed search of an index that no rule names goes up as it came only when nothing in it is for another index.
func TestPackedSearchesAreLookedInto(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/1", `{"username":"Ana","credit_card_num":"1"}`), 201)
	like := strings.ReplaceAll(`{"query":{"bool":{"should":[{"more_like_this":{"fields":["credit_card_num"],"like":{"_index":"$Puser","doc":{"credit_card_num":"c4n4ry"}}}},{"term":{"x":"FILL"}}]}}}`, "$P", s.prefix)
	var noise strings.Builder // packs badly
	for r := rand.New(rand.NewPCG(1, 2)); noise.Len() < 40<<10; {
		fmt.Fprintf(&noise, "%x", r.Uint64())
	}
	for _, fill := range []string{"", noise.String()} {
		from := s.rec.count()
		header := http.Header{"Content-Encoding": {"gzip"}, "Content-Type": {"application/json"}}
		packed := gzipped(strings.Replace(like, "FILL", fill, 1))
		a := s.send(request{method: "POST", path: "/$Pplain/_search", body: bytes.NewReader(packed), header: header})
		if a.status != 400 || a.json("error.type").String() != "esproxy_protected_query" {
			t.Errorf("%d packed bytes: %d %s", len(packed), a.status, a.body)
		}
		for _, r := range s.rec.since(from) {
			if bytes.Contains(r.body, []byte("c4n4ry")) || bytes.Contains(r.body, packed[:20]) {
				t.Errorf("%d packed bytes: %s %s went up", len(packed), r.method, r.target)
			}
		}
		broken := append(gzipped(`{"query":{"match_all":{}},"x":"`+fill+`"}`), "behind"...)
		if a := s.send(request{method: "POST", path: "/$Pplain/_search", body: bytes.NewReader(broken), header: header}); a.status != 400 || !strings.Contains(a.body, "esproxy_") {
			t.Errorf("bytes behind the packed body: %d %s", a.status, a.body)
		}
	}
}

package test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync/atomic"
	"testing"
)

// cut is a way in which an upstream dies during a bulk.
type cut struct {
	body  int     // bytes of the request that are read before the connection ends; -1: all of them, and the server carries them out
	reply float64 // part of the reply, head included, that is sent before it ends
	head  bool    // the head of the reply is sent, and reply is a part of its body
	chunk bool    // the reply is chunked
	reset bool    // the connection ends with RST instead of FIN
	early bool    // the reply is sent whole before the request was read: no answer to all of it
}

func (c cut) String() string {
	return fmt.Sprintf("body %d, reply %v, head %v, chunked %v, reset %v, early %v", c.body, c.reply, c.head, c.chunk, c.reset, c.early)
}

// serve plays the cut for one bulk.
func (c cut) serve(t *testing.T, server string, w http.ResponseWriter, r *http.Request) {
	var out []byte
	if c.body >= 0 {
		io.CopyN(io.Discard, r.Body, int64(c.body))
		if c.early {
			out = []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 36\r\n\r\n{\"took\":1,\"errors\":false,\"items\":[]}")
		}
	} else {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		req, err := http.NewRequest(r.Method, server+r.RequestURI, bytes.NewReader(body))
		if err != nil {
			t.Error(err)
			return
		}
		req.Header = r.Header.Clone()
		res, err := passer.Do(req)
		if err != nil {
			t.Error(err)
			return
		}
		defer res.Body.Close()
		if c.chunk {
			res.ContentLength, res.TransferEncoding = -1, []string{"chunked"}
			res.Header.Del("Content-Length")
		}
		if out, err = httputil.DumpResponse(res, true); err != nil {
			t.Error(err)
			return
		}
		head := bytes.Index(out, []byte("\r\n\r\n")) + 4
		if c.head {
			out = out[:head+int(c.reply*float64(len(out)-head))]
		} else {
			out = out[:int(c.reply*float64(head))]
		}
	}
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	if c.reset {
		conn.(*net.TCPConn).SetLinger(0)
	}
	conn.Write(out)
	conn.Close()
}

// TestUpstreamDiesDuringBulk cuts the upstream off at many points of a bulk. The client must never get a complete reply
// with a status below 400: some of its items were not answered. Nothing is sent twice.
func TestUpstreamDiesDuringBulk(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/ana", `{"username":"Ana","credit_card_num":"1"}`), 201)

	doc := func(i int, subject string) string {
		return fmt.Sprintf("{\"index\":{\"_id\":\"%d\"}}\n{%s\"credit_card_num\":\"4000-%d\",\"text\":%q}\n", i, subject, i, strings.Repeat("x", 1600))
	}
	var small, large strings.Builder
	for i := range 400 {
		large.WriteString(doc(i, `"username":"Ana",`))
		if i < 5 {
			small.WriteString(doc(i, `"username":"Ana",`))
		}
	}
	update := "{\"update\":{\"_id\":\"ana\"}}\n{\"doc\":{\"credit_card_num\":\"2\"}}\n"
	bodies := []struct {
		name, body string
		actions    int64
	}{
		{"small", small.String(), 5},
		{"small, a bad item", doc(-1, "") + small.String() + doc(-2, ""), 7},
		{"small, an update", small.String() + update, 6},
		{"large", large.String(), 400},
		{"huge", strings.Repeat(large.String(), 48), 0}, // more than sockets take
		{"large, bad items", doc(-1, "") + large.String() + doc(-2, "") + update, 403},
	}
	cuts := []cut{{body: 0}, {body: 0, reset: true}, {body: 1}, {body: 500, reset: true}}
	for _, reset := range []bool{false, true} {
		for _, chunk := range []bool{false, true} {
			for _, reply := range []float64{0, .01, .9} {
				cuts = append(cuts, cut{body: -1, reply: reply, chunk: chunk, reset: reset})
			}
			for _, reply := range []float64{0, .01, .5, .9, .9999} {
				cuts = append(cuts, cut{body: -1, reply: reply, head: true, chunk: chunk, reset: reset})
			}
		}
	}
	largeCuts := append([]cut{{body: 100_000}, {body: 500_000, reset: true}}, cuts...)
	var bulks atomic.Int64
	for _, b := range bodies {
		list := cuts
		if strings.HasPrefix(b.name, "large") {
			list = largeCuts
		}
		if b.name == "huge" {
			list = []cut{{body: 0, early: true}, {body: 300_000, early: true}, {body: 20_000_000}}
		}
		for _, c := range list {
			bulks.Store(0)
			s.rec.meet(func(w http.ResponseWriter, r *http.Request) bool {
				if !strings.HasSuffix(strings.SplitN(r.RequestURI, "?", 2)[0], "/_bulk") {
					return false
				}
				bulks.Add(1)
				c.serve(t, s.server, w, r)
				return true
			})
			a := s.do("POST", "/$Puser/_bulk", b.body)
			if a.err == nil && a.status < 400 {
				t.Errorf("%s, %v: status %d with %d items\n%s", b.name, c, a.status, a.json("items.#").Int(), tail(a.body, 300))
			}
			if a.err == nil && a.status >= 400 {
				if err := asESError(a); err != nil {
					t.Errorf("%s, %v: %v\n%s", b.name, c, err, tail(a.body, 300))
				}
			}
			if n := bulks.Load(); n != 1 {
				t.Errorf("%s, %v: %d bulks went upstream", b.name, c, n)
			}
		}
		s.rec.meet(nil)
		if b.actions == 0 {
			continue
		}
		a := s.must(s.do("POST", "/$Puser/_bulk", b.body), 200)
		if got := a.json("items.#").Int(); got != b.actions {
			t.Errorf("%s: afterwards %d items of %d", b.name, got, b.actions)
		}
	}
}

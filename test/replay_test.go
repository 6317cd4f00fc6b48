package test

import (
	"cmp"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"
)

// exchange is one request that is sent directly and through the proxy. In line and body $X stands for a prefix of index names of each
// side's own, $P for that of indices which both sides share, and $S, $T, $A, $K for the scroll, the point in time, the asynchronous
// search and the task that an earlier reply of the same side named.
type exchange struct {
	line string // method, path, and headers as Name=value
	body string
	want int // the status on 8.19, 0 for any
	// changing marks replies about the whole cluster, which change from one request to the next: status and type are compared.
	changing bool
	refused  bool // the proxy refuses it, for the reason that the comment above it gives
}

// readTraffic reads a file of traffic/. Its first block is headers for every request, the others, parted by empty lines, are requests:
// a line STATUS METHOD PATH [Name=value …] and the body. A status with a tilde marks a changing reply, one with an exclamation mark a request that the proxy refuses; lines with # are comments. Where
// the path is a bulk or an msearch, the content type becomes that of NDJSON.
func readTraffic(t *testing.T, name string) []exchange {
	t.Helper()
	data, err := os.ReadFile("traffic/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var list []exchange
	var headers []string
	for i, block := range strings.Split(regexp.MustCompile(`(?m)^#.*\n`).ReplaceAllString(string(data), ""), "\n\n") {
		block = strings.Trim(block, "\n")
		if i == 0 {
			headers = strings.Split(block, "\n")
			continue
		}
		if block == "" {
			continue
		}
		line, body, _ := strings.Cut(block, "\n")
		status, line, _ := strings.Cut(line, " ")
		code, refused := strings.CutSuffix(status, "!")
		code, changing := strings.CutSuffix(code, "~")
		want, err := strconv.Atoi(code)
		if err != nil || len(strings.Split(line, " ")) < 2 {
			t.Fatalf("%s: bad request line %q", name, block)
		}
		lines := strings.Contains(line, "_bulk") || strings.Contains(line, "_msearch")
		if lines && body != "" {
			body += "\n"
		}
		for _, h := range headers {
			k, v, ok := strings.Cut(h, ": ")
			if !ok {
				t.Fatalf("%s: bad header %q", name, h)
			}
			if strings.Contains(line, " "+k+"=") || k == "Content-Type" && body == "" {
				continue
			}
			if k == "Content-Type" && lines {
				v = strings.Replace(v, "json", "x-ndjson", 1)
			}
			line += " " + k + "=" + v
		}
		list = append(list, exchange{line, body, want, changing, refused})
	}
	if len(list) == 0 {
		t.Fatalf("%s: no requests", name)
	}
	return list
}

// side is one way to the server.
type side struct {
	base, prefix              string
	scroll, pit, search, task string
}

func (d *side) fill(s *stack, text string) string {
	return strings.NewReplacer("$P", s.prefix, "$X", d.prefix, "$S", d.scroll, "$T", d.pit, "$A", d.search, "$K", cmp.Or(d.task, "none:1")).Replace(text)
}

// note keeps what later requests refer to.
func (d *side) note(line string, w whole) {
	if id := gjson.Get(w.Body, "_scroll_id").String(); id != "" {
		d.scroll = id
	}
	id := gjson.Get(w.Body, "id").String()
	switch {
	case id == "":
	case strings.Contains(line, "_pit"):
		d.pit = id
	case strings.Contains(line, "async"):
		d.search = id
	}
	if id := gjson.Get(w.Body, "task").String(); id != "" {
		d.task = id
	}
}

// replay sends the same traffic directly and through the proxy: the replies must be the same, and what the proxy sends
// upstream must be what the client sent. It returns how many requests this server does not have.
func replay(t *testing.T, s *stack, list []exchange) int {
	t.Helper()
	eight := strings.HasPrefix(gjson.Get(s.direct("GET", "/", "").body, "version.number").String(), "8.19") && realURL() != ""
	sides := []side{{base: s.rec.URL, prefix: s.prefix + "a-"}, {base: s.url, prefix: s.prefix + "b-"}}
	unsupported := 0
	for _, r := range list {
		var got [2]whole
		for i := range sides {
			d := &sides[i]
			line, body := d.fill(s, r.line), d.fill(s, r.body)
			from := s.rec.count()
			w := fetch(t, d.base, line, body)
			d.note(r.line, w)
			got[i] = w.steady(t, r.line, d.prefix)
			if i == 1 && strings.Contains(w.Body, `"type":"esproxy_`) {
				break
			}
			// A bulk is read even then: with a broken frame it goes up cut, if at all, and a packed one unpacked.
			if i == 1 && !(strings.Contains(line, "_bulk") && (w.Status >= 400 || strings.Contains(line, "Content-Encoding="))) {
				sentAsItWas(t, s, from, line, body)
			}
			// Reading twice the same place needs no allowance but for the time it took.
			method, path, _ := strings.Cut(line, " ")
			if i == 0 && (method == "GET" || method == "HEAD") && !strings.Contains(path, "scroll") && !strings.Contains(path, "async") && !r.changing && !r.refused {
				again := fetch(t, s.url, line, body)
				if diff := gocmp.Diff(took(w), took(again)); diff != "" {
					t.Errorf("%s: twice the same: %s", r.line, diff)
				}
			}
		}
		short, _, _ := strings.Cut(r.line, " Accept=")
		if refused := strings.Contains(got[1].Body, `"type":"esproxy_`); refused != r.refused {
			t.Errorf("%s: refused by the proxy: %v, want %v (body %.80q)\n%s", short, refused, r.refused, r.body, tail(got[1].Body, 300))
			continue
		} else if refused {
			continue
		}
		if r.changing || got[0].Status == http.StatusNotImplemented { // of the embedded node, which names one of several reasons
			for i := range got {
				got[i] = whole{Status: got[i].Status, Header: http.Header{"Content-Type": got[i].Header["Content-Type"]}}
			}
		}
		if diff := gocmp.Diff(got[0], got[1]); diff != "" {
			t.Errorf("%s %s\n(-direct +through the proxy)\n%s", short, tail(r.body, 200), tail(diff, 2500))
		} else if r.want != 0 && eight && got[0].Status != r.want {
			t.Errorf("%s: status %d, want %d\n%s", short, got[0].Status, r.want, tail(got[0].Body, 600))
		}
		if missing(got[0]) {
			unsupported++
		}
	}
	t.Logf("%d requests, of which this server does not have %d", len(list), unsupported)
	return unsupported
}

// missing reports whether a reply says that the server has no such endpoint.
func missing(w whole) bool {
	return w.Status == http.StatusNotImplemented || strings.Contains(w.Body, `"no handler found for uri`) || strings.Contains(w.Body, `"Incorrect HTTP method for uri`)
}

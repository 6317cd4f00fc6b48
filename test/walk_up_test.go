package test

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/tidwall/gjson"
)

// Values of the walk are 16 digits, so that they can stand as JSON strings and numbers, in Lucene and in SQL alike. The first eight tell
// a value that must not be seen from one that must; the others are the number of the visit.
const (
	canaryHead  = "49290716"
	controlHead = "58310927"
)

func value(head string, n int64) string { return fmt.Sprintf("%s%08d", head, n) }

// marks are texts that tell that a head is there in another form than plain.
func marks(head string) [][]byte {
	var out [][]byte
	add := func(s string) { out = append(out, []byte(s)) }
	add(head)
	add(hex.EncodeToString([]byte(head)))
	add(strings.ToUpper(hex.EncodeToString([]byte(head))))
	back := []byte(head)
	for i, j := 0, len(back)-1; i < j; i, j = i+1, j-1 {
		back[i], back[j] = back[j], back[i]
	}
	add(string(back))
	pairs := []byte(head) // two bytes swapped: UTF-16 read in the other order, decimal in halves
	for i := 0; i+1 < len(pairs); i += 2 {
		pairs[i], pairs[i+1] = pairs[i+1], pairs[i]
	}
	add(string(pairs))
	for offset, skip := range []int{0, 2, 3} { // characters that depend on what stands before and after are left out
		text := base64.RawStdEncoding.EncodeToString(append(make([]byte, offset), head...))
		add(text[skip : (offset+len(head))*8/6])
	}
	return out
}

var (
	canaryMarks  = marks(canaryHead)
	controlMarks = marks(controlHead)
)

// find gives the number of a value in text, -1 when it is there without a number, and whether it is there.
func find(text []byte, head string, marks [][]byte) (int64, bool) {
	for i, m := range marks {
		at := bytes.Index(text, m)
		if at < 0 {
			continue
		}
		if rest := text[at+len(m):]; i == 0 && len(rest) >= 8 {
			if n, err := strconv.ParseInt(string(rest[:8]), 10, 64); err == nil {
				return n, true
			}
		}
		return -1, true
	}
	return 0, false
}

// forms of a text in which a value could hide.
func readingsOf(text []byte, depth int) [][]byte {
	out := [][]byte{text}
	if bytes.IndexByte(text, 0) >= 0 {
		out = append(out, bytes.ReplaceAll(text, []byte{0}, nil))
	}
	if bytes.IndexByte(text, '%') >= 0 {
		if s, err := url.QueryUnescape(string(text)); err == nil {
			out = append(out, []byte(s))
		} else if s, err := url.PathUnescape(string(text)); err == nil {
			out = append(out, []byte(s))
		}
	}
	if bytes.Contains(text, []byte(`\u00`)) {
		out = append(out, unescapeJSON(text))
	}
	if bytes.IndexByte(text, '.') >= 0 { // a number in scientific notation
		out = append(out, bytes.ReplaceAll(text, []byte("."), nil))
	}
	if depth == 0 || len(text) < 2 {
		return out
	}
	unpack := func(r io.Reader, err error) {
		if err != nil {
			return
		}
		b, _ := io.ReadAll(io.LimitReader(r, 1<<20)) // what comes before a fault counts too
		if len(b) > 0 {
			out = append(out, readingsOf(b, depth-1)...)
		}
	}
	switch {
	case text[0] == 0x1f && text[1] == 0x8b:
		r, err := gzip.NewReader(bytes.NewReader(text))
		unpack(r, err)
	case text[0]&0x0f == 8 && (int(text[0])<<8|int(text[1]))%31 == 0:
		r, err := zlib.NewReader(bytes.NewReader(text))
		unpack(r, err)
	case text[0] != '{' && text[0] != '[' && text[0] < 0x80:
		unpack(flate.NewReader(bytes.NewReader(text)), nil)
	}
	return out
}

func unescapeJSON(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+5 < len(text) && text[i+1] == 'u' {
			if n, err := strconv.ParseUint(string(text[i+2:i+6]), 16, 16); err == nil && n < 0x80 {
				out = append(out, byte(n))
				i += 5
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}

// watcher is the upstream of a walk. It looks at everything that the proxy sends: request line, headers, body and trailers. Questions about
// names and documents are answered by a server behind it, all else with success, for it is the requests that count.
type watcher struct {
	mu      sync.Mutex
	leaked  map[int64]string // by number of the visit; all without a number are at -1
	arrived map[int64]bool
	seen    int
}

func newWatcher() *watcher { return &watcher{leaked: map[int64]string{}, arrived: map[int64]bool{}} }

// early is for recorder.meet. It answers, unless the request is a question.
func (wa *watcher) early(w http.ResponseWriter, r *http.Request) bool {
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	var head bytes.Buffer
	fmt.Fprintf(&head, "%s %s\n", r.Method, r.RequestURI)
	r.Header.Write(&head)
	r.Trailer.Write(&head)
	wa.look(head.Bytes(), body, head.String())
	if text := storedText(r); text != "" {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, text)
		return true
	}
	if question(r) {
		return false
	}
	w.Header().Set("X-Elastic-Product", "Elasticsearch")
	w.Header().Set("Content-Type", "application/json")
	w.Header()["Date"] = nil
	if path, _, _ := strings.Cut(r.RequestURI, "?"); strings.HasSuffix(strings.TrimRight(path, "/"), "_bulk") {
		io.WriteString(w, bulkReply(body))
		return true
	}
	io.WriteString(w, `{"took":1,"timed_out":false,"acknowledged":true,"_index":"x","_id":"1","_version":1,"result":"updated","_seq_no":1,"_primary_term":1,"_shards":{"total":1,"successful":1,"failed":0},"hits":{"total":{"value":0,"relation":"eq"},"hits":[]},"responses":[],"docs":[]}`)
	return true
}

func (wa *watcher) look(head, body []byte, line string) {
	wa.mu.Lock()
	defer wa.mu.Unlock()
	wa.seen++
	for _, in := range append(readingsOf(head, 0), readingsOf(body, 2)...) {
		if n, ok := find(in, canaryHead, canaryMarks); ok && wa.leaked[n] == "" {
			wa.leaked[n] = line + "\n" + tail(string(in), 600)
		}
		for rest := in; ; {
			n, ok := find(rest, controlHead, controlMarks)
			if !ok {
				break
			}
			wa.arrived[n] = true
			at := bytes.Index(rest, []byte(controlHead))
			if at < 0 {
				break
			}
			rest = rest[at+1:]
		}
	}
}

// question reports whether the server behind is to answer: what the proxy itself asks about names, mappings and documents.
func question(r *http.Request) bool {
	path, _, _ := strings.Cut(r.RequestURI, "?")
	switch {
	case r.Method == "GET":
		return r.ContentLength <= 0 && !strings.Contains(path, "_search")
	case r.Method == "HEAD":
		return true
	}
	return r.Method == "POST" && (strings.HasSuffix(path, "_mget") || strings.HasSuffix(path, "_refresh"))
}

// bulkReply answers each item of a bulk.
func bulkReply(body []byte) string {
	var items []string
	lines := bytes.Split(body, []byte("\n"))
	for i := 0; i < len(lines); i++ {
		line := bytes.TrimSpace(lines[i])
		if len(line) == 0 {
			continue
		}
		action := ""
		gjson.ParseBytes(line).ForEach(func(k, _ gjson.Result) bool {
			action = k.String()
			return false
		})
		if action != "delete" {
			i++
		}
		items = append(items, fmt.Sprintf(`{%q:{"_index":"x","_id":"1","status":200,"result":"updated"}}`, action))
	}
	return `{"took":1,"errors":false,"items":[` + strings.Join(items, ",") + `]}`
}

// storedText answers what the embedded node does not have: stored scripts and search applications, each with a template in which
// field and value are params.
func storedText(r *http.Request) string {
	const source = `"{\"query\":{\"term\":{\"{{f}}\":\"{{c}}\"}}}"`
	path, _, _ := strings.Cut(r.RequestURI, "?")
	name := path[strings.LastIndexByte(path, '/')+1:]
	switch {
	case r.Method != "GET":
		return ""
	case strings.HasPrefix(path, "/_scripts/"):
		return fmt.Sprintf(`{"_id":%q,"found":true,"script":{"lang":"mustache","source":%s}}`, name, source)
	case strings.HasPrefix(path, "/_application/search_application/"):
		return fmt.Sprintf(`{"name":%q,"indices":[%q],"template":{"script":{"lang":"mustache","source":%s}}}`, name, strings.TrimSuffix(name, "walk-name")+"user", source)
	}
	return ""
}

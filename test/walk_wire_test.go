package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// visit is one request of a walk.
type visit struct {
	row    row
	what   string // where the value stands and how it is written
	path   string
	header []string
	body   string
	value  int64
}

func (v *visit) String() string {
	return fmt.Sprintf("%s, %s: %s %s\n%s\n%s", v.row, v.what, v.row.method, v.path, strings.Join(v.header, "\n"), tail(v.body, 800))
}

// wire is one connection to the proxy. Requests are written byte by byte, since Go's client would put them right.
type wire struct {
	t      *testing.T
	addr   string
	prefix string
	conn   net.Conn
	in     *bufio.Reader
}

func newWire(t *testing.T, s *stack) *wire {
	u, _ := url.Parse(s.url)
	return &wire{t: t, addr: u.Host, prefix: s.prefix}
}

func (w *wire) close() {
	if w.conn != nil {
		w.conn.Close()
		w.conn = nil
	}
}

// send makes the visit. A connection that the proxy has closed after its last reply is opened anew.
func (w *wire) send(v *visit) answer {
	body := v.body
	if utf8.ValidString(body) { // packed bodies have the prefix already, and could hold these two bytes by chance
		body = strings.ReplaceAll(body, "$P", w.prefix)
	}
	var head strings.Builder
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: proxy\r\n", v.row.method, strings.ReplaceAll(v.path, "$P", w.prefix))
	for _, h := range v.header {
		if h == chunked {
			body = inChunks(body)
		}
		head.WriteString(strings.ReplaceAll(h, "$P", w.prefix) + "\r\n")
	}
	if len(v.header) == 0 || v.header[len(v.header)-1] != chunked {
		if body != "" || v.row.method == "POST" || v.row.method == "PUT" {
			fmt.Fprintf(&head, "Content-Length: %d\r\n", len(body))
		}
	}
	raw := head.String() + "\r\n" + body
	var a answer
	for try := 0; try < 2; try++ {
		if w.conn == nil {
			conn, err := net.Dial("tcp", w.addr)
			if err != nil {
				w.t.Error(err)
				return answer{err: err}
			}
			w.conn, w.in = conn, bufio.NewReader(conn)
		}
		fresh := w.in.Buffered() == 0 && try > 0
		w.conn.SetDeadline(time.Now().Add(30 * time.Second))
		if a = w.once(raw, v.row.method); a.err == nil || fresh {
			break
		}
		w.close()
	}
	return a
}

func (w *wire) once(raw, method string) answer {
	if _, err := io.WriteString(w.conn, raw); err != nil && w.in.Buffered() == 0 {
		return answer{err: err}
	}
	res, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		return answer{err: err}
	}
	b, err := io.ReadAll(res.Body)
	if err != nil || res.Close {
		w.close()
	}
	return answer{res.StatusCode, res.Header, string(b), err}
}

// ours reports whether the proxy itself refused the request, or an item of a bulk.
func ours(a answer) bool {
	return strings.Contains(a.body, `"type":"esproxy_`)
}

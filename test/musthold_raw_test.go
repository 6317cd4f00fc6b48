package test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	bin "encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"github.com/tidwall/gjson"
)

// rawSend writes bytes to the proxy's port as they are and reads one reply. A connection that ends without a reply
// gives an error.
func (s *stack) rawSend(raw []byte) answer {
	s.t.Helper()
	u, _ := url.Parse(s.url)
	conn, err := net.Dial("tcp", u.Host)
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(60 * time.Second))
	go conn.Write(raw) // a refusal may come while the body is still written
	in := bufio.NewReader(conn)
	for {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			return answer{err: err}
		}
		b, err := io.ReadAll(res.Body)
		if res.StatusCode >= 200 {
			return answer{res.StatusCode, res.Header, string(b), err}
		}
	}
}

// readings gives all texts that a careless reader could find in a recorded request: as it is, without the zero bytes of
// UTF-16 and UTF-32, and unpacked as far as it goes.
func (r *recorded) readings() []string {
	out := []string{r.String(), strings.ReplaceAll(string(r.body), "\x00", "")}
	if target, err := url.QueryUnescape(r.target); err == nil {
		out = append(out, target)
	}
	for _, open := range []func(io.Reader) (io.Reader, error){
		func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
		func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil },
	} {
		if z, err := open(bytes.NewReader(r.body)); err == nil {
			b, _ := io.ReadAll(z) // what comes before the fault counts too
			out = append(out, string(b))
		}
	}
	return out
}

// sent gives the first recorded request from the nth on that any reading finds text in.
func (rec *recorder) sent(n int, text string) string {
	for _, r := range rec.since(n) {
		for _, in := range r.readings() {
			if strings.Contains(in, text) {
				return r.String()
			}
		}
	}
	return ""
}

// everything gives all documents of all indices of the stack, read around the proxy, and what the cluster says about
// them: mappings, settings, aliases and, where there is one, the cluster state.
func (s *stack) everything() string {
	s.t.Helper()
	var b strings.Builder
	b.WriteString(s.documents(""))
	for _, path := range []string{"/$P*/_mapping?expand_wildcards=all", "/$P*?expand_wildcards=all"} {
		b.WriteString(s.must(s.direct("GET", path, ""), 200).body)
	}
	if realURL() != "" {
		b.WriteString(s.must(s.direct("GET", "/_cluster/state", ""), 200).body)
	}
	return b.String()
}

// documents gives the hits of all documents of the stack: around the proxy without a grant, else through it.
func (s *stack) documents(grant string) string {
	s.t.Helper()
	s.must(s.direct("POST", "/$P*/_refresh", ""), 200)
	path, body := "/$P*/_search?scroll=1m&expand_wildcards=all", `{"size":1000,"sort":["_doc"]}`
	var b strings.Builder
	for {
		r := request{method: "POST", path: path, body: strings.NewReader(body), direct: grant == "", grant: grant}
		a := s.must(s.send(r), 200)
		id := a.json("_scroll_id").String()
		if len(a.json("hits.hits").Array()) == 0 {
			s.send(request{method: "DELETE", path: "/_search/scroll", body: strings.NewReader(fmt.Sprintf(`{"scroll_id":%q}`, id)), direct: true})
			return b.String()
		}
		b.WriteString(a.body)
		path, body = "/_search/scroll", fmt.Sprintf(`{"scroll":"1m","scroll_id":%q}`, id)
	}
}

// asESError says what keeps a refusal from being an error in Elasticsearch's shape.
func asESError(a answer) error {
	switch {
	case a.err != nil:
		return a.err
	case a.status < 400:
		return fmt.Errorf("status %d", a.status)
	case !gjson.Valid(a.body):
		return errors.New("no JSON")
	case a.json("status").Int() != int64(a.status):
		return errors.New("status in the body differs")
	case a.json("error.type").String() == "" || a.json("error.reason").String() == "" || a.json("error.root_cause.0.type").String() == "":
		return errors.New("no error.type, error.reason or error.root_cause")
	}
	return nil
}

func gz(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write([]byte(text))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func zl(text string) string {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	w.Write([]byte(text))
	w.Close()
	return b.String()
}

func rawDeflate(text string) string {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, flate.BestSpeed)
	w.Write([]byte(text))
	w.Close()
	return b.String()
}

func utf16Text(order bin.AppendByteOrder, bom bool, text string) string {
	var b []byte
	if bom {
		b = order.AppendUint16(b, 0xFEFF)
	}
	for _, u := range utf16.Encode([]rune(text)) {
		b = order.AppendUint16(b, u)
	}
	return string(b)
}

func utf32Text(order bin.AppendByteOrder, bom bool, text string) string {
	var b []byte
	if bom {
		b = order.AppendUint32(b, 0xFEFF)
	}
	for _, r := range text {
		b = order.AppendUint32(b, uint32(r))
	}
	return string(b)
}

// cborDoc is a CBOR map (RFC 8949) of two short texts.
func cborDoc(pairs ...string) string {
	b := []byte{0xA0 | byte(len(pairs)/2)}
	for _, p := range pairs {
		if len(p) < 24 {
			b = append(b, 0x60|byte(len(p)))
		} else {
			b = append(b, 0x78, byte(len(p)))
		}
		b = append(b, p...)
	}
	return string(b)
}

// smileDoc is a SMILE object: header, object start, short ASCII names (0x80 + length - 1) and tiny ASCII values (0x40 + length - 1).
func smileDoc(pairs ...string) string {
	b := []byte(":)\n\x00\xFA")
	for i, p := range pairs {
		kind := byte(0x80)
		if i%2 == 1 {
			kind = 0x40
		}
		b = append(b, kind|byte(len(p)-1))
		b = append(b, p...)
	}
	return string(append(b, 0xFB))
}

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/esproxy/esproxy/internal/envelope"
)

// replyHeader names the reply that a search gets from the sink.
const replyHeader = "X-Bench-Reply"

// The replies: about 2 KB, about 200 KB, and 10,000 hits.
var replyHits = map[string]int{"2KB": 1, "200KB": 150, "10000 hits": 10_000}

// runSink serves as an Elasticsearch that stores nothing: it reads bodies at full speed, counts documents, looks
// for plaintext in them, and answers the proxy's own questions.
func runSink() error {
	replies, err := sealedReplies(os.Getenv("MASTER_KEY"))
	if err != nil {
		return err
	}
	buffers := sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}
	return serveChild(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h["X-Elastic-Product"] = []string{"Elasticsearch"}
		h["Content-Type"] = []string{"application/json"}
		send := func(status int, text string) {
			h["Content-Length"] = []string{strconv.Itoa(len(text))}
			w.WriteHeader(status)
			io.WriteString(w, text)
		}
		path := r.URL.Path
		switch {
		case strings.HasSuffix(path, "/_bulk"):
			b := buffers.Get().(*[]byte)
			docs, plain, err := drain(r.Body, *b, len(r.Header["Content-Encoding"]) > 0)
			buffers.Put(b)
			if err != nil {
				send(400, `{"error":{"type":"parse_exception","reason":"the body broke off"},"status":400}`)
				return
			}
			send(200, fmt.Sprintf(`{"took":1,"errors":false,"docs":%d,"plain":%t,"items":[]}`, docs, plain))
		case strings.HasSuffix(path, "/_search"):
			io.Copy(io.Discard, r.Body)
			if name := r.Header.Get(replyHeader); name != "" {
				h["Content-Length"] = []string{strconv.Itoa(len(replies[name]))}
				w.Write(replies[name])
				return
			}
			send(200, `{"took":1,"timed_out":false,"hits":{"hits":[]}}`)
		case path == "/":
			send(200, `{"name":"sink","version":{"number":"8.19.8","build_flavor":"default"},"tagline":"You Know, for Search"}`)
		case strings.HasPrefix(path, "/_alias"):
			send(200, `{"user":{"aliases":{}},"free":{"aliases":{}}}`)
		case strings.HasPrefix(path, "/_resolve/index/"):
			send(200, `{"indices":[{"name":"user","attributes":["open"]},{"name":"free","attributes":["open"]}],"aliases":[],"data_streams":[]}`)
		case strings.HasSuffix(path, "/_mapping"):
			io.Copy(io.Discard, r.Body)
			send(200, `{"user":{"mappings":{}}}`)
		case path == "/_nodes/http":
			send(200, `{"nodes":{"a":{"http":{"max_content_length_in_bytes":8000000000}}}}`)
		default:
			send(400, `{"error":{"type":"illegal_argument_exception","reason":"not served here"},"status":400}`)
		}
	}))
}

// drain reads a body to its end. Bytes that are packed can be neither counted nor searched.
func drain(r io.Reader, buf []byte, packed bool) (docs int, plain bool, err error) {
	lines, keep := 0, 0
	for {
		n, err := r.Read(buf[keep:])
		if !packed {
			lines += bytes.Count(buf[keep:keep+n], []byte{'\n'})
			if seen := buf[:keep+n]; !plain { // one is enough: the pass-through targets have them all
				plain = bytes.Contains(seen, []byte(canary))
				keep = copy(buf, seen[max(0, len(seen)-len(canary)+1):])
			} else {
				keep = 0
			}
		}
		if errors.Is(err, io.EOF) {
			return lines / 2, plain, nil
		}
		if err != nil {
			return 0, false, err
		}
	}
}

// sealedReplies makes the search replies, sealed in the GCM suite as the proxy would have stored them.
func sealedReplies(key string) (map[string][]byte, error) {
	ring, err := newRing(key, envelope.GCM)
	if err != nil {
		return nil, err
	}
	c := newCorpus()
	items := c.bulk(replyHits["10000 hits"] * c.stride).data
	replies := make(map[string][]byte)
	for name, hits := range replyHits {
		var out bytes.Buffer
		fmt.Fprintf(&out, `{"took":3,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":0},"hits":{"total":{"value":%d,"relation":"eq"},"max_score":1.0,"hits":[`, hits)
		for i := range hits {
			item := items[i*c.stride : (i+1)*c.stride]
			_, doc, _ := bytes.Cut(bytes.TrimSuffix(item, []byte("\n")), []byte("\n"))
			sealed, err := sealNaive(ring, doc)
			if err != nil {
				return nil, err
			}
			if i > 0 {
				out.WriteByte(',')
			}
			fmt.Fprintf(&out, `{"_index":"user","_id":"%d","_score":1.0,"_source":%s}`, i, sealed)
		}
		out.WriteString(`]}}`)
		replies[name] = out.Bytes()
	}
	return replies, nil
}

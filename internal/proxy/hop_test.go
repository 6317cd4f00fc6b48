package proxy_test

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/proxy"
)

// Names of trailers are part of the head that goes up. Elasticsearch answers a head that is too large and then never again on its
// connection, which the next client would get.
func TestManyTrailers(t *testing.T) {
	up := newWire(t, func(_ int, c net.Conn, r *bufio.Reader) {
		for {
			head, err := readHead(r)
			if err != nil {
				return
			}
			if len(head) > 16<<10 {
				t.Errorf("a head of %d bytes went up", len(head))
			}
			if _, err := readHead(r); err != nil { // the end of the body, and trailers
				return
			}
			io.WriteString(c, reply("200 OK", "", "{}"))
		}
	})
	p := start(t, planFunc(raw), proxy.Config{Nodes: []string{up.url}})
	for names, want := range map[int]string{100: "HTTP/1.1 200", 3000: "HTTP/1.1 400"} {
		got := exchange(t, p.addr, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nX-Pad: "+strings.Repeat("p", 5<<10)+"\r\nTransfer-Encoding: chunked\r\nTrailer: "+trailerNames(names)+"\r\n\r\n0\r\n\r\n")
		if !strings.HasPrefix(got, want) {
			t.Errorf("%d names: got %q, want %q", names, got, want)
		}
	}
}

func trailerNames(n int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("T")
		b.WriteString(strings.Repeat("a", i%8))
		for ; i > 0; i /= 8 {
			b.WriteByte("bcdefghi"[i%8])
		}
	}
	return b.String()
}

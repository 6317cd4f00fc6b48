package proxy_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

func TestAuthority(t *testing.T) {
	long := strings.Repeat("a", 253)
	for _, c := range []struct{ text, port, want string }{
		{"es.example:9200", "", "es.example:9200"},
		{"es.example", "443", "es.example:443"},
		{"es.example:1", "443", "es.example:1"},
		{"es_1-a.EXAMPLE:65535", "", "es_1-a.EXAMPLE:65535"},
		{"10.0.0.1:9200", "80", "10.0.0.1:9200"},
		{"[::1]:9200", "", "[::1]:9200"},
		{"[2001:db8::1]", "80", "[2001:db8::1]:80"},
		{long, "80", long + ":80"},
		// No port.
		{"es.example", "", ""}, {"es.example:", "80", ""}, {"es.example:0", "", ""}, {"es.example:65536", "", ""}, {"es.example:009200", "", ""},
		{"es.example:-1", "", ""}, {"es.example:+1", "", ""}, {"es.example:http", "", ""},
		// No host.
		{":9200", "", ""}, {"", "80", ""}, {"", "", ""}, {long + "a", "80", ""}, {"::1", "80", ""}, {"::1:9200", "", ""}, {"a:b:1", "", ""},
		{"[::1", "80", ""}, {"::1]", "80", ""}, {"[]:80", "", ""}, {"[::1]x:80", "", ""}, {"[10.0.0.1]:80", "", ""}, {"[fe80::1%eth0]:80", "", ""}, {"[[::1]]:80", "", ""},
		// More than a host, or what could not stand in a reply.
		{"user@es.example:80", "", ""}, {"es.example:80/path", "", ""}, {"es.example/:80", "", ""}, {"http://es.example:80", "", ""},
		{`es"example:80`, "", ""}, {"es example:80", "", ""}, {"es\n:80", "", ""}, {"é.example:80", "", ""},
	} {
		got, ok := proxy.Authority(c.text, c.port)
		if got != c.want || ok != (c.want != "") {
			t.Errorf("%q with %q: %q, %v; want %q", c.text, c.port, got, ok, c.want)
		}
	}
}

// TestCallAuthority: the address that a client used is its Host header, with the port of the scheme when it names none; without a
// header it is where the proxy was reached.
func TestCallAuthority(t *testing.T) {
	got := make(chan string, 1)
	plan := planFunc(func(c *rewrite.Call) (*rewrite.Plan, error) {
		got <- c.Authority
		return nil, &rewrite.Fault{Status: http.StatusTeapot, Type: "seen", Reason: "seen"}
	})
	p := start(t, plan, proxy.Config{Nodes: []string{"http://127.0.0.1:1"}})
	for _, c := range []struct{ head, want string }{
		{"HTTP/1.1\r\nHost: es.example:9280\r\n", "es.example:9280"},
		{"HTTP/1.1\r\nHost: es.example\r\n", "es.example:80"},
		{"HTTP/1.1\r\nHost: [::1]\r\n", "[::1]:80"},
		{"HTTP/1.1\r\nHost: es.example\r\nX-Forwarded-Proto: https\r\n", "es.example:443"},
		{"HTTP/1.1\r\nHost: es.example\r\nX-Forwarded-Proto: HTTPS\r\n", "es.example:443"},
		{"HTTP/1.1\r\nHost: es.example\r\nX-Forwarded-Proto: http\r\n", "es.example:80"},
		{"HTTP/1.1\r\nHost: es.example:9200\r\nX-Forwarded-Proto: https\r\n", "es.example:9200"},
		{"HTTP/1.1\r\nHost: es!example\r\n", ""},
		{"HTTP/1.1\r\nHost: es.example:0\r\n", ""},
		{"HTTP/1.1\r\nHost: \r\n", p.addr},
		{"HTTP/1.0\r\n", p.addr},
	} {
		reply := exchange(t, p.addr, "GET /_nodes/http "+c.head+"Connection: close\r\n\r\n")
		if !strings.HasPrefix(reply, "HTTP/1.1 418 ") && !strings.HasPrefix(reply, "HTTP/1.0 418 ") {
			t.Fatalf("%q: %s", c.head, reply)
		}
		if address := <-got; address != c.want {
			t.Errorf("%q: %q, want %q", c.head, address, c.want)
		}
	}

	ca := newAuthority(t)
	ca.issue(t, "listener", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	p = start(t, plan, proxy.Config{Nodes: []string{"http://127.0.0.1:1"}, TLS: &proxy.ServerTLS{CertFile: ca.file("listener.pem"), KeyFile: ca.file("listener.key")}})
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	conn, err := tls.Dial("tcp", p.addr, &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /_nodes/http HTTP/1.1\r\nHost: es.example\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if reply, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(reply), "HTTP/1.1 418 ") {
		t.Fatalf("%v, %s", err, reply)
	}
	if address := <-got; address != "es.example:443" {
		t.Errorf("over TLS: %q", address)
	}
}

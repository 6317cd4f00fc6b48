package test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// tap stands between the recorder and a server and keeps the server's last reply that tells about nodes.
type tap struct {
	*httptest.Server
	mu   sync.Mutex
	last whole
}

func newTap(t *testing.T, to string) *tap {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{}
	pass := httputil.NewSingleHostReverseProxy(u)
	pass.Transport = passer.Transport
	pass.ModifyResponse = func(res *http.Response) error {
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return err
		}
		res.Body = io.NopCloser(bytes.NewReader(body))
		if strings.Contains(res.Request.URL.Path, "nodes") {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.last = whole{Status: res.StatusCode, Header: res.Header.Clone(), Body: string(body)}
		}
		return nil
	}
	p.Server = httptest.NewServer(pass)
	t.Cleanup(p.Close)
	return p
}

// reply gives the server's last reply and forgets it.
func (p *tap) reply() whole {
	p.mu.Lock()
	defer p.mu.Unlock()
	last := p.last
	p.last = whole{}
	return last
}

// onDiscoveryServers runs a test on the usual server and on an OpenSearch, if there is one. real tells that it is no embedded node, own is the
// server's address in its replies.
func onDiscoveryServers(t *testing.T, f func(t *testing.T, p *tap, own string, real bool)) {
	servers := map[string]string{"usual": newServer(t)}
	if u := strings.TrimRight(os.Getenv("ESPROXY_TEST_OS_URL"), "/"); u != "" {
		servers["opensearch"] = u
	}
	for name, server := range servers {
		t.Run(name, func(t *testing.T) {
			p := newTap(t, server)
			a := (&stack{t: t, server: p.URL}).direct("GET", "/_nodes/http", "")
			found := publishAddress.FindStringSubmatch(httpSection.FindString(a.body))
			if found == nil {
				t.Fatalf("no address in %s", a.body)
			}
			f(t, p, found[2], name == "opensearch" || realURL() != "")
		})
	}
}

var (
	httpSection    = regexp.MustCompile(`"http"\s*:\s*\{[^{}]*\}`)
	publishAddress = regexp.MustCompile(`("publish_address"\s*:\s*)"([^"]*)"`)
	boundAddress   = regexp.MustCompile(`("bound_address"\s*:\s*)\[[^\]]*\]`)
)

// swapped is what the proxy must make of a server's reply in JSON.
func swapped(body, address string) string {
	return httpSection.ReplaceAllStringFunc(body, func(section string) string {
		section = publishAddress.ReplaceAllString(section, `${1}"`+address+`"`)
		return boundAddress.ReplaceAllString(section, `${1}["`+address+`"]`)
	})
}

// unpacked is a reply's body without its coding.
func unpacked(t *testing.T, header http.Header, body string) string {
	t.Helper()
	if header.Get("Content-Encoding") != "gzip" {
		return body
	}
	z, err := gzip.NewReader(strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// withAddress are requests whose reply in JSON holds addresses on every real server.
var withAddress = []string{
	"/_nodes/http", // also the embedded node's
	"/_nodes",
	"/_nodes/_local",
	"/_nodes/_all",
	"/_nodes/_all/http",
	"/_nodes/_local/http,os",
	"/_nodes/http,transport",
	"/_nodes/http?pretty",
	"/_nodes/http?human",
	"/_nodes?flat_settings",
	"/_nodes?flat_settings=true&pretty=true",
	"/_nodes?timeout=10s",
	"/_nodes/http?filter_path=nodes.*.http",
	"/_nodes?filter_path=**.http",
	"/_nodes?filter_path=nodes.*.name,nodes.*.http.publish_address",
	"/_nodes?filter_path=nodes.*.version,nodes.*.http.publish_address,nodes.*.ip", // Kibana
	"/_nodes?filter_path=**.bound_address,**.publish_address",
	"/_nodes/http?filter_path=-nodes.*.http.bound_address",
}

// TestDiscoveryJSON: in the replies of nodes.info the addresses are the proxy's own, and all else is the server's, for every caller.
func TestDiscoveryJSON(t *testing.T) {
	onDiscoveryServers(t, func(t *testing.T, p *tap, own string, real bool) {
		s := start(t, config{server: p.URL})
		hosts := map[string]string{"": strings.TrimPrefix(s.url, "http://"), "sealed.example": "sealed.example:80", "sealed.example:9280": "sealed.example:9280", "[2001:db8::1]:443": "[2001:db8::1]:443"}
		for host, address := range hosts {
			for _, grant := range []string{"", "full"} {
				for _, coding := range []string{"", "gzip"} {
					for _, path := range withAddress {
						header := http.Header{}
						if host != "" {
							header.Set("Host", host)
						}
						if coding != "" {
							header.Set("Accept-Encoding", coding)
						}
						before := s.rec.count()
						a := s.send(request{method: "GET", path: path, header: header, grant: grant})
						n := 0
						for _, r := range s.rec.since(before) { // the proxy asks questions of its own after its start
							if r.target == path {
								n++
							}
						}
						if n != 1 {
							t.Errorf("%s: sent %d times", path, n)
						}
						from := p.reply()
						sent, got := unpacked(t, from.Header, from.Body), unpacked(t, a.header, a.body)
						if real && (from.Status != 200 || sent == swapped(sent, address) || !strings.Contains(sent, own)) {
							t.Fatalf("%s: the server answers %d without an address: %s", path, from.Status, tail(sent, 500))
						}
						if want := swapped(sent, address); a.err != nil || a.status != from.Status || got != want {
							t.Errorf("%s as %q at %q, coding %q: status %d, error %v\n%s", path, grant, host, coding, a.status, a.err, cmp.Diff(want, got))
						}
						for _, found := range publishAddress.FindAllStringSubmatch(strings.Join(httpSection.FindAllString(got, -1), ""), -1) {
							if found[2] != address {
								t.Errorf("%s: publishes %s", path, found[2])
							}
						}
						if a.header.Get("Content-Type") != from.Header.Get("Content-Type") {
							t.Errorf("%s: Content-Type %q", path, a.header.Get("Content-Type"))
						}
					}
				}
			}
		}
	})
}

// TestDiscoveryTable: `_cat/nodes` shows the proxy's own address in its column, and all else stands where it stood.
func TestDiscoveryTable(t *testing.T) {
	onDiscoveryServers(t, func(t *testing.T, p *tap, own string, real bool) {
		if !real {
			t.Skip("needs a real Elasticsearch: set ESPROXY_TEST_ES_URL")
		}
		s := start(t, config{server: p.URL})
		same := strings.Repeat("p", len(own)-len(":9280")) + ":9280" // as long as the server's: no width changes
		for _, query := range []string{
			"h=http", "h=http_address", "h=http&v", "h=http&v=", "h=http&v=true", "h=http&v=false", "h=http,heap.percent,name,disk.used_percent", "h=http&v&s=http:desc", "h=ip,http,name&s=name", "h=name,http&v", "h=http,name&v&s=ip",
			"h=h*", "h=*", "h=*&v", "h=name,*addr*&v", "h=ht*,pid&v&pretty", "h=http,http_address,name&v", "h=http&full_id", "h=id,http&full_id=true&v", "v&h=http,disk.total&bytes=b&time=ms", "h=pid,http&format=text&v",
			"h=http,name&format=json", "h=*&format=json", "h=http&format=json&pretty", "h=http&format=json&v", "h=ip,http_address&format=json&s=http",
		} {
			for _, grant := range []string{"", "full"} {
				for _, host := range []string{same, "sealed.example", "a-long-name-of-the-proxy.in.a.zone.example:65535", "p:1"} {
					a := s.send(request{method: "GET", path: "/_cat/nodes?" + query, header: http.Header{"Host": {host}}, grant: grant})
					address := host
					if host == "sealed.example" {
						address += ":80"
					}
					from := p.reply()
					sent := from.Body
					if from.Status != 200 || !strings.Contains(sent, own) {
						t.Fatalf("%s: the server answers %d without an address: %s", query, from.Status, from.Body)
					}
					want := strings.ReplaceAll(sent, own, address)
					if a.err != nil || a.status != 200 || strings.Contains(a.body, own) {
						t.Fatalf("%s at %q: status %d, error %v, %s", query, host, a.status, a.err, a.body)
					}
					if (host == same || strings.Contains(query, "json")) && a.body != want {
						t.Errorf("%s at %q:\n%s", query, host, cmp.Diff(want, a.body))
					}
					if diff := cmp.Diff(strings.Fields(want), strings.Fields(a.body)); diff != "" {
						t.Errorf("%s at %q:\n%s", query, host, diff)
					}
					// What is left of the column does not move, and what is right of it moves with its width.
					if lines := strings.Split(a.body, "\n"); len(lines) > 2 && !strings.Contains(lines[0], address) {
						for column := range strings.FieldsSeq(lines[0]) {
							if at := regexp.MustCompile(`(^| )` + regexp.QuoteMeta(column) + `( |$)`).FindStringIndex(lines[0]); strings.HasPrefix(column, "http") && !strings.HasPrefix(strings.TrimLeft(lines[1][at[0]:], " "), address) {
								t.Errorf("%s at %q: the column is not below its name\n%s", query, host, a.body)
							}
						}
					}
				}
			}
		}
		// Tables that show no address, and errors, are the server's to the last byte.
		for _, query := range []string{"", "v", "h=name", "h=ip,name&v", "help", "help&h=http", "h=HTTP", "h=http?", "h=", "h=name&format=yaml", "format=yaml&h=ip", "h=http&v=wat", "h=http&help=wat", "h=http&s=wat", "wat"} {
			a := s.do("GET", "/_cat/nodes?"+query, "")
			if from := p.reply(); from.Status == 0 || a.status != from.Status || a.body != from.Body {
				t.Errorf("%s: %d, %d\n%s", query, from.Status, a.status, cmp.Diff(from.Body, a.body))
			}
		}
		for _, path := range []string{"/_nodes/http", "/_cat/nodes?h=http", "/_nodes?format=yaml"} { // the server has GET alone
			if a := s.do("HEAD", path, ""); a.err != nil || a.status != 403 && a.status != 405 || a.body != "" {
				t.Errorf("HEAD %s: %d %v %q", path, a.status, a.err, a.body)
			}
		}
	})
}

// TestDiscoveryOtherForms: a reply that is no JSON is refused where it holds an address, and only there.
func TestDiscoveryOtherForms(t *testing.T) {
	onDiscoveryServers(t, func(t *testing.T, p *tap, own string, real bool) {
		if !real {
			t.Skip("needs a real Elasticsearch: set ESPROXY_TEST_ES_URL")
		}
		s := start(t, config{server: p.URL})
		for _, form := range []string{"yaml", "cbor", "smile"} {
			for _, grant := range []string{"", "full"} {
				for path, status := range map[string]int{
					"/_nodes/http?": 406, "/_nodes?": 406, "/_nodes/_local?": 406, "/_nodes?filter_path=**.http&": 406, "/_nodes/os,http?": 406, "/_nodes/_all/http?": 406,
					"/_cat/nodes?h=http&": 406, "/_cat/nodes?h=*&v&": 406,
					"/_nodes/os?": 200, "/_nodes/jvm,plugins?": 200, "/_nodes/_local/process?": 200, "/_nodes/transport?": 200, "/_nodes/_all/_none?": 200, "/_nodes/settings?flat_settings&": 200,
					"/_nodes?filter_path=nodes.*.version&": 200, "/_nodes/http?filter_path=nodes.*.name,nodes.*.ip&": 200, "/_nodes/nobody?": 200, "/_nodes/stats/os?": 200,
					"/_cat/nodes?": 200, "/_cat/nodes?h=name&": 200, "/_nodes/http?wat&": 400,
				} {
					a := s.send(request{method: "GET", path: path + "format=" + form, grant: grant})
					from := p.reply()
					switch {
					case a.err != nil || a.status != status || a.status != 406 && !strings.Contains(a.header.Get("Content-Type"), form) || strings.Contains(a.body, own):
						t.Errorf("%sformat=%s: status %d, want %d, error %v, %s %q", path, form, a.status, status, a.err, a.header.Get("Content-Type"), tail(a.body, 300))
					case status != 406 && a.body != from.Body:
						t.Errorf("%sformat=%s is not the server's reply", path, form)
					case status == 406 && !strings.Contains(from.Body, own):
						t.Errorf("%sformat=%s is refused without an address in it", path, form)
					case status == 406 && a.json("error.type").String() != "esproxy_not_acceptable":
						t.Errorf("%sformat=%s: %s", path, form, a.body)
					}
				}
			}
		}
	})
}

// TestDiscoverySettings: a publish address of the operator's own stands for every Host header; pass leaves replies as they are.
func TestDiscoverySettings(t *testing.T) {
	onDiscoveryServers(t, func(t *testing.T, p *tap, own string, real bool) {
		t.Run("address", func(t *testing.T) {
			s := start(t, config{server: p.URL, env: []string{"ESPROXY_PUBLISH_ADDRESS=https://sealed.example/"}})
			for _, host := range []string{"other.example:9200", "no host", ""} {
				header := http.Header{}
				if host != "" {
					header.Set("Host", host)
				}
				a := s.send(request{method: "GET", path: "/_nodes/http", header: header})
				if want := swapped(p.reply().Body, "sealed.example:443"); a.status != 200 || a.body != want {
					t.Errorf("at %q: %d %s", host, a.status, a.body)
				}
			}
		})
		t.Run("pass", func(t *testing.T) {
			s := start(t, config{server: p.URL, env: []string{"ESPROXY_DISCOVERY=pass"}})
			for _, path := range append([]string{"/_cat/nodes?h=http", "/_cat/nodes?h=*&v", "/_cat/nodes?h=http&format=cbor", "/_nodes/http?format=yaml", "/_nodes?format=smile"}, withAddress...) {
				for _, coding := range []string{"", "gzip"} {
					header := http.Header{}
					if coding != "" {
						header.Set("Accept-Encoding", coding)
					}
					a := s.send(request{method: "GET", path: path, header: header})
					from := p.reply()
					if real && from.Status != 200 || from.Status == 0 || a.status != from.Status || a.body != from.Body {
						t.Errorf("%s: %d, the server %d\n%s", path, a.status, from.Status, cmp.Diff(from.Body, a.body))
					}
					if a.header.Get("Content-Encoding") != from.Header.Get("Content-Encoding") || a.header.Get("Content-Type") != from.Header.Get("Content-Type") {
						t.Errorf("%s: headers %v, the server's %v", path, a.header, from.Header)
					}
				}
			}
		})
	})
}

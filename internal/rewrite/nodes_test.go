package rewrite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
)

const ownAddress = "proxy.example:9280"

// nodesExchange sends a request for addresses and gives the reply that the client sees.
func nodesExchange(t *testing.T, target, contentType, reply string) (out string, err error) {
	t.Helper()
	e, _, _ := fakeEngine(t)
	path, q, _ := strings.Cut(target, "?")
	p, err := e.Plan(context.Background(), &Call{Method: "GET", Path: path, Query: q, Caller: &fakeCaller{}, Counter: &fakeCounter{}, Authority: ownAddress})
	if err != nil {
		return "", err
	}
	if p.Target.Query != q {
		t.Errorf("%s asks for %s", target, p.Target.Query)
	}
	if p.Transform == nil {
		return reply, nil
	}
	defer p.Transform.Close()
	if _, err := p.Transform.Request(context.Background(), p, nil, io.Discard); err != nil {
		return "", err
	}
	f, again, err := p.Transform.Reply(context.Background(), ReplyHead{Status: 200, ContentType: contentType})
	if err != nil || again || f == nil {
		return reply, err
	}
	var b bytes.Buffer
	err = f(strings.NewReader(reply), &b)
	if used := e.Budget.(*fakeBudget).out; used != 0 {
		t.Errorf("%d bytes of the budget are not given back", used)
	}
	return b.String(), err
}

// The replies are those of Elasticsearch 8.19.8 and OpenSearch 3.8, shortened.
func TestNodesReply(t *testing.T) {
	const ct = "application/json; charset=UTF-8"
	for _, c := range []struct{ target, kind, in, want string }{
		{"/_nodes/http", ct, `{"_nodes":{"total":1},"cluster_name":"c","nodes":{"HyLp":{"name":"node-1","transport_address":"127.0.0.1:19300","host":"127.0.0.1","ip":"127.0.0.1","roles":["data"],"http":{"bound_address":["127.0.0.1:19200","[::1]:19200"],"publish_address":"127.0.0.1:19200","max_content_length_in_bytes":104857600}}}}`,
			`{"_nodes":{"total":1},"cluster_name":"c","nodes":{"HyLp":{"name":"node-1","transport_address":"127.0.0.1:19300","host":"127.0.0.1","ip":"127.0.0.1","roles":["data"],"http":{"bound_address":["proxy.example:9280"],"publish_address":"proxy.example:9280","max_content_length_in_bytes":104857600}}}}`},
		{"/_nodes/n1/http", "application/vnd.elasticsearch+json;compatible-with=8", `{"nodes":{"a":{"http":{"publish_address":"es.local/10.0.0.1:9200"}},"b":{"http":{"publish_address" : "[::1]:9200"}}}}`,
			`{"nodes":{"a":{"http":{"publish_address":"proxy.example:9280"}},"b":{"http":{"publish_address" : "proxy.example:9280"}}}}`},
		{"/_nodes?filter_path=**.http", ct, `{"nodes":{"a":{"h\u0074tp":{"publish_addr\u0065ss":"1.2.3.4:9200"}}}}`, `{"nodes":{"a":{"h\u0074tp":{"publish_addr\u0065ss":"proxy.example:9280"}}}}`},
		{"/_nodes/settings?flat_settings", ct, `{"nodes":{"a":{"settings":{"http.publish_host":"x"},"http":null}}}`, `{"nodes":{"a":{"settings":{"http.publish_host":"x"},"http":null}}}`},
		{"/_nodes/transport", "application/yaml", "nodes:\n  a:\n    transport:\n      publish_address: \"1.2.3.4:9300\"\n", "nodes:\n  a:\n    transport:\n      publish_address: \"1.2.3.4:9300\"\n"},
		{"/_nodes?filter_path=nodes.*.version", "application/cbor", "\xbf\x65nodes\xbf\xff\xff", "\xbf\x65nodes\xbf\xff\xff"},
		{"/_cat/nodes?h=ip,http*&format=json", ct, `[{"ip":"127.0.0.1","http_address":"127.0.0.1:19200"},{"ip":"::1","http_address":null},{"http_address":"-"}]`, `[{"ip":"127.0.0.1","http_address":"proxy.example:9280"},{"ip":"::1","http_address":null},{"http_address":"-"}]`},
	} {
		if got, err := nodesExchange(t, c.target, c.kind, c.in); err != nil || got != c.want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", c.target, err, got, c.want)
		}
	}
}

func TestCatNodesTable(t *testing.T) {
	const ct = "text/plain; charset=UTF-8"
	const body = "127.0.0.1 127.0.0.1:19200 node-1 241.9mb\n10.0.0.2  10.0.0.2:9200   node-2   1.9mb\n10.0.0.3                  node-3   1.9mb\n"
	const own = "127.0.0.1 proxy.example:9280 node-1 241.9mb\n10.0.0.2  proxy.example:9280 node-2   1.9mb\n10.0.0.3                     node-3   1.9mb\n"
	for _, c := range []struct{ target, in, want string }{
		{"/_cat/nodes?h=ip,http,name,hc&v", "ip        http            name        hc\n" + body, "ip        http               name        hc\n" + own},
		{"/_cat/nodes?h=ip,http,name,hc", body, own},
		{"/_cat/nodes?v=false&h=http", "127.0.0.1:19200\n1.2.3.4:1\n", "proxy.example:9280\nproxy.example:9280\n"},
		{"/_cat/nodes?h=name,http_address,http&v=true", "name http_address http\n😀 é 1.2.3.4:1    1.2.3.4:1\n", "name http_address       http\n😀 é proxy.example:9280 proxy.example:9280\n"},
		{"/_cat/nodes?h=name,http_address,http", "😀 1.2.3.4:1 1.2.3.4:1\n", "😀 proxy.example:9280 proxy.example:9280\n"},
		// Not straight, but every cell is one word.
		{"/_cat/nodes?h=http,ip&v", "http         ip\n 1.2.3.4:9200 x\n", "http               ip\n proxy.example:9280 x\n"},
		// A node that did not tell its address in time.
		{"/_cat/nodes?h=http,master,name,pid&v", "http            master name   pid\n127.0.0.1:19200 *      node-1   7\n-               -      node-2    \n", "http               master name   pid\nproxy.example:9280 *      node-1   7\n-                  -      node-2    \n"},
		{"/_cat/nodes?h=name,http", "node-1 -\n", "node-1 -\n"},
		{"/_cat/nodes", "127.0.0.1 node-1\n", "127.0.0.1 node-1\n"},
		{"/_cat/nodes?help&h=http", "http_address | http | bound http address\n", "http_address | http | bound http address\n"},
	} {
		if got, err := nodesExchange(t, c.target, ct, c.in); err != nil || got != c.want {
			t.Errorf("%s: %v\ngot\n%s\nwant\n%s", c.target, err, got, c.want)
		}
	}
}

// padded writes a cell as the server does: the blanks that a column lacks are counted in a signed byte.
func padded(b *strings.Builder, cell string, width int, right, last bool) {
	blanks := strings.Repeat(" ", max(0, int(int8(width-len(cell)))))
	switch {
	case right:
		b.WriteString(blanks + cell)
	case last:
		b.WriteString(cell)
	default:
		b.WriteString(cell + blanks)
	}
	if !last {
		b.WriteByte(' ')
	}
}

// catTable makes a table of the columns name, http, pid and http_address, in an order.
func catTable(order []int, names []string, addresses []string, header bool) string {
	rows := [][]string{{"name", "http", "pid", "http_address"}}
	for i, name := range names {
		rows = append(rows, []string{name, addresses[i], strings.Repeat("7", i+1), addresses[i]})
	}
	if !header {
		rows = rows[1:]
	}
	var b strings.Builder
	for _, row := range rows {
		for at, column := range order {
			width := 0
			for _, other := range rows {
				width = max(width, len(other[column]))
			}
			padded(&b, row[column], width, column == 2, at == len(order)-1)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Tables as the server pads them, of names of any length: with names below 128 they become the server's own table with the
// proxy's address, with longer ones no cell but the addresses changes.
func TestCatNodesLongNames(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for n := range 4000 {
		longest := []int{20, 127, 160, 700}[n%4]
		var names, addresses, own []string
		for range 1 + rng.IntN(4) {
			names = append(names, strings.Repeat("n", 1+rng.IntN(longest)))
			addresses = append(addresses, []string{"1.2.3.4:9200", "[2001:db8::1]:19200", "127.0.0.1:1", "-"}[rng.IntN(4)])
			own = append(own, ownAddress)
			if addresses[len(addresses)-1] == "-" {
				own[len(own)-1] = "-"
			}
		}
		order := rng.Perm(4)
		header := n%3 > 0
		query := "h=name,http,pid,http_address"
		if header {
			query += "&v"
		}
		got, err := nodesExchange(t, "/_cat/nodes?"+query, "text/plain", catTable(order, names, addresses, header))
		if err != nil {
			t.Fatalf("%v\n%s", err, catTable(order, names, addresses, header))
		}
		want := catTable(order, names, own, header)
		if longest > 127 {
			got, want = strings.Join(strings.Fields(got), " "), strings.Join(strings.Fields(want), " ")
		}
		if got != want {
			t.Fatalf("got\n%s\nwant\n%s", got, want)
		}
	}
}

func TestNodesReplyRefused(t *testing.T) {
	for _, c := range []struct {
		target, kind, in string
		status           int
	}{
		{"/_nodes/http", "application/yaml", "nodes:\n  a:\n    http:\n      publish_address: \"1.2.3.4:9200\"\n", 406},
		{"/_nodes/http", "application/cbor", "\xbf\x65nodes\xbf\x61a\xbf\x64http\xbf\x6dbound_address\x9f\x6c1.2.3.4:9200\xff\xff\xff\xff\xff", 406},
		{"/_nodes/http", "application/smile", ":)\n\x01\xfa\x84nodes\xfa\x80a\xfa\x83http\xfa\x8epublish_address\x4b1.2.3.4:9200\xfb\xfb\xfb\xfb", 406},
		{"/_cat/nodes?h=http", "application/smile", "", 406},
		{"/_nodes/http", "application/json", `{"nodes":{"a":{"http":{"publish_address":"1.2.3.4:9200"`, 502},
		{"/_nodes/http", "application/json", `{"nodes":{/**/"a":{"http":{"publish_address":"1.2.3.4:9200"}}}}`, 502},
		{"/_nodes/http", "application/json", `{"nodes":{}} {"nodes":{"a":{"http":{"publish_address":"1.2.3.4:9200"}}}}`, 502},
		{"/_cat/nodes?h=http,ip&v", "text/plain", "http ip\n1.2.3.4:9200 x\n", 502},
		{"/_cat/nodes?h=http,ip&v", "text/plain", "http ip\nx 1.2.3.4:9200\n", 502},
		{"/_cat/nodes?h=name,http&v", "text/plain", "name http\na longer 1.2.3.4:9200\n", 502},
		{"/_cat/nodes?h=name,http", "text/plain", "name 1.2.3.4:9200\na longer 1.2.3.4:9200\n", 502},
		{"/_cat/nodes?h=http", "text/plain", "http\n\xff\n", 502},
		{"/_cat/nodes?h=name,master,http&v", "text/plain", "name master http\nlonger-name -      1.2.3.4:9200\na b c d     *      1.2.3.4:9200\n", 502},
		{"/_cat/nodes?h=name,master,http,pid&v", "text/plain", "name master http pid\na b - 1.2.3.4:9200 \n", 502},
	} {
		out, err := nodesExchange(t, c.target, c.kind, c.in)
		var f *Fault
		if !errors.As(err, &f) || f.Status != c.status || strings.Contains(out, "1.2.3.4") {
			t.Errorf("%s %s %q: got %q, %v; want %d", c.target, c.kind, c.in, out, err, c.status)
		}
	}
	e, _, _ := fakeEngine(t)
	call := &Call{Method: "GET", Path: "/_nodes/http", Caller: &fakeCaller{}}
	if _, err := e.Plan(context.Background(), call); err == nil {
		t.Error("a request without an address passes")
	}
	e.PublishAddress = ownAddress
	if p, err := e.Plan(context.Background(), call); err != nil || p.Transform == nil {
		t.Errorf("with an address of its own: %v", err)
	}
	e.PassAddresses = true
	if p, err := e.Plan(context.Background(), call); err != nil || p.Transform != nil {
		t.Errorf("with addresses passed: %v", err)
	}
}

// What is handed on has no address but the proxy's where clients look for addresses.
func FuzzNodesReply(f *testing.F) {
	f.Add([]byte(`{"nodes":{"a":{"http":{"bound_address":["1.2.3.4:9200"],"publish_address":"h/1.2.3.4:9200"}}}}`))
	f.Add([]byte(`{"nodes":{"a":{"http":{"publish_address":{"publish_address":1}}},"a":{"http":[]}}}`))
	f.Fuzz(func(t *testing.T, reply []byte) {
		n := &nodeReply{eng: &Engine{Budget: &fakeBudget{}, Limits: Limits{MaxHit: 1 << 20}}, address: ownAddress}
		var out bytes.Buffer
		if n.json(context.Background(), bytes.NewReader(reply), &out) == nil {
			var got struct {
				Nodes map[string]struct {
					HTTP struct {
						Publish any `json:"publish_address"`
					} `json:"http"`
				} `json:"nodes"`
			}
			d := json.NewDecoder(&out)
			if d.Decode(&got) == nil {
				for _, node := range got.Nodes {
					if a := node.HTTP.Publish; a != nil && a != "-" && a != ownAddress {
						t.Errorf("%q leaves %v", reply, a)
					}
				}
			}
		}
		n.cat, out = true, bytes.Buffer{}
		_ = n.text(context.Background(), bytes.NewReader(reply), &out) // must not panic
		n.header, out = true, bytes.Buffer{}
		_ = n.text(context.Background(), bytes.NewReader(reply), &out)
	})
}

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/envelope"
)

// way is one way to a real Elasticsearch, with an index of its own.
type way struct {
	name, base, index, header string
	proc                      *child
	ring                      *envelope.Keyring // if not nil, the client seals what it sends
	next                      int               // number of the next document

	docs, search []float64       // per second, by round
	bulkTimes    []time.Duration // of all requests that count
	searchTimes  []time.Duration
	cpu          float64 // seconds, of bulks
	indexed      int
	store        int64 // bytes after a merge
}

// directSealed is what Elasticsearch alone makes of documents that are sealed: no proxy can be faster.
const directSealed = "direct, sealed"

// esBatch is how many documents one bulk holds.
const esBatch = 1000

// benchElasticsearch writes the same documents directly, through the reverse proxy and through esproxy, and then
// searches them.
func benchElasticsearch(o *options) error {
	l, err := newLab(o)
	if err != nil {
		return err
	}
	defer l.close()
	l.up = strings.TrimSuffix(o.es, "/")
	pass, err := startSelf("rp", "UPSTREAM="+l.up)
	if err != nil {
		return err
	}
	defer pass.stop()
	ring, err := newRing(l.key, envelope.GCM)
	if err != nil {
		return err
	}
	ways := []*way{
		{name: direct, base: l.up, index: "user-bench-direct"},
		{name: directSealed, base: l.up, index: "user-bench-sealed", ring: ring},
		{name: rp, base: "http://" + pass.addr, index: "user-bench-rp", proc: pass},
	}
	for _, suite := range []string{"gcm", "eax"} {
		p, err := l.proxy(suite)
		if err != nil {
			return err
		}
		defer p.stop()
		ways = append(ways, &way{name: "esproxy-" + suite, base: "http://" + p.addr, index: "user-bench-" + suite, header: l.token, proc: p})
	}
	admin := &http.Client{Timeout: timeout}
	for _, w := range ways {
		if err := w.create(admin, l.up); err != nil {
			return err
		}
		defer w.drop(admin, l.up)
	}
	requests, clients := 8, 4
	if o.quick {
		requests = 3
	}
	c := newCorpus()
	for round := range o.rounds + 2 { // Elasticsearch's own warm-up takes two
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			if err := w.bulk(c, clients, requests, round > 1); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		fmt.Fprint(os.Stderr, ".")
	}
	for _, w := range ways {
		if err := w.settle(admin, l.up); err != nil {
			return fmt.Errorf("%s: %w", w.name, err)
		}
	}
	for round := range o.rounds + 2 {
		for i := range ways {
			w := ways[(i+round)%len(ways)]
			if err := w.searches(clients, 50*requests, round > 1); err != nil {
				return fmt.Errorf("%s: %w", w.name, err)
			}
		}
		fmt.Fprint(os.Stderr, ".")
	}
	fmt.Fprintln(os.Stderr)
	return printElasticsearch(o, l, ways)
}

func printElasticsearch(o *options, l *lab, ways []*way) error {
	fmt.Printf("commit %s, %s, %s\n\n", l.commit, machine(), o.es)
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "way\tdocs/s\t/ direct [min..max]\tbulk p50 ms\tp99 ms\tproxy CPU µs/doc\tsearches/s\t/ direct [min..max]\tsearch p50 ms\tp99 ms\tstore bytes/doc")
	base := ways[0]
	rows := []map[string]any{}
	for _, w := range ways {
		bulk, search := spread(divide(w.docs, base.docs)), spread(divide(w.search, base.search))
		ms := func(all []time.Duration, of float64) float64 {
			slices.Sort(all)
			return all[int(float64(len(all)-1)*of)].Seconds() * 1e3
		}
		row := map[string]any{
			"way": w.name, "docs_per_second": spread(w.docs), "docs_ratio": bulk, "bulk_p50_ms": ms(w.bulkTimes, .5), "bulk_p99_ms": ms(w.bulkTimes, .99),
			"cpu_us_per_doc": w.cpu * 1e6 / float64(w.indexed), "searches_per_second": spread(w.search), "search_ratio": search,
			"search_p50_ms": ms(w.searchTimes, .5), "search_p99_ms": ms(w.searchTimes, .99), "store_bytes_per_doc": float64(w.store) / float64(w.next),
		}
		rows = append(rows, row)
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%.1f\t%.1f\t%.1f\t%.0f\t%s\t%.2f\t%.2f\t%.0f\n", w.name, spread(w.docs).Median, bulk, row["bulk_p50_ms"], row["bulk_p99_ms"],
			row["cpu_us_per_doc"], spread(w.search).Median, search, row["search_p50_ms"], row["search_p99_ms"], row["store_bytes_per_doc"])
	}
	t.Flush()
	rep := &report{Goals: newGoals()}
	for _, w := range ways {
		if w.name == gcm {
			rep.set(20, 0, spread(divide(w.docs, base.docs)))
			rep.set(20, 1, ratio{Median: p99(w) / p99(base)})
		}
	}
	rep.printGoals(os.Stdout, func(*goal) bool { return false })
	if o.json == "" {
		return nil
	}
	text, err := json.MarshalIndent(map[string]any{"commit": l.commit, "machine": machine(), "ways": rows, "goals": rep.Goals}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(o.json, append(text, '\n'), 0o644)
}

// p99 of a way's bulks, in seconds.
func p99(w *way) float64 {
	all := slices.Sorted(slices.Values(w.bulkTimes))
	return all[(len(all)-1)*99/100].Seconds()
}

// ask sends one management request straight to Elasticsearch.
func ask(c *http.Client, method, url, body string) ([]byte, error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %d %.300s", method, url, resp.StatusCode, text)
	}
	return text, err
}

// create makes the way's index, with one mapping for all: what the proxy would put for the protected fields.
func (w *way) create(c *http.Client, up string) error {
	ask(c, "DELETE", up+"/"+w.index+"?ignore_unavailable=true", "")
	var fields []string
	for _, p := range protectedPaths {
		fields = append(fields, `"`+p+`":{"type":"keyword","index":false,"doc_values":false,"ignore_above":2147483647}`)
	}
	_, err := ask(c, "PUT", up+"/"+w.index, `{"settings":{"number_of_shards":1,"number_of_replicas":0},"mappings":{"properties":{`+strings.Join(fields, ",")+`}}}`)
	return err
}

func (w *way) drop(c *http.Client, up string) {
	ask(c, "DELETE", up+"/"+w.index+"?ignore_unavailable=true", "")
}

// settle makes the store comparable: one segment.
func (w *way) settle(c *http.Client, up string) error {
	if _, err := ask(c, "POST", up+"/"+w.index+"/_forcemerge?max_num_segments=1&flush=true", ""); err != nil {
		return err
	}
	if _, err := ask(c, "POST", up+"/"+w.index+"/_refresh", ""); err != nil {
		return err
	}
	stats, err := ask(c, "GET", up+"/"+w.index+"/_stats/store,docs", "")
	if err != nil {
		return err
	}
	w.store = gjson.GetBytes(stats, "_all.primaries.store.size_in_bytes").Int()
	if n := gjson.GetBytes(stats, "_all.primaries.docs.count").Int(); n != int64(w.next) {
		return fmt.Errorf("%d documents are stored, %d were written", n, w.next)
	}
	return nil
}

// each runs f n times on each of several connections.
func (w *way) each(clients, n int, f func(c *client, i, k int) (answer, error)) (times []time.Duration, took time.Duration, err error) {
	all := make([][]time.Duration, clients)
	errs := make([]error, clients)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			c := newClient(strings.TrimPrefix(w.base, "http://"))
			defer c.close()
			for k := range n {
				a, err := f(c, i, k)
				if err != nil {
					errs[i] = err
					return
				}
				all[i] = append(all[i], a.total)
			}
		})
	}
	wg.Wait()
	took = time.Since(begin)
	for _, err := range errs {
		if err != nil {
			return nil, 0, err
		}
	}
	return slices.Concat(all...), took, nil
}

func (w *way) bulk(c *corpus, clients, n int, counts bool) error {
	bodies := make([]*body, clients*n)
	for i := range bodies {
		block := bytes.Clone(c.block[:esBatch*c.stride])
		c.number(block, w.next, esBatch)
		w.next += esBatch
		if w.ring != nil {
			var err error
			if block, err = sealBlock(w.ring, block); err != nil {
				return err
			}
		}
		bodies[i] = &body{data: block, size: int64(len(block)), docs: esBatch}
	}
	var before time.Duration
	var err error
	if w.proc != nil {
		if before, err = w.proc.cpu(); err != nil {
			return err
		}
	}
	times, took, err := w.each(clients, n, func(conn *client, i, k int) (answer, error) {
		a, err := conn.do("/"+w.index+"/_bulk?filter_path=errors,items.*.error", "", bodies[i*n+k], true)
		if err == nil && gjson.GetBytes(a.body, "errors").Raw != "false" {
			err = fmt.Errorf("items failed: %.300s", a.body)
		}
		return a, err
	})
	if err != nil || !counts {
		return err
	}
	w.bulkTimes = append(w.bulkTimes, times...)
	w.docs = append(w.docs, float64(clients*n*esBatch)/took.Seconds())
	w.indexed += clients * n * esBatch
	if w.proc != nil {
		after, err := w.proc.cpu()
		if err != nil {
			return err
		}
		w.cpu += (after - before).Seconds()
	}
	return nil
}

// sealBlock seals the documents of a bulk.
func sealBlock(ring *envelope.Keyring, block []byte) ([]byte, error) {
	var out []byte
	for i, line := range bytes.Split(bytes.TrimSuffix(block, []byte("\n")), []byte("\n")) {
		if i%2 == 1 {
			var err error
			if line, err = sealNaive(ring, line); err != nil {
				return nil, err
			}
		}
		out = append(append(out, line...), '\n')
	}
	return out, nil
}

// searches asks for ten documents of random words; through esproxy with a token, so that they are opened.
func (w *way) searches(clients, n int, counts bool) error {
	header := ""
	if w.header != "" {
		header = "X-Esproxy-Authorization: Bearer " + w.header + "\r\n"
	}
	times, took, err := w.each(clients, n, func(conn *client, i, k int) (answer, error) {
		query := fmt.Appendf(nil, `{"size":10,"query":{"range":{"cantidad_compras_realizadas":{"gte":%d}}}}`, 60000+(i*n+k)*37%9000)
		a, err := conn.do("/"+w.index+"/_search", header, &body{data: query, size: int64(len(query))}, true)
		if err == nil && w.ring == nil && !bytes.Contains(a.body, []byte(canary)) {
			err = fmt.Errorf("no plaintext in the reply: %.300s", a.body)
		}
		return a, err
	})
	if err != nil || !counts {
		return err
	}
	w.searchTimes = append(w.searchTimes, times...)
	w.search = append(w.search, float64(clients*n)/took.Seconds())
	return nil
}

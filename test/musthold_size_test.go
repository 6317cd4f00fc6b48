package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// resident gives the most memory that the proxy had resident so far, in bytes (VmHWM).
func (s *stack) resident() int64 {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		s.t.Skipf("the system does not tell a process's memory: %v", err)
	}
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(rest, "kB")), 10, 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n << 10
		}
	}
	s.t.Fatal("no VmHWM")
	return 0
}

// repeated reads a block again and again.
type repeated struct {
	block []byte
	times int
	at    int
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.times == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.block[r.at:])
	if r.at += n; r.at == len(r.block) {
		r.at, r.times = 0, r.times-1
	}
	return n, nil
}

// drain is an upstream that reads bulks without keeping them.
type drain struct {
	lines, sealed, canaries int
	err                     error
}

// canaryMark cannot be a part of sealed values, where a full stop stands behind the prefix alone: one gigabyte of them in eighty holds six
// given letters.
const canaryMark = "c4n.4ry"

func (d *drain) read(r io.Reader) {
	buf := make([]byte, 1<<20)
	const overlap = 16 // longer than what is looked for
	kept := 0
	for {
		n, err := r.Read(buf[kept:])
		part := buf[:kept+n]
		d.lines += bytes.Count(part[kept:], []byte{'\n'})
		// What begins in the overlap is counted once it is whole: a match must end in the new bytes.
		from := max(0, kept-len(canaryMark)+1)
		d.canaries += bytes.Count(part[from:], []byte(canaryMark))
		from = max(0, kept-len(`"esp1.`)+1)
		d.sealed += bytes.Count(part[from:], []byte(`"esp1.`))
		if err != nil {
			if err != io.EOF {
				d.err = err
			}
			return
		}
		kept = copy(buf, part[max(0, len(part)-overlap):])
	}
}

// TestGigabyteBulk sends one bulk of a gigabyte (64 MB with -short) and looks at the memory that the proxy takes.
func TestGigabyteBulk(t *testing.T) {
	const limit = 96 << 20
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/1", `{"username":"Ana","credit_card_num":"1"}`), 201)
	s.stop()
	s.rec.mu.Lock()
	s.rec.before = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if !strings.HasPrefix(r.RequestURI, "/_nodes/http") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"nodes":{"a":{"http":{"max_content_length_in_bytes":8589934592}}}}`)
		return true
	}
	s.rec.mu.Unlock()
	s.run() // asks for the limit anew

	var block bytes.Buffer
	perBlock := 0
	for ; block.Len() < 4<<20; perBlock++ {
		fmt.Fprintf(&block, `{"index":{"_index":"%suser","_id":"%d"}}`+"\n"+
			`{"username":"user-%d","credit_card_num":"%s-%08d-5169","credit_card_ccv":"%s","cuenta_numero":"%s%d","text":%q,"n":%d}`+"\n",
			s.prefix, perBlock, perBlock%977, canaryMark, perBlock, canaryMark, canaryMark, perBlock, strings.Repeat("lorem ipsum ", 30), perBlock)
	}
	times := (1 << 30) / block.Len()
	if testing.Short() {
		times = (64 << 20) / block.Len()
	}
	actions := times * perBlock
	var d drain
	s.rec.meet(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.RequestURI, "/_bulk") {
			return false
		}
		d.read(r.Body)
		w.Header().Set("Content-Type", "application/json")
		out := []byte(`{"took":1,"errors":false,"items":[`)
		item := []byte(`{"index":{"_index":"i","_id":"1","_version":1,"result":"created","_shards":{"total":1,"successful":1,"failed":0},"_seq_no":1,"_primary_term":1,"status":201}}`)
		for i := range d.lines / 2 {
			if i > 0 {
				out = append(out, ',')
			}
			if out = append(out, item...); len(out) > 1<<16 {
				w.Write(out)
				out = out[:0]
			}
		}
		w.Write(append(out, "]}"...))
		return true
	})
	begun := time.Now()
	before := s.resident()
	req, err := http.NewRequest("POST", s.url+"/_bulk", &repeated{block: block.Bytes(), times: times})
	if err != nil {
		t.Fatal(err)
	}
	req.ContentLength = int64(times * block.Len())
	req.Header.Set("Content-Type", "application/x-ndjson")
	res, err := passer.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	items, size, last := 0, 0, ""
	buf := make([]byte, 1<<20)
	kept := 0
	for {
		n, err := res.Body.Read(buf[kept:])
		part := buf[:kept+n]
		size += n
		last = tail(string(part[max(0, len(part)-40):]), 40)
		i := bytes.LastIndex(part, []byte(`"status":201`))
		if i >= 0 {
			items += bytes.Count(part, []byte(`"status":201`))
			part = part[i+len(`"status":201`):]
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kept = copy(buf, part[max(0, len(part)-len(`"status":201`)):])
	}
	took, peak := time.Since(begun), s.resident()
	t.Logf("%d MiB in %v, %d actions; resident at most %.1f MiB, %.1f before", times*block.Len()>>20, took.Round(time.Millisecond), actions, float64(peak)/(1<<20), float64(before)/(1<<20))
	if res.StatusCode != 200 || items != actions || !strings.HasSuffix(last, "]}") {
		t.Errorf("status %d, %d items of %d in %d bytes, ending in %q", res.StatusCode, items, actions, size, last)
	}
	if d.err != nil || d.lines != 2*actions || d.sealed != 3*actions || d.canaries != 0 {
		t.Errorf("upstream read %d lines of %d, %d sealed values of %d, %d plain ones, error %v", d.lines, 2*actions, d.sealed, 3*actions, d.canaries, d.err)
	}
	if peak > limit {
		t.Errorf("resident %d bytes, more than %d", peak, limit)
	}
}

// TestSlowClients has 100 clients at once that send and read slowly. Each must get its whole, right answer.
func TestSlowClients(t *testing.T) {
	t.Parallel()
	const clients, docs = 100, 40
	s := start(t, config{})
	token := s.token("full")
	var b strings.Builder
	for i := range docs {
		fmt.Fprintf(&b, "{\"index\":{\"_id\":\"%d\"}}\n{\"username\":\"u%d\",\"credit_card_num\":\"card-%d\",\"text\":%q}\n", i, i, i, strings.Repeat("y", 30_000))
	}
	if a := s.must(s.do("POST", "/$Puser/_bulk?refresh=true", b.String()), 200); a.json("errors").Bool() {
		t.Fatal(tail(a.body, 1000))
	}

	// Every client writes half of its bulk, waits until all have, writes the rest; then it asks for all documents,
	// reads a little, waits until all have, and reads the rest.
	var half, begun sync.WaitGroup
	half.Add(clients)
	begun.Add(clients)
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			body := fmt.Sprintf("{\"index\":{\"_id\":\"c%d-0\"}}\n{\"username\":\"c%d\",\"credit_card_num\":\"slow-%d\"}\n{\"index\":{\"_id\":\"c%d-1\"}}\n{\"credit_card_num\":\"slow-%d\"}\n", c, c, c, c, c)
			pr, pw := io.Pipe()
			go func() {
				io.WriteString(pw, body[:len(body)/2])
				half.Done()
				half.Wait()
				io.WriteString(pw, body[len(body)/2:])
				pw.Close()
			}()
			req, err := http.NewRequest("POST", s.url+"/"+s.prefix+"user/_bulk", pr)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/x-ndjson")
			res, err := passer.Do(req)
			if err != nil {
				t.Errorf("client %d: %v", c, err)
				begun.Done()
				return
			}
			reply, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil || res.StatusCode != 200 || gjson.GetBytes(reply, "items.#").Int() != 2 ||
				gjson.GetBytes(reply, "items.0.index.status").Int() != 201 || gjson.GetBytes(reply, "items.1.index.error.type").String() != "esproxy_subject" {
				t.Errorf("client %d: status %d, error %v\n%s", c, res.StatusCode, err, tail(string(reply), 500))
			}

			req, err = http.NewRequest("POST", s.url+"/"+s.prefix+"user/_search", strings.NewReader(fmt.Sprintf(`{"size":%d,"query":{"exists":{"field":"text"}}}`, docs)))
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-Esproxy-Authorization", "Bearer "+token)
			res, err = passer.Do(req)
			if err != nil {
				t.Errorf("client %d: %v", c, err)
				begun.Done()
				return
			}
			defer res.Body.Close()
			first := make([]byte, 100)
			_, err = io.ReadFull(res.Body, first)
			begun.Done()
			if err != nil {
				t.Errorf("client %d: status %d: %v", c, res.StatusCode, err)
				return
			}
			begun.Wait()
			rest, err := io.ReadAll(res.Body)
			got := gjson.ParseBytes(append(first, rest...))
			if err != nil || res.StatusCode != 200 {
				t.Errorf("client %d: status %d, error %v", c, res.StatusCode, err)
				return
			}
			right := 0
			for _, hit := range got.Get("hits.hits").Array() {
				if hit.Get("_source.credit_card_num").String() == "card-"+hit.Get("_id").String() {
					right++
				}
			}
			if right != docs {
				t.Errorf("client %d: %d right documents of %d in %d bytes", c, right, docs, len(rest))
			}
		})
	}
	all.Wait()
	t.Logf("resident at most %.1f MiB", float64(s.resident())/(1<<20))
}

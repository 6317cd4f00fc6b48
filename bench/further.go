package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// further measures what is no throughput: memory, start-up, scaling, a long mixed run.
func (r *report) further(l *lab) error {
	for _, step := range []struct {
		name string
		do   func(*lab) error
	}{
		{"memory", r.memory}, {"start-up", r.startup}, {"mixed requests", r.mixed}, {"beside the code", r.micro},
	} {
		if !strings.Contains(step.name, l.only) {
			continue
		}
		if err := step.do(l); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "%s\n", step.name)
	}
	return nil
}

// peakOf is the peak memory of a fresh esproxy after clients requests at once.
func peakOf(l *lab, b *body, clients int) (int64, error) {
	p, err := l.proxy("gcm")
	if err != nil {
		return 0, err
	}
	defer p.stop()
	w := &workload{Clients: clients, body: b, bulk: true}
	t := &target{proc: p, path: "/user/_bulk", sealed: true}
	if _, err := measure(w, t, 1); err != nil {
		return 0, err
	}
	return p.peak()
}

func (r *report) memory(l *lab) error {
	c := newCorpus()
	ten, err := peakOf(l, c.stream(10_000_000), 1)
	if err != nil {
		return err
	}
	r.Peaks = append(r.Peaks, peakRow{"one bulk of 10 MB", ten})
	nine, err := peakOf(l, c.stream(10_000_000), 9)
	if err != nil {
		return err
	}
	r.Peaks = append(r.Peaks, peakRow{"nine bulks of 10 MB at once", nine})
	r.set(12, 0, ratio{Median: float64(nine-ten) / 8 / (1 << 20)})
	if l.huge {
		one, err := peakOf(l, c.stream(1_000_000_000), 1)
		if err != nil {
			return err
		}
		r.Peaks = append(r.Peaks, peakRow{"one bulk of 1 GB", one})
		r.set(11, 0, ratio{Median: float64(one) / (1 << 20)})
		r.set(11, 1, ratio{Median: float64(one) / float64(ten)})
	}
	return nil
}

// startup times from the start of the process to its first answer.
func (r *report) startup(l *lab) error {
	once := func(start func(addr string) (*child, error)) (float64, error) {
		addr, err := freeAddr()
		if err != nil {
			return 0, err
		}
		begin := time.Now()
		answered := make(chan error, 1)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		go func() {
			for {
				req, _ := http.NewRequestWithContext(ctx, "GET", "http://"+addr+"/", nil)
				resp, err := http.DefaultClient.Do(req)
				if err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
					if resp.StatusCode == 200 {
						answered <- nil
						return
					}
				}
				select {
				case <-ctx.Done():
					answered <- errors.New("no answer")
					return
				case <-time.After(200 * time.Microsecond):
				}
			}
		}()
		p, err := start(addr)
		if err != nil {
			return 0, err
		}
		defer p.stop()
		if err := <-answered; err != nil {
			return 0, err
		}
		return time.Since(begin).Seconds(), nil
	}
	var all []float64
	for i := range 3*l.rounds + 1 {
		plain, err := once(func(addr string) (*child, error) { return startSelf("rp", "UPSTREAM="+l.up, "LISTEN="+addr) })
		if err != nil {
			return err
		}
		ours, err := once(func(addr string) (*child, error) { return l.proxy("gcm", "ESPROXY_LISTEN="+addr) })
		if err != nil {
			return err
		}
		if i > 0 {
			all = append(all, ours/plain)
		}
	}
	r.set(17, 0, spread(all))
	return nil
}

// mixed sends many requests of all kinds at once. Every answer is checked.
func (r *report) mixed(l *lab) error {
	p, err := l.proxy("gcm")
	if err != nil {
		return err
	}
	defer p.stop()
	c := newCorpus()
	type kind struct {
		w    workload
		t    target
		want int64
	}
	query := []byte(`{"query":{"match_all":{}}}`)
	kinds := func() (out []*kind) {
		for _, size := range []int{1, 1, 1, 20_000, 300_000} {
			out = append(out, &kind{w: workload{body: c.bulk(size), bulk: true}, t: target{path: "/user/_bulk", sealed: true}})
		}
		out = append(out, &kind{w: workload{body: c.bulk(1), bulk: true}, t: target{path: "/free/_bulk"}})
		for _, h := range []string{"2KB", "2KB", "200KB"} {
			for _, g := range []string{"", l.grant()} {
				out = append(out, &kind{w: workload{body: &body{data: query, size: int64(len(query))}}, t: target{path: "/user/_search", header: replyHeader + ": " + h + "\r\n" + g, opened: g != ""}})
			}
		}
		return out
	}
	const clients = 8
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(i)))
			conn := newClient(p.addr)
			defer conn.close()
			mine := kinds()
			for range l.options.mixed / clients {
				k := mine[rnd.IntN(len(mine))]
				a, err := conn.do(k.t.path, k.t.header, k.w.body, k.w.bulk)
				switch {
				case err != nil:
				case k.w.bulk:
					err = checkBulk(&k.w, &k.t, a.body)
				case k.want == 0:
					k.want = a.size
				case k.want != a.size:
					err = fmt.Errorf("a reply of %d bytes, want %d", a.size, k.want)
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	r.Mixed = l.options.mixed / clients * clients
	if r.Mixed >= 100_000 {
		r.set(19, 0, ratio{}) // the first wrong one ends the run
	}
	return nil
}

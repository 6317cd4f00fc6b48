package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tidwall/gjson"
)

// target is one way from the client to the sink, or a piece of work in this process to compare with.
type target struct {
	Name   string
	proc   *child
	path   string // of the request
	header string
	sealed bool                         // nothing plain may reach the sink
	opened bool                         // the reply must hold plaintext
	local  func() (docs int, err error) // instead of requests
	body   *body                        // instead of the workload's
}

// workload is one row of the benchmark: the same requests to every target.
type workload struct {
	Name    string
	Clients int
	body    *body
	bulk    bool
	short   bool // one small request is short: three times as many rounds, each of a third
	large   bool // a few rounds do
	targets []*target
}

func (w *workload) bodyOf(t *target) *body {
	if t.body != nil {
		return t.body
	}
	return w.body
}

// sample is what one target did in one round.
type sample struct {
	Requests int           `json:"requests"`
	Seconds  float64       `json:"seconds"`
	Bytes    int64         `json:"bytes"` // of plain bulk bodies, or of replies
	Docs     int           `json:"docs"`
	CPU      float64       `json:"cpu_seconds"`
	P50      time.Duration `json:"p50_ns"`
	P99      time.Duration `json:"p99_ns"`
	First    time.Duration `json:"first_byte_p50_ns"`
}

// result is a workload's samples: by target, by round.
type result struct {
	Workload string              `json:"workload"`
	Clients  int                 `json:"clients"`
	Targets  []string            `json:"targets"`
	Samples  map[string][]sample `json:"samples"`
}

// run measures a workload in rounds. Round 0 finds how many requests fill a slot, checks the answers and is thrown away. In
// every round each target has its turn, in another order.
func run(w *workload, rounds int, slot time.Duration) (*result, error) {
	res := &result{Workload: w.Name, Clients: w.Clients, Samples: map[string][]sample{}}
	for _, t := range w.targets {
		res.Targets = append(res.Targets, t.Name)
	}
	counts := make([]int, len(w.targets))
	switch {
	case w.short:
		rounds, slot = rounds*3, slot/3
	case w.large:
		rounds = min(rounds, 3)
	}
	for round := range rounds + 1 {
		for i := range w.targets {
			at := (i + round) % len(w.targets)
			t := w.targets[at]
			if round == 0 {
				n, err := calibrate(w, t, slot)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", w.Name, t.Name, err)
				}
				counts[at] = n
				continue
			}
			s, err := measure(w, t, counts[at])
			if err != nil {
				return nil, fmt.Errorf("%s, %s: %w", w.Name, t.Name, err)
			}
			res.Samples[t.Name] = append(res.Samples[t.Name], s)
		}
		fmt.Fprint(os.Stderr, ".")
	}
	return res, nil
}

// calibrate gives the number of requests per client that take about slot.
func calibrate(w *workload, t *target, slot time.Duration) (int, error) {
	if t.local == nil {
		c := newClient(t.proc.addr)
		defer c.close()
		a, err := c.do(t.path, t.header, w.bodyOf(t), true)
		if err != nil {
			return 0, err
		}
		if plain := bytes.Contains(a.body, []byte(canary)); plain != t.opened {
			return 0, fmt.Errorf("plaintext in the reply: %t, want %t", plain, t.opened)
		}
	}
	if w.large {
		return 1, nil
	}
	for n := 1; ; n *= 4 {
		s, err := measure(w, t, n)
		if err != nil {
			return 0, err
		}
		if took := time.Duration(s.Seconds * float64(time.Second)); took > slot/4 {
			return max(1, int(float64(n)*float64(slot)/float64(took))), nil
		}
	}
}

// measure sends n requests per client.
func measure(w *workload, t *target, n int) (sample, error) {
	if t.local != nil {
		before, err := cpuOf(os.Getpid())
		if err != nil {
			return sample{}, err
		}
		begin := time.Now()
		docs := 0
		for range n {
			d, err := t.local()
			if err != nil {
				return sample{}, err
			}
			docs += d
		}
		took := time.Since(begin)
		after, err := cpuOf(os.Getpid())
		if err != nil {
			return sample{}, err
		}
		return sample{Requests: n, Seconds: took.Seconds(), Docs: docs, CPU: (after - before).Seconds()}, nil
	}
	clients := make([]*client, w.Clients)
	for i := range clients {
		clients[i] = newClient(t.proc.addr)
		defer clients[i].close()
	}
	totals := make([][]time.Duration, w.Clients)
	firsts := make([][]time.Duration, w.Clients)
	sizes := make([]int64, w.Clients)
	errs := make([]error, w.Clients)
	before, err := t.proc.cpu()
	if err != nil {
		return sample{}, err
	}
	begin := time.Now()
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for range n {
				a, err := c.do(t.path, t.header, w.bodyOf(t), w.bulk)
				if err == nil && w.bulk {
					err = checkBulk(w, t, a.body)
				}
				if err == nil && !w.bulk && sizes[i] != 0 && sizes[i]%a.size != 0 {
					err = fmt.Errorf("a reply of %d bytes, others had another length", a.size)
				}
				if err != nil {
					errs[i] = err
					return
				}
				totals[i], firsts[i] = append(totals[i], a.total), append(firsts[i], a.first)
				sizes[i] += a.size
			}
		})
	}
	wg.Wait()
	took := time.Since(begin)
	after, err := t.proc.cpu()
	if err != nil {
		return sample{}, err
	}
	for _, err := range errs {
		if err != nil {
			return sample{}, err
		}
	}
	all := slices.Concat(totals...)
	first := slices.Concat(firsts...)
	slices.Sort(all)
	slices.Sort(first)
	s := sample{
		Requests: len(all), Seconds: took.Seconds(), CPU: (after - before).Seconds(),
		P50: all[len(all)/2], P99: all[len(all)*99/100], First: first[len(first)/2],
	}
	if w.bulk {
		b := w.bodyOf(t)
		s.Bytes, s.Docs = b.size*int64(len(all)), b.docs*len(all)
	} else {
		for _, n := range sizes {
			s.Bytes += n
		}
	}
	return s, nil
}

// checkBulk holds the sink's count against what was sent.
func checkBulk(w *workload, t *target, reply []byte) error {
	docs, plain := gjson.GetBytes(reply, "docs"), gjson.GetBytes(reply, "plain")
	if !docs.Exists() || !plain.Exists() {
		return fmt.Errorf("not the sink's answer: %.200s", reply)
	}
	b := w.bodyOf(t)
	if b.gzip && !t.sealed {
		return nil // the sink got the packed bytes
	}
	if docs.Int() != int64(b.docs) {
		return fmt.Errorf("the sink counted %d documents of %d", docs.Int(), b.docs)
	}
	if plain.Bool() == t.sealed {
		return fmt.Errorf("plaintext at the sink: %t", plain.Bool())
	}
	return nil
}

// ratio is the median of per-round ratios, with the smallest and the largest.
type ratio struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (r ratio) String() string {
	if r.Min == 0 && r.Max == 0 { // measured once
		return fmt.Sprintf("%.3f", r.Median)
	}
	return fmt.Sprintf("%.3f [%.3f..%.3f]", r.Median, r.Min, r.Max)
}

// perRound applies f to the rounds' samples of some targets.
func (r *result) perRound(f func(s ...sample) float64, targets ...string) ratio {
	var all []float64
	for round := range r.Samples[targets[0]] {
		row := make([]sample, len(targets))
		for i, t := range targets {
			row[i] = r.Samples[t][round]
		}
		all = append(all, f(row...))
	}
	return spread(all)
}

func spread(all []float64) ratio {
	if len(all) == 0 {
		return ratio{}
	}
	all = slices.Sorted(slices.Values(all))
	m := all[len(all)/2]
	if len(all)%2 == 0 {
		m = (m + all[len(all)/2-1]) / 2
	}
	return ratio{m, all[0], all[len(all)-1]}
}

// throughput is requests per second of a over those of b.
func throughput(s ...sample) float64 {
	return (float64(s[0].Requests) / s[0].Seconds) / (float64(s[1].Requests) / s[1].Seconds)
}

func cpuPerDoc(s sample) float64 { return s.CPU / float64(s.Docs) }

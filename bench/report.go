package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// report is everything one run found.
type report struct {
	Commit  string    `json:"commit"`
	Machine string    `json:"machine"`
	Results []*result `json:"results"`
	Peaks   []peakRow `json:"peaks"`
	Pairs   []pair    `json:"beside_the_code"`
	Mixed   int       `json:"mixed_requests"` // that were all answered right
	Goals   []*goal   `json:"goals"`
}

type peakRow struct {
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
}

func machine() string {
	model := ""
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if rest, ok := strings.CutPrefix(line, "model name"); ok {
				model = ", " + strings.TrimSpace(strings.TrimLeft(strings.TrimSpace(rest), ":"))
				break
			}
		}
	}
	return fmt.Sprintf("%s, %d cores%s", runtime.Version(), runtime.NumCPU(), model)
}

func (r *report) find(name string, clients int) *result {
	for _, res := range r.Results {
		if res.Workload == name && res.Clients == clients {
			return res
		}
	}
	return nil
}

// judge computes the ratios that the goals speak of from the workloads that were run.
func (r *report) judge() {
	add := func(number, nth int, workload string, clients int, f func(s ...sample) float64, targets ...string) {
		if res := r.find(workload, clients); res != nil {
			r.set(number, nth, res.perRound(f, targets...))
		}
	}
	added := func(s ...sample) float64 { return float64(s[0].P50-s[2].P50) / float64(s[1].P50-s[2].P50) }
	cpu := func(s ...sample) float64 { return cpuPerDoc(s[0]) / cpuPerDoc(s[1]) }
	add(1, 0, "bulk 10 MB", 4, throughput, gcm, rp)
	add(2, 0, "bulk 100 MB", 1, throughput, gcm, rp)
	above := func(s ...sample) float64 { return cpuPerDoc(s[0]) / (1.5*cpuPerDoc(s[1]) + cpuPerDoc(s[2])) }
	add(3, 0, "bulk 10 MB", 1, above, gcm, rp, cryptoOnly)
	add(3, 1, "bulk 10 MB", 1, above, gcm, rp, cryptoBusy)
	if res := r.find("bulk 10 MB", 1); res != nil {
		r.Pairs = append(r.Pairs, pair{"all processors / one, cryptography alone", res.perRound(func(s ...sample) float64 {
			return float64(s[1].Docs) / s[1].Seconds / (float64(s[0].Docs) / s[0].Seconds)
		}, cryptoOnly, cryptoBusy)})
	}
	add(4, 0, "bulk 10 MB", 1, cpu, naive, gcm)
	add(7, 0, "search 2KB", 4, throughput, gcm, rp)
	add(8, 0, "search 2KB", 1, added, gcm, rp, direct)
	add(9, 0, "bulk 1 doc", 1, func(s ...sample) float64 { return float64(s[0].P50-s[1].P50) / float64(time.Microsecond) }, gcm, rp)
	add(10, 0, "bulk 10 MB", 1, throughput, pass, rp)
	add(10, 1, "bulk 10 MB", 4, throughput, pass, rp)
	add(13, 0, "search 10000 hits", 1, func(s ...sample) float64 { return float64(s[0].P50) / float64(s[1].P50) }, granted, rp)
	add(14, 0, "search 10000 hits", 1, func(s ...sample) float64 { return float64(s[0].First) / float64(s[1].First) }, granted, rp)
	extra := func(s ...sample) float64 { return (cpuPerDoc(s[0]) - cpuPerDoc(s[1])) / cpuPerDoc(s[2]) }
	add(15, 0, "bulk 10 MB gzip", 1, extra, pass, unpackedP, gunzipOnly)
	add(15, 1, "bulk 10 MB gzip", 1, extra, gcm, unpacked, gunzipOnly)
	add(18, 0, "bulk 10 MB", 1, cpu, eax, gcm)
}

// print writes the tables for people.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "commit %s, %s\n\n", r.Commit, r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	if len(r.Results) > 0 {
		fmt.Fprintln(t, "workload\tclients\ttarget\tMB/s\tdocs/s\trequests/s\tCPU ms/MB\tp50 µs\tp99 µs\tthroughput / rp [min..max]")
	}
	for _, res := range r.Results {
		for _, name := range res.Targets {
			if len(res.Samples[name]) == 0 {
				continue
			}
			mid := func(f func(s sample) float64) float64 {
				return res.perRound(func(s ...sample) float64 { return f(s[0]) }, name).Median
			}
			over := ""
			if name != rp && res.Samples[rp] != nil && name != cryptoOnly && name != cryptoBusy && name != gunzipOnly {
				over = res.perRound(throughput, name, rp).String()
			}
			mb := func(s sample) float64 { return float64(s.Bytes) / 1e6 }
			fmt.Fprintf(t, "%s\t%d\t%s\t%.0f\t%.0f\t%.0f\t%.2f\t%.0f\t%.0f\t%s\n", res.Workload, res.Clients, name,
				mid(func(s sample) float64 { return mb(s) / s.Seconds }), mid(func(s sample) float64 { return float64(s.Docs) / s.Seconds }),
				mid(func(s sample) float64 { return float64(s.Requests) / s.Seconds }), mid(func(s sample) float64 { return finite(s.CPU * 1e3 / mb(s)) }),
				mid(func(s sample) float64 { return s.P50.Seconds() * 1e6 }), mid(func(s sample) float64 { return s.P99.Seconds() * 1e6 }), over)
		}
	}
	t.Flush()
	fmt.Fprintln(w)
	for _, p := range r.Peaks {
		fmt.Fprintf(t, "peak memory, %s\t%.1f MiB\n", p.Name, float64(p.Bytes)/(1<<20))
	}
	t.Flush()
	if len(r.Pairs) > 0 {
		fmt.Fprintln(w)
		for _, p := range r.Pairs {
			fmt.Fprintf(t, "%s\t%s\n", p.Name, p.Ratio)
		}
		t.Flush()
	}
	if r.Mixed > 0 {
		fmt.Fprintf(w, "\n%d mixed requests of 8 clients, each answer checked\n", r.Mixed)
	}
	r.printGoals(w, func(g *goal) bool { return g.Number != 20 })
}

func finite(v float64) float64 {
	if v != v || v > 1e12 {
		return 0
	}
	return v
}

// benchstat writes one line for each sample.
func (r *report) benchstat(w io.Writer) {
	fmt.Fprintf(w, "commit: %s\nmachine: %s\n", r.Commit, r.Machine)
	for _, res := range r.Results {
		for _, name := range res.Targets {
			for _, s := range res.Samples[name] {
				fmt.Fprintf(w, "Benchmark%s/target=%s-%d %d %.0f ns/op %.0f cpu-ns/op %.2f MB/s %d p50-ns %d p99-ns\n",
					strings.ReplaceAll(title(res.Workload), " ", "_"), name, res.Clients, s.Requests,
					s.Seconds*1e9/float64(s.Requests), s.CPU*1e9/float64(s.Requests), float64(s.Bytes)/1e6/s.Seconds, s.P50, s.P99)
			}
		}
	}
}

func title(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

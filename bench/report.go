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
	Commit  string           `json:"commit"`
	Machine string           `json:"machine"`
	Results []*result        `json:"results"`
	Peaks   []peakRow        `json:"peaks"`
	Goals   map[string]ratio `json:"goals"`
	order   []string
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

func (r *report) goal(name string, v ratio) {
	r.Goals[name] = v
	r.order = append(r.order, name)
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
	add := func(goal, workload string, clients int, f func(s ...sample) float64, targets ...string) {
		if res := r.find(workload, clients); res != nil {
			r.goal(goal, res.perRound(f, targets...))
		}
	}
	further := r.order
	r.order = nil
	added := func(s ...sample) float64 { return float64(s[0].P50-s[2].P50) / float64(s[1].P50-s[2].P50) }
	add("1 bulk throughput / RP, 10 MB, 4 clients", "bulk 10 MB", 4, throughput, gcm, rp)
	add("2 bulk throughput / RP, 100 MB, 1 client", "bulk 100 MB", 1, throughput, gcm, rp)
	add("3 CPU / (1.5 RP's + crypto), 10 MB, 1 client", "bulk 10 MB", 1, func(s ...sample) float64 {
		return cpuPerDoc(s[0]) / (1.5*cpuPerDoc(s[1]) + cpuPerDoc(s[2]))
	}, gcm, rp, cryptoOnly)
	add("4 CPU per document, naive / esproxy", "bulk 10 MB", 1, func(s ...sample) float64 { return cpuPerDoc(s[0]) / cpuPerDoc(s[1]) }, naive, gcm)
	add("7 small searches / RP, 4 clients", "search 2KB", 4, throughput, gcm, rp)
	add("8 added p50 of a 2 KB search / RP's", "search 2KB", 1, added, gcm, rp, direct)
	add("9 p50 of a one-document bulk minus RP's, µs", "bulk 1 doc", 1, func(s ...sample) float64 { return float64(s[0].P50-s[1].P50) / float64(time.Microsecond) }, gcm, rp)
	add("10 unprotected bulk / RP, 10 MB, 1 client", "bulk 10 MB", 1, throughput, pass, rp)
	add("10 unprotected bulk / RP, 10 MB, 4 clients", "bulk 10 MB", 4, throughput, pass, rp)
	add("13 opening 10,000 hits / RP's same bytes, wall", "search 10000 hits", 1, func(s ...sample) float64 { return float64(s[0].P50) / float64(s[1].P50) }, granted, rp)
	add("14 first byte of that reply / RP's", "search 10000 hits", 1, func(s ...sample) float64 { return float64(s[0].First) / float64(s[1].First) }, granted, rp)
	add("15 extra CPU of a gzip bulk / gunzip alone", "bulk 10 MB gzip", 1, func(s ...sample) float64 {
		return (cpuPerDoc(s[0]) - cpuPerDoc(s[1])) / cpuPerDoc(s[2])
	}, gcm, unpacked, gunzipOnly)
	add("18 CPU per document, EAX / GCM", "bulk 10 MB", 1, func(s ...sample) float64 { return cpuPerDoc(s[0]) / cpuPerDoc(s[1]) }, eax, gcm)
	r.order = append(r.order, further...)
}

// print writes the tables for people.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "commit %s, %s\n\n", r.Commit, r.Machine)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "workload\tclients\ttarget\tMB/s\tdocs/s\trequests/s\tCPU ms/MB\tp50 µs\tp99 µs\tthroughput / rp [min..max]")
	for _, res := range r.Results {
		for _, name := range res.Targets {
			if len(res.Samples[name]) == 0 {
				continue
			}
			mid := func(f func(s sample) float64) float64 {
				return res.perRound(func(s ...sample) float64 { return f(s[0]) }, name).Median
			}
			over := ""
			if name != rp && res.Samples[rp] != nil && name != cryptoOnly && name != gunzipOnly {
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
	if len(r.order) > 0 {
		fmt.Fprintln(w)
		for _, name := range r.order {
			fmt.Fprintf(t, "%s\t%s\n", name, r.Goals[name])
		}
		t.Flush()
	}
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

package main

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// goal is a ratio that docs/performance.md promises or works towards.
type goal struct {
	Number  int     `json:"number"`
	Name    string  `json:"name"`
	Unit    string  `json:"unit,omitempty"`
	AtLeast bool    `json:"at_least"` // otherwise at most
	Reach   float64 `json:"reach"`
	Stretch float64 `json:"stretch"`
	Value   *ratio  `json:"value,omitempty"` // nil: not measured in this run
	Verdict string  `json:"verdict"`
}

// newGoals is the list, in the order of its numbers. A goal of several lines has them one after the other.
func newGoals() []*goal {
	return []*goal{
		{Number: 1, Name: "bulk throughput / RP, 10 MB, 4 clients", AtLeast: true, Reach: 0.18, Stretch: 0.21},
		{Number: 2, Name: "bulk throughput / RP, 100 MB, 1 client", AtLeast: true, Reach: 0.19, Stretch: 0.23},
		{Number: 3, Name: "CPU / (1.5 RP's + cryptography), 10 MB, 1 client", Reach: 1.5, Stretch: 1.35},
		{Number: 3, Name: "the same, cryptography on every processor at once", Reach: 1.5, Stretch: 1.35},
		{Number: 4, Name: "CPU per document, naive / esproxy", AtLeast: true, Reach: 2.8, Stretch: 3.2},
		{Number: 5, Name: "gjson and sjson / strict scanner", AtLeast: true, Reach: 7, Stretch: 9},
		{Number: 6, Name: "allocations per document, GCM", Reach: 4, Stretch: 4},
		{Number: 6, Name: "allocations per document, EAX", Reach: 6, Stretch: 2},
		{Number: 7, Name: "small searches / RP, 4 clients", AtLeast: true, Reach: 1.7, Stretch: 2.2},
		{Number: 8, Name: "added p50 of a 2 KB search / RP's", Reach: 0.65, Stretch: 0.55},
		{Number: 9, Name: "p50 of a one-document bulk minus RP's", Unit: "µs", Reach: -40, Stretch: -70},
		{Number: 10, Name: "unprotected bulk / RP, 10 MB, 1 client", AtLeast: true, Reach: 0.80, Stretch: 0.90},
		{Number: 10, Name: "unprotected bulk / RP, 10 MB, 4 clients", AtLeast: true, Reach: 0.80, Stretch: 0.90},
		{Number: 11, Name: "peak memory, one bulk of 1 GB", Unit: "MiB", Reach: 96, Stretch: 48},
		{Number: 11, Name: "peak of 1 GB / of 10 MB", Reach: 1.1, Stretch: 1.1},
		{Number: 12, Name: "memory per further concurrent bulk", Unit: "MiB", Reach: 2, Stretch: 1},
		{Number: 13, Name: "opening 10,000 hits / RP's same bytes, wall", Reach: 2.7, Stretch: 2.0},
		{Number: 14, Name: "first byte of that reply / RP's", Reach: 1.5, Stretch: 1.2},
		{Number: 15, Name: "extra CPU of a gzip bulk / gunzip alone, unprotected", Reach: 1.15, Stretch: 1.0},
		{Number: 15, Name: "the same, sealed: a small difference of large numbers", Reach: 1.15, Stretch: 1.0},
		{Number: 16, Name: "speed of one large bulk, 2 cores / 1", AtLeast: true, Reach: 1.8, Stretch: 1.9},
		{Number: 17, Name: "start-up to first answer / reverse proxy's", Reach: 2, Stretch: 1.3},
		{Number: 18, Name: "CPU per document, EAX / GCM", Reach: 1.3, Stretch: 1.1},
		{Number: 19, Name: "wrong answers in 100,000 mixed requests", Reach: 0, Stretch: 0},
		{Number: 20, Name: "bulk into Elasticsearch / directly, documents/s", AtLeast: true, Reach: 0.90, Stretch: 0.95},
		{Number: 20, Name: "p99 of these bulks / directly", Reach: 1.25, Stretch: 1.10},
	}
}

// set notes what was measured for the nth line of a goal.
func (r *report) set(number, nth int, v ratio) {
	for _, g := range r.Goals {
		if g.Number == number {
			if nth == 0 {
				g.judge(v)
				return
			}
			nth--
		}
	}
	panic(fmt.Sprintf("no goal %d", number))
}

func (g *goal) judge(v ratio) {
	reaches := func(limit float64) bool {
		if g.AtLeast {
			return v.Median >= limit
		}
		return v.Median <= limit
	}
	g.Value, g.Verdict = &v, "not reached"
	if reaches(g.Reach) {
		g.Verdict = "reached"
		if reaches(g.Stretch) {
			g.Verdict = "reached, stretch too"
		}
	}
}

// printGoals writes the goals that want reports, or that were measured.
func (r *report) printGoals(w io.Writer, want func(*goal) bool) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\ngoal\t\treach\tstretch\tmeasured\t")
	for _, g := range r.Goals {
		if g.Value == nil && !want(g) {
			continue
		}
		sign, value, verdict := "≤", "", "not measured in this run"
		if g.AtLeast {
			sign = "≥"
		}
		if g.Value != nil {
			value, verdict = g.Value.String(), g.Verdict
		}
		fmt.Fprintf(t, "%d\t%s\t%s %g %s\t%s %g\t%s\t%s\n", g.Number, g.Name, sign, g.Reach, g.Unit, sign, g.Stretch, value, verdict)
	}
	t.Flush()
}

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// pair is one benchmark beside the code with the benchmark that it is held against.
type pair struct {
	Name  string `json:"name"`
	Ratio ratio  `json:"ratio"`
}

// benchLine is one line of a Go benchmark.
var benchLine = regexp.MustCompile(`(?m)^(Benchmark\S+)\s+\d+\s+(.*)$`)

// micro runs the benchmarks beside the code. All take turns, so that what is divided was measured within seconds of each other.
func (r *report) micro(l *lab) error {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	turns := []struct{ pkg, pattern, cpus, time string }{
		{"internal/rewrite", "^BenchmarkReplace$", "1", "200ms"},
		{"internal/envelope", "^BenchmarkSealDocument$/^(gcm|eax)$/^hkdf$|^BenchmarkOpenDocument$", "1", "200ms"},
		{"cmd/esproxy", "^Benchmark(Bulk|Reply)$", "1", "200ms"},
		{"internal/proxy", "^BenchmarkGunzip$", "1", "200ms"},
		{"cmd/esproxy", "^BenchmarkLargeBulk$", "1", "800ms"}, // not "1,2": go test then runs both with two processors (go1.26)
		{"cmd/esproxy", "^BenchmarkLargeBulk$", "2", "800ms"},
	}
	if runtime.NumCPU() < 2 {
		turns = turns[:len(turns)-1]
	}
	binary := func(pkg string) string { return filepath.Join(l.dir, strings.ReplaceAll(pkg, "/", "-")+".test") }
	for _, t := range turns {
		build := exec.CommandContext(ctx, "go", "test", "-c", "-pgo", "cmd/esproxy/default.pgo", "-o", binary(t.pkg), "./"+t.pkg)
		build.Dir = l.repo
		if out, err := build.CombinedOutput(); err != nil {
			return fmt.Errorf("building the benchmarks of %s: %.500s", t.pkg, out)
		}
	}
	all := make(map[string][]float64) // by name and unit
	for range l.rounds {
		for _, t := range turns {
			cmd := exec.CommandContext(ctx, binary(t.pkg), "-test.run", "^$", "-test.bench", t.pattern, "-test.benchtime", t.time, "-test.cpu", t.cpus)
			cmd.Dir = filepath.Join(l.repo, t.pkg)
			out, err := cmd.CombinedOutput()
			if err != nil {
				return fmt.Errorf("benchmarks of %s: %w: %.500s", t.pkg, err, out)
			}
			for _, m := range benchLine.FindAllSubmatch(out, -1) {
				f := strings.Fields(string(m[2]))
				for i := 0; i+1 < len(f); i += 2 {
					v, err := strconv.ParseFloat(f[i], 64)
					if err != nil {
						return err
					}
					key := t.pkg + " " + string(m[1]) + " " + f[i+1]
					all[key] = append(all[key], v)
				}
			}
		}
		fmt.Fprint(os.Stderr, ".")
	}
	over := func(a, b string) (ratio, error) {
		if len(all[a]) == 0 || len(all[a]) != len(all[b]) {
			return ratio{}, fmt.Errorf("no benchmark %q, or none %q", a, b)
		}
		return spread(divide(all[a], all[b])), nil
	}
	const seal, open = "internal/envelope BenchmarkSealDocument/", "internal/envelope BenchmarkOpenDocument/"
	const run = "cmd/esproxy Benchmark"
	for _, p := range []struct {
		name, a, b string
		goal       int
	}{
		{"gjson and sjson / strict scanner, JSON part of a document", "internal/rewrite BenchmarkReplace/gjson ns/op", "internal/rewrite BenchmarkReplace/strict ns/op", 5},
		{"sealing a document of a bulk / its cryptography alone, GCM", run + "Bulk/gcm ns/doc", seal + "gcm/hkdf ns/op", 0},
		{"sealing a document of a bulk / its cryptography alone, EAX", run + "Bulk/eax ns/doc", seal + "eax/hkdf ns/op", 0},
		{"opening a hit of a reply / its cryptography alone, GCM", run + "Reply/gcm ns/hit", open + "gcm ns/op", 0},
		{"opening a hit of a reply / its cryptography alone, EAX", run + "Reply/eax ns/hit", open + "eax ns/op", 0},
		{"EAX / GCM, cryptography of sealing a document", seal + "eax/hkdf ns/op", seal + "gcm/hkdf ns/op", 0},
		{"EAX / GCM, cryptography of opening a document", open + "eax ns/op", open + "gcm ns/op", 0},
		{"strict gunzip / the library alone, 10,000 documents", "internal/proxy BenchmarkGunzip/strict/10000 ns/op", "internal/proxy BenchmarkGunzip/alone/10000 ns/op", 0},
		{"strict gunzip / the library alone, 1 document", "internal/proxy BenchmarkGunzip/strict/1 ns/op", "internal/proxy BenchmarkGunzip/alone/1 ns/op", 0},
	} {
		v, err := over(p.a, p.b)
		if err != nil {
			return err
		}
		r.Pairs = append(r.Pairs, pair{p.name, v})
		if p.goal != 0 {
			r.set(p.goal, 0, v)
		}
	}
	for i, suite := range []string{"gcm", "eax"} {
		allocs := spread(all[run+"Bulk/"+suite+" allocs/op"])
		own := spread(all[run+"Bulk/unprotected allocs/op"])                        // what a bulk itself takes; it has 1,000 documents
		r.set(6, i, ratio{Median: math.Round((allocs.Median-own.Median)/100) / 10}) // tests count exactly
	}
	if runtime.NumCPU() >= 2 {
		v, err := over(run+"LargeBulk ns/op", run+"LargeBulk-2 ns/op")
		if err != nil {
			return err
		}
		r.set(16, 0, v)
	}
	return nil
}

func divide(a, b []float64) (out []float64) {
	for i := range min(len(a), len(b)) {
		out = append(out, a[i]/b[i])
	}
	return out
}

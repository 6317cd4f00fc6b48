// Command bench measures esproxy against a tuned httputil.ReverseProxy and against a simple rewriter made of gjson and
// sjson, all in front of a sink that only reads: go -C bench run .
//
// Each of them is a process of its own. Rounds are interleaved, the first is thrown away, and what counts are the
// ratios within one round, since absolute times move with the machine. Any error ends the run with status 1.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/esproxy/esproxy/internal/envelope"
)

type options struct {
	role, repo, json, benchstat, svg, es, only string
	quick, huge                                bool
	rounds, mixed                              int
	slot                                       time.Duration
}

func main() {
	var o options
	flag.StringVar(&o.role, "role", "", "internal: run as sink, rp or naive")
	flag.StringVar(&o.repo, "repo", "..", "the checkout that esproxy is built from")
	flag.StringVar(&o.json, "json", "", "write all samples to this file")
	flag.StringVar(&o.benchstat, "benchstat", "", "write the samples to this file, in the form that benchstat reads")
	flag.StringVar(&o.svg, "svg", "", "draw the ratios into this file")
	flag.StringVar(&o.es, "es", "", "measure against the Elasticsearch at this URL instead; its indices user-bench-* are deleted")
	flag.StringVar(&o.only, "only", "", "run only the measurements whose name contains this")
	flag.BoolVar(&o.quick, "quick", false, "about a minute: few workloads, few rounds")
	flag.BoolVar(&o.huge, "huge", false, "bulks of 1 GB with -quick too")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds that count (default 7, quick 3)")
	flag.IntVar(&o.mixed, "mixed", 0, "requests of the mixed run (default 100000, quick 4000)")
	flag.DurationVar(&o.slot, "slot", 0, "length of one measurement (default 700ms, quick 250ms)")
	flag.Parse()
	pick := func(v *int, full, quick int) {
		if *v == 0 {
			*v = full
			if o.quick {
				*v = quick
			}
		}
	}
	o.huge = o.huge || !o.quick
	pick(&o.rounds, 7, 3)
	pick(&o.mixed, 100_000, 4_000)
	if o.slot == 0 {
		o.slot = 700 * time.Millisecond
		if o.quick {
			o.slot = 250 * time.Millisecond
		}
	}
	var err error
	switch o.role {
	case "sink":
		err = runSink()
	case "rp":
		err = runReverseProxy()
	case "naive":
		err = runNaive()
	case "":
		if o.es != "" {
			err = benchElasticsearch(&o)
		} else {
			err = benchAll(&o)
		}
	default:
		err = fmt.Errorf("no role %q", o.role)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// lab is what all measurements share.
type lab struct {
	*options
	dir     string // temporary
	program string // the built esproxy
	commit  string
	key     string
	token   string
	up      string // URL of the sink or of Elasticsearch
}

func newLab(o *options) (*lab, error) {
	dir, err := os.MkdirTemp("", "esproxy-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{options: o, dir: dir, program: filepath.Join(dir, "esproxy")}
	if l.repo, err = filepath.Abs(o.repo); err != nil {
		return nil, err
	}
	// As in the Dockerfile: a static program without the embedded node, whose library alone takes 3 ms to start.
	build := exec.Command("go", "build", "-trimpath", "-tags", "nodevnode", "-ldflags=-s -w", "-o", l.program, "./cmd/esproxy")
	build.Dir, build.Env = l.repo, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("building esproxy: %s", out)
	}
	git := exec.Command("git", "describe", "--always", "--dirty")
	git.Dir = l.repo
	if out, err := git.Output(); err == nil {
		l.commit = strings.TrimSpace(string(out))
	}
	if l.key, err = envelope.GenerateKey(); err != nil {
		return nil, err
	}
	mint := exec.CommandContext(context.Background(), l.program, "token", "--grant", "full", "--for", "bench")
	mint.Env = append(os.Environ(), "MASTER_KEY="+l.key, "ESPROXY_FIELDS="+l.fields())
	out, err := mint.Output()
	if err != nil {
		return nil, fmt.Errorf("making a token: %w", err)
	}
	l.token = strings.TrimSpace(string(out))
	return l, nil
}

func (l *lab) close() { os.RemoveAll(l.dir) }

func (l *lab) fields() string { return filepath.Join(l.repo, "config", "fields.yaml") }

// proxy starts esproxy in front of l.up.
func (l *lab) proxy(suite string, env ...string) (*child, error) {
	return start("esproxy-"+suite, exec.Command(l.program, "serve"), append([]string{
		"MASTER_KEY=" + l.key, "ELASTICSEARCH_URL=" + l.up, "ESPROXY_LISTEN=127.0.0.1:0", "ESPROXY_ADMIN_LISTEN=none",
		"ESPROXY_FIELDS=" + l.fields(), "ESPROXY_SUITE=" + suite, "ESPROXY_AUDIT_FILE=" + os.DevNull,
	}, env...)...)
}

func (l *lab) grant() string { return "X-Esproxy-Authorization: Bearer " + l.token + "\r\n" }

// benchAll measures everything in front of the sink.
func benchAll(o *options) error {
	l, err := newLab(o)
	if err != nil {
		return err
	}
	defer l.close()
	sink, err := startSelf("sink", "MASTER_KEY="+l.key)
	if err != nil {
		return err
	}
	defer sink.stop()
	l.up = "http://" + sink.addr
	f, err := startFleet(l, sink)
	if err != nil {
		return err
	}
	defer f.stop()
	rep := &report{Commit: l.commit, Machine: machine(), Goals: newGoals()}
	workloads, err := f.workloads(l)
	if err != nil {
		return err
	}
	for _, w := range workloads {
		if !strings.Contains(w.Name, o.only) {
			continue
		}
		res, err := run(w, o.rounds, o.slot)
		if err != nil {
			return err
		}
		rep.Results = append(rep.Results, res)
		fmt.Fprintf(os.Stderr, " %s\n", w.Name)
	}
	for _, c := range f.all() {
		peak, err := c.peak()
		if err != nil {
			return err
		}
		rep.Peaks = append(rep.Peaks, peakRow{c.name, peak})
	}
	f.stop()
	if err := rep.further(l); err != nil {
		return err
	}
	rep.judge()
	rep.print(os.Stdout)
	return rep.files(o)
}

// files writes what the flags ask for.
func (r *report) files(o *options) error {
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", " ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.benchstat != "" {
		f, err := os.Create(o.benchstat)
		if err != nil {
			return err
		}
		r.benchstat(f)
		if err := f.Close(); err != nil {
			return err
		}
	}
	if o.svg != "" {
		return r.draw(o.svg)
	}
	return nil
}

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sampleReport() *report {
	r := &report{Commit: "c0ffee", Machine: "a machine", Goals: newGoals()}
	samples := func(seconds ...float64) (out []sample) {
		for _, s := range seconds {
			out = append(out, sample{Requests: 10, Seconds: s, Docs: 100, CPU: s, P50: 1e6, P99: 2e6})
		}
		return out
	}
	r.Results = []*result{{Workload: "bulk 10 MB", Clients: 4, Targets: []string{rp, gcm, pass}, Samples: map[string][]sample{
		rp: samples(1, 2, 3), gcm: samples(5, 10, 12), pass: samples(2, 2, 30),
	}}}
	return r
}

func TestGoalsAreJudgedByTheMedianOfRounds(t *testing.T) {
	r := sampleReport()
	r.judge()
	r.set(11, 1, ratio{Median: 1.2})
	r.set(9, 0, ratio{Median: -50})
	var out bytes.Buffer
	r.print(&out)
	lines := map[string]bool{} // without the columns' padding
	for line := range strings.Lines(out.String()) {
		lines[strings.Join(strings.Fields(line), " ")] = true
	}
	for _, want := range []string{
		"1 bulk throughput / RP, 10 MB, 4 clients ≥ 0.18 ≥ 0.21 0.200 [0.200..0.250] reached",
		"2 bulk throughput / RP, 100 MB, 1 client ≥ 0.19 ≥ 0.23 not measured in this run",
		"9 p50 of a one-document bulk minus RP's ≤ -40 µs ≤ -70 -50.000 reached",
		"10 unprotected bulk / RP, 10 MB, 4 clients ≥ 0.8 ≥ 0.9 0.500 [0.100..1.000] not reached",
		"11 peak of 1 GB / of 10 MB ≤ 1.1 ≤ 1.1 1.200 not reached",
	} {
		if !lines[want] {
			t.Errorf("no line %q in\n%s", want, &out)
		}
	}
	for i, g := range r.Goals[1:] {
		if g.Number < r.Goals[i].Number {
			t.Errorf("goal %d after %d", g.Number, r.Goals[i].Number)
		}
	}
}

func TestDrawNamesWhatItShows(t *testing.T) {
	file := filepath.Join(t.TempDir(), "out.svg")
	if err := sampleReport().draw(file); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"bulk 10 MB, 4 clients", gcm, pass, "c0ffee", ">0.2<"} {
		if !bytes.Contains(svg, []byte(want)) {
			t.Errorf("the picture does not name %q", want)
		}
	}
	if bytes.Contains(svg, []byte(granted)) {
		t.Error("the picture names a target without samples")
	}
	for d := xml.NewDecoder(bytes.NewReader(svg)); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestPackedBodyInAFile(t *testing.T) {
	c := newCorpus()
	plain := c.stream(3_000_000)
	b, err := plain.packedInto(filepath.Join(t.TempDir(), "body.gz"))
	if err != nil {
		t.Fatal(err)
	}
	var sent, want bytes.Buffer
	if err := errors.Join(b.make(&sent), plain.make(&want)); err != nil {
		t.Fatal(err)
	}
	if int64(sent.Len()) != b.wire() || b.size != plain.size || b.docs != plain.docs {
		t.Errorf("sent %d bytes, announced %d; %d documents, want %d", sent.Len(), b.wire(), b.docs, plain.docs)
	}
	if docs := bytes.Count(want.Bytes(), []byte("\n")) / 2; docs != b.docs {
		t.Errorf("%d documents, want %d", docs, b.docs)
	}
	if err := gunzip(sent.Bytes()); err != nil {
		t.Error(err)
	}
}

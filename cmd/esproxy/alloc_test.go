//go:build !race

package main

import (
	"math"
	"testing"

	"github.com/esproxy/esproxy/internal/envelope"
)

// What is allocated for a document is the standard library's cipher states, one for the key that wraps and one for the key that
// is wrapped. Without default.pgo (-pgo=off) each has two parts in GCM. (The race detector empties pools, so it is not asked.)
func TestBulkAllocations(t *testing.T) {
	for _, c := range []struct {
		suite envelope.Suite
		index string
		want  float64
	}{{envelope.GCM, "user", 2}, {envelope.EAX, "user", 2}, {envelope.GCM, "free", 0}} {
		of := func(docs int) float64 {
			engine, body := bulkEngine(t, c.suite, docs)
			return testing.AllocsPerRun(5, func() { carryBulk(t, engine, c.index, body) })
		}
		// A bulk's own share cancels out; a collection in between may empty a pool.
		if got := (of(5000) - of(1000)) / 4000; math.Abs(got-c.want) > 0.2 {
			t.Errorf("%s, index %s: %.2f allocations a document, want %.0f", c.suite, c.index, got, c.want)
		}
	}
}

package rewrite

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
)

// sampleBulk is a bulk of n sample documents for the index user.
func sampleBulk(n int) []byte {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "{\"index\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n%s\n", i, sampleDocument)
	}
	return b.Bytes()
}

// sampleEngine seals the three fields of sample documents with a sealer that costs nothing.
func sampleEngine(t testing.TB) *Engine {
	e, _, _ := fakeEngine(t)
	e.Policy, e.Sealer = fakePolicy(t, samplePolicy), noopSealer{}
	return e
}

func carryBulk(t testing.TB, e *Engine, body io.Reader, up io.Writer) {
	call := bulkCall("/_bulk", "")
	call.Counter = nil // the fake one allocates
	plan, err := e.Plan(context.Background(), call)
	if err != nil {
		t.Fatal(err)
	}
	if answered, err := plan.Transform.Request(context.Background(), plan, body, up); err != nil || answered {
		t.Fatal(answered, err)
	}
	plan.Transform.Close()
}

// The bulk path allocates next to nothing for a document: what a document takes is used again for the next one.
func TestBulkAllocations(t *testing.T) {
	e := sampleEngine(t)
	per := func(n int) float64 {
		body := sampleBulk(n)
		return testing.AllocsPerRun(5, func() { carryBulk(t, e, bytes.NewReader(body), io.Discard) })
	}
	few, many := per(1000), per(5000)
	each := (many - few) / 4000
	t.Logf("%.2f allocations for a document; %.0f for a bulk of 1,000", each, few)
	if each > 0.5 {
		t.Errorf("%.2f allocations for a document", each)
	}
}

func BenchmarkBulk(b *testing.B) {
	e := sampleEngine(b)
	body := sampleBulk(10_000)
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		carryBulk(b, e, bytes.NewReader(body), io.Discard)
	}
}

package rewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// attackBulk is the transform of a bulk that comes to no certain index.
func attackBulk(t *testing.T, e *Engine) (*bulk, *Plan) {
	t.Helper()
	p, err := e.Plan(context.Background(), &Call{Method: "POST", Path: "/_bulk", ContentType: []string{"application/x-ndjson"}, HasBody: true, Caller: &fakeCaller{}})
	if err != nil {
		t.Fatal(err)
	}
	return p.Transform.(*bulk), p
}

func wantTooLarge(t *testing.T, err error) {
	t.Helper()
	var f *Fault
	if !errors.As(err, &f) || f.Status != 413 || f.Type != "esproxy_document_too_large" {
		t.Fatalf("got %v, want 413", err)
	}
}

// A search body of small numbers took a hundred times its size.
func TestTreeIsBounded(t *testing.T) {
	e, _, _ := fakeEngine(t)
	body := func(n int) []byte { return []byte(`{"query":{"terms":{"x":[` + strings.Repeat("1,", n-1) + `1]}}}`) }
	if _, err := e.guardQuery(e.Policy.Rules, body(3*65536)); err != nil {
		t.Fatal(err)
	}
	_, err := e.guardQuery(e.Policy.Rules, body(maxTree))
	wantTooLarge(t, err)
}

// A document of one-digit values in a protected path took fifty times its size.
func TestProtectedValuesOfOneDocumentAreBounded(t *testing.T) {
	e, _, _ := fakeEngine(t)
	doc := func(n int) []byte {
		return []byte(`{"username":"a","items":[` + strings.Repeat(`{"card":1},`, n-1) + `{"card":1}]}`)
	}
	rules, _ := e.Policy.Match([]string{"user"})
	if _, err := e.SealDocument(nil, doc(1000), rules); err != nil {
		t.Fatal(err)
	}
	_, err := e.SealDocument(nil, doc(maxFound+1), rules)
	wantTooLarge(t, err)
}

// largestWrite notes how much comes at once.
type largestWrite struct{ largest, total int }

func (w *largestWrite) Write(p []byte) (int, error) {
	w.largest, w.total = max(w.largest, len(p)), w.total+len(p)
	return len(p), nil
}

// A block of tiny documents grows many times.
func TestBulkOutputIsBounded(t *testing.T) {
	e, _, _ := fakeEngine(t)
	b, p := attackBulk(t, e)
	defer b.Close()
	body := strings.Repeat("{\"index\":{\"_index\":\"shop\"}}\n{\"key\":1}\n", 30_000)
	var w largestWrite
	if _, err := b.Request(context.Background(), p, strings.NewReader(body), &w); err != nil {
		t.Fatal(err)
	}
	if w.largest > maxOut+1<<10 || w.total < 4*len(body) {
		t.Fatalf("%d bytes at once of %d in all", w.largest, w.total)
	}
}

// Refused items are remembered with their ids, each of which may be as long as an action line.
func TestRefusedItemsCountAsMemory(t *testing.T) {
	e, _, _ := fakeEngine(t)
	budget := e.Budget.(*fakeBudget)
	budget.max = 8 << 20
	b, p := attackBulk(t, e)
	var body bytes.Buffer
	for range 1000 {
		fmt.Fprintf(&body, "{\"index\":{\"_index\":\"user\",\"_id\":%q}}\n{\"card\":1}\n", strings.Repeat("x", 60_000))
	}
	_, err := b.Request(context.Background(), p, &body, io.Discard)
	var f *Fault
	if !errors.As(err, &f) || f.Status != 429 {
		t.Fatalf("got %v, want 429", err)
	}
	b.Close()
	if budget.out != 0 {
		t.Fatalf("%d bytes are not given back", budget.out)
	}
}

// readerFunc is a reader.
type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// An alias that appears while a bulk streams counts for the rest of it.
func TestNamesChangeDuringBulk(t *testing.T) {
	e, cluster, _ := fakeEngine(t)
	b, p := attackBulk(t, e)
	defer b.Close()
	item := "{\"index\":{\"_index\":\"plain\"}}\n{\"key\":\"canary-%d\"}\n"
	parts := []string{strings.Repeat(fmt.Sprintf(item, 1), blockSize/16), strings.Repeat(fmt.Sprintf(item, 2), blockSize/16) + fmt.Sprintf(item, 3)}
	n := 0
	var cur string
	r := readerFunc(func(p []byte) (int, error) {
		if cur == "" {
			if n == len(parts) {
				return 0, io.EOF
			}
			if n == 1 {
				cluster.names["plain"] = Resolved{Names: []string{"plain", "shop"}, Write: "plain"}
				b.placed = time.Now().Add(-2 * keepPlaces)
			}
			cur = parts[n]
			n++
		}
		k := copy(p, cur)
		cur = cur[k:]
		return k, nil
	})
	var out bytes.Buffer
	if _, err := b.Request(context.Background(), p, r, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "canary-1") || strings.Contains(out.String(), "canary-3") || !strings.Contains(out.String(), "esp1.") {
		t.Fatal("the alias does not count")
	}
}

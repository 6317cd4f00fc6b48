package rewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/esproxy/esproxy/internal/policy"
)

// inStages carries a bulk to its end and reports whether a second stage worked on it.
func inStages(t *testing.T, e *Engine, body io.Reader, up io.Writer) (two bool, refused []badItem, err error) {
	t.Helper()
	plan, err := e.Plan(context.Background(), bulkCall("/_bulk", ""))
	if err != nil {
		t.Fatal(err)
	}
	b := plan.Transform.(*bulk)
	defer func() {
		b.Close()
		if out := e.Budget.(*fakeBudget).out; out != 0 {
			t.Errorf("%d bytes of the budget are still out", out)
		}
		if n := seconds.Load(); n != 0 {
			t.Errorf("%d second stages are still counted", n)
		}
	}()
	_, err = b.Request(context.Background(), plan, body, up)
	return b.second != nil, b.bad, err
}

// manyItems is a bulk of some n items of all kinds, in blocks of which some depend on others.
func manyItems(seed uint64, n int) string {
	r := rand.New(rand.NewPCG(seed, 1))
	var b strings.Builder
	for i := range n {
		doc := fmt.Sprintf(`{"username":"u%d","card":"%d","x":"%s"}`, r.IntN(9), i, strings.Repeat("x", r.IntN(900)))
		index := []string{"user", "user", "user", "plain", "user-1"}[r.IntN(5)]
		switch k := r.IntN(100); {
		case k == 0:
			fmt.Fprintf(&b, "{\"index\":{\"_index\":%q,\"_id\":\"%d\"}}\n{\"card\":1}\n", index, i)
		case k == 1:
			fmt.Fprintf(&b, "{\"index\":{\"_index\":%q,\"_id\":\"%d\"}}\n%s\n", index, i, doc[1:])
		case k == 2 && i%400 < 40: // not in every block
			fmt.Fprintf(&b, "{\"update\":{\"_index\":%q,\"_id\":\"%d\"}}\n{\"doc\":%s}\n", index, i/2, doc)
		case k < 8:
			fmt.Fprintf(&b, "{\"delete\":{\"_index\":%q,\"_id\":\"%d\"}}\n", index, r.IntN(n))
		case k == 9:
			fmt.Fprintf(&b, "\n{\"create\":{\"_index\":%q}}\n%s\n", index, doc)
		case k == 10 && i%100 == 0:
			fmt.Fprintf(&b, "{\"index\":{\"_index\":%q}}\n{\"username\":\"big\",\"card\":7,\"x\":\"%s\"}\n", index, strings.Repeat("y", r.IntN(700<<10)))
		default:
			fmt.Fprintf(&b, "{\"index\":{\"_index\":%q,\"_id\":\"%d\"}}\n%s\n", index, r.IntN(n), doc)
		}
	}
	return b.String()
}

// TestStagesAgree: two stages send the same as one.
func TestStagesAgree(t *testing.T) {
	used := 0
	for seed := range uint64(8) {
		body := manyItems(seed, 3000)
		if seed%2 == 1 { // blocks that are not sealed are longer
			body = strings.Repeat("{\"index\":{\"_index\":\"plain\"}}\n{\"username\":\"Ana\",\"card\":1}\n", 5000) + body
		}
		var up [2]bytes.Buffer
		var bad [2][]badItem
		for i, n := range []int{1, 4} {
			processors(t, n)
			e, _, _ := fakeEngine(t)
			e.Limits.MaxDocument = 600 << 10
			two, refused, err := inStages(t, e, &sizedReader{r: strings.NewReader(body), sizes: []int{1 << 30, 4096, 70_000}}, &up[i])
			if err != nil {
				t.Fatal(err)
			}
			if bad[i] = refused; two {
				used += i
			}
		}
		one, _ := openAll(t, up[0].String())
		two, _ := openAll(t, up[1].String())
		if one != two {
			t.Fatalf("seed %d: %d bytes went up from one stage, and other %d from two", seed, len(one), len(two))
		}
		if diff := cmp.Diff(bad[0], bad[1], cmp.AllowUnexported(badItem{})); diff != "" || len(bad[0]) == 0 {
			t.Fatalf("seed %d: refused (-one stage +two):\n%s", seed, diff)
		}
	}
	if used == 0 {
		t.Error("no bulk had a second stage")
	}
}

// writes keeps the lengths of what is written.
type writes []int

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, len(p))
	return len(p), nil
}

// What is sealed takes shorter blocks than what goes up as it came, and no more memory than two of them and their output.
func TestBlockLength(t *testing.T) {
	processors(t, 4)
	for index, want := range map[string]int{"plain": blockSize, "user": sealedBlock} {
		e, _, _ := fakeEngine(t)
		item := fmt.Sprintf("{\"index\":{\"_index\":%q}}\n{\"username\":\"Ana\",\"card\":1,\"x\":%q}\n", index, strings.Repeat("x", 900))
		var up writes
		two, _, err := inStages(t, e, strings.NewReader(strings.Repeat(item, 2000)), &up)
		if err != nil || !two {
			t.Fatalf("two stages: %t, %v", two, err)
		}
		if most := slices.Max(up); most < want*9/10 || most > want*3/2 {
			t.Errorf("index %s: at most %d bytes are written at once", index, most)
		}
		if peak := e.Budget.(*fakeBudget).peak; peak > int64(4*want*blockCost) {
			t.Errorf("index %s: at most %d bytes of the budget were out", index, peak)
		}
	}
}

// stoppable gives its text and then nothing, until it is stopped.
type stoppable struct {
	r    io.Reader
	stop chan struct{}
	once sync.Once
}

func (s *stoppable) Read(p []byte) (int, error) {
	if n, err := s.r.Read(p); err == nil {
		return n, nil
	}
	<-s.stop
	return 0, errors.New("stopped")
}

func (s *stoppable) Stop() { s.once.Do(func() { close(s.stop) }) }

// failingWriter fails from the n-th write on.
type failingWriter struct {
	n   int
	err error
}

func (w *failingWriter) Write(p []byte) (int, error) {
	if w.n--; w.n < 0 {
		return 0, w.err
	}
	return len(p), nil
}

// TestStagesFailTogether: when one stage fails, the other does not go on, nor wait for a client that sends nothing more.
func TestStagesFailTogether(t *testing.T) {
	full := errors.New("no more room")
	body := strings.Repeat("{\"index\":{\"_index\":\"user\"}}\n{\"username\":\"Ana\",\"card\":1,\"x\":\""+strings.Repeat("x", 500)+"\"}\n", 4000)
	processors(t, 4)
	for n := range 16 {
		e, _, _ := fakeEngine(t)
		two, _, err := inStages(t, e, &stoppable{r: strings.NewReader(body), stop: make(chan struct{})}, &failingWriter{n, full})
		if err != full || n > 1 && !two {
			t.Errorf("after %d writes: %v", n, err)
		}
	}
}

// TestStagesReadError: what came before an error of the body has gone up when the bulk ends.
func TestStagesReadError(t *testing.T) {
	broken := errors.New("the line was cut")
	item := "{\"index\":{\"_index\":\"user\"}}\n{\"username\":\"Ana\",\"card\":1,\"x\":\"" + strings.Repeat("x", 500) + "\"}\n"
	processors(t, 4)
	for n := 1000; n < 4000; n += 371 {
		for _, end := range []string{"", "{\"index\":{}\n", "[]\n"} {
			e, _, _ := fakeEngine(t)
			var up bytes.Buffer
			var f *Fault
			body := io.MultiReader(strings.NewReader(strings.Repeat(item, n)+end), iotest.ErrReader(broken))
			two, _, err := inStages(t, e, body, &up)
			if !two || end == "" && err != broken || end != "" && !errors.As(err, &f) {
				t.Fatalf("%d items: two stages %v, %v", n, two, err)
			}
			plain, _ := openAll(t, up.String())
			sent := len(plain) / len(item)
			if plain != strings.Repeat(item, sent) || (n-sent)*len(item) > blockSize {
				t.Fatalf("of %d items %d went up (%d bytes)", n, sent, len(plain))
			}
		}
	}
}

// panicking is a sealer that panics once.
type panicking struct {
	Sealer
	at atomic.Int32
}

func (p *panicking) NewDocument(rule *policy.Rule, subject []byte) (DocumentSealer, error) {
	if p.at.Add(-1) == 0 {
		panic("of the sealer")
	}
	return p.Sealer.NewDocument(rule, subject)
}

// TestStagesPanic: a panic in either stage ends the request that it happens in, and nothing else.
func TestStagesPanic(t *testing.T) {
	body := strings.Repeat("{\"index\":{\"_index\":\"user\"}}\n{\"username\":\"Ana\",\"card\":1,\"x\":\""+strings.Repeat("x", 500)+"\"}\n", 3000)
	processors(t, 4)
	for at := int32(1); at < 2600; at += 97 {
		e, _, _ := fakeEngine(t)
		sealer := &panicking{Sealer: e.Sealer}
		sealer.at.Store(at)
		e.Sealer = sealer
		func() {
			defer func() {
				if p := recover(); p != "of the sealer" {
					t.Errorf("document %d: recovered %v", at, p)
				}
			}()
			_, _, err := inStages(t, e, &stoppable{r: strings.NewReader(body), stop: make(chan struct{})}, io.Discard)
			t.Errorf("document %d: the request ended with %v", at, err)
		}()
	}
}

// A large bulk gives the same with one processor and with several: the same documents in the same order, the same refusals.
func TestStagesReplies(t *testing.T) {
	var body strings.Builder
	n := 0
	add := func(format string, args ...any) {
		fmt.Fprintf(&body, format, args...)
		n++
	}
	for i := range 3000 {
		switch {
		case i%97 == 0:
			add("{\"index\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"username\":[\"Ana\"],\"card\":1}\n", i)
		case i%89 == 0:
			add("\n\r\n{\"delete\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n", i)
		case i%83 == 0:
			add("{\"index\":{\"_index\":\"plain\"}}\n{\"card\":%d}\n", i)
		case i%79 == 0:
			add("{\"create\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"username\":\"Ana\",\"card\":\"c\",\"card\":\"d\"}\n", i)
		case i == 2000:
			add("{\"index\":{\"_index\":\"user\"}}\n{\"username\":\"Ana\",\"card\":\"%s\"}\n", strings.Repeat("x", 200<<10))
		case i > 2500 && i%71 == 0: // from here on blocks depend on what came before
			add("{\"update\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"doc\":{\"card\":\"new\"}}\n", i-2)
		default:
			add("{\"index\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"x\":\"%s\",\"username\":\"user%d\",\"card\":\"number %d\",\"ccv\":[%d]}\n", i, strings.Repeat("x", i%500), i%7, i, i)
		}
	}
	type outcomeOf struct {
		plain, reply string
		sealed       int
	}
	run := func(procs int) outcomeOf {
		processors(t, procs)
		e, _, _ := fakeEngine(t)
		e.Limits.MaxDocument = 1 << 20
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(body.String()), func(_ Target, up []byte) (int, string) {
			reply, _ := bulkReply(t, nil, up, "")
			return 200, reply
		})
		if o.err != nil || o.replyErr != nil {
			t.Fatal(o.err, o.replyErr)
		}
		plain, sealed := openAll(t, o.up)
		_, items := readReply(t, o.reply)
		if len(items) != n {
			t.Fatalf("%d items in the reply, want %d", len(items), n)
		}
		return outcomeOf{plain, o.reply, len(sealed)}
	}
	one := run(1)
	for range 4 {
		if many := run(4); many.plain != one.plain || many.reply != one.reply || many.sealed != one.sealed {
			a, b := strings.Split(many.plain, "\n"), strings.Split(one.plain, "\n")
			for i := range min(len(a), len(b)) {
				if a[i] != b[i] {
					t.Fatalf("line %d: got %.200q, want %.200q", i, a[i], b[i])
				}
			}
			t.Fatalf("got %d lines and %d sealed values, want %d and %d; replies equal: %t", len(a), many.sealed, len(b), one.sealed, many.reply == one.reply)
		}
	}
	if !slices.Contains(strings.Split(one.plain, "\n"), `{"delete":{"_index":"user","_id":"89"}}`) || one.sealed < 5000 {
		t.Fatalf("%d values were sealed", one.sealed)
	}
}

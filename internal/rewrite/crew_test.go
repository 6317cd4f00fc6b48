package rewrite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/esproxy/esproxy/internal/policy"
)

// processors lets several goroutines work at once whatever the machine has, until the test ends.
func processors(t testing.TB, n int) {
	old := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(old) })
}

// crewOpener is a fakeCrypto that counts its sessions and calls hook before each Open.
type crewOpener struct {
	*fakeCrypto
	made, open atomic.Int32 // sessions
	hook       func(session int32, rule *policy.Rule, subject []byte)
}

type crewSession struct {
	OpenSession
	o  *crewOpener
	id int32
}

func (o *crewOpener) NewSession() OpenSession {
	o.open.Add(1)
	return &crewSession{o.fakeCrypto.NewSession(), o, o.made.Add(1)}
}

func (s *crewSession) Close() {
	s.OpenSession.Close()
	s.o.open.Add(-1)
}

func (s *crewSession) Open(dst []byte, rule *policy.Rule, path string, subject, token []byte) ([]byte, error) {
	if s.o.hook != nil {
		s.o.hook(s.id, rule, subject)
	}
	return s.OpenSession.Open(dst, rule, path, subject, token)
}

// crewCase opens a reply; alone is without a crew.
func crewCase(t *testing.T, alone bool, in io.Reader, out io.Writer, hook func(session int32, rule *policy.Rule, subject []byte)) (counts map[string]int, sessions int32, err error) {
	t.Helper()
	eng, _, crypto := fakeEngine(t)
	opener := &crewOpener{fakeCrypto: crypto, hook: hook}
	eng.Opener = opener
	counter := &fakeCounter{}
	o := &opening{eng: eng, viewer: fakeViewer{"*": policy.Plain, "users.ccv": policy.Masked}, counter: counter}
	if alone {
		o.soloUnits = 1 << 30
	}
	budget := eng.Budget.(*fakeBudget)
	defer func() {
		if budget.out != 0 {
			t.Errorf("%d bytes of the budget were not given back", budget.out)
		}
		if n := opener.open.Load(); n != 0 {
			t.Errorf("%d sessions are still open", n)
		}
	}()
	err = o.rewrite(context.Background(), in, out)
	return counter.n, opener.made.Load(), err
}

// crewReply has n hits, some of which do not open, need a look-up, show nothing, are unprotected, or larger than a batch.
func crewReply(n int) string {
	var b strings.Builder
	b.WriteString(`{"hits":{"hits":[`)
	for i := range n {
		if i > 0 {
			b.WriteString(",\n")
		}
		who := fmt.Sprintf("user %d", i)
		token := func(path, value string) string { return `"` + fakeToken("users", path, who, value) + `"` }
		card := token("card", fmt.Sprintf(`"card %d"`, i))
		pad := `"pad"`
		switch i % 97 {
		case 13:
			card = `"` + fakeToken("users", "card", "another", `"CANARY"`) + `"`
		case 29:
			card = `"esp1.AAAA"`
		case 31:
			b.WriteString(`{"_index":"user","_id":"x","fields":{"card":[` + card + `]}}`)
			continue
		case 37:
			b.WriteString(`{"_index":"free","_source":{"card":` + card + `}}`)
			continue
		case 41:
			pad = `"` + strings.Repeat("long ", 2*batchSize/5) + `"`
		case 43:
			b.WriteString(`null`)
			continue
		}
		fmt.Fprintf(&b, `{"_index":"user","_id":"%d","_source":{"username":%q,"pad":%s,"card":%s,"ccv":%s,"pay":{"iban":%s}}}`,
			i, who, pad, card, token("ccv", "7"), token("pay.iban", fmt.Sprint(i)))
	}
	b.WriteString(`]}}`)
	return b.String()
}

// What a crew writes and counts is what one goroutine does, however long the pieces are and whoever is fast.
func TestCrewKeepsOrder(t *testing.T) {
	processors(t, 4)
	in := crewReply(1500)
	var want bytes.Buffer
	wantCounts, sessions, err := crewCase(t, true, strings.NewReader(in), &want, nil)
	if err != nil || sessions != 1 {
		t.Fatal(err, sessions)
	}
	for _, piece := range []int{700, 5000, 40_000, len(in)} {
		var got bytes.Buffer
		counts, sessions, err := crewCase(t, false, &replyPieces{in, piece}, &got, func(int32, *policy.Rule, []byte) {
			for range rand.N(20) {
				runtime.Gosched()
			}
		})
		if err != nil || sessions < 2 {
			t.Fatal(err, sessions)
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("in pieces of %d: %d bytes differ from %d", piece, got.Len(), want.Len())
		}
		if diff := cmp.Diff(wantCounts, counts); diff != "" {
			t.Errorf("in pieces of %d counts (-want +got):\n%s", piece, diff)
		}
	}
	if strings.Contains(want.String(), "CANARY") || wantCounts["opened users.card plain in user"] == 0 || wantCounts["unopened auth"] == 0 {
		t.Errorf("counted %v", wantCounts)
	}
}

// While the one that reads is in the middle of a unit, which is larger than a batch, it may have to open batches that wait: what
// it has of the unit stays its own.
func TestCrewHelpsInTheMiddleOfAUnit(t *testing.T) {
	processors(t, 2) // one worker
	small := strings.SplitAfter(string(replyHits(500)), `.png","id"`)
	for at := 150; at < 400; at += 10 {
		large := fmt.Sprintf(`:"x"}},{"_index":"user","_source":{"username":"Ana","card":"%s","pad":"%s","ccv":"%s","pay":{"iban":"%s"},"id"`,
			fakeToken("users", "card", "Ana", `"Ana's"`), strings.Repeat("long ", 2*batchSize/5), fakeToken("users", "ccv", "Ana", `"Ana's"`), fakeToken("users", "pay.iban", "Ana", `"Ana's"`))
		in := strings.Join(small[:at], "") + large + strings.Join(small[at:], "")
		var want, got bytes.Buffer
		wantCounts, _, err := crewCase(t, true, strings.NewReader(in), &want, nil)
		if err != nil || strings.Count(want.String(), `"Ana's"`) != 2 {
			t.Fatal(err, wantCounts)
		}
		// The worker is slow, so that the one that reads opens most batches.
		counts, _, err := crewCase(t, false, strings.NewReader(in), &got, func(session int32, _ *policy.Rule, _ []byte) {
			for range 100 * (session / 3) {
				runtime.Gosched()
			}
		})
		if err != nil || got.String() != want.String() || !cmp.Equal(counts, wantCounts) {
			t.Errorf("large unit after %d: %d bytes, %v, %v; want %d, %v", at, got.Len(), counts, err, want.Len(), wantCounts)
		}
	}
}

// A reply that breaks off, or stops being JSON, gives the same bytes, counts and error as without a crew.
func TestCrewCutReply(t *testing.T) {
	processors(t, 4)
	in := string(replyHits(1000))
	broken := errors.New("connection reset")
	for _, at := range []int{90_000, 200_000, 2*batchSize + 80_000, len(in) - 1} {
		for _, end := range []io.Reader{&errReader{broken}, strings.NewReader(""), strings.NewReader("\x00" + in[at:])} {
			text, _ := io.ReadAll(end) // so that both get the same
			from := func() io.Reader {
				if _, ok := end.(*errReader); ok {
					return io.MultiReader(&replyPieces{in[:at], 20_000}, end)
				}
				return &replyPieces{in[:at] + string(text), 20_000}
			}
			var want, got bytes.Buffer
			wantCounts, _, wantErr := crewCase(t, true, from(), &want, nil)
			counts, sessions, err := crewCase(t, false, from(), &got, nil)
			if sessions < 2 {
				t.Fatal("no crew")
			}
			if !errors.Is(err, wantErr) || got.String() != want.String() || !cmp.Equal(counts, wantCounts) {
				t.Errorf("at %d: %d bytes, %v, %v; want %d bytes, %v, %v", at, got.Len(), counts, err, want.Len(), wantCounts, wantErr)
			}
		}
	}
}

type errReader struct{ err error }

func (r *errReader) Read([]byte) (int, error) { return 0, r.err }

// crewWriter takes some writes and then fails.
type crewWriter struct {
	bytes.Buffer
	left   int
	err    error
	panics any
	more   int // calls after the failure
}

func (w *crewWriter) Write(p []byte) (int, error) {
	if w.left--; w.left < -1 {
		w.more++
	}
	w.Buffer.Write(p)
	switch {
	case w.left >= 0:
		return len(p), nil
	case w.panics != nil:
		panic(w.panics)
	}
	return 0, w.err
}

// A client that leaves ends the reply with the writer's error, nothing is written after it, and what counts as opened is what was
// given to the writer.
func TestCrewClientLeaves(t *testing.T) {
	processors(t, 4)
	in := replyHits(2000)
	gone := errors.New("client gone")
	for _, n := range []int{0, 1, 3, 9} {
		out := &crewWriter{left: n, err: gone}
		counts, _, err := crewCase(t, false, &replyPieces{string(in), 50_000}, out, nil)
		if !errors.Is(err, gone) || out.more != 0 {
			t.Errorf("after %d writes: error %v, %d more", n, err, out.more)
		}
		shown := strings.Count(out.String(), `"6767-2293-4172-5169"`)
		if got := counts["opened users.card plain in user"]; got != shown {
			t.Errorf("after %d writes: counted %d, but %d were given to the writer", n, got, shown)
		}
	}
}

// A panic of a worker, of the reader's goroutine at a worker's work or of the writer goes on where the reply is rewritten.
func TestCrewPanics(t *testing.T) {
	processors(t, 4)
	in := string(replyHits(2000))
	catch := func(f func()) (p any) {
		defer func() { p = recover() }()
		f()
		return nil
	}
	for _, at := range []string{"user 10", "user 100", "user 900", "user 1999"} {
		for _, piece := range []int{3000, 60_000} {
			var out bytes.Buffer
			p := catch(func() {
				crewCase(t, false, &replyPieces{in, piece}, &out, func(_ int32, _ *policy.Rule, subject []byte) {
					if string(subject) == at {
						panic("opener")
					}
				})
			})
			if p != "opener" || strings.Contains(out.String(), at+`"`) {
				t.Errorf("at %s in pieces of %d: panic %v", at, piece, p)
			}
		}
	}
	for _, n := range []int{0, 2, 5} {
		out := &crewWriter{left: n, panics: "writer"}
		if p := catch(func() { crewCase(t, false, strings.NewReader(in), out, nil) }); p != "writer" || out.more != 0 {
			t.Errorf("after %d writes: panic %v, %d more writes", n, p, out.more)
		}
	}
	reader := io.MultiReader(&replyPieces{in[:300_000], 60_000}, panicReader{})
	if p := catch(func() { crewCase(t, false, reader, io.Discard, nil) }); p != "reader" {
		t.Errorf("panic %v", p)
	}
}

type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("reader") }

// Values under scrypt are opened in the order of the reply by one session, whose derivations are limited: which ones stay
// sealed must not depend on who is fast.
func TestCrewLeavesScryptToOne(t *testing.T) {
	processors(t, 4)
	eng, _, crypto := fakeEngine(t)
	eng.Policy = fakePolicy(t, `version: 1
rules:
  - name: users
    indices: ["user"]
    subject: username
    fields: {card: {mode: encrypt}}
  - name: slow
    indices: ["slow"]
    subject: username
    kdf: scrypt-per-subject
    fields: {card: {mode: encrypt}}
`)
	var mu sync.Mutex
	var order []string
	by := map[string]map[int32]bool{}
	opener := &crewOpener{fakeCrypto: crypto, hook: func(session int32, rule *policy.Rule, subject []byte) {
		mu.Lock()
		defer mu.Unlock()
		if by[rule.Name] == nil {
			by[rule.Name] = map[int32]bool{}
		}
		by[rule.Name][session] = true
		if rule.Name == "slow" {
			order = append(order, string(subject))
		}
	}}
	eng.Opener = opener
	var in, want strings.Builder
	var wantOrder []string
	for i := range 2000 {
		who, index, rule := fmt.Sprint("user ", i), "user", "users"
		if i%3 == 0 {
			index, rule = "slow", "slow"
			wantOrder = append(wantOrder, who)
		}
		hit := `{"_index":"` + index + `","_source":{"username":"` + who + `","card":%s}},`
		fmt.Fprintf(&in, hit, `"`+fakeToken(rule, "card", who, "1")+`"`)
		fmt.Fprintf(&want, hit, "1")
	}
	frame := func(s string) string { return `{"hits":{"hits":[` + s + `{}]}}` }
	var out bytes.Buffer
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}
	if err := o.rewrite(context.Background(), strings.NewReader(frame(in.String())), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != frame(want.String()) {
		t.Errorf("wrote %d bytes, want %d", out.Len(), want.Len())
	}
	if diff := cmp.Diff(wantOrder, order); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if len(by["slow"]) != 1 || opener.made.Load() < 2 {
		t.Errorf("values under scrypt were opened by %d of %d sessions", len(by["slow"]), opener.made.Load())
	}
}

// What is ready goes out before the reader waits for more: all hits that are there are seen, through a writer that gathers.
func TestCrewFlushesBeforeItWaits(t *testing.T) {
	processors(t, 4)
	in := string(replyHits(400))
	cut := strings.Index(in, `{"_index":"user","_id":"333"`)
	from, to := io.Pipe()
	all := make(chan bool)
	out := &crewGather{want: 333, all: all}
	done := make(chan error)
	go func() {
		_, _, err := crewCase(t, false, from, out, nil)
		done <- err
	}()
	io.WriteString(to, in[:cut])
	<-all
	io.WriteString(to, in[cut:])
	to.Close()
	if err := <-done; err != nil || out.seen != 333 {
		t.Error(err, out.seen)
	}
}

// crewGather tells when want hits were let out.
type crewGather struct {
	bytes.Buffer
	seen, want int
	all        chan bool
}

func (g *crewGather) Flush() error {
	if g.all == nil {
		return nil
	}
	g.seen += bytes.Count(g.Bytes(), []byte(`"6767-2293-4172-5169"`))
	g.Reset()
	if g.seen >= g.want {
		close(g.all)
		g.all = nil
	}
	return nil
}

// A crew takes some batches of the budget, fewer where the budget has less, and does without where it has none.
func TestCrewBudget(t *testing.T) {
	processors(t, 4)
	in := replyHits(2000)
	var want []byte
	for _, max := range []int64{1, 2 * batchSize, 4 * batchSize, 0} {
		eng, _, _ := fakeEngine(t)
		budget := &fakeBudget{max: max}
		eng.Budget = budget
		o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}
		var out bytes.Buffer
		if err := o.rewrite(context.Background(), struct{ io.Reader }{bytes.NewReader(in)}, &out); err != nil {
			t.Fatal(err)
		}
		if want == nil {
			want = out.Bytes()
		} else if !bytes.Equal(out.Bytes(), want) {
			t.Errorf("with %d: another reply", max)
		}
		if most := int64(3+3) * 2 * batchSize; budget.out != 0 || budget.peak > most || max != 1 && budget.peak == 0 {
			t.Errorf("with %d: %d bytes of the budget, at most %d, %d not given back", max, budget.peak, most, budget.out)
		}
	}
}

// A hit costs no allocation here, with a crew or without.
func TestReplyAllocations(t *testing.T) {
	for _, solo := range []int{0, 1 << 30} {
		eng, _, _ := fakeEngine(t)
		eng.Opener = replyCheapOpener{}
		o := &opening{eng: eng, viewer: replyFull, soloUnits: solo}
		per := func(n int) float64 {
			in := replyHits(n)
			return testing.AllocsPerRun(5, func() {
				if err := o.rewrite(context.Background(), bytes.NewReader(in), io.Discard); err != nil {
					t.Fatal(err)
				}
			})
		}
		few, many := per(1000), per(5000)
		each := (many - few) / 4000
		t.Logf("%.3f allocations for a hit; %.0f for a reply of 1,000", each, few)
		if each > 0.05 {
			t.Errorf("%.2f allocations for a hit", each)
		}
	}
}

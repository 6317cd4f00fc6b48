package rewrite

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// movingCluster has the alias "al", which stands for one index at a time.
type movingCluster struct {
	*fakeCluster
	at   atomic.Pointer[string] // what Elasticsearch executes by
	seen atomic.Pointer[string] // what the proxy's view says
}

func (c *movingCluster) Changed() { c.seen.Store(c.at.Load()) }

func (c *movingCluster) Resolve(ctx context.Context, name string) (Resolved, error) {
	index := *c.seen.Load()
	switch name {
	case "al":
		return Resolved{Names: []string{"al", index}, Write: index}, nil
	case index:
		return Resolved{Names: []string{"al", index}, Write: index}, nil
	}
	return c.fakeCluster.Resolve(ctx, name)
}

func (c *movingCluster) Expand(ctx context.Context, expression string) (Resolved, error) {
	return c.Resolve(ctx, expression)
}

func movingEngine(t *testing.T) (*Engine, *movingCluster) {
	e, fake, _ := fakeEngine(t)
	c := &movingCluster{fakeCluster: fake}
	plain := "plain"
	c.at.Store(&plain)
	c.seen.Store(&plain)
	e.Cluster, e.Turns = c, &Turns{}
	return e, c
}

// takeTurn plans a request and carries it to execute, which stands for Elasticsearch. release is called before the plan ends.
func takeTurn(e *Engine, line, body string, execute func(up string)) error {
	method, path, _ := strings.Cut(line, " ")
	call := &Call{Method: method, Path: path, HasBody: body != "", ContentType: []string{"application/json"}, Caller: &fakeCaller{}, Counter: &fakeCounter{}}
	plan, err := e.Plan(context.Background(), call)
	if err != nil {
		return err
	}
	if plan.Done != nil {
		defer plan.Done()
	}
	up := body
	if plan.Transform != nil {
		defer plan.Transform.Close()
		var out strings.Builder
		if _, err := plan.Transform.Request(context.Background(), plan, strings.NewReader(body), &out); err != nil {
			return err
		}
		up = out.String()
	}
	execute(up)
	return nil
}

func moveTo(index string) string {
	return fmt.Sprintf(`{"actions":[{"remove":{"index":"*","alias":"al"}},{"add":{"index":%q,"alias":"al"}}]}`, index)
}

// While an alias goes to and fro between a protected and a plain index, many writers never have plaintext executed in the
// protected one.
func TestTurnsWhileAnAliasMoves(t *testing.T) {
	e, c := movingEngine(t)
	pause := func() {
		for range 20 {
			runtime.Gosched()
		}
	}
	var writers, movers sync.WaitGroup
	var stop atomic.Bool
	var inProtected, inPlain atomic.Int64
	executed := func(up string) {
		pause() // the alias could move here
		index := *c.at.Load()
		switch {
		case strings.Contains(up, "c4n4ry") && index == "user":
			t.Errorf("plaintext in the protected index: %s", up)
		case index == "user":
			inProtected.Add(1)
		default:
			inPlain.Add(1)
		}
	}
	for i := range 8 {
		writers.Go(func() {
			for !stop.Load() {
				line, body := "PUT /al/_doc/1", `{"username":"Ana","card":"c4n4ry"}`
				if i%2 == 1 {
					line, body = "POST /_bulk", `{"index":{"_index":"plain"}}`+"\n{}\n"+`{"index":{"_index":"al"}}`+"\n"+body+"\n"
				}
				if err := takeTurn(e, line, body, executed); err != nil {
					t.Errorf("%s: %v", line, err)
					return
				}
				pause()
			}
		})
	}
	movers.Go(func() {
		for n := range 300 {
			index := []string{"user", "plain"}[n%2]
			err := takeTurn(e, "POST /_aliases", moveTo(index), func(string) {
				pause()
				c.at.Store(&index)
				pause()
			})
			if err != nil {
				t.Errorf("move: %v", err)
			}
			pause()
		}
	})
	movers.Wait()
	stop.Store(true)
	writers.Wait()
	if inProtected.Load() == 0 || inPlain.Load() == 0 {
		t.Errorf("%d writes in the protected index, %d in the plain one: nothing was tried", inProtected.Load(), inPlain.Load())
	}
	if len(e.Turns.writes)+len(e.Turns.changes) != 0 {
		t.Errorf("%d writes and %d changes are left", len(e.Turns.writes), len(e.Turns.changes))
	}
}

// busy wants the refusal of somebody who waited in vain, and forgives it for those who need not wait.
func wantBusy(t *testing.T, what string, err error, busy bool) {
	t.Helper()
	if busy && (err == nil || asFault(err).Type != "esproxy_names_busy" || asFault(err).Status != 503) || !busy && err != nil {
		t.Errorf("%s: got %v, refused should be %v", what, err, busy)
	}
}

func TestTurnsWaitNoLongerThanNeeded(t *testing.T) {
	e, c := movingEngine(t)
	e.Turns.Patience = time.Nanosecond
	nothing := func(string) {}
	const doc = `{"username":"Ana","card":"c4n4ry"}`
	const bulk = `{"index":{"_index":"al"}}` + "\n" + doc + "\n"
	// Changes beside a write to the alias.
	for _, change := range []struct {
		line, body string
		busy       bool
	}{
		{"POST /_aliases", moveTo("user"), true},
		{"POST /_aliases", `{"actions":[{"add":{"indices":["user-7"],"aliases":["al"]}}]}`, true},
		{"PUT /user/_alias/al", ``, true},
		{"PUT /plain/_aliases/user-al", ``, true},
		{"PUT /other/_alias/x", `{"index":"user","alias":"al"}`, true},
		{"PUT /user-9", `{"aliases":{"al":{}}}`, true},
		{"POST /al/_rollover/user-2", ``, true},
		{"POST /al/_rollover/plain-2", `{"aliases":{"user-x":{}}}`, true},
		{"POST /al/_rollover", ``, false},
		{"POST /_aliases", moveTo("plain-2"), false},
		{"POST /_aliases", `{"actions":[{"add":{"index":"user-1","alias":"user-2"}}]}`, false},
		{"PUT /plain-2", `{"aliases":{"al":{}}}`, false},
		{"PUT /user-9", `{"aliases":{"user-8":{}}}`, false},
		{"PUT /plain-2", ``, false},
	} {
		for _, write := range [][2]string{{"PUT /al/_doc/1", doc}, {"POST /al/_update/1", `{"doc":{"n":1}}`}, {"POST /_bulk", bulk}, {"POST /plain/_doc", doc}, {"POST /%3Cx-%7Bnow%7D%3E/_doc", doc}} {
			err := takeTurn(e, write[0], write[1], func(string) {
				err := takeTurn(e, change.line, change.body, nothing)
				wantBusy(t, change.line+change.body+" beside "+write[0], err, change.busy)
			})
			wantBusy(t, write[0], err, false)
		}
		err := takeTurn(e, "PUT /else/_doc/1", doc, func(string) {
			wantBusy(t, change.line+" beside a write elsewhere", takeTurn(e, change.line, change.body, nothing), false)
		})
		wantBusy(t, "write elsewhere", err, false)
		err = takeTurn(e, "GET /al/_search", "", func(string) {
			wantBusy(t, change.line+" beside a search", takeTurn(e, change.line, change.body, nothing), false)
		})
		wantBusy(t, "search", err, false)
	}
	// Writes beside a change of the alias.
	for line, busy := range map[string]bool{"PUT /al/_doc/1": true, "PUT /al::data/_doc/1": true, "PUT /user/_doc/1": true, "PUT /else/_doc/1": false} {
		err := takeTurn(e, "POST /_aliases", moveTo("user"), func(string) {
			wantBusy(t, line, takeTurn(e, line, doc, nothing), busy)
		})
		wantBusy(t, "move", err, false)
	}
	// An item of a bulk is refused alone, and what has begun goes on while a change waits for it.
	err := takeTurn(e, "POST /_aliases", moveTo("user"), func(string) {
		var up string
		if err := takeTurn(e, "POST /_bulk", `{"index":{"_index":"else"}}`+"\n{}\n"+bulk, func(s string) { up = s }); err != nil || strings.Contains(up, "c4n4ry") || !strings.Contains(up, "else") {
			t.Errorf("%v %s", err, up)
		}
	})
	wantBusy(t, "move", err, false)
	e.Turns.Patience = time.Hour
	w := e.Turns.write()
	if err := w.enter(t.Context(), "al"); err != nil {
		t.Fatal(err)
	}
	moved := make(chan error)
	go func() {
		moved <- takeTurn(e, "POST /_aliases", moveTo("user"), func(string) { user := "user"; c.at.Store(&user) })
	}()
	for waiting := false; !waiting; runtime.Gosched() {
		e.Turns.mu.Lock()
		waiting = len(e.Turns.changes) == 1
		e.Turns.mu.Unlock()
	}
	if err := w.enter(t.Context(), "user"); err != nil {
		t.Errorf("a second name of a write that a change waits for: %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	wantBusy(t, "a client that is gone", e.Turns.write().enter(gone, "al"), true)
	late := make(chan error)
	go func() {
		late <- takeTurn(e, "PUT /al/_doc/1", doc, func(up string) {
			if strings.Contains(up, "c4n4ry") {
				t.Errorf("a write that came later was judged by what was before: %s", up)
			}
		})
	}()
	w.exit()
	w.exit()
	if err := <-moved; err != nil {
		t.Errorf("move: %v", err)
	}
	if err := <-late; err != nil {
		t.Errorf("late: %v", err)
	}
}

// A bulk to very many names is not remembered name by name: every change of a rule waits for it.
func TestTurnsOfManyNames(t *testing.T) {
	e, _ := movingEngine(t)
	e.Turns.Patience = time.Nanosecond
	w := e.Turns.write()
	for i := range maxTurnNames + 10 {
		if err := w.enter(t.Context(), fmt.Sprint("n", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(w.names) != maxTurnNames {
		t.Errorf("%d names", len(w.names))
	}
	wantBusy(t, "beside many names", takeTurn(e, "POST /_aliases", moveTo("user"), func(string) {}), true)
	w.exit()
	wantBusy(t, "afterwards", takeTurn(e, "POST /_aliases", moveTo("user"), func(string) {}), false)
}

// Constants in the filter of an alias are judged by the index that the body names, which counts before that of the path.
func TestAliasNamesInTheBody(t *testing.T) {
	e, _ := planEngine(t)
	err := takeTurn(e, "PUT /plain/_alias/x", `{"index":"user","filter":{"term":{"card":"4111"}}}`, func(up string) { t.Errorf("sent %s", up) })
	if err == nil || asFault(err).Type != "esproxy_protected_query" {
		t.Errorf("got %v", err)
	}
}

// An index that is created without a body gets one, and its type suits what the client accepts.
func TestCreateWithoutABody(t *testing.T) {
	e, _ := planEngine(t)
	for _, c := range []struct {
		accept []string
		want   string
	}{
		{nil, "application/json"}, {[]string{"*/*"}, "application/json"}, {[]string{"text/plain, application/vnd.elasticsearch+json;compatible-with=8"}, "application/vnd.elasticsearch+json;compatible-with=8"},
	} {
		plan, err := e.Plan(t.Context(), &Call{Method: "PUT", Path: "/user-9", Accept: c.accept, Caller: &fakeCaller{}, Counter: &fakeCounter{}})
		if err != nil {
			t.Fatal(err)
		}
		var up strings.Builder
		if _, err := plan.Transform.Request(t.Context(), plan, strings.NewReader(""), &up); err != nil || !strings.Contains(up.String(), `"card":`+SealedMapping) || plan.ContentType != c.want {
			t.Errorf("%v: %v %s %q", c.accept, err, up.String(), plan.ContentType)
		}
		plan.Transform.Close()
	}
}

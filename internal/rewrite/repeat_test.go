package rewrite

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// racingCaller carries requests out on a model server, whose documents the look-ups then find. Before each, another
// writer may come in between.
type racingCaller struct {
	t       *testing.T
	es      *modelES
	cluster *fakeCluster
	meddle  func(round int)
	paths   []string
	status  int   // of the answers; 0 means 200
	err     error // instead of an answer
}

func (c *racingCaller) Do(_ context.Context, method, path string, body []byte, max int64) (int, []byte, error) {
	c.paths = append(c.paths, method+" "+path)
	if c.err != nil {
		return 0, nil, c.err
	}
	if c.meddle != nil {
		c.meddle(len(c.paths))
	}
	u, err := url.Parse(path)
	if err != nil {
		c.t.Fatal(err)
	}
	index := strings.TrimSuffix(strings.TrimPrefix(u.Path, "/"), "/_bulk")
	reply, _ := bulkReply(c.t, c.es, body, strings.TrimPrefix(index, "_bulk"))
	c.cluster.docs = c.es.stored(c.t)
	if c.status != 0 {
		return c.status, []byte(`{"error":{}}`), nil
	}
	return 200, []byte(reply), nil
}

// race sends a bulk to a model server after another writer had its turn.
func race(t *testing.T, path, query, body string, store, between func(e *Engine, es *modelES), caller *racingCaller) (outcome, *modelES) {
	t.Helper()
	e, cluster, _ := fakeEngine(t)
	es := &modelES{}
	store(e, es)
	cluster.docs = es.stored(t)
	caller.t, caller.es, caller.cluster = t, es, cluster
	call := bulkCall(path, query)
	call.Caller = caller
	o := exchange(t, e, call, strings.NewReader(body), func(_ Target, up []byte) (int, string) {
		between(e, es)
		reply, _ := bulkReply(t, es, up, "user")
		cluster.docs = es.stored(t)
		return 200, reply
	})
	return o, es
}

// putUser stores a document of the index user as another writer does.
func putUser(t failer, e *Engine, es *modelES, id, doc string) {
	t.Helper()
	out, err := sealWhole(e, "user", doc)
	if err != nil {
		t.Fatalf("%v", err)
	}
	es.put(Ref{"user", id, ""}, decodeObject(t, []byte(out)))
}

func TestRepeats(t *testing.T) {
	update := func(id string, retry int, doc, more string) string {
		return fmt.Sprintf(`{"update":{"_id":"%s","retry_on_conflict":%d}}`+"\n"+`{"doc":%s%s}`+"\n", id, retry, doc, more)
	}
	none := func(*Engine, *modelES) {}
	anaIn := func(e *Engine, es *modelES) { putUser(t, e, es, "1", ana) }
	bobIn := func(e *Engine, es *modelES) { putUser(t, e, es, "1", `{"username":"Bob","card":9}`) }
	gone := func(_ *Engine, es *modelES) { delete(es.docs, Ref{"user", "1", ""}) }
	for _, c := range []struct {
		name           string
		body           string
		store, between func(*Engine, *modelES)
		status         int
		calls          int
		stored         string // of document 1 in the end; "" : missing
	}{
		{"no race", update("1", 1, `{"card":2}`, ""), anaIn, none, 200, 0, "map[card:2 ccv:1 username:Ana]"},
		{"another subject", update("1", 1, `{"card":2}`, ""), anaIn, bobIn, 200, 1, "map[card:2 username:Bob]"},
		{"another subject, not to be repeated", update("1", 0, `{"card":2}`, ""), anaIn, bobIn, 409, 0, "map[card:9 username:Bob]"},
		{"came to be", update("1", 1, `{"username":"Bob","card":2}`, `,"doc_as_upsert":true`), none, bobIn, 200, 1, "map[card:2 username:Bob]"},
		{"came to be, not to be repeated", update("1", 0, `{"username":"Bob","card":2}`, `,"doc_as_upsert":true`), none, bobIn, 409, 0, "map[card:9 username:Bob]"},
		{"created", update("1", 1, `{"card":2}`, `,"upsert":{"username":"Eva","card":3}`), none, none, 201, 0, "map[card:3 username:Eva]"},
		{"vanished, upsert", update("1", 1, `{"card":2}`, `,"upsert":{"username":"Eva","card":3}`), anaIn, func(e *Engine, es *modelES) { bobIn(e, es); gone(e, es) }, 404, 0, ""},
		{"subject changed by another", update("1", 3, `{"username":"Bob","card":2}`, ""), func(e *Engine, es *modelES) { putUser(t, e, es, "1", `{"username":"Bob","card":1}`) }, anaIn, 409, 0, "map[card:4111 ccv:1 username:Ana]"},
	} {
		caller := &racingCaller{}
		o, es := race(t, "/user/_bulk", "pipeline=p&filter_path=errors,items&pretty&refresh", "{\"delete\":{\"_id\":\"0\"}}\n"+c.body+"{\"delete\":{\"_id\":\"2\"}}\n", c.store, c.between, caller)
		if o.err != nil || o.replyErr != nil {
			t.Errorf("%s: %v, %v", c.name, o.err, o.replyErr)
			continue
		}
		_, entries := readReply(t, o.reply)
		if len(entries) != 3 || entries[1].kind != "update" || *entries[1].ID != "1" || entries[1].Status != c.status {
			t.Errorf("%s: %s", c.name, o.reply)
		}
		if len(caller.paths) != c.calls {
			t.Errorf("%s: calls %q", c.name, caller.paths)
		}
		for _, p := range caller.paths {
			if p != "POST /user/_bulk?pipeline=p&refresh" {
				t.Errorf("%s: call %q", c.name, p)
			}
		}
		got := ""
		if d := es.docs[Ref{"user", "1", ""}]; d != nil {
			got = fmt.Sprint(openModel(t, d.source))
		}
		if got != c.stored {
			t.Errorf("%s: stored %s, want %s", c.name, got, c.stored)
		}
	}
}

// As many repetitions as the client asked for, and an answer that is no bulk reply ends them.
func TestRepeatsEnd(t *testing.T) {
	body := `{"update":{"_id":"1","retry_on_conflict":4}}` + "\n" + `{"doc":{"card":2}}` + "\n"
	anaIn := func(e *Engine, es *modelES) { putUser(t, e, es, "1", ana) }
	var engine *Engine
	bobIn := func(e *Engine, es *modelES) {
		engine = e
		putUser(t, e, es, "1", `{"username":"Bob","card":9}`)
	}
	for _, last := range []int{1, 3, 4, 5} {
		caller := &racingCaller{}
		caller.meddle = func(round int) {
			if round < last {
				putUser(t, engine, caller.es, "1", fmt.Sprintf(`{"username":"Bob%d","card":9}`, round))
			}
		}
		o, es := race(t, "/user/_bulk", "", body, anaIn, bobIn, caller)
		if o.err != nil || o.replyErr != nil {
			t.Fatal(o.err, o.replyErr)
		}
		_, entries := readReply(t, o.reply)
		want := 200
		if last == 5 {
			want = 409
		}
		if len(caller.paths) != min(last, 4) || entries[0].Status != want {
			t.Errorf("%d: %d calls, %s", last, len(caller.paths), o.reply)
		}
		openModel(t, es.docs[Ref{"user", "1", ""}].source)
	}
	caller := &racingCaller{status: 503}
	o, _ := race(t, "/user/_bulk", "", body, anaIn, bobIn, caller)
	if _, entries := readReply(t, o.reply); o.replyErr != nil || entries[0].Status != 409 || len(caller.paths) != 1 {
		t.Errorf("a busy server: %v, %s, %q", o.replyErr, o.reply, caller.paths)
	}
	broken := errors.New("broken")
	o, _ = race(t, "/user/_bulk", "", body, anaIn, bobIn, &racingCaller{err: broken})
	if !errors.Is(o.replyErr, broken) {
		t.Errorf("got %v", o.replyErr)
	}
}

// Where a reply lacks entries, no item can be told to be one that is to be repeated.
func TestRepeatsFilterPath(t *testing.T) {
	caller := &racingCaller{}
	bobIn := func(e *Engine, es *modelES) { putUser(t, e, es, "1", `{"username":"Bob","card":9}`) }
	o, _ := race(t, "/user/_bulk", "filter_path=items.*.error", `{"update":{"_id":"1","retry_on_conflict":4}}`+"\n"+`{"doc":{"card":2}}`+"\n",
		func(e *Engine, es *modelES) { putUser(t, e, es, "1", ana) }, bobIn, caller)
	if o.err != nil || o.replyErr != nil || len(caller.paths) != 0 || !strings.Contains(o.reply, "409") {
		t.Errorf("%v, %v, %q, %s", o.err, o.replyErr, caller.paths, o.reply)
	}
}

// What is kept for repetitions is bounded; beyond it the conflict is the client's.
func TestRepeatsMemory(t *testing.T) {
	e, cluster, _ := fakeEngine(t)
	storeUser(t, e, cluster, "user", "1", ana, 7)
	var body strings.Builder
	pad := strings.Repeat("x", 1<<20)
	for n := range 6 {
		fmt.Fprintf(&body, `{"update":{"_index":"user","_id":"%d","retry_on_conflict":1}}`+"\n"+`{"doc":{"card":"%s"}}`+"\n", n, pad)
	}
	e.Cluster = sameStored{cluster, cluster.docs[Ref{"user", "1", ""}]}
	plan, err := e.Plan(context.Background(), bulkCall("/_bulk", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer plan.Transform.Close()
	if _, err := plan.Transform.Request(context.Background(), plan, strings.NewReader(body.String()), &tattling{}); err != nil {
		t.Fatal(err)
	}
	b := plan.Transform.(*bulk)
	if b.again.held > maxRepeatBytes || len(b.again.items) == 0 || len(b.again.items) >= 6 {
		t.Errorf("%d bytes of %d updates are kept", b.again.held, len(b.again.items))
	}
}

// sameStored finds one document everywhere.
type sameStored struct {
	*fakeCluster
	doc Stored
}

func (c sameStored) Documents(_ context.Context, _ Caller, refs []Ref, _ []string) ([]Stored, error) {
	out := make([]Stored, len(refs))
	for i := range out {
		out[i] = c.doc
	}
	return out, nil
}

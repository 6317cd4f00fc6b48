package rewrite

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/policy"
)

// modelES is the part of Elasticsearch that the request side meets: documents with sequence numbers, and the bulk
// request that it reads as BulkRequestParser does and carries out in order.
type modelES struct {
	docs map[Ref]*modelDoc
	seq  int64
}

type modelDoc struct {
	source map[string]any
	seq    int64
}

// modelAction is one action as the server reads it.
type modelAction struct {
	kind          string
	index, id     string
	routing       string
	conditional   bool
	seqNo         int64
	retry         bool
	doc           map[string]any // of index and create
	update        map[string]any
	source        string // the source line
	line          string
	leadingBlanks int
}

func decodeObject(t failer, text []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatalf("the server cannot read %q: %v", text, err)
	}
	return v
}

// failer is what the checks need of a test: *testing.T and *rapid.T have it.
type failer interface {
	Helper()
	Fatalf(string, ...any)
}

// readBulk frames a body as the server does.
func readBulk(t failer, body []byte, index string) (out []modelAction) {
	t.Helper()
	blanks := 0
	next := func() ([]byte, bool) {
		i := bytes.IndexByte(body, '\n')
		if i < 0 {
			if len(body) > 0 {
				t.Fatalf("the bulk ends without a newline: %q", body)
			}
			return nil, false
		}
		line := bytes.TrimSuffix(body[:i], []byte("\r"))
		body = body[i+1:]
		return line, true
	}
	for {
		line, ok := next()
		if !ok {
			return out
		}
		if len(bytes.TrimSpace(line)) == 0 {
			blanks++
			continue
		}
		a := modelAction{line: string(line), index: index, leadingBlanks: blanks}
		blanks = 0
		root := decodeObject(t, line)
		if len(root) != 1 {
			t.Fatalf("an action line of %d members: %q", len(root), line)
		}
		for kind, meta := range root {
			a.kind = kind
			for name, v := range meta.(map[string]any) {
				switch name {
				case "_index":
					a.index = fmt.Sprint(v)
				case "_id":
					a.id = fmt.Sprint(v)
				case "routing":
					a.routing = fmt.Sprint(v)
				case "if_seq_no":
					a.conditional = true
					if _, err := fmt.Sscan(fmt.Sprint(v), &a.seqNo); err != nil {
						t.Fatalf("%q: %v", line, err)
					}
				case "retry_on_conflict":
					a.retry = true
				}
			}
		}
		if a.kind != "delete" {
			src, ok := next()
			if !ok {
				t.Fatalf("no source after %q", line)
			}
			a.source = string(src)
			if a.kind == "update" {
				a.update = decodeObject(t, src)
			} else {
				a.doc = decodeObject(t, src)
			}
		}
		out = append(out, a)
	}
}

// clone copies a decoded value.
func clone(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, x := range v {
			out[name] = clone(x)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, x := range v {
			out[i] = clone(x)
		}
		return out
	}
	return v
}

// merge is XContentHelper.update: objects are merged, all else is replaced.
func merge(into, from map[string]any) {
	for name, v := range from {
		have, ok1 := into[name].(map[string]any)
		with, ok2 := v.(map[string]any)
		if ok1 && ok2 {
			merge(have, with)
			continue
		}
		into[name] = clone(v)
	}
}

func (es *modelES) put(ref Ref, source map[string]any) {
	es.seq++
	if es.docs == nil {
		es.docs = make(map[Ref]*modelDoc)
	}
	es.docs[ref] = &modelDoc{clone(source).(map[string]any), es.seq}
}

// copy gives a server of the same documents.
func (es *modelES) copy() *modelES { return &modelES{maps.Clone(es.docs), es.seq} }

// do carries one action out and gives its status.
func (es *modelES) do(t failer, a *modelAction) int {
	t.Helper()
	ref := Ref{a.index, a.id, a.routing}
	have := es.docs[ref]
	if a.conditional && (have == nil || have.seq != a.seqNo) && a.kind != "update" {
		return 409
	}
	switch a.kind {
	case "delete":
		if have == nil {
			return 404
		}
		es.seq++
		delete(es.docs, ref)
		return 200
	case "create":
		if have != nil {
			return 409
		}
		es.put(ref, a.doc)
		return 201
	case "index":
		es.put(ref, a.doc)
		if have != nil {
			return 200
		}
		return 201
	}
	_, upsert := a.update["upsert"]
	asUpsert := a.update["doc_as_upsert"] == true
	if a.conditional && (upsert || asUpsert || a.retry) {
		t.Fatalf("the server refuses the whole bulk for this condition: %s %s", a.line, a.source)
	}
	doc := a.update["doc"].(map[string]any)
	switch {
	case have == nil && asUpsert:
		es.put(ref, doc)
		return 201
	case have == nil && upsert:
		es.put(ref, a.update["upsert"].(map[string]any))
		return 201
	case have == nil:
		return 404
	case a.conditional && have.seq != a.seqNo:
		return 409
	}
	source := clone(have.source).(map[string]any)
	merge(source, doc)
	es.put(ref, source)
	return 200
}

// Documents makes the server's documents what look-ups find: fakeCluster.docs.
func (es *modelES) stored(t failer) map[Ref]Stored {
	out := make(map[Ref]Stored)
	for ref, d := range es.docs {
		source, err := json.Marshal(d.source)
		if err != nil {
			t.Fatalf("%v", err)
		}
		out[ref] = Stored{Found: true, Index: ref.Index, SeqNo: d.seq, PrimaryTerm: 1, Source: source}
	}
	return out
}

// openModel puts values back in a decoded document of the rule users and checks that each was sealed for it.
func openModel(t failer, doc map[string]any) map[string]any {
	t.Helper()
	subject := fmt.Sprint(doc["username"])
	var walk func(v any, path string) any
	walk = func(v any, path string) any {
		switch v := v.(type) {
		case map[string]any:
			for name, x := range v {
				below := name
				if path != "" {
					below = path + "." + name
				}
				v[name] = walk(x, below)
			}
		case []any:
			for i := range v {
				v[i] = walk(v[i], path)
			}
		case string:
			if !strings.HasPrefix(v, "esp1.") {
				if protectedPath(path) {
					t.Fatalf("plain text at %s: %v", path, doc)
				}
				return v
			}
			rule, at, who, value, ok := readFakeToken(v)
			if !ok || rule != "users" || at != path || who != subject {
				t.Fatalf("a value of %s %s %s lies at %s of a document of %s", rule, at, who, path, subject)
			}
			return decodeObject(t, []byte(`{"v":`+value+`}`))["v"]
		default:
			if protectedPath(path) && v != nil {
				t.Fatalf("plain value at %s: %v", path, doc)
			}
		}
		return v
	}
	return walk(clone(doc), "").(map[string]any)
}

// outcome is what came of one exchange.
type outcome struct {
	plan     *Plan
	up       string // the last body that went upstream
	targets  []Target
	answered bool
	err      error  // of Plan, Request or Reply
	reply    string // as the client gets it
	replyErr error  // of the rewriting of the reply
}

// exchange carries a request through its plan as the proxy does. upstream answers.
func exchange(t failer, e *Engine, call *Call, body io.Reader, upstream func(Target, []byte) (int, string)) (o outcome) {
	t.Helper()
	ctx := context.Background()
	if call.Caller == nil {
		call.Caller = &fakeCaller{}
	}
	if o.plan, o.err = e.Plan(ctx, call); o.err != nil {
		return o
	}
	tr := o.plan.Transform
	if tr == nil {
		raw, err := io.ReadAll(body)
		if err != nil {
			t.Fatalf("%v", err)
		}
		o.up, o.targets = string(raw), []Target{o.plan.Target}
		_, o.reply = upstream(o.plan.Target, raw)
		return o
	}
	closed := false
	defer func() {
		if !closed {
			tr.Close()
		}
		if b, ok := e.Budget.(*fakeBudget); ok && b.out != 0 {
			t.Fatalf("%d bytes of the budget are still out after Close", b.out)
		}
	}()
	for round := 0; ; round++ {
		if round > 200 {
			t.Fatalf("the exchange is repeated without end")
		}
		var up bytes.Buffer
		if o.answered, o.err = tr.Request(ctx, o.plan, body, &up); o.err != nil {
			o.up = up.String()
			return o
		}
		o.up = up.String()
		o.targets = append(o.targets, o.plan.Target)
		head, reply := ReplyHead{Status: 200, ContentType: "application/json"}, ""
		if !o.answered {
			head.Status, reply = upstream(o.plan.Target, up.Bytes())
		}
		rewrite, again, err := tr.Reply(ctx, head)
		if err != nil {
			o.err = err
			return o
		}
		if again {
			body = nil
			continue
		}
		if rewrite == nil {
			o.reply = reply
			return o
		}
		var out bytes.Buffer
		var in io.Reader
		if !o.answered {
			in = strings.NewReader(reply)
		}
		o.replyErr = rewrite(in, &out)
		o.reply = out.String()
		closed = true
		tr.Close()
		return o
	}
}

// bulkReply answers a bulk body: each action carried out by es, or status 201 where es is nil.
func bulkReply(t failer, es *modelES, body []byte, index string) (reply string, statuses []int) {
	t.Helper()
	var items []string
	errs := false
	for _, a := range readBulk(t, body, index) {
		status := 201
		if es != nil {
			status = es.do(t, &a)
		}
		statuses = append(statuses, status)
		item := map[string]any{"_index": a.index, "_id": a.id, "status": status}
		if status >= 300 && status != 404 {
			item["error"], errs = map[string]any{"type": "version_conflict_engine_exception", "reason": "of the server"}, true
		}
		raw, err := json.Marshal(map[string]any{a.kind: item})
		if err != nil {
			t.Fatalf("%v", err)
		}
		items = append(items, string(raw))
	}
	return fmt.Sprintf(`{"errors":%v,"took":3,"items":[%s]}`, errs, strings.Join(items, ",")), statuses
}

// bulkCall is a bulk request without a grant.
func bulkCall(path, query string) *Call {
	return &Call{Method: "POST", Path: path, Query: query, ContentType: []string{"application/x-ndjson"}, HasBody: true, Caller: &fakeCaller{}, Counter: &fakeCounter{}}
}

// replyItem is one entry of a bulk reply.
type replyItem struct {
	kind   string
	Index  string                         `json:"_index"`
	ID     *string                        `json:"_id"`
	Status int                            `json:"status"`
	Error  *struct{ Type, Reason string } `json:"error"`
}

// readReply reads a bulk reply.
func readReply(t failer, reply string) (errs bool, items []replyItem) {
	t.Helper()
	var r struct {
		Errors bool                   `json:"errors"`
		Items  []map[string]replyItem `json:"items"`
	}
	if err := json.Unmarshal([]byte(reply), &r); err != nil {
		t.Fatalf("the reply %q: %v", reply, err)
	}
	for _, item := range r.Items {
		if len(item) != 1 {
			t.Fatalf("an entry of %d members: %q", len(item), reply)
		}
		for kind, x := range item {
			x.kind = kind
			items = append(items, x)
		}
	}
	return r.Errors, items
}

// fakeViewerOf shows everything as plain text.
var fullViewer = fakeViewer{"*": policy.Plain}

// The model server itself is held to a few facts.
func TestModelES(t *testing.T) {
	es := &modelES{}
	body := `{"index":{"_index":"user","_id":"1"}}` + "\n" + `{"a":{"x":1},"b":[1]}` + "\r\n\n" +
		`{"update":{"_index":"user","_id":"1"}}` + "\n" + `{"doc":{"a":{"y":2},"b":[2]}}` + "\n" +
		`{"create":{"_index":"user","_id":"1"}}` + "\n{}\n" +
		`{"update":{"_index":"user","_id":"1","if_seq_no":1}}` + "\n" + `{"doc":{"c":1}}` + "\n" +
		`{"delete":{"_index":"user","_id":"1"}}` + "\n" + `{"update":{"_index":"user","_id":"1"}}` + "\n" + `{"doc":{},"upsert":{"u":1}}` + "\n"
	_, statuses := bulkReply(t, es, []byte(body), "")
	if fmt.Sprint(statuses) != "[201 200 409 409 200 201]" {
		t.Errorf("statuses %v", statuses)
	}
	if fmt.Sprint(es.docs[Ref{"user", "1", ""}].source) != "map[u:1]" {
		t.Errorf("stored %v", es.docs)
	}
}

package rewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// genItem draws one bulk item. good tells whether it goes up, plain is its text as the client sends it.
type genItem struct {
	text string
	kind string
	id   string
	good bool
	fail string // fault type of a bad one
}

func drawItem(t *rapid.T, n int) genItem {
	it := genItem{good: true, id: fmt.Sprint("i", n)}
	end := rapid.SampledFrom([]string{"\n", "\n", "\r\n"}).Draw(t, "end")
	index := rapid.SampledFrom([]string{"user", "user", "user-1", "plain", ""}).Draw(t, "index")
	it.kind = rapid.SampledFrom([]string{"index", "index", "create", "update", "delete"}).Draw(t, "kind")
	meta := fmt.Sprintf(`{"%s":{"_id":"%s"`, it.kind, it.id)
	if index != "" {
		meta += fmt.Sprintf(`,"_inde\u0078":%q`, index)
	}
	meta += "}}" + rapid.SampledFrom([]string{"", " ", "\t"}).Draw(t, "space") + end
	if it.kind == "delete" {
		it.text = meta
		return it
	}
	pad := strings.Repeat("p", rapid.SampledFrom([]int{0, 0, 10, 1000, 90_000}).Draw(t, "pad"))
	doc := fmt.Sprintf(`{"username":"Ana","card":"canary%d", "city":"%s"}`, n, pad)
	protected := strings.HasPrefix(index, "user") || index == "" // the default index is user-d
	if protected && rapid.IntRange(0, 4).Draw(t, "bad") == 0 {
		bad := rapid.SampledFrom([][2]string{
			{`{"card":"canary","city":"` + pad + `"}`, "esproxy_subject"}, {`{"username":"Ana","card":"canary`, "esproxy_bad_document"}, {`{"card":"canary"} {}`, "esproxy_bad_document"},
			{`{"username":"Ana","x":"esp1.AAAA"}`, "esproxy_misplaced_token"}, {`{"esproxy_x":"canary"}`, "esproxy_reserved_name"}, {``, "esproxy_bad_document"}, {`null`, "esproxy_bad_document"},
			{`{"username":"Ana","card":1,"card":"canary"}`, "esproxy_bad_document"},
		}).Draw(t, "fault")
		it.good, it.fail, doc = false, bad[1], bad[0]
		if it.kind == "update" && it.fail == "esproxy_bad_document" {
			it.text = meta + doc + end
			return it
		}
	}
	if it.kind == "update" {
		doc = `{"upsert":` + doc + `,"doc":{"city":"x"}}`
	}
	it.text = meta + doc + end
	return it
}

// Whatever the items, their places and the cuts of the body: exactly the good ones go up, in order, each sealed, and the
// reply has one entry for each action of the client.
func TestBulkModel(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		e, _, _ := fakeEngine(outer)
		var body strings.Builder
		var items []genItem
		blanks := rapid.SampledFrom([]string{"", "", "", "\n", "\r\n \n", strings.Repeat("\n", 50)})
		for n := range rapid.IntRange(1, 25).Draw(t, "items") {
			it := drawItem(t, n)
			body.WriteString(blanks.Draw(t, "blanks") + it.text)
			items = append(items, it)
		}
		body.WriteString(blanks.Draw(t, "blanks"))
		var reader io.Reader = strings.NewReader(body.String())
		if body.Len() < 20_000 && rapid.Bool().Draw(t, "bytes") {
			reader = iotest.OneByteReader(reader)
		} else {
			reader = &sizedReader{r: reader, sizes: rapid.SliceOfN(rapid.IntRange(1, 1<<18), 1, 4).Draw(t, "sizes")}
		}
		var statuses []int
		call := bulkCall("/user-d/_bulk", "")
		o := exchange(t, e, call, reader, func(_ Target, up []byte) (int, string) {
			var reply string
			reply, statuses = bulkReply(t, nil, up, "user-d")
			return 200, reply
		})
		if o.err != nil || o.replyErr != nil {
			t.Fatalf("%v, %v", o.err, o.replyErr)
		}
		var good []genItem
		wantUp := ""
		for i, it := range items {
			if it.good {
				good = append(good, items[i])
				wantUp += it.text
			}
		}
		if o.answered != (len(good) == 0) {
			t.Fatalf("answered: %v, with %d good items", o.answered, len(good))
		}
		if strings.Contains(tokenText.ReplaceAllString(o.up, ""), "canary") && !strings.Contains(wantUp, "plain") {
			t.Fatalf("plain text in %.300q", o.up)
		}
		if plain, _ := openAll(t, o.up); withoutBlankLines(plain) != withoutBlankLines(wantUp) {
			t.Fatalf("went up:\n%.2000s\nwant:\n%.2000s", withoutBlankLines(plain), withoutBlankLines(wantUp))
		}
		for _, a := range readBulk(t, []byte(o.up), "user-d") {
			switch doc := a.doc; {
			case strings.HasPrefix(a.index, "user") && doc != nil:
				openModel(t, doc)
			case strings.HasPrefix(a.index, "user") && a.update["upsert"] != nil:
				openModel(t, a.update["upsert"].(map[string]any))
			}
		}
		errs, entries := readReply(t, o.reply)
		if len(entries) != len(items) || len(statuses) != len(good) {
			t.Fatalf("%d entries for %d actions; %d of %d went up", len(entries), len(items), len(statuses), len(good))
		}
		if errs != (len(good) < len(items)) {
			t.Fatalf("errors: %v", errs)
		}
		for i, it := range items {
			got := entries[i]
			if got.kind != it.kind || got.ID == nil || *got.ID != it.id || it.good && got.Status != 201 || !it.good && (got.Status != 400 || got.Error == nil || got.Error.Type != it.fail) {
				t.Fatalf("entry %d is %+v of %+v", i, got, it)
			}
		}
	})
}

// withoutBlankLines leaves blank lines out and takes carriage returns from the ends of lines of updates away, which
// are written anew.
func withoutBlankLines(body string) string {
	var out []string
	for line := range strings.SplitSeq(body, "\n") {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return strings.Join(out, "\n")
}

// What no rule names passes byte for byte, blank lines and all, also around items that are sealed.
func TestBulkBytes(t *testing.T) {
	e, _, _ := fakeEngine(t)
	token := `"` + fakeToken("users", "card", "Ana", "1") + `"`
	for _, c := range []struct{ name, in, up string }{
		{"nothing protected", "\r\n\n{\"index\":{\"_index\":\"plain\"}} \r\n  {\"card\" : 1, \"card\":2 \r\n\n \n{\"delete\":{\"_id\":\"1\",\"_index\":\"plain\"}}\r\n\n", "="},
		{"protected, blanks kept", "\n{\"index\":{\"_index\":\"user\"}}\r\n { \"username\":\"Ana\",\"card\":1 }\r\n\r\n\n{\"index\":{\"_index\":\"user\"}}\n{}\n\n", "\n{\"index\":{\"_index\":\"user\"}}\r\n { \"username\":\"Ana\",\"card\":" + token + " }\r\n\r\n\n{\"index\":{\"_index\":\"user\"}}\n{}\n\n"},
		{"update that protects nothing", "{\"update\":{\"_index\":\"user\",\"_id\":1,\"retry_on_conflict\":3}}\r\n{ \"doc\" : {\"city\":1}, \"detect_noop\":false }\r\n", "{\"update\":{\"_index\":\"user\",\"_id\":1,\"retry_on_conflict\":3}}\r\n{ \"doc\" : {\"city\":1}, \"detect_noop\":false }\r\n"},
		{"only blank lines", "\n \r\n\n", "="},
		{"nothing", "", "="},
	} {
		if c.up == "=" {
			c.up = c.in
		}
		for name, cut := range cuts {
			o := exchange(t, e, bulkCall("/_bulk", ""), cut(strings.NewReader(c.in)), func(Target, []byte) (int, string) { return 200, `{"errors":false,"items":[]}` })
			if o.err != nil || o.up != c.up || o.reply != `{"errors":false,"items":[]}` {
				t.Errorf("%s, %s: %v\n got %q\nwant %q", c.name, name, o.err, o.up, c.up)
			}
		}
	}
	// A body of nil is an empty one.
	o := exchange(t, e, bulkCall("/_bulk", ""), nil, func(Target, []byte) (int, string) { return 400, `{"error":"empty"}` })
	if o.err != nil || o.up != "" || o.reply != `{"error":"empty"}` {
		t.Errorf("no body: %v, %q", o.err, o.up)
	}
}

func TestBulkBroken(t *testing.T) {
	e, _, _ := fakeEngine(t)
	first := "{\"index\":{\"_index\":\"user\"}}\n{\"username\":\"Ana\",\"card\":1}\n"
	for _, c := range []struct{ name, in, kind, words string }{
		{"no newline at the end", first + `{"delete":{"_id":1}}`, "illegal_argument_exception", "terminated by a newline"},
		{"source cut", first + "{\"index\":{}}\n{\"a\":1}", "illegal_argument_exception", "terminated by a newline"},
		{"source missing", first + "{\"index\":{}}\n", "illegal_argument_exception", "terminated by a newline"},
		{"broken action", first + "{\"index\":{}\n{}\n", "esproxy_bad_bulk", "action [1]"},
		{"two actions", "{\"index\":{}}{\"index\":{}}\n{}\n", "esproxy_bad_bulk", "action [0]"},
		{"source without action", first + "{\"a\":1}\n", "esproxy_bad_bulk", "none of index"},
		{"byte order mark", "\xEF\xBB\xBF" + first, "esproxy_bad_bulk", "expected an object"},
		{"action too long", "{\"index\":{\"_id\":\"" + strings.Repeat("x", maxActionLine) + "\"}}\n{}\n", "esproxy_bad_bulk", "too long"},
		{"long line cut", "{\"index\":{\"_index\":\"user\"}}\n{\"a\":\"" + strings.Repeat("x", 40<<10), "illegal_argument_exception", "terminated by a newline"},
		{"long line of an unprotected index cut", "{\"index\":{\"_index\":\"plain\"}}\n{\"a\":\"" + strings.Repeat("x", 40<<10), "illegal_argument_exception", "terminated by a newline"},
	} {
		e.Limits.MaxDocument = 16 << 20
		if strings.HasPrefix(c.name, "long") {
			e.Limits.MaxDocument = 20 << 10
		}
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(c.in), func(Target, []byte) (int, string) {
			t.Errorf("%s: it went up", c.name)
			return 200, `{}`
		})
		if o.err == nil {
			t.Errorf("%s: no error", c.name)
			continue
		}
		wantFault(t, o.err, c.kind, c.words)
	}
	// A client that breaks off.
	broken := errors.New("broken")
	o := exchange(t, e, bulkCall("/_bulk", ""), io.MultiReader(strings.NewReader(first), iotest.ErrReader(broken)), func(Target, []byte) (int, string) { return 200, `{}` })
	if o.err != broken {
		t.Errorf("got %v", o.err)
	}
}

// Bodies of several blocks: lines that lie across borders, items over the limit, and memory that does not grow.
func TestBulkBlocks(t *testing.T) {
	e, _, _ := fakeEngine(t)
	e.Limits.MaxDocument = 600 << 10
	budget := e.Budget.(*fakeBudget)
	var body, want strings.Builder
	var bad []int
	n := 0
	add := func(index string, size int, good bool) {
		line := fmt.Sprintf("{\"index\":{\"_index\":%q,\"_id\":\"%d\"}}\n", index, n)
		doc := fmt.Sprintf("{\"username\":\"Ana\",\"card\":%d,\"x\":\"%s\"}\n", n, strings.Repeat("x", size))
		body.WriteString("\n" + line + doc)
		if good {
			want.WriteString("\n" + line + doc)
		} else {
			bad = append(bad, n)
		}
		n++
	}
	for i := range 60 {
		add("user", 1<<10*(i%40), true)
		switch i {
		case 7, 30:
			add("user", 700<<10, false)
		case 8, 31:
			add("plain", 3<<20, true)
		case 20:
			add("user", 599<<10, true)
			add("user", 250<<10, true)
			add("plain", 700<<10, true)
			add("user", 700<<10, false)
		}
	}
	add("user", 700<<10, false)
	for _, size := range []int{1 << 30, 100_000, 777} {
		o := exchange(t, e, bulkCall("/_bulk", ""), &sizedReader{r: strings.NewReader(body.String()), sizes: []int{size}}, func(_ Target, up []byte) (int, string) {
			reply, _ := bulkReply(t, nil, up, "")
			return 200, reply
		})
		if o.err != nil || o.replyErr != nil {
			t.Fatal(o.err, o.replyErr)
		}
		if plain, sealed := openAll(t, o.up); plain != want.String() || len(sealed) == 0 {
			t.Errorf("%d bytes went up, not %d", len(plain), want.Len())
		}
		_, entries := readReply(t, o.reply)
		if len(entries) != n {
			t.Fatalf("%d entries, not %d", len(entries), n)
		}
		for i, x := range entries {
			if isBad := slices.Contains(bad, i); *x.ID != fmt.Sprint(i) || isBad != (x.Status == 413) || !isBad && x.Status != 201 {
				t.Errorf("entry %d: %+v", i, x)
			}
		}
		if limit := int64(blockCost * (600<<10 + 6*blockSize)); budget.peak > limit {
			t.Errorf("at most %d bytes of the budget were out, over %d", budget.peak, limit)
		}
	}
}

// A body of nothing but blank lines does not fill the memory, and items among many blank lines are found.
func TestBulkManyBlankLines(t *testing.T) {
	e, _, _ := fakeEngine(t)
	item := "{\"index\":{\"_index\":\"user\"}}\n{\"username\":\"Ana\",\"card\":1}\n"
	body := io.MultiReader(&repeated{'\n', 5 << 20}, strings.NewReader(item), &repeated{'\n', 5 << 20}, strings.NewReader(item), &repeated{'\n', 1 << 20})
	o := exchange(t, e, bulkCall("/_bulk", ""), body, func(_ Target, up []byte) (int, string) {
		reply, _ := bulkReply(t, nil, up, "")
		return 200, reply
	})
	if o.err != nil || o.replyErr != nil {
		t.Fatal(o.err, o.replyErr)
	}
	if plain, _ := openAll(t, o.up); withoutBlankLines(plain) != withoutBlankLines(item+item) {
		t.Errorf("went up: %.300q", plain)
	}
	if peak := e.Budget.(*fakeBudget).peak; peak > 6*blockSize*blockCost {
		t.Errorf("at most %d bytes of the budget were out", peak)
	}
}

func TestBulkRefusals(t *testing.T) {
	item := func(id int, doc string) string {
		return fmt.Sprintf("{\"index\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n%s\n", id, doc)
	}
	good, bad := `{"username":"Ana","card":1}`, `{"card":1}`
	ok := func(t *testing.T) func(Target, []byte) (int, string) {
		return func(_ Target, up []byte) (int, string) {
			reply, _ := bulkReply(t, nil, up, "")
			return 200, reply
		}
	}
	t.Run("filter_path without entries", func(t *testing.T) {
		for filter, fine := range map[string]bool{"took": false, "items.*.error": false, "errors,items.*.status": true, "-items": false, "items.index._id": false, "items": true, "-took": true} {
			e, _, _ := fakeEngine(t)
			o := exchange(t, e, bulkCall("/_bulk", "filter_path="+filter), strings.NewReader(item(1, good)+item(2, bad)), ok(t))
			if fine {
				if o.err != nil {
					t.Errorf("%s: %v", filter, o.err)
				}
				continue
			}
			wantFault(t, o.err, "esproxy_subject", "filter_path")
			// Without a bad item nothing is wrong.
			if o := exchange(t, e, bulkCall("/_bulk", "filter_path="+filter), strings.NewReader(item(1, good)), ok(t)); o.err != nil {
				t.Errorf("%s: %v", filter, o.err)
			}
		}
	})
	t.Run("all bad", func(t *testing.T) {
		e, _, _ := fakeEngine(t)
		call := bulkCall("/_bulk", "")
		o := exchange(t, e, call, strings.NewReader(item(1, bad)+item(2, `{`)), nil)
		if o.err != nil || !o.answered || o.up != "" {
			t.Fatalf("%v, answered %v, %q", o.err, o.answered, o.up)
		}
		errs, entries := readReply(t, o.reply)
		if !errs || len(entries) != 2 || entries[0].Status != 400 || *entries[1].ID != "2" {
			t.Errorf("reply %s", o.reply)
		}
		if asked := call.Caller.(*fakeCaller).asked; len(asked) != 1 || !strings.HasPrefix(asked[0], "GET /_cluster/health") {
			t.Errorf("asked %q", asked)
		}
		if n := call.Counter.(*fakeCounter).n; n["refused esproxy_subject"] != 1 || n["refused esproxy_bad_document"] != 1 {
			t.Errorf("counted %v", n)
		}
	})
	t.Run("all bad, unknown caller", func(t *testing.T) {
		e, _, _ := fakeEngine(t)
		call := bulkCall("/_bulk", "")
		call.Caller = &fakeCaller{status: 401}
		o := exchange(t, e, call, strings.NewReader(item(1, bad)), nil)
		if f := wantFault(t, o.err, "security_exception", "credentials"); f.Status != 401 {
			t.Errorf("status %d", f.Status)
		}
	})
	t.Run("look-up says 401", func(t *testing.T) {
		e, cluster, _ := fakeEngine(t)
		cluster.err = &Fault{Status: 401, Type: "security_exception", Reason: "no"}
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader("{\"update\":{\"_index\":\"user\",\"_id\":\"1\"}}\n{\"doc\":{\"card\":1}}\n"+item(1, good)), nil)
		wantFault(t, o.err, "security_exception", "no")
	})
	t.Run("look-up fails", func(t *testing.T) {
		e, cluster, _ := fakeEngine(t)
		cluster.err = &Fault{Status: 503, Type: "esproxy_lookup_failed", Reason: "no"}
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader("{\"update\":{\"_index\":\"user\",\"_id\":\"1\"}}\n{\"doc\":{\"card\":1}}\n"+item(1, good)), ok(t))
		if o.err != nil {
			t.Fatal(o.err)
		}
		if _, entries := readReply(t, o.reply); entries[0].Status != 503 || entries[1].Status != 201 {
			t.Errorf("reply %s", o.reply)
		}
	})
	t.Run("target not ready", func(t *testing.T) {
		e, cluster, _ := fakeEngine(t)
		cluster.ready = &Fault{Status: 503, Type: "esproxy_wrong_key", Reason: "ids"}
		in := item(1, good) + "{\"delete\":{\"_index\":\"user\",\"_id\":\"2\"}}\n{\"index\":{\"_index\":\"plain\"}}\n{}\n" + item(3, good)
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(in), ok(t))
		if o.err != nil {
			t.Fatal(o.err)
		}
		_, entries := readReply(t, o.reply)
		var got []int
		for _, x := range entries {
			got = append(got, x.Status)
		}
		if !cmp.Equal(got, []int{503, 201, 201, 503}) || strings.Contains(o.up, "Ana") {
			t.Errorf("statuses %v of %s", got, o.up)
		}
	})
	t.Run("sealer busy", func(t *testing.T) {
		e, _, crypto := fakeEngine(t)
		crypto.busy = true
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(item(1, good)+item(2, `{}`)), ok(t))
		if _, entries := readReply(t, o.reply); o.err != nil || entries[0].Status != 429 || entries[1].Status != 201 || strings.Contains(o.up, "Ana") {
			t.Errorf("%v, reply %s", o.err, o.reply)
		}
	})
	t.Run("too many bad items", func(t *testing.T) {
		e, _, _ := fakeEngine(t)
		many := strings.Repeat(item(1, bad), maxBadItems)
		if o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(many+item(1, good)), ok(t)); o.err != nil {
			t.Error(o.err)
		}
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(many+item(1, bad)), ok(t))
		wantFault(t, o.err, "esproxy_bad_bulk", "10000")
	})
	t.Run("no memory", func(t *testing.T) {
		e, _, _ := fakeEngine(t)
		e.Budget.(*fakeBudget).max = 4 * blockCost * firstBlock
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(item(1, `{"username":"Ana","card":"`+strings.Repeat("1", 1<<20)+`"}`)), ok(t))
		if f := wantFault(t, o.err, "esproxy_busy", ""); f.Status != 429 || o.up != "" {
			t.Errorf("%d, %q", f.Status, o.up)
		}
	})
	t.Run("writer fails", func(t *testing.T) {
		e, _, _ := fakeEngine(t)
		plan, err := e.Plan(context.Background(), bulkCall("/_bulk", ""))
		if err != nil {
			t.Fatal(err)
		}
		gone := errors.New("gone")
		if _, err := plan.Transform.Request(context.Background(), plan, strings.NewReader(item(1, good)), failing{gone}); err != gone {
			t.Errorf("got %v", err)
		}
		// An answer before the body was read cannot be that of its items.
		if _, _, err := plan.Transform.Reply(context.Background(), ReplyHead{Status: 200}); err == nil {
			t.Error("a reply to half a body was taken")
		}
		if rewrite, again, err := plan.Transform.Reply(context.Background(), ReplyHead{Status: 413}); rewrite != nil || again || err != nil {
			t.Errorf("an early error does not pass: %v", err)
		}
		plan.Transform.Close()
		if out := e.Budget.(*fakeBudget).out; out != 0 {
			t.Errorf("%d bytes are still out", out)
		}
	})
	t.Run("conflict of rules", func(t *testing.T) {
		e, cluster, _ := fakeEngine(t)
		cluster.names["both"] = Resolved{Names: []string{"both", "user", "deep"}, Write: "user"}
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader("{\"index\":{\"_index\":\"both\"}}\n{\"card\":1}\n"+item(1, good)), ok(t))
		if _, entries := readReply(t, o.reply); o.err != nil || entries[0].Error == nil || entries[0].Error.Type != "esproxy_rule_conflict" {
			t.Errorf("%v, reply %s", o.err, o.reply)
		}
	})
	t.Run("alias", func(t *testing.T) {
		e, cluster, _ := fakeEngine(t)
		cluster.names["alias"] = Resolved{Names: []string{"alias", "user-7"}, Write: "user-7"}
		o := exchange(t, e, bulkCall("/alias/_bulk", ""), strings.NewReader("{\"index\":{}}\n"+good+"\n"), ok(t))
		if plain, sealed := openAll(t, o.up); o.err != nil || len(sealed) != 1 || plain != "{\"index\":{}}\n"+good+"\n" {
			t.Errorf("%v, %s", o.err, o.up)
		}
	})
	t.Run("too many names", func(t *testing.T) {
		e, cluster, _ := fakeEngine(t)
		cluster.ready = &Fault{Status: 503, Type: "esproxy_wrong_key", Reason: "ids"}
		var b strings.Builder
		for i := range 10_100 {
			fmt.Fprintf(&b, "{\"delete\":{\"_id\":\"1\",\"_index\":\"user-%d\"}}\n", i%10_050)
			if i == 9_998 {
				b.WriteString("{\"index\":{\"_index\":\"user-x\"}}\n" + good + "\n")
			}
		}
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(b.String()), ok(t))
		if o.err != nil || strings.Contains(o.up, "esp1.") {
			t.Errorf("%v: a document went to a target that is not ready", o.err)
		}
	})
}

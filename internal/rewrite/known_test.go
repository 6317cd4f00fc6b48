package rewrite

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestKnownManyDocuments(t *testing.T) {
	var k known
	if _, ok := k.get(docName{"a", "1", ""}); ok {
		t.Error("something is known of nothing")
	}
	subj := func(n int) subjects { return subjects{fmt.Appendf(nil, "s%d", n%7), nil, []byte{}} }
	for n := range 20_000 {
		k.set(docName{"user", fmt.Sprint(n), ""}, knownFound, subj(n))
	}
	for n := 0; n < 20_000; n += 3 {
		k.set(docName{"user", fmt.Sprint(n), ""}, knownUnsure, nil)
	}
	for n := range 20_000 {
		d, ok := k.get(docName{"user", fmt.Sprint(n), ""})
		want := knownDoc{was: before{found: true, subj: subj(n)}}
		if n%3 == 0 {
			want = knownDoc{unsure: true}
		}
		if !ok || d.was.found != want.was.found || d.unsure != want.unsure || !cmp.Equal(d.was.subj, want.was.subj) {
			t.Fatalf("document %d: %+v", n, d)
		}
	}
	// Names that run into each other.
	for _, name := range []docName{{"user1", "", ""}, {"user", "1", "r"}, {"user", "20000", ""}, {"", "user1", ""}, {"use", "r1", ""}, {"user", "", "1"}} {
		if _, ok := k.get(name); ok {
			t.Errorf("%+v is known", name)
		}
	}
}

// What a bulk remembers is bounded. What it could not remember it does not guess, and what it forgot
// is not taken for what it was.
func TestKnownFull(t *testing.T) {
	var k known
	long := strings.Repeat("x", 1000)
	k.set(docName{"user", "first", ""}, knownFound, subjects{[]byte("Ana")})
	n := 0
	for ; !k.full; n++ {
		k.set(docName{"user", long + fmt.Sprint(n), ""}, knownFound, subjects{[]byte("Ana")})
		if n > maxKnown/1000+1 {
			t.Fatal("it never gets full")
		}
	}
	if _, ok := k.get(docName{"user", long + fmt.Sprint(n-1), ""}); ok {
		t.Error("the one too many is known")
	}
	if d, ok := k.get(docName{"user", "first", ""}); !ok || string(d.was.subj[0]) != "Ana" {
		t.Error("the first one is lost")
	}
	// Smaller ones may still find room; fill up with them.
	for i := range 200 {
		k.set(docName{"user", fmt.Sprint("fill", i), ""}, knownFound, nil)
	}
	k.set(docName{"user", "first", ""}, knownFound, subjects{[]byte(strings.Repeat("B", 2000))})
	if d, ok := k.get(docName{"user", "first", ""}); ok {
		t.Errorf("a change that was not remembered leaves %q known", d.was.subj)
	}
}

// In a bulk, an update whose document may have been changed unnoticed is answered 429.
func TestBulkKnownFull(t *testing.T) {
	e, cluster, _ := fakeEngine(t)
	storeUser(t, e, cluster, "user", "1", ana, 7)
	var body strings.Builder
	id := strings.Repeat("x", 60_000)
	for n := range maxKnown/60_000 + 2 {
		fmt.Fprintf(&body, `{"index":{"_index":"user","_id":"%s%d"}}`+"\n{}\n", id, n)
	}
	body.WriteString(`{"update":{"_index":"user","_id":"1"}}` + "\n" + `{"doc":{"card":1}}` + "\n")
	o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(body.String()), func(_ Target, up []byte) (int, string) {
		reply, _ := bulkReply(t, nil, up, "")
		return 200, reply
	})
	if o.err != nil || o.replyErr != nil {
		t.Fatal(o.err, o.replyErr)
	}
	_, entries := readReply(t, o.reply)
	for i, x := range entries {
		want := 201
		if i == len(entries)-1 {
			want = 429
		}
		if x.Status != want {
			t.Errorf("entry %d has status %d, want %d", i, x.Status, want)
		}
	}
}

// The table agrees with a map, whatever the order of changes.
func TestKnownGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var k known
		model := map[docName]knownDoc{}
		for range rapid.IntRange(0, 200).Draw(t, "n") {
			name := docName{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "index"), fmt.Sprint(rapid.IntRange(0, 60).Draw(t, "id")), rapid.SampledFrom([]string{"", "r"}).Draw(t, "routing")}
			var subj subjects
			for range rapid.IntRange(0, 3).Draw(t, "rules") {
				subj = append(subj, rapid.SampledFrom([][]byte{nil, []byte("Ana"), []byte(strings.Repeat("B", 300))}).Draw(t, "subject"))
			}
			flags := byte(rapid.IntRange(0, 15).Draw(t, "flags"))
			k.set(name, flags, subj)
			model[name] = knownDoc{was: before{found: flags&knownFound != 0, subj: subj}, unsure: flags&knownUnsure != 0, mixed: flags&knownMixed != 0, touched: flags&knownTouched != 0}
		}
		for name, want := range model {
			got, ok := k.get(name)
			if !ok || got.was.found != want.was.found || got.unsure != want.unsure || got.mixed != want.mixed || got.touched != want.touched || !sameSubjects(got.was.subj, want.was.subj) {
				t.Fatalf("%v: %+v, want %+v", name, got, want)
			}
		}
	})
}

// Golden cases of what items of one bulk make of each other.
func TestBulkKnownGolden(t *testing.T) {
	line := func(kind, more, src string) string {
		s := `{"` + kind + `":{"_index":"user","_id":"1"` + more + "}}\n"
		if src != "" {
			s += src + "\n"
		}
		return s
	}
	const guard = `,"if_seq_no":7,"if_primary_term":3`
	card, city := `{"doc":{"card":2}}`, `{"doc":{"city":1}}`
	for _, c := range []struct {
		name, in string
		up       string // of the last item, "" when it is refused
		status   int
	}{
		{"first", line("update", "", card), line("update", guard, `{"doc":{"card":<Ana>2}}`), 201},
		{"after an index of another user", line("index", "", `{"username":"Bob"}`) + line("update", "", card), "", 429},
		{"after an index of the same user", line("index", "", `{"username":"Ana"}`) + line("update", `,"retry_on_conflict":3`, card), line("update", `,"retry_on_conflict":3`, `{"doc":{"card":<Ana>2}}`), 201},
		{"after a delete", line("delete", "", "") + line("update", "", card), "", 404},
		{"after a delete, upsert", line("delete", "", "") + line("update", "", `{"doc":{"card":2},"upsert":{"username":"Bob","card":3}}`), line("create", "", `{"username":"Bob","card":<Bob>3}`), 201},
		{"after a delete and an upsert", line("delete", "", "") + line("update", "", `{"doc":{"city":1},"upsert":{"username":"Bob"}}`) + line("update", "", card), line("update", "", `{"doc":{"card":<Bob>2}}`), 201},
		{"after an update that protects nothing", line("update", "", city) + line("update", "", card), line("update", "", `{"doc":{"card":<Ana>2}}`), 201},
		{"after one with an upsert", line("update", "", `{"doc":{"city":1},"upsert":{"username":"Bob"}}`) + line("update", "", card), line("update", "", `{"doc":{"card":<Ana>2}}`), 201},
		{"after a guarded one", line("update", "", card) + line("update", "", card), line("update", "", `{"doc":{"card":<Ana>2}}`), 201},
		{"after one that changes the subject", line("update", "", `{"doc":{"username":"Bob","card":2,"ccv":3}}`) + line("update", "", card), "", 429},
		{"after a refused one", line("update", "", `{"doc":{"username":"Bob"}}`) + line("update", "", card), line("update", guard, `{"doc":{"card":<Ana>2}}`), 201},
		{"under another routing", line("index", `,"routing":"r"`, `{"username":"Bob"}`) + line("update", "", card), line("update", guard, `{"doc":{"card":<Ana>2}}`), 201},
		{"after a conditional delete", line("delete", guard, "") + line("update", "", card), "", 429},
		{"own condition", line("index", "", `{"username":"Ana"}`) + line("update", guard, card), line("update", guard, `{"doc":{"card":<Ana>2}}`), 201},
	} {
		e, cluster, _ := fakeEngine(t)
		storeUser(t, e, cluster, "user", "1", ana, 7)
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(c.in), func(_ Target, up []byte) (int, string) {
			reply, _ := bulkReply(t, nil, up, "")
			return 200, reply
		})
		if o.err != nil || o.replyErr != nil {
			t.Errorf("%s: %v, %v", c.name, o.err, o.replyErr)
			continue
		}
		_, entries := readReply(t, o.reply)
		got := tokenText.ReplaceAllStringFunc(o.up, func(token string) string {
			_, _, who, value, _ := readFakeToken(strings.Trim(token, `"`))
			return "<" + who + ">" + value
		})
		if last := entries[len(entries)-1]; last.Status != c.status || !strings.HasSuffix(got, c.up) {
			t.Errorf("%s: %d\n got %s\nwant %s", c.name, last.Status, got, c.up)
		}
	}
}

// An alias and the index it stands for are one target.
func TestBulkKnownAlias(t *testing.T) {
	e, cluster, _ := fakeEngine(t)
	cluster.names["alias"] = Resolved{Names: []string{"alias", "user"}, Write: "user"}
	in := `{"create":{"_index":"user","_id":"1"}}` + "\n" + `{"username":"Ana"}` + "\n" + `{"update":{"_index":"alias","_id":"1"}}` + "\n" + `{"doc":{"card":2}}` + "\n"
	o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(in), func(_ Target, up []byte) (int, string) {
		reply, _ := bulkReply(t, nil, up, "")
		return 200, reply
	})
	if plain, sealed := openAll(t, o.up); o.err != nil || plain != in || !cmp.Equal(sealed, []string{"users card Ana"}) {
		t.Errorf("%v: %s, %q", o.err, plain, sealed)
	}
}

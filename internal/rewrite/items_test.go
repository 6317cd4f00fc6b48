package rewrite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func replyBad(ordinal int, action, id string) badItem {
	return badItem{ordinal: ordinal, action: action, index: "user", id: id, hasID: id != "", fault: &Fault{Status: 400, Type: "esproxy_subject", Reason: `no "subject"`}}
}

func replySplice(t testing.TB, s *splice, in io.Reader) (string, error) {
	t.Helper()
	budget := &fakeBudget{}
	s.budget, s.limit = budget, 1<<20
	var out bytes.Buffer
	err := s.rewrite(context.Background(), in, &out)
	if budget.out != 0 {
		t.Errorf("%d bytes of the budget were not given back", budget.out)
	}
	return out.String(), err
}

const (
	replyOurs7   = `{"index":{"_index":"user","_id":"7","status":400,"error":{"type":"esproxy_subject","reason":"no \"subject\""}}}`
	replyOursNil = `{"create":{"_index":"user","_id":null,"status":400,"error":{"type":"esproxy_subject","reason":"no \"subject\""}}}`
)

func TestSplice(t *testing.T) {
	a, b := `{"index":{"_id":"a","status":201}}`, `{"delete":{"_id":"b","status":404}}`
	for _, c := range []struct {
		name, in, want string
		bad            []badItem
		total          int
		filter         string
	}{
		{"before", `{"errors":false,"took":1,"items":[` + a + `,` + b + `]}`, `{"errors":true,"took":1,"items":[` + replyOurs7 + `,` + a + `,` + b + `]}`, []badItem{replyBad(0, "index", "7")}, 3, ""},
		{"between", `{"took":1,"errors":true,"items":[` + a + `,` + b + `],"ingest_took":3}`, `{"took":1,"errors":true,"items":[` + a + `,` + replyOursNil + `,` + b + `],"ingest_took":3}`, []badItem{replyBad(1, "create", "")}, 3, ""},
		{"after", `{"errors":false,"items":[` + a + `]}`, `{"errors":true,"items":[` + a + `,` + replyOurs7 + `,` + replyOursNil + `]}`, []badItem{replyBad(1, "index", "7"), replyBad(2, "create", "")}, 3, ""},
		{"pretty", "{\n  \"errors\" : false,\n  \"items\" : [\n    " + a + ",\n    " + b + "\n  ]\n}\n", "{\n  \"errors\" : true,\n  \"items\" : [\n    " + replyOurs7 + "," + a + ",\n    " + b + "\n  ," + replyOursNil + "]\n}\n", []badItem{replyBad(0, "index", "7"), replyBad(3, "create", "")}, 4, ""},
		{"Logstash", `{"errors":false,"items":[{"index":{"status":201}}]}`, `{"errors":true,"items":[{"index":{"status":201}},{"create":{"status":400,"error":{"type":"esproxy_subject","reason":"no \"subject\""}}}]}`, []badItem{replyBad(1, "create", "")}, 2, "errors,items.*.error,items.*.status"},
		{"no errors wanted", `{"items":[{"index":{"_id":"a"}}]}`, `{"items":[{"index":{"_id":"7"}},{"index":{"_id":"a"}}]}`, []badItem{replyBad(0, "index", "7")}, 2, "items.*._id"},
		{"escaped names", `{"\u0065rrors":false,"it\u0065ms":[` + a + `]}`, `{"\u0065rrors":true,"it\u0065ms":[` + a + `,` + replyOurs7 + `]}`, []badItem{replyBad(1, "index", "7")}, 2, ""},
	} {
		for how, cut := range replyReaders {
			filter, err := newFilterPath(c.filter)
			if err != nil {
				t.Fatal(err)
			}
			got, err := replySplice(t, &splice{bad: c.bad, total: c.total, filter: filter}, cut(strings.NewReader(c.in)))
			if err != nil {
				t.Fatalf("%s, %s: %v", c.name, how, err)
			}
			if got != c.want {
				t.Errorf("%s, %s:\n got %s\nwant %s", c.name, how, got, c.want)
			}
			if !json.Valid([]byte(got)) {
				t.Errorf("%s, %s: no JSON", c.name, how)
			}
		}
	}
}

// A reply that does not fit the request is an error, and nothing of it goes out.
func TestSpliceMismatch(t *testing.T) {
	a := `{"index":{"_id":"a","status":201}}`
	for _, in := range []string{
		``, `[]`, `7`, `{}`, `{"errors":false}`,
		`{"errors":false,"items":[]}`,
		`{"errors":false,"items":[` + a + `,` + a + `]}`,
		`{"errors":false,"items":[` + a + `]`,
		`{"errors":false,"items":[` + a + `]} x`,
		`{"errors":false,"items":[` + a + `,]}`,
		`{"errors":false,"items":[` + a,
		`{"errors":false,"items":{}}`,
		`{"items":[` + a + `]}`,
		`{"items":[` + a + `],"errors":false}`,
		`{"errors":false,"errors":false,"items":[` + a + `]}`,
		`{"errors":false,"items":[` + a + `],"items":[]}`,
		`{"errors":null,"items":[` + a + `]}`,
		`{"errors":false/**/,"items":[` + a + `]}`,
		"\ufeff" + `{"errors":false,"items":[` + a + `]}`,
	} {
		got, err := replySplice(t, &splice{bad: []badItem{replyBad(1, "index", "7")}, total: 2}, iotest.OneByteReader(strings.NewReader(in)))
		var mismatch *replyMismatch
		if !errors.As(err, &mismatch) {
			t.Errorf("%s: error %v", in, err)
		}
		if got != "" {
			t.Errorf("%s: wrote %q before the error", in, got)
		}
		if err != nil && strings.Contains(err.Error(), `_id`) {
			t.Errorf("%s: the error quotes the reply: %v", in, err)
		}
	}
	broken := errors.New("reset")
	if _, err := replySplice(t, &splice{bad: []badItem{replyBad(1, "index", "7")}, total: 2}, io.MultiReader(strings.NewReader(`{"errors":`), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the reader", err)
	}
}

func TestSpliceReplaceAndOpen(t *testing.T) {
	eng, _, _ := fakeEngine(t)
	counter := &fakeCounter{}
	in := replyTokens(`{"errors":true,"items":[{"update":{"_index":"user","_id":"1","get":{"found":true,"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},"status":200}},{"update":{"_index":"user","_id":"2","status":409}},{"index":{"_index":"user","get":{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}}}]}`)
	want := replyTokens(`{"errors":true,"items":[{"update":{"_index":"user","_id":"1","get":{"found":true,"_source":{"username":"Ana","card":1}},"status":200}},` + replyOurs7 + `,{"update":{"_index":"user","_id":"2","get":{"_source":{"username":"Bob","card":2}},"status":200}},{"index":{"_index":"user","get":{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}}}]}`)
	var asked []string
	s := &splice{
		bad: []badItem{replyBad(1, "index", "7")}, total: 4,
		open:   &opening{eng: eng, viewer: replyFull, counter: counter, kind: replyUpdate},
		wanted: func(ordinal int) bool { return ordinal == 2 },
		replace: func(ordinal int, item []byte) ([]byte, error) {
			asked = append(asked, fmt.Sprint(ordinal, " ", string(item)))
			return []byte(replyTokens(`{"update":{"_index":"user","_id":"2","get":{"_source":{"username":"Bob","card":"<<users|card|Bob|2>>"}},"status":200}}`)), nil
		},
	}
	got, err := replySplice(t, s, iotest.HalfReader(strings.NewReader(in)))
	if err != nil {
		t.Fatal(err)
	}
	if got != want {
		t.Errorf("\n got %s\nwant %s", got, want)
	}
	if diff := cmp.Diff([]string{`2 {"update":{"_index":"user","_id":"2","status":409}}`}, asked); diff != "" {
		t.Errorf("replaced (-want +got):\n%s", diff)
	}
	if counter.n["opened users.card plain in user"] != 2 {
		t.Errorf("counted %v", counter.n)
	}
	failed := errors.New("lost")
	s.replace = func(int, []byte) ([]byte, error) { return nil, failed }
	if got, err := replySplice(t, s, strings.NewReader(in)); !errors.Is(err, failed) || got != "" {
		t.Errorf("wrote %q, error %v", got, err)
	}
}

// With nothing to insert, what is no strict JSON passes as it is.
func TestSpliceOpenOnlyNotStrict(t *testing.T) {
	eng, _, _ := fakeEngine(t)
	in := replyTokens(`{"items":[{"update":{"_index":"user","_id":"1","get":{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}}},//
{"update":{"_index":"user","_id":"1","get":{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}}}]}`)
	want := strings.Replace(in, `"`+fakeToken("users", "card", "Ana", "1")+`"`, "1", 1)
	got, err := replySplice(t, &splice{total: 2, open: &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}}, strings.NewReader(in))
	if err != nil || got != want {
		t.Errorf("error %v\n got %s\nwant %s", err, got, want)
	}
}

// A long reply streams: bytes go out before it ends, and a late mismatch is still an error.
func TestSpliceLong(t *testing.T) {
	var in strings.Builder
	in.WriteString(`{"errors":false,"items":[`)
	const n = 20_000
	for i := range n {
		if i > 0 {
			in.WriteByte(',')
		}
		fmt.Fprintf(&in, `{"index":{"_id":"%d","status":201}}`, i)
	}
	in.WriteString(`]}`)
	for _, total := range []int{n + 1, n + 2} {
		got, err := replySplice(t, &splice{bad: []badItem{replyBad(n/2, "index", "7")}, total: total}, strings.NewReader(in.String()))
		if total == n+1 && (err != nil || !json.Valid([]byte(got))) {
			t.Errorf("error %v in %d bytes", err, len(got))
		}
		if total == n+2 && (err == nil || json.Valid([]byte(got))) {
			t.Errorf("a reply that lacks an item: error %v, %d bytes", err, len(got))
		}
	}
}

func TestSpliceOwn(t *testing.T) {
	for filter, want := range map[string]string{
		"":                  `{"errors":true,"took":5,"items":[` + replyOurs7 + `,` + replyOursNil + `]}`,
		"items.*.status":    `{"items":[{"index":{"status":400}},{"create":{"status":400}}]}`,
		"-items,-errors":    `{"took":5}`,
		"items.create._id":  `{"items":[{"create":{"_id":null}}]}`,
		"nothing":           `{}`,
		"errors,**.type":    `{"errors":true,"items":[{"index":{"error":{"type":"esproxy_subject"}}},{"create":{"error":{"type":"esproxy_subject"}}}]}`,
		"took,items.*.none": `{"took":5}`,
	} {
		f, err := newFilterPath(filter)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		s := &splice{bad: []badItem{replyBad(0, "index", "7"), replyBad(1, "create", "")}, total: 2, filter: f}
		if err := s.own(&out, 5); err != nil {
			t.Fatal(err)
		}
		if out.String() != want {
			t.Errorf("filter_path=%s\n got %s\nwant %s", filter, out.String(), want)
		}
	}
	s := &splice{total: 10_000}
	for i := range s.total {
		s.bad = append(s.bad, replyBad(i, "index", strconv.Itoa(i)))
	}
	var out bytes.Buffer
	if err := s.own(&out, 0); err != nil {
		t.Fatal(err)
	}
	var reply struct{ Items []any }
	if err := json.Unmarshal(out.Bytes(), &reply); err != nil || len(reply.Items) != s.total {
		t.Errorf("error %v, %d items", err, len(reply.Items))
	}
}

// replyModelFilter cuts a parsed value by patterns as the server does: only in this test, over whole trees.
func replyModelFilter(f *filterPath, v any, path []string) (any, bool) {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for name, value := range v {
			if kept, ok := replyModelFilter(f, value, append(slices.Clone(path), name)); ok {
				out[name] = kept
			}
		}
		return out, len(out) > 0
	case []any:
		var out []any
		for _, value := range v {
			if kept, ok := replyModelFilter(f, value, path); ok {
				out = append(out, kept)
			}
		}
		return out, len(out) > 0
	}
	return v, f.keeps(path...)
}

// FuzzSplice compares with a model: the reply to all items, made of parsed JSON and cut by filter_path.
func FuzzSplice(f *testing.F) {
	for i, filter := range []string{"", "items.*.status,errors", "items.*._id", "-took", "-**.reason", "items.*.error,items.*.status,errors,took", "**", "errors"} {
		f.Add(uint64(i), uint8(i*3), filter, uint8(i), i%2 == 0)
	}
	f.Fuzz(func(t *testing.T, seed uint64, count uint8, filter string, cut uint8, pretty bool) {
		path, err := newFilterPath(filter)
		if err != nil || !path.perItem() {
			return
		}
		rnd := rand.New(rand.NewPCG(seed, 1))
		actions := []string{"index", "create", "update", "delete"}
		s := &splice{total: int(count), filter: path}
		var all, theirs []any
		for i := range s.total {
			action := actions[rnd.IntN(4)]
			id := strings.Repeat("é\"", rnd.IntN(30)) + strconv.Itoa(i)
			item := map[string]any{"_index": "user", "_id": id, "status": json.Number("201"), "_version": json.Number(strconv.Itoa(i)), "get": map[string]any{"_source": map[string]any{"items": []any{map[string]any{"errors": false}}}}}
			if rnd.IntN(3) == 0 {
				bad := replyBad(i, action, id)
				if rnd.IntN(4) == 0 {
					bad.id, bad.hasID = "", false
				}
				s.bad = append(s.bad, bad)
				item = map[string]any{"_index": "user", "_id": id, "status": json.Number("400"), "error": map[string]any{"type": bad.fault.Type, "reason": bad.fault.Reason}}
				if !bad.hasID {
					item["_id"] = nil
				}
			} else {
				theirs = append(theirs, map[string]any{action: item})
			}
			all = append(all, map[string]any{action: item})
		}
		if len(theirs) == 0 || len(s.bad) == 0 {
			return
		}
		// The server's own reply, cut by the server.
		cutList, _ := replyModelFilter(path, theirs, []string{"items"})
		indent := func(v any) string {
			b, err := json.Marshal(v)
			if pretty {
				b, err = json.MarshalIndent(v, "  ", "  ")
			}
			if err != nil {
				t.Fatal(err)
			}
			return string(b)
		}
		var members []string
		if path.keeps("errors") {
			members = append(members, `"errors" : false`)
		}
		if path.keeps("took") {
			members = append(members, `"took":7`)
		}
		members = append(members, `"items" :`+indent(cutList))
		in := "{" + strings.Join(members, ",\n") + "}\n"

		got, err := replySplice(t, s, &replyPieces{in, int(cut) + 1})
		if err != nil {
			t.Fatalf("%v\nin %s", err, in)
		}
		decode := json.NewDecoder(strings.NewReader(got))
		decode.UseNumber()
		var parsed any
		if err := decode.Decode(&parsed); err != nil {
			t.Fatalf("%v\nin %s\nout %s", err, in, got)
		}
		want, _ := replyModelFilter(path, map[string]any{"errors": true, "took": json.Number("7"), "items": all}, nil)
		if diff := cmp.Diff(want, parsed); diff != "" {
			t.Errorf("filter_path=%q (-want +got):\n%s", filter, diff)
		}
		// One item more or less than the request had is never passed off as a reply.
		s.total += 1 - 2*int(seed%2)
		if _, err := replySplice(t, s, &replyPieces{in, int(cut) + 1}); err == nil {
			t.Errorf("a reply for another number of items is taken")
		}
	})
}

package rewrite

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestStrictJSON(t *testing.T) {
	for _, good := range []string{
		`{}`, `[]`, `null`, ` true `, "\t{\r\n\"a\" : [ 1 , -0.5e+3 , \"x\" ] }\n", `"\ud800"`, `{"a":{"a":{"a":1}},"b":[{"a":1},{"a":2}]}`, `{"":1}`,
		`{"A":1,"a":2}`, strings.Repeat("[", maxDepth) + strings.Repeat("]", maxDepth),
	} {
		if err := strictJSON([]byte(good)); err != nil {
			t.Errorf("%.40s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		``: "unexpected end", ` `: "unexpected end", `{`: "unexpected end", `{"a"`: "unexpected end", `{"a":1`: "unexpected end", `"a`: "unexpected end", `-`: "unexpected end",
		"\xEF\xBB\xBF{}": "byte order mark", `{} {}`: "after the value", `{},`: "after the value", `{"a":1,}`: "member name", `[1,]`: "expected a value",
		`{"a":1 "b":2}`: "comma or }", `[1 2]`: "comma or ]", `{"a":1,"a":2}`: "duplicate", `{"a":1,"\u0061":2}`: "duplicate", `[{"x":{"é":1,"\u00e9":2}}]`: "duplicate",
		`{"\ud800":1}`: "lone surrogate", "{\"c\xC1\xA3\":1}": "invalid UTF-8", `/* */{}`: "expected a value", `01`: "after the value", `nul`: "unexpected end", `nuli`: "unknown word",
		strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1): "too deep", strings.Repeat(`{"a":`, maxDepth+1): "too deep",
	} {
		err := strictJSON([]byte(bad))
		var s *syntaxError
		if !errors.As(err, &s) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: got %v, want %q", bad, err, want)
		}
	}
}

// FuzzStrictJSON compares the pass with another strict reader.
func FuzzStrictJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `{"a":1,"\u0061":2}`, `{"\ud800":1}`, `"\ud83d\ude00"`, `[1e5,]`, "\xEF\xBB\xBF1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		err := strictJSON(b)
		root, treeErr := strictTree(b)
		if (err == nil) != (treeErr == nil) {
			t.Fatalf("skip %v, tree %v", err, treeErr)
		}
		if err != nil {
			if !errors.As(err, new(*syntaxError)) {
				t.Fatalf("%T is no syntax error", err)
			}
			return
		}
		if !json.Valid(b) {
			t.Fatal("accepted what encoding/json refuses")
		}
		// The other reader refuses lone surrogates everywhere, so one is allowed to differ there.
		v := jsontext.Value(b)
		if !v.IsValid() && !strings.Contains(strings.ToLower(string(b)), `\ud`) {
			t.Fatal("accepted what jsontext refuses")
		}
		if v.IsValid() && strings.TrimSpace(string(b)) != string(b[root.start:root.end]) {
			t.Fatalf("the root is %d to %d", root.start, root.end)
		}
	})
}

func TestStrictAllocations(t *testing.T) {
	body := []byte(`{"query":{"bool":{"filter":[{"term":{"a":1}},{"range":{"b":{"gte":1,"lt":2}}}]}},"size":10}`)
	if n := testing.AllocsPerRun(100, func() {
		if strictJSON(body) != nil {
			t.Fatal("refused")
		}
	}); n > 1 {
		t.Errorf("%v allocations for a small body", n)
	}
}

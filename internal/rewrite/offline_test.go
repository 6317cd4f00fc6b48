package rewrite

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/policy"
)

func TestOffline(t *testing.T) {
	e, _, _ := fakeEngine(t)
	e = &Engine{Policy: e.Policy, Sealer: e.Sealer, Opener: e.Opener, Limits: e.Limits}
	rules := e.Policy.Rules[:1]
	out, err := e.SealDocument([]byte("before "), []byte(`{"username":"Ana","card":[1],"items":[{"card":2},{"card":3}],"x":null}`), rules)
	if err != nil || !strings.HasPrefix(string(out), "before {") {
		t.Fatalf("%s, %v", out, err)
	}
	doc := out[len("before "):]
	if got := e.SealedAt(doc, rules); fmt.Sprint(got) != "[card items.card]" {
		t.Errorf("sealed at %v", got)
	}
	for _, none := range []string{`{"card":1}`, `{"x":"esp1.AA"}`, `{"card":`, ``, `[]`} {
		if got := e.SealedAt([]byte(none), rules); len(got) != 0 {
			t.Errorf("%s: sealed at %v", none, got)
		}
	}
	if got := e.SealedAt(doc, nil); got != nil {
		t.Errorf("without rules: %v", got)
	}
	open := func(v Viewer) string {
		var b strings.Builder
		if err := e.OpenDocument(context.Background(), strings.NewReader(string(doc)), &b, rules, v, &fakeCounter{}); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	if got := open(fullViewer); got != `{"username":"Ana","card":[1],"items":[{"card":2},{"card":3}],"x":null}` {
		t.Errorf("opened: %s", got)
	}
	if got := open(fakeViewer{"users.card": policy.Masked}); !strings.Contains(got, `"card":"mask of 3"`) || strings.Count(got, "esp1.") != 2 {
		t.Errorf("masked: %s", got)
	}
	// Without rules a document passes as it is.
	if out, err := e.SealDocument(nil, []byte(`{"card":1,"card":2`), nil); err != nil || string(out) != `{"card":1,"card":2` {
		t.Errorf("%s, %v", out, err)
	}
	var b strings.Builder
	if err := e.OpenDocument(context.Background(), strings.NewReader("x"), &b, nil, fullViewer, nil); err != nil || b.String() != "x" {
		t.Errorf("%s, %v", b.String(), err)
	}
	// Another person's value stays sealed.
	moved := strings.Replace(string(doc), `"Ana"`, `"Bob"`, 1)
	b.Reset()
	if err := e.OpenDocument(context.Background(), strings.NewReader(moved), &b, rules, fullViewer, &fakeCounter{}); err != nil || b.String() != moved {
		t.Errorf("%s, %v", b.String(), err)
	}
}

package rewrite

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// A scanner that has read other documents reads each as a new one does: the same values, the same refusals.
func TestGuesses(t *testing.T) {
	e, _, _ := fakeEngine(t)
	targets := []*target{newTarget(e.Policy.Rules[:1], false), newTarget(e.Policy.Rules, false)}
	names := []string{`a`, `b`, `b.c`, `username`, `card`, `c\u0061rd`, `user\u006eame`, `esproxy_x`, `a.esproxy_x`, `_source`, `b.`, `.b`, ``, `\ud800`, `items`, `pay`, `pay.iban`, `card.x`, strings.Repeat("n", 300)}
	for i := range 80 {
		names = append(names, "many"+strings.Repeat("y", i))
	}
	isToken := e.Sealer.IsToken
	rapid.Check(t, func(t *rapid.T) {
		old := newDocScanner(isToken)
		common := rapid.SliceOfN(rapid.SampledFrom(names), 0, 100).Draw(t, "common")
		for range rapid.IntRange(2, 6).Draw(t, "documents") {
			// Most documents begin like the others.
			list := common[:rapid.IntRange(0, len(common)).Draw(t, "same")]
			list = append(list[:len(list):len(list)], rapid.SliceOfN(rapid.SampledFrom(names), 0, 3).Draw(t, "more")...)
			var doc strings.Builder
			doc.WriteByte('{')
			for i, name := range list {
				if i > 0 {
					doc.WriteString(rapid.SampledFrom([]string{",", " , ", ","}).Draw(t, "comma"))
				}
				doc.WriteString(`"` + name + `"` + rapid.SampledFrom([]string{":", " :\t", ":"}).Draw(t, "colon"))
				doc.WriteString(rapid.SampledFrom([]string{`"x"`, `1`, `null`, `{"a":1,"b":2}`, `{"a":1,"a":2}`, `[{"card":"v"}]`, `tru`}).Draw(t, "value"))
			}
			doc.WriteString(rapid.SampledFrom([]string{"}", "}", "}", "", "}x"}).Draw(t, "end"))
			target := rapid.SampledFrom(targets).Draw(t, "target")
			var got, want part
			gotErr := old.document([]byte(doc.String()), target, &got)
			wantErr := newDocScanner(isToken).document([]byte(doc.String()), target, &want)
			if !reflect.DeepEqual(gotErr, wantErr) {
				t.Fatalf("%s: got %v, want %v", doc.String(), gotErr, wantErr)
			}
			if gotErr == nil && !reflect.DeepEqual(got, want) {
				t.Fatalf("%s: got %+v, want %+v", doc.String(), got, want)
			}
		}
	})
}

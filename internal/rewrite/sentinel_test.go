package rewrite_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

func sentinelRule(t *testing.T, fields string) *policy.Rule {
	t.Helper()
	p, err := policy.Parse("test.yaml", []byte("version: 1\nrules:\n  - name: users\n    fields: {"+fields+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p.Rules[0]
}

// TestSentinelIsStable pins the name over the whole definition. A script can't be changed once it is in a mapping, so a change here means that
// every cluster gets a second field: it needs a line in CHANGELOG.md.
func TestSentinelIsStable(t *testing.T) {
	name, definition := rewrite.Sentinel(sentinelRule(t, "card: {mode: encrypt}, payment.cards.pan: {mode: encrypt}, ccv: {mode: drop}"))
	if want := "esproxy_key_b396e200d7d4f849"; name != want {
		t.Errorf("got name %s, want %s", name, want)
	}
	var d struct {
		Script struct {
			Source string
			Params map[string]map[string]string
		}
	}
	if err := json.Unmarshal(definition, &d); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"card": "encrypt", "ccv": "drop", "payment": "above", "payment.cards": "above", "payment.cards.pan": "encrypt"}
	if diff := cmp.Diff(want, d.Script.Params["paths"]); diff != "" {
		t.Errorf("paths (-want +got):\n%s", diff)
	}
	if len(d.Script.Source) > 1<<14 {
		t.Errorf("the script has %d bytes; Elasticsearch takes 65,535", len(d.Script.Source))
	}
}

func TestSentinelNames(t *testing.T) {
	name := func(fields string) string {
		n, _ := rewrite.Sentinel(sentinelRule(t, fields))
		return n
	}
	base := name("a: {mode: encrypt}, b.c: {mode: encrypt}")
	if got := name("b.c: {mode: encrypt, mask: last4}, a: {mode: encrypt}"); got != base {
		t.Errorf("order and mask change the name from %s to %s", base, got)
	}
	for _, other := range []string{"a: {mode: encrypt}", "a: {mode: encrypt}, b.c: {mode: drop}", "a: {mode: encrypt}, c.b: {mode: encrypt}"} {
		if name(other) == base {
			t.Errorf("%s has the name of another sentinel", other)
		}
	}
}

func TestJudgeSentinel(t *testing.T) {
	r := sentinelRule(t, "card: {mode: encrypt}")
	name, definition := rewrite.Sentinel(r)
	with := func(definition string) string { return `{"properties":{"` + name + `":` + definition + `}}` }
	change := func(old, to string) string {
		out := strings.Replace(string(definition), old, to, 1)
		if out == string(definition) {
			t.Fatalf("the definition does not hold %s", old)
		}
		return with(out)
	}
	for _, c := range []struct {
		why, mapping string
		want         rewrite.SentinelState
	}{
		{"as written", with(string(definition)), rewrite.SentinelSame},
		{"as the server shows it, without defaults", change(`"on_script_error":"fail","ignore_above":2147483647,`, ""), rewrite.SentinelSame},
		{"meta tells people something", change(`"type"`, `"meta":{"owner":"security"},"type"`), rewrite.SentinelSame},
		{"empty mapping", `{}`, rewrite.SentinelMissing},
		{"no mapping", ``, rewrite.SentinelMissing},
		{"other field", `{"properties":{"card":{"type":"keyword"}}}`, rewrite.SentinelMissing},
		{"switched off", change(`"fail"`, `"continue"`), rewrite.SentinelOff},
		{"short values only", change(`2147483647`, `1`), rewrite.SentinelDiffers},
		{"other type", change(`"keyword"`, `"long"`), rewrite.SentinelDiffers},
		{"no script", with(`{"type":"keyword"}`), rewrite.SentinelDiffers},
		{"other script", change(`throw `, `return; //`), rewrite.SentinelDiffers},
		{"other path", change(`"card":"encrypt"`, `"cart":"encrypt"`), rewrite.SentinelDiffers},
		{"one more parameter", change(`"params":{`, `"params":{"x":{},`), rewrite.SentinelDiffers},
		{"option that the definition has not", change(`"type"`, `"doc_values":false,"type"`), rewrite.SentinelDiffers},
		{"hidden", strings.Replace(with(string(definition)), `{"properties"`, `{"runtime":{"`+name+`":{"type":"keyword"}},"properties"`, 1), rewrite.SentinelShadowed},
	} {
		if got := rewrite.JudgeSentinel([]byte(c.mapping), r); got != c.want {
			t.Errorf("%s: got %s, want %s", c.why, got, c.want)
		}
	}
}

func TestOtherSentinels(t *testing.T) {
	now, then := sentinelRule(t, "card: {mode: encrypt}"), sentinelRule(t, "card: {mode: encrypt}, pin: {mode: encrypt}")
	a, da := rewrite.Sentinel(now)
	b, db := rewrite.Sentinel(then)
	mapping := []byte(`{"properties":{"` + a + `":` + string(da) + `,"` + b + `":` + string(db) + `,"card":{"type":"keyword"}}}`)
	if d := cmp.Diff([]string{b}, rewrite.OtherSentinels(mapping, []*policy.Rule{now})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := rewrite.OtherSentinels([]byte(`[]`), nil); got != nil {
		t.Errorf("got %v of no mapping", got)
	}
}

func TestParseSentinelTerm(t *testing.T) {
	got, ok := rewrite.ParseSentinelTerm("payment.cards:pan:AQQSNFZ4")
	want := rewrite.SentinelTerm{Path: "payment.cards:pan", Suite: 1, Flags: 4, KeyID: "12345678"}
	if !ok || got != want {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	if got, ok := rewrite.ParseSentinelTerm(":AQQSNFZ4"); !ok || got.Path != "" || got.KeyID != "12345678" {
		t.Errorf("without a path: got %+v, %v", got, ok)
	}
	for _, bad := range []string{"", "AQQSNFZ4", "card:", "card:AQQSNFZ", "card:AQQSNFZ44", "card:AQQSNF/4"} {
		if _, ok := rewrite.ParseSentinelTerm(bad); ok {
			t.Errorf("%q was taken for a term", bad)
		}
	}
}

func TestLooksSealed(t *testing.T) {
	for text, want := range map[string]bool{
		"esp1." + strings.Repeat("A", 211):        true,
		"esp1." + strings.Repeat("a-_9", 54):      true,
		"esp1." + strings.Repeat("A", 210):        false,
		"esp1." + strings.Repeat("A", 213):        false, // no number of bytes has so many characters
		"esp1." + strings.Repeat("A", 211) + "=":  false,
		"esp1." + strings.Repeat("A", 211) + "\n": false,
		" esp1." + strings.Repeat("A", 211):       false,
		"esp2." + strings.Repeat("A", 211):        false,
		"esp1." + strings.Repeat("+", 211):        false,
	} {
		if got := rewrite.LooksSealed(text); got != want {
			t.Errorf("%d characters, %q…: got %v", len(text), text[:8], got)
		}
	}
}

package rewrite

import (
	"net/url"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseQuery(t *testing.T) {
	for raw, want := range map[string][]param{
		"": nil, "&": nil, ";&;": nil, "a": {{"a", ""}}, "a=": {{"a", ""}}, "a=1": {{"a", "1"}}, "=1": {{"", "1"}}, "a=1=2": {{"a", "1=2"}},
		"a=1&b=2;c=3": {{"a", "1"}, {"b", "2"}, {"c", "3"}}, "a=b+c%20d": {{"a", "b c d"}}, "%61=%3B%26": {{"a", ";&"}}, "a=1&A=2": {{"a", "1"}, {"A", "2"}}, "a=%C3%A9": {{"a", "é"}},
	} {
		got, fault := parseQuery(raw)
		if fault != nil || !cmp.Equal(got, want, cmp.AllowUnexported(param{})) {
			t.Errorf("%q: %v, %v", raw, got, fault)
		}
	}
	for raw, words := range map[string]string{
		"a=1&a=1": "twice", "a=1;a=2": "twice", "a&%61": "twice", "refresh=true&x&refresh=false": "twice", "a=%": "does not decode", "%zz": "does not decode", "a=%4": "does not decode",
		"a=%ff": "does not decode", "routing=%ED%A0%80": "does not decode",
	} {
		_, fault := parseQuery(raw)
		if fault == nil {
			t.Errorf("%q was taken", raw)
			continue
		}
		wantFault(t, fault, "esproxy_bad_request", words)
	}
}

func TestKeepParams(t *testing.T) {
	drop := func(name string) bool { return name == "retry_on_conflict" || name == "lang" }
	for raw, want := range map[string]string{
		"": "", "a=1": "a=1", "retry_on_conflict=3": "", "a=1&retry_on_conflict=3;b=%20+x&lang": "a=1&b=%20+x", "retry%5Fon%5Fconflict=3&x": "x", "%zz=1&lang=a": "%zz=1", ";;a&&b;": "a&b",
	} {
		if got := keepParams(raw, drop); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
	if got := addParam(addParam("", "a", "1"), "b", "é&;"); got != "a=1&b=%C3%A9%26%3B" {
		t.Errorf("got %q", got)
	}
}

func TestParseQueryGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		raw, want, names := "", []param(nil), map[string]bool{}
		for range rapid.IntRange(0, 6).Draw(t, "n") {
			p := param{rapid.String().Draw(t, "name"), rapid.String().Draw(t, "value")}
			if names[p.name] {
				continue
			}
			names[p.name] = true
			if raw != "" {
				raw += rapid.SampledFrom([]string{"&", ";", "&&"}).Draw(t, "separator")
			}
			raw += url.QueryEscape(p.name) + "=" + url.QueryEscape(p.value)
			want = append(want, p)
		}
		got, fault := parseQuery(raw)
		if fault != nil || !cmp.Equal(got, want, cmp.AllowUnexported(param{})) {
			t.Fatalf("%q: %v, %v", raw, got, fault)
		}
		if kept := keepParams(raw, func(string) bool { return true }); kept != "" {
			t.Fatalf("%q keeps %q", raw, kept)
		}
	})
}

package rewrite

import (
	"bytes"
	"cmp"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// rendered fills params, a JSON text, into a template.
func rendered(source, params string) (string, error) {
	root, err := strictTree([]byte(cmp.Or(params, "{}")))
	if err != nil {
		return "", err
	}
	values, err := templateParams(&root, []byte(cmp.Or(params, "{}")))
	if err != nil {
		return "", err
	}
	parts, err := parseMustache([]byte(source))
	if err != nil {
		return "", err
	}
	out, err := renderMustache(parts, values.(map[string]any), false)
	return string(out), err
}

// renderings are templates with parameters and what they become, on OpenSearch too.
var renderings = [][3]string{
	{`{"q":"{{q}}"}`, `{"q":"a\"b\\é\u0001\n/"}`, "{\"q\":\"a\\\"b\\\\é\\u0001\\n/\"}"},
	{`{{{q}}} {{&q}} {{q}} {{ q }} {{missing}}.`, `{"q":"a\"b"}`, `a"b a"b a\"b a\"b .`},
	{`{{a}} {{b}} {{c}} {{d}} {{e}} {{f}} {{g}} {{h}}`, `{"a":1,"b":1.0,"c":1e10,"d":true,"e":null,"f":12345678901234567890123,"g":0.00090,"h":-0}`, `1 1.0 1.0E10 true  12345678901234567890123 9.0E-4 0`},
	{`{{o.a.b}} {{o.x.y}} {{l.0}} {{l.size}} {{l.1.k}}`, `{"o":{"a":{"b":5}},"l":[7,{"k":8}]}`, `5  7 2 8`},
	{`{{a.b}}`, `{"a":{"b":1},"a.b":2}`, `2`},
	{`{{#l}}<{{.}}>{{/l}}{{^l}}none{{/l}}{{#e}}x{{/e}}{{^e}}empty{{/e}}`, `{"l":[1,"b\""],"e":[]}`, `<1><b\">empty`},
	{`{{#o}}{{a}}{{b}}{{/o}}{{^o}}no{{/o}}`, `{"o":{"a":1},"b":2}`, `12`},
	{`{{#z}}zero{{/z}}{{#s}}s{{/s}}{{^s}}blank{{/s}}{{#f}}f{{/f}}{{^f}}false{{/f}}{{#m}}m{{/m}}`, `{"z":0,"s":"","f":false,"m":{}}`, `zeroblankfalsem`},
	{`{{#l}}{{x}}{{y}};{{/l}}`, `{"l":[{"x":1},null,{"x":2,"y":3}],"y":9}`, `19;9;23;`},
	{`{{#toJson}}l{{/toJson}} {{#tojson}}s{{/tojson}} {{#toJson}} l {{/toJson}}`, `{"l":[1,"a\"",[null,true,2.50]],"s":"a\"b"}`, `[1,"a\"",[null,true,2.5]] a"b `},
	{`{"o":{{#toJson}}o{{/toJson}}}`, `{"o":{"k":"v"}}`, `{"o":{"k":"v"}}`},
	{`{{#join}}l{{/join}} {{#join delimiter='||'}}l{{/join delimiter='||'}} {{#join}}s{{/join}}`, `{"l":[1,"a\""],"s":"text"}`, `1,a" 1||a" s`},
	{`{{#url}}{{p}} a/b{{/url}}`, `{"p":"x y/é"}`, `x+y%2F%C3%A9+a%2Fb`},
	{`a{{! comment }}b{{=<% %>=}}<%x%>{{x}}<%={{ }}=%>{{x}}`, `{"x":1}`, `ab1{{x}}1`},
	{"a\rb\r\nc", ``, "ab\r\nc"},
	{"[\n  {{#l}}\n  {{.}},\n  {{/l}}\n0]", `{"l":[1,2]}`, "[\n  1,\n  2,\n0]"},
	{"{\"a\":\"b{{#x}}\n  {{/x}}c\"}", `{"x":1}`, `{"a":"bc"}`},
	{`{{#x}}{{#y}}in{{/y}}{{/x}}`, `{"x":true,"y":"s"}`, `in`},
	{`{"a":{"b":{{n}}}}`, `{"n":3}`, `{"a":{"b":3}}`},
}

func TestMustache(t *testing.T) {
	for _, c := range renderings {
		if got, err := rendered(c[0], c[1]); err != nil || got != c[2] {
			t.Errorf("%q with %s: %q, %v, want %q", c[0], c[1], got, err, c[2])
		}
	}
}

func TestMustacheRefuses(t *testing.T) {
	for _, c := range [][3]string{
		{`{{>p}}`, ``, "partials"}, {`{{<p}}{{/p}}`, ``, "partials"}, {`{{$p}}{{/p}}`, ``, "partials"}, {`{{%p}}`, ``, "partials"}, {`{{?p}}{{/p}}`, ``, "partials"},
		{`{{*p}}`, ``, "partials"}, {`{{&*p}}`, ``, "taken from a parameter"}, {`{{#*p}}{{/*p}}`, ``, "taken from a parameter"},
		{`{{#a}}`, ``, "not closed"}, {`{{a`, ``, "not closed"}, {`{{/a}}`, ``, "closing tag"}, {`{{#a}}{{/b}}`, ``, "closing tag"}, {`{{}}`, ``, "empty"},
		{`{{{a}}`, ``, "three braces"}, {`{{=<% %>=}}<%{a}%>`, ``, "three braces"}, {`{{=< >=}}`, ``, "delimiters"}, {`{{=aa bb=}}`, ``, "delimiters"},
		{`{{#toJson}}{{a}}{{/toJson}}`, ``, "[tojson] holds"}, {`{{#toJson}}{{/toJson}}`, ``, "[tojson] holds"}, {`{{#join}}a{{!x}}{{/join}}`, ``, "[join] holds"},
		{`{{o}}`, `{"o":{}}`, "writes an object"}, {`{{.}}`, ``, "writes an object"}, {`{{l}}`, `{"l":[1]}`, "writes an object"},
		{`"{{#toJson}}o{{/toJson}}"`, `{"o":{"a":1,"b":2}}`, "quotation mark"}, {`{{l.3}}`, `{"l":[1]}`, "an element"}, {`{{q}}`, `{"q":"\ud800"}`, "surrogate"},
		{`{{n}}`, `{"n":1e999}`, "out of range"}, {`{{#join}}l{{/join}}`, `{"l":[null]}`, "null"},
		{strings.Repeat("{{#a}}", 200) + strings.Repeat("{{/a}}", 200), ``, "too deep"}, {strings.Repeat("{{a}}", maxTemplateParts+1), ``, "too many"},
		{strings.Repeat("{{#l}}", 8) + strings.Repeat("{{/l}}", 8), `{"l":[1,1,1,1,1,1,1,1,1,1]}`, "too large"},
	} {
		if got, err := rendered(c[0], c[1]); err == nil || !strings.Contains(err.Error(), c[2]) {
			t.Errorf("%.60q with %s: %.60q, %v, want an error with %q", c[0], c[1], got, err, c[2])
		}
	}
}

func TestJavaNumber(t *testing.T) {
	for in, want := range map[string]string{
		"1": "1", "-0": "0", "-0.0": "-0.0", "0e5": "0.0", "1.50": "1.5", "100.0": "100.0", "0.001": "0.001", "0.0009": "9.0E-4", "9999999.5": "9999999.5", "1e7": "1.0E7",
		"12345678.5": "1.23456785E7", "1e22": "1.0E22", "4.9e-324": "4.9E-324", "-1.25E-7": "-1.25E-7", "1E2": "100.0", "2e23": "2.0E23",
	} {
		if got, err := javaNumber(in); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v, want %s", in, got, err, want)
		}
	}
}

// openSearch is the address of an OpenSearch with lang-mustache, or the test is skipped.
func openSearch(t testing.TB) string {
	t.Helper()
	url := strings.TrimRight(os.Getenv("ESPROXY_TEST_OS_URL"), "/")
	if url == "" {
		t.Skip("needs a real OpenSearch: set ESPROXY_TEST_OS_URL")
	}
	return url
}

// renderThere lets the server fill in a template. It gives what stands under template_output, which may be no JSON.
func renderThere(t testing.TB, url, source, params string) (string, bool) {
	t.Helper()
	quoted, _ := json.Marshal(source)
	body := `{"source":` + string(quoted) + `,"params":` + cmp.Or(params, "{}") + `}`
	res, err := http.Post(url+"/_render/template", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "circuit_breaking_exception") {
		t.Fatal("this server has compiled as many templates as it may for now; wait five minutes, or use another")
	}
	out, ok := strings.CutPrefix(string(text), `{"template_output":`)
	return strings.TrimSuffix(out, "}"), ok && res.StatusCode == 200
}

// same compares renderings: the server does not keep the order of an object's members.
func same(a, b string) bool {
	if a == b {
		return true
	}
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

func TestMustacheAsOpenSearch(t *testing.T) {
	url := openSearch(t)
	for _, c := range renderings {
		if got, ok := renderThere(t, url, c[0], c[1]); !ok || !same(got, c[2]) {
			t.Errorf("%q with %s: the server has %q, %t, want %q", c[0], c[1], got, ok, c[2])
		}
	}
	// The server compiles 75 templates in five minutes, so many are put into one.
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 25 {
		params, all := randomParams(rnd), ""
		for n := 0; n < 60; {
			source := randomTemplate(rnd)
			if _, err := rendered(all+source, params); err == nil {
				all += source + "\n@@\n"
				n++
			}
		}
		ours, err := rendered(all, params)
		if err != nil {
			t.Fatal(err)
		}
		theirs, ok := renderThere(t, url, all, params)
		if !ok {
			t.Fatalf("%q with %s: the server refuses: %s", all, params, theirs)
		}
		sources, here, there := strings.Split(all, "@@"), strings.Split(ours, "@@"), strings.Split(theirs, "@@")
		if len(here) != len(there) {
			t.Fatalf("%q with %s: %q here, %q there", all, params, ours, theirs)
		}
		for i := range here {
			if !same(here[i], there[i]) {
				t.Fatalf("%q with %s: %q here, %q there", sources[i], params, here[i], there[i])
			}
		}
	}
}

func randomTemplate(rnd *rand.Rand) string {
	pieces := []string{
		"{{a}}", "{{{a}}}", "{{&b}}", "{{ b }}", "{{o.k}}", "{{o.n.m}}", "{{l.0}}", "{{l.size}}", "{{l.1.k}}", "{{x}}", "{{.}}", "{{k}}", "{{n.m}}", "{{o.k.z}}",
		"{{#a}}", "{{/a}}", "{{#l}}", "{{/l}}", "{{^l}}", "{{#o}}", "{{/o}}", "{{^o}}", "{{^x}}", "{{/x}}", "{{#b}}", "{{/b}}", "{{^b}}", "{{#o.n}}", "{{/o.n}}", "{{#.}}", "{{/.}}",
		"{{#toJson}}l{{/toJson}}", "{{#toJson}}o{{/toJson}}", "{{#toJson}}a{{/toJson}}", "{{#toJson}}o.n{{/toJson}}", "{{#join}}l{{/join}}", "{{#join delimiter='; '}}l{{/join delimiter='; '}}", "{{#join}}a{{/join}}",
		"{{#url}}", "{{/url}}", "{{! c\n }}", "{{=<% %>=}}", "<%a%>", "<%={{ }}=%>", "\n", "\r\n", "\r", " ", "\t", "\"", "{", "}", ",", ":", "[", "]", "1", "text", "é", "{{", "}}", "{{!}}",
	}
	var b strings.Builder
	var open []string
	for range 1 + rnd.IntN(14) {
		p := pieces[rnd.IntN(len(pieces))]
		if name, ok := strings.CutPrefix(p, "{{/"); ok && !strings.Contains(p, "Json") && (len(open) == 0 || open[len(open)-1] != name) && rnd.IntN(20) > 0 {
			continue
		} else if ok {
			open = open[:max(0, len(open)-1)]
		} else if strings.HasPrefix(p, "{{#") || strings.HasPrefix(p, "{{^") {
			if !strings.Contains(p, "{{/") {
				open = append(open, p[3:])
			}
		}
		b.WriteString(p)
	}
	for i := len(open) - 1; i >= 0; i-- {
		b.WriteString("{{/" + open[i])
	}
	return b.String()
}

func randomParams(rnd *rand.Rand) string {
	scalar := func() string {
		return []string{`1`, `"t\"x"`, `""`, `true`, `false`, `null`, `2.50`, `"é\n"`, `1e3`, `-0.0`, `0`}[rnd.IntN(11)]
	}
	var b bytes.Buffer
	b.WriteString(`{"a":` + scalar() + `,"b":` + scalar())
	if rnd.IntN(4) > 0 {
		b.WriteString(`,"l":[` + scalar() + `,{"k":` + scalar() + `}`)
		for range rnd.IntN(3) {
			b.WriteString(`,` + scalar())
		}
		b.WriteString(`]`)
	}
	if rnd.IntN(4) > 0 {
		b.WriteString(`,"o":{"k":` + scalar() + `,"n":{"m":` + scalar() + `}}`)
	}
	if rnd.IntN(3) == 0 {
		b.WriteString(`,"x":[` + strings.TrimSuffix(strings.Repeat(strconv.Itoa(rnd.IntN(9))+",", rnd.IntN(3)), ",") + `]`)
	}
	b.WriteString(`}`)
	return b.String()
}

func FuzzMustache(f *testing.F) {
	for _, c := range renderings {
		f.Add(c[0], c[1])
	}
	f.Fuzz(func(t *testing.T, source, params string) {
		out, err := rendered(source, params)
		if err == nil && len(out) > 2*maxRendered+len(source)*4 {
			t.Fatalf("%d bytes", len(out))
		}
	})
}

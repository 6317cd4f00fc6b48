package rewrite

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
	"pgregory.net/rapid"

	"github.com/esproxy/esproxy/internal/policy"
)

// sealWhole seals one whole document under the rules of an index.
func sealWhole(e *Engine, index, doc string) (string, error) {
	rules, conflict := e.Policy.Match([]string{index})
	if conflict != nil {
		return "", conflict
	}
	out, err := e.SealDocument(nil, []byte(doc), rules)
	return string(out), err
}

var tokenText = regexp.MustCompile(`"esp1\.[A-Za-z0-9_-]+"`)

// openAll puts back the value of every token of the fake sealer and lists rule, path and subject of each.
func openAll(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string) (plain string, sealed []string) {
	t.Helper()
	plain = tokenText.ReplaceAllStringFunc(text, func(token string) string {
		rule, path, subject, value, ok := readFakeToken(token[1 : len(token)-1])
		if !ok {
			t.Fatalf("no token of the fake sealer: %s", token)
		}
		sealed = append(sealed, rule+" "+path+" "+subject)
		return value
	})
	return plain, sealed
}

// wantFault checks that err is a Fault of that type whose text holds some words, and none of the values.
func wantFault(t interface {
	Helper()
	Fatalf(string, ...any)
}, err error, kind, words string) *Fault {
	t.Helper()
	f := asFault(err)
	if err == nil || f.Type != kind || !strings.Contains(f.Reason, words) {
		t.Fatalf("got %v, want %s with %q", err, kind, words)
	}
	return f
}

// readFakeToken takes a token of the fake sealer apart.
func readFakeToken(token string) (rule, path, subject, value string, ok bool) {
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(token, "esp1."))
	if err != nil || len(raw) < 9 {
		return "", "", "", "", false
	}
	part := strings.SplitN(string(raw[:len(raw)-9]), "|", 4)
	if len(part) != 4 {
		return "", "", "", "", false
	}
	subject, err = url.QueryUnescape(part[2])
	return part[0], part[1], subject, strings.TrimRight(part[3], " "), err == nil
}

func TestDocumentGolden(t *testing.T) {
	e, _, _ := fakeEngine(t)
	for _, c := range []struct {
		name, index, in string
		sealed          string
	}{
		{"flat", "user", ` {"username":"Ana","card":"4111","ccv":824,"city":"Lima"} `, "users card Ana,users ccv Ana"},
		{"nested and dotted", "user-1", `{"username":"Ana","pay":{"iban":"ES1"},"pay.iban":{"x":[1]}}`, "users pay.iban Ana,users pay.iban Ana"},
		{"escaped names", "user", `{"usern\u0061me":"Ana","c\u0061rd":1,"pay":{"\u0069ban":true},"items\u002ecard":2}`, "users card Ana,users pay.iban Ana,users items.card Ana"},
		{"arrays", "user", `{"username":"Ana","items":[{"card":1},[{"card":[2,3]}],{"card":null},7],"pay":[{"iban":false}]}`, "users items.card Ana,users items.card Ana,users pay.iban Ana"},
		{"subject last, escaped", "user", `{"card":"x","username":"\u0041\u006ea"}`, "users card Ana"},
		{"subject a number", "user", `{"card":"x","username":-123456789012345678}`, "users card -123456789012345678"},
		{"subject nested", "deep", `{"card":"x","who":{"name":"é"}}`, "deep card é"},
		{"subject dotted", "deep", `{"who.name":"é","card":"x"}`, "deep card é"},
		{"no subject", "shop", `{"key":{"a":"esp1.AAAA","b":"esproxy_x"},"card":1}`, "shop key "},
		{"other case and blanks are other fields", "user", `{"Card":1,"card ":2,"c\u0000ard":3,"ｃard":4,"usernamE":5}`, ""},
		{"null stays", "user", `{"card":null,"ccv": null }`, ""},
		{"nothing protected, no subject", "user", `{"city":"Lima","x":{"":1,"a..b":2,".c":3}}`, ""},
		{"names inside a sealed value", "user", `{"username":"Ana","card":{"_source":1,"esproxy_x":2,"":3,"card":4,"t":"es1.x"}}`, "users card Ana"},
	} {
		out, err := sealWhole(e, c.index, c.in)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		plain, sealed := openAll(t, out)
		if plain != c.in {
			t.Errorf("%s: with the values put back:\n got %s\nwant %s", c.name, plain, c.in)
		}
		if got := strings.Join(sealed, ","); got != c.sealed {
			t.Errorf("%s: sealed %q, want %q", c.name, got, c.sealed)
		}
	}
}

func TestDocumentRefuses(t *testing.T) {
	e, _, _ := fakeEngine(t)
	token := fakeToken("users", "card", "Ana", `"4111"`)
	long := strings.Repeat("é", 256) // 512 bytes
	for _, c := range []struct{ name, index, in, kind, words string }{
		{"no subject", "user", `{"card":1}`, "esproxy_subject", "no value there"},
		{"subject null", "user", `{"card":1,"username":null}`, "esproxy_subject", "neither a string"},
		{"subject twice", "deep", `{"card":1,"who":{"name":"a"},"who.name":"a"}`, "esproxy_subject", "more than one spelling"},
		{"subject in an array", "user", `{"card":1,"username":["Ana"]}`, "esproxy_subject", ""},
		{"subject below an array", "deep", `{"card":1,"who":[{"name":"Ana"}]}`, "esproxy_subject", "inside an array"},
		{"subject twice below an array", "deep", `{"card":1,"who":[{"name":"Ana"},{"name":"Ana"}]}`, "esproxy_subject", "more than one"},
		{"subject an object", "user", `{"card":1,"username":{"a":1}}`, "esproxy_subject", "neither a string"},
		{"subject true", "user", `{"card":1,"username":true}`, "esproxy_subject", "neither a string"},
		{"subject empty", "user", `{"card":1,"username":""}`, "esproxy_subject", "neither a string"},
		{"subject 513 bytes", "user", `{"card":1,"username":"` + long + `x"}`, "esproxy_subject", "neither a string"},
		{"subject -0", "user", `{"card":1,"username":-0}`, "esproxy_subject", "neither a string"},
		{"subject 19 digits", "user", `{"card":1,"username":1234567890123456789}`, "esproxy_subject", "neither a string"},
		{"subject 1.0", "user", `{"card":1,"username":1.0}`, "esproxy_subject", "neither a string"},
		{"subject 1e3", "user", `{"card":1,"username":1e3}`, "esproxy_subject", "neither a string"},
		{"subject with a lone surrogate", "user", `{"card":1,"username":"a\ud800"}`, "esproxy_subject", "neither a string"},
		{"below a protected field", "user", `{"username":"Ana","card.x":1}`, "esproxy_bad_document", "below a protected field"},
		{"below a nested one", "user", `{"username":"Ana","pay":{"iban.x.y":1}}`, "esproxy_bad_document", "below a protected field"},
		{"dot at the end", "user", `{"username":"Ana","card.":1}`, "esproxy_bad_document", "ends with a dot"},
		{"dot at the end, escaped", "user", `{"username":"Ana","x":{"y\u002e":1}}`, "esproxy_bad_document", "ends with a dot"},
		{"empty part at the root", "user", `{"username":"Ana",".card":1}`, "esproxy_bad_document", "empty part"},
		{"empty part on the way", "user", `{"username":"Ana","pay":{"":{"iban":1}}}`, "esproxy_bad_document", "empty part"},
		{"two dots", "user", `{"username":"Ana","pay..iban":1}`, "esproxy_bad_document", "empty part"},
		{"lone surrogate in a name", "user", `{"username":"Ana","x":{"a\ud800":1}}`, "esproxy_bad_document", "lone surrogate"},
		{"name twice", "user", `{"username":"Ana","card":1,"c\u0061rd":2}`, "esproxy_bad_document", "twice"},
		{"name twice in a sealed value", "user", `{"username":"Ana","card":{"a":1,"a":2}}`, "esproxy_bad_document", "twice"},
		{"overlong UTF-8", "user", "{\"username\":\"Ana\",\"\xC1\xA3ard\":1}", "esproxy_bad_document", "invalid UTF-8"},
		{"comment", "user", `{/* */"username":"Ana"}`, "esproxy_bad_document", "member name"},
		{"byte order mark", "user", "\xEF\xBB\xBF{}", "esproxy_bad_document", "expected an object"},
		{"an array", "user", `[{"card":1}]`, "esproxy_bad_document", "expected an object"},
		{"two documents", "user", `{}{}`, "esproxy_bad_document", "after the end"},
		{"cut", "user", `{"username":"An`, "esproxy_bad_document", "too early"},
		{"reserved", "user", `{"esproxy_key_1":1}`, "esproxy_reserved_name", "reserved"},
		{"reserved, dotted", "user", `{"x":[{"a.\u0065sproxy_":1}]}`, "esproxy_reserved_name", "reserved"},
		{"_source", "user", `{"_source":{"card":1}}`, "esproxy_reserved_name", "reserved"},
		{"_source, dotted", "user", `{"_source.card":1}`, "esproxy_reserved_name", "reserved"},
		{"token elsewhere", "user", `{"username":"Ana","note":["` + token + `"]}`, "esproxy_misplaced_token", "outside the field"},
		{"token elsewhere, escaped", "user", `{"username":"Ana","note":"\u0065sp1.AAAA"}`, "esproxy_misplaced_token", "outside the field"},
		{"token of another field", "user", `{"username":"Ana","ccv":"` + token + `"}`, "esproxy_misplaced_token", "[ccv]"},
		{"token of another subject", "user", `{"username":"Bob","card":"` + token + `"}`, "esproxy_misplaced_token", "[card]"},
		{"token of another rule", "deep", `{"who.name":"Ana","card":"` + token + `"}`, "esproxy_misplaced_token", "[card]"},
		{"token without a subject", "user", `{"card":"` + token + `"}`, "esproxy_subject", "no value there"},
		{"token of another form", "user", `{"username":"Ana","card":"es\u00689.x"}`, "esproxy_misplaced_token", "[card]"},
		{"token that nobody stored", "shop", `{"key":"` + fakeToken("shop", "key", "", "1") + `"}`, "esproxy_misplaced_token", "[key]"},
	} {
		out, err := sealWhole(e, c.index, c.in)
		if err == nil {
			t.Errorf("%s: sealed to %s", c.name, out)
			continue
		}
		f := asFault(err)
		if f.Status != 400 || f.Type != c.kind || !strings.Contains(f.Reason, c.words) {
			t.Errorf("%s: got %d %v, want %s with %q", c.name, f.Status, err, c.kind, c.words)
		}
		for _, secret := range []string{"4111", "esp1.", "Ana"} {
			if strings.Contains(f.Error(), secret) {
				t.Errorf("%s: the refusal quotes the document: %s", c.name, f)
			}
		}
	}
	for _, good := range []string{`{"card":1,"username":"` + long + `"}`, `{"card":1,"username":0}`, `{"card":"` + token + `","username":"Ana"}`, `{"username":"Ana","card":"esp1.","ccv":"esp1. x","x":"es1"}`} {
		if _, err := sealWhole(e, "user", good); err != nil {
			t.Errorf("%.60s: %v", good, err)
		}
	}
}

func TestDocumentDuplicates(t *testing.T) {
	e, _, _ := fakeEngine(t)
	target := newTarget(e.Policy.Rules[:1], false)
	s := newDocScanner(func([]byte) bool { return false })
	for _, n := range []int{1, 2, 15, 16, 17, 40, 63, 64, 65, 66, 300, 5000} {
		var b strings.Builder
		for i := range n {
			// Each member is an object with names of its own, so that frames lie on each other.
			fmt.Fprintf(&b, `,"n%d":{"n%d":1,"x":{"n0":[]}}`, i, i)
		}
		members := b.String()[1:]
		var p part
		if err := s.document([]byte(`{`+members+`}`), target, &p); err != nil {
			t.Errorf("%d members: %v", n, err)
		}
		for _, again := range []int{0, n / 2, n - 1} {
			doc := fmt.Sprintf(`{%s,"\u006e%d":1}`, members, again)
			if err := s.document([]byte(doc), target, &p); err == nil || !strings.Contains(err.Error(), "twice") {
				t.Errorf("%d members, the one of %d twice: %v", n, again, err)
			}
			doc = fmt.Sprintf(`{"card":{%s,"n%d":1},"z":1}`, members, again)
			if err := s.document([]byte(doc), target, &p); err == nil || !strings.Contains(err.Error(), "twice") {
				t.Errorf("%d members in a sealed value, the one of %d twice: %v", n, again, err)
			}
		}
	}
}

// What is remembered of names stays far below the document's own size.
func TestDocumentNamesMemory(t *testing.T) {
	var b strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&b, `,"%x":1`, i)
	}
	doc := []byte("{" + b.String()[1:] + "}")
	e, _, _ := fakeEngine(t)
	target := newTarget(e.Policy.Rules[:1], false)
	bytesUsed := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			s := newDocScanner(func([]byte) bool { return false })
			if err := s.document(doc, target, new(part)); err != nil {
				b.Fatal(err)
			}
		}
	}).AllocedBytesPerOp()
	if bytesUsed > 6*int64(len(doc)) {
		t.Errorf("a document of %d bytes takes %d bytes for its names", len(doc), bytesUsed)
	}
}

func TestDocumentDrop(t *testing.T) {
	e, _, _ := fakeEngine(t)
	e.Policy = fakePolicy(t, "version: 1\nrules:\n  - name: users\n    indices: [user]\n    subject: username\n    fields:\n      card: {mode: encrypt}\n      pin: {mode: drop}\n")
	out, err := sealWhole(e, "user", `{"pin": {"secret":[1]} ,"x":1}`)
	if err != nil || out != `{"pin": null ,"x":1}` {
		t.Errorf("got %s, %v", out, err)
	}
}

func TestDocumentBusy(t *testing.T) {
	e, _, crypto := fakeEngine(t)
	crypto.busy = true
	for _, card := range []string{`1`, `"` + fakeToken("users", "card", "Ana", "1") + `"`} {
		_, err := sealWhole(e, "user", `{"username":"Ana","card":`+card+`}`)
		if f := wantFault(t, err, "esproxy_busy", ""); f.Status != 429 {
			t.Errorf("status %d", f.Status)
		}
	}
}

func TestSeveralRules(t *testing.T) {
	e, _, _ := fakeEngine(t)
	e.Policy = fakePolicy(t, `version: 1
rules:
  - {name: one, indices: ["a*"], subject: who, fields: {card: {mode: encrypt}}}
  - {name: two, indices: ["*b"], subject: who, fields: {pay.iban: {mode: encrypt}}}
  - {name: three, indices: ["ab"], fields: {pay.key: {mode: encrypt}}}
`)
	in := `{"pay":{"key":1,"iban":2},"card":3,"who":"Ana","pay.key":4}`
	out, err := sealWhole(e, "ab", in)
	if err != nil {
		t.Fatal(err)
	}
	plain, sealed := openAll(t, out)
	if want := []string{"three pay.key ", "two pay.iban Ana", "one card Ana", "three pay.key "}; plain != in || !reflect.DeepEqual(sealed, want) {
		t.Errorf("sealed %v in %s", sealed, plain)
	}
	out, err = sealWhole(e, "ab", `{"pay":{"key":1}}`) // no subject is needed for that
	if err != nil || !strings.Contains(out, "esp1.") {
		t.Errorf("got %s, %v", out, err)
	}
}

// genDocument draws a document for the index "user" with protected values in all spellings, and tells how many
// values are to be sealed.
func genDocument(t *rapid.T) (doc string, sealed int) {
	value := func(label string) string {
		v := genJSON(2).Draw(t, label)
		if strings.HasPrefix(v, "null") {
			return v
		}
		sealed++
		return v
	}
	spell := func(name string) string {
		if rapid.Bool().Draw(t, "escaped") {
			at := rapid.IntRange(0, len(name)-1).Draw(t, "at")
			return `"` + name[:at] + fmt.Sprintf(`\u%04X`, name[at]) + name[at+1:] + `"`
		}
		return `"` + name + `"`
	}
	var members []string
	add := func(name, value string) {
		space := rapid.SampledFrom([]string{"", " ", "\t", "\r "}).Draw(t, "space")
		members = append(members, space+spell(name)+space+":"+space+value+space)
	}
	add("username", `"Ana"`)
	if rapid.Bool().Draw(t, "card") {
		add("card", value("value"))
	}
	if rapid.Bool().Draw(t, "iban dotted") {
		add("pay.iban", value("value"))
	}
	if rapid.Bool().Draw(t, "iban nested") {
		add("pay", `{"x":1,`+spell("iban")+`:`+value("value")+`}`)
	}
	if rapid.Bool().Draw(t, "items") {
		var list []string
		for range rapid.IntRange(0, 3).Draw(t, "n") {
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				list = append(list, `{`+spell("card")+`:`+value("value")+`,"q":[]}`)
			case 1:
				list = append(list, `[{"card":`+value("value")+`}]`)
			default:
				list = append(list, `"card"`)
			}
		}
		add("items", "["+strings.Join(list, ", ")+"]")
	}
	if rapid.Bool().Draw(t, "items dotted") {
		add("items.card", value("value"))
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "others") {
		add(fmt.Sprintf("other%d", i), genJSON(2).Draw(t, "other"))
	}
	order := rapid.Permutation(members).Draw(t, "order")
	return "{" + strings.Join(order, ",") + "}", sealed
}

func TestDocumentGenerated(t *testing.T) {
	e, _, _ := fakeEngine(t)
	refused := 0
	rapid.Check(t, func(t *rapid.T) {
		doc, want := genDocument(t)
		out, err := sealWhole(e, "user", doc)
		if err != nil {
			if strict := gjson.Valid(doc) && docWhole([]byte(doc)) == nil; strict {
				t.Fatalf("%s: %v", doc, err)
			}
			refused++
			return
		}
		plain, sealed := openAll(t, out)
		if plain != doc {
			t.Fatalf("with the values put back:\n got %s\nwant %s", plain, doc)
		}
		if len(sealed) != want {
			t.Fatalf("%d values sealed, not %d: %s", len(sealed), want, doc)
		}
		// What was sealed can be written back, and nothing is sealed twice.
		again, err := sealWhole(e, "user", out)
		if err != nil || again != out {
			t.Fatalf("written back: %s, %v", again, err)
		}
		var opened bytes.Buffer
		rules, _ := e.Policy.Match([]string{"user"})
		if err := e.OpenDocument(t.Context(), strings.NewReader(out), &opened, rules, fakeViewer{"*": policy.Plain}, &fakeCounter{}); err != nil || opened.String() != doc {
			t.Fatalf("opened: %s, %v", opened.String(), err)
		}
	})
	t.Logf("%d documents were refused as not strict", refused)
}

// protectedPath reports whether the canonical path is one of those that the rule users protects.
func protectedPath(path string) bool {
	return path == "card" || path == "ccv" || path == "items.card" || path == "pay.iban"
}

// splitProtected takes the values at protected paths out of a decoded document and appends their strings to secrets.
func splitProtected(v any, path string, secrets *[]any) any {
	if protectedPath(path) && v != nil {
		*secrets = append(*secrets, v)
		return "protected"
	}
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			below := name
			if path != "" {
				below = path + "." + name
			}
			v[name] = splitProtected(x, below, secrets)
		}
	case []any:
		for i := range v {
			v[i] = splitProtected(v[i], path, secrets)
		}
	}
	return v
}

// longStrings calls f with every string of six or more characters in v, names included.
func longStrings(v any, f func(string)) {
	see := func(s string) {
		if len(s) >= 6 {
			f(s)
		}
	}
	switch v := v.(type) {
	case string:
		see(v)
	case map[string]any:
		for name, x := range v {
			see(name)
			longStrings(x, f)
		}
	case []any:
		for _, x := range v {
			longStrings(x, f)
		}
	}
}

// FuzzDocument: whatever is accepted, another reader finds the same outside protected paths, tokens at them, and
// no string of a protected value in the output that the document does not also hold elsewhere.
func FuzzDocument(f *testing.F) {
	for _, s := range []string{
		`{"username":"Ana","card":"4111 1111","ccv":824,"city":"Lima"}`, `{"username":"Ana","pay":{"iban":"ES12345"},"pay.iban":{"x":["canary1"]}}`,
		`{"username":"Ana","items":[{"card":"canary2"},[{"card":["canary3"]}],{"card":null}]}`, `{"c\u0061rd":"canary4","usern\u0061me":"Ana"}`,
		"{\"username\":\"Ana\",\"\xC1\xA3ard\":\"canary5\"}", `{"username":"Ana","card.":"canary6"}`, `{"username":"Ana",".card":"canary7","card":"canary8"}`,
		`{"username":"Ana","card":"canary9","c\u0061rd":"canary0"}`, `{"username":"Ana","pay":{"":{"iban":"canary1"}}}`, `{"username":"Ana","card":{"a":"canary2"}} `,
	} {
		f.Add([]byte(s))
	}
	e, _, _ := fakeEngine(f)
	rules, _ := e.Policy.Match([]string{"user"})
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := e.SealDocument(nil, in, rules)
		if err != nil {
			if strings.Contains(err.Error(), "esproxy_internal") {
				t.Fatalf("%q: %v", in, err)
			}
			return
		}
		var before, after any
		if err := json.Unmarshal(in, &before); err != nil {
			t.Fatalf("accepted %q: %v", in, err)
		}
		if err := json.Unmarshal(out, &after); err != nil {
			t.Fatalf("made %q of %q: %v", out, in, err)
		}
		var secrets, tokens []any
		before, after = splitProtected(before, "", &secrets), splitProtected(after, "", &tokens)
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("outside protected paths %q became %q", in, out)
		}
		for _, token := range tokens {
			if s, ok := token.(string); !ok || !tokenText.MatchString(`"`+s+`"`) {
				t.Fatalf("%q: at a protected path stands %v", in, token)
			}
		}
		rest, err := json.Marshal(before)
		if err != nil {
			t.Fatal(err)
		}
		var restStrings []string
		if err := json.Unmarshal(rest, &before); err != nil {
			t.Fatal(err)
		}
		longStrings(before, func(s string) { restStrings = append(restStrings, s) })
		elsewhere := strings.Join(restStrings, "\n")
		clear := tokenText.ReplaceAllString(string(out), `""`)
		for _, secret := range secrets {
			if s, ok := secret.(string); ok && strings.HasPrefix(s, "esp1.") {
				continue // written back
			}
			longStrings(secret, func(s string) {
				if strings.Contains(clear, s) && !strings.Contains(elsewhere, s) && !strings.Contains(string(rest), s) {
					t.Fatalf("%q: a protected string is in the output", in)
				}
			})
		}
	})
}

func BenchmarkSealDocument(b *testing.B) {
	e, _, _ := fakeEngine(b)
	e.Sealer = noopSealer{}
	e.Policy = fakePolicy(b, samplePolicy)
	doc := []byte(sampleDocument)
	dst := make([]byte, 0, 4<<10)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := e.SealDocument(dst, doc, e.Policy.Rules); err != nil {
			b.Fatal(err)
		}
	}
}

const samplePolicy = "version: 1\nrules:\n  - name: users\n    indices: [\"user\"]\n    subject: username\n    fields:\n      credit_card_num: {mode: encrypt}\n      credit_card_ccv: {mode: encrypt}\n      cuenta_numero: {mode: encrypt}\n"

// noopSealer makes values of the usual length and does nothing else.
type noopSealer struct{}

var noopToken = []byte("esp1." + strings.Repeat("A", 222))

func (noopSealer) NewDocument(*policy.Rule, []byte) (DocumentSealer, error) {
	return noopDocument{}, nil
}

func (noopSealer) IsToken(s []byte) bool { return len(s) > 4 && string(s[:5]) == "esp1." }

type noopDocument struct{}

func (noopDocument) Seal(dst []byte, _ string, _ []byte) ([]byte, error) {
	return append(dst, noopToken...), nil
}

func (noopDocument) Close() {}

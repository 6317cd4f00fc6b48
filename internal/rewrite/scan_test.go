package rewrite

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tidwall/gjson"
	"pgregory.net/rapid"
)

// scanWhole reads b as one value with white space around it, as the users of skipValue do.
func scanWhole(b []byte) error {
	end, err := skipValue(b, skipSpace(b, 0), 1)
	if err == nil && skipSpace(b, end) < len(b) {
		err = badSyntax(end, "something after the end")
	}
	return err
}

// docWhole reads b with the pass for documents.
func docWhole(b []byte) error {
	s := newDocScanner(func([]byte) bool { return false })
	s.b, s.cur = b, new(part)
	end, err := s.value(skipSpace(b, 0), nil, 1, false)
	if err == nil {
		err = s.atEnd(end)
	}
	return err
}

// oracleDepth is how deep containers lie inside each other. b is valid.
func oracleDepth(b []byte) int {
	depth, deepest, inString := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{' || c == '[':
			depth++
			deepest = max(deepest, depth)
		case c == '}' || c == ']':
			depth--
		}
	}
	return deepest
}

// scanVerdicts is what another reader says of b: whether it is RFC 8259 text in UTF-8, and whether it is also
// free of duplicate names and of lone surrogates.
func scanVerdicts(b []byte) (grammar, strict bool) {
	v := jsontext.Value(b)
	grammar = json.Valid(b) && v.IsValid(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)) && bytes.Equal(bytes.ToValidUTF8(b, nil), b)
	return grammar, v.IsValid()
}

// looseNames reports whether b, valid as to grammar, has a member name that only this package refuses: one that ends
// with a dot, is reserved, or holds a lone surrogate.
func looseNames(v gjson.Result) (loose bool) {
	v.ForEach(func(key, value gjson.Result) bool {
		if v.IsObject() {
			name := string(unescape(nil, []byte(key.Raw[1:len(key.Raw)-1])))
			loose = loose || strings.HasSuffix(name, ".") || isReservedMember([]byte(name)) || strings.Contains(name, "\xED")
		}
		loose = loose || (value.IsObject() || value.IsArray()) && looseNames(value)
		return !loose
	})
	return loose
}

func checkScan(t interface {
	Helper()
	Fatalf(string, ...any)
}, b []byte) {
	t.Helper()
	grammar, strict := scanVerdicts(b)
	deep := grammar && oracleDepth(b) >= maxDepth // the depth limit is this package's own
	skip, doc := scanWhole(b), docWhole(b)
	for _, err := range []error{skip, doc} {
		var s *syntaxError
		if err != nil && !errors.As(err, &s) && !errors.Is(err, errShort) && !errors.Is(err, errReservedName) {
			t.Fatalf("%q: an error of another kind: %v", b, err)
		}
	}
	if (skip == nil) != (grammar && !deep) {
		t.Fatalf("%q: skipValue says %v, the grammar %v", b, skip, grammar)
	}
	if doc == nil && !grammar {
		t.Fatalf("%q: the document pass takes what is no JSON", b)
	}
	if deep {
		return
	}
	if strict && doc != nil && !looseNames(gjson.ParseBytes([]byte(`[`+string(b)+`]`))) {
		t.Fatalf("%q: the document pass refuses what is strict: %v", b, doc)
	}
	// The other reader also refuses lone surrogates in values, which pass here as written.
	if doc == nil && !strict && !bytes.Contains(bytes.ToLower(b), []byte(`\ud`)) {
		t.Fatalf("%q: the document pass takes what is not strict", b)
	}
}

var scanSamples = []string{
	`{}`, `[]`, ` null `, `true`, `false`, `0`, `-0`, `-0.0e-0`, `1E+5`, `123456789012345678901234567890`, `""`, `"\u0000"`, `"\ud83d\ude00"`, `"\ud800"`, `"\udc00\ud800"`,
	`"\ud800\ud83d\ude00"`, `"\ud83dx"`, `{"a":1,"b":{"a":[{},[],{"a":null}]}}`, `{"a":1,"\u0061":2}`, `{"\ud800":1}`, `{"a.":1}`, `{"":1}`, `{"é":"é\u00e9\n"}`, `{"a":{"esproxy_x":1}}`,
	`"` + strings.Repeat("x", 31) + `"`, `["é","\\\"\/\b\f\n\r\t"]`, "[1,\t2,\r\n3 ]", `{"k":"日本語😀"}`,
}

var scanBad = []string{
	``, ` `, `01`, `-`, `+1`, `1.`, `.5`, `1e`, `1e+`, `NaN`, `Infinity`, `0x1`, `nul`, `True`, `"`, `"\`, `"\u`, `"\u12`, `"\u123g"`, `"\x"`, `"\ud83d\u12"`, `"\ud83d\uzzzz"`, "\"\x00\"", "\"\x1f\"", "\"\n\"",
	"\"\xff\"", "\"\xc1\xa3\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "\"\xe2", "\xef\xbb\xbf{}", `{a:1}`, `{'a':1}`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,}`, `[,]`, `[1,]`, `[1`, `[1}`, `{"a":1]`,
	`/* */{}`, `{}//`, `{} {}`, `{"a":1}}`, "{\"a\":1}\x00", "\f1", "\u00a01", `{"a":1 "b":2}`, `{"a" 1}`, `nullx`, `truefalse`,
}

func TestScanAgainstOracle(t *testing.T) {
	for _, s := range scanSamples {
		if err := scanWhole([]byte(s)); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		checkScan(t, []byte(s))
	}
	for _, s := range scanBad {
		if err := scanWhole([]byte(s)); err == nil {
			t.Errorf("%q was taken", s)
		}
		checkScan(t, []byte(s))
	}
}

func TestScanDepth(t *testing.T) {
	nest := func(open, close string, n int) []byte {
		return []byte(strings.Repeat(open, n) + "1" + strings.Repeat(close, n))
	}
	for _, pair := range [][2]string{{"[", "]"}, {`{"a":`, "}"}} {
		for n, ok := range map[int]bool{maxDepth - 1: true, maxDepth: false, 20 * maxDepth: false} {
			b := nest(pair[0], pair[1], n)
			if err := scanWhole(b); (err == nil) != ok {
				t.Errorf("%d times %s: %v", n, pair[0], err)
			}
			if err := docWhole(b); (err == nil) != ok {
				t.Errorf("document, %d times %s: %v", n, pair[0], err)
			}
		}
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range append(scanSamples, scanBad...) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) { checkScan(t, b) })
}

// genJSON draws JSON text: names and strings from a small, nasty alphabet, so that names meet.
func genJSON(depth int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		space := rapid.SampledFrom([]string{"", "", "", " ", "\n\t", "\r"})
		text := rapid.Custom(func(t *rapid.T) string {
			parts := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "card", "é", "😀", "é", `\u0061`, `\n`, `\"`, `\\`, `\/`, `\ud83d\ude00`, `\ud800`, `\uDFFF`, "01234567", ".", "{", "]", ","}), 0, 4).Draw(t, "text")
			return `"` + strings.Join(parts, "") + `"`
		})
		kind := rapid.IntRange(0, 7).Draw(t, "kind")
		if depth <= 0 {
			kind %= 4
		}
		switch kind {
		case 0:
			return rapid.SampledFrom([]string{"null", "true", "false"}).Draw(t, "word")
		case 1:
			return rapid.SampledFrom([]string{"0", "-0", "1.0E+5", "-12.50e-3", "12345678901234567890", "7"}).Draw(t, "number")
		case 2, 3:
			return text.Draw(t, "string")
		case 4, 5:
			var b strings.Builder
			b.WriteString("[" + space.Draw(t, "space"))
			for i := range rapid.IntRange(0, 3).Draw(t, "n") {
				if i > 0 {
					b.WriteString("," + space.Draw(t, "space"))
				}
				b.WriteString(genJSON(depth-1).Draw(t, "element") + space.Draw(t, "space"))
			}
			return b.String() + "]"
		}
		var b strings.Builder
		b.WriteString("{" + space.Draw(t, "space"))
		for i := range rapid.IntRange(0, 4).Draw(t, "n") {
			if i > 0 {
				b.WriteString("," + space.Draw(t, "space"))
			}
			b.WriteString(text.Draw(t, "name") + space.Draw(t, "space") + ":" + space.Draw(t, "space") + genJSON(depth-1).Draw(t, "member") + space.Draw(t, "space"))
		}
		return b.String() + "}"
	})
}

func TestScanGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := []byte(genJSON(3).Draw(t, "json"))
		checkScan(t, b)
		// One byte changed, left out or doubled.
		at := rapid.IntRange(0, len(b)-1).Draw(t, "at")
		with := rapid.SampledFrom([]byte("\"\\{}[],:0e.-ux \x00\x1f\x7f\x80\xc1\xed\xff")).Draw(t, "with")
		changed := bytes.Clone(b)
		changed[at] = with
		checkScan(t, changed)
		checkScan(t, append(bytes.Clone(b[:at]), b[at+1:]...))
		checkScan(t, append(append(bytes.Clone(b[:at]), with), b[at:]...))
	})
}

// Every beginning of a value gives errShort, or it is a whole value itself (of numbers).
func TestScanTruncation(t *testing.T) {
	for _, s := range scanSamples {
		s = strings.Trim(s, " ")
		for n := range len(s) {
			b := []byte(s)[:n:n]
			_, err := skipValue(b, 0, 1)
			whole := s[0] == '-' || s[0]-'0' <= 9
			if err == nil && !whole || err != nil && !errors.Is(err, errShort) {
				t.Errorf("%q cut to %q: %v", s, b, err)
			}
			if n > 0 && s[0] == '{' {
				if err := docWhole(b); !errors.Is(err, errShort) && !errors.As(err, new(*syntaxError)) && !errors.Is(err, errReservedName) {
					t.Errorf("document %q cut to %q: %v", s, b, err)
				}
			}
		}
	}
}

// The reader of strings takes eight bytes at a time: every byte that matters at every place.
func TestScanStringBoundaries(t *testing.T) {
	specials := []string{`"`, `\"`, `\\`, `\u00e9`, `\ud83d\ude00`, `\ud800`, "é", "€", "😀", "\x7f", "\x00", "\x1f", "\x20", "\x80", "\xff", "\xc1\xa3", "\xe2\x82", "\xed\xa0\x80", `\x`, `\u12g4`}
	for length := range 41 {
		for at := range length + 1 {
			for _, special := range specials {
				for _, tail := range []string{"", `,"more"`} {
					content := strings.Repeat("a", at) + special + strings.Repeat("b", length-at)
					b := []byte(`x"` + content + `"` + tail)
					end, flags, err := scanString(b, 1)
					want := true
					switch {
					case special == `"`:
						if err != nil || end != at+3 || flags != 0 {
							t.Fatalf("%q: end %d, flags %d, %v", b, end, flags, err)
						}
						continue
					case special[0] < 0x20, special == `\x`, special == `\u12g4`, !json.Valid([]byte(`"` + special + `"`)), !bytes.Equal(bytes.ToValidUTF8([]byte(special), nil), []byte(special)):
						want = false
					}
					if (err == nil) != want || want && end != len(b)-len(tail) {
						t.Fatalf("%q: end %d, %v", b, end, err)
					}
					if want && (flags&hasEscape != 0) != (special[0] == '\\') || want && (flags&hasLoneSurrogate != 0) != (special == `\ud800`) {
						t.Fatalf("%q: flags %d", b, flags)
					}
				}
			}
		}
	}
}

func TestUnescapeAgainstOracle(t *testing.T) {
	check := func(t interface{ Fatalf(string, ...any) }, quoted string) {
		if _, flags, err := scanString([]byte(quoted), 0); err != nil || flags&hasLoneSurrogate != 0 {
			return
		}
		want, err := jsontext.AppendUnquote(nil, quoted)
		if err != nil {
			t.Fatalf("%s: %v", quoted, err)
		}
		if got := unescape(nil, []byte(quoted[1:len(quoted)-1])); !bytes.Equal(got, want) {
			t.Fatalf("%s: got %q, want %q", quoted, got, want)
		}
	}
	for r := range 0x10000 {
		check(t, `"`+string(appendUnicodeEscape(nil, uint32(r)))+`x"`)
	}
	rapid.Check(t, func(t *rapid.T) {
		parts := rapid.SliceOf(rapid.SampledFrom([]string{"a", "é", "😀", `\u00E9`, `\uD83D`, `\udE00`, `\u0000`, `\n`, `\t`, `\r`, `\b`, `\f`, `\/`, `\\`, `\"`, `\u`, "12345678"})).Draw(t, "parts")
		check(t, `"`+strings.Join(parts, "")+`"`)
	})
	// Lone surrogates equal no text, and each other only as themselves.
	for quoted, want := range map[string]string{`\ud800`: "\xed\xa0\x80", `\udfff`: "\xed\xbf\xbf", `\ud800\ud800\udc00`: "\xed\xa0\x80\U00010000", `\ud800x`: "\xed\xa0\x80x"} {
		if got := unescape(nil, []byte(quoted)); string(got) != want {
			t.Errorf("%s: got %q, want %q", quoted, got, want)
		}
	}
}

func appendUnicodeEscape(dst []byte, r uint32) []byte {
	const digits = "0123456789abCDEF"
	return append(dst, '\\', 'u', digits[r>>12], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

// sampleDocument is 600 bytes of the usual kind.
const sampleDocument = `{"fec_alta":"2021-08-23 10:35:24","username":"Marcelino.Ledner","code_zip":"57353-3487","credit_card_num":"6767-2293-4172-5169","credit_card_ccv":"824","cuenta_numero":"58443297","direccion":"Avenida de las Acacias","geo_latitud":"-25.4601","geo_longitud":"-120.4236","color_favorito":"mediumorchid","foto_dni":"http://placeimg.com/640/480","ip":"145.159.55.250","auto":"Mercedes Benz Countach","auto_modelo":"Countach","auto_tipo":"Minivan","auto_color":"turquoise","cantidad_compras_realizadas":62301,"avatar":"https://cdn.fakercloud.com/avatars/1_128.jpg","fec_birthday":"1977-06-06 00:45:46","id":"1"}`

func BenchmarkReaders(b *testing.B) {
	doc := []byte(sampleDocument)
	b.Run("skipValue", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		for b.Loop() {
			if _, err := skipValue(doc, 0, 1); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("document", func(b *testing.B) {
		e, _, _ := fakeEngine(b)
		target := newTarget(e.Policy.Rules[:1], false)
		s := newDocScanner(func([]byte) bool { return false })
		var p part
		b.SetBytes(int64(len(doc)))
		for b.Loop() {
			if err := s.document(doc, target, &p); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("gjson", func(b *testing.B) {
		b.SetBytes(int64(len(doc)))
		for b.Loop() {
			if !gjson.ValidBytes(doc) {
				b.Fatal("not valid")
			}
		}
	})
}

package test

import (
	"bytes"
	bin "encoding/binary"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"testing"
)

// place is where in a document, or at which field in a query, a value stands.
type place struct {
	name    string
	members string // $F
	field   string // $N
}

// protectedPlaces are spellings of protected paths.
var protectedPlaces = []place{
	{"flat", `"credit_card_num":"$C"`, "credit_card_num"},
	{"dotted", `"payment.cards.pan":"$C"`, "payment.cards.pan"},
	{"number", `"cuenta_numero":$C`, "cuenta_numero"},
	{"nested", `"payment":{"cards":{"pan":"$C"}}`, "payment.cards.pan"},
	{"objects in an array", `"payment":{"cards":[{"x":1},{"pan":"$C"}]}`, "payment.cards.pan"},
	{"mixed", `"payment.cards":[{"pan":["x","$C"]}]`, "payment.cards.pan"},
	{"half dotted", `"payment":[{"cards.pan":$C}]`, "payment.cards.pan"},
	{"object", `"credit_card_ccv":{"n":{"m":"$C"}}`, "credit_card_ccv"},
}

// freePlace is a field that no rule names.
var freePlace = place{"free", `"city":"$C"`, "city"}

// fill makes a body of a form: the value stands at the place of it.
func (f form) fill(p place, target, value string) string {
	// {index} in a body takes the name as it is, without escapes of the path.
	if unescaped, ok := bodyTargets[target]; ok {
		target = unescaped
	}
	return strings.NewReplacer(
		"$D", strings.ReplaceAll(`{"username":"Ana",`+p.members+`}`, "$C", value),
		"$F", strings.ReplaceAll(p.members, "$C", value),
		"$N", p.field, "$C", value, "$I", target).Replace(f.body)
}

// bodyTargets are names of the same index for bodies, which take a name as it is and often one alone.
var bodyTargets = map[string]string{"$Puse%72": "$Puser", "$P%75ser": "$Palias", "$P%2a": "$Puser", "$Puser,$Pfree": "$Puser", "$Pus*": "$Puser", "$Pfree,$Palias": "$Palias", "*,-$Pfree": "$Puser", "_all": "$Palias"}

// sent is a body with what the head says about it.
type sentBody struct {
	header []string
	body   string
}

// dialect is a way to write down a body, or to send it.
type dialect struct {
	name string
	// usual marks what ordinary clients send, so that it must not be refused for its own sake.
	usual bool
	make  func(t *testing.T, body string, lines bool) sentBody
}

const (
	typeJSON  = "Content-Type: application/json"
	typeLines = "Content-Type: application/x-ndjson"
)

func typeOf(lines bool) string {
	if lines {
		return typeLines
	}
	return typeJSON
}

// names are the first words of the protected paths and of the members that a rule reads.
var names = []string{"credit_card_num", "credit_card_ccv", "cuenta_numero", "payment", "cards", "pan"}

// renamed writes the names in another way, wherever they are a whole word of a string.
func renamed(body string, change func(string) string) string {
	for _, n := range names {
		for _, end := range []string{`"`, `.`} {
			for _, start := range []string{`"`, `.`} {
				body = strings.ReplaceAll(body, start+n+end, start+change(n)+end)
			}
		}
	}
	return body
}

func escapeFirst(n string) string { return fmt.Sprintf(`\u%04x%s`, n[0], n[1:]) }

func escapeAll(n string) string {
	var b strings.Builder
	for _, c := range []byte(n) {
		fmt.Fprintf(&b, `\u%04X`, c)
	}
	return b.String()
}

// overlong is the two-byte form of an ASCII letter, which Jackson reads (0x63: C1 A3).
func overlong(n string) string { return string([]byte{0xC0 | n[0]>>6, 0x80 | n[0]&0x3F}) + n[1:] }

// text makes a dialect of a change to the JSON text.
func text(name string, usual bool, change func(string) string) dialect {
	return dialect{name, usual, func(_ *testing.T, body string, lines bool) sentBody {
		return sentBody{[]string{typeOf(lines)}, change(body)}
	}}
}

// head makes a dialect of headers alone.
func head(name string, usual bool, header ...string) dialect {
	return dialect{name, usual, func(_ *testing.T, body string, lines bool) sentBody { return sentBody{header, body} }}
}

// coded makes a dialect of a content coding.
func coded(name string, usual bool, code func(*testing.T, string) string, header ...string) dialect {
	return dialect{name, usual, func(t *testing.T, body string, lines bool) sentBody {
		return sentBody{append([]string{typeOf(lines)}, header...), code(t, body)}
	}}
}

func vendor(version string) dialect {
	return dialect{"compatible-with=" + version, version != "7", func(_ *testing.T, body string, lines bool) sentBody {
		kind := "json"
		if lines {
			kind = "x-ndjson"
		}
		media := "application/vnd.elasticsearch+" + kind + "; compatible-with=" + version
		return sentBody{[]string{"Content-Type: " + media, "Accept: application/vnd.elasticsearch+json; compatible-with=" + version}, body}
	}}
}

// inside puts text after the first brace of each line or body.
func inside(body, what string) string {
	at := strings.LastIndex(strings.TrimRight(body, "\n"), "\n") + 1 // the last line of several: the document
	if i := strings.IndexByte(body[at:], '{'); i >= 0 {
		return body[:at+i+1] + what + body[at+i+1:]
	}
	return body
}

// parts are the JSON texts of a body.
func parts(body string) []string {
	if !strings.HasSuffix(body, "\n") {
		return []string{body}
	}
	return strings.Split(strings.TrimSuffix(body, "\n"), "\n")
}

// binary makes a dialect of a binary encoding; separator stands after each part of several.
func binaryForm(name, media, separator string, encode func([]byte, any) []byte) dialect {
	return dialect{name, false, func(_ *testing.T, body string, lines bool) sentBody {
		var out []byte
		for _, p := range parts(body) {
			d := json.NewDecoder(strings.NewReader(p))
			d.UseNumber()
			var v any
			if d.Decode(&v) != nil {
				v = p // not JSON, as with a query in the URL
			}
			out = encode(out, v)
			if lines {
				out = append(out, separator...)
			}
		}
		return sentBody{[]string{"Content-Type: " + media}, string(out)}
	}}
}

// dialects are what bodies are written in. The first is JSON as it stands.
var dialects = []dialect{
	text("JSON", true, func(b string) string { return b }),
	text("escaped name", true, func(b string) string { return renamed(b, escapeFirst) }),
	text("name all escaped", true, func(b string) string { return renamed(b, escapeAll) }),
	text("dot at the end", false, func(b string) string {
		for _, n := range names {
			b = strings.ReplaceAll(b, n+`"`, n+`."`)
		}
		return b
	}),
	text("comments", false, func(b string) string { return inside(b, "/* x */") }),
	text("line comment", false, func(b string) string { return inside(b, "//x\r") }),
	text("byte order mark", false, func(b string) string { return "\xef\xbb\xbf" + b }),
	text("UTF-16LE", false, func(b string) string { return utf16Text(bin.LittleEndian, true, b) }),
	text("UTF-16BE", false, func(b string) string { return utf16Text(bin.BigEndian, false, b) }),
	text("UTF-32LE", false, func(b string) string { return utf32Text(bin.LittleEndian, false, b) }),
	text("UTF-32BE", false, func(b string) string { return utf32Text(bin.BigEndian, true, b) }),
	text("overlong UTF-8", false, func(b string) string { return renamed(b, overlong) }),
	text("duplicate members", false, func(b string) string { return inside(b, `"credit_card_num":"1","credit_card_num":"2",`) }),
	text("lone surrogate", true, func(b string) string { return strings.ReplaceAll(b, `"Ana"`, `"Ana","u":"\ud800"`) }),
	text("lone surrogate in a name", false, func(b string) string { return inside(b, `"\udc00":1,`) }),
	text("single quotes", false, func(b string) string { return strings.ReplaceAll(b, `"`, `'`) }),
	text("two documents", false, func(b string) string { return strings.TrimSuffix(b, "\n") + strings.TrimSuffix(b, "\n") + "\n" }),
	text("blanks", true, func(b string) string {
		if strings.HasSuffix(b, "\n") {
			return "\r\n\n" + strings.ReplaceAll(b, "\n", "\r\n")
		}
		return " \t\r\n" + b + "\r\n"
	}),
	text("array around it", false, func(b string) string { return "[" + strings.TrimSuffix(b, "\n") + "]" }),
	head("text/plain", false, "Content-Type: text/plain"),
	head("no type", false),
	head("charset=UTF-8", true, "Content-Type: application/json; charset=UTF-8"),
	head("charset=utf-16", false, "Content-Type: application/json; charset=utf-16"),
	dialect{"charset=utf-16le", false, func(_ *testing.T, b string, _ bool) sentBody {
		return sentBody{[]string{"Content-Type: application/json; charset=utf-16le"}, utf16Text(bin.LittleEndian, false, b)}
	}},
	head("YAML", false, "Content-Type: application/yaml"),
	dialect{"block YAML", false, func(_ *testing.T, b string, _ bool) sentBody {
		return sentBody{[]string{"Content-Type: application/yaml"}, "---\n? " + strings.TrimSuffix(b, "\n") + "\n: 1\n" + strings.TrimSuffix(b, "\n") + "\n"}
	}},
	head("form", false, "Content-Type: application/x-www-form-urlencoded"),
	binaryForm("CBOR", "application/cbor", "\xff", appendCBOR),
	binaryForm("vendor CBOR", "application/vnd.elasticsearch+cbor; compatible-with=8", "\xff", appendCBOR),
	binaryForm("SMILE", "application/smile", "\xff", appendSMILE),
	head("two types", false, typeJSON, "Content-Type: application/cbor"),
	vendor("7"), vendor("8"), vendor("9"),
	coded("gzip", true, gz, "Content-Encoding: gzip"),
	coded("deflate", true, func(_ *testing.T, b string) string { return zl(b) }, "Content-Encoding: deflate"),
	coded("raw deflate", false, func(_ *testing.T, b string) string { return rawDeflate(b) }, "Content-Encoding: deflate"),
	coded("two codings", false, gz, "Content-Encoding: gzip", "Content-Encoding: identity"),
	coded("codings in a list", false, gz, "Content-Encoding: gzip, br"),
	coded("br", false, func(_ *testing.T, b string) string { return b }, "Content-Encoding: br"),
	coded("zstd", false, func(_ *testing.T, b string) string { return b }, "Content-Encoding: zstd"),
	coded("identity", true, func(_ *testing.T, b string) string { return b }, "Content-Encoding: identity"),
	coded("gzip twice", false, func(t *testing.T, b string) string { return gz(t, gz(t, b)) }, "Content-Encoding: gzip"),
	coded("chunked", true, func(_ *testing.T, b string) string { return b }, chunked),
}

// chunked tells the sender to split the body into chunks.
const chunked = "Transfer-Encoding: chunked"

// appendCBOR appends v in RFC 8949.
func appendCBOR(b []byte, v any) []byte {
	size := func(major byte, n int) {
		if n < 24 {
			b = append(b, major|byte(n))
		} else {
			b = bin.BigEndian.AppendUint16(append(b, major|25), uint16(n))
		}
	}
	switch v := v.(type) {
	case map[string]any:
		size(0xA0, len(v))
		for _, k := range keys(v) {
			size(0x60, len(k))
			b = append(b, k...)
			b = appendCBOR(b, v[k])
		}
	case []any:
		size(0x80, len(v))
		for _, e := range v {
			b = appendCBOR(b, e)
		}
	case string:
		size(0x60, len(v))
		b = append(b, v...)
	case json.Number: // as text: the server converts
		return appendCBOR(b, v.String())
	case bool:
		if v {
			return append(b, 0xF5)
		}
		return append(b, 0xF4)
	default:
		return append(b, 0xF6)
	}
	return b
}

// appendSMILE appends v in the format of github.com/FasterXML/smile-format-specification, without back references.
func appendSMILE(b []byte, v any) []byte {
	return smileValue(append(b, ":)\n\x00"...), v)
}

func smileValue(b []byte, v any) []byte {
	switch v := v.(type) {
	case map[string]any:
		b = append(b, 0xFA)
		for _, k := range keys(v) {
			if 1 <= len(k) && len(k) <= 64 {
				b = append(append(b, byte(0x7F+len(k))), k...)
			} else {
				b = append(append(append(b, 0x34), k...), 0xFC)
			}
			b = smileValue(b, v[k])
		}
		return append(b, 0xFB)
	case []any:
		b = append(b, 0xF8)
		for _, e := range v {
			b = smileValue(b, e)
		}
		return append(b, 0xF9)
	case string:
		switch n := len(v); {
		case n == 0:
			return append(b, 0x20)
		case n <= 32:
			return append(append(b, byte(0x3F+n)), v...)
		case n <= 64:
			return append(append(b, byte(0x60+n-33)), v...)
		}
		return append(append(append(b, 0xE0), v...), 0xFC)
	case json.Number:
		return smileValue(b, v.String())
	case bool:
		if v {
			return append(b, 0x23)
		}
		return append(b, 0x22)
	}
	return append(b, 0x21)
}

func keys(m map[string]any) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}

// inChunks is a body in transfer coding chunked.
func inChunks(body string) string {
	var b bytes.Buffer
	for len(body) > 0 {
		n := min(len(body), 1+len(body)/3)
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

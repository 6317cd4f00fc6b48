package test

import (
	bin "encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// What must become of a spelling.
const (
	refused = iota // the proxy's own error in Elasticsearch's shape, of the request or of the bulk item
	closed         // as refused, or Go's server refuses: a 400 and a close
	sealed         // stored, and given back to a grant
	plain          // stored in clear: it names no protected field
	foreign        // it names no protected target: Elasticsearch refuses it, nothing is stored
	either         // refused by anybody or stored sealed
)

// spelling is one request that a careless proxy could read otherwise than Elasticsearch. In line and body $P is the
// prefix of all indices, $I the case's document id, $C its canary, $N an index whose name is a number.
type spelling struct {
	name string
	line string   // request line without the version; default PUT /$Puser/_doc/$I
	head []string // headers; a Content-Type of application/json goes with them unless they have one ("Content-Type" alone: none)
	body string
	want int
	raw  bool // head and body go out as they are, without a Content-Length
}

const (
	ana  = `{"username":"Ana","credit_card_num":"$C"}`
	toID = "PUT /$Puser/_doc/$I"
	bulk = "POST /_bulk"
)

func docSpellings() []spelling {
	pan := func(doc string) string { return `{"username":"Ana",` + doc + `}` }
	list := []spelling{
		{name: "as usual", body: ana, want: sealed},
		{name: "overlong name", body: `{"username":"Ana","` + "\xc1\xa3" + `redit_card_num":"$C"}`, want: refused},
		{name: "overlong subject name", body: `{"` + "\xc1\xb5" + `sername":"Ana","credit_card_num":"$C"}`, want: refused},
		{name: "overlong value", body: `{"username":"Ana","credit_card_num":"$C` + "\xc1\xa3" + `"}`, want: refused},
		{name: "three-byte overlong name", body: `{"username":"Ana","` + "\xe0\x81\xa3" + `redit_card_num":"$C"}`, want: refused},
		{name: "surrogate bytes", body: `{"username":"Ana","credit_card_num":"$C` + "\xed\xa0\x80" + `"}`, want: refused},
		{name: "comment before", body: `/* */` + ana, want: refused},
		{name: "comment in a name's place", body: `{"username":"Ana",/**/"credit_card_num":"$C"}`, want: refused},
		{name: "line comment", body: "{\"username\":\"Ana\",//x\n\"credit_card_num\":\"$C\"}", want: refused},
		{name: "comment after", body: ana + `/**/`, want: refused},
		{name: "number sign comment", body: "#x\n" + ana, want: refused},
		{name: "byte order mark", body: "\xef\xbb\xbf" + ana, want: refused},
		{name: "trailing dot", body: pan(`"credit_card_num.":"$C"`), want: refused},
		{name: "two trailing dots", body: pan(`"credit_card_num..":"$C"`), want: refused},
		{name: "escaped trailing dot", body: pan(`"credit_card_num\u002e":"$C"`), want: refused},
		{name: "trailing dot on the way", body: pan(`"payment.":{"cards":{"pan":"$C"}}`), want: refused},
		{name: "trailing dot of a dotted name", body: pan(`"payment.cards.pan.":"$C"`), want: refused},
		{name: "leading dot", body: pan(`".credit_card_num":"$C"`), want: refused},
		{name: "double dot", body: pan(`"payment..cards.pan":"$C"`), want: refused},
		{name: "empty name on the way", body: pan(`"payment":{"":{"cards":{"pan":"$C"}}}`), want: refused},
		{name: "escaped name", body: pan(`"credit\u005fcard_num":"$C"`), want: sealed},
		{name: "escaped upper case digits", body: pan(`"credit\u005Fcard_num":"$C"`), want: sealed},
		{name: "all escaped", body: pan(`"\u0063\u0072\u0065\u0064\u0069\u0074\u005f\u0063\u0061\u0072\u0064\u005f\u006e\u0075\u006d":"$C"`), want: sealed},
		{name: "escaped subject", body: `{"\u0075sername":"\u0041na","credit_card_num":"$C"}`, want: sealed},
		{name: "dotted", body: pan(`"payment.cards.pan":"$C"`), want: sealed},
		{name: "half dotted", body: pan(`"payment.cards":{"pan":"$C"}`), want: sealed},
		{name: "other half dotted", body: pan(`"payment":{"cards.pan":"$C"}`), want: sealed},
		{name: "escaped dot", body: pan(`"payment\u002ecards":[{"\u0070an":"$C"}]`), want: sealed},
		{name: "array of objects", body: pan(`"payment":{"cards":[{"x":1},{"pan":"$C"}]}`), want: sealed},
		{name: "arrays in arrays", body: pan(`"payment":[[{"cards":[[{"pan":"$C"}]]}]]`), want: sealed},
		{name: "both spellings", body: pan(`"payment":{"cards":{"pan":"$C"}},"payment.cards.pan":"$C"`), want: sealed},
		{name: "object as value", body: pan(`"credit_card_num":{"n":"$C"}`), want: sealed},
		{name: "array as value", body: pan(`"credit_card_num":["$C",["$C"]]`), want: sealed},
		{name: "number beside it", body: pan(`"credit_card_num":{"$C":12345678901234567890}`), want: sealed},
		{name: "subject last", body: `{"credit_card_num":"$C","username":"Ana"}`, want: sealed},
		{name: "blanks everywhere", body: " \t\r\n{ \"username\" : \"Ana\" ,\n\t\"credit_card_num\"\r\n:\t\"$C\" } \n", want: sealed},
		{name: "lone surrogate in a name", body: pan(`"\ud800":1,"credit_card_num":"$C"`), want: refused},
		{name: "lone surrogate in a protected name", body: pan(`"credit_card_num\udc00":"$C"`), want: refused},
		{name: "lone surrogate in a value", body: pan(`"credit_card_num":"$C\ud800"`), want: sealed},
		{name: "dropped field", body: pan(`"pin":"$C"`), want: either},
		{name: "path below", body: pan(`"credit_card_num.x":"$C"`), want: refused},
		{name: "path below, dropped", body: pan(`"pin.x":"$C"`), want: refused},
		{name: "root _source", body: `{"username":"Ana","_source":{"credit_card_num":"$C"}}`, want: refused},
		{name: "reserved name", body: pan(`"esproxy_key_x":"$C"`), want: refused},
		{name: "duplicate name", body: pan(`"credit_card_num":"1","credit_card_num":"$C"`), want: refused},
		{name: "duplicate name by escapes", body: pan(`"credit_card_num":"1","credit\u005fcard_num":"$C"`), want: refused},
		{name: "duplicate subject by escapes", body: `{"username":"Ana","\u0075sername":"Bob","credit_card_num":"$C"}`, want: refused},
		{name: "duplicate elsewhere", body: pan(`"a":{"b":1,"\u0062":2},"credit_card_num":"$C"`), want: refused},
		{name: "two subjects", body: `{"username":["Ana"],"credit_card_num":"$C"}`, want: refused},
		{name: "no subject", body: `{"credit_card_num":"$C"}`, want: refused},
		{name: "null subject", body: `{"username":null,"credit_card_num":"$C"}`, want: refused},
		{name: "looks sealed", body: pan(`"credit_card_num":"esp1.$C"`), want: refused},
		{name: "looks sealed, another kind", body: pan(`"credit_card_num":"esz9.$C"`), want: refused},
		{name: "token elsewhere", body: pan(`"credit_card_num":"$C","note":"esp1.` + strings.Repeat("A", 222) + `"`), want: refused},
		{name: "upper case name", body: pan(`"CREDIT_CARD_NUM":"$C"`), want: plain},
		{name: "blank after the name", body: pan(`"credit_card_num ":"$C"`), want: plain},
		{name: "zero-width blank", body: pan(`"credit_card_num\u200b":"$C"`), want: plain},
		{name: "full width", body: pan(`"ｃredit_card_num":"$C"`), want: plain},
		{name: "NUL in the name", body: pan(`"credit_card_num\u0000":"$C"`), want: plain},
	}
	for name, doc := range map[string]string{
		"NaN": `"x":NaN`, "Infinity": `"x":-Infinity`, "leading zero": `"x":01`, "plus": `"x":+1`, "no digit before the point": `"x":.5`,
		"no digit after the point": `"x":5.`, "hexadecimal": `"x":0x1`, "bare name": `x:1`, "single quotes": `'x':1`, "trailing comma": `"x":1,`,
		"raw control character": "\"x\":\"\x01\"", "raw newline": "\"x\":\"\n\"", "bad escape": `"x":"\x41"`, "cut escape": `"x":"\u00g1"`, "form feed": "\f\"x\":1",
		"NUL between tokens": "\x00\"x\":1", "no-break space": "\u00a0\"x\":1", "upper case literal": `"x":TRUE`, "missing colon": `"x"1`,
		"missing comma": `"x":1 "y":2`, "invalid UTF-8": "\"x\":\"\xff\"",
	} {
		list = append(list, spelling{name: name, body: `{"username":"Ana","credit_card_num":"$C",` + doc + `}`, want: refused})
	}
	for name, body := range map[string]string{
		"two documents": ana + ana, "trailing bracket": ana + "}", "trailing comma after": ana + ",", "unclosed": ana[:len(ana)-1], "an array": "[" + ana + "]",
		"a string": `"$C"`, "too deep": `{"username":"Ana","credit_card_num":"$C","x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `}`,
	} {
		list = append(list, spelling{name: name, body: body, want: refused})
	}
	for _, kind := range []string{"16LE", "16BE", "32LE", "32BE"} {
		list = append(list, spelling{name: "UTF-" + kind, body: "utf" + kind + ":", want: refused}, spelling{name: "UTF-" + kind + " with a mark", body: "utf" + kind + "mark:", want: refused})
	}
	return list
}

func hopSpellings() []spelling {
	v7 := []string{"Content-Type: application/vnd.elasticsearch+json;compatible-with=7", "Accept: application/vnd.elasticsearch+json;compatible-with=7"}
	list := []spelling{
		{name: "typed put", line: "PUT /$Puser/type/$I", head: v7, body: ana, want: refused},
		{name: "typed post", line: "POST /$Puser/type", head: v7, body: ana, want: refused},
		{name: "typed update", line: "POST /$Puser/type/$I/_update", head: v7, body: `{"doc":` + ana + `,"doc_as_upsert":true}`, want: refused},
		{name: "typed bulk", line: "POST /$Puser/type/_bulk", head: v7, body: "{\"index\":{}}\n" + ana + "\n", want: refused},
		{name: "escaped _doc, version 7", line: "POST /$Puser/%5Fdoc", head: v7, body: ana, want: refused},
		{name: "document with version 7", head: v7, body: ana, want: refused},
		{name: "version 7, spaced", head: []string{"Content-Type: application/vnd.elasticsearch+json; Compatible-With = 7"}, body: ana, want: refused},
		{name: "version 7 in Accept", head: []string{"Accept: application/vnd.elasticsearch+json; compatible-with=7"}, body: ana, want: refused},
		{name: "typed put without version", line: "PUT /$Puser/type/$I", body: ana, want: refused},
		{name: "escaped _doc", line: "POST /$Puser/%5Fdoc", body: ana, want: refused},
		{name: "escaped _doc and id", line: "PUT /$Puser/%5fdoc/$I", body: ana, want: refused},
		{name: "escaped _create", line: "PUT /$Puser/_%63reate/$I", body: ana, want: refused},
		{name: "escaped _bulk", line: "POST /%5Fbulk?index=$Puser", body: "{\"index\":{}}\n" + ana + "\n", want: refused},
		{name: "_DOC", line: "PUT /$Puser/_DOC/$I", body: ana, want: refused},
		{name: "YAML", head: []string{"Content-Type: application/yaml"}, body: "username: Ana\ncredit_card_num: $C\n", want: refused},
		{name: "vendor YAML", head: []string{"Content-Type: application/vnd.elasticsearch+yaml;compatible-with=8"}, body: "username: Ana\ncredit_card_num: $C\n", want: refused},
		{name: "CBOR", head: []string{"Content-Type: application/cbor"}, body: "cbor", want: refused},
		{name: "SMILE", head: []string{"Content-Type: application/smile"}, body: "smile", want: refused},
		{name: "CBOR as JSON", body: "cbor", want: refused},
		{name: "SMILE as JSON", body: "smile", want: refused},
		{name: "text", head: []string{"Content-Type: text/plain"}, body: ana, want: refused},
		{name: "form", head: []string{"Content-Type: application/x-www-form-urlencoded"}, body: ana, want: refused},
		{name: "no type", head: []string{"Content-Type"}, body: ana, want: either},
		{name: "two types", head: []string{"Content-Type: application/json", "Content-Type: application/yaml"}, body: ana, want: refused},
		{name: "two types in one", head: []string{"Content-Type: application/json, application/yaml"}, body: ana, want: refused},
		{name: "charset utf-16", head: []string{"Content-Type: application/json; charset=utf-16"}, body: ana, want: refused},
		{name: "charset iso-8859-1", head: []string{"Content-Type: application/json;charset=ISO-8859-1"}, body: ana, want: refused},
		{name: "charset utf-8", head: []string{"Content-Type: application/json; charset=UTF-8"}, body: ana, want: sealed},
		{name: "charset quoted", head: []string{`content-type: application/json;charset="utf-8"`}, body: ana, want: sealed},
		{name: "vendor JSON", head: []string{"Content-Type: application/vnd.elasticsearch+json; compatible-with=8", "Accept: application/vnd.elasticsearch+json; compatible-with=8"}, body: ana, want: sealed},

		{name: "semicolon in the query", line: toID + "?refresh=true;routing=x", body: ana, want: either},
		{name: "semicolon hides an index", line: "POST /_bulk?refresh=true;index=$Puser", body: "{\"index\":{\"_id\":\"$I\"}}\n" + ana + "\n", want: sealed},
		{name: "semicolon doubles an index", line: "POST /_bulk?index=$Pfree;index=$Puser", body: "{\"index\":{\"_id\":\"$I\"}}\n" + ana + "\n", want: refused},
		{name: "escaped parameter name", line: "POST /_bulk?%69ndex=$Puser", body: "{\"index\":{\"_id\":\"$I\"}}\n" + ana + "\n", want: sealed},
		{name: "number sign in the query", line: "POST /_bulk?index=$Pfree#&index=$Puser", body: "{\"index\":{\"_id\":\"$I\"}}\n" + ana + "\n", want: either},
		{name: "duplicate parameter", line: toID + "?routing=a&routing=b", body: ana, want: refused},
		{name: "duplicate index", line: "POST /_bulk?index=$Pfree&index=$Puser", body: "{\"index\":{\"_id\":\"$I\"}}\n" + ana + "\n", want: refused},
		{name: "index beside the path", line: "PUT /$Pfree/_doc/$I?index=$Puser", body: ana, want: refused},
		{name: "index beside the protected path", line: toID + "?index=$Pfree", body: ana, want: refused},
		{name: "id beside the path", line: toID + "?id=other", body: ana, want: refused},
		{name: "id in the query", line: "POST /$Puser/_doc?id=$I", body: ana, want: either},
		{name: "body in the URL", line: toID + `?source=%7B%22username%22:%22Ana%22,%22credit_card_num%22:%22$C%22%7D&source_content_type=application/json`, want: refused},
		{name: "a plus in the query", line: "POST /_bulk?index=$Puser+x", body: "{\"index\":{\"_id\":\"$I\"}}\n" + ana + "\n", want: foreign},

		{name: "double slash before", line: "PUT //$Puser/_doc/$I", body: ana, want: either},
		{name: "double slash between", line: "PUT /$Puser//_doc/$I", body: ana, want: refused},
		{name: "dots", line: "PUT /$Pfree/../$Puser/_doc/$I", body: ana, want: refused},
		{name: "one dot", line: "PUT /./$Puser/_doc/$I", body: ana, want: refused},
		{name: "escaped dots", line: "PUT /$Pfree/%2e%2e/$Puser/_doc/$I", body: ana, want: refused},
		{name: "escaped slash in the index", line: "PUT /$Pfree%2F..%2F$Puser/_doc/$I", body: ana, want: foreign},
		{name: "escaped slash for the path", line: "PUT /$Puser%2F_doc%2F$I", body: ana, want: foreign},
		{name: "escaped slash in the id", line: "PUT /$Puser/_doc/$I%2Fx", body: ana, want: sealed},
		{name: "escaped letter of the index", line: "PUT /$P%75ser/_doc/$I", body: ana, want: sealed},
		{name: "trailing slash", line: toID + "/", body: ana, want: sealed},
		{name: "trailing slashes", line: toID + "///", body: ana, want: sealed},
		{name: "plus in the id", line: toID + "+x", body: ana, want: sealed},
		{name: "plus in the index", line: "PUT /$Puser-a+b/_doc/$I", body: ana, want: sealed},
		{name: "percent percent", line: toID + "%%", body: ana, want: closed},
		{name: "bad escape in the path", line: toID + "%zz", body: ana, want: closed},
		{name: "list of indices", line: "PUT /$Pfree,$Puser/_doc/$I", body: ana, want: refused},
		{name: "wildcard", line: "PUT /$Puse*/_doc/$I", body: ana, want: refused},
		{name: "date math", line: "PUT /%3C$Puser-%7Bnow%2Fd%7D%3E/_doc/$I", body: ana, want: either},
		{name: "alias", line: "PUT /$Palias/_doc/$I", body: ana, want: sealed},
		{name: "absolute form", line: "PUT http://elsewhere/$Puser/_doc/$I", body: ana, want: either},
		{name: "absolute form, no path", line: "PUT http://$Puser/_doc/$I", body: ana, want: either},
		{name: "asterisk form", line: "PUT *", body: ana, want: refused},
		{name: "a full URL in the path", line: "PUT /http://x/$Puser/_doc/$I", body: ana, want: refused},
		{name: "blank in the path", line: "PUT /$Puser/_doc/$I x", body: ana, want: closed},
		{name: "invalid method", line: "PUT\x00 /$Puser/_doc/$I", body: ana, want: closed},
		{name: "unknown method", line: "PATCH /$Puser/_doc/$I", body: ana, want: refused},
		{name: "GET that writes", line: "GET /$Puser/_doc/$I", body: ana, want: refused},
		{name: "method override", line: "GET /$Puser/_doc/$I", head: []string{"X-HTTP-Method-Override: PUT"}, body: ana, want: refused},

		{name: "gzip", head: []string{"Content-Encoding: gzip"}, body: "gzip:", want: sealed},
		{name: "x-gzip, upper case", head: []string{"Content-Encoding: GZIP"}, body: "gzip:", want: either},
		{name: "deflate", head: []string{"Content-Encoding: deflate"}, body: "zlib:", want: sealed},
		{name: "raw deflate", head: []string{"Content-Encoding: deflate"}, body: "deflate:", want: either},
		{name: "identity", head: []string{"Content-Encoding: identity"}, body: ana, want: either},
		{name: "br", head: []string{"Content-Encoding: br"}, body: ana, want: refused},
		{name: "zstd", head: []string{"Content-Encoding: zstd"}, body: ana, want: refused},
		{name: "gzip,br", head: []string{"Content-Encoding: gzip,br"}, body: ana, want: refused},
		{name: "gzip,br, packed", head: []string{"Content-Encoding: gzip,br"}, body: "gzip:", want: refused},
		{name: "gzip, gzip", head: []string{"Content-Encoding: gzip, gzip"}, body: "gzip:", want: refused},
		{name: "plain body called gzip", head: []string{"Content-Encoding: gzip"}, body: ana, want: refused},
		{name: "packed body called nothing", body: "gzip:", want: refused},
		{name: "gzip cut", head: []string{"Content-Encoding: gzip"}, body: "cut:", want: refused},
		{name: "gzip without its end", head: []string{"Content-Encoding: gzip"}, body: "trailerless:", want: refused},
		{name: "gzip in members", head: []string{"Content-Encoding: gzip"}, body: "members:", want: either},
		{name: "gzip of two documents", head: []string{"Content-Encoding: gzip"}, body: "twice:", want: refused},
		{name: "gzip and more", head: []string{"Content-Encoding: gzip"}, body: "garbage:", want: refused},
		{name: "gzip with a wrong sum", head: []string{"Content-Encoding: gzip"}, body: "wrongsum:", want: refused},
		{name: "two encodings, gzip first", head: []string{"Content-Encoding: gzip", "Content-Encoding: identity"}, body: "gzip:", want: refused},
		{name: "two encodings, gzip last", head: []string{"Content-Encoding: identity", "Content-Encoding: gzip"}, body: ana, want: refused},
		{name: "two encodings, gzip last, packed", head: []string{"Content-Encoding: identity", "Content-Encoding: gzip"}, body: "gzip:", want: refused},
		{name: "encoding named hop by hop", head: []string{"Content-Encoding: gzip", "Connection: close, content-encoding"}, body: "gzip:", want: either},
		{name: "type named hop by hop", head: []string{"Content-Type: application/json", "Connection: close, content-type"}, body: ana, want: either},

		{name: "chunked", raw: true, head: []string{"Transfer-Encoding: chunked"}, body: "chunked:", want: sealed},
		{name: "chunked with extension and trailer", raw: true, head: []string{"Transfer-Encoding: chunked", "Trailer: X-Note"}, body: "trailer:", want: sealed},
		{name: "length beside chunked", raw: true, head: []string{"Content-Length: 2", "Transfer-Encoding: chunked"}, body: "chunked:", want: sealed},
		{name: "chunked beside length", raw: true, head: []string{"Transfer-Encoding: chunked", "Content-Length: 400"}, body: "chunked:", want: sealed},
		{name: "two lengths", raw: true, head: []string{"Content-Length: 2", "Content-Length: $L"}, body: ana, want: closed},
		{name: "length with a plus", raw: true, head: []string{"Content-Length: +$L"}, body: ana, want: closed},
		{name: "blank before the colon", raw: true, head: []string{"Content-Length : $L"}, body: ana, want: closed},
		{name: "unknown transfer coding", raw: true, head: []string{"Transfer-Encoding: xchunked"}, body: "chunked:", want: closed},
		{name: "two transfer codings", raw: true, head: []string{"Transfer-Encoding: chunked, identity"}, body: "chunked:", want: closed},
		{name: "transfer coding gzip", raw: true, head: []string{"Transfer-Encoding: gzip, chunked"}, body: "chunked:", want: closed},
		{name: "folded header", raw: true, head: []string{"Content-Length: $L", "X-Note: a\r\n b"}, body: ana, want: either},
		{name: "no length", raw: true, body: ana, want: either},
		{name: "short length", raw: true, head: []string{"Content-Length: 20"}, body: ana, want: refused},
		{name: "expect", head: []string{"Expect: 100-continue"}, body: ana, want: sealed},
		{name: "expect something else", head: []string{"Expect: 200-maybe"}, body: ana, want: closed},
	}
	return list
}

// packed resolves bodies that only stand for what they are.
func packed(t *testing.T, kind, doc, canary string) string {
	if rest, ok := strings.CutPrefix(kind, "utf"); ok {
		rest, mark := strings.CutSuffix(strings.TrimSuffix(rest, ":"), "mark")
		var order bin.AppendByteOrder = bin.BigEndian
		if strings.HasSuffix(rest, "LE") {
			order = bin.LittleEndian
		}
		if strings.HasPrefix(rest, "16") {
			return utf16Text(order, mark, doc)
		}
		return utf32Text(order, mark, doc)
	}
	switch kind {
	case "cbor":
		return cborDoc("username", "Ana", "credit_card_num", canary)
	case "smile":
		return smileDoc("username", "Ana", "credit_card_num", canary)
	case "gzip:":
		return gz(t, doc)
	case "zlib:":
		return zl(doc)
	case "deflate:":
		return rawDeflate(doc)
	case "cut:":
		z := gz(t, doc)
		return z[:len(z)-12]
	case "trailerless:":
		z := gz(t, doc)
		return z[:len(z)-8]
	case "members:":
		return gz(t, doc[:10]) + gz(t, doc[10:])
	case "twice:":
		return gz(t, doc) + gz(t, doc)
	case "garbage:":
		return gz(t, doc) + "garbage"
	case "wrongsum:":
		z := []byte(gz(t, doc))
		z[len(z)-6] ^= 1
		return string(z)
	case "chunked:":
		return fmt.Sprintf("%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n", 10, doc[:10], len(doc)-10, doc[10:])
	case "trailer:":
		return fmt.Sprintf("%x;a=b\r\n%s\r\n0\r\nX-Note: 1\r\n\r\n", len(doc), doc)
	}
	return kind
}

func bulkSpellings() []spelling {
	act := func(line, doc string) string { return line + "\n" + doc + "\n" }
	at := `{"index":{"_index":"$Puser","_id":"$I"}}`
	list := []spelling{
		{name: "bulk as usual", body: act(at, ana), want: sealed},
		{name: "bulk by PUT", line: "PUT /_bulk", body: act(at, ana), want: sealed},
		{name: "bulk, trailing slash", line: "POST /_bulk/", body: act(at, ana), want: sealed},
		{name: "bulk, double slash", line: "POST //_bulk", body: act(at, ana), want: either},
		{name: "CRLF", body: strings.ReplaceAll(act(at, ana), "\n", "\r\n"), want: sealed},
		{name: "two CR", body: strings.ReplaceAll(act(at, ana), "\n", "\r\r\n"), want: either},
		{name: "CR alone", body: at + "\r" + ana + "\n", want: refused},
		{name: "blank lines", body: "\n\n" + act(at, ana) + "\n\n\n", want: sealed},
		{name: "blank line before the document", body: at + "\n\n" + ana + "\n", want: either},
		{name: "no last newline", body: at + "\n" + ana, want: either},
		{name: "only an action", body: at + "\n", want: either},
		{name: "escaped action", body: act(`{"\u0069ndex":{"\u005findex":"$Puse\u0072","_id":"$I"}}`, ana), want: sealed},
		{name: "path, _index wins", line: "POST /$Pfree/_bulk", body: act(at, ana), want: sealed},
		{name: "path alone", line: "POST /$Puser/_bulk", body: act(`{"index":{"_id":"$I"}}`, ana), want: sealed},
		{name: "path, null _index", line: "POST /$Puser/_bulk", body: act(`{"index":{"_index":null,"_id":"$I"}}`, ana), want: either},
		{name: "query alone", line: "POST /_bulk?index=$Puser", body: act(`{"create":{"_id":"$I"}}`, ana), want: sealed},
		{name: "path and query", line: "POST /$Pfree/_bulk?index=$Puser", body: act(`{"index":{"_id":"$I"}}`, ana), want: refused},
		{name: "_index is a number", body: act(`{"index":{"_index":$N,"_id":"$I"}}`, ana), want: either},
		{name: "_index is a boolean", body: act(`{"index":{"_index":true,"_id":"$I"}}`, ana), want: either},
		{name: "_index is an array", body: act(`{"index":{"_index":["$Puser"],"_id":"$I"}}`, ana), want: refused},
		{name: "_index is an object", body: act(`{"index":{"_index":{"a":"$Puser"},"_id":"$I"}}`, ana), want: refused},
		{name: "_index twice", body: act(`{"index":{"_index":"$Pfree","_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "_index twice by escapes", body: act(`{"index":{"_index":"$Pfree","\u005findex":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "overlong _index", body: act(`{"index":{"_index":"$P`+"\xc1\xb5"+`ser","_id":"$I"}}`, ana), want: refused},
		{name: "overlong action", body: act(`{"`+"\xc1\xa9"+`ndex":{"_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "comment in the action", body: act(`{"index":/**/{"_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "comment before the action", body: act(`/**/`+at, ana), want: refused},
		{name: "comment in the document", body: act(at, `{"username":"Ana",/**/"credit_card_num":"$C"}`), want: refused},
		{name: "mark before the action", body: "\xef\xbb\xbf" + act(at, ana), want: refused},
		{name: "mark before the document", body: act(at, "\xef\xbb\xbf"+ana), want: refused},
		{name: "overlong name in a bulk", body: act(at, `{"username":"Ana","`+"\xc1\xa3"+`redit_card_num":"$C"}`), want: refused},
		{name: "trailing dot in a bulk", body: act(at, `{"username":"Ana","credit_card_num.":"$C"}`), want: refused},
		{name: "more members", body: act(`{"index":{"_index":"$Puser","_id":"$I"},"x":1}`, ana), want: refused},
		{name: "two actions", body: act(`{"index":{"_index":"$Pfree","_id":"$I"},"create":{"_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "second object", body: act(at+at, ana), want: refused},
		{name: "second object, blank", body: act(at+" {}", ana), want: refused},
		{name: "missing brace", body: act(at[:len(at)-1], ana), want: refused},
		{name: "missing braces", body: act(at[:len(at)-2], ana), want: refused},
		{name: "brace too many", body: act(at+"}", ana), want: refused},
		{name: "array action", body: act("["+at+"]", ana), want: refused},
		{name: "no action", body: act("{}", ana), want: refused},
		{name: "unknown action", body: act(`{"upsert":{"_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "upper case action", body: act(`{"INDEX":{"_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "unknown member", body: act(`{"index":{"_index":"$Puser","_id":"$I","x":1}}`, ana), want: either},
		{name: "_type", body: act(`{"index":{"_index":"$Puser","_id":"$I","_type":"t"}}`, ana), want: either},
		{name: "op_type create", body: act(`{"index":{"_index":"$Puser","_id":"$I","op_type":"create"}}`, ana), want: either},
		{name: "op_type delete", body: act(`{"index":{"_index":"$Puser","_id":"$I","op_type":"delete"}}`, ana), want: either},
		{name: "op_type update", body: act(`{"index":{"_index":"$Puser","_id":"$I","op_type":"update"}}`, ana), want: either},
		{name: "delete with a document", body: act(`{"delete":{"_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "two documents on a line", body: act(at, ana+ana), want: refused},
		{name: "document over two lines", body: at + "\n" + `{"username":"Ana",` + "\n" + `"credit_card_num":"$C"}` + "\n", want: refused},
		{name: "update, upsert", body: act(`{"update":{"_index":"$Puser","_id":"$I"}}`, `{"doc":{"a":1},"upsert":`+ana+`}`), want: sealed},
		{name: "update, doc_as_upsert", body: act(`{"update":{"_index":"$Puser","_id":"$I"}}`, `{"doc":`+ana+`,"doc_as_upsert":true}`), want: sealed},
		{name: "update, escaped doc", body: act(`{"update":{"_index":"$Puser","_id":"$I"}}`, `{"d\u006fc":`+ana+`,"doc_as_upsert":true}`), want: sealed},
		{name: "update, two docs", body: act(`{"update":{"_index":"$Puser","_id":"$I"}}`, `{"doc":{"a":1},"doc":`+ana+`,"doc_as_upsert":true}`), want: refused},
		{name: "update, more after it", body: act(`{"update":{"_index":"$Puser","_id":"$I"}}`, `{"doc":`+ana+`,"doc_as_upsert":true}{"x":1}`), want: refused},
		{name: "update, script", body: act(`{"update":{"_index":"$Puser","_id":"kept"}}`, `{"script":{"source":"ctx._source.credit_card_num=params.c","params":{"c":"$C"}}}`), want: refused},
		{name: "update, a plain document", body: act(`{"update":{"_index":"$Puser","_id":"$I"}}`, ana), want: refused},
		{name: "update, unknown member", body: act(`{"update":{"_index":"$Puser","_id":"$I"}}`, `{"doc":{"a":1},"docs":`+ana+`,"doc_as_upsert":true}`), want: refused},
		{name: "packed document", body: act(at, "\x1f\x8b\x08\x00"), want: refused},
		{name: "deflated document", body: act(at, "DFL\x00"+ana), want: refused},
		{name: "SMILE bulk", head: []string{"Content-Type: application/smile"}, body: ":)\n\x00" + act(at, ana), want: refused},
		{name: "bulk as YAML", head: []string{"Content-Type: application/yaml"}, body: act(at, ana), want: refused},
		{name: "bulk, charset utf-16", head: []string{"Content-Type: application/x-ndjson; charset=utf-16le"}, body: act(at, ana), want: refused},
		{name: "bulk, reply in YAML", head: []string{"Accept: application/yaml"}, body: act(at, ana), want: refused},
		{name: "late name in a large bulk", body: strings.Repeat(act(`{"index":{"_index":"$Pfree"}}`, `{"x":"`+strings.Repeat("y", 1000)+`"}`), 400) + act(at, ana), want: sealed},
		{name: "late comment in a large bulk", body: strings.Repeat(act(`{"index":{"_index":"$Pfree"}}`, `{"x":"`+strings.Repeat("y", 1000)+`"}`), 400) + act(`/**/`+at, ana), want: closed},
		{name: "alias in a bulk", body: act(`{"index":{"_index":"$Palias","_id":"$I"}}`, ana), want: sealed},
		{name: "date math in a bulk", body: act(`{"index":{"_index":"<$Puser-{now/d}>","_id":"$I"}}`, ana), want: either},
		{name: "monitoring bulk", line: "POST /_monitoring/bulk?system_id=kibana&system_api_version=7&interval=10s", body: act(`{"index":{"_type":"x"}}`, ana), want: refused},
		{name: "streamed bulk", line: "POST /_bulk/stream", body: act(at, ana), want: refused},
		{name: "bulk, gzip in members", head: []string{"Content-Encoding: gzip"}, body: "bulkmembers:" + act(at, ana), want: either},
		{name: "bulk, gzip and more", head: []string{"Content-Encoding: gzip"}, body: "bulkgarbage:" + act(at, ana), want: refused},
		{name: "bulk, UTF-16", body: "bulk16:" + act(at, ana), want: refused},
	}
	for i := range list {
		if list[i].line == "" {
			list[i].line = bulk
		}
	}
	return list
}

// TestSpellings sends every spelling that Elasticsearch is known to read in its own way, byte by byte, and looks for the
// value in what went upstream and in what was stored.
func TestSpellings(t *testing.T) {
	t.Parallel()
	number := fmt.Sprint(1_000_000 + rand.IntN(9_000_000))
	s := start(t, config{policy: strings.ReplaceAll(defaultPolicy, `indices: ["$Puser", "$Puser-*"]`, `indices: ["$Puser", "$Puser-*", "`+number+`", "true"]`)})
	t.Cleanup(func() {
		for _, index := range []string{number, "true"} {
			s.direct("DELETE", "/"+index, "")
		}
	})
	s.must(s.do("PUT", "/$Puser/_doc/kept", `{"username":"Ana"}`), 201)
	s.must(s.do("POST", "/_aliases", `{"actions":[{"add":{"index":"$Puser","alias":"$Palias"}}]}`), 200)

	list := append(append(docSpellings(), hopSpellings()...), bulkSpellings()...)
	canary := func(i int) string { return fmt.Sprintf("c4n4ry-%03d-%s", i, s.prefix) }
	first := s.rec.count()
	answers := make([]answer, len(list))
	for i, c := range list {
		fill := strings.NewReplacer("$P", s.prefix, "$I", fmt.Sprintf("id-%03d", i), "$C", canary(i), "$N", number).Replace
		doc := fill(ana)
		body := fill(c.body)
		switch kind, rest, _ := strings.Cut(body, ":"); kind {
		case "bulkmembers":
			body = gz(t, rest[:20]) + gz(t, rest[20:])
		case "bulkgarbage":
			body = gz(t, rest) + "\x00garbage"
		case "bulk16":
			body = utf16Text(bin.LittleEndian, true, rest)
		default:
			body = packed(t, body, doc, canary(i))
		}
		line := c.line
		if line == "" {
			line = toID
		}
		head := fill(line) + " HTTP/1.1\r\nHost: proxy\r\n"
		typed, closing := false, false
		for _, h := range c.head {
			typed = typed || strings.HasPrefix(strings.ToLower(h), "content-type")
			closing = closing || strings.HasPrefix(h, "Connection:")
			if h != "Content-Type" {
				head += strings.ReplaceAll(h, "$L", fmt.Sprint(len(body))) + "\r\n"
			}
		}
		if !typed {
			head += "Content-Type: application/json\r\n"
		}
		if !closing {
			head += "Connection: close\r\n"
		}
		if !c.raw {
			head += fmt.Sprintf("Content-Length: %d\r\n", len(body))
		}
		answers[i] = s.rawSend([]byte(head + "\r\n" + body))
	}
	stored, opened := s.documents(""), s.documents("full")
	for _, index := range []string{number, "true"} {
		s.direct("POST", "/"+index+"/_refresh", "")
		if a := s.direct("GET", "/"+index+"/_search?size=1000", ""); a.status == 200 {
			stored += a.body
			opened += s.as("full", "GET", "/"+index+"/_search?size=1000", "").body
		}
	}
	for i, c := range list {
		a := answers[i]
		t.Run(c.name, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("status %d, error %v\n%s", a.status, a.err, tail(a.body, 1500))
				}
			}()
			if c.want == plain {
				if a.status/100 != 2 || !strings.Contains(stored, canary(i)) {
					t.Error("what names no protected field must be stored as it is")
				}
				return
			}
			if c.want == foreign {
				if a.err != nil || a.status < 400 && !strings.Contains(a.json("items.0").String(), `"error"`) || strings.Contains(stored, canary(i)) {
					t.Error("it must be refused")
				}
				return
			}
			if in := s.rec.sent(first, canary(i)); in != "" {
				t.Errorf("the value went upstream:\n%s", tail(in, 1500))
			}
			if strings.Contains(stored, canary(i)) {
				t.Error("the value is stored in clear")
			}
			written := strings.Contains(opened, canary(i))
			item := a.json("items.0").String()
			own := strings.HasPrefix(a.json("error.type").String(), "esproxy_")
			ownItem := strings.Contains(item, `"type":"esproxy_`)
			switch c.want {
			case sealed:
				if a.status/100 != 2 || !written {
					t.Error("it must be stored, and given back to a grant")
				}
			case refused, closed:
				if written {
					t.Error("it was stored")
				}
				if a.err == nil && a.status == 200 && ownItem {
					return
				}
				err := asESError(a)
				if err == nil && !own {
					t.Error("Elasticsearch refused it, not the proxy")
				}
				if err != nil && (c.want != closed || a.err == nil && a.status < 400) {
					t.Errorf("no refusal in Elasticsearch's shape: %v", err)
				}
			case either:
				if a.err != nil {
					t.Errorf("no reply: %v", a.err)
				}
				if ok := a.status/100 == 2 && !strings.Contains(item, `"error"`); ok && !written && c.name != "dropped field" && !strings.HasPrefix(item, `{"delete"`) &&
					a.json("items.#").Int() != 0 {
					t.Error("acknowledged, but not to be read")
				}
			}
		})
	}
}

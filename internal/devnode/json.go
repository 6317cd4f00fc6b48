//go:build !nodevnode

package devnode

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf8"
)

type kind byte

const (
	kNull kind = iota
	kBool
	kNum
	kStr
	kArr
	kObj
	kRaw // raw holds one JSON value, written as it is
)

// jv is one JSON value with its place in the text it was read from. Members
// keep their order. Strings are decoded; a lone surrogate is kept in its
// three-byte form, which the writer turns back into an escape.
type jv struct {
	k        kind
	raw      []byte // text of a scalar or of a kRaw value
	s        string // decoded string
	mem      []member
	arr      []*jv
	off, end int // byte range in the source
}

type member struct {
	key string
	off int // start of the key
	v   *jv
}

// get returns the member with the given name, or nil.
func (v *jv) get(key string) *jv {
	if v == nil {
		return nil
	}
	for i := range v.mem {
		if v.mem[i].key == key {
			return v.mem[i].v
		}
	}
	return nil
}

func (v *jv) isTrue() bool { return v != nil && v.k == kBool && v.raw[0] == 't' }

// text is a scalar as Jackson's getText gives it.
func (v *jv) text() string {
	if v.k == kStr {
		return v.s
	}
	return string(v.raw)
}

func (v *jv) scalar() bool { return v.k <= kStr }

// startToken names the first token of a value as Elasticsearch's parser does.
func (v *jv) startToken() string {
	switch v.k {
	case kNull:
		return "VALUE_NULL"
	case kBool:
		return "VALUE_BOOLEAN"
	case kNum:
		return "VALUE_NUMBER"
	case kStr:
		return "VALUE_STRING"
	case kArr:
		return "START_ARRAY"
	}
	return "START_OBJECT"
}

// obj builds an object from names and values. Values may be *jv, raw bytes,
// strings, booleans, integers, float32, float64, nil or lists of *jv.
func obj(kv ...any) *jv {
	v := &jv{k: kObj}
	for i := 0; i < len(kv); i += 2 {
		v.put(kv[i].(string), kv[i+1])
	}
	return v
}

func (v *jv) put(key string, x any) { v.mem = append(v.mem, member{key: key, v: val(x)}) }

func val(x any) *jv {
	switch x := x.(type) {
	case nil:
		return &jv{k: kNull, raw: []byte("null")}
	case *jv:
		return x
	case []byte:
		return &jv{k: kRaw, raw: x}
	case string:
		return &jv{k: kStr, s: x}
	case bool:
		return &jv{k: kBool, raw: strconv.AppendBool(nil, x)}
	case int:
		return &jv{k: kNum, raw: strconv.AppendInt(nil, int64(x), 10)}
	case int64:
		return &jv{k: kNum, raw: strconv.AppendInt(nil, x, 10)}
	case float32:
		return &jv{k: kNum, raw: javaFloat(nil, float64(x), 32)}
	case float64:
		return &jv{k: kNum, raw: javaFloat(nil, x, 64)}
	case []*jv:
		return &jv{k: kArr, arr: x}
	case []string:
		v := &jv{k: kArr}
		for _, s := range x {
			v.arr = append(v.arr, val(s))
		}
		return v
	}
	panic(fmt.Sprintf("devnode: cannot put %T into a reply", x))
}

// jsonError is a syntax error with what Elasticsearch tells about it.
type jsonError struct {
	line, col int // where the parser stood
	token     int // start of the last whole token, as an offset
	eof       bool
	msg       string // Jackson's text without the location
	src       []byte
}

// maxDepth is Jackson's nesting limit (StreamReadConstraints).
const maxDepth = 1000

type parser struct {
	b     []byte
	p     int
	depth int
	token int
}

func lineCol(b []byte, off int) (int, int) {
	line, start := 1, 0
	for i := 0; i < off && i < len(b); i++ {
		if b[i] == '\n' {
			line, start = line+1, i+1
		}
	}
	return line, off - start + 1
}

func (p *parser) fail(off int, eof bool, msg string) *jsonError {
	l, c := lineCol(p.b, off)
	return &jsonError{line: l, col: c, token: p.token, eof: eof, msg: msg, src: p.b}
}

func (p *parser) ws() {
	for p.p < len(p.b) {
		switch p.b[p.p] {
		case ' ', '\t', '\n', '\r':
			p.p++
		default:
			return
		}
	}
}

// parseJSON reads one strict JSON value; more text after it is an error.
func parseJSON(b []byte) (*jv, *jsonError) {
	p := &parser{b: b}
	p.ws()
	if p.p == len(b) {
		return nil, p.fail(p.p, true, "No content to map due to end-of-input")
	}
	v, err := p.value()
	if err != nil {
		return nil, err
	}
	p.ws()
	if p.p < len(b) {
		p.token = p.p
		if b[p.p] == '}' {
			return v, p.fail(p.p, false, fmt.Sprintf("Unexpected close marker '}': expected ']' (for root starting at [Source: %s; line: 1, column: 0])", preview(b)))
		}
		if _, err := p.value(); err != nil {
			err.token = p.token
			return v, err
		}
		return v, p.fail(p.p, false, "unexpected data after the document")
	}
	return v, nil
}

func (p *parser) value() (*jv, *jsonError) {
	v := &jv{off: p.p}
	var err *jsonError
	switch c := p.b[p.p]; {
	case c == '{':
		err = p.object(v)
	case c == '[':
		err = p.array(v)
	case c == '"':
		v.k = kStr
		start := p.p
		v.s, err = p.str()
		if err == nil {
			p.token = start
		}
	case c == '-' || c >= '0' && c <= '9':
		v.k = kNum
		err = p.number()
	default:
		err = p.word(v)
	}
	if err != nil {
		return nil, err
	}
	v.end = p.p
	if v.scalar() {
		v.raw = p.b[v.off:v.end]
	}
	return v, nil
}

func (p *parser) enter() *jsonError {
	p.token = p.p
	p.depth++
	if p.depth > maxDepth {
		return p.fail(p.p+1, false, fmt.Sprintf("Document nesting depth (%d) exceeds the maximum allowed (%d, from `StreamReadConstraints.getMaxNestingDepth()`)", p.depth, maxDepth))
	}
	p.p++
	return nil
}

func (p *parser) missingClose(what string, start int) *jsonError {
	l, c := lineCol(p.b, start)
	return p.fail(p.p, true, fmt.Sprintf("Unexpected end-of-input: expected close marker for %s (start marker at [Source: %s; line: %d, column: %d])", what, preview(p.b), l, c))
}

func (p *parser) object(v *jv) *jsonError {
	v.k = kObj
	start := p.p
	if err := p.enter(); err != nil {
		return err
	}
	var seen map[string]struct{}
	for {
		p.ws()
		if p.p == len(p.b) {
			return p.missingClose("Object", start)
		}
		if p.b[p.p] == '}' && len(v.mem) == 0 {
			break
		}
		if p.b[p.p] != '"' {
			return p.fail(p.p, false, fmt.Sprintf("Unexpected character (%s): was expecting double-quote to start field name", charText(p.b[p.p:])))
		}
		m := member{off: p.p}
		var err *jsonError
		if m.key, err = p.str(); err != nil {
			return err
		}
		dup := false
		if len(v.mem) < 16 {
			for i := range v.mem {
				dup = dup || v.mem[i].key == m.key
			}
		} else {
			if seen == nil {
				seen = make(map[string]struct{}, 32)
				for i := range v.mem {
					seen[v.mem[i].key] = struct{}{}
				}
			}
			_, dup = seen[m.key]
			seen[m.key] = struct{}{}
		}
		if dup {
			return p.fail(p.p, false, fmt.Sprintf("Duplicate field '%s'", m.key))
		}
		p.token = m.off
		p.ws()
		if p.p == len(p.b) {
			return p.fail(p.p, true, "Unexpected end-of-input within/between Object entries")
		}
		if p.b[p.p] != ':' {
			return p.fail(p.p, false, fmt.Sprintf("Unexpected character (%s): was expecting a colon to separate field name and value", charText(p.b[p.p:])))
		}
		p.p++
		p.ws()
		if p.p == len(p.b) {
			return p.fail(p.p, true, "Unexpected end-of-input within/between Object entries")
		}
		if m.v, err = p.value(); err != nil {
			return err
		}
		v.mem = append(v.mem, m)
		p.ws()
		if p.p == len(p.b) {
			return p.missingClose("Object", start)
		}
		if p.b[p.p] == ',' {
			p.p++
			p.ws()
			if p.p < len(p.b) && p.b[p.p] == '}' {
				return p.fail(p.p, false, "Unexpected character ('}' (code 125)): was expecting double-quote to start field name")
			}
			continue
		}
		if p.b[p.p] == '}' {
			break
		}
		return p.fail(p.p, false, fmt.Sprintf("Unexpected character (%s): was expecting comma to separate Object entries", charText(p.b[p.p:])))
	}
	p.token = p.p
	p.p++
	p.depth--
	return nil
}

func (p *parser) array(v *jv) *jsonError {
	v.k = kArr
	start := p.p
	if err := p.enter(); err != nil {
		return err
	}
	for {
		p.ws()
		if p.p == len(p.b) {
			return p.missingClose("Array", start)
		}
		if p.b[p.p] == ']' && len(v.arr) == 0 {
			break
		}
		if p.b[p.p] == ']' {
			p.token = p.p
			return p.fail(p.p, false, fmt.Sprintf("Unexpected character (%s): expected a value", charText(p.b[p.p:])))
		}
		e, err := p.value()
		if err != nil {
			return err
		}
		v.arr = append(v.arr, e)
		p.ws()
		if p.p == len(p.b) {
			return p.missingClose("Array", start)
		}
		if p.b[p.p] == ',' {
			p.p++
			continue
		}
		if p.b[p.p] == ']' {
			break
		}
		return p.fail(p.p, false, fmt.Sprintf("Unexpected character (%s): was expecting comma to separate Array entries", charText(p.b[p.p:])))
	}
	p.token = p.p
	p.p++
	p.depth--
	return nil
}

func (p *parser) number() *jsonError {
	start := p.p
	digits := func() int {
		n := 0
		for p.p < len(p.b) && p.b[p.p] >= '0' && p.b[p.p] <= '9' {
			p.p++
			n++
		}
		return n
	}
	bad := func(what string) *jsonError {
		if p.p == len(p.b) {
			return p.fail(p.p, true, "Unexpected end-of-input in numeric value")
		}
		return p.fail(p.p, false, fmt.Sprintf("Unexpected character (%s) in numeric value: %s", charText(p.b[p.p:]), what))
	}
	if p.b[p.p] == '-' {
		p.p++
	}
	if p.p < len(p.b) && p.b[p.p] == '0' {
		p.p++
		if p.p < len(p.b) && p.b[p.p] >= '0' && p.b[p.p] <= '9' {
			return p.fail(p.p, false, "Invalid numeric value: Leading zeroes not allowed")
		}
	} else if digits() == 0 {
		return bad("expected digit (0-9) to follow minus sign, for valid numeric value")
	}
	if p.p < len(p.b) && p.b[p.p] == '.' {
		p.p++
		if digits() == 0 {
			return bad("Decimal point not followed by a digit")
		}
	}
	if p.p < len(p.b) && (p.b[p.p] == 'e' || p.b[p.p] == 'E') {
		p.p++
		if p.p < len(p.b) && (p.b[p.p] == '+' || p.b[p.p] == '-') {
			p.p++
		}
		if digits() == 0 {
			return bad("Exponent indicator not followed by a digit")
		}
	}
	if p.p < len(p.b) {
		switch p.b[p.p] {
		case ' ', '\t', '\r', '\n', ',', ']', '}':
		default:
			return p.fail(p.p, false, fmt.Sprintf("Unexpected character (%s): Expected space separating root-level values", charText(p.b[p.p:])))
		}
	}
	p.token = start
	return nil
}

func (p *parser) word(v *jv) *jsonError {
	start := p.p
	e := start
	for e < len(p.b) && (p.b[e] >= 'a' && p.b[e] <= 'z' || p.b[e] >= 'A' && p.b[e] <= 'Z' || p.b[e] >= '0' && p.b[e] <= '9' || p.b[e] == '_' || p.b[e] == '$' || p.b[e] >= 0x80) {
		e++
	}
	switch string(p.b[start:e]) {
	case "true", "false":
		v.k = kBool
	case "null":
		v.k = kNull
	case "":
		return p.fail(start, false, fmt.Sprintf("Unexpected character (%s): expected a valid value (JSON String, Number, Array, Object or token 'null', 'true' or 'false')", charText(p.b[start:])))
	default:
		return p.fail(min(e+1, len(p.b)), false, fmt.Sprintf("Unrecognized token '%s': was expecting (JSON String, Number, Array, Object or token 'null', 'true' or 'false')", p.b[start:e]))
	}
	p.p, p.token = e, start
	return nil
}

// str reads a string at p.p, which is at its opening quote.
func (p *parser) str() (string, *jsonError) {
	p.p++
	start := p.p
	for p.p < len(p.b) {
		c := p.b[p.p]
		if c == '"' {
			s := string(p.b[start:p.p])
			p.p++
			return s, nil
		}
		if c == '\\' || c < 0x20 || c >= 0x80 {
			break
		}
		p.p++
	}
	buf := append([]byte(nil), p.b[start:p.p]...)
	for p.p < len(p.b) {
		switch c := p.b[p.p]; {
		case c == '"':
			p.p++
			return string(buf), nil
		case c == '\\':
			var err *jsonError
			if buf, err = p.escape(buf); err != nil {
				return "", err
			}
		case c < 0x20:
			return "", p.fail(p.p, false, fmt.Sprintf("Illegal unquoted character (%s): has to be escaped using backslash to be included in string value", charText(p.b[p.p:])))
		case c < 0x80:
			buf = append(buf, c)
			p.p++
		default:
			r, n := utf8.DecodeRune(p.b[p.p:])
			if r == utf8.RuneError && n <= 1 {
				return "", p.fail(p.p, false, fmt.Sprintf("Invalid UTF-8 start byte 0x%x", c))
			}
			buf = append(buf, p.b[p.p:p.p+n]...)
			p.p += n
		}
	}
	return "", p.fail(p.p, true, "Unexpected end-of-input: was expecting closing quote for a string value")
}

func (p *parser) escape(buf []byte) ([]byte, *jsonError) {
	if p.p+1 >= len(p.b) {
		p.p = len(p.b)
		return nil, p.fail(p.p, true, "Unexpected end-of-input in character escape sequence")
	}
	c := p.b[p.p+1]
	p.p += 2
	switch c {
	case '"', '\\', '/':
		return append(buf, c), nil
	case 'b':
		return append(buf, '\b'), nil
	case 'f':
		return append(buf, '\f'), nil
	case 'n':
		return append(buf, '\n'), nil
	case 'r':
		return append(buf, '\r'), nil
	case 't':
		return append(buf, '\t'), nil
	case 'u':
		r, ok := hex4(p.b, p.p)
		if !ok {
			return nil, p.fail(p.p+1, p.p+4 > len(p.b), "Unexpected character: expected a hex-digit for character escape sequence")
		}
		p.p += 4
		if r >= 0xD800 && r < 0xDC00 && p.p+6 <= len(p.b) && p.b[p.p] == '\\' && p.b[p.p+1] == 'u' {
			if lo, ok := hex4(p.b, p.p+2); ok && lo >= 0xDC00 && lo < 0xE000 {
				p.p += 6
				return utf8.AppendRune(buf, (r-0xD800)<<10|(lo-0xDC00)+0x10000), nil
			}
		}
		if r >= 0xD800 && r < 0xE000 {
			return append(buf, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0x3F, 0x80|byte(r)&0x3F), nil
		}
		return utf8.AppendRune(buf, r), nil
	}
	return nil, p.fail(p.p, false, fmt.Sprintf("Unrecognized character escape %s", charText([]byte{c})))
}

func hex4(b []byte, p int) (rune, bool) {
	if p+4 > len(b) {
		return 0, false
	}
	var r rune
	for _, c := range b[p : p+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

func charText(b []byte) string {
	r, _ := utf8.DecodeRune(b)
	if r < 0x20 {
		return fmt.Sprintf("(CTRL-CHAR, code %d)", r)
	}
	if r > 0x7e {
		return fmt.Sprintf("'%c' (code %d / 0x%x)", r, r, r)
	}
	return fmt.Sprintf("'%c' (code %d)", r, r)
}

// preview is Jackson's view of a source in an error: at most 500 bytes, with
// control characters escaped except for line ends.
func preview(b []byte) string {
	cut := ""
	if len(b) > 500 {
		cut = fmt.Sprintf("[truncated %d bytes]", len(b)-500)
		b = b[:500]
	}
	var out bytes.Buffer
	for _, r := range string(bytes.ToValidUTF8(b, []byte("\uFFFD"))) {
		if r < 0x20 && r != '\r' && r != '\n' || r >= 0x7f && r < 0xa0 {
			fmt.Fprintf(&out, "\\u%04X", r)
		} else {
			out.WriteRune(r)
		}
	}
	return fmt.Sprintf("(byte[])\"%s\"%s", out.Bytes(), cut)
}

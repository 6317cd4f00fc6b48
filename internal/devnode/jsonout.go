//go:build !nodevnode

package devnode

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
)

// appendValue writes v compactly. Raw values go out as they came in; numbers
// and strings of parsed values are written as Elasticsearch's generator does.
func appendValue(b []byte, v *jv) []byte {
	switch v.k {
	case kObj:
		b = append(b, '{')
		for i := range v.mem {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, v.mem[i].key)
			b = append(b, ':')
			b = appendValue(b, v.mem[i].v)
		}
		return append(b, '}')
	case kArr:
		b = append(b, '[')
		for i, e := range v.arr {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, e)
		}
		return append(b, ']')
	}
	return appendScalar(b, v)
}

func appendScalar(b []byte, v *jv) []byte {
	switch v.k {
	case kStr:
		return appendString(b, v.s)
	case kNum:
		return appendNumber(b, v.raw)
	}
	return append(b, v.raw...)
}

// appendPretty writes v as Elasticsearch does with ?pretty.
func appendPretty(b []byte, v *jv, indent int) []byte {
	nl := func(n int) {
		b = append(b, '\n')
		for i := 0; i < n; i++ {
			b = append(b, ' ', ' ')
		}
	}
	switch v.k {
	case kObj:
		if len(v.mem) == 0 {
			return append(b, "{ }"...)
		}
		b = append(b, '{')
		for i := range v.mem {
			if i > 0 {
				b = append(b, ',')
			}
			nl(indent + 1)
			b = appendString(b, v.mem[i].key)
			b = append(b, " : "...)
			b = appendPretty(b, v.mem[i].v, indent+1)
		}
		nl(indent)
		return append(b, '}')
	case kArr:
		if len(v.arr) == 0 {
			return append(b, "[ ]"...)
		}
		b = append(b, '[')
		for i, e := range v.arr {
			if i > 0 {
				b = append(b, ',')
			}
			nl(indent + 1)
			b = appendPretty(b, e, indent+1)
		}
		nl(indent)
		return append(b, ']')
	}
	return appendScalar(b, v)
}

// expand replaces raw values by parsed ones, so that a reply can be filtered
// or indented. Raw values are always text this node has parsed before.
func expand(v *jv) *jv {
	switch v.k {
	case kRaw:
		p, err := parseJSON(v.raw)
		if err != nil {
			return v
		}
		return p
	case kObj:
		n := &jv{k: kObj, mem: make([]member, len(v.mem))}
		for i, m := range v.mem {
			n.mem[i] = member{key: m.key, v: expand(m.v)}
		}
		return n
	case kArr:
		n := &jv{k: kArr, arr: make([]*jv, len(v.arr))}
		for i, e := range v.arr {
			n.arr[i] = expand(e)
		}
		return n
	}
	return v
}

const upperHex = "0123456789ABCDEF"

// appendString quotes s as Jackson's UTF-8 generator does: characters beyond
// the basic plane and lone surrogates become \uXXXX escapes.
func appendString(b []byte, s string) []byte {
	u16 := func(r rune) {
		b = append(b, '\\', 'u', upperHex[r>>12&15], upperHex[r>>8&15], upperHex[r>>4&15], upperHex[r&15])
	}
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c < utf8.RuneSelf {
			i++
			switch {
			case c == '"' || c == '\\':
				b = append(b, '\\', c)
			case c >= 0x20:
				b = append(b, c)
			case c == '\n':
				b = append(b, '\\', 'n')
			case c == '\r':
				b = append(b, '\\', 'r')
			case c == '\t':
				b = append(b, '\\', 't')
			case c == '\b':
				b = append(b, '\\', 'b')
			case c == '\f':
				b = append(b, '\\', 'f')
			default:
				u16(rune(c))
			}
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			if i+2 < len(s) && c == 0xED && s[i+1] >= 0xA0 {
				u16(rune(c&15)<<12 | rune(s[i+1]&63)<<6 | rune(s[i+2]&63))
				n = 3
			} else {
				b = append(b, "\uFFFD"...)
			}
		case r >= 0x10000:
			u16(0xD800 + (r-0x10000)>>10)
			u16(0xDC00 + (r-0x10000)&0x3FF)
		default:
			b = append(b, s[i:i+n]...)
		}
		i += n
	}
	return append(b, '"')
}

// appendNumber writes integers as they are and everything else as a Java
// double, which is what passes through a parser and a generator.
func appendNumber(b, raw []byte) []byte {
	if !bytes.ContainsAny(raw, ".eE") {
		return append(b, raw...)
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil && math.IsInf(f, 0) {
		// Elasticsearch writes an infinite double as a string.
		if f < 0 {
			return append(b, `"-Infinity"`...)
		}
		return append(b, `"Infinity"`...)
	}
	return javaFloat(b, f, 64)
}

// javaFloat formats as Double.toString or Float.toString (JDK 19 and later,
// shortest decimal that rounds to the same value).
func javaFloat(b []byte, f float64, bits int) []byte {
	if f == 0 {
		if math.Signbit(f) {
			return append(b, "-0.0"...)
		}
		return append(b, "0.0"...)
	}
	if a := math.Abs(f); a >= 1e-3 && a < 1e7 {
		s := strconv.FormatFloat(f, 'f', -1, bits)
		b = append(b, s...)
		if !strings.Contains(s, ".") {
			b = append(b, ".0"...)
		}
		return b
	}
	m, e, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, bits), "e")
	b = append(b, m...)
	if !strings.Contains(m, ".") {
		b = append(b, ".0"...)
	}
	b = append(b, 'E')
	n, _ := strconv.Atoi(e)
	return strconv.AppendInt(b, int64(n), 10)
}

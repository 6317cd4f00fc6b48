package rewrite

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"unicode/utf8"
)

// maxDepth is the deepest nesting that is read, the limit of Elasticsearch's own parser
// (StreamReadConstraints of Jackson 2.15 and later).
const maxDepth = 1000

// errShort means that the bytes end inside a value that is well formed so far.
var errShort = errors.New("unexpected end")

// syntaxError is a departure from RFC 8259 or from what Elasticsearch and this package read alike.
// It tells the place and never quotes the text.
type syntaxError struct {
	off  int
	what string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.what, e.off) }

func badSyntax(off int, what string) error { return &syntaxError{off, what} }

// skipSpace returns the place of the first byte at or after pos that is no JSON white space.
func skipSpace(b []byte, pos int) int {
	for pos < len(b) {
		switch b[pos] {
		case ' ', '\n', '\r', '\t':
			pos++
		default:
			return pos
		}
	}
	return pos
}

// stringFlags say what a string holds besides plain ASCII.
type stringFlags uint8

const (
	hasEscape stringFlags = 1 << iota
	hasLoneSurrogate
)

const (
	ones  = 0x0101010101010101
	highs = 0x8080808080808080
)

// stopBytes marks (in the high bit of each byte) the bytes of w that end plain string text: a quote, a
// backslash, a control character or a byte of a multi-byte character. The lowest mark is exact; marks above it may be
// false, as borrows run upwards.
func stopBytes(w uint64) uint64 {
	quote := w ^ ones*'"'
	slash := w ^ ones*'\\'
	return ((quote - ones) | (slash - ones) | (w - ones*0x20) | w) & highs
}

// scanString reads the string whose opening quote is at pos and returns the place after its
// closing quote. The text must be valid UTF-8 without overlong forms or encoded surrogates.
func scanString(b []byte, pos int) (end int, flags stringFlags, err error) {
	i := pos + 1
	for {
		// Eight bytes at a time over plain text.
		for i+8 <= len(b) {
			w := binary.LittleEndian.Uint64(b[i:])
			stop := stopBytes(w)
			if stop == 0 {
				i += 8
				continue
			}
			i += bits.TrailingZeros64(stop) >> 3
			break
		}
		if i >= len(b) {
			return i, flags, errShort
		}
		c := b[i]
		switch {
		case c == '"':
			return i + 1, flags, nil
		case c == '\\':
			n, lone, err := scanEscape(b, i)
			if err != nil {
				return i, flags, err
			}
			flags |= hasEscape
			if lone {
				flags |= hasLoneSurrogate
			}
			i += n
		case c < 0x20:
			return i, flags, badSyntax(i, "control character in a string")
		case c < utf8.RuneSelf:
			i++
		default:
			r, n := utf8.DecodeRune(b[i:])
			if r == utf8.RuneError && n <= 1 {
				if !utf8.FullRune(b[i:]) {
					return i, flags, errShort
				}
				return i, flags, badSyntax(i, "invalid UTF-8")
			}
			i += n
		}
	}
}

// scanEscape reads the escape that begins at i; a surrogate pair counts as one escape.
func scanEscape(b []byte, i int) (n int, lone bool, err error) {
	if i+1 >= len(b) {
		return 0, false, errShort
	}
	switch b[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2, false, nil
	case 'u':
		r, err := hex4(b, i+2)
		if err != nil {
			return 0, false, err
		}
		if r < 0xD800 || r > 0xDFFF {
			return 6, false, nil
		}
		if r >= 0xDC00 {
			return 6, true, nil
		}
		// A high surrogate: is its other half there?
		if i+7 < len(b) && (b[i+6] != '\\' || b[i+7] != 'u') || i+6 < len(b) && b[i+6] != '\\' {
			return 6, true, nil
		}
		if i+7 >= len(b) {
			return 0, false, errShort
		}
		low, err := hex4(b, i+8)
		if err != nil {
			return 0, false, err
		}
		if low >= 0xDC00 && low <= 0xDFFF {
			return 12, false, nil
		}
		return 6, true, nil
	}
	return 0, false, badSyntax(i, "unknown escape in a string")
}

func hex4(b []byte, i int) (uint32, error) {
	var r uint32
	for k := range 4 {
		if i+k >= len(b) {
			return 0, errShort
		}
		c := b[i+k]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, badSyntax(i+k, "bad \\u escape in a string")
		}
		r = r<<4 | uint32(c)
	}
	return r, nil
}

// unescape appends the text of a string's raw content (without quotes) that scanString accepted. A lone
// surrogate is appended in its three-byte form, which is no valid UTF-8 and so equals no other text.
func unescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); {
		c := raw[i]
		if c != '\\' {
			dst = append(dst, c)
			i++
			continue
		}
		switch raw[i+1] {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex4(raw, i+2)
			i += 6
			if r >= 0xD800 && r <= 0xDBFF && i+6 <= len(raw) && raw[i] == '\\' && raw[i+1] == 'u' {
				if low, err := hex4(raw, i+2); err == nil && low >= 0xDC00 && low <= 0xDFFF {
					r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
					i += 6
				}
			}
			if r >= 0xD800 && r <= 0xDFFF {
				dst = append(dst, 0xE0|byte(r>>12), 0x80|byte(r>>6)&0xBF, 0x80|byte(r)&0xBF)
			} else {
				dst = utf8.AppendRune(dst, rune(r))
			}
			continue
		default: // quote, backslash, slash
			dst = append(dst, raw[i+1])
		}
		i += 2
	}
	return dst
}

// scanNumber reads the number that begins at pos. A number that runs into the end of b is accepted:
// callers that may get more bytes must look at what follows.
func scanNumber(b []byte, pos int) (end int, err error) {
	i := pos
	digits := func() bool {
		start := i
		for i < len(b) && b[i]-'0' <= 9 {
			i++
		}
		return i > start
	}
	bad := func() (int, error) {
		if i >= len(b) {
			return i, errShort
		}
		return i, badSyntax(i, "bad number")
	}
	if b[i] == '-' {
		i++
	}
	if i < len(b) && b[i] == '0' {
		i++
	} else if !digits() {
		return bad()
	}
	if i < len(b) && b[i] == '.' {
		i++
		if !digits() {
			return bad()
		}
	}
	if i < len(b) && b[i]|0x20 == 'e' {
		i++
		if i < len(b) && (b[i] == '+' || b[i] == '-') {
			i++
		}
		if !digits() {
			return bad()
		}
	}
	return i, nil
}

// scanLiteral reads true, false or null at pos.
func scanLiteral(b []byte, pos int) (end int, err error) {
	word := "null"
	switch b[pos] {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	}
	for k := range len(word) {
		if pos+k >= len(b) {
			return pos, errShort
		}
		if b[pos+k] != word[k] {
			return pos, badSyntax(pos, "unknown word")
		}
	}
	return pos + len(word), nil
}

// skipValue reads the value at pos (no white space before it) and returns the place after it. It is strict but does
// not look for duplicate names; documents on their way in are read by docScanner.
func skipValue(b []byte, pos, depth int) (end int, err error) {
	if pos >= len(b) {
		return pos, errShort
	}
	if depth > maxDepth {
		return pos, badSyntax(pos, "nested too deep")
	}
	switch c := b[pos]; {
	case c == '"':
		end, _, err = scanString(b, pos)
		return end, err
	case c == '-' || c-'0' <= 9:
		return scanNumber(b, pos)
	case c == 't' || c == 'f' || c == 'n':
		return scanLiteral(b, pos)
	case c == '[':
		pos = skipSpace(b, pos+1)
		if pos < len(b) && b[pos] == ']' {
			return pos + 1, nil
		}
		for {
			if pos, err = skipValue(b, pos, depth+1); err != nil {
				return pos, err
			}
			pos = skipSpace(b, pos)
			if pos >= len(b) {
				return pos, errShort
			}
			if b[pos] == ']' {
				return pos + 1, nil
			}
			if b[pos] != ',' {
				return pos, badSyntax(pos, "expected a comma or ]")
			}
			pos = skipSpace(b, pos+1)
		}
	case c == '{':
		pos = skipSpace(b, pos+1)
		if pos < len(b) && b[pos] == '}' {
			return pos + 1, nil
		}
		for {
			if pos, _, err = scanName(b, pos); err != nil {
				return pos, err
			}
			if pos, err = skipColon(b, pos); err != nil {
				return pos, err
			}
			if pos, err = skipValue(b, pos, depth+1); err != nil {
				return pos, err
			}
			pos = skipSpace(b, pos)
			if pos >= len(b) {
				return pos, errShort
			}
			if b[pos] == '}' {
				return pos + 1, nil
			}
			if b[pos] != ',' {
				return pos, badSyntax(pos, "expected a comma or }")
			}
			pos = skipSpace(b, pos+1)
		}
	}
	return pos, badSyntax(pos, "expected a value")
}

// scanName reads the member name at pos.
func scanName(b []byte, pos int) (end int, flags stringFlags, err error) {
	if pos >= len(b) {
		return pos, 0, errShort
	}
	if b[pos] != '"' {
		return pos, 0, badSyntax(pos, "expected a member name")
	}
	return scanString(b, pos)
}

// skipColon reads the colon after a member name and returns the place of the value.
func skipColon(b []byte, pos int) (int, error) {
	pos = skipSpace(b, pos)
	if pos >= len(b) {
		return pos, errShort
	}
	if b[pos] != ':' {
		return pos, badSyntax(pos, "expected a colon")
	}
	return skipSpace(b, pos+1), nil
}

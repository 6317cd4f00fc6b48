package access

import (
	"unicode/utf16"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/policy"
)

// hidden stands for what a mask does not show. Its length tells nothing of the value's.
const hidden = "****"

// Mask appends the masked form of a JSON value as one JSON string. Anything that the mask is not
// made for (numbers, objects, short strings, strings with lone surrogates, broken JSON) becomes "****".
// Characters are Unicode code points of the unescaped string.
func Mask(dst []byte, mask policy.Mask, value []byte) []byte {
	if mask == policy.MaskFull {
		return quote(dst, nil, hidden, nil)
	}
	t, ok := survey(value)
	if !ok {
		return quote(dst, nil, hidden, nil)
	}
	switch {
	case mask == policy.MaskLast4 && t.n >= 8:
		return quote(dst, nil, hidden, t.last[:])
	case mask == policy.MaskFirst6Last4 && t.n >= 15:
		return quote(dst, t.first[:], hidden, t.last[:])
	case mask == policy.MaskEmail && t.ats == 1 && t.at >= 2 && t.at < t.n-1:
		dst = escape(append(dst, '"'), t.first[0])
		dst = append(dst, "***"...)
		for s := value[t.atByte : len(value)-1]; len(s) > 0; {
			r, size := next(s)
			dst, s = escape(dst, r), s[size:]
		}
		return append(dst, '"')
	}
	return quote(dst, nil, hidden, nil)
}

// quote appends a JSON string of three parts.
func quote(dst []byte, before []rune, stars string, after []rune) []byte {
	dst = append(dst, '"')
	for _, r := range before {
		dst = escape(dst, r)
	}
	dst = append(dst, stars...)
	for _, r := range after {
		dst = escape(dst, r)
	}
	return append(dst, '"')
}

// escape appends one character as it may stand in a JSON string.
func escape(dst []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	switch {
	case r == '"' || r == '\\':
		return append(dst, '\\', byte(r))
	case r < 0x20:
		return append(dst, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
	}
	return utf8.AppendRune(dst, r)
}

// characters are what masks need to know of a string. No copy of the whole is made, so that none has to be cleared.
type characters struct {
	n      int     // how many
	first  [6]rune // as far as there are
	last   [4]rune // as far as there are
	ats    int     // how many are '@'
	at     int     // index of the last '@' in characters
	atByte int     // and in bytes of the JSON text
}

// survey reads a JSON string (RFC 8259). It reports false where value is not exactly one string or where
// the string has no characters to speak of (lone surrogates, invalid UTF-8).
func survey(value []byte) (t characters, ok bool) {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return t, false
	}
	for i, end := 1, len(value)-1; i < end; t.n++ {
		r, size := next(value[i:end])
		if size == 0 {
			return t, false
		}
		if t.n < len(t.first) {
			t.first[t.n] = r
		}
		copy(t.last[:], t.last[1:])
		t.last[len(t.last)-1] = r
		if r == '@' {
			t.ats++
			t.at, t.atByte = t.n, i
		}
		i += size
	}
	return t, true
}

// next reads the character that s, the inside of a JSON string, begins with, and gives its length in s, 0 for a wrong one.
func next(s []byte) (rune, int) {
	switch c := s[0]; {
	case c == '"' || c < 0x20:
		return 0, 0
	case c == '\\':
		return unescape(s)
	case c < utf8.RuneSelf:
		return rune(c), 1
	}
	r, size := utf8.DecodeRune(s)
	if r == utf8.RuneError && size <= 1 {
		return 0, 0
	}
	return r, size
}

// unescape reads the escape that s begins with, a surrogate pair as one, and gives its length, 0 for a wrong one.
func unescape(s []byte) (rune, int) {
	if len(s) < 2 {
		return 0, 0
	}
	switch s[1] {
	case '"', '\\', '/':
		return rune(s[1]), 2
	case 'b':
		return '\b', 2
	case 'f':
		return '\f', 2
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'u':
	default:
		return 0, 0
	}
	r, ok := hex4(s)
	if !ok || !utf16.IsSurrogate(r) {
		if !ok {
			return 0, 0
		}
		return r, 6
	}
	low, ok := hex4(s[6:])
	if !ok {
		return 0, 0
	}
	if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
		return 0, 0
	}
	return r, 12
}

// hex4 reads "\uXXXX".
func hex4(s []byte) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range s[2:6] {
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}
	return r, true
}

package ingest

import (
	"bytes"
	"encoding/json"
)

// members calls fn for each member of the JSON object raw, in order: its name unescaped, the name's text with quotes, and the
// value's text as written. It returns false, without a call, when raw is not exactly one JSON object.
//
// The text is checked by encoding/json first, so that finding the ends of values needs no grammar: only strings and brackets
// count. json.Decoder would find them too, at ten times the cost.
func members(raw []byte, fn func(name string, nameText, value []byte)) bool {
	i := blanks(raw, 0)
	if i == len(raw) || raw[i] != '{' || !json.Valid(raw) {
		return false
	}
	for i = blanks(raw, i+1); raw[i] != '}'; {
		end := stringEnd(raw, i)
		nameText := raw[i:end]
		i = blanks(raw, blanks(raw, end)+1) // over the colon
		end = valueEnd(raw, i)
		fn(unquote(nameText), nameText, raw[i:end])
		if i = blanks(raw, end); raw[i] == ',' {
			i = blanks(raw, i+1)
		}
	}
	return true
}

// blanks returns the first place from i on that holds no JSON whitespace.
func blanks(raw []byte, i int) int {
	for i < len(raw) && (raw[i] == ' ' || raw[i] == '\t' || raw[i] == '\n' || raw[i] == '\r') {
		i++
	}
	return i
}

// stringEnd returns the place after the string that begins at i.
func stringEnd(raw []byte, i int) int {
	for i++; raw[i] != '"'; i++ {
		if raw[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// valueEnd returns the place after the value that begins at i.
func valueEnd(raw []byte, i int) int {
	switch raw[i] {
	case '"':
		return stringEnd(raw, i)
	case '{', '[':
		for depth := 0; ; {
			switch raw[i] {
			case '"':
				i = stringEnd(raw, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				if depth--; depth == 0 {
					return i + 1
				}
			}
			i++
		}
	}
	for bytes.IndexByte([]byte(",}] \t\r\n"), raw[i]) < 0 {
		i++
	}
	return i
}

// unquote returns the string that a JSON string's text stands for; broken UTF-8 and lone surrogates become U+FFFD.
func unquote(text []byte) string {
	inner := text[1 : len(text)-1]
	for _, c := range inner {
		if c == '\\' || c >= 0x80 {
			var s string
			if json.Unmarshal(text, &s) != nil {
				return "" // cannot happen: the text is valid
			}
			return s
		}
	}
	return string(inner)
}

package rewrite

import (
	"bytes"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"
)

// paramNumber is a number as the server writes it.
type paramNumber string

// templateParams gives the value of params, read with strictTree from body, as templates see it: map[string]any, []any,
// string, paramNumber, bool or nil. A string with a lone surrogate is an error, as the server replaces it.
func templateParams(v *treeValue, body []byte) (any, error) {
	switch v.kind {
	case '{':
		out := make(map[string]any, len(v.kids))
		for i := range v.kids {
			one, err := templateParams(&v.kids[i], body)
			if err != nil {
				return nil, err
			}
			out[string(v.kids[i].name)] = one
		}
		return out, nil
	case '[':
		out := make([]any, len(v.kids))
		for i := range v.kids {
			var err error
			if out[i], err = templateParams(&v.kids[i], body); err != nil {
				return nil, err
			}
		}
		return out, nil
	case '"':
		raw, text := body[v.start:v.end], v.text(body)
		if bytes.Contains(raw, []byte(`\u`)) && bytes.ContainsRune(text, utf8.RuneError) {
			return nil, badTemplate("a text in it or in its parameters has a lone surrogate, or an escaped U+FFFD")
		}
		return string(text), nil
	case '0':
		return javaNumber(string(body[v.start:v.end]))
	case 'n':
		return nil, nil
	}
	return v.kind == 't', nil
}

// javaNumber gives a JSON number as the server writes it after it was read: a whole number as it is, any other as
// Double.toString does.
func javaNumber(text string) (paramNumber, error) {
	if !strings.ContainsAny(text, ".eE") {
		if text == "-0" {
			text = "0"
		}
		return paramNumber(text), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return "", badTemplate("a number in it or in its parameters is out of range")
	}
	if f == 0 {
		if math.Signbit(f) {
			return "-0.0", nil
		}
		return "0.0", nil
	}
	// d.ddde±dd, the shortest that means f; Java prefers the nearest of two digits to one digit.
	short := strconv.FormatFloat(f, 'e', -1, 64)
	if two := strconv.FormatFloat(f, 'e', 1, 64); len(short) < len(two) {
		if back, err := strconv.ParseFloat(two, 64); err == nil && back == f {
			short = two
		}
	}
	digits, exponent, _ := strings.Cut(short, "e")
	if a := math.Abs(f); a >= 1e-3 && a < 1e7 {
		plain := strconv.FormatFloat(f, 'f', -1, 64)
		if !strings.Contains(plain, ".") {
			plain += ".0"
		}
		return paramNumber(plain), nil
	}
	if !strings.Contains(digits, ".") {
		digits += ".0"
	}
	e, _ := strconv.Atoi(exponent)
	return paramNumber(digits + "E" + strconv.Itoa(e)), nil
}

// lookUpParam finds what a name stands for: the innermost scope that has the whole name or the beginning of it decides
// (com.github.mustachejava.reflect.ReflectionObjectHandler.find). nil stands for null and for what is missing.
func lookUpParam(name string, scopes []any) (any, error) {
	if name == "." {
		return scopes[len(scopes)-1], nil
	}
next:
	for i := len(scopes) - 1; i >= 0; i-- {
		if v, ok, err := memberOf(scopes[i], name); ok || err != nil {
			return v, err
		}
		cur, rest, inside := scopes[i], name, false
		for cur != nil || !inside {
			first, after, dotted := strings.Cut(rest, ".")
			if !dotted {
				break
			}
			v, ok, err := memberOf(cur, first)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue next
			}
			cur, rest, inside = v, after, true
		}
		if !inside {
			continue
		}
		v, _, err := memberOf(cur, rest)
		return v, err
	}
	return nil, nil
}

// memberOf gives a member of an object, or an element or the size of a list.
func memberOf(v any, name string) (any, bool, error) {
	switch v := v.(type) {
	case map[string]any:
		m, ok := v[name]
		return m, ok, nil
	case []any:
		if name == "size" {
			return paramNumber(strconv.Itoa(len(v))), true, nil
		}
		if strings.IndexFunc(name, func(r rune) bool { return r >= utf8.RuneSelf }) >= 0 {
			return nil, false, badTemplate("it asks a list for an element by a name that is not ASCII")
		}
		n, err := strconv.ParseInt(name, 10, 32)
		if err != nil {
			return nil, false, nil
		}
		if n < 0 || int(n) >= len(v) {
			return nil, false, badTemplate("it asks a list for an element that it does not have")
		}
		return v[n], v[n] != nil, nil
	}
	return nil, false, nil
}

// falsey reports whether a section for v is left out.
func falsey(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case bool:
		return !v
	case string:
		return v == ""
	case []any:
		return len(v) == 0
	}
	return false
}

// paramText gives what the server writes for one value.
func paramText(v any) (string, error) {
	switch v := v.(type) {
	case nil:
		return "", nil
	case string:
		return v, nil
	case paramNumber:
		return string(v), nil
	case bool:
		return strconv.FormatBool(v), nil
	}
	return "", badTemplate("it writes an object or a list without the function [toJson] or [join]")
}

// appendParamJSON appends v as JSON. The order of an object's members is not the server's.
func appendParamJSON(dst []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return append(dst, "null"...), nil
	case string:
		return append(appendJSONEscaped(append(dst, '"'), v), '"'), nil
	case []any:
		dst = append(dst, '[')
		for i, one := range v {
			if i > 0 {
				dst = append(dst, ',')
			}
			if dst, err = appendParamJSON(dst, one); err != nil {
				return dst, err
			}
		}
		return append(dst, ']'), nil
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		sort.Strings(names)
		dst = append(dst, '{')
		for i, name := range names {
			if i > 0 {
				dst = append(dst, ',')
			}
			dst = append(appendJSONEscaped(append(dst, '"'), name), `":`...)
			if dst, err = appendParamJSON(dst, v[name]); err != nil {
				return dst, err
			}
		}
		return append(dst, '}'), nil
	}
	text, err := paramText(v)
	return append(dst, text...), err
}

// appendJSONEscaped appends text as it stands between the quotes of a JSON string
// (com.fasterxml.jackson.core.io.JsonStringEncoder).
func appendJSONEscaped(dst []byte, text string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
		case c >= ' ':
			dst = append(dst, c)
		case c == '\b':
			dst = append(dst, `\b`...)
		case c == '\t':
			dst = append(dst, `\t`...)
		case c == '\n':
			dst = append(dst, `\n`...)
		case c == '\f':
			dst = append(dst, `\f`...)
		case c == '\r':
			dst = append(dst, `\r`...)
		default:
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// appendFormEncoded appends text as java.net.URLEncoder writes it.
func appendFormEncoded(dst []byte, text string) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c|0x20 >= 'a' && c|0x20 <= 'z', c-'0' <= 9, c == '.', c == '-', c == '*', c == '_':
			dst = append(dst, c)
		case c == ' ':
			dst = append(dst, '+')
		default:
			dst = append(dst, '%', hex[c>>4], hex[c&15])
		}
	}
	return dst
}

// appendTreeJSON appends v, read from body, as the server writes an object that it keeps as a text: without white
// space, with its own escapes and numbers.
func appendTreeJSON(dst []byte, v *treeValue, body []byte) ([]byte, error) {
	var err error
	switch v.kind {
	case '{', '[':
		dst = append(dst, v.kind)
		for i := range v.kids {
			if i > 0 {
				dst = append(dst, ',')
			}
			if v.kind == '{' {
				dst = append(appendJSONEscaped(append(dst, '"'), string(v.kids[i].name)), `":`...)
			}
			if dst, err = appendTreeJSON(dst, &v.kids[i], body); err != nil {
				return dst, err
			}
		}
		return append(dst, v.kind+2), nil
	}
	one, err := templateParams(v, body)
	if err != nil {
		return dst, err
	}
	return appendParamJSON(dst, one)
}

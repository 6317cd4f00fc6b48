package access_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/access"
	"github.com/esproxy/esproxy/internal/policy"
)

func TestMask(t *testing.T) {
	for _, c := range []struct {
		mask        policy.Mask
		value, want string
	}{
		{policy.MaskFull, `"6767-2293-4172-5169"`, `"****"`},
		{policy.MaskLast4, `"6767-2293-4172-5169"`, `"****5169"`},
		{policy.MaskLast4, `"12345678"`, `"****5678"`},
		{policy.MaskLast4, `"1234567"`, `"****"`},
		{policy.MaskLast4, `"824"`, `"****"`},
		{policy.MaskLast4, `""`, `"****"`},
		{policy.MaskLast4, `6767229341725169`, `"****"`},
		{policy.MaskLast4, `null`, `"****"`},
		{policy.MaskLast4, `["12345678"]`, `"****"`},
		{policy.MaskLast4, `{"a":"12345678"}`, `"****"`},
		{policy.MaskLast4, `"ñññññññ"`, `"****"`}, // 7 characters, 14 bytes
		{policy.MaskLast4, `"ñññññaéí😀"`, `"****aéí😀"`},
		{policy.MaskLast4, `"\u00f1\u00F1\u00f1\u00f1\u00f1"`, `"****"`}, // 5 characters, 30 bytes
		{policy.MaskLast4, `"1234\ud83d\ude00\"\\\n"`, `"****😀\"\\\u000a"`},
		{policy.MaskLast4, `"123456\ud83d78"`, `"****"`},
		{policy.MaskLast4, `"123456\ude0078"`, `"****"`},
		{policy.MaskLast4, `"123456\ud83d\u004178"`, `"****"`},
		{policy.MaskLast4, `"1234567\u00e"`, `"****"`},
		{policy.MaskLast4, `"12345678\x"`, `"****"`},
		{policy.MaskLast4, `"12345678\"`, `"****"`},
		{policy.MaskLast4, "\"12345678\xff\"", `"****"`},
		{policy.MaskLast4, "\"12345678\n\"", `"****"`},
		{policy.MaskLast4, `"12345678`, `"****"`},
		{policy.MaskLast4, `"1234"5678"`, `"****"`},
		{policy.MaskLast4, `"`, `"****"`},
		{policy.MaskLast4, ``, `"****"`},
		{policy.MaskLast4, `"1234\/\b\f\r\t"`, `"****\u0008\u000c\u000d\u0009"`},
		{policy.MaskFirst6Last4, `"6767229341725169"`, `"676722****5169"`},
		{policy.MaskFirst6Last4, `"123456789012345"`, `"123456****2345"`},
		{policy.MaskFirst6Last4, `"12345678901234"`, `"****"`},
		{policy.MaskFirst6Last4, `676722934172516`, `"****"`},
		{policy.MaskEmail, `"ana.perez@example.org"`, `"a***@example.org"`},
		{policy.MaskEmail, `"an@example.org"`, `"a***@example.org"`},
		{policy.MaskEmail, `"a@example.org"`, `"****"`},
		{policy.MaskEmail, `"@example.org"`, `"****"`},
		{policy.MaskEmail, `"ana@"`, `"****"`},
		{policy.MaskEmail, `"ana"`, `"****"`},
		{policy.MaskEmail, `"ana@b@example.org"`, `"****"`},
		{policy.MaskEmail, `"\"na\u0040ex\"ample.org"`, `"\"***@ex\"ample.org"`},
		{policy.MaskEmail, `"ñandú@correo.es"`, `"ñ***@correo.es"`},
	} {
		got := string(access.Mask([]byte("x"), c.mask, []byte(c.value)))
		if got != "x"+c.want {
			t.Errorf("%s of %s: got %s, want x%s", c.mask, c.value, got, c.want)
		}
	}
}

func TestMaskAllocatesNothing(t *testing.T) {
	value, dst := []byte(`"`+strings.Repeat("a", 1<<16)+`@example.org"`), make([]byte, 0, 64)
	if n := testing.AllocsPerRun(10, func() { access.Mask(dst, policy.MaskEmail, value) }); n != 0 {
		t.Errorf("%v allocations, want none: a copy of the value would stay in memory", n)
	}
}

func FuzzMask(f *testing.F) {
	for _, s := range []string{`"6767-2293-4172-5169"`, `"ana@example.org"`, `"\ud83d\ude00abcdefghijklmnop"`, `1`, `{"a":1}`, `"\udc00abcdefghij"`, `"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		var text string
		isString := utf8.Valid(value) && json.Unmarshal(value, &text) == nil && len(value) > 0 && value[0] == '"'
		chars := []rune(text)
		for _, mask := range []policy.Mask{policy.MaskFull, policy.MaskLast4, policy.MaskFirst6Last4, policy.MaskEmail, policy.Mask(99)} {
			out := access.Mask(nil, mask, value)
			var shown string
			if !json.Valid(out) || !utf8.Valid(out) || json.Unmarshal(out, &shown) != nil {
				t.Fatalf("%s: %q is no JSON string", mask, out)
			}
			if shown == "****" {
				continue
			}
			if !isString {
				t.Fatalf("%s shows something of %q: %q", mask, value, shown)
			}
			allowed := ""
			switch {
			case mask == policy.MaskLast4 && len(chars) >= 8:
				allowed = "****" + string(chars[len(chars)-4:])
			case mask == policy.MaskFirst6Last4 && len(chars) >= 15:
				allowed = string(chars[:6]) + "****" + string(chars[len(chars)-4:])
			case mask == policy.MaskEmail && strings.Count(text, "@") == 1 && slices.Index(chars, '@') >= 2:
				allowed = string(chars[0]) + "***" + text[strings.Index(text, "@"):]
			}
			if shown != allowed {
				t.Fatalf("%s of %q: got %q, allowed is %q", mask, value, shown, allowed)
			}
		}
	})
}

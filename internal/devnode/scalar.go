//go:build !nodevnode

package devnode

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// maxTerm is Lucene's longest term, in bytes.
const maxTerm = 32766

// leaf checks a scalar against its field and collects its value.
func (d *docParser) leaf(name string, f *field, v *jv, nested bool) *esError {
	val, cause := d.scalar(f, v)
	if cause != nil {
		return d.leafError(name, f, v.text(), v.off, cause)
	}
	if err := d.collect(name, f, val, v, nested); err != nil {
		return err
	}
	for sub, mf := range f.multi {
		val, cause := d.scalar(mf, v)
		if cause != nil {
			return d.leafError(name+"."+sub, mf, v.text(), v.off, cause)
		}
		if err := d.collect(name+"."+sub, mf, val, v, nested); err != nil {
			return err
		}
	}
	return nil
}

func (d *docParser) collect(name string, f *field, val value, v *jv, nested bool) *esError {
	if nested {
		return nil
	}
	if f.typ == "keyword" {
		if f.ignoreAbove > 0 && utf16Len(val.term) > f.ignoreAbove {
			d.out.ignored = append(d.out.ignored, name)
			return nil
		}
		if len(val.term) > maxTerm && f.searchable() {
			return d.immense(name, f, v)
		}
	}
	if f.typ == "binary" || !f.searchable() {
		return nil
	}
	d.out.vals[name] = append(d.out.vals[name], val)
	return nil
}

func (d *docParser) immense(name string, f *field, v *jv) *esError {
	t := v.text()
	var b strings.Builder
	for i := 0; i < 30; i++ {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d", int8(t[i]))
	}
	cause := illegalArg("Document contains at least one immense term in field=\"%s\" (whose UTF8 encoding is longer than the max length %d), all of which were skipped. Please correct the analyzer to not produce such terms. The prefix of the first immense term is: '[%s]...'", name, maxTerm, b.String())
	return d.leafError(name, f, t, v.off, cause)
}

func utf16Len(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xFFFF {
			n++
		}
	}
	return n
}

// scalar converts a value for its field. The error is the cause that the
// real server gives.
func (d *docParser) scalar(f *field, v *jv) (value, *esError) {
	t := v.text()
	switch f.typ {
	case "keyword", "text":
		return value{term: t}, nil
	case "binary":
		if _, err := base64.StdEncoding.DecodeString(t); err != nil {
			return value{}, illegalArg("Illegal base64 character")
		}
		return value{}, nil
	case "boolean":
		switch {
		case t == "true":
			return value{term: "T", num: 1}, nil
		case t == "false" || t == "" && v.k == kStr:
			return value{term: "F"}, nil
		case v.k == kNum:
			tok := "VALUE_NUMBER_INT"
			if strings.ContainsAny(t, ".eE") {
				tok = "VALUE_NUMBER_FLOAT"
			}
			return value{}, d.jacksonError(v.end, "Current token ("+tok+") not of boolean type", "json_parse_exception")
		}
		return value{}, illegalArg("Failed to parse value [%s] as only [true] or [false] are allowed.", t)
	case "ip":
		a, err := netip.ParseAddr(t)
		if err != nil || a.Zone() != "" {
			return value{}, illegalArg("'%s' is not an IP string literal.", t)
		}
		return value{term: ipTerm(a)}, nil
	case "date":
		spec := f.format
		if spec == "" {
			spec = defaultDateFormat
		}
		ms, err := parseDate(f.dates, spec, t, false, time.UTC)
		if err != nil {
			return value{}, err
		}
		return value{term: longTerm(ms), num: ms}, nil
	}
	if v.k == kBool {
		return value{}, d.jacksonError(v.end, fmt.Sprintf("Current token (VALUE_%s) not numeric, can not use numeric value accessors", strings.ToUpper(t)), "json_parse_exception")
	}
	if floatType(f.typ) {
		return d.float(f.typ, v, t)
	}
	return d.integer(f.typ, v, t)
}

func (d *docParser) jacksonError(off int, msg, typ string) *esError {
	l, c := lineCol(d.src, off)
	j := &jsonError{line: l, col: c, msg: msg, src: d.src}
	e := errf(400, "x_content_parse_exception", "[%d:%d] %s", l, c, j.where(d.withSource))
	e.cause = errf(400, typ, "%s", j.where(d.withSource))
	return e
}

func floatType(t string) bool { return t == "double" || t == "float" || t == "half_float" }

func (d *docParser) float(typ string, v *jv, t string) (value, *esError) {
	x, err := strconv.ParseFloat(strings.TrimSpace(t), 64)
	if err != nil && !math.IsInf(x, 0) || strings.ContainsAny(t, "_xXpP") {
		if t == "" {
			return value{}, errf(400, "number_format_exception", "empty String")
		}
		return value{}, errf(400, "number_format_exception", "For input string: \"%s\"", t)
	}
	shown := x
	switch typ {
	case "float":
		shown = float64(float32(x))
		x = shown
	case "half_float":
		if math.Abs(x) >= 65520 {
			shown = math.Inf(1)
		}
	}
	if math.IsInf(shown, 0) || math.IsNaN(shown) {
		s := "Infinity"
		if math.IsNaN(shown) {
			s = "NaN"
		} else if x < 0 {
			s = "-Infinity"
		}
		return value{}, illegalArg("[%s] supports only finite values, but got [%s]", typ, s)
	}
	return value{term: doubleTerm(x), dbl: x}, nil
}

var intRange = map[string][2]int64{
	"byte":    {math.MinInt8, math.MaxInt8},
	"short":   {math.MinInt16, math.MaxInt16},
	"integer": {math.MinInt32, math.MaxInt32},
	"long":    {math.MinInt64, math.MaxInt64},
}

func (d *docParser) integer(typ string, v *jv, t string) (value, *esError) {
	r := intRange[typ]
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil {
		b, ok := truncate(t)
		if !ok {
			if v.k == kStr && t == "" {
				return value{}, illegalArg("For input string: \"\"")
			}
			return value{}, illegalArg("For input string: \"%s\"", t)
		}
		if !b.IsInt64() {
			if v.k == kStr {
				return value{}, illegalArg("Value [%s] is out of range for %s", t, article(typ))
			}
			return value{}, d.outOfRange(typ, v, t)
		}
		n = b.Int64()
	}
	if n < r[0] || n > r[1] {
		if v.k == kStr {
			return value{}, illegalArg("Value [%s] is out of range for %s", t, article(typ))
		}
		return value{}, d.outOfRange(typ, v, t)
	}
	return value{term: longTerm(n), num: n}, nil
}

func article(typ string) string {
	if typ == "integer" {
		return "an integer"
	}
	return "a " + typ
}

func (d *docParser) outOfRange(typ string, v *jv, t string) *esError {
	var what string
	switch typ {
	case "byte", "short":
		what = "Java " + typ
	case "integer":
		what = "int (-2147483648 - 2147483647)"
	default:
		what = "long (-9223372036854775808 - 9223372036854775807)"
	}
	return d.jacksonError(v.end, fmt.Sprintf("Numeric value (%s) out of range of %s", t, what), "input_coercion_exception")
}

// truncate reads a decimal and drops its fraction. Absurd exponents are
// treated as out of range without building the number.
func truncate(t string) (*big.Int, bool) {
	f, err := strconv.ParseFloat(t, 64)
	if err != nil && !math.IsInf(f, 0) || strings.ContainsAny(t, "_xXpPnN") {
		return nil, false
	}
	if math.Abs(f) > 1e30 {
		return new(big.Int).Lsh(big.NewInt(1), 80), true
	}
	if math.Abs(f) < 1 {
		return new(big.Int), true
	}
	r, ok := new(big.Rat).SetString(t)
	if !ok {
		return nil, false
	}
	return new(big.Int).Quo(r.Num(), r.Denom()), true
}

// longTerm and doubleTerm encode numbers as text in the order of the numbers,
// so that a range of terms is a range of numbers, exactly.
func longTerm(n int64) string { return fmt.Sprintf("%016x", uint64(n)^1<<63) }

func doubleTerm(f float64) string {
	if f == 0 {
		f = 0 // one zero
	}
	b := math.Float64bits(f)
	if b>>63 == 1 {
		b = ^b
	} else {
		b |= 1 << 63
	}
	return fmt.Sprintf("%016x", b)
}

func ipTerm(a netip.Addr) string {
	b := a.As16()
	return fmt.Sprintf("%016x%016x", binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]))
}

func ipText(term string) string {
	hi, _ := strconv.ParseUint(term[:16], 16, 64)
	lo, _ := strconv.ParseUint(term[16:], 16, 64)
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], hi)
	binary.BigEndian.PutUint64(b[8:], lo)
	return netip.AddrFrom16(b).Unmap().String()
}

// clean makes a string safe for the index: lone surrogates become U+FFFD.
func clean(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

//go:build !nodevnode

package devnode

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// value is one indexed value of a field: the term that goes into the inverted
// index and, for numbers and dates, the number that sorting prints.
type value struct {
	term string
	num  int64
	dbl  float64
}

// parsed is a document seen through a mapping.
type parsed struct {
	vals    map[string][]value
	ignored []string
}

// docParser walks one document along a mapping, extends the mapping where it
// is dynamic, and collects the values of every field.
type docParser struct {
	id    string
	src   []byte
	m     *mapping
	dirty bool // m is a clone of our own
	added map[string]string
	out   parsed
	// withSource says whether syntax errors may quote the document.
	withSource bool
}

// parseDocument reads a document for indexing. The returned mapping is m
// itself unless the document brought new fields.
func parseDocument(m *mapping, id string, src []byte, withSource bool) (*parsed, *mapping, *esError) {
	if len(src) == 0 {
		return nil, nil, errf(400, "document_parsing_exception", "[0:0] failed to parse, document is empty")
	}
	root, jerr := parseJSON(src)
	if root != nil && root.k != kObj || jerr != nil && jerr.token == 0 && len(src) > 0 && src[0] != '{' {
		return nil, nil, errf(400, "document_parsing_exception", "Malformed content, must start with an object")
	}
	if jerr != nil {
		return nil, nil, documentSyntax(jerr, root != nil, withSource)
	}
	d := &docParser{id: id, src: src, m: m, out: parsed{vals: map[string][]value{}}, withSource: withSource}
	if !m.root.disabled {
		if err := d.object(nil, root, false); err != nil {
			return nil, nil, err
		}
	}
	slices.Sort(d.out.ignored)
	d.out.ignored = slices.Compact(d.out.ignored)
	if d.dirty && d.m.root.count() > 1000 && d.m.root.count() > m.root.count() {
		e := errf(400, "document_parsing_exception", "%s failed to parse: Limit of total fields [1000] has been exceeded while adding new fields [%d]", d.at(root.off), d.m.root.count()-m.root.count())
		e.cause = illegalArg("Limit of total fields [1000] has been exceeded while adding new fields [%d]", d.m.root.count()-m.root.count())
		return nil, nil, e
	}
	return &d.out, d.m, nil
}

func documentSyntax(j *jsonError, trailing, withSource bool) *esError {
	inner := syntaxError(j, withSource)
	l, c := lineCol(j.src, j.token)
	if trailing {
		e := errf(400, "document_parsing_exception", "[%d:%d] %s", j.line, j.col, inner.reason)
		e.cause = inner
		return e
	}
	e := errf(400, "document_parsing_exception", "[%d:%d] failed to parse: %s", l, c, inner.reason)
	e.cause = inner
	return e
}

func (d *docParser) at(off int) string {
	l, c := lineCol(d.src, off)
	return fmt.Sprintf("[%d:%d]", l, c)
}

func (d *docParser) pos(off int) string {
	l, c := lineCol(d.src, off)
	return fmt.Sprintf("%d:%d", l, c)
}

// metadata fields cannot be set from inside a document.
var metadataFields = strings.Fields("_id _source _index _routing _seq_no _version _field_names _ignored _type _primary_term _doc_count _tier _nested_path _feature _data_stream_timestamp")

// at returns the mapping node for a path in the current mapping.
func (m *mapping) at(path []string) *field {
	f := m.root
	for _, p := range path {
		f = f.props[p]
		if f == nil {
			return nil
		}
	}
	return f
}

func (d *docParser) own() {
	if !d.dirty {
		d.m, d.dirty = d.m.clone(), true
		d.added = map[string]string{}
	}
}

// object walks the members of an object that is mapped at path. Inside nested
// objects values are checked but belong to hidden documents of their own, so
// they are not collected.
func (d *docParser) object(path []string, v *jv, nested bool) *esError {
	for i := range v.mem {
		m := &v.mem[i]
		if err := d.member(path, m, nested); err != nil {
			return err
		}
	}
	return nil
}

func (d *docParser) nameError(off int, format string, args ...any) *esError {
	inner := illegalArg(format, args...)
	e := errf(400, "document_parsing_exception", "%s failed to parse: %s", d.at(off), inner.reason)
	e.cause = inner
	return e
}

func (d *docParser) member(path []string, m *member, nested bool) *esError {
	if f := d.m.at(path); f.dynamic == "false" || d.dynamicOf(path) == "false" {
		// Names that lead nowhere are not even checked.
		first, _, _ := strings.Cut(m.key, ".")
		if f.props[first] == nil && (len(path) > 0 || !slices.Contains(metadataFields, m.key)) {
			return nil
		}
	}
	if m.key == "" {
		return d.nameError(m.off, "field name cannot be an empty string")
	}
	if len(path) == 0 && slices.Contains(metadataFields, m.key) {
		inner := errf(400, "document_parsing_exception", "%s Field [%s] is a metadata field and cannot be added inside a document. Use the index API request parameters.", d.at(m.v.off), m.key)
		e := errf(400, "document_parsing_exception", "%s failed to parse field [%s] of type [%s] in document with id '%s'. Preview of field's value: '%s'", d.at(m.v.off), m.key, m.key, d.id, javaText(m.v))
		e.root, e.cause = inner, inner
		return e
	}
	parts := []string{m.key}
	if strings.Contains(m.key, ".") {
		parts = strings.Split(m.key, ".")
		for len(parts) > 0 && parts[len(parts)-1] == "" {
			parts = parts[:len(parts)-1] // Java's split drops trailing empty parts
		}
		if len(parts) == 0 {
			return d.nameError(m.off, "field name cannot contain only dots")
		}
	}
	for _, p := range parts {
		if strings.TrimSpace(p) == "" {
			if len(parts) > 1 || strings.Contains(m.key, ".") {
				return d.nameError(m.off, "field name cannot contain only whitespace: ['%s']", m.key)
			}
			return errf(400, "document_parsing_exception", "%s Field name cannot contain only whitespace: [%s]", d.at(m.off), m.key)
		}
	}
	full := append(slices.Clone(path), parts...)
	// A dotted name walks through the objects it names.
	for n := len(path) + 1; n < len(full); n++ {
		f := d.m.at(full[:n])
		if f == nil {
			ok, err := d.addObject(full[:n], m)
			if !ok || err != nil {
				return err
			}
			continue
		}
		if f.typ == "nested" {
			nested = true
		}
		if f.isObject() {
			if f.disabled {
				return nil
			}
			continue
		}
		shown := javaText(m.v)
		for _, p := range slices.Backward(full[n:]) {
			shown = "{" + p + "=" + shown + "}"
		}
		return d.objectForLeaf(strings.Join(full[:n], "."), f, shown, m.off, d.endOf(m.v), true)
	}
	return d.value(full, m.v, false, nested)
}

// endOf is the start of a value's last token.
func (d *docParser) endOf(v *jv) int {
	if v.scalar() {
		return v.off
	}
	return v.end - 1
}

func (d *docParser) value(full []string, v *jv, inArray, nested bool) *esError {
	f := d.m.at(full)
	if v.k == kArr {
		if f != nil && f.isObject() && f.disabled {
			return nil
		}
		for _, e := range v.arr {
			if err := d.value(full, e, true, nested); err != nil {
				return err
			}
		}
		return nil
	}
	if f == nil {
		if v.k == kNull {
			return nil
		}
		return d.dynamicValue(full, v, nested)
	}
	name := strings.Join(full, ".")
	if f.isObject() {
		if f.disabled || v.k == kNull {
			return nil
		}
		if v.k != kObj {
			if d.added[name] == "object" {
				return illegalArg("can't merge a non object mapping [%s] with an object mapping", name)
			}
			last := full[len(full)-1]
			if inArray {
				last = "null"
			}
			return errf(400, "document_parsing_exception", "%s object mapping for [%s] tried to parse field [%s] as object, but found a concrete value", d.at(v.off), name, last)
		}
		return d.object(full, v, nested || f.typ == "nested")
	}
	if was, ok := d.added[name]; ok && v.k != kNull {
		if v.k == kObj {
			return illegalArg("can't merge a non object mapping [%s] with an object mapping", name)
		}
		if now := d.dynamicType(v).typ; now != was {
			return illegalArg("mapper [%s] cannot be changed from type [%s] to [%s]", name, was, now)
		}
	}
	if v.k == kNull {
		return nil
	}
	if v.k == kObj {
		return d.objectForLeaf(name, f, javaText(v), v.off, v.end-1, false)
	}
	return d.leaf(name, f, v, nested)
}

// objectForLeaf is the error for an object where a leaf is mapped.
func (d *docParser) objectForLeaf(name string, f *field, shown string, off, end int, dotted bool) *esError {
	var cause *esError
	switch f.typ {
	case "keyword", "text", "ip", "binary", "date":
		if dotted {
			cause = errf(400, "illegal_state_exception", "Can't get text on a START_OBJECT at %s", d.pos(off))
			break
		}
		cause = illegalArg("Expected text at %s but found START_OBJECT", d.pos(off))
	case "boolean":
		cause = d.jacksonError(off+1, "Current token (START_OBJECT) not of boolean type", "json_parse_exception")
	default:
		cause = illegalArg("Cannot parse object as number")
	}
	return d.leafError(name, f, shown, end, cause)
}

func (d *docParser) leafError(name string, f *field, shown string, off int, cause *esError) *esError {
	e := errf(400, "document_parsing_exception", "%s failed to parse field [%s] of type [%s] in document with id '%s'. Preview of field's value: '%s'", d.at(off), name, f.typ, d.id, shown)
	e.cause = cause
	return e
}

// dynamicOf is the dynamic mode that holds inside the object at path.
func (d *docParser) dynamicOf(path []string) string {
	mode := "true"
	f := d.m.root
	if f.dynamic != "" {
		mode = f.dynamic
	}
	for _, p := range path {
		f = f.props[p]
		if f == nil {
			break
		}
		if f.dynamic != "" {
			mode = f.dynamic
		}
	}
	return mode
}

func (d *docParser) strictError(full []string, off int) *esError {
	within := "_doc"
	if len(full) > 1 {
		within = strings.Join(full[:len(full)-1], ".")
	}
	return errf(400, "strict_dynamic_mapping_exception", "%s mapping set to strict, dynamic introduction of [%s] within [%s] is not allowed", d.at(off), full[len(full)-1], within)
}

// addObject maps a new object; false means that the value is to be skipped.
func (d *docParser) addObject(full []string, m *member) (bool, *esError) {
	switch d.dynamicOf(full[:len(full)-1]) {
	case "false":
		return false, nil
	case "strict":
		return false, d.strictError(full, m.off)
	}
	d.put(full, &field{typ: "object", props: map[string]*field{}})
	d.added[strings.Join(full, ".")] = "object"
	return true, nil
}

func (d *docParser) put(full []string, f *field) {
	d.own()
	d.m.at(full[:len(full)-1]).props[full[len(full)-1]] = f
}

func (d *docParser) dynamicValue(full []string, v *jv, nested bool) *esError {
	switch d.dynamicOf(full[:len(full)-1]) {
	case "false":
		return nil
	case "strict":
		return d.strictError(full, v.off)
	}
	if v.k == kObj {
		d.put(full, &field{typ: "object", props: map[string]*field{}})
		d.added[strings.Join(full, ".")] = "object"
		return d.object(full, v, nested)
	}
	f := d.dynamicType(v)
	d.put(full, f)
	name := strings.Join(full, ".")
	d.added[name] = f.typ
	return d.leaf(name, f, v, nested)
}

var isoDates, _ = compileDates("strict_date_optional_time")
var slashDates, _ = compileDates("yyyy/MM/dd HH:mm:ss Z||yyyy/MM/dd Z||yyyy/MM/dd HH:mm:ss||yyyy/MM/dd")
var defaultDates, _ = compileDates(defaultDateFormat)

// dynamicType is the mapping that a new value brings.
func (d *docParser) dynamicType(v *jv) *field {
	switch v.k {
	case kBool:
		return &field{typ: "boolean"}
	case kNum:
		if strings.ContainsAny(string(v.raw), ".eE") {
			return &field{typ: "float"}
		}
		return &field{typ: "long"}
	}
	if !d.m.dateOff {
		if _, err := strconv.ParseInt(v.s, 10, 64); err != nil {
			if _, e := parseDate(isoDates, "", v.s, false, time.UTC); e == nil {
				return &field{typ: "date", dates: defaultDates}
			}
			if _, e := parseDate(slashDates, "", v.s, false, time.UTC); e == nil {
				const spec = "yyyy/MM/dd HH:mm:ss||yyyy/MM/dd||epoch_millis"
				fs, _ := compileDates(spec)
				empty := ""
				return &field{typ: "date", format: spec, dates: fs, locale: &empty}
			}
		}
	}
	return &field{typ: "text", multi: map[string]*field{"keyword": {typ: "keyword", ignoreAbove: 256}}}
}

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
	msg := fmt.Sprintf("bytes can be at most %d in length; got %d", maxTerm, len(t))
	cause := illegalArg("Document contains at least one immense term in field=\"%s\" (whose UTF8 encoding is longer than the max length %d), all of which were skipped. Please correct the analyzer to not produce such terms. The prefix of the first immense term is: '[%s]...'", name, maxTerm, b.String())
	_ = msg
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

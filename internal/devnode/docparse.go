//go:build !nodevnode

package devnode

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
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

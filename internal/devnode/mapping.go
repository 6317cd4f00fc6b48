//go:build !nodevnode

package devnode

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// field is one node of a mapping: an object, or a leaf with parameters. A
// mapping in use is never changed; changes are made on a clone.
type field struct {
	typ      string // "object", "nested" or a leaf type
	dynamic  string // "", "true", "false", "strict"
	disabled bool   // enabled: false
	props    map[string]*field

	multi       map[string]*field
	noIndex     bool
	noDocValues bool
	store       bool
	noNorms     bool
	ignoreAbove int // 0: no limit
	format      string
	dates       []dateFormat
	locale      *string
	analyzer    string
}

// mapping is the root of an index's mapping.
type mapping struct {
	root    *field
	meta    *jv
	dateOff bool // date_detection: false
}

func newMapping() *mapping { return &mapping{root: &field{typ: "object", props: map[string]*field{}}} }

func (f *field) isObject() bool { return f.typ == "object" || f.typ == "nested" }

func (f *field) clone() *field {
	c := *f
	if f.props != nil {
		c.props = make(map[string]*field, len(f.props))
		for k, v := range f.props {
			c.props[k] = v.clone()
		}
	}
	c.multi = maps.Clone(f.multi)
	return &c
}

func (m *mapping) clone() *mapping {
	return &mapping{root: m.root.clone(), meta: m.meta, dateOff: m.dateOff}
}

// searchable says whether queries can use the field at all.
func (f *field) searchable() bool { return !f.noIndex || f.hasDocValues() }

func (f *field) hasDocValues() bool {
	return !f.noDocValues && f.typ != "text" && f.typ != "binary" && !f.isObject()
}

// lookup finds a leaf by its full name, multi-fields included.
func (m *mapping) lookup(path string) *field {
	f := m.root
	for rest := path; ; {
		if c, ok := f.props[rest]; ok {
			return c
		}
		i := strings.IndexByte(rest, '.')
		if i < 0 {
			return f.multi[rest]
		}
		c, ok := f.props[rest[:i]]
		if !ok || c.typ == "nested" {
			return nil
		}
		f, rest = c, rest[i+1:]
	}
}

// walk visits every leaf and multi-field with its full name, in name order.
func (f *field) walk(prefix string, visit func(path string, f *field)) {
	for _, k := range slices.Sorted(maps.Keys(f.props)) {
		c := f.props[k]
		p := prefix + k
		if c.isObject() {
			if c.typ != "nested" && !c.disabled {
				c.walk(p+".", visit)
			}
			continue
		}
		visit(p, c)
		for _, mk := range slices.Sorted(maps.Keys(c.multi)) {
			visit(p+"."+mk, c.multi[mk])
		}
	}
}

func (f *field) count() int {
	n := 0
	for _, c := range f.props {
		n += 1 + c.count() + len(c.multi)
	}
	return n
}

// render prints the mapping as GET _mapping does: defaults are left out and
// properties are in name order.
func (m *mapping) render() *jv {
	o := &jv{k: kObj}
	if m.root.dynamic != "" {
		o.put("dynamic", m.root.dynamic)
	}
	if m.meta != nil {
		o.put("_meta", m.meta)
	}
	if m.dateOff {
		o.put("date_detection", false)
	}
	if m.root.disabled {
		o.put("enabled", false)
	}
	if len(m.root.props) > 0 {
		o.put("properties", renderProps(m.root.props))
	}
	return o
}

func renderProps(props map[string]*field) *jv {
	o := &jv{k: kObj}
	for _, k := range slices.Sorted(maps.Keys(props)) {
		o.put(k, props[k].render())
	}
	return o
}

func (f *field) render() *jv {
	o := &jv{k: kObj}
	if f.isObject() {
		if f.typ == "nested" || len(f.props) == 0 {
			o.put("type", f.typ)
		}
		if f.dynamic != "" {
			o.put("dynamic", f.dynamic)
		}
		if f.disabled {
			o.put("enabled", false)
		}
		if len(f.props) > 0 {
			o.put("properties", renderProps(f.props))
		}
		return o
	}
	o.put("type", f.typ)
	if len(f.multi) > 0 {
		o.put("fields", renderProps(f.multi))
	}
	if f.noIndex {
		o.put("index", false)
	}
	if f.noDocValues && f.typ != "text" && f.typ != "binary" {
		o.put("doc_values", false)
	}
	if f.store {
		o.put("store", true)
	}
	if f.ignoreAbove > 0 {
		o.put("ignore_above", f.ignoreAbove)
	}
	if f.noNorms && f.typ == "text" {
		o.put("norms", false)
	}
	if f.format != "" {
		o.put("format", f.format)
	}
	if f.locale != nil {
		o.put("locale", *f.locale)
	}
	if f.analyzer != "" {
		o.put("analyzer", f.analyzer)
	}
	return o
}

func mapperError(format string, args ...any) *esError {
	inner := errf(400, "mapper_parsing_exception", format, args...)
	e := errf(400, "mapper_parsing_exception", "Failed to parse mapping: %s", inner.reason)
	e.root, e.cause = inner, inner
	return e
}

var leafTypes = map[string]bool{
	"keyword": true, "text": true, "long": true, "integer": true, "short": true, "byte": true,
	"double": true, "float": true, "half_float": true, "boolean": true, "date": true, "ip": true, "binary": true,
}

// elsewhere are field types a real server has and this node has not.
var elsewhereTypes = strings.Fields(`alias aggregate_metric_double completion constant_keyword date_nanos date_range
	dense_vector double_range flattened float_range geo_point geo_shape histogram integer_range ip_range join
	long_range match_only_text murmur3 passthrough percolator point rank_feature rank_features rank_vectors
	scaled_float search_as_you_type semantic_text shape sparse_vector token_count unsigned_long version wildcard
	counted_keyword annotated_text icu_collation_keyword`)

// elsewhereParams are parameters a real server has and this node has not.
var elsewhereParams = strings.Fields(`boost coerce copy_to eager_global_ordinals fielddata fielddata_frequency_filter
	ignore_malformed index_options index_phrases index_prefixes meta normalizer null_value on_script_error
	position_increment_gap script search_analyzer search_quote_analyzer similarity split_queries_on_whitespace
	subobjects synthetic_source_keep term_vector time_series_dimension time_series_metric include_in_parent include_in_root`)

var elsewhereRoot = strings.Fields(`_routing _source _field_names _size _data_stream_timestamp runtime dynamic_templates
	dynamic_date_formats numeric_detection subobjects`)

// parseMapping reads a mapping body.
func parseMapping(v *jv) (*mapping, *esError) {
	m := newMapping()
	if v.k != kObj {
		return nil, mapperError("Failed to parse mapping: expected an object")
	}
	for _, mem := range v.mem {
		switch mem.key {
		case "properties":
			if mem.v.k == kArr && len(mem.v.arr) == 0 {
				continue
			}
			if err := m.root.parseProps(mem.v); err != nil {
				return nil, err
			}
		case "dynamic":
			if err := m.root.parseDynamic(mem.v); err != nil {
				return nil, err
			}
		case "_meta":
			m.meta = mem.v
		case "date_detection":
			m.dateOff = mem.v.text() == "false"
		case "enabled":
			m.root.disabled = mem.v.text() == "false"
		default:
			if slices.Contains(elsewhereRoot, mem.key) {
				return nil, unsupported("the mapping parameter [%s]", mem.key)
			}
			return nil, mapperError("Root mapping definition has unsupported parameters:  [%s : %s]", mem.key, javaText(mem.v))
		}
	}
	return m, nil
}

func (f *field) parseDynamic(v *jv) *esError {
	switch t := v.text(); t {
	case "true", "false", "strict":
		f.dynamic = t
	case "runtime":
		return unsupported("dynamic mapping mode [runtime]")
	default:
		return mapperError("Could not convert [dynamic] value [%s] to boolean", t)
	}
	return nil
}

func (f *field) parseProps(v *jv) *esError {
	if v.k != kObj {
		return mapperError("Expected map for property [properties] but got something else")
	}
	for _, mem := range v.mem {
		if strings.TrimSpace(mem.key) == "" {
			return mapperError("field name cannot be an empty string")
		}
		if mem.v.k != kObj {
			return mapperError("Expected map for property [fields] on field [%s] but got a class java.lang.String", mem.key)
		}
		parts := strings.Split(mem.key, ".")
		in := f
		for _, p := range parts[:len(parts)-1] {
			c := in.props[p]
			if c == nil {
				c = &field{typ: "object", props: map[string]*field{}}
				in.props[p] = c
			}
			if !c.isObject() {
				return mapperError("can't add [%s] below a field that is not an object", mem.key)
			}
			in = c
		}
		last := parts[len(parts)-1]
		c, err := parseField(mem.key, mem.v)
		if err != nil {
			return err
		}
		in.props[last] = c
	}
	return nil
}

func parseField(name string, v *jv) (*field, *esError) {
	typ := ""
	if t := v.get("type"); t != nil {
		typ = t.text()
	} else if v.get("properties") != nil || v.get("enabled") != nil || v.get("dynamic") != nil {
		typ = "object"
	} else {
		return nil, mapperError("No type specified for field [%s]", name)
	}
	if typ == "object" || typ == "nested" {
		return parseObjectField(name, typ, v)
	}
	if !leafTypes[typ] {
		if slices.Contains(elsewhereTypes, typ) {
			return nil, unsupported("the field type [%s]", typ)
		}
		return nil, mapperError("The mapper type [%s] declared on field [%s] does not exist. It might have been created within a future version or requires a plugin to be installed. Check the documentation.", typ, name)
	}
	f := &field{typ: typ}
	for _, mem := range v.mem {
		if err := f.parseParam(name, mem); err != nil {
			return nil, err
		}
	}
	if typ == "date" {
		spec := f.format
		if spec == "" {
			spec = defaultDateFormat
		}
		var err *esError
		if f.dates, err = compileDates(spec); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func parseObjectField(name, typ string, v *jv) (*field, *esError) {
	f := &field{typ: typ, props: map[string]*field{}}
	for _, mem := range v.mem {
		switch mem.key {
		case "type":
		case "properties":
			if err := f.parseProps(mem.v); err != nil {
				return nil, err
			}
		case "dynamic":
			if err := f.parseDynamic(mem.v); err != nil {
				return nil, err
			}
		case "enabled":
			f.disabled = mem.v.text() == "false"
		default:
			if slices.Contains(elsewhereParams, mem.key) {
				return nil, unsupported("the mapping parameter [%s]", mem.key)
			}
			return nil, mapperError("unknown parameter [%s] on mapper [%s] of type [%s]", mem.key, name, typ)
		}
	}
	return f, nil
}

func (f *field) parseParam(name string, mem member) *esError {
	flag := func() (bool, *esError) {
		switch mem.v.text() {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, mapperError("Failed to parse mapping: Could not convert [%s.%s] to boolean", name, mem.key)
	}
	on := true
	var err *esError
	key := mem.key + " "
	has := func(types string) bool {
		return types == "" && f.typ != "binary" || strings.Contains(types+" ", f.typ+" ")
	}
	switch {
	case key == "type ":
	case key == "fields ":
		if mem.v.k != kObj {
			return mapperError("expected map for property [fields] on field [%s]", name)
		}
		f.multi = map[string]*field{}
		for _, s := range mem.v.mem {
			if s.v.k != kObj {
				return mapperError("No type specified for field [%s]", s.key)
			}
			c, err := parseField(s.key, s.v)
			if err != nil {
				return err
			}
			if c.isObject() {
				return mapperError("Type [%s] cannot be used in multi field", c.typ)
			}
			f.multi[s.key] = c
		}
	case key == "index " && has(""):
		on, err = flag()
		f.noIndex = !on
	case key == "doc_values " && (has("") && f.typ != "text" || f.typ == "binary"):
		on, err = flag()
		f.noDocValues = !on
	case key == "store ":
		f.store, err = flag()
	case key == "norms " && has("text keyword"):
		on, err = flag()
		f.noNorms = !on
	case key == "ignore_above " && f.typ == "keyword":
		n, e := strconv.Atoi(mem.v.text())
		if e != nil || n < 0 {
			return mapperError("[ignore_above] must be positive, got [%s]", mem.v.text())
		}
		if n != 2147483647 {
			f.ignoreAbove = n
		}
	case key == "format " && f.typ == "date":
		f.format = mem.v.text()
	case key == "locale " && f.typ == "date":
		l := mem.v.text()
		f.locale = &l
	case key == "analyzer " && f.typ == "text":
		if mem.v.text() != "standard" {
			return unsupported("the analyzer [%s]", mem.v.text())
		}
		f.analyzer = "standard"
	default:
		if slices.Contains(elsewhereParams, mem.key) || slices.Contains(strings.Fields("index doc_values norms ignore_above format locale analyzer dynamic properties enabled"), mem.key) && f.typ == "" {
			return unsupported("the mapping parameter [%s]", mem.key)
		}
		return mapperError("unknown parameter [%s] on mapper [%s] of type [%s]", mem.key, name, f.typ)
	}
	return err
}

package rewrite

import (
	"strconv"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// SealedMapping is the mapping of a protected field, a JSON object. Nothing of a sealed value is worth indexing, and the
// inverted index and doc values refuse terms over 32,766 bytes. ignore_above stands there because logsdb (8191) and
// index.mapping.ignore_above otherwise drop long values from "fields" without a trace.
const SealedMapping = `{"type":"keyword","index":false,"doc_values":false,"ignore_above":2147483647}`

const ignoreAbove = 2147483647

// template reads settings, mappings and aliases, as in create bodies, legacy templates and the "template" of the others.
func (c *controlPass) template(p controlPlace, add []*policy.Field) error {
	if v := p.there(); v != nil {
		if !v.isObject() {
			return mappingFault("the template must be an object")
		}
		if s := v.member("settings"); s != nil {
			if err := c.settings(s); err != nil {
				return err
			}
		}
		if err := c.aliases(v.member("aliases")); err != nil {
			return err
		}
	}
	return c.mapping(p.member("mappings"), add)
}

func mappingFault(reason string) error {
	return &Fault{Status: 400, Type: "esproxy_mapping_conflict", Reason: reason}
}

func mappingConflict(f *policy.Field, what string) error {
	return mappingFault("field [" + f.Path + "] is protected by rule [" + f.Rule.Name + "] and stored sealed, but " + what + "; map it as " + SealedMapping)
}

// mappingMembers are the members of a mapping that are objects; any other is a type of version 7 and before.
var mappingMembers = map[string]bool{
	"properties": true, "runtime": true, "_source": true, "_routing": true, "_meta": true, "_field_names": true, "_size": true,
	"_data_stream_timestamp": true, "_doc_count": true, "_tier": true, "_ignored": true, "_nested_path": true, "_feature": true, "_timestamp": true,
}

// mapping reads one mapping and plans what is added to it.
func (c *controlPass) mapping(p controlPlace, add []*policy.Field) error {
	v := p.there()
	if v == nil {
		c.complete(p, nil, add, c.missingSentinels(nil))
		return nil
	}
	if !v.isObject() {
		// Templates take a mapping as base64 of compressed text (org.elasticsearch.cluster.metadata.Template).
		return mappingFault("the mapping must be a JSON object, so that its protected fields can be seen")
	}
	for i := range v.kids {
		if m := &v.kids[i]; m.isObject() && !mappingMembers[string(m.name)] && !c.stored {
			return mappingFault("the mapping is nested under a type, or has a member that is not known here; give [properties] and the other members directly under the mapping")
		}
	}
	if err := c.meta(v); err != nil {
		return err
	}
	if err := c.sourceFilter(v.member("_source")); err != nil {
		return err
	}
	if err := c.reserved(v); err != nil {
		return err
	}
	if err := c.runtimeFields(v.member("runtime")); err != nil {
		return err
	}
	found := &definitions{of: map[*policy.Field]definition{}}
	if err := c.properties(v.member("properties"), "", found); err != nil {
		return err
	}
	if isFalse(c, v.member("enabled")) {
		add = nil // documents are stored and not mapped, but scripts run
	}
	c.complete(p, found, add, c.missingSentinels(v.member("properties")))
	return nil
}

// reserved refuses what is named like a sentinel and is none. What a client copied from the mapping of another index passes.
func (c *controlPass) reserved(mapping *treeValue) error {
	if c.stored || mapping == nil {
		return nil
	}
	for _, m := range orNull(mapping.member("properties")).kids {
		if name := string(m.name); strings.HasPrefix(name, SentinelPrefix) && !genuineSentinel(name, c.body[m.start:m.end]) {
			return mappingFault("the mapping defines a field whose name begins with " + SentinelPrefix + ", which the proxy uses for the check that keeps plain values out of the index, in another way; " +
				"leave the field out: the proxy adds what is needed")
		}
	}
	for _, m := range orNull(mapping.member("runtime")).kids {
		if strings.HasPrefix(string(m.name), SentinelPrefix) && !m.isNull() {
			return mappingFault("the mapping defines a runtime field whose name begins with " + SentinelPrefix + ", which would hide under which keys the values of the index lie; give it another name")
		}
	}
	return nil
}

// missingSentinels gives name and definition of each sentinel that properties lack. Those that are there were found right.
func (c *controlPass) missingSentinels(properties *treeValue) (members [][]byte) {
	for _, r := range c.sentinels {
		name, definition := Sentinel(r)
		member := append(append(appendJSONString(nil, name), ':'), definition...)
		if properties.member(name) == nil && !contains(members, member) {
			members = append(members, member)
		}
	}
	return members
}

// definition tells what a mapping holds on the way to a protected field.
type definition struct {
	exact  bool       // the field itself
	closed bool       // a parent that takes no properties: flattened, or enabled: false
	parent *treeValue // the deepest object on the way
	path   string     // its path
}

type definitions struct{ of map[*policy.Field]definition }

// complete plans the addition of the fields that the mapping does not define, and of sentinels.
func (c *controlPass) complete(p controlPlace, found *definitions, add []*policy.Field, sentinels [][]byte) {
	type insertion struct {
		at      controlPlace
		members [][]byte
	}
	var plan []*insertion
	at := map[*treeValue]*insertion{}
	if len(sentinels) > 0 {
		at[nil] = &insertion{p.member("properties"), sentinels}
		plan = append(plan, at[nil])
	}
	for _, f := range add {
		if related(f, add) {
			continue // two rules whose indices differ disagree on it
		}
		var d definition
		if found != nil {
			d = found.of[f]
		}
		if d.exact || d.closed {
			continue
		}
		name, object := f.Path, p
		if d.parent != nil {
			name, object = f.Path[len(d.path)+1:], controlPlace{at: d.parent}
		}
		if strings.Contains(name, ".") && !isFalse(c, object.at.member("subobjects")) {
			continue
		}
		ins := at[d.parent]
		if ins == nil {
			ins = &insertion{at: object.member("properties")}
			at[d.parent] = ins
			plan = append(plan, ins)
		}
		member := append(append(appendJSONString(nil, name), ':'), SealedMapping...)
		if !contains(ins.members, member) {
			ins.members = append(ins.members, member)
		}
	}
	for _, ins := range plan {
		c.add(ins.at, ins.members)
	}
}

func contains(members [][]byte, member []byte) bool {
	for _, m := range members {
		if string(m) == string(member) {
			return true
		}
	}
	return false
}

// related reports whether another field lies above or below f.
func related(f *policy.Field, all []*policy.Field) bool {
	for _, o := range all {
		if o.Path != f.Path && (atOrUnder([]byte(f.Path), o.Path) || above([]byte(f.Path), o.Path)) {
			return true
		}
	}
	return false
}

// properties reads {"field name": definition}; names may be dotted. prefix is the path of the object they are in.
func (c *controlPass) properties(v *treeValue, prefix string, found *definitions) error {
	if v == nil || v.isNull() {
		return nil
	}
	if !v.isObject() {
		return mappingFault("[properties] must be an object")
	}
	for i := range v.kids {
		m := &v.kids[i]
		path := strings.TrimRight(string(m.name), ".")
		if prefix != "" {
			path = prefix + "." + path
		} else if strings.HasPrefix(path, SentinelPrefix) {
			continue // a sentinel, which reads protected fields by right
		}
		if err := c.property(m, path, found); err != nil {
			return err
		}
	}
	return nil
}

func (c *controlPass) property(m *treeValue, path string, found *definitions) error {
	if !m.isObject() {
		return mappingFault("each definition in [properties] must be an object")
	}
	kind := ""
	if t := m.member("type"); t != nil {
		kind = string(c.text(t))
	}
	closed := isFalse(c, m.member("enabled"))
	for _, f := range c.fields {
		switch {
		case path == f.Path:
			if err := c.leaf(m, f, kind); err != nil {
				return err
			}
			found.of[f] = definition{exact: true}
		case atOrUnder([]byte(path), f.Path):
			return mappingConflict(f, "this mapping defines a field below it")
		case above([]byte(path), f.Path):
			switch d := found.of[f]; {
			case closed:
				found.of[f] = definition{closed: true, exact: d.exact}
			case kind == "flattened":
				if !isFalse(c, m.member("index")) || !isFalse(c, m.member("doc_values")) {
					return mappingFault("field [" + f.Path + "] is protected by rule [" + f.Rule.Name + "] and lies in a flattened field; sealed values are too long to be indexed there: give that field \"index\":false,\"doc_values\":false")
				}
				found.of[f] = definition{closed: true, exact: d.exact}
			case kind != "" && kind != "object" && kind != "nested" && kind != "passthrough":
				return mappingConflict(f, "a field above it is mapped as one that holds no other fields")
			case !d.exact && !d.closed && len(path) > len(d.path):
				found.of[f] = definition{parent: m, path: path}
			}
		}
	}
	if kind == "alias" {
		for _, r := range c.rules {
			if r.Subject != "" && (atOrUnder([]byte(path), r.Subject) || above([]byte(path), r.Subject)) {
				return mappingFault("the mapping gives the name [" + path + "] to another field (type alias), but rule [" + r.Name + "] takes its subject from [" + r.Subject + "]; give the alias another name")
			}
		}
		if f := c.listed(m.member("path")); f != nil {
			return mappingConflict(f, "this mapping gives it a second name by a field of type alias")
		}
	}
	if f := c.listed(m.member("copy_to")); f != nil {
		return mappingConflict(f, "this mapping copies another field into it (copy_to)")
	}
	if f := c.scriptReads(orNull(m.member("script"))); f != nil {
		return mappingConflict(f, "this mapping has a script that reads it")
	}
	if closed {
		return nil
	}
	return c.properties(m.member("properties"), path, found)
}

// leaf compares the definition of a protected field with the one it must have. A missing ignore_above is added.
func (c *controlPass) leaf(m *treeValue, f *policy.Field, kind string) error {
	if f.Mode == policy.Drop { // only null rests there
		if n := m.member("null_value"); n != nil && !n.isNull() {
			return mappingConflict(f, "this mapping gives it a plain value (null_value)")
		}
		return nil
	}
	if kind != "keyword" {
		return mappingConflict(f, "this mapping gives it another type")
	}
	if !isFalse(c, m.member("index")) {
		return mappingConflict(f, "this mapping indexes it ([index] must be false)")
	}
	if !isFalse(c, m.member("doc_values")) {
		return mappingConflict(f, "this mapping gives it doc values ([doc_values] must be false)")
	}
	limited := false
	for i := range m.kids {
		o := &m.kids[i]
		switch string(o.name) {
		case "type", "index", "doc_values", "meta", "synthetic_source_keep", "index_options", "similarity":
		case "ignore_above":
			limited = true
			if n, err := strconv.ParseInt(string(c.text(o)), 10, 64); (err != nil || n < ignoreAbove) && !c.stored { // of a stored one it can be raised
				return mappingConflict(f, "this mapping ignores long values of it (ignore_above)")
			}
		case "store", "norms", "eager_global_ordinals", "split_queries_on_whitespace", "time_series_dimension":
			if !isFalse(c, o) {
				return mappingConflict(f, "this mapping stores or indexes it once more")
			}
		case "fields", "copy_to":
			if o.isScalar() && !o.isNull() || len(o.kids) > 0 {
				return mappingConflict(f, "this mapping copies its values to other fields (fields, copy_to)")
			}
		case "null_value":
			if !o.isNull() {
				return mappingConflict(f, "this mapping gives it a plain value (null_value)")
			}
		default:
			return mappingConflict(f, "this mapping has an option that sealed values do not take")
		}
	}
	if !limited {
		c.add(controlPlace{at: m}, [][]byte{[]byte(`"ignore_above":` + strconv.Itoa(ignoreAbove))})
	}
	return nil
}

// MappingFault tells why sealed values of the rules cannot rest under a mapping as a server gives it ("properties" and
// so on), nil if they can. What a put mapping mends does not count.
func MappingFault(rules []*policy.Rule, mapping []byte) *Fault {
	root, err := strictTree(mapping)
	if err != nil || !root.isObject() {
		return nil // an index without a mapping
	}
	c := &controlPass{guard: newGuard(rules, mapping), stored: true}
	if err := c.mapping(controlPlace{at: &root}, nil); err != nil {
		return asFault(err)
	}
	return nil
}

// isFalse reports whether v is false, the string that the server takes for it, or {"enabled": false}, as newer servers write doc_values.
func isFalse(c *controlPass, v *treeValue) bool {
	if v.isObject() {
		v = v.member("enabled")
	}
	return v != nil && v.isScalar() && string(c.text(v)) == "false"
}

// runtimeFields reads the runtime section of a mapping. null removes a field.
func (c *controlPass) runtimeFields(v *treeValue) error {
	if v == nil {
		return nil
	}
	for i := range v.kids {
		m := &v.kids[i]
		if m.isNull() {
			continue
		}
		names := []string{string(m.name)}
		for _, sub := range orNull(m.member("fields")).kids {
			names = append(names, string(m.name)+"."+string(sub.name))
		}
		if path, rule := c.shadowed(names, m.member("fields") != nil); rule != nil {
			return mappingFault("the mapping defines a runtime field at, above or below [" + path + "], which rule [" + rule.Name + "] protects or takes the subject from, and would shadow what is stored; give the runtime field another name")
		}
		if f := c.scriptReads(orNull(m.member("script"))); f != nil {
			return mappingConflict(f, "a runtime field of this mapping reads it and would see sealed values under another name; leave the runtime field out")
		}
		if f := c.listed(m.member("input_field")); f != nil {
			return mappingConflict(f, "a runtime field of this mapping looks it up; leave the runtime field out")
		}
	}
	return nil
}

// sourceFilter reads _source of a mapping: nothing that is sealed, and no subject, may be cut from it, as that is
// where they rest.
func (c *controlPass) sourceFilter(v *treeValue) error {
	if v == nil || v.isNull() {
		return nil
	}
	if !v.isObject() {
		return mappingFault("[_source] must be an object")
	}
	mode := v.member("mode")
	if isFalse(c, v.member("enabled")) || mode != nil && strings.EqualFold(string(c.text(mode)), "disabled") {
		return mappingFault("the mapping switches [_source] off, but sealed values of rule [" + c.rules[0].Name + "] rest there alone; leave [_source] on")
	}
	excludes, includes := c.texts(v.member("excludes")), c.texts(v.member("includes"))
	for _, r := range c.rules {
		paths := []string{}
		if r.Subject != "" {
			paths = append(paths, r.Subject)
		}
		for _, f := range r.Fields {
			paths = append(paths, f.Path)
		}
		for _, path := range paths {
			if coversPath(excludes, path) || len(includes) > 0 && !coversPath(includes, path) {
				return mappingFault("the mapping cuts [" + path + "] from [_source], where rule [" + r.Name + "] needs it; change excludes and includes so that it stays")
			}
		}
	}
	return nil
}

// coversPath reports whether a pattern stands for path or for an object that it lies in.
func coversPath(patterns []string, path string) bool {
	for _, p := range patterns {
		for i := range len(path) + 1 {
			if (i == len(path) || path[i] == '.') && policy.Glob(p, path[:i]) {
				return true
			}
		}
	}
	return false
}

// texts gives a string, or the strings of a list.
func (c *controlPass) texts(v *treeValue) []string {
	switch {
	case v.isString():
		return strings.Split(string(c.text(v)), ",")
	case v.isArray():
		var out []string
		for i := range v.kids {
			out = append(out, string(c.text(&v.kids[i])))
		}
		return out
	}
	return nil
}

// settings reads index settings in all spellings: nested, dotted, with and without "index." before them and under "settings".
// Pipelines that indices get by default pass: their own bodies are judged when they are put.
func (c *controlPass) settings(v *treeValue) error { return c.setting(v, "") }

func (c *controlPass) setting(v *treeValue, path string) error {
	for i := range v.kids {
		m := &v.kids[i]
		name := path + string(m.name)
		if m.isObject() {
			if err := c.setting(m, name+"."); err != nil {
				return err
			}
			continue
		}
		name = strings.TrimPrefix(strings.TrimPrefix(name, "settings."), "index.")
		if name == "mapping.source.mode" && strings.EqualFold(strings.TrimSpace(string(c.text(m))), "disabled") {
			return mappingFault("the setting [index.mapping.source.mode] switches [_source] off, but sealed values of rule [" + c.rules[0].Name + "] rest there alone; leave it out")
		}
	}
	return nil
}

// aliases reads {"alias": {"filter": query}}.
func (c *controlPass) aliases(v *treeValue) error {
	if v == nil {
		return nil
	}
	for i := range v.kids {
		if err := c.query(orNull(v.kids[i].member("filter"))); err != nil {
			return err
		}
	}
	return nil
}

// aliasActions reads {"actions": [{"add": {"filter": query}}]}, or the body of one alias.
func (c *controlPass) aliasActions(root *treeValue) error {
	if err := c.query(orNull(root.member("filter"))); err != nil {
		return err
	}
	actions := root.member("actions")
	if actions == nil {
		return nil
	}
	return c.each(actions, c.aliases)
}

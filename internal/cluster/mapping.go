package cluster

import (
	"encoding/json"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// wanted is the mapping of a protected field.
const wanted = rewrite.SealedMapping

const maxIgnoreAbove = 2147483647

// mappingPlan is what to do about one mapping.
type mappingPlan struct {
	put      []byte // body for PUT _mapping, nil when nothing is missing
	warnings []mappingWarning
	lacking  bool   // a field is not mapped, or in a way that put mends; what put only makes certain does not count
	nested   string // the first field with a nested parent
	fresh    bool   // the index is yet to be made, and what is put beats what templates say of a field
}

type mappingWarning struct {
	path, problem, repair string
}

// putNode is an object of the body that is put.
type putNode struct {
	attrs map[string]json.RawMessage // what must be repeated for the server to merge it
	props map[string]*putNode
	leaf  json.RawMessage // of a field; then the rest is empty
}

// MarshalJSON writes the node as Elasticsearch reads it.
func (n *putNode) MarshalJSON() ([]byte, error) {
	if n.leaf != nil {
		return n.leaf, nil
	}
	m := make(map[string]any, len(n.attrs)+1)
	for k, v := range n.attrs {
		m[k] = v
	}
	m["properties"] = n.props
	return json.Marshal(m)
}

func (n *putNode) child(name string) *putNode {
	if n.props == nil {
		n.props = map[string]*putNode{}
	}
	c := n.props[name]
	if c == nil {
		c = &putNode{}
		n.props[name] = c
	}
	return c
}

// repeat copies the attributes of an existing object that the server does not merge with their absence:
// another kind of object is a conflict, and subobjects decides how dotted names in the body are read.
func (n *putNode) repeat(existing gjson.Result) {
	for _, k := range []string{"type", "subobjects", "priority", "time_series_dimension"} {
		v := existing.Get(k)
		if !v.Exists() || k == "type" && v.Str == "object" {
			continue
		}
		if n.attrs == nil {
			n.attrs = map[string]json.RawMessage{}
		}
		n.attrs[k] = json.RawMessage(v.Raw)
	}
}

// planMapping compares a mapping ("properties" and so on; "" is an empty one) with what the encrypted fields of the
// rules need.
func planMapping(mappings string, rules []*policy.Rule) mappingPlan {
	var p mappingPlan
	return p.of(mappings, rules)
}

// planNew is planMapping for an index that is yet to be made under the mapping of its templates.
func planNew(mappings string, rules []*policy.Rule) mappingPlan {
	p := mappingPlan{fresh: true}
	return p.of(mappings, rules)
}

func (p *mappingPlan) of(mappings string, rules []*policy.Rule) mappingPlan {
	root := &putNode{}
	existing := gjson.Parse(mappings)
	for _, r := range rules {
		for _, f := range r.Fields {
			if f.Mode == policy.Encrypt {
				p.field(root, existing, f)
			}
		}
	}
	if root.props != nil {
		p.put, _ = json.Marshal(root) // nodes hold valid JSON and always marshal
	}
	return *p
}

// step is one existing object on the way to a field.
type step struct {
	name   string
	object gjson.Result
}

// field plans one field. Objects are followed part by part; below an object with "subobjects": false the rest is one
// dotted name.
func (p *mappingPlan) field(root *putNode, existing gjson.Result, f *policy.Field) {
	if r := property(existing.Get("runtime"), f.Path); r.Exists() {
		p.warn(f, "a runtime field has the same name and hides the sealed value in searches", "remove the runtime field")
	}
	way := []step{{"", existing}}
	for i := 0; ; i++ {
		at := way[len(way)-1].object
		rest := f.Parts[i:]
		if enabled := at.Get("enabled"); enabled.Exists() && !enabled.Bool() {
			return // nothing below is indexed
		}
		props := at.Get("properties")
		dotted := strings.Join(rest, ".")
		if leaf := property(props, dotted); leaf.Exists() {
			if raised := p.compare(leaf, f); raised != nil {
				at := put(root, way)
				at.child(dotted).leaf = raised
			}
			return
		}
		if isFalse(at.Get("subobjects")) {
			put(root, way).child(dotted).leaf = json.RawMessage(wanted)
			p.lacking = true
			return
		}
		child := property(props, rest[0])
		if !child.Exists() {
			n := put(root, way)
			for _, part := range rest {
				n = n.child(part)
			}
			n.leaf = json.RawMessage(wanted)
			p.lacking = true
			return
		}
		switch t := child.Get("type").Str; t {
		case "", "object", "nested", "passthrough":
			if t == "nested" && p.nested == "" {
				p.nested = f.Path
			}
			way = append(way, step{rest[0], child})
		case "flattened":
			if !isFalse(child.Get("index")) || !isFalse(child.Get("doc_values")) {
				p.warn(f, "it lies below a flattened field with index or doc_values; values over 32,766 bytes will be refused",
					`map `+strings.Join(f.Parts[:i+1], ".")+` as flattened with "index":false and "doc_values":false in a new index and reindex`)
			}
			return
		default:
			p.warn(f, "its parent "+strings.Join(f.Parts[:i+1], ".")+" is mapped as "+t+", so documents with this field will be refused",
				"create a new index in which the parent is an object, and reindex")
			return
		}
	}
}

// compare judges an existing leaf. It gives a new definition when that can be put in place, else nil.
func (p *mappingPlan) compare(leaf gjson.Result, f *policy.Field) json.RawMessage {
	repair := "an existing field can't be changed in this: create a new index with " + wanted + " and reindex"
	t := leaf.Get("type").Str
	if p.fresh && t != "" && t != "object" && t != "nested" && t != "passthrough" && leaf.Raw != wanted {
		return json.RawMessage(wanted)
	}
	switch {
	case t == "flattened" && isFalse(leaf.Get("index")) && isFalse(leaf.Get("doc_values")):
		// Only for objects, but a sealed value is a string: the server would refuse it.
		fallthrough
	case t == "" || t == "object" || t == "nested" || t == "passthrough" || t == "flattened":
		p.warn(f, "it is mapped as an object, and a sealed value is a string: documents with it will be refused", repair)
		return nil
	case t != "keyword":
		p.warn(f, "it is mapped as "+t, repair)
		return nil
	case !isFalse(leaf.Get("index")) || !isFalse(leaf.Get("doc_values")):
		// Raising ignore_above here would make the server refuse long values instead of not indexing them.
		p.warn(f, "index and doc_values are not both false, so sealed values are indexed and long ones refused or ignored", repair)
		return nil
	}
	if above := leaf.Get("ignore_above"); above.Exists() && above.Int() >= maxIgnoreAbove {
		return nil
	}
	// Where it is absent the default of the index counts, which is not shown, or it is the server's own, which is right; to put it is harmless.
	p.lacking = p.lacking || leaf.Get("ignore_above").Exists()
	raised, err := sjson.Set(leaf.Raw, "ignore_above", maxIgnoreAbove)
	if err != nil {
		return nil
	}
	return json.RawMessage(raised)
}

func (p *mappingPlan) warn(f *policy.Field, problem, repair string) {
	p.warnings = append(p.warnings, mappingWarning{f.Path, problem, repair})
}

// put makes the nodes for the way and gives the last.
func put(n *putNode, way []step) *putNode {
	for i, s := range way {
		if i > 0 {
			n = n.child(s.name)
		}
		n.repeat(s.object)
	}
	return n
}

// property gets a member by its name, which may hold dots.
func property(props gjson.Result, name string) (found gjson.Result) {
	props.ForEach(func(k, v gjson.Result) bool {
		if k.String() == name {
			found = v
			return false
		}
		return true
	})
	return found
}

// isFalse reads booleans as mappings give them: false, or "false" in old ones. 9.x writes doc_values as an object, too.
func isFalse(r gjson.Result) bool {
	if r.IsObject() {
		return isFalse(r.Get("enabled"))
	}
	return r.Exists() && r.String() == "false"
}

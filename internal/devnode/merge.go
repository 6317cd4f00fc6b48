//go:build !nodevnode

package devnode

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// merge returns m with the fields of add, or the conflict Elasticsearch names.
func (m *mapping) merge(add *mapping) (*mapping, *esError) {
	n := m.clone()
	if add.meta != nil {
		n.meta = add.meta
	}
	n.dateOff = n.dateOff || add.dateOff
	if err := n.root.merge("", add.root); err != nil {
		return nil, err
	}
	if c := n.root.count(); c > 1000 && c > m.root.count() {
		return nil, illegalArg("Limit of total fields [1000] has been exceeded")
	}
	return n, nil
}

func (f *field) merge(path string, add *field) *esError {
	if add.dynamic != "" {
		f.dynamic = add.dynamic
	}
	if add.disabled != f.disabled && path != "" {
		return errf(400, "mapper_exception", "the [enabled] parameter can't be updated for the object mapping [%s]", path)
	}
	for _, k := range slices.Sorted(maps.Keys(add.props)) {
		a := add.props[k]
		name := k
		if path != "" {
			name = path + "." + k
		}
		old := f.props[k]
		switch {
		case old == nil:
			f.props[k] = a.clone()
		case old.isObject() && a.isObject():
			if old.typ != a.typ {
				if a.typ == "nested" {
					return illegalArg("can't merge a non-nested mapping [%s] with a nested mapping", name)
				}
				return illegalArg("can't merge a nested mapping [%s] with a non-nested mapping", name)
			}
			if err := old.merge(name, a); err != nil {
				return err
			}
		case old.isObject() != a.isObject():
			return illegalArg("can't merge a non object mapping [%s] with an object mapping", name)
		default:
			n, err := old.mergeLeaf(name, a)
			if err != nil {
				return err
			}
			f.props[k] = n
		}
	}
	return nil
}

func (f *field) mergeLeaf(name string, a *field) (*field, *esError) {
	if f.typ != a.typ {
		return nil, illegalArg("mapper [%s] cannot be changed from type [%s] to [%s]", name, f.typ, a.typ)
	}
	var why []string
	diff := func(param string, old, now any) {
		if old != now {
			why = append(why, fmt.Sprintf("Cannot update parameter [%s] from [%v] to [%v]", param, old, now))
		}
	}
	orDefault := func(s, d string) string {
		if s == "" {
			return d
		}
		return s
	}
	diff("index", !f.noIndex, !a.noIndex)
	diff("doc_values", !f.noDocValues, !a.noDocValues)
	diff("store", f.store, a.store)
	if a.typ == "text" && f.noNorms && !a.noNorms {
		diff("norms", false, true)
	}
	diff("format", orDefault(f.format, defaultDateFormat), orDefault(a.format, defaultDateFormat))
	diff("analyzer", orDefault(f.analyzer, "default"), orDefault(a.analyzer, "default"))
	if len(why) > 0 {
		return nil, illegalArg("Mapper for [%s] conflicts with existing mapper:\n\t%s", name, strings.Join(why, "\n\t"))
	}
	n := *a
	n.multi = maps.Clone(f.multi)
	if n.multi == nil && len(a.multi) > 0 {
		n.multi = map[string]*field{}
	}
	for _, k := range slices.Sorted(maps.Keys(a.multi)) {
		s := a.multi[k]
		if old := n.multi[k]; old != nil {
			var err *esError
			if s, err = old.mergeLeaf(name+"."+k, s); err != nil {
				return nil, err
			}
		}
		n.multi[k] = s
	}
	return &n, nil
}

// javaText prints a value as Java's toString of maps and lists does; error
// previews show values so.
func javaText(v *jv) string {
	switch v.k {
	case kObj:
		var b strings.Builder
		b.WriteByte('{')
		for i, m := range v.mem {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(m.key + "=" + javaText(m.v))
		}
		return b.String() + "}"
	case kArr:
		var b strings.Builder
		b.WriteByte('[')
		for i, e := range v.arr {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(javaText(e))
		}
		return b.String() + "]"
	}
	return v.text()
}

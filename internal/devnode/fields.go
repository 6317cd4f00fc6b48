//go:build !nodevnode

package devnode

import (
	"strings"
	"time"
)

// fieldSpec is one entry of the fields option.
type fieldSpec struct {
	pattern string
	format  string
}

func (p *queryParser) fieldSpecs(v *jv) ([]fieldSpec, *esError) {
	if v.k != kArr {
		return nil, p.fail(v.off, "Unknown key for a %s in [fields].", v.startToken())
	}
	var out []fieldSpec
	for _, e := range v.arr {
		switch e.k {
		case kStr:
			out = append(out, fieldSpec{pattern: e.s})
		case kObj:
			f := fieldSpec{}
			for _, m := range e.mem {
				switch m.key {
				case "field":
					f.pattern = m.v.text()
				case "format":
					f.format = m.v.text()
				default:
					return nil, unsupported("[%s] in fields", m.key)
				}
			}
			if f.pattern == "" {
				return nil, illegalArg("Required [field]")
			}
			out = append(out, f)
		default:
			return nil, p.fail(e.off, "[fields] entries must be strings or objects")
		}
	}
	return out, nil
}

// fetchFields gives the values of fields from the source, formatted by their
// mapping, and the values that indexing ignored.
func fetchFields(m *mapping, e *entry, specs []fieldSpec) (fs, ignored *jv, err *esError) {
	fs, ignored = obj(), obj()
	root, jerr := parseJSON(e.source)
	if jerr != nil {
		return fs, ignored, syntaxError(jerr, false)
	}
	for _, spec := range specs {
		if strings.HasPrefix(spec.pattern, "_") {
			return nil, nil, unsupported("metadata fields in [fields]")
		}
	}
	m.root.walk("", func(path string, f *field) {
		if err != nil {
			return
		}
		spec, hit := fieldSpec{}, false
		for _, s := range specs {
			if wildcard(s.pattern, path) {
				spec, hit = s, true
				break
			}
		}
		if !hit {
			return
		}
		from := path
		if i := strings.LastIndexByte(path, '.'); i >= 0 {
			if p := m.lookup(path[:i]); p != nil && !p.isObject() {
				from = path[:i]
			}
		}
		var raw []*jv
		extract(root, from, &raw)
		var list, ign []*jv
		for _, r := range raw {
			v, perr := (&docParser{src: e.source}).scalar(f, r)
			if perr != nil {
				continue
			}
			if f.ignoreAbove > 0 && utf16Len(v.term) > f.ignoreAbove {
				ign = append(ign, val(r.text()))
				continue
			}
			var shown *jv
			if shown, err = f.shown(v, r, spec.format); err != nil {
				return
			}
			list = append(list, shown)
		}
		if len(list) > 0 {
			fs.put(path, list)
		}
		if len(ign) > 0 {
			ignored.put(path, ign)
		}
	})
	return fs, ignored, err
}

func (f *field) shown(v value, r *jv, format string) (*jv, *esError) {
	switch {
	case f.typ == "keyword" || f.typ == "text" || f.typ == "binary":
		return val(r.text()), nil
	case f.typ == "boolean":
		return val(v.num == 1), nil
	case f.typ == "ip":
		return val(ipText(v.term)), nil
	case f.typ == "float":
		return val(float32(v.dbl)), nil
	case floatType(f.typ):
		return val(v.dbl), nil
	case f.typ == "date":
		fs := f.dates
		if format != "" {
			var err *esError
			if fs, err = compileDates(format); err != nil {
				return nil, err
			}
		}
		return val(fs[0].format(v.num)), nil
	}
	return val(v.num), nil
}

// extract collects the scalars at a dotted path, through arrays and through
// dotted member names.
func extract(v *jv, path string, out *[]*jv) {
	switch v.k {
	case kArr:
		for _, e := range v.arr {
			extract(e, path, out)
		}
	case kObj:
		for _, m := range v.mem {
			k := strings.TrimRight(m.key, ".")
			if k == path {
				leaves(m.v, out)
			} else if strings.HasPrefix(path, k+".") {
				extract(m.v, path[len(k)+1:], out)
			}
		}
	}
}

func leaves(v *jv, out *[]*jv) {
	if v.k == kArr {
		for _, e := range v.arr {
			leaves(e, out)
		}
	} else if v.scalar() && v.k != kNull {
		*out = append(*out, v)
	}
}

// keepAlive reads a time value such as 1m.
func keepAlive(s string) (time.Duration, *esError) {
	for _, u := range []struct {
		suffix string
		d      time.Duration
	}{{"ms", time.Millisecond}, {"s", time.Second}, {"m", time.Minute}, {"h", time.Hour}, {"d", 24 * time.Hour}} {
		if n, ok := strings.CutSuffix(s, u.suffix); ok {
			v := 0
			for _, c := range n {
				if c < '0' || c > '9' || v > 1<<20 {
					v = -1
					break
				}
				v = v*10 + int(c-'0')
			}
			if n != "" && v >= 0 {
				return time.Duration(v) * u.d, nil
			}
		}
	}
	return 0, illegalArg("failed to parse setting [keep_alive] with value [%s] as a time value: unit is missing or unrecognized", s)
}

//go:build !nodevnode

package devnode

import "strings"

// sourceFilter says how much of a document a reply shows.
type sourceFilter struct {
	off        bool
	inc, exc   []string
	configured bool
}

func (f sourceFilter) whole() bool { return len(f.inc) == 0 && len(f.exc) == 0 }

// sourceParams reads _source, _source_includes and _source_excludes from the
// query string.
func sourceParams(r *request) sourceFilter {
	var f sourceFilter
	if v, ok := r.params["_source"]; ok {
		f.configured = true
		switch v {
		case "", "true":
		case "false":
			f.off = true
		default:
			f.inc = splitList(v)
		}
	}
	if v, ok := r.params["_source_includes"]; ok {
		f.inc, f.configured = splitList(v), true
	}
	if v, ok := r.params["_source_excludes"]; ok {
		f.exc, f.configured = splitList(v), true
	}
	return f
}

func splitList(s string) []string {
	return strings.FieldsFunc(s, func(c rune) bool { return c == ',' })
}

// sourceBody reads a _source member: a boolean, a pattern, a list, or an
// object of includes and excludes.
func sourceBody(v *jv) (sourceFilter, *esError) {
	f := sourceFilter{configured: true}
	list := func(v *jv) ([]string, *esError) {
		if v.k == kStr {
			return []string{v.s}, nil
		}
		var out []string
		if v.k != kArr {
			return nil, errf(400, "parsing_exception", "Expected one of [VALUE_STRING, START_ARRAY] but found [%s]", v.startToken())
		}
		for _, e := range v.arr {
			if e.k != kStr {
				return nil, errf(400, "parsing_exception", "Unknown key for a %s in [null].", e.startToken())
			}
			out = append(out, e.s)
		}
		return out, nil
	}
	var err *esError
	switch v.k {
	case kBool:
		f.off = !v.isTrue()
	case kStr:
		switch v.s {
		case "true":
		case "false":
			f.off = true
		default:
			f.inc = []string{v.s}
		}
	case kArr:
		f.inc, err = list(v)
	case kObj:
		for _, m := range v.mem {
			switch m.key {
			case "includes", "include":
				f.inc, err = list(m.v)
			case "excludes", "exclude":
				f.exc, err = list(m.v)
			case "exclude_vectors":
				err = unsupported("_source.exclude_vectors")
			default:
				err = errf(400, "parsing_exception", "Unknown key for a %s in [%s].", m.v.startToken(), m.key)
			}
			if err != nil {
				return f, err
			}
		}
	default:
		return f, errf(400, "parsing_exception", "Expected one of [VALUE_BOOLEAN, START_OBJECT] but found [%s]", v.startToken())
	}
	return f, err
}

// apply gives the source to show: the stored bytes, or a filtered copy
// written anew.
func (f sourceFilter) apply(src []byte) []byte {
	if f.whole() {
		return src
	}
	v, err := parseJSON(src)
	if err != nil {
		return src // cannot happen: only parsed documents are stored
	}
	var inc, exc []*matcher
	for _, p := range f.inc {
		inc = append(inc, newMatcher(p))
	}
	for _, p := range f.exc {
		exc = append(exc, newMatcher(p))
	}
	out := filterSource(v, "", inc, exc, len(inc) == 0)
	if out == nil {
		out = obj()
	}
	return appendValue(nil, out)
}

// matcher matches dotted paths; a pattern also matches everything below the
// places it matches.
type matcher struct{ pat string }

func newMatcher(p string) *matcher { return &matcher{pat: p} }

func (m *matcher) hit(path string) bool {
	return wildcard(m.pat, path)
}

// below says whether something under path could match.
func (m *matcher) below(path string) bool {
	// With a star anything may follow; without one, path must be a prefix.
	i := strings.IndexByte(m.pat, '*')
	if i < 0 {
		return strings.HasPrefix(m.pat, path+".")
	}
	p := path + "."
	if len(p) <= i {
		return strings.HasPrefix(m.pat, p)
	}
	return strings.HasPrefix(p, m.pat[:i])
}

// filterSource copies what the patterns leave. Objects that matched nothing
// inside disappear, unless they are whole.
func filterSource(v *jv, path string, inc, exc []*matcher, whole bool) *jv {
	switch v.k {
	case kArr:
		o := &jv{k: kArr}
		for _, e := range v.arr {
			if e.scalar() {
				if whole {
					o.arr = append(o.arr, e)
				}
				continue
			}
			if c := filterSource(e, path, inc, exc, whole); c != nil {
				o.arr = append(o.arr, c)
			}
		}
		if len(o.arr) == 0 && !whole {
			return nil
		}
		return o
	case kObj:
		o := &jv{k: kObj}
		for _, m := range v.mem {
			p := m.key
			if path != "" {
				p = path + "." + m.key
			}
			if anyHit(exc, p) {
				continue
			}
			w := whole || anyHit(inc, p)
			if m.v.scalar() {
				if w {
					o.mem = append(o.mem, m)
				}
				continue
			}
			if !w && !anyBelow(inc, p) {
				continue
			}
			if c := filterSource(m.v, p, inc, exc, w); c != nil {
				o.mem = append(o.mem, member{key: m.key, v: c})
			}
		}
		if len(o.mem) == 0 && !whole {
			return nil
		}
		return o
	}
	return v
}

func anyHit(ms []*matcher, p string) bool {
	for _, m := range ms {
		if m.hit(p) {
			return true
		}
	}
	return false
}

func anyBelow(ms []*matcher, p string) bool {
	for _, m := range ms {
		if m.below(p) {
			return true
		}
	}
	return false
}

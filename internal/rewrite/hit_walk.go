package rewrite

import "bytes"

// walkObject notes the subjects and tokens in the object at pos, whose path is n's.
func (h *hitReader) walkObject(pos int, n *node, inArray bool, depth int) (end int, err error) {
	if depth > maxDepth {
		return pos, badSyntax(pos, "nested too deep")
	}
	b := h.b
	pos = skipSpace(b, pos+1)
	if pos < len(b) && b[pos] == '}' {
		return pos + 1, nil
	}
	for {
		_, child, value, err := h.name(pos, n)
		if err != nil {
			return value, err
		}
		switch {
		case child == nil:
			pos, err = skipValue(b, value, depth+1)
		case child.field != nil:
			pos, err = h.protected(value, child, depth+1)
		default:
			pos, err = h.walk(value, child, inArray, depth+1)
			if err == nil && child.subject > 0 && h.subject {
				h.sawSubject(child, value, pos, inArray)
			}
		}
		if err != nil {
			return pos, err
		}
		pos = skipSpace(b, pos)
		if pos >= len(b) {
			return pos, errShort
		}
		switch b[pos] {
		case '}':
			return pos + 1, nil
		case ',':
			pos = skipSpace(b, pos+1)
		default:
			return pos, badSyntax(pos, "expected a comma or }")
		}
	}
}

// walk reads a value on the way to something protected or to a subject. Arrays are transparent.
func (h *hitReader) walk(pos int, n *node, inArray bool, depth int) (end int, err error) {
	if pos >= len(h.b) {
		return pos, errShort
	}
	switch h.b[pos] {
	case '{':
		return h.walkObject(pos, n, inArray, depth)
	case '[':
		if depth > maxDepth {
			return pos, badSyntax(pos, "nested too deep")
		}
		return h.elements(pos, func(pos int) (int, error) { return h.walk(pos, n, true, depth+1) })
	}
	return skipValue(h.b, pos, depth)
}

// protected reads the value at a protected path: a token, or an array of them as "fields" and synthetic _source
// show it. What a larger value holds inside stays as it is.
func (h *hitReader) protected(pos int, n *node, depth int) (end int, err error) {
	if pos >= len(h.b) {
		return pos, errShort
	}
	switch h.b[pos] {
	case '[':
		if depth > maxDepth {
			return pos, badSyntax(pos, "nested too deep")
		}
		return h.elements(pos, func(pos int) (int, error) { return h.protected(pos, n, depth+1) })
	case '"':
		end, flags, err := scanString(h.b, pos)
		if err == nil && flags == 0 && bytes.HasPrefix(h.b[pos:end], tokenStart) {
			f := h.u.docs[h.doc].t.field(n.field)
			h.u.tokens = append(h.u.tokens, tokenPlace{start: pos, end: end, doc: h.doc, rule: f.rule, field: f})
		}
		return end, err
	}
	return skipValue(h.b, pos, depth)
}

func (h *hitReader) sawSubject(n *node, start, end int, inArray bool) {
	base := h.u.docs[h.doc].seen
	see := func(rule int) {
		x := &h.u.seen[base+rule]
		x.count++
		x.start, x.end, x.inArray = start, end, x.inArray || inArray
	}
	see(n.subject - 1)
	for _, rule := range n.also {
		see(rule)
	}
}

package rewrite

// told are the member names of the unit that was read last, in the order in which they were read: hits are mostly alike, and to
// compare a name costs a fifth of reading it and following it in the target. It brings 1.2 in BenchmarkReplyOpen.
//
// A name counts only if it stands there as it was told, with quotes and colon, and in an object of the same node, so what follows
// from it is what reading it would give.
type told struct {
	names []toldName
	next  int // the guess for the next name
}

type toldName struct {
	text   []byte // as written, with its quotes and the colon, without escapes
	parent *node  // of the object, nil where no node is followed
	child  *node
}

const (
	maxTold     = 256 // names
	maxToldName = 64  // bytes
)

// name reads a member name and its colon in an object whose path is n's, or nil. The name is valid until the next one is read.
func (h *hitReader) name(pos int, n *node) (name []byte, child *node, value int, err error) {
	if t := h.told; t != nil && t.next < len(t.names) {
		guess := &t.names[t.next]
		end := pos + len(guess.text)
		if end < len(h.b) && guess.parent == n && string(h.b[pos:end]) == string(guess.text) {
			t.next++
			return h.b[pos+1 : end-2], guess.child, skipSpace(h.b, end), nil
		}
	}
	end, flags, err := scanName(h.b, pos)
	if err != nil {
		return nil, nil, end, err
	}
	name = h.b[pos+1 : end-1]
	if flags&hasEscape != 0 {
		h.scratch = unescape(h.scratch[:0], name)
		name = h.scratch
	}
	if n != nil {
		child, _ = n.descend(name)
	}
	if value, err = skipColon(h.b, end); err == nil && h.told != nil && flags&hasEscape == 0 && h.b[end] == ':' {
		h.told.add(h.b[pos:end+1], n, child)
	}
	return name, child, value, err
}

// add notes the name that was read instead of the guess.
func (t *told) add(text []byte, parent, child *node) {
	if len(text) > maxToldName || t.next >= maxTold {
		return
	}
	if t.next == len(t.names) {
		t.names = append(t.names, toldName{})
	}
	is := &t.names[t.next]
	is.text, is.parent, is.child = append(is.text[:0], text...), parent, child
	t.next++
}

package rewrite

import (
	"bytes"
	"errors"
	"hash/maphash"
	"slices"
	"strconv"
	"sync"
)

// strictJSON reads b as exactly one JSON value: RFC 8259 in valid UTF-8, without a byte order mark, without
// duplicate member names after unescaping, without a lone surrogate in a name, at most maxDepth deep, and with
// nothing but white space around it. Every error is a *syntaxError.
func strictJSON(b []byte) error {
	s := strictPool.Get().(*strictScanner)
	defer s.release()
	s.b = b
	pos, err := s.begin()
	if err == nil {
		pos, err = s.skip(pos, 1)
	}
	return s.finish(pos, err)
}

// treeValue is one value of a small control or query body, read strictly. Documents and hits are never read
// into a tree.
type treeValue struct {
	name       []byte // the member name, unescaped; nil for the root and in arrays
	kind       byte   // the first byte of the value's text, with '0' for all numbers
	start, end int    // the value's text in the body
	kids       []treeValue
}

// strictTree is strictJSON that keeps what it read. The tree shares memory with b. Of more than maxTree values the error is a
// *Fault.
func strictTree(b []byte) (treeValue, error) {
	s := strictPool.Get().(*strictScanner)
	defer s.release()
	s.b = b
	var root treeValue
	pos, err := s.begin()
	if err == nil {
		root, err = s.tree(pos, 1)
		pos = root.end
	}
	return root, s.finish(pos, err)
}

func (v *treeValue) isObject() bool { return v != nil && v.kind == '{' }
func (v *treeValue) isArray() bool  { return v != nil && v.kind == '[' }
func (v *treeValue) isString() bool { return v != nil && v.kind == '"' }
func (v *treeValue) isNull() bool   { return v != nil && v.kind == 'n' }

// isScalar reports whether v is neither an object nor an array.
func (v *treeValue) isScalar() bool { return v != nil && v.kind != '{' && v.kind != '[' }

// member gives the member of an object, or nil; v may be nil.
func (v *treeValue) member(name string) *treeValue {
	if !v.isObject() {
		return nil
	}
	for i := range v.kids {
		if string(v.kids[i].name) == name {
			return &v.kids[i]
		}
	}
	return nil
}

// text gives the unescaped text of a string and the source text of any other value. body is what v was read from.
func (v *treeValue) text(body []byte) []byte {
	raw := body[v.start:v.end]
	if v.kind != '"' {
		return raw
	}
	raw = raw[1 : len(raw)-1]
	if bytes.IndexByte(raw, '\\') < 0 {
		return raw
	}
	return unescape(nil, raw)
}

// strictScanner is the state of one strict pass.
type strictScanner struct {
	b     []byte
	names []uint64    // hashes of the member names of the open objects, innermost last
	kids  []treeValue // the members and elements of the open values, innermost last
	count int         // values of the tree so far
	buf   []byte
	seed  maphash.Seed
}

// maxTree is how many values a body may have that is read into a tree: each takes some seventy bytes whatever its
// text does, so a body of small numbers would take fifty times its size.
const maxTree = 200_000

// The seed is random and differs per scanner, so two different names with one hash, which would refuse a
// good body, can't be prepared.
var strictPool = sync.Pool{New: func() any { return &strictScanner{seed: maphash.MakeSeed()} }}

// release forgets what was read and gives small buffers back to the pool.
func (s *strictScanner) release() {
	const keep = 512
	if cap(s.kids) > keep {
		s.kids = nil
	}
	if cap(s.buf) > keep {
		s.buf = nil
	}
	if cap(s.names) > keep {
		s.names = nil
	}
	clear(s.kids[:cap(s.kids)])
	clear(s.buf[:cap(s.buf)])
	s.b, s.kids, s.names, s.buf, s.count = nil, s.kids[:0], s.names[:0], s.buf[:0], 0
	strictPool.Put(s)
}

// begin gives the place of the value.
func (s *strictScanner) begin() (int, error) {
	if bytes.HasPrefix(s.b, []byte("\xEF\xBB\xBF")) {
		return 0, badSyntax(0, "byte order mark")
	}
	return skipSpace(s.b, 0), nil
}

// finish looks at what follows the value and turns errShort into a *syntaxError.
func (s *strictScanner) finish(pos int, err error) error {
	if err == nil {
		if pos = skipSpace(s.b, pos); pos < len(s.b) {
			return badSyntax(pos, "text after the value")
		}
		return nil
	}
	if errors.Is(err, errShort) {
		return badSyntax(len(s.b), errShort.Error())
	}
	return err
}

// name reads the member name at pos, whose hash is added to s.names. The result is the text between the quotes.
func (s *strictScanner) name(pos int) (end int, raw []byte, flags stringFlags, err error) {
	end, flags, err = scanName(s.b, pos)
	if err != nil {
		return end, nil, flags, err
	}
	if flags&hasLoneSurrogate != 0 {
		return pos, nil, flags, badSyntax(pos, "lone surrogate in a member name")
	}
	raw = s.b[pos+1 : end-1]
	text := raw
	if flags&hasEscape != 0 {
		s.buf = unescape(s.buf[:0], raw)
		text = s.buf
	}
	s.names = append(s.names, maphash.Bytes(s.seed, text))
	return end, raw, flags, nil
}

// unique looks for equal names among those since from, and forgets them.
func (s *strictScanner) unique(from, pos int) error {
	names := s.names[from:]
	s.names = s.names[:from]
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return badSyntax(pos, "duplicate member name in the object that ends")
		}
	}
	return nil
}

// next reads what follows a member or element: a comma, or the closing byte.
func (s *strictScanner) next(pos int, closing byte) (int, bool, error) {
	pos = skipSpace(s.b, pos)
	if pos >= len(s.b) {
		return pos, false, errShort
	}
	switch s.b[pos] {
	case closing:
		return pos + 1, true, nil
	case ',':
		return skipSpace(s.b, pos+1), false, nil
	}
	if closing == ']' {
		return pos, false, badSyntax(pos, "expected a comma or ]")
	}
	return pos, false, badSyntax(pos, "expected a comma or }")
}

// open reads the opening byte of an object or array and tells whether it is empty.
func (s *strictScanner) open(pos, depth int, closing byte) (int, bool, error) {
	if depth > maxDepth {
		return pos, false, badSyntax(pos, "nested too deep")
	}
	pos = skipSpace(s.b, pos+1)
	if pos < len(s.b) && s.b[pos] == closing {
		return pos + 1, true, nil
	}
	return pos, false, nil
}

// skip reads the value at pos; depth is the number of its level, the root's being 1.
func (s *strictScanner) skip(pos, depth int) (int, error) {
	if pos >= len(s.b) {
		return pos, errShort
	}
	c := s.b[pos]
	if c != '{' && c != '[' {
		return skipValue(s.b, pos, 0)
	}
	closing := c + 2 // '}' and ']' stand two places after '{' and '['
	pos, done, err := s.open(pos, depth, closing)
	from := len(s.names)
	for !done && err == nil {
		if c == '{' {
			if pos, _, _, err = s.name(pos); err != nil {
				return pos, err
			}
			if pos, err = skipColon(s.b, pos); err != nil {
				return pos, err
			}
		}
		if pos, err = s.skip(pos, depth+1); err != nil {
			return pos, err
		}
		pos, done, err = s.next(pos, closing)
	}
	if err != nil {
		return pos, err
	}
	return pos, s.unique(from, pos-1)
}

// tree is skip that keeps what it read.
func (s *strictScanner) tree(pos, depth int) (v treeValue, err error) {
	v.start = pos
	if pos >= len(s.b) {
		return v, errShort
	}
	if s.count++; s.count > maxTree {
		return v, &Fault{Status: 413, Type: "esproxy_document_too_large", Reason: "where values are protected, the body of a search or of an administrative request may have at most " + strconv.Itoa(maxTree) + " values; send smaller ones"}
	}
	c := s.b[pos]
	v.kind = c
	if c != '{' && c != '[' {
		if c == '-' || c-'0' <= 9 {
			v.kind = '0'
		}
		v.end, err = skipValue(s.b, pos, 0)
		return v, err
	}
	closing := c + 2
	pos, done, err := s.open(pos, depth, closing)
	from, first := len(s.names), len(s.kids)
	for !done && err == nil {
		var name []byte
		if c == '{' {
			var raw []byte
			var flags stringFlags
			if pos, raw, flags, err = s.name(pos); err != nil {
				return v, err
			}
			name = raw
			if flags&hasEscape != 0 {
				name = unescape(nil, raw)
			}
			if pos, err = skipColon(s.b, pos); err != nil {
				return v, err
			}
		}
		var kid treeValue
		if kid, err = s.tree(pos, depth+1); err != nil {
			return v, err
		}
		kid.name = name
		s.kids = append(s.kids, kid)
		pos, done, err = s.next(kid.end, closing)
	}
	if err != nil {
		return v, err
	}
	v.end = pos
	v.kids = slices.Clone(s.kids[first:])
	s.kids = s.kids[:first]
	return v, s.unique(from, pos-1)
}

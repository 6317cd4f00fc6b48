package rewrite

import (
	"bytes"
	"errors"

	"github.com/esproxy/esproxy/internal/policy"
)

// A unit is one value of a reply that is read as a whole: a hit with its inner hits, one entry of docs[], a
// document, or the small object around "get". Places in it count from its first byte.
type unit struct {
	docs   []shownDoc
	seen   []subjectSeen // of all docs; see shownDoc.seen
	tokens []tokenPlace
}

func (u *unit) reset() {
	u.docs, u.seen, u.tokens = u.docs[:0], u.seen[:0], u.tokens[:0]
}

// shownDoc is one stored document that a unit shows something of.
type shownDoc struct {
	index, id, routing span // JSON strings; not there where the reply has none
	t                  *shownTarget
	seen               int  // where the subjects of t's rules begin in unit.seen
	whole              bool // the document's _source is there and nothing of it was left out
}

// tokenPlace is a string that looks sealed, at a protected path of a slot.
type tokenPlace struct {
	start, end int // with quotes
	doc        int // in unit.docs
	rule       int // in the target's rules
	field      *shownField

	shown  bool   // opened, plain or masked
	reason string // why not, of one that was tried
}

// shownTarget is the target of one index with what the caller may see.
type shownTarget struct {
	*target
	index  string
	remote bool // on another cluster
	fields []shownField
}

// shownField is one field of a shownTarget.
type shownField struct {
	field  *policy.Field
	rule   int
	how    policy.Reveal
	opened int
}

func (t *shownTarget) field(f *policy.Field) *shownField {
	for i := range t.fields {
		if t.fields[i].field == f {
			return &t.fields[i]
		}
	}
	return nil
}

// errLate means that a hit tells its index or its nested path after a body. It is read again.
var errLate = errors.New("metadata after a body")

// tokenStart is how sealed values begin. A token holds nothing that JSON escapes, so its raw text tells.
var tokenStart = []byte(`"esp1.`)

// hitReader reads units. resolve finds the target of an index name, nil where no rule applies.
type hitReader struct {
	b       []byte
	u       *unit
	resolve func(index []byte) *shownTarget // index as JSON text; nil: the reply does not say
	whole   bool                            // top hits show whole documents
	scratch []byte
	doc     int // whose values the walk notes
	subject bool
	late    bool
	twice   int // units or inner hits with a member that is there twice
	told    *told
}

// members walks an object at pos: f gets the unescaped name and the place of the value and returns the end of it.
func (h *hitReader) members(pos int, f func(name []byte, pos int) (int, error)) (end int, err error) {
	b := h.b
	if pos >= len(b) {
		return pos, errShort
	}
	if b[pos] != '{' {
		return pos, badSyntax(pos, "expected an object")
	}
	pos = skipSpace(b, pos+1)
	if pos < len(b) && b[pos] == '}' {
		return pos + 1, nil
	}
	for {
		name, _, value, err := h.name(pos, nil)
		if err != nil {
			return value, err
		}
		if pos, err = f(name, value); err != nil {
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

// elements walks an array at pos.
func (h *hitReader) elements(pos int, f func(pos int) (int, error)) (end int, err error) {
	b := h.b
	pos = skipSpace(b, pos+1)
	if pos < len(b) && b[pos] == ']' {
		return pos + 1, nil
	}
	for {
		if pos >= len(b) {
			return pos, errShort
		}
		if pos, err = f(pos); err != nil {
			return pos, err
		}
		pos = skipSpace(b, pos)
		if pos >= len(b) {
			return pos, errShort
		}
		switch b[pos] {
		case ']':
			return pos + 1, nil
		case ',':
			pos = skipSpace(b, pos+1)
		default:
			return pos, badSyntax(pos, "expected a comma or ]")
		}
	}
}

// skip reads over a value. In the window a number that runs into its end may go on behind it, but a
// number is never the last thing of a unit, so errShort follows.
func (h *hitReader) skip(pos int) (int, error) { return skipValue(h.b, pos, replyDepth) }

// form says what the members of an object around a body mean.
type form uint8

const (
	formHit    form = iota // a hit: _source, fields and inner_hits are its members
	formAround             // around "get", which holds _source and fields
)

// seenMember says which members an object had; a second one of a kind makes it untrustworthy.
type seenMember uint16

const (
	sawIndex seenMember = 1 << iota
	sawID
	sawRouting
	sawNested
	sawSource
	sawFields
	sawInner
	sawGet
	sawTwice
)

func (m *seenMember) note(kind seenMember) {
	if *m&kind != 0 {
		*m |= sawTwice
	}
	*m |= kind
}

// slot is one hit while it is read.
type slot struct {
	form      form
	enclosing int // the document of the enclosing hit, or -1
	saw       seenMember
	index, id span
	routing   span
	nested    []byte // path of the nested object, unescaped parts joined by dots
	doc       int    // -1 until known
	late      bool   // bodies are read when all else is known
	bodies    [4]struct {
		kind seenMember
		pos  int
	}
	waiting int
}

func (s *slot) isNested() bool { return s.saw&sawNested != 0 }

// hit reads the object at pos, and its inner hits.
func (h *hitReader) hit(pos int, f form, enclosing int) (end int, err error) {
	docs, seen, tokens := len(h.u.docs), len(h.u.seen), len(h.u.tokens)
	undo := func() {
		h.u.docs, h.u.seen, h.u.tokens = h.u.docs[:docs], h.u.seen[:seen], h.u.tokens[:tokens]
	}
	s := slot{form: f, enclosing: enclosing, doc: -1, late: h.late}
	if end, err = h.slot(pos, &s); errors.Is(err, errLate) {
		undo()
		s = slot{form: f, enclosing: enclosing, doc: -1, late: true}
		h.late = true // for inner hits too: none is read more often than it is deep
		end, err = h.slot(pos, &s)
		h.late = false
	}
	if err == nil && s.saw&sawTwice != 0 {
		if len(h.u.tokens) > tokens {
			h.twice += len(h.u.tokens) - tokens
		}
		undo()
	}
	return end, err
}

func (h *hitReader) slot(pos int, s *slot) (end int, err error) {
	end, err = h.members(pos, func(name []byte, pos int) (int, error) {
		switch string(name) {
		case "_index":
			return h.meta(s, sawIndex, &s.index, pos)
		case "_id":
			return h.meta(s, sawID, &s.id, pos)
		case "_routing":
			return h.meta(s, sawRouting, &s.routing, pos)
		case "_nested":
			s.saw.note(sawNested)
			if s.doc >= 0 {
				return pos, errLate
			}
			s.nested = s.nested[:0]
			return h.nestedPath(s, pos, 0)
		case "_source":
			if s.form == formHit {
				return h.body(s, sawSource, pos)
			}
		case "fields":
			if s.form == formHit {
				return h.body(s, sawFields, pos)
			}
		case "inner_hits":
			if s.form == formHit {
				return h.body(s, sawInner, pos)
			}
		case "get":
			if s.form == formAround {
				return h.body(s, sawGet, pos)
			}
		}
		return h.skip(pos)
	})
	if err != nil {
		return end, err
	}
	for _, b := range s.bodies[:s.waiting] {
		if _, err := h.readBody(s, b.kind, b.pos); err != nil {
			return end, err
		}
	}
	return end, nil
}

// meta notes a metadata member, which must be a string.
func (h *hitReader) meta(s *slot, kind seenMember, to *span, pos int) (end int, err error) {
	s.saw.note(kind)
	if end, err = h.skip(pos); err != nil || h.b[pos] != '"' {
		return end, err
	}
	*to = span{pos, end}
	if s.doc >= 0 {
		if kind == sawIndex || s.isNested() {
			return end, errLate
		}
		d := &h.u.docs[s.doc] // what a look-up needs may follow the body
		d.id, d.routing = s.id, s.routing
	}
	return end, nil
}

// nestedPath reads the value of _nested: {"field":"items","offset":0,"_nested":{…}}.
func (h *hitReader) nestedPath(s *slot, pos, depth int) (end int, err error) {
	if depth > maxDepth || pos < len(h.b) && h.b[pos] != '{' {
		s.saw |= sawTwice // not what a server writes
		return h.skip(pos)
	}
	var field, deeper span
	end, err = h.members(pos, func(name []byte, pos int) (int, error) {
		end, err := h.skip(pos)
		if err != nil {
			return end, err
		}
		to := &field
		switch string(name) {
		case "_nested":
			to = &deeper
		case "field":
			if h.b[pos] != '"' {
				s.saw |= sawTwice
			}
		default:
			return end, nil
		}
		if to.there() {
			s.saw |= sawTwice
		}
		*to = span{pos, end}
		return end, nil
	})
	if err != nil {
		return end, err
	}
	if !field.there() || s.saw&sawTwice != 0 {
		s.saw |= sawTwice // no path, no place
		return end, nil
	}
	if len(s.nested) > 0 {
		s.nested = append(s.nested, '.')
	}
	if s.nested = unescape(s.nested, h.b[field.start+1:field.end-1]); emptyPart(s.nested) {
		s.saw |= sawTwice
	}
	if deeper.there() {
		_, err = h.nestedPath(s, deeper.start, depth+1)
	}
	return end, err
}

// body reads a body now, if what it depends on is known, or later.
func (h *hitReader) body(s *slot, kind seenMember, pos int) (end int, err error) {
	if s.saw&kind != 0 {
		s.saw |= sawTwice
		return h.skip(pos)
	}
	s.saw |= kind
	if !s.late && s.doc < 0 && s.saw&sawIndex == 0 {
		s.late = true
	}
	if s.late {
		s.bodies[s.waiting].kind, s.bodies[s.waiting].pos = kind, pos
		s.waiting++
		return h.skip(pos)
	}
	return h.readBody(s, kind, pos)
}

func (h *hitReader) readBody(s *slot, kind seenMember, pos int) (end int, err error) {
	h.settle(s)
	switch kind {
	case sawInner:
		return h.innerHits(s, pos)
	case sawGet:
		return h.getBody(s, pos)
	case sawSource:
		return h.source(s, pos)
	}
	return h.fields(s, pos)
}

// settle decides which document the slot shows: a nested hit shows a part of the document of the
// enclosing hit, any other hit a document of its own.
func (h *hitReader) settle(s *slot) {
	if s.doc >= 0 {
		return
	}
	if s.isNested() && s.enclosing >= 0 {
		e := &h.u.docs[s.enclosing]
		if (!s.index.there() || h.same(s.index, e.index)) && (!s.id.there() || h.same(s.id, e.id)) {
			s.doc = s.enclosing
			return
		}
	}
	var index []byte
	if s.index.there() {
		index = h.b[s.index.start:s.index.end]
	}
	d := shownDoc{index: s.index, id: s.id, routing: s.routing, seen: len(h.u.seen), t: h.resolve(index)}
	if d.t != nil {
		for range d.t.rules {
			h.u.seen = append(h.u.seen, subjectSeen{})
		}
	}
	s.doc = len(h.u.docs)
	h.u.docs = append(h.u.docs, d)
}

func (h *hitReader) same(a, b span) bool {
	return b.there() && bytes.Equal(h.b[a.start:a.end], h.b[b.start:b.end])
}

// source walks _source: the document, or of a nested hit the nested object.
func (h *hitReader) source(s *slot, pos int) (end int, err error) {
	d := &h.u.docs[s.doc]
	if d.t == nil || pos >= len(h.b) || h.b[pos] != '{' {
		return h.skip(pos)
	}
	n := d.t.root
	h.doc, h.subject = s.doc, !s.isNested()
	if s.isNested() {
		if n, _ = n.descend(s.nested); n == nil || n.field != nil {
			return h.skip(pos)
		}
	} else {
		d.whole = h.whole && s.enclosing < 0
	}
	return h.walkObject(pos, n, false, replyDepth)
}

// fields walks "fields", whose names are dotted paths from the document's root, of nested hits too. It never
// tells a subject: a runtime field can stand there under any name.
func (h *hitReader) fields(s *slot, pos int) (end int, err error) {
	d := &h.u.docs[s.doc]
	if d.t == nil || pos >= len(h.b) || h.b[pos] != '{' {
		return h.skip(pos)
	}
	h.doc, h.subject = s.doc, false
	return h.walkObject(pos, d.t.root, false, replyDepth)
}

// getBody reads "get" of an update or explain reply. The index is told outside it.
func (h *hitReader) getBody(s *slot, pos int) (end int, err error) {
	if pos >= len(h.b) || h.b[pos] != '{' {
		return h.skip(pos)
	}
	var saw seenMember
	end, err = h.members(pos, func(name []byte, pos int) (int, error) {
		switch string(name) {
		case "_source":
			saw.note(sawSource)
			return h.source(s, pos)
		case "fields":
			saw.note(sawFields)
			return h.fields(s, pos)
		case "_routing":
			saw.note(sawRouting)
			end, err := h.skip(pos)
			if err == nil && h.b[pos] == '"' {
				h.u.docs[s.doc].routing = span{pos, end}
			}
			return end, err
		}
		return h.skip(pos)
	})
	s.saw |= saw & sawTwice
	return end, err
}

// innerHits reads inner_hits: {"name":{"hits":{…,"hits":[…]}}}.
func (h *hitReader) innerHits(s *slot, pos int) (end int, err error) {
	only := func(want string, pos int, f func(pos int) (int, error)) (int, error) {
		if pos < len(h.b) && h.b[pos] != '{' {
			return h.skip(pos)
		}
		there := false
		return h.members(pos, func(name []byte, pos int) (int, error) {
			if string(name) != want {
				return h.skip(pos)
			}
			if there {
				s.saw |= sawTwice
			}
			there = true
			return f(pos)
		})
	}
	if pos < len(h.b) && h.b[pos] != '{' {
		return h.skip(pos)
	}
	return h.members(pos, func(_ []byte, pos int) (int, error) {
		return only("hits", pos, func(pos int) (int, error) {
			return only("hits", pos, func(pos int) (int, error) {
				if pos >= len(h.b) || h.b[pos] != '[' {
					return h.skip(pos)
				}
				return h.elements(pos, func(pos int) (int, error) {
					if h.b[pos] != '{' {
						return h.skip(pos)
					}
					return h.hit(pos, formHit, s.doc)
				})
			})
		})
	})
}

// item reads a bulk item, {"update":{…,"get":{…}}}.
func (h *hitReader) item(pos int) (end int, err error) {
	count := 0
	end, err = h.members(pos, func(name []byte, pos int) (int, error) {
		if count++; count > 1 || string(name) != "update" || pos < len(h.b) && h.b[pos] != '{' {
			return h.skip(pos)
		}
		return h.hit(pos, formAround, -1)
	})
	if count > 1 {
		h.u.reset()
	}
	return end, err
}

// document reads a bare document, the whole reply of GET _source.
func (h *hitReader) document(pos int) (end int, err error) {
	s := slot{enclosing: -1, doc: -1}
	h.settle(&s)
	return h.source(&s, pos)
}

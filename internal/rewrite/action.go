package rewrite

import (
	"bytes"
	"strconv"
	"strings"
	"unicode/utf8"
)

// actionKind is what a bulk action does.
type actionKind uint8

const (
	actionIndex actionKind = iota
	actionCreate
	actionUpdate
	actionDelete
)

var actionNames = [...]string{"index", "create", "update", "delete"}

func (k actionKind) String() string { return actionNames[k] }

// action is one bulk action, as its line tells it.
type action struct {
	kind    actionKind
	index   string // "" when the line names none
	id      string
	hasID   bool
	routing string
	seqNo   int64
	term    int64
	guarded bool // has if_seq_no
	version bool // has a version
	retry   int
	source  bool           // asks an update to return _source
	meta    []updateMember // of updates only: what a changed line is made of
}

// likeAction is an action line that was read, in two pieces: what stands before the text of its id, and what follows that. Most
// lines of a bulk differ in nothing else, and such a line needs no reading, which took 8 % of a bulk's time.
type likeAction struct {
	head, tail []byte // an empty head: no line. With an empty tail all of the line is head, and there is no id
	action     action
}

// learn remembers the line that was read into a. id is where the value of its _id stands, if it has one.
func (l *likeAction) learn(line []byte, a *action, id span) {
	l.head = l.head[:0]
	cut := len(line)
	if a.hasID {
		if cut = id.start + 1; line[id.start] != '"' {
			return
		}
	}
	if a.kind == actionUpdate || cut > maxLike { // of updates the places in the line are kept
		return
	}
	l.head = append(l.head, line[:cut]...)
	l.tail = append(l.tail[:0], line[max(cut, id.end-1):]...)
	l.action = *a
	l.action.id, l.action.meta = "", nil
}

// maxLike bounds what is compared.
const maxLike = 1 << 10

// id gives the text of the id in a line that is like the one that was learned. It holds nothing but ASCII that stands for itself.
func (l *likeAction) id(line []byte) (id []byte, ok bool) {
	n := len(line) - len(l.tail)
	if len(l.head) == 0 || n < len(l.head) || !bytes.Equal(line[:len(l.head)], l.head) || !bytes.Equal(line[n:], l.tail) {
		return nil, false
	}
	id = line[len(l.head):n]
	for _, c := range id {
		if c-' ' >= 0x7F-' ' || c == '"' || c == '\\' {
			return nil, false
		}
	}
	return id, len(l.tail) > 0 || len(id) == 0
}

// parseAction reads an action line: exactly one object with one action and nothing after it
// (BulkRequestParser accepts more, and reads it in its own way).
func (s *docScanner) parseAction(line []byte, a *action) error {
	if id, ok := s.like.id(line); ok {
		meta := a.meta[:0]
		*a = s.like.action
		a.meta = meta
		if a.hasID {
			a.id = s.texts.text(id)
		}
		return nil
	}
	s.idSpan = span{}
	if err := s.readAction(line, a); err != nil {
		return err
	}
	s.like.learn(line, a, s.idSpan)
	return nil
}

func (s *docScanner) readAction(line []byte, a *action) error {
	s.b, s.sealed = line, 1
	s.names.reset()
	*a = action{meta: a.meta[:0]}
	pos := skipSpace(line, 0)
	if pos >= len(line) || line[pos] != '{' {
		return badSyntax(pos, "expected an object")
	}
	frame := s.names.open()
	pos = skipSpace(line, pos+1)
	name, pos, err := s.name(&frame, pos, true)
	if err != nil {
		return err
	}
	switch string(name) {
	case "index":
		a.kind = actionIndex
	case "create":
		a.kind = actionCreate
	case "update":
		a.kind = actionUpdate
	case "delete":
		a.kind = actionDelete
	default:
		return badSyntax(0, "the action is none of index, create, update, delete")
	}
	if pos, err = skipColon(line, pos); err != nil {
		return err
	}
	if pos >= len(line) || line[pos] != '{' {
		return badSyntax(pos, "expected an object")
	}
	if pos, err = s.metadata(pos, a); err != nil {
		return err
	}
	if pos = skipSpace(line, pos); pos >= len(line) {
		return errShort
	}
	if line[pos] != '}' {
		return badSyntax(pos, "more than one action in a line")
	}
	return s.atEnd(pos + 1)
}

// metadata reads the object that follows the action's name.
func (s *docScanner) metadata(pos int, a *action) (int, error) {
	b := s.b
	frame := s.names.open()
	pos = skipSpace(b, pos+1)
	if pos < len(b) && b[pos] == '}' {
		return pos + 1, nil
	}
	for {
		raw, next, err := s.name(&frame, pos, true)
		if err != nil {
			return pos, err
		}
		m := updateMember{key: span{pos, next}}
		switch string(raw) { // no allocation for the names that every line has
		case "_index":
			m.name = "_index"
		case "_id":
			m.name = "_id"
		default:
			m.name = string(raw)
		}
		if pos, err = skipColon(b, next); err != nil {
			return pos, err
		}
		m.value.start = pos
		if pos, err = s.value(pos, nil, 3, false); err != nil {
			return pos, err
		}
		m.value.end = pos
		value := b[m.value.start:m.value.end]
		name := m.name
		if value[0] == 'n' {
			name = "" // null means the default
		}
		switch name {
		case "_index":
			if n := len(value); n == len(s.lastIndex)+2 && string(value[1:n-1]) == s.lastIndex && value[0] == '"' {
				a.index = s.lastIndex // the same as in the line before, most of the time
			} else {
				a.index, _, err = s.scalar(value)
				s.lastIndex = ""
				if strings.IndexByte(a.index, '\\') < 0 { // which, compared as written, could be an escape
					s.lastIndex = a.index
				}
			}
		case "_id":
			a.id, a.hasID, err = s.scalar(value)
			s.idSpan = m.value
		case "routing":
			a.routing, _, err = s.scalar(value)
		case "op_type":
			var op string
			op, _, err = s.scalar(value)
			if a.kind == actionIndex && op == "create" {
				a.kind = actionCreate
			}
		case "if_seq_no":
			a.seqNo, err = s.integer(value)
			a.guarded = true
		case "if_primary_term":
			a.term, err = s.integer(value)
		case "version":
			a.version = true
		case "retry_on_conflict":
			var n int64
			n, err = s.integer(value)
			a.retry = int(min(max(n, 0), maxRetries))
		case "_source":
			a.source = string(value) != "false" && string(value) != "null"
		}
		if err != nil {
			return m.value.start, err
		}
		if a.kind == actionUpdate {
			a.meta = append(a.meta, m)
		}
		pos = skipSpace(b, pos)
		if pos >= len(b) {
			return pos, errShort
		}
		switch b[pos] {
		case '}':
			return s.closeObject(&frame, pos)
		case ',':
			pos = skipSpace(b, pos+1)
		default:
			return pos, badSyntax(pos, "expected a comma or }")
		}
	}
}

// maxRetries bounds retry_on_conflict.
const maxRetries = 100

// scalar returns the text of a string, number or boolean; ok is false for null, which means the default.
func (s *docScanner) scalar(value []byte) (text string, ok bool, err error) {
	switch value[0] {
	case '"':
		value = value[1 : len(value)-1]
		if bytes.IndexByte(value, '\\') < 0 {
			return s.texts.text(value), true, nil
		}
		s.scratch = unescape(s.scratch[:0], value)
		if !utf8.Valid(s.scratch) { // Elasticsearch would replace it, so the name would mean another one
			return "", false, badSyntax(0, "a lone surrogate in the action")
		}
		return s.texts.text(s.scratch), true, nil
	case '{', '[':
		return "", false, badSyntax(0, "expected a simple value in the action")
	case 'n':
		return "", false, nil
	}
	return s.texts.text(value), true, nil
}

// integer reads a whole number, also one in quotes.
func (s *docScanner) integer(value []byte) (int64, error) {
	text, _, err := s.scalar(value)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, badSyntax(0, "expected a whole number in the action")
	}
	return n, nil
}

// appendUpdateAction appends the line of an update (no newline) in the form that goes upstream.
func (a *action) appendUpdateAction(dst, line []byte, form updateForm, was *before) []byte {
	if form == formUpdate || form == formBare {
		return append(dst, line...)
	}
	dst = append(dst, `{"`...)
	if form == formCreate {
		dst = append(dst, "create"...)
	} else {
		dst = append(dst, "update"...)
	}
	dst = append(dst, `":{`...)
	first := true
	for _, m := range a.meta {
		switch m.name {
		case "retry_on_conflict", "if_seq_no", "if_primary_term":
			continue
		case "_source", "op_type":
			if form == formCreate {
				continue
			}
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, line[m.key.start:m.key.end]...)
		dst = append(dst, ':')
		dst = append(dst, line[m.value.start:m.value.end]...)
	}
	if form == formGuarded {
		if !first {
			dst = append(dst, ',')
		}
		dst = append(dst, `"if_seq_no":`...)
		dst = strconv.AppendInt(dst, was.seq, 10)
		dst = append(dst, `,"if_primary_term":`...)
		dst = strconv.AppendInt(dst, was.term, 10)
	}
	return append(dst, `}}`...)
}

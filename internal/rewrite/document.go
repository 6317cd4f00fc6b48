package rewrite

import (
	"bytes"
	"errors"
	"hash/maphash"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/policy"
)

// found is one protected value in a document.
type found struct {
	start, end int // the value's place, without white space around it
	field      *policy.Field
	null       bool
	token      bool // a string of the reserved token grammar
}

// maxFound bounds the protected values of one document, and so what it takes when they are sealed.
const maxFound = 1 << 17

// subjectSeen is what a document says of one rule's subject.
type subjectSeen struct {
	count      int // over all spellings
	start, end int // the value's place
	inArray    bool
}

// part is what one document (or one of the two documents of an update line) holds.
type part struct {
	found []found
	subj  []subjectSeen // by place of the rule in the target
}

func (p *part) reset(rules int) {
	if p.found == nil {
		p.found = make([]found, 0, 4)
	}
	p.found = p.found[:0]
	if cap(p.subj) < rules {
		p.subj = make([]subjectSeen, rules)
	}
	p.subj = p.subj[:rules]
	clear(p.subj)
}

// names remembers hashes of the member names of the objects that are open, to find duplicates: eight bytes
// for a name, and no object takes more than n log n steps. Two different names collide with a chance of 2^-64; the
// seed is random.
type names struct {
	seed  maphash.Seed
	stack []uint64
}

// nameFrame is one open object.
type nameFrame struct {
	base, count int
	seen        [4]uint64 // one bit for some bits of each name's hash
}

// fewNames is how many names are compared one by one; the names of larger objects are sorted at their end.
const fewNames = 64

func (n *names) open() nameFrame { return nameFrame{base: len(n.stack)} }

// add reports whether name is new in f, as far as that is told before the object ends.
func (n *names) add(f *nameFrame, name []byte) bool { return n.addHash(f, maphash.Bytes(n.seed, name)) }

func (n *names) addHash(f *nameFrame, h uint64) bool {
	if f.count < fewNames {
		word, bit := &f.seen[h>>62], uint64(1)<<(h>>56&63)
		if *word&bit != 0 {
			for _, have := range n.stack[f.base:] {
				if have == h {
					return false
				}
			}
		}
		*word |= bit
	}
	f.count++
	n.stack = append(n.stack, h)
	return true
}

// close forgets the names of f, the innermost open object, and reports whether no name was there twice.
func (n *names) close(f *nameFrame) bool {
	all := n.stack[f.base:]
	n.stack = n.stack[:f.base]
	if f.count <= fewNames {
		return true
	}
	slices.Sort(all)
	for i := 1; i < len(all); i++ {
		if all[i] == all[i-1] {
			return false
		}
	}
	return true
}

func (n *names) reset() {
	if cap(n.stack) > 1<<12 {
		n.stack = nil
	}
	n.stack = n.stack[:0]
}

// docScanner reads documents for one protected target: one strict pass that finds the protected
// values and the subjects. It is reused and for one goroutine.
type docScanner struct {
	b       []byte
	isToken func([]byte) bool
	names   names
	guesses guesses
	scratch []byte
	texts   texts // of actions
	// lastIndex is the index of the last action that named one; it has no backslash.
	lastIndex string
	like      likeAction
	idSpan    span // of the last action's _id
	cur       *part
	sealed    int // above zero: inside a protected value, where strings are not looked at
}

func newDocScanner(isToken func([]byte) bool) *docScanner {
	return &docScanner{isToken: isToken, names: names{seed: maphash.MakeSeed()}}
}

var (
	errTokenElsewhere = errors.New("a sealed value at a place that no rule protects")
	errReservedName   = errors.New("a reserved member name")
)

// document reads b, which must be exactly one object, into p.
func (s *docScanner) document(b []byte, t *target, p *part) error {
	s.b, s.cur, s.sealed = b, p, 0
	s.names.reset()
	p.reset(len(t.rules))
	pos := skipSpace(b, 0)
	if pos >= len(b) || b[pos] != '{' {
		return badSyntax(pos, "expected an object")
	}
	pos, err := s.object(pos, t.root, 1, false, true)
	if err != nil {
		return err
	}
	return s.atEnd(pos)
}

func (s *docScanner) atEnd(pos int) error {
	if pos = skipSpace(s.b, pos); pos < len(s.b) {
		return badSyntax(pos, "something after the end")
	}
	return nil
}

// value reads the value at pos. n is the node of its path, nil when nothing is protected at or below it.
func (s *docScanner) value(pos int, n *node, depth int, inArray bool) (end int, err error) {
	if pos >= len(s.b) {
		return pos, errShort
	}
	if depth > maxDepth {
		return pos, badSyntax(pos, "nested too deep")
	}
	switch c := s.b[pos]; {
	case c == '"':
		end, flags, err := scanString(s.b, pos)
		if err == nil && s.sealed == 0 && s.looksSealed(pos, end, flags) {
			err = errTokenElsewhere
		}
		return end, err
	case c == '{':
		return s.object(pos, n, depth, inArray, false)
	case c == '[':
		return s.array(pos, n, depth)
	case c == '-' || c-'0' <= 9:
		return scanNumber(s.b, pos)
	case c == 't' || c == 'f' || c == 'n':
		return scanLiteral(s.b, pos)
	}
	return pos, badSyntax(pos, "expected a value")
}

// looksSealed reports whether the string at pos is of the reserved token grammar.
func (s *docScanner) looksSealed(pos, end int, flags stringFlags) bool {
	raw := s.b[pos+1 : end-1]
	if len(raw) == 0 || raw[0] != 'e' && raw[0] != '\\' {
		return false
	}
	if flags&hasEscape != 0 {
		s.scratch = unescape(s.scratch[:0], raw)
		raw = s.scratch
	}
	return s.isToken(raw)
}

func (s *docScanner) array(pos int, n *node, depth int) (int, error) {
	pos = skipSpace(s.b, pos+1)
	if pos < len(s.b) && s.b[pos] == ']' {
		return pos + 1, nil
	}
	for {
		var err error
		if pos, err = s.value(pos, n, depth+1, true); err != nil {
			return pos, err
		}
		pos = skipSpace(s.b, pos)
		if pos >= len(s.b) {
			return pos, errShort
		}
		switch s.b[pos] {
		case ']':
			return pos + 1, nil
		case ',':
			pos = skipSpace(s.b, pos+1)
		default:
			return pos, badSyntax(pos, "expected a comma or ]")
		}
	}
}

func (s *docScanner) object(pos int, n *node, depth int, inArray, root bool) (int, error) {
	frame := s.names.open()
	pos = skipSpace(s.b, pos+1)
	if pos < len(s.b) && s.b[pos] == '}' {
		return pos + 1, nil
	}
	g := guessing{}
	if root && s.sealed == 0 {
		g.begin(&s.guesses, n)
	}
	for {
		child, next, ok := g.name(s.b, pos)
		if !ok {
			g.missed(&s.names, &frame)
			var name []byte
			var err error
			if name, next, err = s.name(&frame, pos, n != nil || root); err != nil {
				return next, err
			}
			if s.sealed == 0 {
				if isReservedMember(name) || root && isSourceMember(name) {
					return pos, errReservedName
				}
			}
			var below bool
			if child, below = n.descend(name); below {
				return pos, badSyntax(pos, "a member below a protected field")
			}
			g.learn(&s.names, s.b[pos:next], len(name), child)
		}
		var err error
		if pos, err = skipColon(s.b, next); err != nil {
			return pos, err
		}
		if child == nil {
			pos, err = s.value(pos, nil, depth+1, inArray)
		} else {
			pos, err = s.known(pos, child, depth+1, inArray)
		}
		if err != nil {
			return pos, err
		}
		pos = skipSpace(s.b, pos)
		if pos >= len(s.b) {
			return pos, errShort
		}
		switch s.b[pos] {
		case '}':
			return s.closeObject(&frame, pos)
		case ',':
			pos = skipSpace(s.b, pos+1)
		default:
			return pos, badSyntax(pos, "expected a comma or }")
		}
	}
}

// closeObject ends the object whose closing brace is at pos.
func (s *docScanner) closeObject(frame *nameFrame, pos int) (int, error) {
	if !s.names.close(frame) {
		return pos, badSyntax(pos, "a member name twice in the object that ends")
	}
	return pos + 1, nil
}

// name reads and checks the member name at pos. The result is valid until the next call.
func (s *docScanner) name(frame *nameFrame, pos int, onPath bool) (name []byte, end int, err error) {
	end, flags, err := scanName(s.b, pos)
	if err != nil {
		return nil, end, err
	}
	name = s.b[pos+1 : end-1]
	if flags&hasEscape != 0 {
		if flags&hasLoneSurrogate != 0 {
			return nil, pos, badSyntax(pos, "a lone surrogate in a member name")
		}
		s.scratch = unescape(s.scratch[:0], name)
		name = s.scratch
	}
	if !s.names.add(frame, name) {
		return nil, pos, badSyntax(pos, "a member name twice in one object")
	}
	if len(name) > 0 && name[len(name)-1] == '.' {
		return nil, pos, badSyntax(pos, "a member name that ends with a dot")
	}
	if onPath && emptyPart(name) {
		return nil, pos, badSyntax(pos, "a member name with an empty part")
	}
	return name, end, nil
}

// known reads a value whose path is on the way to, or at, something the rules name.
func (s *docScanner) known(pos int, n *node, depth int, inArray bool) (end int, err error) {
	if n.field == nil {
		if end, err = s.value(pos, n, depth, inArray); err == nil && n.subject > 0 {
			s.sawSubject(n, pos, end, inArray)
		}
		return end, err
	}
	s.sealed++
	end, err = s.value(pos, nil, depth, inArray)
	s.sealed--
	if err != nil {
		return end, err
	}
	if len(s.cur.found) >= maxFound {
		return end, &Fault{Status: 413, Type: "esproxy_document_too_large", Reason: "one document may have at most " + strconv.Itoa(maxFound) + " protected values: each grows by some two hundred bytes when it is sealed"}
	}
	f := found{start: pos, end: end, field: n.field}
	switch s.b[pos] {
	case 'n':
		f.null = true
	case '"':
		f.token = s.looksSealed(pos, end, hasEscape)
	}
	s.cur.found = append(s.cur.found, f)
	return end, nil
}

func (s *docScanner) sawSubject(n *node, start, end int, inArray bool) {
	see := func(rule int) {
		x := &s.cur.subj[rule]
		x.count++
		x.start, x.end, x.inArray = start, end, x.inArray || inArray
	}
	see(n.subject - 1)
	for _, rule := range n.also {
		see(rule)
	}
}

// isReservedMember reports whether a part of the dotted name begins with the reserved prefix.
func isReservedMember(name []byte) bool {
	return bytes.HasPrefix(name, []byte(reservedMember)) || bytes.IndexByte(name, '.') >= 0 && bytes.Contains(name, []byte("."+reservedMember))
}

// isSourceMember reports whether a root member is Elasticsearch's own _source.
func isSourceMember(name []byte) bool {
	return string(name) == "_source" || bytes.HasPrefix(name, []byte("_source."))
}

// maxSubject is the longest subject in bytes.
const maxSubject = 512

// subjectText appends the subject that the JSON value raw stands for: a string of 1 to 512 bytes of
// valid UTF-8, or an integer of at most 18 digits, which equals its decimal string.
func subjectText(dst, raw []byte) (out []byte, ok bool) {
	if len(raw) < 1 {
		return dst, false
	}
	if raw[0] == '"' {
		base := len(dst)
		dst = unescape(dst, raw[1:len(raw)-1])
		text := dst[base:]
		return dst, len(text) >= 1 && len(text) <= maxSubject && utf8.Valid(text)
	}
	digits := raw
	if raw[0] == '-' {
		digits = raw[1:]
		if string(digits) == "0" {
			return dst, false
		}
	}
	if len(digits) < 1 || len(digits) > 18 {
		return dst, false
	}
	for _, c := range digits {
		if c-'0' > 9 {
			return dst, false
		}
	}
	return append(dst, raw...), true
}

// subject returns the one subject of rule i in p, or a Fault that says why there is none. It may share memory with b.
func (p *part) subject(b []byte, i int, r *policy.Rule) ([]byte, *Fault) {
	seen := p.subj[i]
	switch {
	case seen.count == 0:
		return nil, subjectFault(r, "the document has no value there")
	case seen.count > 1:
		return nil, subjectFault(r, "the document has it in more than one spelling")
	case seen.inArray:
		return nil, subjectFault(r, "it is inside an array")
	}
	raw := b[seen.start:seen.end]
	if len(raw) > 2 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		raw = raw[1 : len(raw)-1] // the usual case: no copy. scanString has seen to it that this is UTF-8
		if len(raw) <= maxSubject {
			return raw, nil
		}
	}
	text, ok := subjectText(nil, b[seen.start:seen.end])
	if !ok {
		return nil, subjectFault(r, "the value is neither a string of 1 to 512 bytes of UTF-8 nor an integer of at most 18 digits")
	}
	return text, nil
}

func subjectFault(r *policy.Rule, why string) *Fault {
	return &Fault{Status: 400, Type: "esproxy_subject", Reason: "rule [" + r.Name + "] needs exactly one subject at [" + r.Subject + "] to seal the document's protected values: " + why}
}

// documentFault turns an error of the scanner into the refusal of one document.
func documentFault(err error) *Fault {
	var syntax *syntaxError
	switch {
	case errors.Is(err, errTokenElsewhere):
		return &Fault{Status: 400, Type: "esproxy_misplaced_token", Reason: "the document holds a sealed value outside the field it was sealed for; leave it out, or write the plain value to the protected field"}
	case errors.Is(err, errReservedName):
		return &Fault{Status: 400, Type: "esproxy_reserved_name", Reason: "the document has a member whose name is reserved (a name that begins with esproxy_, or _source at the root); rename it"}
	case errors.As(err, &syntax):
		return &Fault{Status: 400, Type: "esproxy_bad_document", Reason: "the document is not JSON that can be read in one way only (RFC 8259): " + syntax.Error()}
	case errors.Is(err, errShort):
		return &Fault{Status: 400, Type: "esproxy_bad_document", Reason: "the document is not JSON that can be read in one way only (RFC 8259): it ends too early"}
	}
	return asFault(err)
}

// asFault gives err as a Fault; what is none becomes an internal error.
func asFault(err error) *Fault {
	var f *Fault
	if errors.As(err, &f) {
		return f
	}
	return &Fault{Status: 500, Type: "esproxy_internal", Reason: "the proxy failed on this request; its log has the cause", Cause: err}
}

// tooLargeFault refuses one document or body that is held whole.
func tooLargeFault(limit int64) *Fault {
	return &Fault{Status: 413, Type: "esproxy_document_too_large", Reason: "one document may have at most " + strconv.FormatInt(limit, 10) + " bytes; raise ESPROXY_MAX_DOCUMENT, or send smaller documents"}
}

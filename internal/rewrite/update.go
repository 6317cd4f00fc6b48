package rewrite

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// span is a place in a body.
type span struct{ start, end int }

func (s span) there() bool { return s.end > 0 }

// updateMember is one root member of an update body.
type updateMember struct {
	name  string
	key   span // with its quotes
	value span
}

// updateBody is what the body of an update (UpdateRequest) holds: `doc` is a partial document,
// `upsert` a whole one.
type updateBody struct {
	b                           []byte
	members                     []updateMember
	doc, upsert                 span
	docPart, upsertPart         part
	script, guarded             bool
	docAsUpsert, scriptedUpsert bool
}

// update reads b, an update body for target t, into u.
func (s *docScanner) update(b []byte, t *target, u *updateBody) error {
	s.b, s.sealed = b, 0
	s.names.reset()
	*u = updateBody{b: b, members: u.members[:0], docPart: u.docPart, upsertPart: u.upsertPart}
	u.docPart.reset(len(t.rules))
	u.upsertPart.reset(len(t.rules))
	pos := skipSpace(b, 0)
	if pos >= len(b) || b[pos] != '{' {
		return badSyntax(pos, "expected an object")
	}
	frame := s.names.open()
	pos = skipSpace(b, pos+1)
	if pos < len(b) && b[pos] == '}' {
		return s.atEnd(pos + 1)
	}
	for {
		name, next, err := s.name(&frame, pos, true)
		if err != nil {
			return err
		}
		m := updateMember{name: string(name), key: span{pos, next}}
		if pos, err = skipColon(b, next); err != nil {
			return err
		}
		m.value.start = pos
		if pos, err = s.updateMember(u, m.name, pos, t); err != nil {
			return err
		}
		m.value.end = pos
		u.members = append(u.members, m)
		switch m.name {
		case "doc":
			u.doc = m.value
		case "upsert":
			u.upsert = m.value
		}
		pos = skipSpace(b, pos)
		if pos >= len(b) {
			return errShort
		}
		switch b[pos] {
		case '}':
			return s.atEnd(pos + 1)
		case ',':
			pos = skipSpace(b, pos+1)
		default:
			return badSyntax(pos, "expected a comma or }")
		}
	}
}

// updateMember reads the value of one root member of an update body.
func (s *docScanner) updateMember(u *updateBody, name string, pos int, t *target) (end int, err error) {
	if pos >= len(s.b) {
		return pos, errShort
	}
	c := s.b[pos]
	document := func(p *part) (int, error) {
		if c != '{' {
			return pos, badSyntax(pos, "expected an object")
		}
		s.cur = p
		return s.object(pos, t.root, 2, false, true)
	}
	flag := func(to *bool) (int, error) {
		if c != 't' && c != 'f' {
			return pos, badSyntax(pos, "expected true or false")
		}
		*to = c == 't'
		return scanLiteral(s.b, pos)
	}
	switch name {
	case "doc":
		return document(&u.docPart)
	case "upsert":
		return document(&u.upsertPart)
	case "doc_as_upsert":
		return flag(&u.docAsUpsert)
	case "scripted_upsert":
		return flag(&u.scriptedUpsert)
	case "script":
		u.script = true
	case "if_seq_no", "if_primary_term":
		u.guarded = true
	case "detect_noop", "_source":
	default:
		return pos, badSyntax(pos, "an unknown member of an update")
	}
	s.sealed++ // nothing in these is a document
	end, err = s.value(pos, nil, 2, false)
	s.sealed--
	return end, err
}

// check refuses what Elasticsearch refuses for the whole bulk (UpdateRequest.validate), and scripts.
func (u *updateBody) check(t *target) *Fault {
	bad := func(what string) *Fault {
		return &Fault{Status: 400, Type: "esproxy_bad_document", Reason: "the update cannot be carried out: " + what}
	}
	switch {
	case u.script && u.doc.there():
		return bad("it has both a script and a doc; send one of them")
	case !u.script && !u.doc.there():
		return bad("it has neither a script nor a doc; send one of them")
	case u.guarded: // it would beat the guard that the proxy adds (seen on 8.19.8)
		return bad("its body has if_seq_no or if_primary_term; give them in the URL or in the action line")
	case u.docAsUpsert && u.upsert.there():
		return bad("it has both doc_as_upsert and an upsert; send one of them")
	}
	if u.script || u.scriptedUpsert {
		return scriptFault(t)
	}
	return nil
}

// checkGuarded refuses what Elasticsearch refuses of an update under the client's own condition: with a look-up it
// would go up in a form that passes there.
func (u *updateBody) checkGuarded() *Fault {
	if u.docAsUpsert || u.upsert.there() {
		return &Fault{Status: 400, Type: "action_request_validation_exception", Reason: "Validation Failed: 1: upsert requests don't support `if_seq_no` and `if_primary_term`;"}
	}
	return nil
}

// scriptFault refuses a script that writes to t, unless all its rules allow scripts.
func scriptFault(t *target) *Fault {
	for _, r := range t.rules {
		if !r.AllowScripts {
			return &Fault{Status: 400, Type: "esproxy_script_refused", Reason: "a script may build the name of a protected field while it runs, so scripts do not write to targets under rule [" + r.Name + "]; send a partial document, or set scripts: allow in the rule"}
		}
	}
	return nil
}

// needsStored reports whether the stored document must be looked up before u can be sealed: it holds protected values,
// or it brings a subject.
func (u *updateBody) needsStored(t *target) bool {
	if !u.doc.there() {
		return false
	}
	for i, r := range t.rules {
		if r.Subject != "" && (u.docPart.has(r) || u.docPart.subj[i].count > 0) {
			return true
		}
	}
	return u.docPart.writesBack()
}

// before is what is known of the document that an update changes.
type before struct {
	found   bool
	stored  *storedValues // nil when only an earlier item of the same bulk tells
	subj    subjects      // by rule; nil entries: none
	guarded bool          // seq and term are those of a look-up
	seq     int64
	term    int64
}

// readStored reads what a look-up found for target t.
func (s *docScanner) readStored(doc Stored, t *target) (*before, *Fault) {
	if !doc.Found {
		return &before{}, nil
	}
	v := &storedValues{b: doc.Source}
	out := &before{found: true, stored: v, subj: make(subjects, len(t.rules)), guarded: true, seq: doc.SeqNo, term: doc.PrimaryTerm}
	v.part.reset(len(t.rules))
	if len(doc.Source) == 0 {
		return out, nil
	}
	isToken := s.isToken
	s.isToken = func([]byte) bool { return false }
	err := s.document(doc.Source, t, &v.part)
	s.isToken = isToken
	if err != nil {
		return nil, &Fault{Status: 409, Type: "esproxy_stored_document", Reason: "the stored document cannot be read in one way only, so a partial update cannot be sealed for its subject; write the whole document"}
	}
	for i, r := range t.rules {
		if r.Subject == "" || v.part.subj[i].count == 0 {
			continue
		}
		text, fault := v.part.subject(v.b, i, r)
		if fault != nil {
			return nil, fault
		}
		out.subj[i] = text
	}
	return out, nil
}

// updateForm is how an update goes upstream.
type updateForm uint8

const (
	formUpdate  updateForm = iota // as it came, sealed
	formGuarded                   // without upsert, only if the document is still the one that was looked up
	formBare                      // without upsert and without guard
	formCreate                    // as a create of the upsert document
)

// decide tells how u goes upstream and under which subjects, given what it changes.
func (u *updateBody) decide(t *target, was *before) (form updateForm, known subjects, fault *Fault) {
	if !was.found {
		switch {
		case u.docAsUpsert, u.upsert.there():
			return formCreate, nil, nil
		}
		return 0, nil, &Fault{Status: 404, Type: "document_missing_exception", Reason: "the document to update is missing"}
	}
	known = make(subjects, len(t.rules))
	for i, r := range t.rules {
		if r.Subject == "" {
			continue
		}
		known[i] = was.subj[i]
		if u.docPart.subj[i].count == 0 {
			if known[i] == nil && u.docPart.has(r) {
				return 0, nil, subjectFault(r, "neither the update nor the stored document has a value there")
			}
			continue
		}
		brought, fault := u.docPart.subject(u.b, i, r)
		if fault != nil {
			return 0, nil, fault
		}
		if was.stored != nil && was.subj[i] != nil && slices.ContainsFunc(t.placesOf(r.SubjectParts), func(parts []string) bool {
			return len(parts) > 1 && spelling(was.stored.b, 0, parts) != spelling(u.b, u.doc.start, parts)
		}) {
			return 0, nil, subjectFault(r, "the update spells the path otherwise than the stored document (dotted or nested), which would then have both; spell it as the stored document does")
		}
		if !bytes.Equal(brought, was.subj[i]) && !u.resends(r, was.stored) {
			return 0, nil, &Fault{Status: 400, Type: "esproxy_subject_change", Reason: "the update changes the subject [" + r.Subject + "] of rule [" + r.Name + "] and leaves sealed values that would no longer open; send all protected fields of the document with it"}
		}
		known[i] = brought
	}
	if was.guarded {
		return formGuarded, known, nil
	}
	return formBare, known, nil
}

// resends reports whether u's doc has every field of r that the stored document has. Without
// a stored document at hand every field of the rule counts.
func (u *updateBody) resends(r *policy.Rule, stored *storedValues) bool {
	sent := func(f *policy.Field) bool {
		for i := range u.docPart.found {
			if u.docPart.found[i].field == f {
				return true
			}
		}
		return false
	}
	if stored == nil {
		for _, f := range r.Fields {
			if !sent(f) {
				return false
			}
		}
		return true
	}
	for i := range stored.part.found {
		f := &stored.part.found[i]
		if f.field.Rule == r && !f.null && !sent(f.field) {
			return false
		}
	}
	return true
}

// appendUpdate appends u in the given form, sealed. For formCreate that is the whole document.
func (s *sealing) appendUpdate(dst []byte, u *updateBody, t *target, form updateForm, known subjects, stored *storedValues) ([]byte, error) {
	if form == formCreate {
		if u.docAsUpsert {
			return s.seal(dst, u.b, u.doc.start, u.doc.end, t, &u.docPart, nil, nil)
		}
		return s.seal(dst, u.b, u.upsert.start, u.upsert.end, t, &u.upsertPart, nil, nil)
	}
	if form == formUpdate && len(u.docPart.found)+len(u.upsertPart.found) == 0 {
		return append(dst, u.b...), nil
	}
	dst = append(dst, '{')
	first := true
	for _, m := range u.members {
		if form != formUpdate && (m.name == "upsert" || m.name == "doc_as_upsert") {
			continue
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, u.b[m.key.start:m.key.end]...)
		dst = append(dst, ':')
		var err error
		switch m.name {
		case "doc":
			dst, err = s.seal(dst, u.b, m.value.start, m.value.end, t, &u.docPart, known, stored)
		case "upsert":
			dst, err = s.seal(dst, u.b, m.value.start, m.value.end, t, &u.upsertPart, nil, nil)
		default:
			dst = append(dst, u.b[m.value.start:m.value.end]...)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// conflictFault is what Elasticsearch answers when a document is not the one that the client's own
// if_seq_no and if_primary_term name.
func conflictFault(was *before) *Fault {
	return &Fault{Status: 409, Type: "version_conflict_engine_exception", Reason: "version conflict: the document has sequence number [" + strconv.FormatInt(was.seq, 10) + "] and primary term [" + strconv.FormatInt(was.term, 10) + "], not the required ones"}
}

// asksSource reports whether the update wants the document back.
func (u *updateBody) asksSource() bool {
	for _, m := range u.members {
		if m.name == "_source" {
			v := u.b[m.value.start:m.value.end]
			return string(v) != "false" && string(v) != "null"
		}
	}
	return false
}

// spelling tells how the object at pos of b, which was read before, spells the path of parts: its member names, each with its
// length. "" means that it has none.
func spelling(b []byte, pos int, parts []string) string {
	if len(parts) == 0 {
		return "."
	}
	pos = skipSpace(b, pos)
	if pos >= len(b) || b[pos] != '{' {
		return ""
	}
	pos = skipSpace(b, pos+1)
	for pos < len(b) && b[pos] == '"' {
		end, _, err := scanName(b, pos)
		if err != nil {
			return ""
		}
		name := string(unescape(nil, b[pos+1:end-1]))
		value, err := skipColon(b, end)
		if err != nil {
			return ""
		}
		for n := 1; n <= len(parts); n++ {
			if name != strings.Join(parts[:n], ".") {
				continue
			}
			if rest := spelling(b, value, parts[n:]); rest != "" {
				return strconv.Itoa(n) + rest
			}
		}
		if pos, err = skipValue(b, value, 0); err != nil {
			return ""
		}
		if pos = skipSpace(b, pos); pos >= len(b) || b[pos] != ',' {
			return ""
		}
		pos = skipSpace(b, pos+1)
	}
	return ""
}

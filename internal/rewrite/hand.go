package rewrite

import "github.com/esproxy/esproxy/internal/policy"

// hand opens the values of units. Each goroutine that opens has one of its own.
type hand struct {
	o       *opening
	session OpenSession

	plain, masked, subject []byte // scratch
}

// close forgets keys and plaintext.
func (h *hand) close() {
	h.session.Close()
	clear(h.plain[:cap(h.plain)])
	clear(h.masked[:cap(h.masked)])
	clear(h.subject[:cap(h.subject)])
}

// emitter takes the output of a hand.
type emitter interface{ emit(p []byte) error }

// open puts out raw with the tokens of u opened, where subject, scope, path and grant agree. It notes in the tokens what
// became of them.
func (h *hand) open(to emitter, raw []byte, u *unit, found *lookedUp) error {
	done := 0
	doc, rule, reason := -1, -1, ""
	var subject []byte
	for i := range u.tokens {
		p := &u.tokens[i]
		if p.field.how == policy.Sealed {
			p.reason = noGrant
			continue
		}
		if p.doc != doc || p.rule != rule {
			doc, rule = p.doc, p.rule
			subject, reason = h.subjectOf(raw, u, p, found)
		}
		if reason != "" {
			p.reason = reason
			continue
		}
		f := p.field.field
		value, err := h.session.Open(h.plain[:0], f.Rule, f.Path, subject, raw[p.start+1:p.end-1])
		if err != nil {
			p.reason = reasonOf(err)
			continue
		}
		h.plain = value
		if p.field.how == policy.Masked {
			h.masked = h.o.viewer.Mask(h.masked[:0], f, value)
			value = h.masked
		}
		if err := to.emit(raw[done:p.start]); err != nil {
			return err
		}
		if err := to.emit(value); err != nil {
			return err
		}
		done = p.end
		p.shown = true
	}
	return to.emit(raw[done:])
}

// reasonOf gives the class of an error of an OpenSession.
func reasonOf(err error) string {
	if e, ok := err.(interface{ Reason() string }); ok && e.Reason() != "" {
		return e.Reason()
	}
	return notAuthentic
}

// subjectOf gives the subject for a token, nil where the rule has none. reason says why there is no subject.
func (h *hand) subjectOf(raw []byte, u *unit, p *tokenPlace, found *lookedUp) (subject []byte, reason string) {
	d := &u.docs[p.doc]
	if d.t.rules[p.rule].Subject == "" {
		return nil, ""
	}
	seen := &u.seen[d.seen+p.rule]
	if seen.count == 0 && found != nil && h.wantsSubject(raw, u, p) {
		return h.storedSubject(h.ref(raw, d), d.t, p.rule, found)
	}
	return h.theSubject(raw, seen)
}

// theSubject is the text of the one subject that was seen in raw.
func (h *hand) theSubject(raw []byte, seen *subjectSeen) (subject []byte, reason string) {
	if seen.count != 1 || seen.inArray {
		return nil, noSubject
	}
	text, ok := subjectText(h.subject[:0], raw[seen.start:seen.end])
	h.subject = text
	if !ok {
		return nil, noSubject
	}
	return text, ""
}

// wantsSubject reports whether the token needs a subject that only a look-up can tell.
func (h *hand) wantsSubject(raw []byte, u *unit, p *tokenPlace) bool {
	d := &u.docs[p.doc]
	if p.field.how == policy.Sealed || d.t.rules[p.rule].Subject == "" || d.whole || u.seen[d.seen+p.rule].count > 0 {
		return false
	}
	// A document of a remote cluster can't be looked up: no endpoint reads one by its id there.
	return !d.t.remote && (d.index.there() || h.o.index != "") && (d.id.there() || h.o.id != "")
}

// ref names the document of a look-up.
func (h *hand) ref(raw []byte, d *shownDoc) Ref {
	text := func(s span, otherwise string) string {
		if !s.there() {
			return otherwise
		}
		return string(unescape(nil, raw[s.start+1:s.end-1]))
	}
	return Ref{Index: text(d.index, h.o.index), ID: text(d.id, h.o.id), Routing: text(d.routing, h.o.routing)}
}

// storedSubject reads a rule's subject from a document that was looked up.
func (h *hand) storedSubject(ref Ref, t *shownTarget, rule int, found *lookedUp) (subject []byte, reason string) {
	if found.failed {
		return nil, lookupFailed
	}
	doc := found.docs[ref]
	pos := skipSpace(doc.Source, 0)
	if !doc.Found || pos >= len(doc.Source) || doc.Source[pos] != '{' {
		return nil, noSubject
	}
	u := unit{docs: []shownDoc{{t: t}}, seen: make([]subjectSeen, len(t.rules))}
	reader := hitReader{b: doc.Source, u: &u, subject: true}
	if _, err := reader.walkObject(pos, t.root, false, replyDepth); err != nil {
		return nil, noSubject
	}
	return h.theSubject(doc.Source, &u.seen[rule])
}

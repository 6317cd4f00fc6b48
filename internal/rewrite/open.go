package rewrite

import "github.com/esproxy/esproxy/internal/policy"

// put writes the unit raw that r.u describes, opened, or holds it until its subjects are looked up.
func (r *replier) put(raw []byte) error {
	if len(r.u.tokens) == 0 {
		return r.s.emit(raw)
	}
	if !r.mustLookUp(raw) {
		return r.open(raw, &r.u, nil)
	}
	if len(r.s.obuf)+len(raw) > maxHeld {
		if err := r.release(); err != nil {
			return err
		}
		if err := r.s.flush(); err != nil {
			return err
		}
	}
	if len(raw) > maxHeld {
		return r.open(raw, &r.u, r.lookUp([]lookedAt{{raw, &r.u}}))
	}
	if err := r.hold(); err != nil {
		return err
	}
	n := len(r.held)
	if n < cap(r.held) {
		r.held = r.held[:n+1] // with the slices of an earlier unit
	} else {
		r.held = append(r.held, heldUnit{})
	}
	r.held[n].base = len(r.s.obuf)
	r.held[n].u, r.u = r.u, r.held[n].u
	if err := r.s.emit(raw); err != nil {
		return err
	}
	if len(r.held) >= maxBlock {
		return r.release()
	}
	return nil
}

// hold makes the output wait in a buffer of maxHeld bytes.
func (r *replier) hold() error {
	if r.s.hold {
		return nil
	}
	if r.big == nil {
		if err := r.s.acquire(maxHeld); err != nil {
			return err
		}
		r.big = make([]byte, 0, maxHeld)
	}
	r.small = r.s.obuf
	r.s.obuf = append(r.big[:0], r.small...)
	r.big = nil
	r.s.hold = true
	return nil
}

// release looks up the subjects that held units wait for, opens these and lets the output go.
func (r *replier) release() error {
	if !r.s.hold {
		return nil
	}
	text := r.s.obuf
	asked := make([]lookedAt, len(r.held))
	for i := range r.held {
		asked[i] = lookedAt{text[r.held[i].base:], &r.held[i].u}
	}
	found := r.lookUp(asked)
	r.s.hold = false
	r.s.obuf, r.big = r.small[:0], text
	done := 0
	for i := range r.held {
		base, u := r.held[i].base, &r.held[i].u
		if err := r.s.emit(text[done:base]); err != nil {
			return err
		}
		done = base + u.tokens[len(u.tokens)-1].end // tokens are in the order of the text
		if err := r.open(text[base:done], u, found); err != nil {
			return err
		}
	}
	r.held = r.held[:0]
	return r.s.emit(text[done:])
}

// open puts out raw with the tokens of u opened, where subject, scope, path and grant agree.
func (r *replier) open(raw []byte, u *unit, found *lookedUp) error {
	done := 0
	doc, rule, reason := -1, -1, ""
	var subject []byte
	for i := range u.tokens {
		p := &u.tokens[i]
		if p.field.how == policy.Sealed {
			r.unopened(noGrant, 1)
			continue
		}
		if p.doc != doc || p.rule != rule {
			doc, rule = p.doc, p.rule
			subject, reason = r.subjectOf(raw, u, p, found)
		}
		if reason != "" {
			r.unopened(reason, 1)
			continue
		}
		f := p.field.field
		value, err := r.session.Open(r.plain[:0], f.Rule, f.Path, subject, raw[p.start+1:p.end-1])
		if err != nil {
			r.unopened(reasonOf(err), 1)
			continue
		}
		r.plain = value
		if p.field.how == policy.Masked {
			r.masked = r.o.viewer.Mask(r.masked[:0], f, value)
			value = r.masked
		}
		if err := r.s.emit(raw[done:p.start]); err != nil {
			return err
		}
		if err := r.s.emit(value); err != nil {
			return err
		}
		done = p.end
		p.field.opened++
	}
	return r.s.emit(raw[done:])
}

// reasonOf gives the class of an error of an OpenSession.
func reasonOf(err error) string {
	if e, ok := err.(interface{ Reason() string }); ok && e.Reason() != "" {
		return e.Reason()
	}
	return notAuthentic
}

// subjectOf gives the subject for a token, nil where the rule has none. reason says why there is no subject.
func (r *replier) subjectOf(raw []byte, u *unit, p *tokenPlace, found *lookedUp) (subject []byte, reason string) {
	d := &u.docs[p.doc]
	if d.t.rules[p.rule].Subject == "" {
		return nil, ""
	}
	seen := &u.seen[d.seen+p.rule]
	if seen.count == 0 && found != nil && r.wantsSubject(raw, u, p) {
		return r.storedSubject(r.ref(raw, d), d.t, p.rule, found)
	}
	return r.theSubject(raw, seen)
}

// theSubject is the text of the one subject that was seen in raw.
func (r *replier) theSubject(raw []byte, seen *subjectSeen) (subject []byte, reason string) {
	if seen.count != 1 || seen.inArray {
		return nil, noSubject
	}
	text, ok := subjectText(r.subject[:0], raw[seen.start:seen.end])
	r.subject = text
	if !ok {
		return nil, noSubject
	}
	return text, ""
}

// mustLookUp reports whether some token may be shown but its subject is not in sight.
func (r *replier) mustLookUp(raw []byte) bool {
	for i := range r.u.tokens {
		if r.wantsSubject(raw, &r.u, &r.u.tokens[i]) {
			return true
		}
	}
	return false
}

// wantsSubject reports whether the token needs a subject that only a look-up can tell.
func (r *replier) wantsSubject(raw []byte, u *unit, p *tokenPlace) bool {
	d := &u.docs[p.doc]
	if p.field.how == policy.Sealed || d.t.rules[p.rule].Subject == "" || d.whole || u.seen[d.seen+p.rule].count > 0 {
		return false
	}
	// A document of a remote cluster can't be looked up: no endpoint reads one by its id there.
	return !d.t.remote && (d.index.there() || r.o.index != "") && (d.id.there() || r.o.id != "")
}

// ref names the document of a look-up.
func (r *replier) ref(raw []byte, d *shownDoc) Ref {
	text := func(s span, otherwise string) string {
		if !s.there() {
			return otherwise
		}
		return string(unescape(nil, raw[s.start+1:s.end-1]))
	}
	return Ref{Index: text(d.index, r.o.index), ID: text(d.id, r.o.id), Routing: text(d.routing, r.o.routing)}
}

// lookedAt is a unit with its text.
type lookedAt struct {
	raw []byte
	u   *unit
}

// lookedUp is what a look-up answered.
type lookedUp struct {
	docs   map[Ref]Stored
	failed bool
}

// lookUp asks for the documents whose subjects the units need, with the caller's credentials. A
// failure leaves values sealed; it does not fail the reply.
func (r *replier) lookUp(units []lookedAt) *lookedUp {
	found := &lookedUp{docs: map[Ref]Stored{}}
	var refs []Ref
	var paths []string
	wanted := map[string]bool{}
	for _, at := range units {
		for i := range at.u.tokens {
			p := &at.u.tokens[i]
			if !r.wantsSubject(at.raw, at.u, p) {
				continue
			}
			d := &at.u.docs[p.doc]
			for _, path := range d.t.pathsOf(d.t.rules[p.rule].SubjectParts) {
				if !wanted[path] {
					wanted[path] = true
					paths = append(paths, path)
				}
			}
			ref := r.ref(at.raw, d)
			if _, ok := found.docs[ref]; !ok {
				found.docs[ref] = Stored{}
				refs = append(refs, ref)
			}
		}
	}
	for len(refs) > 0 {
		block := refs[:min(len(refs), maxBlock)]
		refs = refs[len(block):]
		docs, err := r.o.eng.Cluster.Documents(r.ctx, r.o.caller, block, paths)
		if err != nil || len(docs) != len(block) {
			found.failed = true
			return found
		}
		for i, doc := range docs {
			found.docs[block[i]] = doc
		}
	}
	return found
}

// storedSubject reads a rule's subject from a document that was looked up.
func (r *replier) storedSubject(ref Ref, t *shownTarget, rule int, found *lookedUp) (subject []byte, reason string) {
	if found.failed {
		return nil, lookupFailed
	}
	doc := found.docs[ref]
	pos := skipSpace(doc.Source, 0)
	if !doc.Found || pos >= len(doc.Source) || doc.Source[pos] != '{' {
		return nil, noSubject
	}
	u := unit{docs: []shownDoc{{t: t}}, seen: make([]subjectSeen, len(t.rules))}
	h := hitReader{b: doc.Source, u: &u, subject: true}
	if _, err := h.walkObject(pos, t.root, false, replyDepth); err != nil {
		return nil, noSubject
	}
	return r.theSubject(doc.Source, &u.seen[rule])
}

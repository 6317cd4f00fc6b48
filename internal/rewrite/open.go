package rewrite

// put writes the unit raw that r.u describes, opened, or holds it until its subjects are looked up.
func (r *replier) put(raw []byte) error {
	if len(r.u.tokens) == 0 {
		return r.s.emit(raw)
	}
	if !r.mustLookUp(raw) {
		if r.crew == nil {
			if r.solo++; r.solo == firstUnits+1 && r.mayShare && !r.s.hold {
				if err := r.first(); err != nil {
					return err
				}
			}
			if r.shares() {
				if err := r.newCrew(); err != nil {
					return err
				}
			}
		}
		if r.crew != nil && !r.s.hold {
			return r.crew.add(raw)
		}
		return r.openNow(raw, &r.u, nil)
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
		return r.openNow(raw, &r.u, r.lookUp([]lookedAt{{raw, &r.u}}))
	}
	if err := r.hold(); err != nil {
		return err
	}
	r.held = r.keep(r.held)
	if err := r.s.emit(raw); err != nil {
		return err
	}
	if len(r.held) >= maxBlock {
		return r.release()
	}
	return nil
}

// openNow puts out raw with its tokens opened.
func (r *replier) openNow(raw []byte, u *unit, found *lookedUp) error {
	err := r.open(r.s, raw, u, found)
	r.tally(u)
	return err
}

// keep moves r.u, whose text is about to be put out, to the end of list.
func (r *replier) keep(list []heldUnit) []heldUnit {
	n := len(list)
	if n < cap(list) {
		list = list[:n+1] // with the slices of an earlier unit
	} else {
		list = append(list, heldUnit{})
	}
	list[n].base = len(r.s.obuf)
	list[n].u, r.u = r.u, list[n].u
	return list
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
	if r.crew != nil {
		if err := r.s.flush(); err != nil { // units in it have their places from its beginning
			return err
		}
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
		if err := r.openNow(text[base:done], u, found); err != nil {
			return err
		}
	}
	r.held = r.held[:0]
	return r.s.emit(text[done:])
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

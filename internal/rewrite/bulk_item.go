package rewrite

import "context"

// readItem reads the document of an item for a protected target and notes what must be looked up.
func (s *stage) readItem(ctx context.Context, it *item) {
	pl := it.place
	if !pl.ready && it.kind != actionDelete {
		if err := s.eng.Cluster.Ready(ctx, s.call.Caller, pl.name, pl.t.rules); err != nil {
			pl.fault = asFault(err)
			it.fault = pl.fault
			return
		}
		pl.ready = true
	}
	src := s.buf[it.src.start:it.src.end]
	switch it.kind {
	case actionIndex, actionCreate:
		if err := s.scan.document(src, it.place.t, &it.doc); err != nil {
			it.fault = documentFault(err)
			return
		}
		if it.doc.writesBack() && it.hasID {
			s.lookUp(it)
		}
	case actionUpdate:
		if it.update == nil {
			it.update = new(updateBody)
		}
		if err := s.scan.update(src, it.place.t, it.update); err != nil {
			it.fault = documentFault(err)
			return
		}
		if it.fault = it.update.check(it.place.t); it.fault != nil {
			return
		}
		if it.guarded {
			if it.fault = it.update.checkGuarded(); it.fault != nil {
				return
			}
		}
		s.sources = s.sources || it.source || it.update.asksSource()
		if !it.update.needsStored(it.place.t) {
			return
		}
		if !it.hasID {
			it.fault = &Fault{Status: 400, Type: "action_request_validation_exception", Reason: "Validation Failed: 1: id is missing;"}
			return
		}
		s.lookUp(it)
	}
}

// lookUp adds an item's document to the block's look-ups.
func (s *stage) lookUp(it *item) {
	s.refs = append(s.refs, Ref{Index: it.place.index, ID: it.id, Routing: it.routing})
	it.look = len(s.refs)
	if s.paths == nil {
		s.paths = make(map[string]bool)
	}
	for _, p := range it.place.t.paths() {
		s.paths[p] = true
	}
}

// sealItem appends the item as it goes upstream.
func (s *stage) sealItem(ctx context.Context, it *item) error {
	if it.kind == actionUpdate && it.place.t != nil {
		return s.sealUpdate(it)
	}
	var stored *storedValues
	if it.look > 0 {
		if s.lookErr != nil {
			return s.lookErr
		}
		was, fault := s.scan.readStored(s.stored[it.look-1], it.place.t)
		if fault != nil {
			return fault
		}
		stored = was.stored
	}
	if err := s.appendItem(it, stored); err != nil {
		return err
	}
	s.remember(it)
	return nil
}

// appendItem appends an item that is no update, with the values of its document sealed. On error nothing of it is appended.
func (s *stage) appendItem(it *item, stored *storedValues) error {
	if it.place.t == nil || it.kind == actionDelete {
		s.out = append(s.out, s.buf[it.lead:it.end()]...)
		return nil
	}
	size := len(s.out)
	s.out = append(s.out, s.buf[it.lead:it.line.end+1]...)
	src := s.buf[it.src.start:it.src.end]
	var err error
	if s.out, err = s.seal.seal(s.out, src, 0, len(src), it.place.t, &it.doc, nil, stored); err != nil {
		s.out = s.out[:size]
		return err
	}
	s.out = append(s.out, '\n')
	return nil
}

// remember notes what an item that was appended does to its document.
func (s *stage) remember(it *item) {
	switch {
	case it.place.t == nil:
	case it.kind == actionDelete:
		s.known.wrote(&it.place.place, &it.action, nil, nil)
	default:
		s.known.wrote(&it.place.place, &it.action, s.buf[it.src.start:it.src.end], &it.doc)
	}
}

// sealUpdate appends an update in the form that its document asks for.
func (s *stage) sealUpdate(it *item) error {
	u, target := it.update, it.place.t
	form, was := formUpdate, (*before)(nil)
	var subj subjects
	if it.look > 0 {
		var err error
		if was, err = s.beforeOf(it); err != nil {
			return err
		}
		var fault *Fault
		if form, subj, fault = u.decide(target, was); fault != nil {
			return fault
		}
		if it.guarded && was.guarded {
			if form == formCreate || it.seqNo != was.seq || it.term != was.term {
				return conflictFault(was)
			}
		}
	}
	line := s.buf[it.line.start:it.line.end]
	s.out = it.appendUpdateAction(s.out, line, form, was)
	s.out = append(s.out, '\n')
	var stored *storedValues
	if was != nil {
		stored = was.stored
	}
	var err error
	if s.out, err = s.seal.appendUpdate(s.out, u, target, form, subj, stored); err != nil {
		return err
	}
	s.out = append(s.out, '\n')
	s.known.updated(&it.place.place, &it.action, u, form, subj, was)
	if form == formGuarded || form == formCreate {
		s.again.remember(s, it, form, line)
	}
	return nil
}

// beforeOf tells what an update finds: what earlier items of this bulk make of the document, else the look-up.
func (s *stage) beforeOf(it *item) (*before, error) {
	have, ok := s.known.get(docName{it.place.index, it.id, it.routing})
	if ok && (have.mixed || it.place.moved) {
		return nil, errAmbiguous
	}
	if ok && !have.unsure && !have.touched {
		return &have.was, nil
	}
	if !ok && s.known.full {
		return nil, &Fault{Status: 429, Type: "esproxy_busy", Reason: "this bulk changed too many documents before an update that needs to know their subject; send the update in a bulk of its own"}
	}
	if s.lookErr != nil {
		return nil, s.lookErr
	}
	was, fault := s.scan.readStored(s.stored[it.look-1], it.place.t)
	if fault != nil {
		return nil, fault
	}
	if !ok {
		return was, nil
	}
	if !was.found && !have.was.found {
		return was, nil // there is none in either case
	}
	if have.touched {
		switch {
		case was.found:
			was.guarded = false // the sequence number is an old one by now
		case have.was.found:
			was = &have.was
		}
		return was, nil
	}
	if was.found && have.was.found && sameSubjects(was.subj, have.was.subj) {
		return &have.was, nil
	}
	if !was.found && have.was.found {
		// Nothing is there yet: only the earlier item's success makes the update possible.
		return &have.was, nil
	}
	return nil, errAmbiguous
}

// errAmbiguous has the status that makes clients send an item once more, in a later bulk.
var errAmbiguous = &Fault{Status: 429, Type: "esproxy_ambiguous_update", Reason: "an earlier item of this bulk may or may not replace this document, so its subject is not known; send the update in a later bulk"}

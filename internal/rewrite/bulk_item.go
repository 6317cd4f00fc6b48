package rewrite

import "context"

// readItem reads the document of an item for a protected target and notes what must be looked up.
func (t *bulk) readItem(ctx context.Context, it *item) {
	pl := it.place
	if !pl.ready && it.kind != actionDelete {
		if err := t.eng.Cluster.Ready(ctx, t.call.Caller, pl.name, pl.t.rules); err != nil {
			pl.fault = asFault(err)
			it.fault = pl.fault
			return
		}
		pl.ready = true
	}
	src := t.lines.buf[it.src.start:it.src.end]
	switch it.kind {
	case actionIndex, actionCreate:
		if err := t.scan.document(src, it.place.t, &it.doc); err != nil {
			it.fault = documentFault(err)
			return
		}
		if it.doc.writesBack() && it.hasID {
			t.lookUp(it)
		}
	case actionUpdate:
		if it.update == nil {
			it.update = new(updateBody)
		}
		if err := t.scan.update(src, it.place.t, it.update); err != nil {
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
		t.sources = t.sources || it.source || it.update.asksSource()
		if !it.update.needsStored(it.place.t) {
			return
		}
		if !it.hasID {
			it.fault = &Fault{Status: 400, Type: "action_request_validation_exception", Reason: "Validation Failed: 1: id is missing;"}
			return
		}
		t.lookUp(it)
	}
}

// lookUp adds an item's document to the block's look-ups.
func (t *bulk) lookUp(it *item) {
	t.refs = append(t.refs, Ref{Index: it.place.index, ID: it.id, Routing: it.routing})
	it.look = len(t.refs)
	if t.paths == nil {
		t.paths = make(map[string]bool)
	}
	for _, p := range it.place.t.paths() {
		t.paths[p] = true
	}
}

// sealItem appends the item as it goes upstream.
func (t *bulk) sealItem(ctx context.Context, it *item) error {
	b := t.lines.buf
	if it.place.t == nil || it.kind == actionDelete {
		if it.kind == actionDelete {
			t.known.wrote(&it.place.place, &it.action, nil, nil)
		}
		t.out = append(t.out, b[it.lead:it.end()]...)
		return nil
	}
	if it.kind == actionUpdate {
		return t.sealUpdate(it)
	}
	var stored *storedValues
	if it.look > 0 {
		if t.lookErr != nil {
			return t.lookErr
		}
		was, fault := t.scan.readStored(t.stored[it.look-1], it.place.t)
		if fault != nil {
			return fault
		}
		stored = was.stored
	}
	t.out = append(t.out, b[it.lead:it.line.end+1]...)
	src := b[it.src.start:it.src.end]
	var err error
	if t.out, err = t.seal.seal(t.out, src, 0, len(src), it.place.t, &it.doc, nil, stored); err != nil {
		return err
	}
	t.out = append(t.out, '\n')
	t.known.wrote(&it.place.place, &it.action, src, &it.doc)
	return nil
}

// sealUpdate appends an update in the form that its document asks for.
func (t *bulk) sealUpdate(it *item) error {
	u, target := it.update, it.place.t
	form, was := formUpdate, (*before)(nil)
	var subj subjects
	if it.look > 0 {
		var err error
		if was, err = t.beforeOf(it); err != nil {
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
	line := t.lines.buf[it.line.start:it.line.end]
	t.out = it.appendUpdateAction(t.out, line, form, was)
	t.out = append(t.out, '\n')
	var stored *storedValues
	if was != nil {
		stored = was.stored
	}
	var err error
	if t.out, err = t.seal.appendUpdate(t.out, u, target, form, subj, stored); err != nil {
		return err
	}
	t.out = append(t.out, '\n')
	t.known.updated(&it.place.place, &it.action, u, form, subj, was)
	if form == formGuarded || form == formCreate {
		t.again.remember(t, it, form, line)
	}
	return nil
}

// beforeOf tells what an update finds: what earlier items of this bulk make of the document, else the look-up.
func (t *bulk) beforeOf(it *item) (*before, error) {
	have, ok := t.known.get(docName{it.place.index, it.id, it.routing})
	if ok && (have.mixed || it.place.moved) {
		return nil, errAmbiguous
	}
	if ok && !have.unsure && !have.touched {
		return &have.was, nil
	}
	if !ok && t.known.full {
		return nil, &Fault{Status: 429, Type: "esproxy_busy", Reason: "this bulk changed too many documents before an update that needs to know their subject; send the update in a bulk of its own"}
	}
	if t.lookErr != nil {
		return nil, t.lookErr
	}
	was, fault := t.scan.readStored(t.stored[it.look-1], it.place.t)
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

package rewrite

import (
	"bytes"
	"hash/maphash"
)

// maxKnown bounds, in bytes, what one bulk remembers of the documents it has changed.
const maxKnown = 4 << 20

// known remembers what earlier items of one bulk make of the documents that later
// updates in it may change: Elasticsearch has not executed them when the update is sealed.
//
// What was written before the first update is in the journal. From then on a document takes some forty bytes in one block of
// memory without pointers, not a map entry with strings of its own, which alone cost a quarter of a bulk's time.
type known struct {
	journal journal
	seed    maphash.Seed
	records []byte
	table   []uint64 // open addressing: hash<<32 | 1 + place in records; 0 is free
	count   int
	full    bool // something was not remembered

	key  []byte   // scratch
	subj subjects // scratch

	last struct { // what find gave, good until the next change
		name     docName
		at, slot int
		hash     uint32
		ok       bool
	}
}

// knownDoc is one document after the items so far.
type knownDoc struct {
	was    before
	unsure bool // the item may fail; then the document is as it was before the bulk
	mixed  bool // several items with different subjects may fail
	// touched: only updates without protected values or subject changed it, so the look-up tells its subject but not
	// its sequence number. What was says stands if the look-up finds none: an upsert makes it then.
	touched bool
}

// docName names a document. Under different routings one id may be two documents, or one: then a
// look-up's guard is stale, and the update ends in a conflict.
type docName struct{ index, id, routing string }

// A record is a byte of flags, the key (index, NUL, routing, NUL, id) with its length before it, and for each rule
// of the target 1 + the length of its subject and the subject, or 0. Lengths are uvarints.
const (
	knownFound = 1 << iota
	knownUnsure
	knownMixed
	knownTouched
	knownForgotten // a later item changed the document when there was no more room
)

// find gives the place of the document's record, and of its entry in the table. When there is none, at is below zero and
// the entry is where it belongs.
func (k *known) find(d docName) (at, slot int, hash uint32) {
	if l := &k.last; l.ok && l.name == d { // to record a document begins with looking it up
		return l.at, l.slot, l.hash
	}
	at, slot, hash = k.search(d)
	k.last.name, k.last.at, k.last.slot, k.last.hash, k.last.ok = d, at, slot, hash, true
	return at, slot, hash
}

// search is find, and leaves the document's key in k.key.
func (k *known) search(d docName) (at, slot int, hash uint32) {
	k.key = append(append(k.key[:0], d.index...), 0)
	k.key = append(append(append(k.key, d.routing...), 0), d.id...)
	if len(k.table) == 0 {
		k.seed = maphash.MakeSeed()
		k.table = make([]uint64, 64)
	}
	hash = uint32(maphash.Bytes(k.seed, k.key))
	for slot = int(hash) & (len(k.table) - 1); k.table[slot] != 0; slot = (slot + 1) & (len(k.table) - 1) {
		if uint32(k.table[slot]>>32) != hash {
			continue
		}
		at = int(uint32(k.table[slot])) - 1
		if have, _ := takeBytes(k.records[at+1:]); bytes.Equal(have, k.key) {
			return at, slot, hash
		}
	}
	return -1, slot, hash
}

func (k *known) get(name docName) (knownDoc, bool) {
	k.recall()
	at, _, _ := k.find(name)
	if at < 0 || k.records[at]&knownForgotten != 0 {
		return knownDoc{}, false
	}
	flags := k.records[at]
	d := knownDoc{was: before{found: flags&knownFound != 0}, unsure: flags&knownUnsure != 0, mixed: flags&knownMixed != 0, touched: flags&knownTouched != 0}
	_, rest := takeBytes(k.records[at+1:])
	d.was.subj, _ = takeSubjects(nil, rest) // records are never written over, so these stay as they are
	return d, true
}

// set records what is known of a document from now on; flags are knownFound, knownUnsure, knownMixed and knownTouched.
func (k *known) set(name docName, flags byte, subj subjects) {
	k.recall()
	at, slot, hash := k.find(name)
	k.last.ok = false
	begin := len(k.records)
	k.records = appendSubjects(appendText(append(k.records, flags), k.key), subj)
	record := k.records[begin:]
	switch {
	case at >= 0 && len(record) <= begin-at && bytes.Equal(record[1:], k.records[at+1:at+len(record)]):
		// The same document again, as updates of one document are: only the flags can have changed.
		k.records[at] = flags
		k.records = k.records[:begin]
		return
	case begin+len(record)+8*len(k.table) > maxKnown:
		k.full = true
		k.records = k.records[:begin]
		if at >= 0 {
			k.records[at] |= knownForgotten
		}
		return
	}
	if at < 0 {
		k.count++
	}
	k.table[slot] = uint64(hash)<<32 | uint64(begin+1)
	if 4*k.count > 3*len(k.table) {
		k.grow()
	}
}

// grow doubles the table.
func (k *known) grow() {
	old := k.table
	k.table = make([]uint64, 2*len(old))
	for _, e := range old {
		if e == 0 {
			continue
		}
		slot := int(e>>32) & (len(k.table) - 1)
		for k.table[slot] != 0 {
			slot = (slot + 1) & (len(k.table) - 1)
		}
		k.table[slot] = e
	}
}

// wrote records what an item that goes upstream does to its document. p is the whole document it stores, nil for a delete.
func (k *known) wrote(pl *place, a *action, b []byte, p *part) {
	if !a.hasID || pl.t == nil || !pl.t.hasSubject() {
		return
	}
	flags, subj := byte(0), subjects(nil)
	switch {
	case p != nil:
		subj = k.subjectsOf(pl.t, b, p)
	case a.guarded || a.version:
		flags = journalDelete | journalGuarded
	default:
		flags = journalDelete
	}
	name := docName{pl.index, a.id, a.routing}
	if k.journal.read {
		k.happened(name, flags, subj)
	} else {
		k.journal.add(name, flags, subj)
	}
}

// recall reads the journal, once.
func (k *known) recall() {
	if k.journal.read {
		return
	}
	j := k.journal
	k.journal = journal{read: true}
	k.full = j.over
	j.tell(k.happened)
}

// happened records what an entry of the journal tells.
func (k *known) happened(name docName, flags byte, subj subjects) {
	switch {
	case flags&journalDelete == 0:
		// A create of a document that is there fails; but what is known to be there is that or nothing, as any item may fail.
		k.mayWrite(name, subj)
	case flags&journalGuarded == 0:
		k.set(name, 0, nil)
	default:
		prior, have := k.get(name)
		switch {
		case !have && !k.full:
			k.set(name, knownUnsure, nil)
		case !have, prior.was.found, prior.mixed, prior.touched: // what is not remembered may be anything
			k.set(name, knownMixed, nil)
		} // else it is one more that leaves nothing
	}
}

// mayWrite records that a document comes to have the subjects subj, unless the item fails: Elasticsearch may
// refuse any, for its mapping, a pipeline or a condition, and goes on with the next.
func (k *known) mayWrite(name docName, subj subjects) {
	flags := byte(knownFound)
	switch prior, have := k.get(name); {
	case !have && k.full: // it may have been changed unnoticed
		flags |= knownMixed
	case !have:
		flags |= knownUnsure
	case prior.mixed:
		flags |= knownMixed
	case prior.touched && !prior.was.found:
		flags |= knownUnsure
	case !prior.was.found:
		if prior.unsure {
			flags |= knownUnsure
		} // else it is this document or none
	case !sameSubjects(prior.was.subj, subj):
		flags |= knownMixed
	case prior.unsure, prior.touched:
		flags |= knownUnsure
	}
	k.set(name, flags, subj)
}

// updated records what an update does.
func (k *known) updated(pl *place, a *action, u *updateBody, form updateForm, subj subjects, was *before) {
	if !pl.t.hasSubject() {
		return
	}
	name := docName{pl.index, a.id, a.routing}
	switch form {
	case formCreate:
		p := &u.upsertPart
		if u.docAsUpsert {
			p = &u.docPart
		}
		k.set(name, knownFound, k.subjectsOf(pl.t, u.b, p)) // or there is none
	case formGuarded, formBare:
		if sameSubjects(subj, was.subj) {
			k.set(name, knownFound, subj)
		} else {
			k.mayWrite(name, subj)
		}
	case formUpdate:
		k.touch(name, pl, u)
	}
}

// touch records an update that went up as it came.
func (k *known) touch(name docName, pl *place, u *updateBody) {
	prior, have := k.get(name)
	p, upsert := &u.upsertPart, u.upsert.there()
	if u.docAsUpsert {
		p, upsert = &u.docPart, true
	}
	switch {
	case have && !upsert:
	case have && !prior.touched:
		k.mayWrite(name, k.subjectsOf(pl.t, u.b, p))
	case !have && k.full:
		k.set(name, knownMixed, nil)
	case !upsert:
		k.set(name, knownTouched, nil)
	default:
		subj := k.subjectsOf(pl.t, u.b, p)
		if have && prior.was.found && !sameSubjects(prior.was.subj, subj) {
			k.set(name, knownFound|knownMixed, subj)
			return
		}
		k.set(name, knownFound|knownTouched, subj)
	}
}

// subjectsOf gives the valid subjects that a whole document tells, until the next call.
func (k *known) subjectsOf(t *target, b []byte, p *part) subjects {
	k.subj = k.subj[:0]
	for i, r := range t.rules {
		var text []byte
		if r.Subject != "" && p.subj[i].count > 0 {
			if subject, fault := p.subject(b, i, r); fault == nil {
				text = subject
			}
		}
		k.subj = append(k.subj, text)
	}
	return k.subj
}

func sameSubjects(a, b subjects) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !bytes.Equal(a[i], b[i]) {
			return false
		}
	}
	return true
}

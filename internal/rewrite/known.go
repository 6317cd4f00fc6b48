package rewrite

import "bytes"

// maxKnown bounds, in bytes, what one bulk remembers of the documents it has changed.
const maxKnown = 4 << 20

// known remembers what earlier items of one bulk make of the documents that later
// updates in it may change: Elasticsearch has not executed them when the update is sealed.
type known struct {
	docs  map[string]knownDoc
	bytes int
	full  bool // something was not remembered
}

// knownDoc is one document after the items so far.
type knownDoc struct {
	was    before
	unsure bool // the item may fail on a condition; then the document is as it was before
}

func docKey(index, id string) string { return index + "\x00" + id }

func (k *known) get(index, id string) (knownDoc, bool) {
	if len(k.docs) == 0 {
		return knownDoc{}, false
	}
	d, ok := k.docs[docKey(index, id)]
	return d, ok
}

func (k *known) set(index, id string, d knownDoc) {
	if k.docs == nil {
		k.docs = make(map[string]knownDoc)
	}
	key := docKey(index, id)
	if _, have := k.docs[key]; !have {
		size := len(key) + 96
		for _, s := range d.was.subj {
			size += len(s) + 24
		}
		if k.bytes+size > maxKnown {
			k.full = true
			return
		}
		k.bytes += size
	}
	d.was.stored, d.was.guarded = nil, false
	k.docs[key] = d
}

// wrote records what an item that goes upstream does to its document. p is the whole document it stores, nil for a delete.
func (k *known) wrote(pl *place, a *action, b []byte, p *part) {
	if !a.hasID || pl.t == nil || !pl.t.hasSubject() {
		return
	}
	now := knownDoc{unsure: a.guarded || a.version}
	if p != nil {
		now.was = before{found: true, subj: subjectsOf(pl.t, b, p)}
	}
	if a.kind == actionCreate {
		prior, have := k.get(pl.index, a.id)
		switch {
		case have && !prior.unsure && prior.was.found:
			return // it fails
		case !have || prior.unsure:
			now.unsure = true
		}
	}
	k.set(pl.index, a.id, now)
}

// updated records what an update does.
func (k *known) updated(pl *place, a *action, u *updateBody, form updateForm, subj subjects, was *before) {
	if !pl.t.hasSubject() {
		return
	}
	switch form {
	case formCreate:
		p := &u.upsertPart
		if u.docAsUpsert {
			p = &u.docPart
		}
		k.set(pl.index, a.id, knownDoc{was: before{found: true, subj: subjectsOf(pl.t, u.b, p)}})
	case formGuarded, formBare:
		k.set(pl.index, a.id, knownDoc{
			was:    before{found: true, subj: subj},
			unsure: form == formGuarded && !sameSubjects(subj, was.subj),
		})
	case formUpdate:
		if u.upsert.there() {
			if _, have := k.get(pl.index, a.id); !have {
				k.set(pl.index, a.id, knownDoc{was: before{found: true, subj: subjectsOf(pl.t, u.b, &u.upsertPart)}, unsure: true})
			}
		}
	}
}

// subjectsOf gives the valid subjects that a whole document tells.
func subjectsOf(t *target, b []byte, p *part) subjects {
	out := make(subjects, len(t.rules))
	for i, r := range t.rules {
		if r.Subject == "" || p.subj[i].count == 0 {
			continue
		}
		if text, fault := p.subject(b, i, r); fault == nil {
			out[i] = text
		}
	}
	return out
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

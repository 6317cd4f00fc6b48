package rewrite

import (
	"errors"
	"testing"
)

// TestMovedRules: when other rules come to apply to an index during a bulk (an alias was moved), what the bulk remembers
// of its documents was told by the old ones. An update that would rely on it is refused, not sealed for a wrong subject.
func TestMovedRules(t *testing.T) {
	old, now := &target{root: &node{}}, &target{root: &node{}}
	b := &stage{bulk: &bulk{known: new(known)}}
	for _, pl := range []*place{{index: "i", t: old}, {index: "i", t: old}, {index: "j", t: now}} {
		if b.moved(pl) {
			t.Errorf("the rules of %s are the same and count as moved", pl.index)
		}
	}
	if !b.moved(&place{index: "i", t: now}) {
		t.Error("other rules are not noticed")
	}
	name := docName{index: "i", id: "1"}
	b.known.set(name, knownFound, subjects{[]byte("Ana"), []byte("Bob")})
	it := &item{action: action{id: "1", hasID: true}, place: &bulkPlace{place: place{name: "i", index: "i", t: now}, moved: true}}
	if _, err := b.beforeOf(it); !errors.Is(err, errAmbiguous) {
		t.Errorf("got %v", err)
	}
	it.place.moved = false
	if was, err := b.beforeOf(it); err != nil || len(was.subj) != 2 {
		t.Errorf("got %v, %v", was, err)
	}
}

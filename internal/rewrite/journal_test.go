package rewrite

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// What known learns from the journal is what it would have heard item by item.
func TestJournalGenerated(t *testing.T) {
	var late known // used again and again, as in a pool
	rapid.Check(t, func(t *rapid.T) {
		late.reset()
		direct := known{journal: journal{read: true}}
		all := map[docName]bool{}
		for range rapid.IntRange(0, 100).Draw(t, "n") {
			id := fmt.Sprint(rapid.IntRange(0, 20).Draw(t, "id"))
			if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
				id = strings.Repeat(id, journalChunk/2)
			}
			name := docName{rapid.SampledFrom([]string{"a", "b"}).Draw(t, "index"), id, rapid.SampledFrom([]string{"", "r"}).Draw(t, "routing")}
			flags := rapid.SampledFrom([]byte{0, 0, 0, journalDelete, journalDelete | journalGuarded}).Draw(t, "flags")
			var subj subjects
			if flags == 0 {
				for range rapid.IntRange(0, 3).Draw(t, "rules") {
					subj = append(subj, rapid.SampledFrom([][]byte{nil, []byte("Ana"), []byte(strings.Repeat("B", 300))}).Draw(t, "subject"))
				}
			}
			all[name] = true
			direct.happened(name, flags, subj)
			late.journal.add(name, flags, subj)
		}
		over := late.journal.over
		for name := range all {
			got, ok := late.get(name)
			want, have := direct.get(name)
			switch {
			case over:
				if ok || !late.full {
					t.Fatal("something is known of a journal that was given up")
				}
			case ok != have || !reflect.DeepEqual(got, want):
				t.Fatalf("%v: %+v %t, want %+v %t", name, got, ok, want, have)
			}
		}
	})
}

// The journal is bounded. What was given up is not taken for what never was.
func TestJournalFull(t *testing.T) {
	var k known
	n := 0
	for ; !k.journal.over; n++ {
		k.journal.add(docName{"user", fmt.Sprint("document number ", n), ""}, 0, subjects{[]byte("Ana")})
		if k.journal.size > maxJournal || n > maxJournal {
			t.Fatalf("%d bytes after %d entries", k.journal.size, n)
		}
	}
	if n < 40_000 {
		t.Errorf("it was full after %d entries", n)
	}
	k.journal.add(docName{"user", "one more", ""}, 0, nil)
	if len(k.journal.chunks) != 0 {
		t.Error("what was given up takes memory")
	}
	name := docName{"user", "document number 0", ""}
	if _, ok := k.get(name); ok || !k.full {
		t.Error("something is known")
	}
	// Ana's may still be there after this delete, and so after Bob's document, which may be refused.
	k.happened(name, journalDelete|journalGuarded, nil)
	if d, _ := k.get(name); !d.mixed {
		t.Errorf("after a delete that may fail: %+v", d)
	}
	k.happened(name, 0, subjects{[]byte("Bob")})
	if d, _ := k.get(name); !d.mixed {
		t.Errorf("after a document that may be refused: %+v", d)
	}
}

// One bulk's journal leaves the next one a single empty chunk.
func TestJournalReset(t *testing.T) {
	var j journal
	for n := range 2000 {
		j.add(docName{"user", fmt.Sprint(n), ""}, 0, subjects{[]byte("Ana")})
	}
	if len(j.chunks) < 2 {
		t.Fatal("too short for the test")
	}
	first := j.chunks[0]
	j.reset()
	if len(j.chunks) != 1 || j.size != journalChunk || &j.chunks[0][:1][0] != &first[0] || strings.Trim(string(first), "\x00") != "" {
		t.Errorf("%d chunks of %d bytes are left", len(j.chunks), j.size)
	}
	j.tell(func(name docName, _ byte, _ subjects) { t.Errorf("%+v is left", name) })
	long := journal{}
	long.add(docName{"user", strings.Repeat("x", journalChunk), ""}, 0, nil)
	if long.reset(); len(long.chunks) != 0 || long.size != 0 {
		t.Error("a large chunk is kept")
	}
}

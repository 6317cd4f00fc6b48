package rewrite

import (
	"context"
	"io"
	"runtime"
	"sync"
)

// A large bulk is sealed by two goroutines: the items of a window are split in two, each half is read and sealed on
// its own, and the output of the second half follows that of the first. Everything that depends on order or asks the
// cluster stays with one goroutine, so a block with an update, a look-up or a place that is not ready yet takes the
// plain way. Joining after each window, instead of a queue between three kinds of workers, keeps errors, memory and
// order as they are; what it costs is that reading and writing wait.

// windowBytes is how much of a block is split at a time. It bounds the output that waits, and is
// enough work (some 200 documents, half a millisecond) to be worth the wake-up of a second processor.
const windowBytes = 128 << 10

// splits reports whether the block may be sealed in two halves.
func (t *bulk) splits() bool {
	if len(t.block) < 32 || t.untouched() || runtime.GOMAXPROCS(0) < 2 {
		return false
	}
	if t.block[len(t.block)-1].end()-t.block[0].lead < windowBytes/2 {
		return false
	}
	for i := range t.block {
		it := &t.block[i]
		if it.fault != nil || it.place.t == nil {
			continue
		}
		switch it.kind {
		case actionUpdate:
			return false
		case actionIndex, actionCreate:
			if !it.place.ready || !it.place.t.hasSubjects() {
				return false // a written-back value under a rule without subject must be looked up
			}
		}
	}
	return true
}

// hasSubjects reports whether all rules of t have a subject.
func (t *target) hasSubjects() bool {
	for _, r := range t.rules {
		if r.Subject == "" {
			return false
		}
	}
	return true
}

// half is what the second goroutine works with.
type half struct {
	*workspace
	seal sealing
}

func (h *half) close() {
	if h.workspace != nil {
		h.seal.close()
		h.workspace.release()
		h.workspace = nil
	}
}

// window gives how many items from the one at begin on are dealt with at once, and how many of them are the first half.
func (t *bulk) window(begin int) (first, all int) {
	from := t.block[begin].lead
	for n := begin; n < len(t.block); n++ {
		size := t.block[n].end() - from
		if size > windowBytes && n > begin {
			break
		}
		if all++; size <= windowBytes/2 {
			first = all
		}
	}
	return max(first, 1), all
}

// sealHalves is sealBlock for a block that splits.
func (t *bulk) sealHalves(_ context.Context, up io.Writer) error {
	for begin := 0; begin < len(t.block); {
		first, all := t.window(begin)
		items := t.block[begin : begin+all]
		t.sealWindow(items, first)
		for i := range items {
			if items[i].fault != nil {
				if err := t.reject(&items[i]); err != nil {
					return err
				}
			}
		}
		begin += all
		if err := t.spill(up); err != nil {
			return err
		}
	}
	return nil
}

// sealWindow reads and seals the items of a window. Their order in t.out is kept; faults are left in the items.
func (t *bulk) sealWindow(items []item, first int) {
	if t.other.workspace == nil {
		t.other = half{workspaces.Get().(*workspace), sealing{eng: t.eng, counter: t.call.Counter}}
		t.other.scan.isToken = t.eng.Sealer.IsToken
	}
	var wg sync.WaitGroup
	defer wg.Wait() // also when this goroutine panics: nothing may be used again before
	var panicked any
	wg.Go(func() {
		defer func() { panicked = recover() }()
		t.other.out = t.sealItems(t.other.scan, &t.other.seal, t.other.out[:0], items[first:])
	})
	t.out = t.sealItems(t.scan, &t.seal, t.out, items[:first])
	wg.Wait()
	if panicked != nil {
		panic(panicked) // here it ends one request, there it would end the process
	}
	t.out = append(t.out, t.other.out...)
	if cap(t.other.out) > 4*maxOut {
		t.other.out = nil
	}
	for i := range items {
		it := &items[i]
		if it.fault != nil || it.place.t == nil {
			continue
		}
		if it.kind == actionDelete {
			t.known.wrote(&it.place.place, &it.action, nil, nil)
		} else {
			t.known.wrote(&it.place.place, &it.action, t.lines.buf[it.src.start:it.src.end], &it.doc)
		}
	}
}

// sealItems appends the items that have no fault. It changes nothing but them and what it is given.
func (t *bulk) sealItems(scan *docScanner, seal *sealing, out []byte, items []item) []byte {
	b := t.lines.buf
	for i := range items {
		it := &items[i]
		if it.fault != nil {
			continue
		}
		if it.place.t == nil || it.kind == actionDelete {
			out = append(out, b[it.lead:it.end()]...)
			continue
		}
		src := b[it.src.start:it.src.end]
		if err := scan.document(src, it.place.t, &it.doc); err != nil {
			it.fault = documentFault(err)
			continue
		}
		size := len(out)
		out = append(out, b[it.lead:it.line.end+1]...)
		var err error
		if out, err = seal.seal(out, src, 0, len(src), it.place.t, &it.doc, nil, nil); err != nil {
			out = out[:size]
			it.fault = asFault(err)
			continue
		}
		out = append(out, '\n')
	}
	return out
}

package rewrite

import (
	"strings"
	"sync"
)

// What one bulk needs and the next one can use again. Without these pools a bulk of one document allocated some 40 KB,
// and one of 10 MB left as much garbage as it is long.

const (
	keptItems  = 2048     // items of documents from 128 bytes on fill a block with fewer
	keptFound  = 64       // protected values in one of them
	keptOutput = 1 << 20  // bytes of output
	keptKnown  = 64 << 10 // bytes of records
	keptTable  = 2048     // entries
	textChunk  = 16 << 10 // bytes that ids share
	blockSizes = 4        // 16 KiB to 128 KiB
)

// blockPools hold cleared blocks of firstBlock<<i bytes.
var blockPools [blockSizes]sync.Pool

// newBlock gives an empty block of n bytes.
func newBlock(n int) []byte {
	for i := range blockPools {
		if n == firstBlock<<i {
			if b, ok := blockPools[i].Get().(*[]byte); ok {
				return *b
			}
		}
	}
	return make([]byte, 0, n)
}

// freeBlock takes a block back. It held plaintext, so it is cleared.
func freeBlock(b []byte) {
	for i := range blockPools {
		if cap(b) == firstBlock<<i {
			clear(b[:cap(b)])
			b = b[:0]
			blockPools[i].Put(&b)
		}
	}
}

// workspace is what a bulk works with, besides its blocks.
type workspace struct {
	scan   *docScanner
	out    []byte // sealed: what goes up is no secret
	block  []item
	most   int   // items used
	memory known // of the bulk, in the workspace of its first stage
}

var workspaces = sync.Pool{New: func() any { return &workspace{scan: newDocScanner(nil)} }}

// release forgets what was read and gives w back, but for what a bulk of unusual size needed.
func (w *workspace) release() {
	s := w.scan
	clear(s.scratch[:cap(s.scratch)])
	s.b, s.cur, s.isToken, s.texts, s.lastIndex = nil, nil, nil, texts{}, ""
	s.like.head, s.like.action = s.like.head[:0], action{}
	if cap(s.scratch) > textChunk {
		s.scratch = nil
	}
	if cap(w.out) > keptOutput {
		w.out = nil
	}
	if cap(w.block) > keptItems {
		w.block, w.most = nil, 0
	}
	for i := range w.block[:w.most] {
		it := &w.block[:w.most][i]
		found := it.doc.found[:cap(it.doc.found)]
		if len(found) > keptFound {
			found = nil
		}
		clear(found)
		*it = item{doc: part{found: found[:0], subj: it.doc.subj[:0]}}
	}
	w.block, w.most = w.block[:0], 0
	w.memory.reset()
	workspaces.Put(w)
}

// reset forgets everything.
func (k *known) reset() {
	k.journal.reset()
	if cap(k.records) > keptKnown || len(k.table) > keptTable {
		*k = known{journal: k.journal}
		return
	}
	clear(k.table)
	clear(k.subj[:cap(k.subj)])
	*k = known{journal: k.journal, seed: k.seed, records: k.records[:0], table: k.table, key: k.key[:0], subj: k.subj[:0]}
}

// texts makes strings that share memory: one allocation for hundreds of ids. Who keeps one for long copies it.
type texts struct {
	chunk strings.Builder
	size  int
}

func (t *texts) text(b []byte) string {
	if len(b) > textChunk/8 {
		return string(b)
	}
	if t.chunk.Cap()-t.chunk.Len() < len(b) {
		t.size = min(max(2*t.size, 2*len(b), 64), textChunk)
		t.chunk = strings.Builder{}
		t.chunk.Grow(t.size)
	}
	at := t.chunk.Len()
	t.chunk.Write(b)
	return t.chunk.String()[at:]
}

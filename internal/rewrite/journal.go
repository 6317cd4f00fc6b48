package rewrite

import "encoding/binary"

// maxJournal bounds, in bytes, what one bulk remembers of the documents that it wrote before its first update: some
// forty thousand with long ids, a hundred thousand with short ones.
const maxJournal = 2 << 20

// journal has what a bulk wrote before its first update, one entry behind the other. Most bulks have no update, and nothing is looked
// for in it then: an entry is a third of what known takes for a document, and needs no table. The first update makes
// known read it once. Bulks of 10 MB without updates, each further one at the same time: 3.7 → 3.2 MiB; of 1 GB: 53 → 48 MiB in all.
type journal struct {
	chunks  [][]byte
	size    int // of all chunks
	index   string
	routing string
	over    bool // there was more than maxJournal: nothing is kept
	read    bool // known has read it, and hears of the rest itself
}

// journalChunk is how much is allocated at a time.
const journalChunk = firstBlock

// An entry is a byte of flags, the index and the routing where they differ from those of the entry before, the id, and of a document that is
// written the number of its subjects and for each 1 + its length and its text, or 0. Lengths are uvarints.
const (
	journalPlace   = 1 << iota // index and routing follow
	journalDelete              // else a whole document was written
	journalGuarded             // a delete under a condition
)

// add remembers one item. subj are those of the document it writes; of a delete there are none.
func (j *journal) add(name docName, flags byte, subj subjects) {
	if j.over {
		return
	}
	size := 1 + binary.MaxVarintLen32 + len(name.id)
	if name.index != j.index || name.routing != j.routing {
		flags |= journalPlace
		size += 2*binary.MaxVarintLen32 + len(name.index) + len(name.routing)
	}
	if flags&journalDelete == 0 {
		size += binary.MaxVarintLen32
		for _, s := range subj {
			size += binary.MaxVarintLen32 + len(s)
		}
	}
	n := len(j.chunks) - 1
	if n < 0 || cap(j.chunks[n])-len(j.chunks[n]) < size {
		add := max(journalChunk, size)
		if j.size += add; j.size > maxJournal {
			*j = journal{over: true}
			return
		}
		j.chunks = append(j.chunks, make([]byte, 0, add))
		n++
	}
	b := append(j.chunks[n], flags)
	if flags&journalPlace != 0 {
		b = appendText(appendText(b, name.index), name.routing)
		j.index, j.routing = name.index, name.routing
	}
	b = appendText(b, name.id)
	if flags&journalDelete == 0 {
		b = appendSubjects(b, subj)
	}
	j.chunks[n] = b
}

// reset forgets everything but the room of the first chunk.
func (j *journal) reset() {
	first := j.chunks[:min(len(j.chunks), 1)]
	clear(j.chunks[len(first):])
	*j = journal{}
	if len(first) > 0 && cap(first[0]) == journalChunk {
		clear(first[0])
		first[0] = first[0][:0]
		*j = journal{chunks: first, size: journalChunk}
	}
}

// tell gives the entries in their order to f, which may keep neither subj nor what it shares memory with.
func (j *journal) tell(f func(name docName, flags byte, subj subjects)) {
	var name docName
	var subj subjects
	for _, b := range j.chunks {
		for len(b) > 0 {
			flags := b[0]
			var text []byte
			b = b[1:]
			if flags&journalPlace != 0 {
				text, b = takeBytes(b)
				name.index = string(text)
				text, b = takeBytes(b)
				name.routing = string(text)
			}
			text, b = takeBytes(b)
			name.id = string(text)
			subj = subj[:0]
			if flags&journalDelete == 0 {
				subj, b = takeSubjects(subj, b)
			}
			f(name, flags, subj)
		}
	}
}

func appendText[T string | []byte](dst []byte, x T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(x))), x...)
}

// takeBytes reads a length and so many bytes.
func takeBytes(b []byte) (taken, rest []byte) {
	n, size := binary.Uvarint(b)
	return b[size : size+int(n)], b[size+int(n):]
}

// appendSubjects appends their number, and for each 1 + its length and its text, or 0 for none.
func appendSubjects(dst []byte, subj subjects) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(subj)))
	for _, s := range subj {
		if s == nil {
			dst = append(dst, 0)
			continue
		}
		dst = append(binary.AppendUvarint(dst, uint64(len(s))+1), s...)
	}
	return dst
}

// takeSubjects appends to subj what appendSubjects wrote. They share memory with b.
func takeSubjects(subj subjects, b []byte) (taken subjects, rest []byte) {
	count, size := binary.Uvarint(b)
	b = b[size:]
	for range count {
		n, size := binary.Uvarint(b)
		if b = b[size:]; n == 0 {
			subj = append(subj, nil)
			continue
		}
		subj = append(subj, b[:n-1:n-1])
		b = b[n-1:]
	}
	return subj, b
}

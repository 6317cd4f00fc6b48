package rewrite

import "bytes"

// guesses are the member names with which the root of the last document began, in order: documents of one index are
// mostly alike, and to compare a name costs a fifth of reading, hashing and looking it up.
//
// That nothing is missed stands on this: each guess was read and checked as any name is, all are different, and they are
// compared as written, quotes included. So a document that begins with the first k guesses begins with k names that are
// in order and different. Their hashes are only needed once another name follows.
type guesses struct {
	root *node // of the target that the documents are for
	list []guess
}

type guess struct {
	text  []byte // as written, with its quotes, without escapes
	hash  uint64
	child *node
}

// maxGuesses is not above fewNames: that a name is new is then known when it is learnt, not only at the object's end.
const maxGuesses = fewNames

// maxGuess is the longest name that is kept.
const maxGuess = 256

// guessing is the use of guesses in one object; the zero value guesses nothing.
type guessing struct {
	from    *guesses
	right   int  // so many names were as guessed
	on      bool // all of them so far
	learned bool // the names so far are the guesses
}

func (g *guessing) begin(from *guesses, root *node) {
	if from.root != root {
		from.root, from.list = root, from.list[:0]
	}
	g.from, g.on, g.learned = from, true, true
}

// name compares the name at pos with the next guess.
func (g *guessing) name(b []byte, pos int) (child *node, end int, ok bool) {
	if !g.on || g.right >= len(g.from.list) {
		return nil, 0, false
	}
	next := &g.from.list[g.right]
	end = pos + len(next.text)
	if end > len(b) || !bytes.Equal(b[pos:end], next.text) {
		return nil, 0, false
	}
	g.right++
	return next.child, end, true
}

// missed is called before a name that was not guessed is read: from now on hashes count.
func (g *guessing) missed(n *names, f *nameFrame) {
	if !g.on {
		return
	}
	g.on = false
	for i := range g.right {
		n.addHash(f, g.from.list[i].hash)
	}
	g.from.list = g.from.list[:g.right]
}

// learn makes a name that was read and checked the next guess. text is as written, and length that of the name.
func (g *guessing) learn(n *names, text []byte, length int, child *node) {
	if !g.learned {
		return
	}
	list := g.from.list
	if len(text) != length+2 || len(text) > maxGuess || len(list) >= maxGuesses {
		g.learned = false // with an escape in it, or too long, or too many
		return
	}
	if len(list) < cap(list) {
		list = list[:len(list)+1]
	} else {
		list = append(list, guess{})
	}
	last := &list[len(list)-1]
	last.text, last.hash, last.child = append(last.text[:0], text...), n.stack[len(n.stack)-1], child
	g.from.list = list
}

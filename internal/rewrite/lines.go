package rewrite

import (
	"bytes"
	"context"
	"errors"
	"io"
)

// blockSize is how much of a bulk body is read before its items are sent. Of a body whose items are sealed it is sealedBlock, some 100
// documents and half a millisecond of work: that is as fast, and with the output of twice the length a further
// bulk takes 0.6 MiB less. What goes up as it came is 1.1 times as fast in the larger blocks.
const (
	blockSize   = 128 << 10
	sealedBlock = 64 << 10
)

// firstBlock is what a bulk body gets to begin with, so that many small or slow ones fit into the budget. What is read whole, a
// search most of the time, is shorter.
const (
	firstBlock = 16 << 10
	firstWhole = 2 << 10
)

// lines splits a body at newlines as Elasticsearch frames a bulk (BulkRequestParser.findNextMarker): at every
// newline byte, whatever it stands in. Lines are places in buf, which keep until the next block.
type lines struct {
	ctx    context.Context
	r      io.Reader
	budget Budget
	limit  int64 // longest line
	buf    []byte
	start  int // of the next line
	seen   int // no newline between start and seen
	eof    bool
	whole  bool  // the block has whole items: rather end it than grow
	held   int64 // bytes of budget
	pooled bool  // nobody keeps buf: it is used again for other bodies
	first  int   // bytes that buf gets to begin with
	block  int   // bytes that it gets in the end, but for long lines
}

// blockCost is how much memory one byte of a block takes: the block, its sealed form (up to twice) and slack.
const blockCost = 3

var (
	errLongLine  = errors.New("line too long")
	errBlockFull = errors.New("block full")
)

// newLines reads r, where nil is an empty body.
func newLines(ctx context.Context, r io.Reader, budget Budget, limit int64) *lines {
	if r == nil {
		r = bytes.NewReader(nil)
	}
	return &lines{ctx: ctx, r: r, budget: budget, limit: limit, first: firstBlock, block: blockSize}
}

// grow makes room for n bytes in all.
func (l *lines) grow(n int) error {
	cost := int64(n-cap(l.buf)) * blockCost
	if err := l.budget.Acquire(l.ctx, cost); err != nil {
		return err
	}
	l.held += cost
	var buf []byte
	if l.pooled {
		buf = newBlock(n)
	} else {
		buf = make([]byte, 0, n)
	}
	buf = append(buf, l.buf...)
	if l.pooled {
		freeBlock(l.buf)
	}
	l.buf = buf
	return nil
}

// toSeal is told that there are items to be sealed.
func (l *lines) toSeal() {
	if cap(l.buf) <= sealedBlock {
		l.block = sealedBlock
	}
}

// close gives the memory back.
func (l *lines) close() {
	if l.held > 0 {
		l.budget.Release(l.held)
		l.held = 0
	}
	if l.pooled {
		freeBlock(l.buf)
	}
	l.buf = nil
}

// discard forgets the lines before l.start and moves what follows to the front: a new block begins.
func (l *lines) discard() {
	n := copy(l.buf[:cap(l.buf)], l.buf[l.start:])
	l.buf = l.buf[:n]
	l.seen -= l.start
	l.start = 0
	// After a very long line the block shrinks again.
	if cap(l.buf) > 4*blockSize && n < l.block {
		small := make([]byte, n, l.block)
		copy(small, l.buf)
		back := int64(cap(l.buf)-l.block) * blockCost
		l.buf = small
		l.budget.Release(back)
		l.held -= back
	}
}

// fill reads once. It reports io.EOF only when nothing more comes.
func (l *lines) fill() error {
	if l.eof {
		return io.EOF
	}
	if len(l.buf) == cap(l.buf) {
		if l.whole && cap(l.buf) >= l.block {
			return errBlockFull
		}
		// No block gets larger than its longest line and what may lie before that: otherwise a document of just
		// the limit would cost twice as much memory.
		n := max(l.first, min(2*cap(l.buf), int(l.limit)+blockSize))
		if n <= cap(l.buf) {
			n = 2 * cap(l.buf)
		}
		if err := l.grow(n); err != nil {
			return err
		}
	}
	n, err := l.r.Read(l.buf[len(l.buf):cap(l.buf)])
	l.buf = l.buf[:len(l.buf)+n]
	if err == io.EOF {
		l.eof = true
		if n == 0 {
			return io.EOF
		}
		return nil
	}
	return err
}

// next returns the next line without its newline. io.EOF: the body has ended at a newline (or is empty).
// io.ErrUnexpectedEOF: bytes follow the last newline. errLongLine: the line is over the limit and still at l.start.
// errBlockFull: the line is not there whole, and the block is large enough to be dealt with first.
func (l *lines) next() (span, error) {
	for {
		if i := bytes.IndexByte(l.buf[l.seen:], '\n'); i >= 0 {
			at := span{l.start, l.seen + i}
			if int64(at.end-at.start) > l.limit {
				return span{}, errLongLine
			}
			l.start = at.end + 1
			l.seen = l.start
			return at, nil
		}
		l.seen = len(l.buf)
		if int64(l.seen-l.start) > l.limit {
			return span{}, errLongLine
		}
		if err := l.fill(); err == io.EOF {
			if l.start == len(l.buf) {
				return span{}, io.EOF
			}
			return span{}, io.ErrUnexpectedEOF
		} else if err != nil {
			return span{}, err
		}
	}
}

// skip passes the rest of a long line, newline included, to w (nil: nowhere) in bounded memory.
// Lines before it must have been dealt with.
func (l *lines) skip(w io.Writer) error {
	for {
		i := bytes.IndexByte(l.buf[l.start:], '\n')
		end := len(l.buf)
		if i >= 0 {
			end = l.start + i + 1
		}
		if w != nil {
			if _, err := w.Write(l.buf[l.start:end]); err != nil {
				return err
			}
		}
		l.start, l.seen = end, end
		if i >= 0 {
			return nil
		}
		l.discard()
		if err := l.fill(); err == io.EOF {
			return io.ErrUnexpectedEOF
		} else if err != nil {
			return err
		}
	}
}

// back takes lines back: the next one is read again from start.
func (l *lines) back(start int) { l.start, l.seen = start, start }

// blank reports whether a line holds nothing, as BulkRequestParser skips them between actions.
func blank(line []byte) bool { return skipSpace(line, 0) == len(line) }

// readAll reads a whole body of at most limit bytes into memory that the budget counts; done gives it back.
func readAll(ctx context.Context, r io.Reader, budget Budget, limit int64) (body []byte, done func(), err error) {
	l := newLines(ctx, r, budget, limit)
	l.first = firstWhole
	for {
		if err = l.fill(); err == io.EOF {
			return l.buf, l.close, nil
		}
		if err == nil && int64(len(l.buf)) > limit {
			err = tooLargeFault(limit)
		}
		if err != nil {
			l.close()
			return nil, nil, err
		}
	}
}

package rewrite

import (
	"context"
	"errors"
	"io"
	"sync"
)

const (
	// windowSize is the window a stream starts with. Only what grows beyond it is asked of the budget.
	windowSize = 64 << 10
	// outSize is how much output is gathered before it is written, if no read would block earlier.
	outSize = 32 << 10
	// replyDepth is where the depth of a value in a reply starts to count: its documents may be maxDepth deep
	// themselves and sit some levels below the root.
	replyDepth = -64
	// maxReplyDepth is how many containers skipValue then takes inside each other.
	maxReplyDepth = maxDepth - replyDepth + 1
)

// stream reads one strict RFC 8259 text and copies it as written, but for what its user replaces.
// It holds a window of the text and the output that is not written yet. All output is
// written before a Read, so that first bytes do not wait for later ones, unless hold is set.
//
// A *syntaxError or errShort from its methods says that the text is not strict from some byte
// at or after the window's place on; passRest then copies the rest as it is. Other errors come from the
// reader, the writer or the budget, and end the reply.
type stream struct {
	ctx    context.Context
	in     io.Reader
	out    io.Writer
	budget Budget

	buf      []byte // the window is buf[pos:end]; buf[:pos] was passed
	pos, end int
	err      error // what the reader ended with

	obuf  []byte       // output not written yet
	hold  bool         // obuf stays in memory even before a Read, up to maxHeld bytes
	full  func() error // ends hold when that is reached
	sink  func() error // if not nil, takes obuf away when it is full or more is read, and puts an empty one there
	wrote bool         // something was written

	acquired int64
	name     []byte // scratch of member names
	skim     skimmer
}

var (
	windowPool = sync.Pool{New: func() any { b := make([]byte, windowSize); return &b }}
	outPool    = sync.Pool{New: func() any { b := make([]byte, 0, outSize+outSize/2); return &b }}
)

func newStream(ctx context.Context, in io.Reader, out io.Writer, budget Budget) *stream {
	return &stream{
		ctx: ctx, in: in, out: out, budget: budget,
		buf:  *windowPool.Get().(*[]byte),
		obuf: *outPool.Get().(*[]byte),
	}
}

// close clears the buffers, which held plaintext, and gives all memory back.
func (s *stream) close() {
	if s.acquired > 0 {
		s.budget.Release(s.acquired)
		s.acquired = 0
	}
	if len(s.buf) == windowSize {
		clear(s.buf)
		b := s.buf
		windowPool.Put(&b)
	}
	if o := s.obuf[:cap(s.obuf)]; len(o) <= 2*outSize {
		clear(o)
		o = o[:0]
		outPool.Put(&o)
	}
	s.buf, s.obuf, s.pos, s.end = nil, nil, 0, 0
}

// acquire asks the budget for n more bytes, which stay until close.
func (s *stream) acquire(n int) error {
	if err := s.budget.Acquire(s.ctx, int64(n)); err != nil {
		return err
	}
	s.acquired += int64(n)
	return nil
}

// tryAcquire is acquire, unless it would have to wait.
func (s *stream) tryAcquire(n int) bool {
	ok := s.budget.TryAcquire(int64(n))
	if ok {
		s.acquired += int64(n)
	}
	return ok
}

// swapped gives back the n bytes of a buffer that a larger one replaced. The first ones were not acquired.
func (s *stream) swapped(n, first int) {
	if n > first {
		s.budget.Release(int64(n))
		s.acquired -= int64(n)
	}
}

// flush writes the gathered output.
func (s *stream) flush() error {
	if len(s.obuf) == 0 {
		return nil
	}
	if s.sink != nil {
		return s.sink()
	}
	s.wrote = true
	_, err := s.out.Write(s.obuf)
	s.obuf = s.obuf[:0]
	return err
}

// emit adds p to the output.
func (s *stream) emit(p []byte) error {
	if s.hold && len(s.obuf)+len(p) > maxHeld {
		if err := s.full(); err != nil {
			return err
		}
	}
	for s.sink != nil && !s.hold {
		n := copy(s.obuf[len(s.obuf):cap(s.obuf)], p)
		s.obuf, p = s.obuf[:len(s.obuf)+n], p[n:]
		if len(p) == 0 {
			return nil
		}
		if err := s.sink(); err != nil {
			return err
		}
	}
	if !s.hold && len(s.obuf)+len(p) > outSize {
		if err := s.flush(); err != nil {
			return err
		}
		if len(p) >= outSize/2 {
			s.wrote = true
			_, err := s.out.Write(p)
			return err
		}
	}
	if need := len(s.obuf) + len(p); need > cap(s.obuf) {
		grown := max(need, 2*cap(s.obuf))
		if err := s.acquire(grown); err != nil {
			return err
		}
		old := s.obuf
		s.obuf = append(make([]byte, 0, grown), old...)
		clear(old)
		s.swapped(cap(old), 2*outSize)
	}
	s.obuf = append(s.obuf, p...)
	return nil
}

// pass copies the next n bytes of the window to the output.
func (s *stream) pass(n int) error {
	p := s.buf[s.pos : s.pos+n]
	s.pos += n
	return s.emit(p)
}

// drop leaves the next n bytes of the window out.
func (s *stream) drop(n int) { s.pos += n }

// fill reads more behind the window, which grows when it is full. At the end of the text it gives errShort.
func (s *stream) fill() error {
	if s.err != nil {
		if errors.Is(s.err, io.EOF) {
			return errShort
		}
		return s.err
	}
	if !s.hold {
		if err := s.flush(); err != nil {
			return err
		}
	}
	if s.pos > 0 && len(s.buf)-s.end < windowSize/2 {
		s.end = copy(s.buf, s.buf[s.pos:s.end])
		s.pos = 0
	}
	if s.end == len(s.buf) {
		old := s.buf
		if err := s.acquire(2 * len(old)); err != nil {
			return err
		}
		s.buf = make([]byte, 2*len(old))
		copy(s.buf, old)
		clear(old)
		s.swapped(len(old), windowSize)
	}
	for range 100 {
		n, err := s.in.Read(s.buf[s.end:])
		s.end += n
		if err != nil {
			s.err = err
		}
		if n > 0 {
			return nil
		}
		if err != nil {
			return s.fill() // tells s.err
		}
	}
	s.err = io.ErrNoProgress
	return s.err
}

// shrink gives a large window back once what it held was passed.
func (s *stream) shrink() {
	if len(s.buf) <= windowSize || s.end-s.pos > windowSize/2 {
		return
	}
	old := s.buf
	s.buf = make([]byte, windowSize)
	s.end = copy(s.buf, old[s.pos:s.end])
	s.pos = 0
	clear(old)
	s.swapped(len(old), windowSize)
}

// peek passes white space and gives the byte that follows.
func (s *stream) peek() (byte, error) {
	for {
		i := skipSpace(s.buf[:s.end], s.pos)
		if i > s.pos {
			if err := s.pass(i - s.pos); err != nil {
				return 0, err
			}
		}
		if s.pos < s.end {
			return s.buf[s.pos], nil
		}
		if err := s.fill(); err != nil {
			return 0, err
		}
	}
}

// expect passes white space and the byte c.
func (s *stream) expect(c byte) error {
	got, err := s.peek()
	if err != nil {
		return err
	}
	if got != c {
		return badSyntax(s.pos, "unexpected character")
	}
	return s.pass(1)
}

// finish checks that nothing but white space follows.
func (s *stream) finish() error {
	for {
		if _, err := s.peek(); err == nil {
			return badSyntax(s.pos, "text after the end")
		} else if errors.Is(err, errShort) {
			return nil
		} else {
			return err
		}
	}
}

// passRest copies everything that follows, unread.
func (s *stream) passRest() error {
	for {
		if err := s.pass(s.end - s.pos); err != nil {
			return err
		}
		if err := s.fill(); errors.Is(err, errShort) {
			return s.flush()
		} else if err != nil {
			return err
		}
	}
}

// memberName passes a member name with its colon. The name is unescaped and valid until the next call of a
// method. A name too long for the window counts as "".
func (s *stream) memberName() ([]byte, error) {
	c, err := s.peek()
	if err != nil {
		return nil, err
	}
	if c != '"' {
		return nil, badSyntax(s.pos, "expected a member name")
	}
	for {
		end, flags, err := scanString(s.buf[:s.end], s.pos)
		if err == nil {
			raw := s.buf[s.pos+1 : end-1]
			if flags&hasEscape != 0 {
				s.name = unescape(s.name[:0], raw)
			} else {
				s.name = append(s.name[:0], raw...)
			}
			if err := s.pass(end - s.pos); err != nil {
				return nil, err
			}
			break
		}
		if !errors.Is(err, errShort) {
			return nil, err
		}
		if s.end-s.pos >= windowSize {
			s.name = s.name[:0]
			if err := s.skipThrough(); err != nil {
				return nil, err
			}
			break
		}
		if err := s.fill(); err != nil {
			return nil, err
		}
	}
	if err := s.expect(':'); err != nil {
		return nil, err
	}
	_, err = s.peek()
	return s.name, err
}

// object calls f with each member's name; f consumes the value. A value that is no object is copied.
func (s *stream) object(f func(name []byte) error) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != '{' {
		return s.copyValue()
	}
	if err := s.pass(1); err != nil {
		return err
	}
	if c, err = s.peek(); err != nil {
		return err
	}
	if c == '}' {
		return s.pass(1)
	}
	for {
		name, err := s.memberName()
		if err != nil {
			return err
		}
		if err := f(name); err != nil {
			return err
		}
		if c, err = s.peek(); err != nil {
			return err
		}
		switch c {
		case '}':
			return s.pass(1)
		case ',':
			if err := s.pass(1); err != nil {
				return err
			}
		default:
			return badSyntax(s.pos, "expected a comma or }")
		}
	}
}

// array calls f before each element; f consumes it. A value that is no array is copied.
func (s *stream) array(f func() error) error {
	c, err := s.peek()
	if err != nil {
		return err
	}
	if c != '[' {
		return s.copyValue()
	}
	if err := s.pass(1); err != nil {
		return err
	}
	if c, err = s.peek(); err != nil {
		return err
	}
	if c == ']' {
		return s.pass(1)
	}
	for {
		if _, err := s.peek(); err != nil {
			return err
		}
		if err := f(); err != nil {
			return err
		}
		if c, err = s.peek(); err != nil {
			return err
		}
		switch c {
		case ']':
			return s.pass(1)
		case ',':
			if err := s.pass(1); err != nil {
				return err
			}
		default:
			return badSyntax(s.pos, "expected a comma or ]")
		}
	}
}

// copyValue copies one value of any size in bounded memory.
func (s *stream) copyValue() error {
	if _, err := s.peek(); err != nil {
		return err
	}
	if end, ok := s.valueInSight(); ok {
		return s.pass(end - s.pos)
	}
	return s.skipThrough()
}

// valueInSight tells where the value at the window's place ends if all of it is there and strict.
func (s *stream) valueInSight() (end int, ok bool) {
	end, err := skipValue(s.buf[:s.end], s.pos, replyDepth)
	return end, err == nil && end < s.end // a number may go on behind the window
}

// skipThrough copies the value at the window's place while it is read.
func (s *stream) skipThrough() error {
	s.skim.reset()
	return s.skimOn()
}

// skimOn copies until the value that s.skim is in ends.
func (s *stream) skimOn() error {
	for {
		next, done, err := s.skim.run(s.buf[:s.end], s.pos)
		if perr := s.pass(next - s.pos); perr != nil {
			return perr
		}
		if err != nil || done {
			return err
		}
		if err := s.fill(); err != nil {
			if errors.Is(err, errShort) && s.pos == s.end && s.skim.complete() {
				return nil // a number ends with the text
			}
			return err
		}
	}
}

// capture brings one whole value into the window, which grows for it, and returns it without passing it.
// A value of more than limit bytes gives ok false and is copied.
func (s *stream) capture(limit int64) (value []byte, ok bool, err error) {
	if _, err := s.peek(); err != nil {
		return nil, false, err
	}
	if end, ok := s.valueInSight(); ok && int64(end-s.pos) <= limit {
		return s.buf[s.pos:end], true, nil
	}
	s.skim.reset()
	seen := 0 // bytes of the value that were read, from s.pos
	for {
		next, done, err := s.skim.run(s.buf[:s.end], s.pos+seen)
		seen = next - s.pos
		if err != nil {
			return nil, false, err
		}
		if int64(seen) > limit {
			if err := s.pass(seen); err != nil {
				return nil, false, err
			}
			if !done {
				err = s.skimOn()
			}
			s.shrink()
			return nil, false, err
		}
		if done {
			return s.buf[s.pos:next], true, nil
		}
		if err := s.fill(); err != nil {
			if errors.Is(err, errShort) && s.pos+seen == s.end && s.skim.complete() {
				return s.buf[s.pos:s.end], true, nil
			}
			return nil, false, err
		}
	}
}

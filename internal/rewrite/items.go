package rewrite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// badItem is a bulk item that the proxy refused.
type badItem struct {
	ordinal   int // place among all actions of the request, from 0
	action    string
	index, id string
	hasID     bool
	fault     *Fault
}

// splice puts the items that the proxy refused into Elasticsearch's reply to the others.
type splice struct {
	bad    []badItem   // in the order of their ordinals
	total  int         // actions of the request
	filter *filterPath // what filter_path leaves of the reply
	// wanted tells which items of Elasticsearch replace is called for; both may be nil. replace gets the text of one
	// item, valid during the call, and returns what stands in its place.
	wanted  func(ordinal int) bool
	replace func(ordinal int, item []byte) ([]byte, error)
	open    *opening // opens what updates return; may be nil
	counter Counter
	budget  Budget
	limit   int64 // largest item that replace can get
}

// A replyMismatch says that a bulk reply is not one entry for each item in the shape of Elasticsearch's. What was
// written upstream stands; which item failed can't be told.
type replyMismatch struct{ what string }

func (e *replyMismatch) Error() string { return "bulk reply of Elasticsearch: " + e.what }

// backWriter keeps the first bytes back, so that an error can still become a reply of its own.
type backWriter struct {
	w     io.Writer
	buf   []byte
	limit int // 0: nothing is kept back any more
}

func (b *backWriter) Write(p []byte) (int, error) {
	if len(b.buf)+len(p) <= b.limit {
		b.buf = append(b.buf, p...)
		return len(p), nil
	}
	if err := b.flush(); err != nil {
		return 0, err
	}
	return b.w.Write(p)
}

func (b *backWriter) flush() error {
	b.limit = 0
	if len(b.buf) == 0 {
		return nil
	}
	_, err := b.w.Write(b.buf)
	clear(b.buf)
	b.buf = nil
	return err
}

// rewrite copies a bulk reply of status 200 and completes it. It writes nothing before maxHeld bytes are there or
// the reply is complete, so most errors come before the first byte; an error after that means that the reply was cut.
func (s *splice) rewrite(ctx context.Context, in io.Reader, out io.Writer) error {
	back := &backWriter{w: out}
	st := newStream(ctx, in, back, s.budget)
	var r *replier
	if s.open != nil {
		r = newReplier(ctx, s.open, st)
		defer r.close()
	} else {
		defer st.close()
	}
	if st.acquire(maxHeld) == nil { // without the memory errors come later, but they do come
		back.limit = maxHeld
	}
	err := s.root(st, r)
	if err == nil {
		err = st.finish()
	}
	if isNotStrict(err) {
		if len(s.bad) > 0 || s.replace != nil {
			return &replyMismatch{"it is cut or no strict JSON"}
		}
		if r != nil {
			r.unopened(notStrict, 1)
			if err := r.release(); err != nil {
				return err
			}
		}
		err = st.passRest()
	}
	if err == nil && r != nil {
		err = r.release()
	}
	if err == nil {
		err = st.flush()
	}
	if err == nil {
		err = back.flush()
	}
	return err
}

// root reads the reply's object: {"errors":…,"took":…,"items":[…]}.
func (s *splice) root(st *stream, r *replier) error {
	counts := len(s.bad) > 0 || s.replace != nil
	if c, err := st.peek(); err != nil {
		return err
	} else if c != '{' {
		if counts {
			return &replyMismatch{"it is no object"}
		}
		return st.copyValue()
	}
	var errs, items bool
	err := st.object(func(name []byte) error {
		switch string(name) {
		case "errors":
			if len(s.bad) == 0 {
				break
			}
			if errs || items {
				return &replyMismatch{`"errors" is there twice or follows "items"`}
			}
			errs = true
			value, ok, err := st.capture(int64(len("false")))
			if err != nil {
				return err
			}
			if text := string(value); !ok || text != "true" && text != "false" {
				return &replyMismatch{`"errors" is neither true nor false`}
			}
			st.drop(len(value))
			return st.emit([]byte("true"))
		case "items":
			if items {
				return &replyMismatch{`"items" is there twice`}
			}
			items = true
			if len(s.bad) > 0 && !errs && s.filter.keeps("errors") {
				return &replyMismatch{`"errors" does not precede "items"`}
			}
			return s.items(st, r, counts)
		}
		return st.copyValue()
	})
	if err == nil && counts && !items {
		return &replyMismatch{`it has no "items"`}
	}
	return err
}

// items copies the entries of Elasticsearch and puts ours between them.
func (s *splice) items(st *stream, r *replier, counts bool) error {
	if c, err := st.peek(); err != nil {
		return err
	} else if c != '[' {
		if counts {
			return &replyMismatch{`"items" is no array`}
		}
		return st.copyValue()
	}
	if err := st.pass(1); err != nil {
		return err
	}
	next := 0 // of s.bad
	ordinal := 0
	var ours []byte
	for first := true; ; first = false {
		c, err := st.peek()
		if err != nil {
			return err
		}
		if c == ']' && !first { // right after a comma
			return badSyntax(st.pos, "expected a value")
		}
		if c != ']' {
			for ; next < len(s.bad) && s.bad[next].ordinal == ordinal; next++ {
				if ours, err = s.appendItem(ours[:0], &s.bad[next]); err != nil {
					return err
				}
				if err := st.emit(append(ours, ',')); err != nil {
					return err
				}
				ordinal++
			}
			if ordinal >= s.total && counts {
				return &replyMismatch{"it has more items than the request"}
			}
			if err := s.item(st, r, ordinal); err != nil {
				return err
			}
			ordinal++
			if c, err = st.peek(); err != nil {
				return err
			}
			if c == ',' {
				if err := st.pass(1); err != nil {
					return err
				}
				continue
			}
			if c != ']' {
				return badSyntax(st.pos, "expected a comma or ]")
			}
		}
		for empty := first && ordinal == 0; next < len(s.bad) && s.bad[next].ordinal == ordinal; next++ {
			ours = ours[:0]
			if !empty {
				ours = append(ours, ',')
			}
			empty = false
			if ours, err = s.appendItem(ours, &s.bad[next]); err != nil {
				return err
			}
			if err := st.emit(ours); err != nil {
				return err
			}
			ordinal++
		}
		if counts && (ordinal != s.total || next != len(s.bad)) {
			return &replyMismatch{fmt.Sprintf("it has %d items for %d of the request's %d", ordinal-next, s.total-len(s.bad), s.total)}
		}
		return st.pass(1)
	}
}

// item copies one entry of Elasticsearch, replaced or opened.
func (s *splice) item(st *stream, r *replier, ordinal int) error {
	if s.replace == nil || s.wanted == nil || !s.wanted(ordinal) {
		if r == nil {
			return st.copyValue()
		}
		return r.unit(r.h.item)
	}
	text, ok, err := st.capture(s.limit)
	if err != nil || !ok {
		return err
	}
	n := len(text)
	text, err = s.replace(ordinal, text)
	if err != nil {
		return err
	}
	st.drop(n)
	if r == nil {
		return st.emit(text)
	}
	if end, err := r.try(r.h.item, text); err != nil || end != len(text) {
		return &replyMismatch{"an item is no object"}
	}
	return r.put(text)
}

// appendItem appends one of our entries, cut by filter_path as the server would.
func (s *splice) appendItem(dst []byte, b *badItem) ([]byte, error) {
	base := len(dst)
	dst = append(dst, `{"`...)
	dst = append(dst, b.action...)
	dst = append(dst, `":{`...)
	empty := len(dst)
	member := func(name string) bool {
		if !s.filter.keeps("items", b.action, name) {
			return false
		}
		dst = appendMember(dst, name)
		return true
	}
	if member("_index") {
		dst = appendJSONString(dst, b.index)
	}
	if member("_id") {
		if b.hasID {
			dst = appendJSONString(dst, b.id)
		} else {
			dst = append(dst, "null"...)
		}
	}
	if member("status") {
		dst = strconv.AppendInt(dst, int64(b.fault.Status), 10)
	}
	typ, reason := s.filter.keeps("items", b.action, "error", "type"), s.filter.keeps("items", b.action, "error", "reason")
	if typ || reason {
		dst = append(appendMember(dst, "error"), '{')
		if typ {
			dst = appendJSONString(appendMember(dst, "type"), b.fault.Type)
		}
		if reason {
			dst = appendJSONString(appendMember(dst, "reason"), b.fault.Reason)
		}
		dst = append(dst, '}')
	}
	if len(dst) == empty {
		return dst[:base], errNoEntry
	}
	return append(dst, "}}"...), nil
}

var errNoEntry = errors.New("filter_path leaves no entry for a refused item")

// appendMember appends a comma, where one is due, and a member name with its colon.
func appendMember(dst []byte, name string) []byte {
	if c := dst[len(dst)-1]; c != '{' {
		dst = append(dst, ',')
	}
	dst = append(dst, '"')
	dst = append(dst, name...)
	return append(dst, '"', ':')
}

// own writes the whole reply when every item was refused.
func (s *splice) own(out io.Writer, tookMillis int64) error {
	dst := []byte{'{'}
	if s.filter.keeps("errors") {
		dst = append(appendMember(dst, "errors"), "true"...)
	}
	if s.filter.keeps("took") {
		dst = strconv.AppendInt(appendMember(dst, "took"), tookMillis, 10)
	}
	count := 0
	for i := range s.bad {
		before := len(dst)
		if count == 0 {
			dst = append(appendMember(dst, "items"), '[')
		} else {
			dst = append(dst, ',')
		}
		var err error
		if dst, err = s.appendItem(dst, &s.bad[i]); err != nil {
			dst = dst[:before]
			continue
		}
		count++
		if len(dst) > maxHeld {
			if _, err := out.Write(dst); err != nil {
				return err
			}
			dst = dst[:0]
		}
	}
	if count > 0 {
		dst = append(dst, ']')
	}
	_, err := out.Write(append(dst, '}'))
	return err
}

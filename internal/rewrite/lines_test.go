package rewrite

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// cuts are ways in which one body may arrive.
var cuts = map[string]func(io.Reader) io.Reader{
	"whole":    func(r io.Reader) io.Reader { return r },
	"bytes":    iotest.OneByteReader,
	"halves":   iotest.HalfReader,
	"data+EOF": iotest.DataErrReader,
	"bytes and data+EOF": func(r io.Reader) io.Reader {
		return iotest.DataErrReader(iotest.OneByteReader(r))
	},
	"empty reads": func(r io.Reader) io.Reader { return &emptyReads{r: r} },
}

// emptyReads returns nothing on every other read.
type emptyReads struct {
	r   io.Reader
	odd bool
}

func (e *emptyReads) Read(p []byte) (int, error) {
	if e.odd = !e.odd; e.odd {
		return 0, nil
	}
	return e.r.Read(p)
}

// readLines reads all lines, a new block after every n of them.
func readLines(l *lines, n int) (got []string, err error) {
	for i := 0; ; i++ {
		if i%n == n-1 {
			l.discard()
		}
		at, err := l.next()
		if err == errBlockFull {
			l.back(l.start)
			l.discard()
			i--
			l.whole = false
			continue
		}
		if err != nil {
			return got, err
		}
		got = append(got, string(l.buf[at.start:at.end]))
		l.whole = true
	}
}

func TestLinesChunking(t *testing.T) {
	long := strings.Repeat("x", 3*firstBlock)
	for _, c := range []struct {
		body string
		want []string
		end  error
	}{
		{"", nil, io.EOF},
		{"\n", []string{""}, io.EOF},
		{"a\nb\n", []string{"a", "b"}, io.EOF},
		{"a\r\n\r\n \nb\r\n", []string{"a\r", "\r", " ", "b\r"}, io.EOF},
		{"a\n\n\nb", []string{"a", "", ""}, io.ErrUnexpectedEOF},
		{"a", nil, io.ErrUnexpectedEOF},
		{"\"a\\n\u2028\u0085\"\n", []string{"\"a\\n\u2028\u0085\""}, io.EOF}, // only a newline byte ends a line
		{long + "\nb\n" + long + long + "\n", []string{long, "b", long + long}, io.EOF},
	} {
		for name, cut := range cuts {
			for _, every := range []int{1, 2, 1000} {
				budget := &fakeBudget{}
				l := newLines(context.Background(), cut(strings.NewReader(c.body)), budget, 1<<20)
				got, err := readLines(l, every)
				if !cmp.Equal(got, c.want) || err != c.end {
					t.Errorf("%.20q, %s, a block after %d: %d lines %.60q, %v", c.body, name, every, len(got), got, err)
				}
				l.close()
				l.close()
				if budget.out != 0 {
					t.Errorf("%.20q, %s: %d bytes of the budget are still out", c.body, name, budget.out)
				}
			}
		}
	}
}

func TestLinesGenerated(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOf(rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "\r", " ", "é", strings.Repeat("b", 5000)}), 0, 8), func(s []string) string { return strings.Join(s, "") })).Draw(t, "lines")
		body := ""
		for _, line := range want {
			body += line + "\n"
		}
		rest := rapid.SampledFrom([]string{"", "cut"}).Draw(t, "rest")
		sizes := rapid.SliceOfN(rapid.IntRange(1, 40_000), 1, 10).Draw(t, "sizes")
		budget := &fakeBudget{}
		l := newLines(context.Background(), &sizedReader{r: strings.NewReader(body + rest), sizes: sizes}, budget, 1<<20)
		defer l.close()
		got, err := readLines(l, rapid.IntRange(1, 5).Draw(t, "every"))
		if len(got) != len(want) || len(want) > 0 && !cmp.Equal(got, want) {
			t.Fatalf("%d lines, not %d", len(got), len(want))
		}
		if end := map[bool]error{true: io.EOF, false: io.ErrUnexpectedEOF}[rest == ""]; err != end {
			t.Fatalf("the end is %v", err)
		}
		l.close()
		if budget.out != 0 {
			t.Fatalf("%d bytes of the budget are still out", budget.out)
		}
	})
}

// sizedReader reads in pieces of the given sizes, in turn.
type sizedReader struct {
	r     io.Reader
	sizes []int
	n     int
}

func (s *sizedReader) Read(p []byte) (int, error) {
	size := s.sizes[s.n%len(s.sizes)]
	s.n++
	return s.r.Read(p[:min(size, len(p))])
}

func TestLinesBlockFull(t *testing.T) {
	line := strings.Repeat("a", 99<<10)
	l := newLines(context.Background(), strings.NewReader(strings.Repeat(line+"\n", 5)), &fakeBudget{}, 1<<20)
	defer l.close()
	total := 0
	for {
		at, err := l.next()
		if err == errBlockFull {
			if cap(l.buf) != blockSize {
				t.Fatalf("the block has %d bytes", cap(l.buf))
			}
			l.back(l.start)
			l.discard()
			l.whole = false
			continue
		}
		if err == io.EOF {
			break
		}
		if err != nil || string(l.buf[at.start:at.end]) != line {
			t.Fatalf("line %d: %v", total, err)
		}
		total++
		l.whole = true
	}
	if total != 5 {
		t.Errorf("%d lines", total)
	}
}

// tattling counts what passes and keeps nothing.
type tattling struct {
	n     int64
	other bool // a byte other than the wanted one
	want  byte
}

func (w *tattling) Write(p []byte) (int, error) {
	for _, c := range p {
		if c != w.want && c != '\n' {
			w.other = true
		}
	}
	w.n += int64(len(p))
	return len(p), nil
}

// repeated gives n bytes c without holding them.
type repeated struct {
	c byte
	n int64
}

func (r *repeated) Read(p []byte) (int, error) {
	if r.n == 0 {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), r.n))
	for i := range p[:n] {
		p[i] = r.c
	}
	r.n -= int64(n)
	return n, nil
}

func TestLinesLong(t *testing.T) {
	const limit = 1 << 20
	for _, pass := range []bool{false, true} {
		body := io.MultiReader(strings.NewReader("first\n"), &repeated{'x', 40 << 20}, strings.NewReader("\nlast\n"))
		budget := &fakeBudget{}
		l := newLines(context.Background(), body, budget, limit)
		if _, err := l.next(); err != nil {
			t.Fatal(err)
		}
		if _, err := l.next(); err != errLongLine {
			t.Fatalf("got %v", err)
		}
		w := &tattling{want: 'x'}
		var to io.Writer
		if pass {
			to = w
		}
		if err := l.skip(to); err != nil {
			t.Fatal(err)
		}
		if pass && (w.n != 40<<20+1 || w.other) {
			t.Errorf("%d bytes passed, others among them: %v", w.n, w.other)
		}
		l.discard()
		at, err := l.next()
		if err != nil || string(l.buf[at.start:at.end]) != "last" {
			t.Errorf("after the long line: %v", err)
		}
		if budget.peak > blockCost*(limit+2*blockSize) {
			t.Errorf("at most %d bytes of the budget were out, for lines of %d", budget.peak, limit)
		}
		if budget.out > blockCost*4*blockSize {
			t.Errorf("%d bytes are out after the long line", budget.out)
		}
		l.close()
		if budget.out != 0 {
			t.Errorf("%d bytes are still out", budget.out)
		}
	}
}

// A line of exactly the limit passes, and one of a byte more does not, however blocks and buffers grow.
func TestLinesLimit(t *testing.T) {
	for _, limit := range []int{1, 100, firstBlock, blockSize - 1, blockSize, 3 * blockSize, 1 << 20} {
		for _, more := range []int{0, 1} {
			budget := &fakeBudget{}
			l := newLines(context.Background(), io.MultiReader(&repeated{'x', int64(limit + more)}, strings.NewReader("\n")), budget, int64(limit))
			_, err := l.next()
			if more == 0 && err != nil || more == 1 && err != errLongLine {
				t.Errorf("limit %d, %d more: %v", limit, more, err)
			}
			if budget.peak > int64(blockCost*(limit+2*blockSize)) {
				t.Errorf("limit %d: %d bytes of the budget", limit, budget.peak)
			}
			l.close()
		}
	}
}

func TestLinesErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, body := range []string{"", "a\n", "a\nb"} {
		budget := &fakeBudget{}
		l := newLines(context.Background(), io.MultiReader(strings.NewReader(body), iotest.ErrReader(broken)), budget, 1<<20)
		if _, err := readLines(l, 2); err != broken {
			t.Errorf("%q: %v", body, err)
		}
		l.close()
		if budget.out != 0 {
			t.Errorf("%q: %d bytes are still out", body, budget.out)
		}
	}
	// Without memory.
	budget := &fakeBudget{max: 2 * blockCost * firstBlock}
	l := newLines(context.Background(), &repeated{'x', 1 << 20}, budget, 1<<20)
	_, err := l.next()
	wantFault(t, err, "esproxy_busy", "")
	l.close()
	if budget.out != 0 {
		t.Errorf("%d bytes are still out", budget.out)
	}
	// A long line that is cut, and one whose reader breaks.
	for _, end := range []struct {
		r    io.Reader
		want error
	}{{strings.NewReader(""), io.ErrUnexpectedEOF}, {iotest.ErrReader(broken), broken}} {
		budget := &fakeBudget{}
		l := newLines(context.Background(), io.MultiReader(&repeated{'x', 1 << 20}, end.r), budget, 1<<10)
		if _, err := l.next(); err != errLongLine {
			t.Fatal(err)
		}
		if err := l.skip(nil); err != end.want {
			t.Errorf("got %v, want %v", err, end.want)
		}
		l.close()
		if budget.out != 0 {
			t.Errorf("%d bytes are still out", budget.out)
		}
	}
	l = newLines(context.Background(), strings.NewReader(strings.Repeat("x", 100)+"\n"), &fakeBudget{}, 10)
	defer l.close()
	if _, err := l.next(); err != errLongLine {
		t.Fatal(err)
	}
	if err := l.skip(failing{broken}); err != broken {
		t.Errorf("a writer that takes nothing: %v", err)
	}
}

// failing is a writer that fails.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

func TestReadAll(t *testing.T) {
	for _, size := range []int{0, 1, firstBlock - 1, firstBlock, firstBlock + 1, 1 << 20} {
		for name, cut := range cuts {
			if name != "whole" && size > firstBlock+1 {
				continue
			}
			body := bytes.Repeat([]byte("x"), size)
			budget := &fakeBudget{}
			got, done, err := readAll(context.Background(), cut(bytes.NewReader(body)), budget, int64(size))
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("%d bytes, %s: %d bytes, %v", size, name, len(got), err)
			}
			if budget.out < int64(size) || budget.peak > int64(blockCost*(size+2*blockSize)) {
				t.Errorf("%d bytes: %d of the budget are out, at most %d were", size, budget.out, budget.peak)
			}
			if done(); budget.out != 0 {
				t.Errorf("%d bytes: %d of the budget are still out", size, budget.out)
			}
			if size == 0 {
				continue
			}
			_, _, err = readAll(context.Background(), cut(bytes.NewReader(body)), budget, int64(size-1))
			if f := wantFault(t, err, "esproxy_document_too_large", "ESPROXY_MAX_DOCUMENT"); f.Status != 413 {
				t.Errorf("status %d", f.Status)
			}
			if budget.out != 0 {
				t.Errorf("%d of the budget are still out after a refusal", budget.out)
			}
		}
	}
}

package ingest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// Format is how a source's body is read.
type Format string

// The formats. FormatAuto looks at the first character that is not blank: "[" is an array, everything else NDJSON.
const (
	FormatAuto   Format = "auto"
	FormatArray  Format = "array"
	FormatNDJSON Format = "ndjson"
)

// position is a place in a source: after Records records of one page.
type position struct {
	// Page is the number of the page: as the provider counts in mode page, the
	// ordinal of the request in the others. 0 is a source without pages or its beginning.
	Page int `json:"page,omitempty"`
	// Next is the link or the cursor that leads to the page; empty for the first.
	Next string `json:"next,omitempty"`
	// Records is how many records of the page lie before the place.
	Records int64 `json:"records"`
	// IDs stands for the ids of these records in their order. Skipping is right only while they are the same.
	IDs chain `json:"ids,omitempty"`
}

// chain is a running digest over record ids, hex. Only ids go in: a digest over whole records would let
// its holder test guesses at card numbers.
type chain string

func (c chain) add(id string) chain {
	h := sha256.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(c)))
	h.Write(n[:])
	h.Write([]byte(c))
	h.Write([]byte(id))
	return chain(hex.EncodeToString(h.Sum(nil)[:16]))
}

// record is a mapped record and the place right after it.
type record struct {
	document
	after position
}

// A source reads records from a place on and hands them to emit in order.
// It returns nil at the end, and emit's error as it is.
type source interface {
	read(ctx context.Context, from position, emit func(record) error) error
}

// errRecordTooLarge is the error for a record over Options.MaxRecord where the rest of the source cannot be found any more.
var errRecordTooLarge = errors.New("a record is larger than the limit for one record")

// decode says how a body is read.
type decode struct {
	mapping   *Mapping
	format    Format
	maxRecord int64 // bytes
}

// stream reads one body and calls fn for each record. It returns io.ErrUnexpectedEOF for a
// body that was cut.
func (d decode) stream(r io.Reader, fn func(document) error) error {
	br, err := plain(r)
	if err != nil {
		return err
	}
	format := d.format
	if format == FormatAuto || format == "" {
		c, err := firstChar(br)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		format = FormatNDJSON
		if c == '[' {
			format = FormatArray
		}
	}
	if format == FormatNDJSON {
		return d.lines(br, fn)
	}
	p := newPageReader(br, d, nil, fn)
	return p.array()
}

// lines reads NDJSON. A line that is no record is handed on as a rejected one: the next line is unharmed.
func (d decode) lines(br *bufio.Reader, fn func(document) error) error {
	var long []byte // the line so far, when it is longer than the reader's buffer
	tooLong := false
	for {
		part, err := br.ReadSlice('\n')
		if err == bufio.ErrBufferFull {
			if tooLong = tooLong || int64(len(long)+len(part)) > d.maxRecord; tooLong {
				long = long[:0]
			} else {
				long = append(long, part...)
			}
			continue
		}
		if err != nil && err != io.EOF {
			return err // the rest of a line that was cut is not looked at
		}
		line := part
		if len(long) > 0 {
			long = append(long, part...)
			line = long
		}
		line = bytes.TrimSpace(line)
		switch {
		case tooLong || int64(len(line)) > d.maxRecord:
			if err := fn(document{reject: rejectTooLarge}); err != nil {
				return err
			}
		case len(line) > 0:
			if err := fn(d.mapping.apply(line)); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		long, tooLong = long[:0], false
	}
}

// plain takes gzip and a UTF-8 byte order mark off. JSON never begins with gzip's two magic bytes, so the
// body itself says what it is, whatever a header or a file name claims.
func plain(r io.Reader) (*bufio.Reader, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(2)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if len(magic) == 2 && magic[0] == 0x1f && magic[1] == 0x8b {
		zr, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		br = bufio.NewReaderSize(zr, 64<<10)
	}
	bom, err := br.Peek(3)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if bytes.Equal(bom, []byte("\xef\xbb\xbf")) {
		_, _ = br.Discard(3)
	}
	return br, nil
}

// firstChar returns the first byte that is not blank and leaves it unread.
func firstChar(br *bufio.Reader) (byte, error) {
	for {
		c, err := br.ReadByte()
		if err != nil {
			return 0, err
		}
		if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
			return c, br.UnreadByte()
		}
	}
}

// errChanged says that the records to skip are not those that were read before.
var errChanged = errors.New("the source changed")

// skipper drops the records that were delivered before and hands on the others. It is the
// one place that decides what a resumed or repeated page may leave out.
type skipper struct {
	want position // what was delivered of this page
	at   position // where the current reading is
	emit func(record) error
}

// next takes one record of the page.
func (s *skipper) next(d document) error {
	s.at.Records++
	s.at.IDs = s.at.IDs.add(d.id)
	switch {
	case s.at.Records > s.want.Records:
		s.want = s.at
		return s.emit(record{d, s.at})
	case s.at.Records == s.want.Records && s.at.IDs != s.want.IDs:
		return errChanged
	}
	return nil
}

// end is called when the page was read to its end.
func (s *skipper) end() error {
	if s.at.Records < s.want.Records {
		return errChanged
	}
	return nil
}

// restart begins another reading of the page.
func (s *skipper) restart() { s.at.Records, s.at.IDs = 0, "" }

// forget makes the next reading deliver everything again.
func (s *skipper) forget() {
	s.restart()
	s.want = s.at
}

// fileSource reads a file, or standard input when path is "-".
type fileSource struct {
	path  string
	stdin io.Reader
	d     decode
	log   *slog.Logger
}

func (f *fileSource) read(ctx context.Context, from position, emit func(record) error) error {
	if f.path == "-" {
		return noCut(f.d.stream(ctxReader{ctx, f.stdin}, func(d document) error {
			from.Records++
			return emit(record{d, from})
		}))
	}
	s := &skipper{want: from, emit: emit}
	for {
		file, err := os.Open(f.path)
		if err != nil {
			return err
		}
		err = f.d.stream(ctxReader{ctx, file}, s.next)
		_ = file.Close() // opened for reading
		if err == nil {
			err = s.end()
		}
		if !errors.Is(err, errChanged) {
			return noCut(err)
		}
		f.log.Warn("the file changed since the last run stopped: starting at its beginning")
		s.forget()
	}
}

// noCut explains an end that came too early.
func noCut(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("the source ends in the middle of a record: %w", err)
	}
	return err
}

// ctxReader ends a stream of reads when ctx is done. A read that blocks is not woken.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c ctxReader) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// isHTTP tells an address from a file name.
func isHTTP(source string) bool {
	s := strings.ToLower(source)
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

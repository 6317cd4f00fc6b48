package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zlib"

	"github.com/esproxy/esproxy/internal/rewrite"
)

type coding uint8

const (
	identity coding = iota
	gzipped
	deflated // RFC 9110: the zlib format of RFC 1950
)

// codingOf reads Content-Encoding. ok is false for anything but one coding that can be undone.
func codingOf(values []string) (c coding, ok bool) {
	switch {
	case len(values) == 0:
		return identity, true
	case len(values) > 1:
		return 0, false
	}
	switch strings.ToLower(strings.TrimSpace(values[0])) {
	case "", "identity":
		return identity, true
	case "gzip", "x-gzip":
		return gzipped, true
	case "deflate":
		return deflated, true
	}
	return 0, false
}

// ratioFloor is how much may be unpacked before the ratio counts: short repetitive bodies pack very well.
const ratioFloor = 16 << 20

var (
	errTrailing = errors.New("bytes follow the compressed body")
	errRatio    = errors.New("the compressed body unpacks to too much")
)

// unpacker undoes one coding strictly: one member, its checksum right, nothing behind it.
// Elasticsearch takes less than that, and what it would read then is not what we would.
type unpacker struct {
	src    *bufio.Reader
	packed *countReader
	dec    io.Reader
	gzip   *gunzipper // goes back to the pool at the end
	kind   coding
	n      int64
	ratio  int64 // zero: no limit
	err    error
}

// gunzipper is a gzip reader with the buffer that it reads from.
type gunzipper struct {
	src *bufio.Reader
	z   gzip.Reader
}

// gunzippers are those whose body has ended. To make one takes five times as long as to unpack a body of one document.
var gunzippers = sync.Pool{New: func() any { return &gunzipper{src: bufio.NewReaderSize(nil, blockSize)} }}

func newUnpacker(src io.Reader, kind coding, ratio int64) *unpacker {
	return &unpacker{packed: &countReader{r: src}, kind: kind, ratio: ratio}
}

func (u *unpacker) open() error {
	if u.kind == gzipped {
		u.gzip = gunzippers.Get().(*gunzipper)
		u.src = u.gzip.src
		u.src.Reset(u.packed)
		if err := u.gzip.z.Reset(u.src); err != nil {
			return err
		}
		u.gzip.z.Multistream(false)
		u.dec = &u.gzip.z
		return nil
	}
	u.src = bufio.NewReaderSize(u.packed, blockSize)
	// Servers differ on raw deflate under this name; Elasticsearch tells the two apart by these bits.
	head, err := u.src.Peek(2)
	if err != nil {
		return err
	}
	if v := binary.BigEndian.Uint16(head); v&0x7800 != 0x7800 || v%31 != 0 {
		return zlib.ErrHeader
	}
	u.dec, err = zlib.NewReader(u.src)
	return err
}

func (u *unpacker) Read(p []byte) (n int, err error) {
	if u.err != nil {
		return 0, u.err
	}
	defer func() {
		if u.err != nil && u.gzip != nil { // nothing is read from here on
			u.gzip.src.Reset(nil)
			gunzippers.Put(u.gzip)
			u.gzip, u.dec, u.src = nil, nil, nil
		}
	}()
	if u.dec == nil {
		if u.err = noEOF(u.open()); u.err != nil {
			return 0, u.err
		}
	}
	n, err = u.dec.Read(p)
	u.n += int64(n)
	if err == io.EOF {
		switch _, after := u.src.ReadByte(); after {
		case io.EOF:
			u.err = io.EOF
		case nil:
			u.err = errTrailing
		default:
			u.err = after
		}
	} else {
		u.err = err
	}
	if u.ratio > 0 && u.n > ratioFloor && u.n-ratioFloor > u.ratio*u.packed.n {
		u.err = errRatio
		return 0, u.err
	}
	return n, u.err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

type countReader struct {
	r io.Reader
	n int64
}

func (c *countReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// requestReader is what a transform reads: the body decoded. It remembers why it failed, so that a
// transform can't turn a broken body into a whole one by forgetting an error.
type requestReader struct {
	body *clientBody
	r    io.Reader
	n    atomic.Int64 // decoded bytes
	eof  bool
	err  error // a fault, or the connection's error
}

func newRequestReader(body *clientBody, kind coding, ratio int64) *requestReader {
	r := &requestReader{body: body, r: body}
	if kind != identity {
		r.r = newUnpacker(body, kind, ratio)
	}
	return r
}

// hold reads a packed body before it is unpacked, and gives it when it has at most limit bytes; it stays to be read.
func (r *requestReader) hold(limit int64) []byte {
	u, ok := r.r.(*unpacker)
	if !ok {
		return nil
	}
	head, err := io.ReadAll(io.LimitReader(r.body, limit+1))
	u.packed.r = io.MultiReader(bytes.NewReader(head), r.body)
	if err != nil || int64(len(head)) > limit {
		return nil
	}
	return head
}

func (r *requestReader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.eof {
		return 0, io.EOF
	}
	n, err := r.r.Read(p)
	r.n.Add(int64(n))
	switch {
	case err == io.EOF:
		r.eof = true
	case err != nil:
		r.err = r.explain(err)
		err = r.err
	}
	return n, err
}

// Stop lets a Read that waits for the client fail. It may be called by any goroutine.
func (r *requestReader) Stop() { r.body.halt() }

func (r *requestReader) explain(err error) error {
	var f *rewrite.Fault
	switch {
	case errors.As(err, &f):
		return f
	case r.body.failed() != nil: // the connection, not the coding
		if errors.Is(r.body.failed(), errStopped) {
			return errStopped
		}
		return faultBadBody("the request's body could not be read to its end", r.body.failed())
	case err == errRatio:
		return faultTooLarge("the compressed body unpacks to far more than its size; send it uncompressed or in smaller requests")
	case err == errTrailing:
		return faultBadBody("bytes follow the compressed body; send one member with nothing behind it", err)
	}
	return faultBadBody("the compressed body is broken or cut off; send it whole", err)
}

// transformAccept is the Accept-Encoding that goes up when a transform might open the reply: what we can
// decode and the client takes. The client's own stays where it names nothing else.
func transformAccept(values []string) []string {
	foreign := false
	for name := range codings(values) {
		switch name {
		case "gzip", "x-gzip", "deflate", "identity", "":
		default:
			foreign = true
		}
	}
	switch {
	case !foreign:
		return values
	case takesGzip(values):
		return []string{"gzip"}
	}
	return []string{"identity"}
}

// takesGzip reports whether an Accept-Encoding names gzip as welcome.
func takesGzip(values []string) bool {
	for name, welcome := range codings(values) {
		if welcome && (name == "gzip" || name == "x-gzip") {
			return true
		}
	}
	return false
}

// codings gives the names in Accept-Encoding in lower case, each with whether its weight is above zero
// (RFC 9110, section 12.5.3).
func codings(values []string) iter.Seq2[string, bool] {
	return func(yield func(string, bool) bool) {
		for _, line := range values {
			for part := range strings.SplitSeq(line, ",") {
				name, q, _ := strings.Cut(strings.ToLower(strings.TrimSpace(part)), ";")
				if !yield(strings.TrimSpace(name), !zeroQuality(q)) {
					return
				}
			}
		}
	}
}

func zeroQuality(param string) bool {
	k, v, ok := strings.Cut(param, "=")
	if !ok || strings.TrimSpace(k) != "q" {
		return false
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(v), 64)
	return err != nil || f <= 0
}

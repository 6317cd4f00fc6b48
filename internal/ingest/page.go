package ingest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// pageReader reads one JSON body token by token and never holds more than one record of it.
type pageReader struct {
	dec   *json.Decoder
	guard *guard
	d     decode
	fn    func(document) error

	// items is the path of the array of records in a page that is an object; wanted are the paths of strings to keep.
	items  string
	wanted map[string]*string
	found  bool // the items array was seen
}

// newPageReader returns a reader of r. wanted maps dotted paths to where their values go; it may be nil.
func newPageReader(r io.Reader, d decode, wanted map[string]*string, fn func(document) error) *pageReader {
	g := &guard{r: r}
	return &pageReader{dec: json.NewDecoder(g), guard: g, d: d, fn: fn, wanted: wanted}
}

// guard stops reading when one value grows over the limit. The decoder buffers a value whole, so
// what it has read beyond its offset is what it holds.
type guard struct {
	r     io.Reader
	read  int64
	limit int64
}

func (g *guard) Read(p []byte) (int, error) {
	if g.read >= g.limit {
		return 0, errRecordTooLarge
	}
	n, err := g.r.Read(p[:min(int64(len(p)), g.limit-g.read)])
	g.read += int64(n)
	return n, err
}

// bound allows the next token or value its size.
func (p *pageReader) bound() {
	// The decoder may have read ahead up to the bytes it buffers; they count as read already.
	p.guard.limit = max(p.dec.InputOffset(), p.guard.read-maxReadAhead) + p.d.maxRecord + maxReadAhead
}

const maxReadAhead = 64 << 10

// array reads a body that is one array of records.
func (p *pageReader) array() error {
	if err := p.records(); err != nil {
		return err
	}
	return p.end()
}

// page reads a body that is an array of records, or an object that holds one at the path items.
func (p *pageReader) page(items string) error {
	p.items = items
	p.bound()
	t, err := p.token()
	if err != nil {
		return err
	}
	switch t {
	case json.Delim('['):
		p.found = true
		err = p.elements()
	case json.Delim('{'):
		err = p.object("")
	default:
		return errors.New("the page is neither an array nor an object")
	}
	if err != nil {
		return err
	}
	if !p.found {
		return fmt.Errorf("the page has no array of records at %q (source.paging.items)", items)
	}
	return p.end()
}

// records reads an array and its elements.
func (p *pageReader) records() error {
	p.bound()
	t, err := p.token()
	if err != nil {
		return err
	}
	if t == nil {
		return nil // null: no records
	}
	if t != json.Delim('[') {
		return errors.New("the records are not an array")
	}
	return p.elements()
}

func (p *pageReader) elements() error {
	for p.more() {
		raw, err := p.value()
		if err != nil {
			return err
		}
		if err := p.fn(p.d.mapping.apply(raw)); err != nil {
			return err
		}
	}
	_, err := p.token()
	return err
}

func (p *pageReader) object(prefix string) error {
	for p.more() {
		t, err := p.token()
		if err != nil {
			return err
		}
		path := prefix + fmt.Sprint(t)
		switch dst, wanted := p.wanted[path]; {
		case path == p.items:
			if p.found {
				return fmt.Errorf("the page has two members %q", path)
			}
			p.found = true
			err = p.records()
		case wanted:
			err = p.scalar(path, dst)
		case p.leads(path + "."):
			p.bound()
			if t, err = p.token(); err == nil && t == json.Delim('{') {
				err = p.object(path + ".")
			} else if err == nil && t == json.Delim('[') {
				err = fmt.Errorf("the page has an array at %q, where an object is expected", path)
			}
		default:
			_, err = p.value()
		}
		if err != nil {
			return err
		}
	}
	_, err := p.token()
	return err
}

// leads tells whether a path that is looked for begins with prefix.
func (p *pageReader) leads(prefix string) bool {
	if strings.HasPrefix(p.items, prefix) {
		return true
	}
	for path := range p.wanted {
		if strings.HasPrefix(path, prefix) {
			return true
		}
	}
	return false
}

// scalar keeps a string, or a number as it is written. null is no value.
func (p *pageReader) scalar(path string, dst *string) error {
	raw, err := p.value()
	if err != nil {
		return err
	}
	switch raw[0] {
	case '"':
		return json.Unmarshal(raw, dst)
	case '{', '[', 't':
		return fmt.Errorf("the page's %q is neither a string nor a number", path)
	case 'n', 'f': // some providers write false for "no more"
		*dst = ""
	default:
		*dst = string(raw)
	}
	return nil
}

// more is Decoder.More with the limit set.
func (p *pageReader) more() bool {
	p.bound()
	return p.dec.More()
}

func (p *pageReader) token() (json.Token, error) {
	p.bound()
	t, err := p.dec.Token()
	return t, cutOr(err)
}

func (p *pageReader) value() (json.RawMessage, error) {
	p.bound()
	var raw json.RawMessage
	err := p.dec.Decode(&raw)
	if err == nil && int64(len(raw)) > p.d.maxRecord {
		err = errRecordTooLarge
	}
	return raw, cutOr(err)
}

// end checks that nothing but blanks follows. It also reads a gzip trailer, whose checksum would tell of damage.
func (p *pageReader) end() error {
	p.bound()
	switch _, err := p.dec.Token(); err {
	case io.EOF:
		return nil
	case nil:
		return errors.New("the body goes on after its last bracket")
	default:
		return cutOr(err)
	}
}

// cutOr turns an end inside a body into io.ErrUnexpectedEOF and keeps the text of what was
// read out of syntax errors.
func cutOr(err error) error {
	var syntax *json.SyntaxError
	switch {
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case errors.As(err, &syntax):
		return fmt.Errorf("the body is not JSON, near byte %d", syntax.Offset)
	}
	return err
}

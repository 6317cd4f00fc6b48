package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"

	"github.com/klauspost/compress/gzip"
)

// canary begins every protected value. Its first byte stands nowhere else in the bodies, nor in base64url, so
// looking for it costs the sink next to nothing.
const canary = "~plain~"

// protectedPaths are the fields of the default policy (config/fields.yaml). Each holds 16 characters.
var protectedPaths = []string{"credit_card_num", "credit_card_ccv", "cuenta_numero"}

// idWidth is the number of digits of a document's number, which stands in its _id, subject and protected values.
const idWidth = 9

// blockDocs is how many different documents a body is made of; after them only the numbers change.
const blockDocs = 1500

// corpus is a block of bulk items of one length each, whose numbers are written over in place.
type corpus struct {
	block  []byte
	stride int
	at     []int // places of the number in an item
}

// newCorpus makes documents of about 585 bytes in which neither names nor values compress better than real ones do.
func newCorpus() *corpus {
	rnd := rand.New(rand.NewPCG(1, 2))
	word := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = "etaoinshrdlucmfw"[rnd.IntN(16)]
		}
		return string(b)
	}
	digits := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = '0' + byte(rnd.IntN(10))
		}
		return string(b)
	}
	const mark = "#########" // idWidth long
	c := &corpus{}
	for range blockDocs {
		var item bytes.Buffer
		fmt.Fprintf(&item, `{"index":{"_id":"%s"}}`+"\n", mark)
		fmt.Fprintf(&item, `{"fec_alta":"2021-08-%02dT10:35:24.123Z","username":"user%s","code_zip":"%s-%s","credit_card_num":"%s%s",`+
			`"credit_card_ccv":"%s%s","cuenta_numero":"%s%s","direccion":"%s %s %s","geo_latitud":"-25.%s","geo_longitud":"-120.%s",`+
			`"color_favorito":"%s","foto_dni":"http://images.example/%s.jpg","ip":"203.0.113.%s","auto":"%s","auto_modelo":"%s","auto_tipo":"%s",`+
			`"auto_color":"%s","cantidad_compras_realizadas":6%s,"avatar":"http://images.example/%s.jpg","fec_birthday":"1977-06-%02dT00:45:46.512Z"}`+"\n",
			10+rnd.IntN(18), mark, digits(5), digits(4), canary, mark, canary, mark, canary, mark, word(4), word(7), digits(2), digits(4), digits(4),
			word(5), digits(8), digits(2), word(6), word(3), word(5), word(5), digits(4), digits(8), 10+rnd.IntN(18))
		if c.stride == 0 {
			c.stride = item.Len()
			for i := 0; ; {
				j := bytes.Index(item.Bytes()[i:], []byte(mark))
				if j < 0 {
					break
				}
				c.at = append(c.at, i+j)
				i += j + idWidth
			}
		}
		c.block = append(c.block, item.Bytes()...)
	}
	return c
}

// number writes the numbers of the block's first n documents, from first on.
func (c *corpus) number(block []byte, first, n int) {
	var digits [idWidth]byte
	for i := range n {
		text := strconv.AppendInt(digits[:0], int64(100_000_000+(first+i)%900_000_000), 10)
		for _, at := range c.at {
			copy(block[i*c.stride+at:], text)
		}
	}
}

// body is what one request sends.
type body struct {
	data []byte // nil: write makes it
	size int64
	docs int
	gzip bool
	sent int64 // of a packed body that make writes
	make func(w io.Writer) error
}

// bulk makes a bulk body of about size bytes, at least one document, in memory.
func (c *corpus) bulk(size int) *body {
	docs := max(size/c.stride, 1)
	out := make([]byte, 0, docs*c.stride)
	for n := 0; n < docs; n += blockDocs {
		k := min(blockDocs, docs-n)
		at := len(out)
		out = append(out, c.block[:k*c.stride]...)
		c.number(out[at:], n, k)
	}
	return &body{data: out, size: int64(len(out)), docs: docs}
}

// stream makes a bulk body of about size bytes while it is sent.
func (c *corpus) stream(size int64) *body {
	docs := int(size / int64(c.stride))
	return &body{size: int64(docs) * int64(c.stride), docs: docs, make: func(w io.Writer) error {
		block := bytes.Clone(c.block)
		for n := 0; n < docs; n += blockDocs {
			k := min(blockDocs, docs-n)
			c.number(block, n, k)
			if _, err := w.Write(block[:k*c.stride]); err != nil {
				return err
			}
		}
		return nil
	}}
}

// packedInto is b compressed into a file, from which it is sent.
func (b *body) packedInto(file string) (*body, error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewWriterLevel(f, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if err := b.make(z); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return &body{size: b.size, docs: b.docs, gzip: true, sent: info.Size(), make: func(w io.Writer) error {
		f, err := os.Open(file)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{f}, make([]byte, 256<<10))
		return err
	}}, nil
}

// packed is b compressed. Its size stays that of the plain body: throughput counts documents as the client has them.
func (b *body) packed() *body {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(b.data) // a bytes.Buffer takes everything
	z.Close()
	return &body{data: out.Bytes(), size: b.size, docs: b.docs, gzip: true}
}

// wire is the number of bytes sent.
func (b *body) wire() int64 {
	if b.data != nil {
		return int64(len(b.data))
	}
	if b.gzip {
		return b.sent
	}
	return b.size
}

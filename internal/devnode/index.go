//go:build !nodevnode

package devnode

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/blevesearch/bleve/v2"
	"github.com/blevesearch/bleve/v2/analysis"
	"github.com/blevesearch/bleve/v2/analysis/token/lowercase"
	"github.com/blevesearch/bleve/v2/analysis/tokenizer/single"
	"github.com/blevesearch/bleve/v2/analysis/tokenizer/unicode"
	"github.com/blevesearch/bleve/v2/document"
	"github.com/blevesearch/bleve/v2/index/scorch"
	bindex "github.com/blevesearch/bleve_index_api"
)

// entry is one live document. It never changes once it is in an index.
type entry struct {
	ix      string
	id      string
	version int64
	seq     int64
	routing string
	source  []byte
	vals    map[string][]value
	ignored []string
}

// index is one Elasticsearch index with one shard. Its maps are guarded by
// the node's lock.
type index struct {
	name     string
	uuid     string
	created  int64 // milliseconds
	settings *jv   // the members of settings.index a client chose
	replicas int
	mapping  *mapping
	aliases  map[string]*jv

	docs    map[string]*entry
	gone    map[string]int64 // versions of deleted documents
	nextSeq int64
	deleted int64 // documents overwritten or deleted, for _cat
	gen     uint64
	store   *store
}

// store is the bleve side of an index. pending is written by flush.
type store struct {
	b       bleve.Index
	pending *bleve.Batch
}

var (
	wordAnalyzer = &analysis.DefaultAnalyzer{Tokenizer: unicode.NewUnicodeTokenizer(), TokenFilters: []analysis.TokenFilter{lowercase.NewLowerCaseFilter()}}
	termAnalyzer = &analysis.DefaultAnalyzer{Tokenizer: single.NewSingleTokenTokenizer()}
)

const (
	sourceField = "\x00source"
	metaField   = "\x00meta"
	existsField = "\x00fields"
	seqKey      = "next_seq_no"
)

// openStore opens or creates the bleve index in dir; empty dir: in memory.
func openStore(dir string) (*store, error) {
	m := bleve.NewIndexMapping()
	var b bleve.Index
	var err error
	if dir == "" {
		b, err = bleve.NewUsing("", m, scorch.Name, scorch.Name, nil)
	} else if _, statErr := os.Stat(filepath.Join(dir, "index_meta.json")); statErr == nil {
		b, err = bleve.Open(dir)
	} else {
		b, err = bleve.New(dir, m)
	}
	if err != nil {
		return nil, err
	}
	return &store{b: b, pending: b.NewBatch()}, nil
}

func (s *store) close() error { return s.b.Close() }

// put adds a document to the pending batch.
func (s *store) put(e *entry, m *mapping) error {
	d := document.NewDocument(e.id)
	for name, vals := range e.vals {
		f := m.lookup(name)
		if f == nil {
			continue
		}
		a := analysis.Analyzer(termAnalyzer)
		if f.typ == "text" {
			a = wordAnalyzer
		}
		for _, v := range vals {
			d.AddField(document.NewTextFieldCustom(name, nil, []byte(clean(v.term)), bindex.IndexField, a))
		}
		d.AddField(document.NewTextFieldCustom(existsField, nil, []byte(name), bindex.IndexField, termAnalyzer))
	}
	d.AddField(document.NewTextFieldWithIndexingOptions(sourceField, nil, e.source, bindex.StoreField))
	meta := fmt.Sprintf("%d %d %s", e.version, e.seq, e.routing)
	d.AddField(document.NewTextFieldWithIndexingOptions(metaField, nil, []byte(meta), bindex.StoreField))
	return s.pending.IndexAdvanced(d)
}

// flush makes the pending changes durable and searchable.
func (s *store) flush(nextSeq int64) error {
	if s.pending.Size() == 0 {
		return nil
	}
	s.pending.SetInternal([]byte(seqKey), strconv.AppendInt(nil, nextSeq, 10))
	err := s.b.Batch(s.pending)
	s.pending = s.b.NewBatch()
	return err
}

// load reads all documents back after a restart.
func (ix *index) load() error {
	adv, err := ix.store.b.Advanced()
	if err != nil {
		return err
	}
	r, err := adv.Reader()
	if err != nil {
		return err
	}
	defer r.Close()
	if b, err := r.GetInternal([]byte(seqKey)); err == nil && len(b) > 0 {
		if ix.nextSeq, err = strconv.ParseInt(string(b), 10, 64); err != nil {
			return err
		}
	}
	ids, err := r.DocIDReaderAll()
	if err != nil {
		return err
	}
	defer ids.Close()
	for {
		in, err := ids.Next()
		if err != nil {
			return err
		}
		if in == nil {
			return nil
		}
		id, err := r.ExternalID(in)
		if err != nil {
			return err
		}
		doc, err := r.Document(id)
		if err != nil {
			return err
		}
		if doc == nil {
			return fmt.Errorf("document vanished while loading index %s", ix.name)
		}
		e := &entry{ix: ix.name, id: id}
		var meta string
		doc.VisitFields(func(f bindex.Field) {
			switch f.Name() {
			case sourceField:
				e.source = slices.Clone(f.Value())
			case metaField:
				meta = string(f.Value())
			}
		})
		parts := strings.SplitN(meta, " ", 3)
		if len(parts) != 3 {
			return fmt.Errorf("index %s holds a document without its metadata", ix.name)
		}
		if e.version, err = strconv.ParseInt(parts[0], 10, 64); err != nil {
			return err
		}
		if e.seq, err = strconv.ParseInt(parts[1], 10, 64); err != nil {
			return err
		}
		e.routing = parts[2]
		// A field that was mapped after this document came may refuse its
		// value. The real server does not look back either.
		if p, _, perr := parseDocument(ix.mapping, id, e.source, false); perr == nil {
			e.vals, e.ignored = p.vals, p.ignored
		}
		ix.docs[id] = e
	}
}

// view is an index at one moment: what a search works on.
type view struct {
	ix      *index
	name    string
	mapping *mapping
	docs    map[string]*entry
	gen     uint64

	once sync.Once
	own  *store // built on demand when the index has moved on
	fail error
}

func (ix *index) view() *view {
	return &view{ix: ix, name: ix.name, mapping: ix.mapping, docs: ix.docs, gen: ix.gen}
}

// freeze detaches the view from later changes, for scrolls and points in time.
func (v *view) freeze() *view {
	return &view{ix: v.ix, name: v.name, mapping: v.mapping, docs: maps.Clone(v.docs), gen: v.gen}
}

// reader opens the inverted index that fits the view. The live one serves as
// long as nothing was written since; then the view gets one of its own.
func (v *view) reader() (bindex.IndexReader, error) {
	s := v.ix.store
	if v.ix.gen != v.gen {
		v.once.Do(func() {
			if v.own, v.fail = openStore(""); v.fail != nil {
				return
			}
			for _, e := range v.docs {
				if v.fail = v.own.put(e, v.mapping); v.fail != nil {
					return
				}
			}
			v.fail = v.own.flush(0)
		})
		if v.fail != nil {
			return nil, v.fail
		}
		s = v.own
	}
	adv, err := s.b.Advanced()
	if err != nil {
		return nil, err
	}
	return adv.Reader()
}

func (v *view) close() error {
	if v.own != nil {
		return v.own.close()
	}
	return nil
}

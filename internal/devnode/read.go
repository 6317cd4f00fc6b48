//go:build !nodevnode

package devnode

import "strconv"

const readSkip = "preference realtime refresh routing force_synthetic_source"
const readNo = "stored_fields version version_type"

// found is the head of a get reply, up to the source.
func (e *entry) found(f sourceFilter) *jv {
	o := obj("_index", e.ix, "_id", e.id, "_version", e.version, "_seq_no", e.seq, "_primary_term", 1)
	if e.routing != "" {
		o.put("_routing", e.routing)
	}
	o.put("found", true)
	if !f.off {
		o.put("_source", f.apply(e.source))
	}
	return o
}

// getDoc serves GET and HEAD on _doc/{id}.
func (n *Node) getDoc(r *request) (*response, *esError) {
	if err := r.allow("_source _source_includes _source_excludes", readSkip, readNo); err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	ix, err := n.readIndex(r.seg(0))
	if err != nil {
		return nil, err
	}
	e := ix.docs[r.seg(2)]
	if e == nil {
		return okIf(false, obj("_index", ix.name, "_id", r.seg(2), "found", false)), nil
	}
	return ok(e.found(sourceParams(r))), nil
}

// getSource serves GET and HEAD on _source/{id}.
func (n *Node) getSource(r *request) (*response, *esError) {
	if err := r.allow("_source _source_includes _source_excludes", readSkip, readNo); err != nil {
		return nil, err
	}
	f := sourceParams(r)
	if f.off {
		return nil, validation("fetching source can not be disabled")
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	ix, err := n.readIndex(r.seg(0))
	if err != nil {
		return nil, err
	}
	e := ix.docs[r.seg(2)]
	if e == nil {
		return nil, errf(404, "resource_not_found_exception", "Document not found [%s]/[%s]", ix.name, r.seg(2))
	}
	return ok(val(f.apply(e.source))), nil
}

// mgetItem is one document asked for.
type mgetItem struct {
	index, id string
	hasID     bool
	f         sourceFilter
}

// mget serves _mget.
func (n *Node) mget(r *request) (*response, *esError) {
	if err := r.allow("_source _source_includes _source_excludes stored_fields index", readSkip, ""); err != nil {
		return nil, err
	}
	if len(r.body) == 0 {
		return nil, errf(400, "parse_exception", "request body or source parameter is required")
	}
	v, err := r.json()
	if err != nil {
		return nil, err
	}
	def := mgetItem{index: r.param("index"), f: sourceParams(r)}
	if len(r.segs) == 2 {
		def.index = r.seg(0)
	}
	items, err := mgetItems(v, r.body, def)
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	docs := []*jv{}
	for _, it := range items {
		ix, err := n.readIndex(it.index)
		if err != nil {
			docs = append(docs, obj("_index", it.index, "_id", it.id, "error", err.full()))
			continue
		}
		if e := ix.docs[it.id]; e != nil {
			docs = append(docs, e.found(it.f))
			continue
		}
		docs = append(docs, obj("_index", ix.name, "_id", it.id, "found", false))
	}
	return ok(obj("docs", docs)), nil
}

func mgetItems(v *jv, src []byte, def mgetItem) ([]mgetItem, *esError) {
	var items []mgetItem
	if v.k != kObj {
		return nil, errf(400, "parsing_exception", "unexpected token [%s], expected [START_OBJECT]", v.startToken())
	}
	unknown := func(m member) *esError {
		l, c := lineCol(src, m.v.off)
		e := errf(400, "parsing_exception", "unknown key [%s] for a %s, expected [docs] or [ids]", m.key, m.v.startToken())
		e.extra = []any{"line", l, "col", c}
		return e
	}
	for _, m := range v.mem {
		if m.v.k != kArr || m.key != "docs" && m.key != "ids" {
			return nil, unknown(m)
		}
		for _, d := range m.v.arr {
			it := def
			if m.key == "ids" {
				if !d.scalar() || d.k == kNull {
					return nil, illegalArg("ids array element should only contain ids")
				}
				it.id, it.hasID = d.text(), true
				items = append(items, it)
				continue
			}
			if d.k != kObj {
				return nil, illegalArg("docs array element should include an object")
			}
			for _, f := range d.mem {
				var err *esError
				switch f.key {
				case "_index":
					it.index = f.v.text()
				case "_id":
					it.id, it.hasID = f.v.text(), f.v.k != kNull
				case "routing", "stored_fields":
				case "_source":
					it.f, err = sourceBody(f.v)
				case "version", "version_type":
					err = unsupported("[%s] in _mget", f.key)
				default:
					err = errf(400, "parse_exception", "failed to parse multi get request. unknown field [%s]", f.key)
				}
				if err != nil {
					return nil, err
				}
			}
			items = append(items, it)
		}
	}
	var msgs []string
	if len(items) == 0 {
		msgs = append(msgs, "no documents to get")
	}
	for i, it := range items {
		if it.index == "" {
			msgs = append(msgs, "index is missing for doc "+strconv.Itoa(i))
		}
		if !it.hasID || it.id == "" {
			msgs = append(msgs, "id is missing for doc "+strconv.Itoa(i))
		}
	}
	if len(msgs) > 0 {
		return nil, validation(msgs...)
	}
	return items, nil
}

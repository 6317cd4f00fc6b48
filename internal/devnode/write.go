//go:build !nodevnode

package devnode

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
)

// writeOp is one write: a single document request or one bulk action.
type writeOp struct {
	action       string // index, create, delete, update
	target       string // as the client wrote it
	id           string
	hasID        bool
	routing      string
	ifSeq        int64 // -1: unset
	ifTerm       int64 // 0: unset
	requireAlias bool
	pipeline     string
	src          []byte
	upd          *update
	show         *sourceFilter // what an update shows in "get"
	withSource   bool

	ix  *index   // where it goes, once resolved
	err *esError // why it could not be resolved
}

// update is the body of an update.
type update struct {
	doc, upsert *jv
	docAsUpsert bool
	noNoop      bool // detect_noop: false
}

// written is the outcome of a write.
type written struct {
	ix      *index
	id      string
	version int64
	seq     int64
	result  string
	status  int
	get     *jv
}

// tx collects what a request changed, for one commit at its end.
type tx struct {
	state   bool
	touched map[*index]bool
}

// commit makes the changes durable. The caller holds the write lock.
func (n *Node) commit(t *tx) *esError {
	if t.state {
		if err := n.saveState(); err != nil {
			return n.broken(err)
		}
	}
	for ix := range t.touched {
		if err := ix.store.flush(ix.nextSeq); err != nil {
			return n.broken(err)
		}
	}
	return nil
}

// check is the validation that happens before anything is written.
func (op *writeOp) check() []string {
	var out []string
	if op.target == "" {
		out = append(out, "index is missing")
	}
	if !op.hasID && (op.action == "update" || op.action == "delete") {
		out = append(out, "id is missing")
	}
	if op.action == "create" && (op.ifSeq >= 0 || op.ifTerm > 0) {
		return append(out, "create operations do not support compare and set. use index instead")
	}
	if op.action == "update" && (op.ifSeq >= 0 || op.ifTerm > 0) && op.upd != nil && (op.upd.upsert != nil || op.upd.docAsUpsert) {
		out = append(out, "compare and write operations can not be used with upsert")
	}
	if op.ifSeq >= 0 && op.ifTerm == 0 {
		out = append(out, "ifSeqNo is set, but primary term is [0]")
	}
	if op.ifSeq < 0 && op.ifTerm > 0 {
		out = append(out, "ifSeqNo is unassigned, but primary term is ["+strconv.FormatInt(op.ifTerm, 10)+"]")
	}
	if len(op.id) > 512 && op.action != "delete" {
		out = append(out, "id ["+op.id+"] is too long, must be no longer than 512 bytes but was: "+strconv.Itoa(len(op.id)))
	}
	if op.action == "update" && op.upd != nil && op.upd.doc == nil {
		out = append(out, "script or doc is missing")
	}
	return out
}

// resolve finds the index of a write and creates it if it may.
func (n *Node) resolveWrite(op *writeOp, create bool) {
	op.ix, op.err = n.writeIndex(op.target, op.requireAlias, create)
}

// apply does one resolved write. The caller holds the write lock and commits.
func (n *Node) apply(t *tx, op *writeOp) (*written, *esError) {
	if op.err != nil {
		return nil, op.err
	}
	if op.pipeline != "" && op.pipeline != "_none" && op.action != "delete" {
		return nil, illegalArg("pipeline with id [%s] does not exist", op.pipeline)
	}
	if op.hasID && op.id == "" && (op.action == "index" || op.action == "create") {
		return nil, illegalArg("if _id is specified it must not be empty")
	}
	if !op.hasID {
		op.id = n.newDocID()
	}
	ix := op.ix
	cur := ix.docs[op.id]
	if op.action == "update" {
		return n.applyUpdate(t, op, cur)
	}
	if err := conflict(ix, op, cur); err != nil {
		return nil, err
	}
	if op.action == "delete" {
		return n.remove(t, ix, op.id), nil
	}
	return n.put(t, op, op.src)
}

func conflict(ix *index, op *writeOp, cur *entry) *esError {
	if op.action == "create" && cur != nil {
		return shardError(ix, 409, "version_conflict_engine_exception", "[%s]: version conflict, document already exists (current version [%d])", op.id, cur.version)
	}
	if op.ifSeq < 0 {
		return nil
	}
	if cur == nil {
		return shardError(ix, 409, "version_conflict_engine_exception", "[%s]: version conflict, required seqNo [%d], primary term [%d]. but no document was found", op.id, op.ifSeq, op.ifTerm)
	}
	if cur.seq != op.ifSeq || op.ifTerm != 1 {
		return shardError(ix, 409, "version_conflict_engine_exception", "[%s]: version conflict, required seqNo [%d], primary term [%d]. current document has seqNo [%d] and primary term [1]", op.id, op.ifSeq, op.ifTerm, cur.seq)
	}
	return nil
}

// put stores src as the document op.id.
func (n *Node) put(t *tx, op *writeOp, src []byte) (*written, *esError) {
	ix := op.ix
	p, m, err := parseDocument(ix.mapping, op.id, src, op.withSource)
	if err != nil {
		return nil, err
	}
	if m != ix.mapping {
		ix.mapping = m
		t.state = true
	}
	e := &entry{ix: ix.name, id: op.id, seq: ix.nextSeq, routing: op.routing, source: bytes.Clone(src), vals: p.vals, ignored: p.ignored}
	w := &written{ix: ix, id: op.id, seq: e.seq, result: "created", status: 201}
	if cur := ix.docs[op.id]; cur != nil {
		e.version = cur.version + 1
		w.result, w.status = "updated", 200
		ix.deleted++
	} else {
		e.version = ix.gone[op.id] + 1
		delete(ix.gone, op.id)
	}
	w.version = e.version
	if err := ix.store.put(e, ix.mapping); err != nil {
		return nil, n.broken(err)
	}
	ix.nextSeq++
	ix.gen++
	ix.docs[op.id] = e
	t.touched[ix] = true
	return w, nil
}

func (n *Node) remove(t *tx, ix *index, id string) *written {
	w := &written{ix: ix, id: id, seq: ix.nextSeq, result: "not_found", status: 404}
	ix.nextSeq++
	if cur := ix.docs[id]; cur != nil {
		w.version, w.result, w.status = cur.version+1, "deleted", 200
		delete(ix.docs, id)
		ix.store.pending.Delete(id)
		ix.deleted++
		ix.gen++
	} else {
		w.version = ix.gone[id] + 1
	}
	ix.gone[id] = w.version
	t.touched[ix] = true
	return w
}

func (n *Node) applyUpdate(t *tx, op *writeOp, cur *entry) (*written, *esError) {
	ix, u := op.ix, op.upd
	show := func(w *written, e *entry) {
		if op.show == nil || op.show.off {
			return
		}
		w.get = obj("_seq_no", w.seq, "_primary_term", 1, "found", true, "_source", op.show.apply(e.source))
	}
	if cur == nil {
		src := u.upsert
		if u.docAsUpsert {
			src = u.doc
		}
		if src == nil {
			return nil, shardError(ix, 404, "document_missing_exception", "[%s]: document missing", op.id)
		}
		w, err := n.put(t, op, appendValue(nil, src))
		if err != nil {
			return nil, err
		}
		show(w, ix.docs[op.id])
		return w, nil
	}
	if err := conflict(ix, op, cur); err != nil {
		return nil, err
	}
	old, jerr := parseJSON(cur.source)
	if jerr != nil {
		return nil, syntaxError(jerr, false)
	}
	merged, changed := mergeDoc(old, u.doc)
	if !changed && !u.noNoop {
		w := &written{ix: ix, id: op.id, version: cur.version, seq: cur.seq, result: "noop", status: 200}
		show(w, cur)
		return w, nil
	}
	if op.routing == "" {
		op.routing = cur.routing
	}
	w, err := n.put(t, op, appendValue(nil, merged))
	if err != nil {
		return nil, err
	}
	show(w, ix.docs[op.id])
	return w, nil
}

// mergeDoc merges a partial document into a document, by literal member
// names, and says whether anything changed.
func mergeDoc(old, add *jv) (*jv, bool) {
	out := &jv{k: kObj, mem: append([]member(nil), old.mem...)}
	at := make(map[string]int, len(out.mem))
	for i, m := range out.mem {
		at[m.key] = i
	}
	changed := false
	for _, m := range add.mem {
		i, ok := at[m.key]
		if !ok {
			out.mem = append(out.mem, m)
			changed = true
			continue
		}
		if out.mem[i].v.k == kObj && m.v.k == kObj {
			v, c := mergeDoc(out.mem[i].v, m.v)
			out.mem[i].v = v
			changed = changed || c
			continue
		}
		changed = changed || !equalJSON(out.mem[i].v, m.v)
		out.mem[i].v = m.v
	}
	return out, changed
}

// equalJSON compares as Java's maps, lists and boxed numbers do.
func equalJSON(a, b *jv) bool {
	if a.k != b.k {
		return false
	}
	switch a.k {
	case kObj:
		if len(a.mem) != len(b.mem) {
			return false
		}
		for _, m := range a.mem {
			o := b.get(m.key)
			if o == nil || !equalJSON(m.v, o) {
				return false
			}
		}
		return true
	case kArr:
		if len(a.arr) != len(b.arr) {
			return false
		}
		for i := range a.arr {
			if !equalJSON(a.arr[i], b.arr[i]) {
				return false
			}
		}
		return true
	}
	return bytes.Equal(appendScalar(nil, a), appendScalar(nil, b))
}

// reply is the body for one write. A noop of a single update names no shards.
func (w *written) reply(forced, bulk bool) *jv {
	o := obj("_index", w.ix.name, "_id", w.id, "_version", w.version, "result", w.result)
	if forced && w.result != "noop" {
		o.put("forced_refresh", true)
	}
	if w.result == "noop" && !bulk {
		o.put("_shards", obj("total", 0, "successful", 0, "failed", 0))
	} else {
		o.put("_shards", obj("total", 1+w.ix.replicas, "successful", 1, "failed", 0))
	}
	o.put("_seq_no", w.seq)
	o.put("_primary_term", 1)
	if w.get != nil {
		o.put("get", w.get)
	}
	if bulk {
		o.put("status", w.status)
	}
	return o
}

const writeSkip = "timeout wait_for_active_shards include_source_on_error require_data_stream"

// refreshParam checks refresh; true means that replies say forced_refresh.
func (r *request) refreshParam() (bool, *esError) {
	switch v, has := r.params["refresh"]; {
	case !has || v == "false" || v == "wait_for":
		return false, nil
	case v == "" || v == "true":
		return true, nil
	default:
		return false, illegalArg("Unknown value for refresh: [%s].", v)
	}
}

func (r *request) writeOp(action, target string) (*writeOp, bool, *esError) {
	op := &writeOp{action: action, target: target, routing: r.param("routing"), ifSeq: -1, pipeline: r.param("pipeline"), src: r.body,
		withSource: r.param("include_source_on_error") != "false"}
	var err *esError
	if op.requireAlias, err = r.flag("require_alias", false); err != nil {
		return nil, false, err
	}
	if ds, err := r.flag("require_data_stream", false); err != nil || ds {
		if err == nil {
			err = unsupported("data streams")
		}
		return nil, false, err
	}
	for name, to := range map[string]*int64{"if_seq_no": &op.ifSeq, "if_primary_term": &op.ifTerm} {
		if v, ok := r.params[name]; ok {
			i, e := strconv.ParseInt(v, 10, 64)
			if e != nil {
				return nil, false, illegalArg("Failed to parse long parameter [%s] with value [%s]", name, v)
			}
			*to = i
		}
	}
	forced, err := r.refreshParam()
	return op, forced, err
}

// indexDoc serves _doc and _create.
func (n *Node) indexDoc(r *request, action string, hasID bool) (*response, *esError) {
	if err := r.allow("op_type routing refresh if_seq_no if_primary_term require_alias pipeline", writeSkip, "version version_type list_executed_pipelines"); err != nil {
		return nil, err
	}
	op, forced, err := r.writeOp(action, r.seg(0))
	if err != nil {
		return nil, err
	}
	if hasID {
		op.id, op.hasID = r.seg(2), true
	}
	if t, ok := r.params["op_type"]; ok && action == "index" {
		switch strings.ToLower(t) {
		case "create", "index":
			op.action = strings.ToLower(t)
		default:
			return nil, illegalArg("opType must be 'create' or 'index', found: [%s]", t)
		}
	}
	if len(r.body) == 0 {
		return nil, bodyRequired()
	}
	w, err := n.single(op)
	if err != nil {
		return nil, err
	}
	resp := &response{status: w.status, body: w.reply(forced, false)}
	if w.status == 201 {
		resp.location = w.location(op)
	}
	return resp, nil
}

// single runs one write as a request of its own.
func (n *Node) single(op *writeOp) (*written, *esError) {
	if msgs := op.check(); len(msgs) > 0 {
		return nil, validation(msgs...)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	t := &tx{touched: map[*index]bool{}}
	n.resolveWrite(op, op.action != "delete")
	w, err := n.apply(t, op)
	if cerr := n.commit(t); cerr != nil {
		return nil, cerr
	}
	return w, err
}

// usable is checked under the lock by every handler.
func (n *Node) usable() *esError {
	if n.closed {
		return errf(503, "node_closed_exception", "the embedded node is closed")
	}
	if n.failed != nil {
		return n.failedError()
	}
	return nil
}

// location is the Location header of a created document.
func (w *written) location(op *writeOp) string {
	l := "/" + w.ix.name + "/_doc/" + url.QueryEscape(w.id)
	if op.routing != "" {
		l += "?routing=" + url.QueryEscape(op.routing)
	}
	return l
}

func (n *Node) deleteDoc(r *request) (*response, *esError) {
	if err := r.allow("routing refresh if_seq_no if_primary_term", writeSkip, "version version_type"); err != nil {
		return nil, err
	}
	op, forced, err := r.writeOp("delete", r.seg(0))
	if err != nil {
		return nil, err
	}
	op.id, op.hasID = r.seg(2), true
	w, err := n.single(op)
	if err != nil {
		return nil, err
	}
	return &response{status: w.status, body: w.reply(forced, false)}, nil
}

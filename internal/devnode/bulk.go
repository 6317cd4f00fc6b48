//go:build !nodevnode

package devnode

import (
	"bytes"
	"strconv"
	"time"
)

// bulk serves _bulk: all actions are read first, so that a malformed request
// writes nothing; then they run in order and are committed together.
func (n *Node) bulk(r *request) (*response, *esError) {
	start := time.Now()
	if err := r.allow("index refresh routing require_alias pipeline _source _source_includes _source_excludes", writeSkip, "list_executed_pipelines type"); err != nil {
		return nil, err
	}
	ops, forced, err := r.bulkOps()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	// Missing indices are made before the first action. One action that
	// requires an alias keeps its name from being made for all of them.
	noCreate := map[string]bool{}
	for _, op := range ops {
		if op.requireAlias {
			noCreate[op.target] = true
		}
	}
	for _, op := range ops {
		if op.action != "delete" {
			n.resolveWrite(op, !noCreate[op.target])
		}
	}
	t := &tx{touched: map[*index]bool{}}
	items := make([]*jv, 0, len(ops))
	errors, piped := false, false
	for _, op := range ops {
		piped = piped || op.pipeline != "" && op.pipeline != "_none" && op.action != "delete"
		if op.action == "delete" {
			n.resolveWrite(op, false)
		}
		w, err := n.apply(t, op)
		if n.failed != nil {
			return nil, n.failedError()
		}
		if err != nil {
			errors = true
			name := op.target
			if op.ix != nil {
				name = op.ix.name
			}
			it := obj("_index", name, "_id", nil, "status", err.status, "error", err.body(true))
			if op.hasID || op.id != "" {
				it.mem[1].v = val(op.id)
			}
			items = append(items, obj(op.action, it))
			continue
		}
		items = append(items, obj(op.action, w.reply(forced, true)))
	}
	if err := n.commit(t); err != nil {
		return nil, err
	}
	o := obj("errors", errors, "took", time.Since(start).Milliseconds())
	if piped {
		o.put("ingest_took", 0)
	}
	o.put("items", items)
	return ok(o), nil
}

// bulkOps reads the whole body by BulkRequestParser's rules.
func (r *request) bulkOps() ([]*writeOp, bool, *esError) {
	def, forced, err := r.writeOp("", r.param("index"))
	if err != nil {
		return nil, false, err
	}
	if len(r.segs) == 2 {
		def.target = r.seg(0)
	}
	if f := sourceParams(r); f.configured {
		def.show = &f
	}
	if len(r.body) == 0 {
		return nil, false, bodyRequired()
	}
	var ops []*writeOp
	var msgs []string
	rest := r.body
	next := func() ([]byte, bool, *esError) {
		if len(rest) == 0 {
			return nil, false, nil
		}
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			return nil, false, illegalArg("The bulk request must be terminated by a newline [\\n]")
		}
		l := rest[:i]
		rest = rest[i+1:]
		return bytes.TrimSuffix(l, []byte("\r")), true, nil
	}
	for no := 1; ; no++ {
		line, more, err := next()
		if err != nil {
			return nil, false, err
		}
		if !more {
			break
		}
		if len(line) == 0 {
			continue
		}
		op := *def
		op.src = nil
		if err := parseAction(line, no, &op); err != nil {
			return nil, false, err
		}
		if op.action != "delete" {
			doc, more, err := next()
			if err != nil {
				return nil, false, err
			}
			if !more {
				break
			}
			no++
			op.src = doc
			if op.action == "update" {
				v, jerr := parseJSON(doc)
				if jerr != nil {
					return nil, false, syntaxError(jerr, op.withSource)
				}
				if err := parseUpdate(v, doc, &op); err != nil {
					return nil, false, err
				}
			}
		}
		msgs = append(msgs, op.check()...)
		ops = append(ops, &op)
	}
	if len(ops) == 0 {
		msgs = append(msgs, "no requests added")
	}
	if len(msgs) > 0 {
		return nil, false, validation(msgs...)
	}
	return ops, forced, nil
}

// parseAction reads one action line.
func parseAction(line []byte, no int, op *writeOp) *esError {
	v, jerr := parseJSON(line)
	if jerr != nil {
		return syntaxError(jerr, op.withSource)
	}
	malformed := func(format string, args ...any) *esError {
		return illegalArg("Malformed action/metadata line [%d], "+format, append([]any{no}, args...)...)
	}
	if v.k != kObj {
		return malformed("expected START_OBJECT but found [%s]", v.startToken())
	}
	if len(v.mem) == 0 {
		return malformed("expected FIELD_NAME but found [END_OBJECT]")
	}
	op.action = v.mem[0].key
	switch op.action {
	case "index", "create", "update", "delete":
	default:
		return malformed("expected field [create], [delete], [index] or [update] but found [%s]", op.action)
	}
	meta := v.mem[0].v
	if meta.k != kObj {
		return malformed("expected START_OBJECT or END_OBJECT but found [%s]", meta.startToken())
	}
	for _, m := range meta.mem {
		switch {
		case m.v.k == kObj && m.key == "dynamic_templates":
			if len(m.v.mem) > 0 {
				return unsupported("dynamic_templates in bulk actions")
			}
			continue
		case m.v.k == kObj && m.key == "_source" && op.action == "update":
			f, err := sourceBody(m.v)
			if err != nil {
				return err
			}
			op.show = &f
			continue
		case !m.v.scalar():
			return malformed("expected a simple value for field [%s] but found [%s]", m.key, m.v.startToken())
		}
		if err := op.metadata(m, no); err != nil {
			return err
		}
	}
	return nil
}

func (op *writeOp) metadata(m member, no int) *esError {
	t := m.v.text()
	null := m.v.k == kNull
	long := func(to *int64) *esError {
		i, err := strconv.ParseInt(t, 10, 64)
		if err != nil {
			return illegalArg("For input string: \"%s\"", t)
		}
		*to = i
		return nil
	}
	switch m.key {
	case "_index":
		if !null { // null stands for the request's own index
			op.target = t
		}
	case "_id":
		op.id, op.hasID = t, !null
		if null {
			op.id = ""
		}
	case "routing", "_routing":
		if m.key == "_routing" {
			return illegalArg("Action/metadata line [%d] contains an unknown parameter [%s]", no, m.key)
		}
		op.routing = t
	case "op_type":
		if op.action == "index" && t == "create" {
			op.action = "create"
		}
	case "if_seq_no":
		return long(&op.ifSeq)
	case "if_primary_term":
		return long(&op.ifTerm)
	case "retry_on_conflict":
		var n int64
		return long(&n)
	case "pipeline":
		op.pipeline = t
	case "require_alias":
		op.requireAlias = t == "true"
	case "_source":
		f, err := sourceBody(m.v)
		if err != nil {
			return err
		}
		op.show = &f
	case "version", "version_type":
		return unsupported("[%s] in bulk actions", m.key)
	case "require_data_stream", "list_executed_pipelines":
		if t == "true" {
			return unsupported("[%s] in bulk actions", m.key)
		}
	default:
		return illegalArg("Action/metadata line [%d] contains an unknown parameter [%s]", no, m.key)
	}
	return nil
}

//go:build !nodevnode

package devnode

import "strconv"

// parseUpdate reads the body of an update.
func parseUpdate(v *jv, src []byte, op *writeOp) *esError {
	at := func(off int) (int, int) { return lineCol(src, off) }
	if v.k != kObj {
		l, c := at(v.off)
		return errf(400, "x_content_parse_exception", "[%d:%d] [UpdateRequest] Expected START_OBJECT but was: %s", l, c, v.startToken())
	}
	u := &update{}
	op.upd = u
	for _, m := range v.mem {
		want := func(ok bool) *esError {
			if ok {
				return nil
			}
			l, c := at(m.v.off)
			return errf(400, "x_content_parse_exception", "[%d:%d] [UpdateRequest] %s doesn't support values of type: %s", l, c, m.key, m.v.startToken())
		}
		var err *esError
		switch m.key {
		case "doc":
			u.doc = m.v
			err = want(m.v.k == kObj)
		case "upsert":
			u.upsert = m.v
			err = want(m.v.k == kObj)
		case "doc_as_upsert":
			u.docAsUpsert = m.v.text() == "true"
			err = want(m.v.k == kBool || m.v.k == kStr)
		case "detect_noop":
			u.noNoop = m.v.text() == "false"
			err = want(m.v.k == kBool || m.v.k == kStr)
		case "_source":
			var f sourceFilter
			if f, err = sourceBody(m.v); err == nil {
				op.show = &f
			}
		case "if_seq_no", "if_primary_term":
			i, e := strconv.ParseInt(m.v.text(), 10, 64)
			err = want(e == nil)
			if m.key == "if_seq_no" {
				op.ifSeq = i
			} else {
				op.ifTerm = i
			}
		case "script", "scripted_upsert":
			err = unsupported("scripts")
		default:
			l, c := at(m.off)
			err = errf(400, "x_content_parse_exception", "[%d:%d] [UpdateRequest] unknown field [%s]", l, c, m.key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// updateDoc serves _update/{id}.
func (n *Node) updateDoc(r *request) (*response, *esError) {
	if err := r.allow("routing refresh if_seq_no if_primary_term require_alias _source _source_includes _source_excludes retry_on_conflict", writeSkip, ""); err != nil {
		return nil, err
	}
	op, forced, err := r.writeOp("update", r.seg(0))
	if err != nil {
		return nil, err
	}
	op.id, op.hasID = r.seg(2), true
	if f := sourceParams(r); f.configured {
		op.show = &f
	}
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		if err := parseUpdate(v, r.body, op); err != nil {
			return nil, err
		}
	} else {
		op.upd = &update{}
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

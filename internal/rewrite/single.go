package rewrite

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"strconv"
	"strings"
)

// whole is what the transforms share that hold a small body whole.
type whole struct {
	eng  *Engine
	call *Call
	body []byte
	done func()
	read bool
}

// load reads the body on the first exchange and keeps it for further ones.
func (w *whole) load(ctx context.Context, body io.Reader) error {
	if w.read {
		return nil
	}
	w.read = true
	if body == nil {
		return nil
	}
	var err error
	w.body, w.done, err = readAll(ctx, body, w.eng.Budget, w.eng.Limits.MaxDocument)
	return err
}

// Close implements Transform.
func (w *whole) Close() {
	if w.done != nil {
		w.done()
		w.done = nil
	}
	w.body = nil
}

// document carries one document to a protected place: `_doc` and `_create`.
type document struct {
	whole
	place   *place
	id      string // "" when Elasticsearch makes one
	routing string
}

// Request implements Transform.
func (d *document) Request(ctx context.Context, _ *Plan, body io.Reader, up io.Writer) (bool, error) {
	if err := d.load(ctx, body); err != nil {
		return false, err
	}
	if len(d.body) == 0 {
		return false, nil // Elasticsearch says that a body is missing
	}
	scan := newDocScanner(d.eng.Sealer.IsToken)
	var p part
	if err := scan.document(d.body, d.place.t, &p); err != nil {
		return false, documentFault(err)
	}
	if err := d.eng.Cluster.Ready(ctx, d.call.Caller, d.place.name, d.place.t.rules); err != nil {
		return false, err
	}
	var stored *storedValues
	if p.writesBack() && d.id != "" {
		was, err := lookUpOne(ctx, d.eng, d.call, scan, d.place, d.id, d.routing)
		if err != nil {
			return false, err
		}
		stored = was.stored
	}
	seal := sealing{eng: d.eng, counter: d.call.Counter}
	defer seal.close()
	out, err := seal.seal(make([]byte, 0, 2*len(d.body)), d.body, 0, len(d.body), d.place.t, &p, nil, stored)
	if err != nil {
		return false, err
	}
	_, err = up.Write(out)
	return false, err
}

// Reply implements Transform: the reply to a write holds no document.
func (d *document) Reply(context.Context, ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
	return nil, false, nil
}

// lookUpOne looks up one stored document.
func lookUpOne(ctx context.Context, e *Engine, call *Call, scan *docScanner, pl *place, id, routing string) (*before, error) {
	docs, err := e.Cluster.Documents(ctx, call.Caller, []Ref{{Index: pl.index, ID: id, Routing: cmp.Or(routing, pl.route)}}, pl.t.paths())
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, &Fault{Status: 503, Type: "esproxy_lookup_failed", Reason: "the look-up of the stored document was not answered; try again"}
	}
	was, fault := scan.readStored(docs[0], pl.t)
	if fault != nil {
		return nil, fault
	}
	return was, nil
}

// singleUpdate carries one `_update` to a protected place.
type singleUpdate struct {
	whole
	place   *place
	id      string
	routing string
	seqNo   string // the client's own if_seq_no, "" when there is none
	term    string
	retries int // retry_on_conflict: how often the exchange may be repeated
	target  Target
	opening *opening // opens the document that the reply returns; nil when the caller may not see anything
	guarded bool     // this exchange depends on a look-up
}

// Request implements Transform.
func (d *singleUpdate) Request(ctx context.Context, plan *Plan, body io.Reader, up io.Writer) (bool, error) {
	if err := d.load(ctx, body); err != nil {
		return false, err
	}
	plan.Target, d.guarded = d.target, false
	if len(d.body) == 0 {
		return false, nil
	}
	scan := newDocScanner(d.eng.Sealer.IsToken)
	var u updateBody
	if err := scan.update(d.body, d.place.t, &u); err != nil {
		return false, documentFault(err)
	}
	if fault := u.check(d.place.t); fault != nil {
		return false, fault
	}
	if d.seqNo != "" {
		if fault := u.checkGuarded(); fault != nil {
			return false, fault
		}
	}
	if err := d.eng.Cluster.Ready(ctx, d.call.Caller, d.place.name, d.place.t.rules); err != nil {
		return false, err
	}
	form, was := formUpdate, &before{}
	var subj subjects
	if u.needsStored(d.place.t) {
		var err error
		if was, err = lookUpOne(ctx, d.eng, d.call, scan, d.place, d.id, d.routing); err != nil {
			return false, err
		}
		var fault *Fault
		if form, subj, fault = u.decide(d.place.t, was); fault != nil {
			return false, fault
		}
		if err = d.guard(plan, form, was); err != nil {
			return false, err
		}
	}
	seal := sealing{eng: d.eng, counter: d.call.Counter}
	defer seal.close()
	out, err := seal.appendUpdate(make([]byte, 0, 2*len(d.body)), &u, d.place.t, form, subj, was.stored)
	if err != nil {
		return false, err
	}
	_, err = up.Write(out)
	return false, err
}

// guard makes the exchange depend on the document being the one that was looked up.
func (d *singleUpdate) guard(plan *Plan, form updateForm, was *before) error {
	seq, term := strconv.FormatInt(was.seq, 10), strconv.FormatInt(was.term, 10)
	if d.seqNo != "" && (form == formCreate || d.seqNo != seq || d.term != term) {
		return conflictFault(was)
	}
	d.guarded = true
	drop := func(name string) bool {
		switch name {
		case "retry_on_conflict", "if_seq_no", "if_primary_term":
			return true
		case "_source", "_source_includes", "_source_excludes", "lang":
			return form == formCreate
		}
		return false
	}
	query := keepParams(plan.Target.Query, drop)
	if form == formCreate {
		plan.Target.Path = strings.Replace(plan.Target.Path, "/_update/", "/_create/", 1)
	} else {
		query = addParam(addParam(query, "if_seq_no", seq), "if_primary_term", term)
	}
	plan.Target.Query = query
	return nil
}

// Reply implements Transform.
func (d *singleUpdate) Reply(ctx context.Context, head ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
	if head.Status == 409 && d.guarded && d.seqNo == "" && d.retries > 0 {
		d.retries--
		return nil, true, nil
	}
	if d.opening == nil || head.Status >= 300 {
		return nil, false, nil
	}
	return func(in io.Reader, out io.Writer) error { return d.opening.rewrite(ctx, in, out) }, false, nil
}

// query carries a request whose body asks for documents or counts them, and opens what the reply returns.
type query struct {
	whole
	check   func(body []byte) error // looks for constants on protected fields; nil when nothing is protected
	opening *opening                // nil when the reply passes untouched
	anyForm bool                    // the body may have another form than JSON
}

// Request implements Transform.
func (q *query) Request(ctx context.Context, _ *Plan, body io.Reader, up io.Writer) (bool, error) {
	if q.anyForm && body != nil {
		return false, q.look(ctx, body, up)
	}
	if q.check == nil {
		if body == nil {
			return false, nil
		}
		_, err := io.Copy(up, body)
		return false, err
	}
	if err := q.load(ctx, body); err != nil {
		return false, err
	}
	if err := q.check(q.body); err != nil {
		return false, err
	}
	_, err := up.Write(q.body)
	return false, err
}

// firstLook is how much of a body in any form is read before some of it goes up.
const firstLook = 64 << 10

// look passes a body in any form. It is held whole only when it is short, or when something early in it must be judged; of a long one
// the rest is looked through on its way.
func (q *query) look(ctx context.Context, body io.Reader, up io.Writer) error {
	head, err := io.ReadAll(io.LimitReader(body, firstLook))
	if err != nil {
		return err
	}
	if len(head) < firstLook {
		if err := q.check(head); err != nil {
			return err
		}
		_, err = up.Write(head)
		return err
	}
	if hidesElsewhere(head) {
		if err := q.load(ctx, io.MultiReader(bytes.NewReader(head), body)); err != nil {
			return err
		}
		if err := q.check(q.body); err != nil {
			return err
		}
		_, err = up.Write(q.body)
		return err
	}
	const overlap = 16 // longer than what is looked for
	window := append(make([]byte, 0, firstLook+overlap), head[len(head)-overlap:]...)
	if _, err := up.Write(head); err != nil {
		return err
	}
	for {
		n, err := body.Read(window[overlap:cap(window)])
		window = window[:overlap+n]
		if hidesElsewhere(window) {
			return refuse(413, "esproxy_document_too_large", "a search of more than 64 KiB has a clause [more_like_this] or [wrapper], or an escaped letter, behind its first 64 KiB; it may bring a document for a protected index; "+
				"send that part first, or a shorter search")
		}
		if _, err := up.Write(window[overlap:]); err != nil {
			return err
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		copy(window[:overlap], window[n:])
	}
}

// Reply implements Transform.
func (q *query) Reply(ctx context.Context, head ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
	if q.opening == nil || head.Status >= 300 {
		return nil, false, nil
	}
	return func(in io.Reader, out io.Writer) error { return q.opening.rewrite(ctx, in, out) }, false, nil
}

// control carries a small administrative body that is read whole and may be changed.
type control struct {
	whole
	change func(body []byte) ([]byte, error)
}

// Request implements Transform.
func (c *control) Request(ctx context.Context, plan *Plan, body io.Reader, up io.Writer) (bool, error) {
	if err := c.load(ctx, body); err != nil {
		return false, err
	}
	out, err := c.change(c.body)
	if err != nil {
		return false, err
	}
	if !c.call.HasBody && len(out) > 0 {
		plan.ContentType = typeForAccept(c.call.Accept)
	}
	_, err = up.Write(out)
	return false, err
}

// typeForAccept gives the content type of a body of ours. Where Accept asks for the API of a version, the server wants the body to
// say the same (org.elasticsearch.rest.RestCompatibleVersionHelper).
func typeForAccept(accept []string) string {
	for _, value := range accept {
		for one := range strings.SplitSeq(value, ",") {
			if one = strings.TrimSpace(one); strings.Contains(strings.ToLower(one), "compatible-with") {
				return one
			}
		}
	}
	return "application/json"
}

// Reply implements Transform.
func (c *control) Reply(context.Context, ReplyHead) (func(io.Reader, io.Writer) error, bool, error) {
	return nil, false, nil
}

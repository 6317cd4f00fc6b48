package rewrite

import (
	"bytes"
	"cmp"
	"context"
	"net/url"
	"strings"

	"github.com/tidwall/gjson"
)

// maxRepeatBytes bounds what one bulk keeps of updates that may have to be repeated.
const maxRepeatBytes = 4 << 20

// repeats are the updates of one bulk that went up in another form than they came: guarded by a sequence number, or as
// a create. The proxy carries out their retry_on_conflict itself, and their reply items are named update again.
type repeats struct {
	items map[int]*repeat
	held  int64
}

type repeat struct {
	name        string
	id, routing string
	line, src   []byte // as they came; nil when no repetition is due
	attempts    int
	created     bool // went up as a create
}

func (r *repeats) any() bool { return len(r.items) > 0 }

func (r *repeats) wanted(ordinal int) bool { return r.items[ordinal] != nil }

// remember notes an update that went up guarded or as a create.
func (r *repeats) remember(s *stage, it *item, form updateForm, line []byte) {
	x := &repeat{name: it.place.name, id: strings.Clone(it.id), routing: strings.Clone(it.routing), created: form == formCreate}
	if x.routing == "" {
		x.routing = s.routing
	}
	// A client's own if_seq_no excludes retry_on_conflict: Elasticsearch says so.
	if it.retry > 0 && !it.guarded {
		src := s.buf[it.src.start:it.src.end]
		size := int64(len(line) + len(src))
		if r.held+size <= maxRepeatBytes {
			x.line, x.src, x.attempts = bytes.Clone(line), bytes.Clone(src), it.retry
			r.held += size
		}
	}
	if !x.created && x.attempts == 0 {
		return
	}
	if r.items == nil {
		r.items = make(map[int]*repeat)
	}
	r.items[it.ordinal] = x
}

func (r *repeats) close() {
	for _, x := range r.items {
		clear(x.src)
	}
	r.items = nil
}

// replace gives the reply item of an update: the server's own, named update, or that of its repetition after a conflict.
func (r *repeats) replace(ctx context.Context, t *bulk, ordinal int, reply []byte) ([]byte, error) {
	x := r.items[ordinal]
	for conflict(reply) && x.attempts > 0 {
		x.attempts--
		next, err := t.repeatUpdate(ctx, x)
		if err != nil {
			return nil, err
		}
		if next == nil {
			break
		}
		reply = next
	}
	if x.created {
		reply = renameItem(reply)
	}
	return reply, nil
}

// conflict reports whether a reply item says 409.
func conflict(item []byte) bool {
	found := false
	gjson.ParseBytes(item).ForEach(func(_, v gjson.Result) bool {
		found = v.Get("status").Int() == 409
		return false
	})
	return found
}

// renameItem names a create's reply item update.
func renameItem(item []byte) []byte {
	at := bytes.Index(item, []byte(`"create"`))
	if at < 0 {
		return item
	}
	out := append([]byte(nil), item[:at]...)
	out = append(out, `"update"`...)
	return append(out, item[at+len(`"create"`):]...)
}

// repeatUpdate carries an update out once more, alone. A nil reply means that its fault is a lasting one: the
// conflict is the answer.
func (t *bulk) repeatUpdate(ctx context.Context, x *repeat) ([]byte, error) {
	var a action
	var u updateBody
	writing := t.eng.Turns.write() // the bulk's own turn may have ended
	defer writing.exit()
	if err := writing.enter(ctx, x.name); err != nil {
		return nil, err
	}
	pl, err := t.eng.place(ctx, x.name)
	if err != nil || pl.t == nil {
		return nil, err
	}
	if err := t.main.scan.parseAction(x.line, &a); err != nil {
		return nil, err
	}
	if err := t.main.scan.update(x.src, pl.t, &u); err != nil {
		return nil, err
	}
	docs, err := t.eng.Cluster.Documents(ctx, t.call.Caller, []Ref{{Index: pl.index, ID: x.id, Routing: cmp.Or(x.routing, pl.route)}}, pl.t.paths())
	if err != nil || len(docs) != 1 {
		return nil, err
	}
	was, fault := t.main.scan.readStored(docs[0], pl.t)
	if fault != nil {
		return nil, nil
	}
	form, subj, fault := u.decide(pl.t, was)
	if fault != nil {
		return nil, nil
	}
	body := append(a.appendUpdateAction(nil, x.line, form, was), '\n')
	if body, err = t.main.seal.appendUpdate(body, &u, pl.t, form, subj, was.stored); err != nil {
		return nil, err
	}
	body = append(body, '\n')
	path := "/_bulk"
	if t.index != "" {
		path = "/" + url.PathEscape(t.index) + "/_bulk"
	}
	if t.query != "" {
		path += "?" + t.query
	}
	status, reply, err := t.call.Caller.Do(ctx, "POST", path, body, t.eng.Limits.MaxHit)
	if err != nil {
		return nil, err
	}
	if status != 200 || !gjson.ValidBytes(reply) {
		return nil, nil
	}
	x.created = form == formCreate
	item := gjson.GetBytes(reply, "items.0")
	if !item.IsObject() {
		return nil, nil
	}
	return []byte(item.Raw), nil
}

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

const (
	maxRefs  = 1000     // documents of one _mget
	fewRefs  = 50       // and when the reply of that was too long
	maxFound = 32 << 20 // bytes of one _mget's reply
)

// Documents looks up stored documents; see rewrite.Cluster. Index of a Ref may be any name that Resolve takes:
// the concrete index that a write would go to is asked. A missing document or index has Found false. Source holds the
// paths only, or is nil without paths. Faults: 401 when the caller's credentials are wrong, 403 when neither the
// caller nor the proxy may read, 400 for a name that takes no writes, 503 otherwise; all FaultLookup but for names.
func (c *Cluster) Documents(ctx context.Context, caller rewrite.Caller, refs []rewrite.Ref, paths []string) ([]rewrite.Stored, error) {
	l := lookup{c: c, refs: refs, at: make([]where, len(refs)), out: make([]rewrite.Stored, len(refs))}
	l.source = paths
	if len(paths) == 0 {
		l.source = false
	}
	todo := make([]int, len(refs))
	for i := range todo {
		todo[i] = i
	}
	if err := l.run(ctx, caller, todo); err != nil {
		return nil, err
	}
	if len(l.gone) == 0 {
		return l.out, nil
	}
	// An index of the view is gone: perhaps an alias was moved meanwhile.
	if _, err := c.fresh(ctx); err != nil {
		return nil, err
	}
	todo, l.gone = l.gone, nil
	if err := l.run(ctx, caller, todo); err != nil {
		return nil, err
	}
	return l.out, nil
}

// run finds the concrete indices of the ordinals and reads the documents.
func (l *lookup) run(ctx context.Context, caller rewrite.Caller, todo []int) error {
	known := map[string]where{}
	var there []int
	for _, i := range todo {
		name := l.refs[i].Index
		at, ok := known[name]
		if !ok {
			var err error
			if at, err = l.c.writeIndex(ctx, name); err != nil {
				return err
			}
			known[name] = at
		}
		if at.index != "" {
			l.at[i] = at
			there = append(there, i)
		}
	}
	for len(there) > 0 {
		n := min(len(there), maxRefs)
		if err := l.read(ctx, caller, there[:n]); err != nil {
			return err
		}
		there = there[n:]
	}
	return nil
}

// where is the concrete index that a write goes to, and how an alias routes it.
type where struct{ index, routing string }

// writeIndex tells where a write to name goes; the index is "" when it does not exist yet.
func (c *Cluster) writeIndex(ctx context.Context, name string) (where, error) {
	r, err := c.Resolve(ctx, name)
	if err != nil || r.Write != "" {
		return where{r.Write, r.Routing}, err
	}
	t, err := c.parse(name)
	if err != nil {
		return where{}, err
	}
	v, err := c.current(ctx)
	if err != nil {
		return where{}, err
	}
	if v.has(t.name) {
		return where{}, badName("the name takes no writes: it is an alias of several indices without a write index, an empty data stream, or a failure store")
	}
	return where{}, nil
}

// lookup is one call of Documents.
type lookup struct {
	c      *Cluster
	refs   []rewrite.Ref
	at     []where // by ordinal
	source any
	out    []rewrite.Stored
	gone   []int // ordinals whose index does not exist although the view has it
}

// read asks for the documents of the ordinals with the caller's credentials, and with the proxy's own for those that
// the caller may not read.
func (l *lookup) read(ctx context.Context, caller rewrite.Caller, todo []int) error {
	own := l.c.own
	if caller == nil {
		caller = own
	}
	denied, err := l.ask(ctx, caller, todo)
	if err != nil || len(denied) == 0 {
		return err
	}
	if caller != own {
		if denied, err = l.ask(ctx, own, denied); err != nil {
			return err
		}
	}
	if len(denied) > 0 {
		return &rewrite.Fault{Status: http.StatusForbidden, Type: FaultLookup,
			Reason: "a stored document is needed to serve this request, and neither these credentials nor the proxy's own may read it; " +
				"grant the privilege read on the index, or set ELASTICSEARCH_USERNAME to a user that has it"}
	}
	return nil
}

// ask sends one _mget and gives the ordinals that were denied. If the reply was too long (or lost) it
// goes on in smaller steps, so that a block of large documents can be read in bounded memory.
func (l *lookup) ask(ctx context.Context, who rewrite.Caller, todo []int) (denied []int, err error) {
	denied, err = l.mget(ctx, who, todo)
	if lost := (*lostError)(nil); errors.As(err, &lost) && len(todo) > 1 && ctx.Err() == nil {
		step := fewRefs
		if len(todo) <= fewRefs {
			step = 1
		}
		for denied = nil; len(todo) > 0; todo = todo[min(step, len(todo)):] {
			d, err := l.ask(ctx, who, todo[:min(step, len(todo))])
			if err != nil {
				return nil, err
			}
			denied = append(denied, d...)
		}
		return denied, nil
	}
	return denied, err
}

func (l *lookup) mget(ctx context.Context, who rewrite.Caller, todo []int) (denied []int, err error) {
	type doc struct {
		Index   string `json:"_index"`
		ID      string `json:"_id"`
		Routing string `json:"routing,omitempty"`
		Source  any    `json:"_source"`
	}
	docs := make([]doc, len(todo))
	for k, i := range todo {
		docs[k] = doc{l.at[i].index, l.refs[i].ID, l.refs[i].Routing, l.source}
		if docs[k].Routing == "" {
			docs[k].Routing = l.at[i].routing // a routing that differs is refused by Elasticsearch
		}
	}
	body, err := json.Marshal(map[string]any{"docs": docs})
	if err != nil {
		return nil, lookupFailed(err)
	}
	status, reply, err := l.c.ask(ctx, who, http.MethodPost, "/_mget?realtime=true&refresh=false", body, maxFound)
	switch {
	case err != nil:
		return nil, lookupFailed(err)
	case status == http.StatusForbidden:
		return todo, nil
	case status == http.StatusUnauthorized && who == l.c.own:
		return todo, nil
	case status == http.StatusUnauthorized:
		return nil, &rewrite.Fault{Status: status, Type: FaultLookup,
			Reason: "a stored document is needed to serve this request, and Elasticsearch does not accept the credentials of the request"}
	case status != http.StatusOK:
		return nil, lookupFailed(statusError(status))
	case !gjson.ValidBytes(reply):
		return nil, lookupFailed(errGarbage)
	}
	found := gjson.GetBytes(reply, "docs").Array()
	if len(found) != len(todo) {
		return nil, lookupFailed(errGarbage)
	}
	for k, i := range todo {
		d := found[k]
		if d.Get("_id").String() != l.refs[i].ID {
			return nil, lookupFailed(errGarbage)
		}
		if e := d.Get("error"); e.Exists() {
			switch e.Get("type").Str {
			case "index_not_found_exception":
				l.gone = append(l.gone, i)
			case "security_exception":
				denied = append(denied, i)
			default:
				return nil, lookupFailed(errors.New("elasticsearch answered " + e.Get("type").Str))
			}
			continue
		}
		switch found := d.Get("found"); {
		case found.Type == gjson.False:
			continue
		case found.Type != gjson.True:
			return nil, lookupFailed(errGarbage)
		}
		seq, term := d.Get("_seq_no"), d.Get("_primary_term")
		if seq.Type != gjson.Number || term.Type != gjson.Number {
			return nil, lookupFailed(errGarbage)
		}
		s := rewrite.Stored{Found: true, Index: d.Get("_index").String(), SeqNo: seq.Int(), PrimaryTerm: term.Int()}
		if src := d.Get("_source"); src.IsObject() {
			s.Source = []byte(src.Raw)
		}
		l.out[i] = s
	}
	return denied, nil
}

func lookupFailed(cause error) *rewrite.Fault {
	return &rewrite.Fault{Status: http.StatusServiceUnavailable, Type: FaultLookup, Cause: cause,
		Reason: "a stored document is needed to serve this request and could not be read from Elasticsearch; try again"}
}

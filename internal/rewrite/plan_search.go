package rewrite

import (
	"bytes"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// opening makes what opens a reply of the given kind. index is the request's one index, for replies that name none.
func (r *request) opening(kind replyKind, index string) *opening {
	typed, ok := lookParam(r.params, "typed_keys")
	return &opening{
		eng: r.Engine, viewer: r.call.Viewer, caller: r.call.Caller, counter: r.call.Counter,
		kind: kind, index: index, id: r.value("id"), routing: r.value("routing"), typedKeys: ok && typed != "false",
	}
}

// filtersSource reports whether the URL cuts _source or the reply.
func (r *request) filtersSource() bool {
	for _, name := range []string{"_source", "_source_includes", "_source_excludes", "_source_include", "_source_exclude", "_source_exclude_vectors", "filter_path", "stored_fields"} {
		if _, ok := lookParam(r.params, name); ok {
			return true
		}
	}
	return false
}

// search carries every request whose body is a query.
func (r *request) search() (Transform, error) {
	if r.verdict == verdictUpdateByQuery {
		if err := r.writing.enter(r.ctx, r.value("index")); err != nil {
			return nil, err
		}
	}
	in, err := r.reach(r.ctx, r.value("index"))
	if err != nil {
		return nil, err
	}
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	switch r.verdict {
	case verdictSearch:
		if r.call.Viewer != nil {
			q.opening = r.opening(replySearch, "")
		}
	case verdictAsync:
		if r.call.Viewer != nil {
			q.opening = r.opening(replyAsync, "")
		}
	}
	if q.opening != nil {
		q.opening.fallback = r.onlyTarget()
	}
	if (r.verdict == verdictSearch || r.verdict == verdictAsync) && r.value("index") == "" {
		// A search that names no index may continue a point in time: any rule may apply.
		in.rules = r.Policy.Rules
		in.named = slices.Concat(in.rules, shifted(in.rules))
	}
	if len(in.rules) == 0 {
		return r.unruled(q, func(body []byte) error {
			_, err := r.guardQuery(nil, body)
			return err
		})
	}
	if err := guardURL(in.named, r.urlParams()); err != nil {
		return nil, err
	}
	q.check = func(body []byte) error {
		switch r.verdict {
		case verdictTermsEnum:
			return r.termsEnum(in.named, body)
		case verdictUpdateByQuery:
			if err := updateByQuery(in.rules, body); err != nil {
				return err
			}
		}
		return r.guardInto(q, in.named, body)
	}
	return q, nil
}

// guardInto checks a search body and tells the opening what the body asks for.
func (r *request) guardInto(q *query, rules []*policy.Rule, body []byte) error {
	var info queryInfo
	if len(body) > 0 {
		var err error
		if info, err = r.guardQuery(rules, body); err != nil {
			return err
		}
	}
	if q.opening != nil {
		q.opening.topHits = info.topHits
		q.opening.sourceWhole = !info.sourceFiltered && !r.filtersSource()
	}
	return nil
}

// onlyTarget gives the rules of hits that do not tell their index, as filter_path can cut it: those that all indices of
// the request are under, nil when they differ.
func (r *request) onlyTarget() *target {
	index := r.value("index")
	if _, cut := lookParam(r.params, "filter_path"); !cut || index == "" || strings.ContainsAny(index, ",*<") || index == "_all" {
		return nil
	}
	indices, err := r.indices(r.ctx, index)
	if err != nil {
		return nil
	}
	for _, t := range indices {
		if t != indices[0] {
			return nil
		}
	}
	return indices[0]
}

func (r *request) urlParams() [][2]string {
	out := make([][2]string, 0, len(r.params))
	for _, p := range r.params {
		out = append(out, [2]string{p.name, p.value})
	}
	return out
}

func (r *request) explain() (Transform, error) {
	in, err := r.reach(r.ctx, r.value("index"))
	if err != nil {
		return nil, err
	}
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	if r.call.Viewer != nil {
		q.opening = r.opening(replyExplain, r.value("index"))
	}
	if len(in.rules) > 0 {
		if err := guardURL(in.named, r.urlParams()); err != nil {
			return nil, err
		}
		q.check = func(body []byte) error { return r.guardInto(q, in.named, body) }
		return q, nil
	}
	return r.unruled(q, func(body []byte) error {
		_, err := r.guardQuery(nil, body)
		return err
	})
}

// unruled gives the transform of a search of indices that no rule names; q opens its reply, if anything does. The body may
// still bring a document for an index that a rule does name: only more_like_this takes one. So a body passes as it is, in any
// form, as long as it has no such clause, in the open or by escapes or in a wrapper clause.
func (r *request) unruled(q *query, check func(body []byte) error) (Transform, error) {
	if r.call.HasBody && len(r.Policy.Rules) > 0 {
		q.anyForm = true
		q.check = func(body []byte) error {
			if !namesElsewhere(body) {
				return nil
			}
			if fault := jsonOnly(r.call.ContentType); fault != nil {
				return fault
			}
			return check(body)
		}
		return q, nil
	}
	if q.opening == nil {
		return nil, nil
	}
	return q, nil
}

// namesElsewhere reports whether a search may bring a document for another index.
func namesElsewhere(body []byte) bool {
	return hidesElsewhere(body) && (!bytes.Contains(body, []byte("more_like_this")) || bytes.Contains(body, []byte("_index")) || bytes.IndexByte(body, '\\') >= 0)
}

// hidesElsewhere looks for the clause of such a document, for one that holds others in base64, and for letters that are written as
// escapes, as no client does.
func hidesElsewhere(text []byte) bool {
	if bytes.Contains(text, []byte("more_like_this")) || bytes.Contains(text, []byte(`"wrapper"`)) {
		return true
	}
	for {
		i := bytes.Index(text, []byte(`\u00`))
		if i < 0 || i+4 >= len(text) {
			return false
		}
		if c := text[i+4]; c >= '4' && c <= '7' {
			return true
		}
		text = text[i+4:]
	}
}

// read carries requests that bring no query and return documents.
func (r *request) read() (Transform, error) {
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	var err error
	switch r.verdict {
	case verdictScroll:
		q.check, err = r.members()
	case verdictMget:
		q.check, err = r.membersOnly(checkMget)
	default:
		q.check, err = r.noBody()
	}
	if err != nil {
		return nil, err
	}
	if r.call.Viewer == nil || r.call.Method == "HEAD" {
		if q.check == nil {
			return nil, nil
		}
		return q, nil
	}
	switch r.verdict {
	case verdictScroll:
		q.opening = r.opening(replySearch, "")
	case verdictAsyncGet:
		q.opening = r.opening(replyAsync, "")
	case verdictTableGet:
		q.opening = r.opening(replyTable, "")
		q.opening.tableRules, q.opening.unknownForm = r.Policy.Rules, true
	case verdictEventsGet:
		q.opening = r.opening(replyEvents, "")
		q.opening.sourceWhole = !r.filtersSource()
	case verdictMget:
		q.opening = r.opening(replyMget, "")
		q.opening.fallback = r.onlyTarget()
	case verdictGet:
		q.opening = r.opening(replyGet, r.value("index"))
		q.opening.sourceWhole = !r.filtersSource()
	case verdictSource:
		q.opening = r.opening(replySource, r.value("index"))
		q.opening.sourceWhole = !r.filtersSource()
	}
	return q, nil
}

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/tidwall/gjson"
)

const (
	maxPage  = 32 << 20 // bytes of one page of documents
	pageSize = 500      // documents of a page, halved while they are too long
)

// eachProtected calls visit for each value at a protected path of rules in a stored document, whatever its spelling: nested and
// dotted names, arrays, names that end in a dot. Values below a protected path count as the field's.
func eachProtected(source gjson.Result, rules []*policy.Rule, visit func(f *policy.Field, v gjson.Result)) {
	var walk func(path string, v gjson.Result)
	walk = func(path string, v gjson.Result) {
		for _, r := range rules {
			if f := r.Field(path); f != nil {
				visit(f, v)
				return
			}
		}
		switch {
		case v.IsObject():
			v.ForEach(func(name, value gjson.Result) bool {
				walk(joinPath(path, name.String()), value)
				return true
			})
		case v.IsArray():
			v.ForEach(func(_, value gjson.Result) bool {
				walk(path, value)
				return true
			})
		}
	}
	walk("", source)
}

// joinPath adds a member's name, which may hold dots, to a path. Empty parts are left out, as the server does at the end of a name.
func joinPath(path, name string) string {
	for part := range strings.SplitSeq(name, ".") {
		if part == "" {
			continue
		}
		if path != "" {
			path += "."
		}
		path += part
	}
	return path
}

// scan reads documents of an index with the proxy's own credentials, those that query finds (JSON): all of them when limit is 0 or not below
// their number, else a random sample of at most limit. visit gets each hit with _id and those parts of _source that paths name. It gives
// the number of documents that were read, and whether these were all.
func (c *Cluster) scan(ctx context.Context, index, query string, paths []string, limit int, visit func(hit gjson.Result)) (read int64, all bool, err error) {
	status, reply, err := c.ask(ctx, c.own, http.MethodPost, "/"+url.PathEscape(index)+"/_count", []byte(`{"query":`+query+`}`), maxView)
	switch {
	case err != nil:
		return 0, false, c.unknown(err)
	case isDenied(status):
		return 0, false, errDenied
	case status != http.StatusOK || !gjson.ValidBytes(reply):
		return 0, false, c.unknown(statusError(status))
	}
	n := gjson.GetBytes(reply, "count").Int()
	if n == 0 {
		return 0, true, nil
	}
	source, _ := json.Marshal(paths) // strings always marshal
	if limit > 0 && n > int64(limit) {
		query = `{"function_score":{"query":` + query + `,"random_score":{},"boost_mode":"replace"}}`
		reply, err := c.page(ctx, index, query, string(source), limit, false)
		if err != nil {
			return 0, false, err
		}
		for _, hit := range gjson.GetBytes(reply, "hits.hits").Array() {
			visit(hit)
			read++
		}
		return read, false, nil
	}
	reply, err = c.page(ctx, index, query, string(source), pageSize, true)
	for {
		if err != nil {
			return read, false, err
		}
		hits := gjson.GetBytes(reply, "hits.hits").Array()
		scroll := gjson.GetBytes(reply, "_scroll_id").String()
		id, _ := json.Marshal(scroll)
		if len(hits) == 0 {
			_, _, _ = c.ask(ctx, c.own, http.MethodDelete, "/_search/scroll", []byte(`{"scroll_id":`+string(id)+`}`), maxView) // it would end by itself
			return read, true, nil
		}
		for _, hit := range hits {
			visit(hit)
			read++
		}
		var status int
		status, reply, err = c.ask(ctx, c.own, http.MethodPost, "/_search/scroll", []byte(`{"scroll":"2m","scroll_id":`+string(id)+`}`), maxPage)
		if err == nil && (status != http.StatusOK || !gjson.ValidBytes(reply)) {
			err = statusError(status)
		}
		if err != nil {
			err = c.unknown(err)
		}
	}
}

// page asks for the first page, with fewer documents while a page is too long.
func (c *Cluster) page(ctx context.Context, index, query, source string, size int, scroll bool) ([]byte, error) {
	sort, path := "", "/"+url.PathEscape(index)+"/_search?request_cache=false"
	if scroll {
		sort, path = `,"sort":["_doc"]`, path+"&scroll=2m"
	}
	for {
		body, _ := json.Marshal(size)
		status, reply, err := c.ask(ctx, c.own, http.MethodPost, path, []byte(`{"size":`+string(body)+`,"_source":`+source+`,"query":`+query+sort+`,"track_total_hits":false}`), maxPage)
		switch {
		case err != nil && ctx.Err() == nil && size > 1:
			size /= 2 // perhaps too long
			continue
		case err != nil:
			return nil, c.unknown(err)
		case isDenied(status):
			return nil, errDenied
		case status != http.StatusOK:
			return nil, c.unknown(statusError(status))
		case !gjson.ValidBytes(reply):
			return nil, c.unknown(errGarbage)
		case gjson.GetBytes(reply, "_shards.failed").Int() > 0:
			return nil, c.unknown(errors.New("not all shards answered"))
		}
		return reply, nil
	}
}

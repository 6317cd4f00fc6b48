package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

const (
	maxPage  = 32 << 20 // bytes of one page of documents
	pageSize = 500      // documents of a page, halved while they are too long
)

// eachProtected calls visit for each value at a protected path of rules in a stored document, whatever its spelling: nested and
// dotted names, arrays, names that end in a dot. What a dotted name puts below a
// protected path counts as an object there.
func eachProtected(source gjson.Result, rules []*policy.Rule, visit func(f *policy.Field, v gjson.Result)) {
	var walk func(path string, v gjson.Result)
	walk = func(path string, v gjson.Result) {
		if f := fieldAt(path, rules); f != nil {
			if path != f.Path {
				v = gjson.Parse(`{}`) // a member below the field
			}
			visit(f, v)
			return
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

// fieldAt gives the field at path or above it; nil when there is none.
func fieldAt(path string, rules []*policy.Rule) *policy.Field {
	for path != "" {
		for _, r := range rules {
			if f := r.Field(path); f != nil {
				return f
			}
		}
		path = path[:max(strings.LastIndexByte(path, '.'), 0)]
	}
	return nil
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
// the number of documents that were read, and of those that query finds.
func (c *Cluster) scan(ctx context.Context, index, query string, paths []string, limit int, visit func(hit gjson.Result)) (read, of int64, err error) {
	of, err = c.countOf(ctx, index, query)
	if of == 0 || err != nil {
		return 0, 0, err
	}
	source, _ := json.Marshal(paths) // strings always marshal
	if limit > 0 && of > int64(limit) {
		query = `{"function_score":{"query":` + query + `,"random_score":{},"boost_mode":"replace"}}`
		reply, err := c.page(ctx, index, query, string(source), limit, false)
		if err != nil {
			return 0, of, err
		}
		for _, hit := range gjson.GetBytes(reply, "hits.hits").Array() {
			visit(hit)
			read++
		}
		return read, of, nil
	}
	reply, err := c.page(ctx, index, query, string(source), pageSize, true)
	for {
		if err != nil {
			return read, of, err
		}
		hits := gjson.GetBytes(reply, "hits.hits").Array()
		scroll := gjson.GetBytes(reply, "_scroll_id").String()
		id, _ := json.Marshal(scroll)
		if len(hits) == 0 {
			_, _, _ = c.ask(ctx, c.own, http.MethodDelete, "/_search/scroll", []byte(`{"scroll_id":`+string(id)+`}`), maxView) // it would end by itself
			return read, of, nil
		}
		for _, hit := range hits {
			visit(hit)
			read++
		}
		var status int
		status, reply, err = c.ask(ctx, c.own, http.MethodPost, "/_search/scroll", []byte(`{"scroll":"2m","scroll_id":`+string(id)+`}`), maxPage)
		if err == nil && (status != http.StatusOK || !gjson.ValidBytes(reply)) {
			err = unanswered(status, reply)
		}
		if err != nil {
			err = c.unknown(err)
		}
	}
}

// countOf counts the documents that a query finds.
func (c *Cluster) countOf(ctx context.Context, index, query string) (int64, error) {
	status, reply, err := c.ask(ctx, c.own, http.MethodPost, "/"+url.PathEscape(index)+"/_count", []byte(`{"query":`+query+`}`), maxView)
	switch {
	case err != nil:
		return 0, c.unknown(err)
	case isDenied(status):
		return 0, errDenied
	case status != http.StatusOK || !gjson.ValidBytes(reply):
		return 0, unanswered(status, reply)
	}
	return gjson.GetBytes(reply, "count").Int(), nil
}

// unanswered says that a question was answered with another status than 200. Types of errors are the server's words; its reasons may
// quote documents.
func unanswered(status int, reply []byte) *rewrite.Fault {
	kind := gjson.GetBytes(reply, "error.type").String()
	if !errorType().MatchString(kind) {
		kind = "no type"
	}
	return &rewrite.Fault{Status: http.StatusServiceUnavailable, Type: FaultUnknown, Reason: "Elasticsearch answered " + strconv.Itoa(status) + " (" + kind + ") to a question about stored documents"}
}

var errorType = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z_]{1,64}$`)
})

// page asks for the first page, with fewer documents while a page is too long.
func (c *Cluster) page(ctx context.Context, index, query, source string, size int, scroll bool) ([]byte, error) {
	sort, path := "", "/"+url.PathEscape(index)+"/_search?request_cache=false"
	if scroll {
		sort, path = `,"sort":["_doc"]`, path+"&scroll=2m"
	}
	for {
		body, _ := json.Marshal(size)
		status, reply, err := c.ask(ctx, c.own, http.MethodPost, path, []byte(`{"size":`+string(body)+`,"_source":`+source+`,"query":`+query+sort+`}`), maxPage)
		switch {
		case err != nil && ctx.Err() == nil && size > 1:
			size /= 2 // perhaps too long
			continue
		case err != nil:
			return nil, c.unknown(err)
		case isDenied(status):
			return nil, errDenied
		case status != http.StatusOK:
			return nil, unanswered(status, reply)
		case !gjson.ValidBytes(reply):
			return nil, c.unknown(errGarbage)
		case gjson.GetBytes(reply, "_shards.failed").Int() > 0:
			return nil, c.unknown(errors.New("not all shards answered"))
		}
		return reply, nil
	}
}

//go:build !nodevnode

package devnode

import (
	"fmt"
	"strings"
)

// esError is an error as Elasticsearch reports it. It is a value that is
// rendered more than once: as a whole reply, in a bulk item, in an mget slot.
type esError struct {
	status int
	typ    string
	reason string
	noText bool // reason is null
	extra  []any
	cause  *esError
	root   *esError // what root_cause shows; itself if nil
	plain  bool     // rendered as {"error":"reason","status":n}
	bare   bool     // like plain, without the status
}

func (e *esError) Error() string { return e.typ + ": " + e.reason }

// body is the error object without root_cause.
func (e *esError) body(withCause bool) *jv {
	o := obj("type", e.typ, "reason", e.reason)
	if e.noText {
		o.mem[1].v = val(nil)
	}
	for i := 0; i < len(e.extra); i += 2 {
		o.put(e.extra[i].(string), e.extra[i+1])
	}
	if withCause && e.cause != nil {
		o.put("caused_by", e.cause.body(true))
	}
	return o
}

// full is the error object with root_cause in front.
func (e *esError) full() *jv {
	root := e.root
	if root == nil {
		root = e
	}
	o := &jv{k: kObj}
	o.put("root_cause", []*jv{root.rootBody()})
	o.mem = append(o.mem, e.body(true).mem...)
	return o
}

func (e *esError) rootBody() *jv { return e.body(false) }

// reply is the whole reply body.
func (e *esError) reply() *jv {
	if e.plain {
		if e.bare {
			return obj("error", e.reason)
		}
		return obj("error", e.reason, "status", e.status)
	}
	return obj("error", e.full(), "status", e.status)
}

func errf(status int, typ, format string, args ...any) *esError {
	return &esError{status: status, typ: typ, reason: fmt.Sprintf(format, args...)}
}

func illegalArg(format string, args ...any) *esError {
	return errf(400, "illegal_argument_exception", format, args...)
}

// unsupported is the 501 for everything this node leaves to a real server.
func unsupported(format string, args ...any) *esError {
	return errf(501, "devnode_not_implemented", "the embedded node does not implement "+format+"; use a real Elasticsearch for this", args...)
}

func validation(msgs ...string) *esError {
	var b strings.Builder
	b.WriteString("Validation Failed: ")
	for i, m := range msgs {
		fmt.Fprintf(&b, "%d: %s;", i+1, m)
	}
	return errf(400, "action_request_validation_exception", "%s", b.String())
}

func indexNotFound(name string) *esError {
	e := errf(404, "index_not_found_exception", "no such index [%s]", name)
	e.extra = []any{"resource.type", "index_or_alias", "resource.id", name, "index_uuid", "_na_", "index", name}
	return e
}

func requireAliasMissing(name string) *esError {
	e := errf(404, "index_not_found_exception", "no such index [%s] and [require_alias] request flag is [true] and [%s] is not an alias", name, name)
	e.extra = []any{"index_uuid", "_na_", "index", name}
	return e
}

func shardError(ix *index, status int, typ, format string, args ...any) *esError {
	e := errf(status, typ, format, args...)
	e.extra = []any{"index_uuid", ix.uuid, "shard", "0", "index", ix.name}
	return e
}

// syntaxError turns a JSON error into the exception a handler gets from
// Elasticsearch's parser.
func syntaxError(j *jsonError, withSource bool) *esError {
	if j.eof {
		e := errf(400, "x_content_e_o_f_exception", "[%d:%d] Unexpected end of file", j.line, j.col)
		e.cause = errf(400, "json_e_o_f_exception", "%s", j.where(withSource))
		return e
	}
	e := errf(400, "x_content_parse_exception", "[%d:%d] %s", j.line, j.col, j.where(withSource))
	e.cause = errf(400, "json_parse_exception", "%s", j.where(withSource))
	return e
}

func (j *jsonError) where(withSource bool) string {
	src := preview(j.src)
	if !withSource {
		src = "REDACTED (`StreamReadFeature.INCLUDE_SOURCE_IN_LOCATION` disabled)"
	}
	msg := j.msg
	if !withSource {
		msg = strings.ReplaceAll(msg, preview(j.src), src)
	}
	return fmt.Sprintf("%s\n at [Source: %s; line: %d, column: %d]", msg, src, j.line, j.col)
}

// shardsFailed wraps a query error as a search reply does when the only shard
// of every index refused.
func (n *Node) shardsFailed(ix *index, inner *esError, asCause bool) *esError {
	reason := inner.body(true)
	e := errf(inner.status, "search_phase_execution_exception", "all shards failed")
	e.root = inner
	e.extra = []any{"phase", "query", "grouped", true, "failed_shards", []*jv{obj("shard", 0, "index", ix.name, "node", n.id, "reason", reason)}}
	if asCause {
		c := *inner
		c.cause = inner
		e.cause = &c
	}
	return e
}

func queryShardError(ix *index, msg string, cause *esError) *esError {
	e := errf(400, "query_shard_exception", "%s", msg)
	e.extra = []any{"index_uuid", ix.uuid, "index", ix.name}
	e.cause = cause
	return e
}

package rewrite

import (
	"encoding/json"
	"strconv"
)

// Fault is a refusal. It is shown to the client in Elasticsearch's error shape, so Reason says what was
// wrong and what to do, and never holds a value, a key or a token.
type Fault struct {
	Status int    // HTTP status
	Type   string // stable, "esproxy_…"; listed in docs/errors.md
	Reason string
	Cause  error // for the log, never shown; may be nil
}

// Error gives type and reason, which are the client's to see.
func (f *Fault) Error() string { return f.Type + ": " + f.Reason }

// Unwrap gives the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// AppendError appends the object that Elasticsearch puts under "error" in a bulk item.
func (f *Fault) AppendError(dst []byte) []byte {
	dst = append(dst, `{"type":`...)
	dst = appendJSONString(dst, f.Type)
	dst = append(dst, `,"reason":`...)
	dst = appendJSONString(dst, f.Reason)
	return append(dst, '}')
}

// AppendBody appends the body of a whole error reply.
func (f *Fault) AppendBody(dst []byte) []byte {
	dst = append(dst, `{"error":{"root_cause":[`...)
	dst = f.AppendError(dst)
	dst = append(dst, `],"type":`...)
	dst = appendJSONString(dst, f.Type)
	dst = append(dst, `,"reason":`...)
	dst = appendJSONString(dst, f.Reason)
	dst = append(dst, `},"status":`...)
	dst = strconv.AppendInt(dst, int64(f.Status), 10)
	return append(dst, '}')
}

// appendJSONString appends s as one JSON string.
func appendJSONString(dst []byte, s string) []byte {
	b, _ := json.Marshal(s) // a string always marshals
	return append(dst, b...)
}

// Package sampleapi is an invented data provider: user records in the shape
// that the ingester was written for, served in all the ways providers serve
// lists. The demo runs it, and tests use its faults. Nothing in it is real: names,
// card numbers and addresses come from a seeded generator, so every run and
// every machine sees the same records.
package sampleapi

import (
	"crypto/subtle"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
)

// Fault is a failure that the API plays for one request.
type Fault struct {
	// Status, if not 0, is answered instead of records.
	Status int
	// RetryAfter is the Retry-After header that goes with Status; empty sends none.
	RetryAfter string
	// CutAfter, if > 0, ends the connection after so many bytes of the body.
	CutAfter int
	// Stall sends the status and half of the body and then nothing more until the client gives up.
	Stall bool
}

// Options describes a sample API. The zero value serves no records.
type Options struct {
	// N is the number of records.
	N int
	// Bearer, if set, is the token that every request must bring; others get 401.
	Bearer string
	// Username and Password, if Username is set, are required as basic auth.
	Username, Password string
	// Gzip compresses replies for clients that accept gzip.
	Gzip bool
	// Fault, if set, is asked before each request, with the number of the
	// request (1, 2, …) and the request; nil plays no fault. It may be called concurrently.
	Fault func(n int64, r *http.Request) *Fault
}

// Handler serves n records without authentication and without faults; see [New].
func Handler(n int) http.Handler { return New(Options{N: n}) }

// New returns the API. It answers GET only:
//
//	/users                    one JSON array of all records
//	/users?page=2&limit=10    an array of one page; empty past the end
//	/users?cursor=C&limit=10  {"data":[…],"next_cursor":"…"}; the first C is empty, the last next_cursor null
//	/users.ndjson             one record per line
//	/users/next?limit=10      {"data":[…],"next":"/users/next?…"}; no next on the last page
//	/users/link?limit=10      an array; the next page is in the Link header
//
// The default limit is 10. Anything else is 404, a broken parameter 400. The handler is safe for concurrent use.
func New(o Options) http.Handler {
	a := &api{o: o}
	for _, r := range Records(o.N) {
		a.records = append(a.records, r.JSON())
	}
	return a
}

type api struct {
	o        Options
	records  []json.RawMessage
	requests atomic.Int64
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := a.requests.Add(1)
	if !a.allowed(r) {
		w.Header().Set("WWW-Authenticate", `Bearer realm="sample"`)
		plainError(w, http.StatusUnauthorized)
		return
	}
	if r.Method != http.MethodGet {
		plainError(w, http.StatusMethodNotAllowed)
		return
	}
	var fault *Fault
	if a.o.Fault != nil {
		fault = a.o.Fault(n, r)
	}
	if fault != nil && fault.Status != 0 {
		if fault.RetryAfter != "" {
			w.Header().Set("Retry-After", fault.RetryAfter)
		}
		plainError(w, fault.Status)
		return
	}
	a.serve(&reply{w: w, r: r, gzip: a.o.Gzip, fault: fault}, r)
}

func (a *api) allowed(r *http.Request) bool {
	if a.o.Bearer != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+a.o.Bearer)) == 0 {
		return false
	}
	if a.o.Username != "" {
		u, p, ok := r.BasicAuth()
		return ok && subtle.ConstantTimeCompare([]byte(u+"\x00"+p), []byte(a.o.Username+"\x00"+a.o.Password)) == 1
	}
	return true
}

func (a *api) serve(out *reply, r *http.Request) {
	q := r.URL.Query()
	limit, ok := intParam(q, "limit", 10)
	if !ok || limit < 1 {
		plainError(out.w, http.StatusBadRequest)
		return
	}
	switch {
	case r.URL.Path == "/users" && q.Has("cursor"):
		after, ok := intParam(q, "cursor", 0)
		if !ok {
			plainError(out.w, http.StatusBadRequest)
			return
		}
		page, more := a.slice(after, limit)
		var next *string
		if more {
			s := strconv.Itoa(after + limit)
			next = &s
		}
		out.json(struct {
			Data []json.RawMessage `json:"data"`
			Next *string           `json:"next_cursor"`
		}{page, next})
	case r.URL.Path == "/users" && q.Has("page"):
		page, ok := intParam(q, "page", 1)
		if !ok || page < 1 {
			plainError(out.w, http.StatusBadRequest)
			return
		}
		records, _ := a.slice((page-1)*limit, limit)
		out.json(records)
	case r.URL.Path == "/users":
		out.json(append([]json.RawMessage{}, a.records...))
	case r.URL.Path == "/users.ndjson":
		var body []byte
		for _, rec := range a.records {
			body = append(append(body, rec...), '\n')
		}
		out.send("application/x-ndjson", body)
	case r.URL.Path == "/users/next" || r.URL.Path == "/users/link":
		after, ok := intParam(q, "after", 0)
		if !ok {
			plainError(out.w, http.StatusBadRequest)
			return
		}
		page, more := a.slice(after, limit)
		next := ""
		if more {
			next = r.URL.Path + "?" + url.Values{"after": {strconv.Itoa(after + limit)}, "limit": {strconv.Itoa(limit)}}.Encode()
		}
		if r.URL.Path == "/users/link" {
			if next != "" {
				out.w.Header().Set("Link", "<"+next+`>; rel="next"`)
			}
			out.json(page)
			return
		}
		out.json(struct {
			Data []json.RawMessage `json:"data"`
			Next string            `json:"next,omitempty"`
		}{page, next})
	default:
		plainError(out.w, http.StatusNotFound)
	}
}

// slice returns up to limit records from position from on, never nil, and whether more follow.
func (a *api) slice(from, limit int) ([]json.RawMessage, bool) {
	from = min(max(from, 0), len(a.records))
	to := min(from+limit, len(a.records))
	return append([]json.RawMessage{}, a.records[from:to]...), to < len(a.records)
}

func intParam(q url.Values, name string, def int) (int, bool) {
	s := q.Get(name)
	if s == "" {
		return def, true
	}
	n, err := strconv.Atoi(s)
	return n, err == nil && n >= 0 && n < 1<<30
}

func plainError(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": http.StatusText(status)})
}

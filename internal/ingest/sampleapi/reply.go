package sampleapi

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzip"
)

// reply writes one answer and plays the faults that need the body.
type reply struct {
	w     http.ResponseWriter
	r     *http.Request
	gzip  bool
	fault *Fault
}

func (o *reply) json(v any) {
	body, err := json.Marshal(v)
	if err != nil {
		plainError(o.w, http.StatusInternalServerError)
		return
	}
	o.send("application/json", body)
}

// send writes the body with its length, so that a client can tell a cut one.
func (o *reply) send(contentType string, body []byte) {
	h := o.w.Header()
	h.Set("Content-Type", contentType)
	if o.gzip && strings.Contains(o.r.Header.Get("Accept-Encoding"), "gzip") {
		var buf bytes.Buffer
		zw := gzip.NewWriter(&buf)
		_, _ = zw.Write(body)
		_ = zw.Close()
		body = buf.Bytes()
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	o.w.WriteHeader(http.StatusOK)
	if o.fault == nil {
		_, _ = o.w.Write(body)
		return
	}
	if n := o.fault.CutAfter; n > 0 && n < len(body) {
		_, _ = o.w.Write(body[:n])
		_ = http.NewResponseController(o.w).Flush()
		panic(http.ErrAbortHandler) // ends the connection; net/http logs nothing for this value
	}
	if o.fault.Stall {
		_, _ = o.w.Write(body[:len(body)/2])
		_ = http.NewResponseController(o.w).Flush()
		<-o.r.Context().Done()
		return
	}
	_, _ = o.w.Write(body)
}

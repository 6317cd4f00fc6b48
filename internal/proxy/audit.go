package proxy

import (
	"io"
	"log"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// audit writes the one line that every request with a grant leaves. Values never come near it: the
// counters know fields, not contents. The logger's handler adds the time.
func (x *exchange) audit(aborted bool) {
	c := x.counter
	c.mu.Lock()
	defer c.mu.Unlock()
	attrs := []any{
		"token", plainText(x.grantee.TokenID), "who", plainText(x.grantee.Who), "grant", plainText(x.grantee.Grant),
		"method", methodLabel(x.r.Method), "status", x.status,
	}
	if x.plan != nil {
		attrs = append(attrs, "api", x.plan.API, "route", x.plan.Route)
	}
	if id := x.r.Header.Get("X-Opaque-Id"); id != "" {
		attrs = append(attrs, "opaque_id", plainText(id))
	}
	if len(c.opened) > 0 {
		var fields []any
		for _, name := range slices.Sorted(maps.Keys(c.opened)) {
			s := c.opened[name]
			fields = append(fields, slog.Group(name, "plain", s.Plain, "masked", s.Masked))
		}
		attrs = append(attrs, slog.Group("opened", fields...))
		var indices []string
		for _, name := range slices.Sorted(maps.Keys(c.indices)) {
			indices = append(indices, plainText(name))
		}
		attrs = append(attrs, "indices", indices)
		if c.more {
			attrs = append(attrs, "more_indices", true)
		}
	}
	for _, group := range []struct {
		name   string
		counts map[string]int
	}{{"sealed", c.sealed}, {"unopened", c.unopened}} {
		if len(group.counts) == 0 {
			continue
		}
		var fields []any
		for _, name := range slices.Sorted(maps.Keys(group.counts)) {
			fields = append(fields, slog.Int(name, group.counts[name]))
		}
		attrs = append(attrs, slog.Group(group.name, fields...))
	}
	if aborted {
		attrs = append(attrs, "aborted", true)
	}
	x.s.cfg.Audit.Info("granted request", attrs...)
}

// maxAuditText bounds one text of an audit line.
const maxAuditText = 128

// plainText shortens s and escapes all but printable ASCII, so that no client can forge or break a line.
func plainText(s string) string {
	cut := len(s) > maxAuditText
	if cut {
		s = s[:maxAuditText]
	}
	s = strconv.QuoteToASCII(s)
	s = s[1 : len(s)-1]
	if cut {
		s += "…"
	}
	return s
}

// quietErrorLog is for net/http's server, whose messages may quote what a peer sent. Only their kind is kept.
func quietErrorLog(l *slog.Logger) *log.Logger { return log.New(&quietWriter{l}, "", 0) }

type quietWriter struct{ log *slog.Logger }

var _ io.Writer = (*quietWriter)(nil)

func (w *quietWriter) Write(p []byte) (int, error) {
	kind := "other"
	for _, k := range []string{"http: TLS handshake error", "http: panic serving", "http: Accept error", "http: superfluous response.WriteHeader", "http: response.Write on hijacked connection"} {
		if strings.HasPrefix(string(p), k) {
			kind = strings.TrimPrefix(k, "http: ")
		}
	}
	w.log.Debug("the HTTP server reported an error", "kind", kind)
	return len(p), nil
}

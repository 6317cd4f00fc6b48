package proxy

import (
	"net/http"
	"net/textproto"
	"strings"
)

const (
	// maxHead bounds request line and headers together as they go upstream. Elasticsearch 8.19 answers a
	// head over 16 KB with 400 and then never again on that connection, which would hang whoever gets
	// the pooled connection next.
	maxHead = 14 << 10
	// maxLine is Elasticsearch's http.max_initial_line_length.
	maxLine = 4096

	ownPrefix   = "X-Esproxy-"
	grantHeader = "X-Esproxy-Authorization"
)

// hopFields are the fields of RFC 9110 section 7.6.1 and its older relatives, which end at each hop.
var hopFields = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization",
	"Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// removeHopFields removes what Connection names, and the fields that end at each hop.
func removeHopFields(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = textproto.TrimString(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hopFields {
		delete(h, name)
	}
}

// removeOwn removes the fields that are meant for this proxy, in any spelling, also in that of environment variables
// (X_ESPROXY_AUTHORIZATION): it may hold a token.
func removeOwn(h http.Header) {
	for name := range h {
		if len(name) >= len(ownPrefix) && strings.EqualFold(strings.ReplaceAll(name[:len(ownPrefix)], "_", "-"), ownPrefix) {
			delete(h, name)
		}
	}
}

// upstreamHeader is the head that goes to Elasticsearch for a request that came with h: a copy without
// fields of this hop and without our own. Content-Length and Transfer-Encoding are framing, which
// the connection to the node has its own of.
func upstreamHeader(h http.Header) http.Header {
	out := h.Clone()
	if out == nil {
		out = http.Header{}
	}
	removeHopFields(out)
	removeOwn(out)
	delete(out, "Content-Length")
	return out
}

// headSize is the size of request line and header in bytes, with what is added for host and framing and with the names
// that the field Trailer gets.
func headSize(method, target, host string, h, trailer http.Header) (line, total int) {
	line = len(method) + len(" ") + len(target) + len(" HTTP/1.1")
	total = line + 2 + len("Host: \r\n") + len(host) + len("Content-Length: 9223372036854775807\r\n\r\n")
	for name, values := range h {
		for _, v := range values {
			total += len(name) + len(v) + len(": \r\n")
		}
	}
	for name := range trailer {
		total += len(name) + len(", ")
	}
	if len(trailer) > 0 {
		total += len("Trailer: \r\n")
	}
	return line, total
}

// copyReplyHeader copies a reply's header to dst, without fields of the hop.
func copyReplyHeader(dst, src http.Header) {
	for name, values := range src {
		dst[name] = values
	}
	removeHopFields(dst)
}

// noDefaults keeps net/http's server from adding a Date and a guessed Content-Type.
func noDefaults(h http.Header) {
	if _, ok := h["Date"]; !ok {
		h["Date"] = nil
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil
	}
}

package proxy

import (
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
)

// Authority reads a host, an IPv6 address in brackets included, with a port, and gives them as "host:port". port stands in when
// text has none; "" then means that there must be one.
func Authority(text, port string) (string, bool) {
	host := text
	// A colon inside brackets is no separator.
	if i := strings.LastIndexByte(text, ':'); i > strings.LastIndexByte(text, ']') {
		host, port = text[:i], text[i+1:]
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || len(port) > 5 {
		return "", false
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		if a, err := netip.ParseAddr(inner); !ok || err != nil || !a.Is6() || a.Zone() != "" {
			return "", false
		}
		return host + ":" + port, true
	}
	if host == "" || len(host) > 253 {
		return "", false
	}
	for i := range len(host) {
		switch c := host[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '-', c == '_':
		default:
			return "", false
		}
	}
	return host + ":" + port, true
}

// authority is the address that the client used: its Host header (RFC 9110, section 7.2), whose missing port is the one of the
// scheme, or where it sent none the local end of its connection. It is "" when the header can't be read.
func authority(r *http.Request) string {
	host := r.Host
	if host == "" {
		if a, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr); ok {
			host = a.String()
		}
	}
	port := "80"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		port = "443"
	}
	address, _ := Authority(host, port)
	return address
}

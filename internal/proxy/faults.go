package proxy

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// Fault types of the hop. They are stable and listed in docs/errors.md.
const (
	typeBadGrant       = "esproxy_bad_grant"
	typeBadTarget      = "esproxy_bad_target"
	typeHeadTooLarge   = "esproxy_head_too_large"
	typeBadHeader      = "esproxy_bad_header"
	typeBadEncoding    = "esproxy_unsupported_encoding"
	typeBadBody        = "esproxy_bad_body"
	typeTooLarge       = "esproxy_too_large"
	typeSlowBody       = "esproxy_slow_body"
	typeBusy           = "esproxy_busy"
	typeUpstreamFailed = "esproxy_upstream_failed"
	typeNotReady       = "esproxy_not_ready"
	typeInternal       = "esproxy_internal"
)

func fault(status int, typ, reason string, cause error) *rewrite.Fault {
	return &rewrite.Fault{Status: status, Type: typ, Reason: reason, Cause: cause}
}

func faultTooLarge(reason string) *rewrite.Fault {
	return fault(http.StatusRequestEntityTooLarge, typeTooLarge, reason, nil)
}

func faultBusy() *rewrite.Fault {
	return fault(http.StatusTooManyRequests, typeBusy, "the memory for request bodies is in use; try again later", nil)
}

func faultBadBody(reason string, cause error) *rewrite.Fault {
	return fault(http.StatusBadRequest, typeBadBody, reason, cause)
}

func faultUpstream(reason string, cause error) *rewrite.Fault {
	return fault(http.StatusBadGateway, typeUpstreamFailed, reason, cause)
}

// asFault returns err itself when it is a fault, and else a fault with status and type that hides err.
func asFault(err error, status int, typ, reason string) *rewrite.Fault {
	var f *rewrite.Fault
	if errors.As(err, &f) {
		return f
	}
	return fault(status, typ, reason, err)
}

const (
	plainJSON  = "application/json"
	vendorJSON = "application/vnd.elasticsearch+json"
)

// replyType is the content type of replies that the proxy makes itself: the vendor type with the version
// that Accept asks for, as Elasticsearch's media type negotiation does, and plain JSON else.
func replyType(accept []string) string {
	for _, line := range accept {
		for part := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(part, ";")
			if !strings.EqualFold(strings.TrimSpace(name), vendorJSON) {
				continue
			}
			for param := range strings.SplitSeq(params, ";") {
				k, v, _ := strings.Cut(param, "=")
				v = strings.TrimSpace(v)
				if strings.EqualFold(strings.TrimSpace(k), "compatible-with") && len(v) == 1 && v[0] >= '0' && v[0] <= '9' {
					return vendorJSON + ";compatible-with=" + v
				}
			}
		}
	}
	return plainJSON
}

func bytesText(n int64) string { return strconv.FormatInt(n, 10) + " bytes" }

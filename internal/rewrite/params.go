package rewrite

import (
	"net/url"
	"strings"
	"unicode/utf8"
)

// param is one query parameter, decoded.
type param struct{ name, value string }

// parseQuery splits a query as Elasticsearch does (RestUtils.decodeQueryString): at & and ;, a plus sign is a
// space. A parameter given twice, or one that does not decode, is refused: readers differ on them.
func parseQuery(raw string) ([]param, *Fault) {
	var out []param
	for raw != "" {
		pair := raw
		if i := strings.IndexAny(raw, "&;"); i >= 0 {
			pair, raw = raw[:i], raw[i+1:]
		} else {
			raw = ""
		}
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		n, err1 := url.QueryUnescape(name)
		v, err2 := url.QueryUnescape(value)
		if err1 != nil || err2 != nil || !utf8.ValidString(n) || !utf8.ValidString(v) {
			return nil, badQueryFault()
		}
		for _, have := range out {
			if have.name == n {
				return nil, &Fault{Status: 400, Type: "esproxy_bad_request", Reason: "the query of the URL has one parameter twice; send each once"}
			}
		}
		out = append(out, param{n, v})
	}
	return out, nil
}

func lookParam(params []param, name string) (string, bool) {
	for _, p := range params {
		if p.name == name {
			return p.value, true
		}
	}
	return "", false
}

// keepParams returns the raw query without the parameters that drop names.
func keepParams(raw string, drop func(name string) bool) string {
	var kept []string
	for _, pair := range strings.FieldsFunc(raw, func(r rune) bool { return r == '&' || r == ';' }) {
		name, _, _ := strings.Cut(pair, "=")
		if n, err := url.QueryUnescape(name); err == nil && drop(n) {
			continue
		}
		kept = append(kept, pair)
	}
	return strings.Join(kept, "&")
}

func addParam(raw, name, value string) string {
	if raw != "" {
		raw += "&"
	}
	return raw + name + "=" + url.QueryEscape(value)
}

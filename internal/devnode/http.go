//go:build !nodevnode

package devnode

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// maxBody is http.max_content_length's default.
const maxBody = 100 << 20

// request is one HTTP request, taken apart as Elasticsearch does.
type request struct {
	method string
	path   string            // as it was sent
	segs   []string          // raw path segments
	params map[string]string // last one wins
	body   []byte
	now    int64
}

func (r *request) seg(i int) string { return decodeComponent(r.segs[i], false) }

func (r *request) param(name string) string { return r.params[name] }

func (r *request) has(name string) bool { _, ok := r.params[name]; return ok }

// flag reads a boolean parameter; present without a value means true.
func (r *request) flag(name string, def bool) (bool, *esError) {
	v, ok := r.params[name]
	switch {
	case !ok:
		return def, nil
	case v == "" || v == "true":
		return true, nil
	case v == "false":
		return false, nil
	}
	return false, illegalArg("Failed to parse value [%s] as only [true] or [false] are allowed.", v)
}

func (r *request) integer(name string, def int) (int, *esError) {
	v, ok := r.params[name]
	if !ok {
		return def, nil
	}
	i, err := strconv.Atoi(v)
	if err != nil {
		e := illegalArg("Failed to parse int parameter [%s] with value [%s]", name, v)
		e.cause = errf(400, "number_format_exception", "For input string: \"%s\"", v)
		return 0, e
	}
	return i, nil
}

// response is what a handler gives back.
type response struct {
	status   int
	body     *jv
	raw      []byte // instead of body
	ctype    string // of raw
	location string
	chunked  bool // HEAD replies of the real server that carry no length
}

func ok(body *jv) *response { return &response{status: 200, body: body} }

func okIf(found bool, body *jv) *response {
	if found {
		return ok(body)
	}
	return &response{status: 404, body: body}
}

func decodeComponent(s string, plus bool) string {
	if !strings.ContainsAny(s, "%+") {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '+' && plus:
			b.WriteByte(' ')
		case s[i] == '%' && i+2 < len(s):
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				b.WriteByte(s[i])
				continue
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// ServeHTTP answers one request. Request bodies may be gzipped; replies are
// gzipped when asked for. A panic is a bug and is left to the server.
func (n *Node) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	w.Header().Set("X-elastic-product", "Elasticsearch")
	r, resp := n.read(hr)
	ctype, terr := replyType(hr)
	if resp == nil && terr != nil {
		resp = errResponse(terr)
	}
	if resp == nil {
		var err *esError
		if resp, err = n.route(r); err != nil {
			resp = errResponse(err)
		}
	}
	n.write(w, hr, r, resp, ctype)
}

func errResponse(e *esError) *response { return &response{status: e.status, body: e.reply()} }

// read takes the request apart. A response means that it is already answered.
func (n *Node) read(hr *http.Request) (*request, *response) {
	raw := hr.URL.EscapedPath()
	r := &request{method: hr.Method, path: raw, params: map[string]string{}, now: n.now().UnixMilli()}
	r.segs = slices.DeleteFunc(strings.Split(raw, "/"), func(s string) bool { return s == "" })
	for _, kv := range strings.FieldsFunc(hr.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' }) {
		k, v, _ := strings.Cut(kv, "=")
		r.params[decodeComponent(k, true)] = decodeComponent(v, true)
	}
	var src io.Reader = hr.Body
	switch enc := strings.ToLower(hr.Header.Get("Content-Encoding")); enc {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(hr.Body)
		if errors.Is(err, io.EOF) {
			src = bytes.NewReader(nil)
		} else if err != nil {
			return r, errResponse(illegalArg("the request body is not gzip"))
		} else {
			src = z
		}
	default:
		return r, errResponse(unsupported("Content-Encoding [%s]", enc))
	}
	body, err := io.ReadAll(io.LimitReader(src, maxBody+1))
	if err != nil {
		return r, errResponse(illegalArg("the request body cannot be read"))
	}
	if len(body) > maxBody {
		return r, &response{status: 413, raw: []byte{}, ctype: "text/plain"}
	}
	r.body = body
	if len(body) > 0 {
		if resp := checkContentType(hr.Header.Get("Content-Type")); resp != nil {
			return r, resp
		}
	}
	return r, nil
}

// mediaType splits a header value, lower-cased.
func mediaType(h string) (string, map[string]string) {
	parts := strings.Split(strings.ToLower(h), ";")
	ps := map[string]string{}
	for _, p := range parts[1:] {
		k, v, _ := strings.Cut(strings.TrimSpace(p), "=")
		ps[k] = v
	}
	return strings.TrimSpace(parts[0]), ps
}

func checkContentType(h string) *response {
	t, _ := mediaType(h)
	switch t {
	case "application/json", "application/x-ndjson", "application/vnd.elasticsearch+json", "application/vnd.elasticsearch+x-ndjson", "application/*":
		return nil
	case "application/yaml", "application/cbor", "application/smile", "application/vnd.elasticsearch+yaml", "application/vnd.elasticsearch+cbor", "application/vnd.elasticsearch+smile":
		return errResponse(unsupported("request bodies of type [%s]", t))
	}
	return &response{status: 406, body: obj("error", "Content-Type header ["+h+"] is not supported", "status", 406)}
}

// replyType picks the reply's content type from Accept, as the real server
// mirrors it, and checks that compatible versions match.
func replyType(hr *http.Request) (string, *esError) {
	accept, ctype := hr.Header.Get("Accept"), hr.Header.Get("Content-Type")
	at, ap := mediaType(accept)
	_, cp := mediaType(ctype)
	vendor := strings.HasPrefix(at, "application/vnd.elasticsearch+")
	if v := ap["compatible-with"]; vendor && v != "" && v != "8" {
		return "application/json", unsupported("compatibility with version [%s]", v)
	}
	if v := cp["compatible-with"]; v != "" && v != "8" {
		return "application/json", unsupported("compatibility with version [%s]", v)
	}
	// A body and its reply must agree on the version (RestCompatibleVersionHelper).
	if hr.ContentLength != 0 && (ap["compatible-with"] != "") != (cp["compatible-with"] != "") {
		show := func(s string) string {
			if s == "" || s == "*/*" {
				return "null"
			}
			return s
		}
		e := errf(400, "media_type_header_exception", "Invalid media-type value on headers [Content-Type, Accept]")
		e.cause = errf(400, "status_exception", "A compatible version is required on both Content-Type and Accept headers if either one has requested a compatible version. Accept=%s, Content-Type=%s", show(accept), show(ctype))
		return "application/json", e
	}
	switch {
	case accept == "" || at == "*/*" || at == "application/*" || strings.Contains(accept, ","):
		return "application/json", nil
	case at == "application/json" || at == "application/x-ndjson":
		if c := ap["charset"]; c != "" {
			return at + ";charset=" + c, nil
		}
		return at, nil
	case at == "application/vnd.elasticsearch+json" || at == "application/vnd.elasticsearch+x-ndjson":
		if v := ap["compatible-with"]; v != "" {
			return at + ";compatible-with=" + v, nil
		}
		return at, nil
	case strings.HasPrefix(at, "text/"):
		return at, nil
	}
	return "application/json", unsupported("replies of type [%s]", at)
}

// write renders a response: filter_path, pretty, gzip, HEAD.
func (n *Node) write(w http.ResponseWriter, hr *http.Request, r *request, resp *response, ctype string) {
	b := resp.raw
	if resp.body != nil {
		v := resp.body
		pretty, perr := r.flag("pretty", false)
		if perr != nil {
			v, resp.status = perr.reply(), 400
		}
		if fp := r.param("filter_path"); fp != "" {
			v = filterPath(expand(v), strings.Split(fp, ","))
		}
		if pretty || resp.status == 200 && resp.ctype == "pretty" {
			b = append(appendPretty(nil, expand(v), 0), '\n')
		} else {
			b = appendValue(make([]byte, 0, 1024), v)
		}
		if strings.HasPrefix(ctype, "text/") {
			ctype = "application/json"
		}
	} else {
		ctype = resp.ctype
	}
	h := w.Header()
	h.Set("Content-Type", ctype)
	if resp.location != "" {
		h.Set("Location", resp.location)
	}
	if hr.Method == http.MethodHead {
		if !resp.chunked {
			h.Set("Content-Length", strconv.Itoa(len(b)))
		}
		w.WriteHeader(resp.status)
		return
	}
	if acceptsGzip(hr.Header.Get("Accept-Encoding")) && len(b) > 0 {
		var z bytes.Buffer
		zw := gzip.NewWriter(&z)
		_, err := zw.Write(b)
		if err = errors.Join(err, zw.Close()); err == nil {
			b = z.Bytes()
			h.Set("Content-Encoding", "gzip")
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(resp.status)
	// A client that went away is no concern of the node.
	_, _ = w.Write(b)
}

func acceptsGzip(h string) bool {
	for _, p := range strings.Split(strings.ToLower(h), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(p), ";")
		if strings.TrimSpace(name) == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0" {
			return true
		}
	}
	return false
}

// commonParams are accepted by every endpoint.
var commonParams = strings.Fields("pretty human error_trace filter_path format")

// allow checks the query string: names in do are implemented, names in skip
// change nothing here, names in no exist but are not implemented.
func (r *request) allow(do, skip, no string) *esError {
	known := append(append(commonParams[:len(commonParams):len(commonParams)], strings.Fields(do)...), strings.Fields(skip)...)
	refused := strings.Fields(no)
	var odd []string
	for _, k := range slices.Sorted(maps.Keys(r.params)) { // the same error for the same request
		if slices.Contains(known, k) {
			continue
		}
		if slices.Contains(refused, k) {
			return unsupported("the parameter [%s] here", k)
		}
		odd = append(odd, "["+k+"]")
	}
	if len(odd) > 0 {
		slices.Sort(odd)
		s := ""
		if len(odd) > 1 {
			s = "s"
		}
		return illegalArg("request [%s] contains unrecognized parameter%s: %s", r.path, s, strings.Join(odd, ", "))
	}
	if f := r.param("format"); f != "" && f != "json" && (len(r.segs) == 0 || r.segs[0] != "_cat" || f != "text") {
		return unsupported("the reply format [%s]", f)
	}
	return nil
}

// json parses the body as one JSON object.
func (r *request) json() (*jv, *esError) {
	v, jerr := parseJSON(r.body)
	if jerr != nil {
		return nil, syntaxError(jerr, r.param("include_source_on_error") != "false")
	}
	return v, nil
}

func bodyRequired() *esError { return errf(400, "parse_exception", "request body is required") }

// filterPath keeps or removes parts of a reply as filter_path does.
func filterPath(v *jv, filters []string) *jv {
	var in, ex [][]string
	for _, f := range filters {
		f = strings.TrimSpace(f)
		if f == "" {
			continue
		}
		if f[0] == '-' {
			ex = append(ex, strings.Split(f[1:], "."))
		} else {
			in = append(in, strings.Split(f, "."))
		}
	}
	if len(ex) > 0 {
		v = exclude(v, ex)
	}
	if len(in) > 0 {
		v = include(v, in)
	}
	if v == nil {
		return obj()
	}
	return v
}

// step gives the filters that remain below a member, and whether one of them
// ends there.
func step(filters [][]string, key string) (rest [][]string, done bool) {
	for _, f := range filters {
		if f[0] == "**" {
			rest = append(rest, f)
			if len(f) > 1 && wildcard(f[1], key) {
				if len(f) == 2 {
					return nil, true
				}
				rest = append(rest, f[2:])
			} else if len(f) == 1 {
				return nil, true
			}
			continue
		}
		if wildcard(f[0], key) {
			if len(f) == 1 {
				return nil, true
			}
			rest = append(rest, f[1:])
		}
	}
	return rest, false
}

// include keeps what a filter names; nil if nothing is left. Arrays are
// transparent.
func include(v *jv, filters [][]string) *jv {
	switch v.k {
	case kObj:
		o := &jv{k: kObj}
		for _, m := range v.mem {
			rest, done := step(filters, m.key)
			if done {
				o.mem = append(o.mem, m)
			} else if len(rest) > 0 {
				if c := include(m.v, rest); c != nil {
					o.mem = append(o.mem, member{key: m.key, v: c})
				}
			}
		}
		if len(o.mem) > 0 {
			return o
		}
	case kArr:
		o := &jv{k: kArr}
		for _, e := range v.arr {
			if c := include(e, filters); c != nil {
				o.arr = append(o.arr, c)
			}
		}
		if len(o.arr) > 0 {
			return o
		}
	}
	return nil
}

func exclude(v *jv, filters [][]string) *jv {
	switch v.k {
	case kObj:
		o := &jv{k: kObj}
		for _, m := range v.mem {
			rest, done := step(filters, m.key)
			if done {
				continue
			}
			if len(rest) > 0 {
				c := exclude(m.v, rest)
				if c == nil {
					continue
				}
				m = member{key: m.key, v: c}
			}
			o.mem = append(o.mem, m)
		}
		if len(o.mem) == 0 && len(v.mem) > 0 {
			return nil
		}
		return o
	case kArr:
		o := &jv{k: kArr}
		for _, e := range v.arr {
			if c := exclude(e, filters); c != nil {
				o.arr = append(o.arr, c)
			}
		}
		if len(o.arr) == 0 && len(v.arr) > 0 {
			return nil
		}
		return o
	}
	return v
}

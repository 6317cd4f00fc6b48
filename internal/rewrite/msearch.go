package rewrite

import (
	"bytes"
	"slices"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/policy"
)

// msearch carries a multi search: lines of headers and bodies in turn.
func (r *request) msearch() (Transform, error) {
	q := &query{whole: whole{eng: r.Engine, call: r.call}}
	if r.call.Viewer != nil {
		q.opening = r.opening(replyMsearch, "")
	}
	if len(r.Policy.Rules) > 0 {
		q.check = r.checkMsearch
	} else if q.opening == nil {
		return nil, nil
	}
	return q, nil
}

// checkMsearch looks for constants on protected fields in each body (MultiSearchRequest.readMultiLineFormat).
func (r *request) checkMsearch(body []byte) error {
	byIndex := make(map[string][]*policy.Rule)
	for n := 0; len(body) > 0; n++ {
		var header, search []byte
		header, body = cutLine(body)
		if len(body) == 0 {
			if blank(header) {
				return nil
			}
			return refuse(400, "esproxy_bad_request", "a multi search ends after a header; each header line is followed by a body line")
		}
		search, body = cutLine(body)
		index := r.value("index")
		if !blank(header) {
			if err := strictJSON(header); err != nil {
				return documentFault(err)
			}
			h := gjson.ParseBytes(header)
			var parts [][]byte // of both spellings: the last one counts for the server
			for _, name := range []string{"index", "indices"} {
				if v := h.Get(name); v.Exists() && v.Type != gjson.Null {
					some := false
					for _, one := range v.Array() {
						if name := one.String(); name != "" && one.Type != gjson.JSON {
							parts, some = append(parts, []byte(name)), true
						}
					}
					if !some {
						parts = append(parts, []byte("_all"))
					}
				}
			}
			if parts != nil {
				index = string(bytes.Join(parts, []byte(",")))
			}
		}
		rules, ok := byIndex[index]
		if !ok {
			in, err := r.reach(r.ctx, index)
			if err != nil {
				return err
			}
			rules = in.named
			if index == "" {
				rules = slices.Concat(r.Policy.Rules, shifted(r.Policy.Rules))
			}
			byIndex[index] = rules
		}
		if blank(search) || len(rules) == 0 && !namesElsewhere(search) {
			continue
		}
		search = bytes.TrimRight(search, "\r")
		var err error
		if r.verdict == verdictMsearchTemplate {
			_, err = r.templated(rules, search, "")
		} else {
			_, err = r.guardQuery(rules, search)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// cutLine cuts one line off a body.
func cutLine(body []byte) (line, rest []byte) {
	if i := bytes.IndexByte(body, '\n'); i >= 0 {
		return body[:i], body[i+1:]
	}
	return body, nil
}

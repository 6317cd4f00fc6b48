//go:build !nodevnode

package devnode

import (
	"bytes"
	"strings"
	"time"
)

// count serves _count.
func (n *Node) count(r *request) (*response, *esError) {
	if err := r.allow("q ignore_unavailable allow_no_indices index", "preference routing expand_wildcards ignore_throttled", "analyzer analyze_wildcard default_operator df lenient min_score terminate_after source source_content_type"); err != nil {
		return nil, err
	}
	s := newSpec()
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		p := &queryParser{src: r.body}
		if v.k != kObj {
			return nil, p.fail(v.off, "Expected [START_OBJECT] but found [%s]", v.startToken())
		}
		for _, m := range v.mem {
			if m.key != "query" {
				return nil, p.fail(m.off, "request does not support [%s]", m.key)
			}
			if s.q, err = p.parse(m.v); err != nil {
				return nil, err
			}
		}
	}
	if q, has := r.params["q"]; has {
		var err *esError
		if s.q, err = queryString(q); err != nil {
			return nil, err
		}
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	ixs, err := n.resolve(r.target(), o)
	if err != nil {
		return nil, err
	}
	vs, err := views(ixs)
	if err != nil {
		return nil, err
	}
	s.sort = []sortKey{{field: "_doc"}}
	f, err := n.run(vs, s, false)
	if err != nil {
		return nil, err
	}
	return ok(obj("count", f.total, "_shards", obj("total", len(vs), "successful", len(vs), "skipped", 0, "failed", 0))), nil
}

// msearch serves _msearch: pairs of a header line and a body line.
func (n *Node) msearch(r *request) (*response, *esError) {
	start := time.Now()
	if err := r.allow("index rest_total_hits_as_int ignore_unavailable allow_no_indices", searchSkip+" max_concurrent_searches", ""); err != nil {
		return nil, err
	}
	if len(r.body) == 0 {
		return nil, errf(400, "parse_exception", "request body or source parameter is required")
	}
	if r.body[len(r.body)-1] != '\n' {
		return nil, illegalArg("The msearch request must be terminated by a newline [\\n]")
	}
	def, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	type one struct {
		target string
		o      resolveOptions
		s      *searchSpec
	}
	var all []one
	lines := bytes.Split(r.body[:len(r.body)-1], []byte("\n"))
	for i := 0; i < len(lines); {
		x := one{target: r.target(), o: def, s: newSpec()}
		// An empty header line stands for {}; a leading empty line is skipped.
		if len(all) == 0 && i == 0 && len(lines[0]) == 0 {
			i++
			continue
		}
		if h := bytes.TrimSpace(lines[i]); len(h) > 0 {
			if err := msearchHeader(h, &x.target, &x.o); err != nil {
				return nil, err
			}
		}
		i++
		if i == len(lines) {
			break
		}
		v, jerr := parseJSON(lines[i])
		if jerr != nil {
			return nil, syntaxError(jerr, true)
		}
		if err := parseSearch(v, lines[i], x.s); err != nil {
			return nil, err
		}
		i++
		if r.param("rest_total_hits_as_int") == "true" {
			x.s.totalAsInt, x.s.track = true, -1
		}
		all = append(all, x)
	}
	if len(all) == 0 {
		return nil, validation("no requests added")
	}
	list := []*jv{}
	for _, x := range all {
		b, err := n.searchNow(x.target, x.s, x.o, time.Now())
		if err != nil {
			if err.status == 501 {
				return nil, err
			}
			list = append(list, err.reply())
			continue
		}
		b.put("status", 200)
		list = append(list, b)
	}
	return ok(obj("took", time.Since(start).Milliseconds(), "responses", list)), nil
}

func msearchHeader(line []byte, target *string, o *resolveOptions) *esError {
	v, jerr := parseJSON(line)
	if jerr != nil {
		return syntaxError(jerr, true)
	}
	for _, m := range v.mem {
		switch m.key {
		case "index", "indices":
			if m.v.k == kArr {
				var names []string
				for _, e := range m.v.arr {
					names = append(names, e.textOr(""))
				}
				*target = strings.Join(names, ",")
			} else {
				*target = m.v.textOr("")
			}
		case "ignore_unavailable":
			o.ignoreUnavailable = m.v.text() == "true"
		case "allow_no_indices":
			o.forbidNone = m.v.text() == "false"
		case "search_type", "preference", "routing", "request_cache", "expand_wildcards", "ccs_minimize_roundtrips", "allow_partial_search_results":
		default:
			return illegalArg("key [%s] is not supported in the metadata section", m.key)
		}
	}
	return nil
}

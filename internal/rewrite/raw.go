package rewrite

import (
	"bytes"
	"strings"
	"unicode/utf8"
)

// samples carries raw text that Elasticsearch looks at for its structure: lines of a file, messages, a pattern with a text. It may
// be anything, CSV with the names in its first line too, so it passes only when it names no protected field.
func (r *request) samples() (Transform, error) {
	if !r.call.HasBody || len(r.Policy.Rules) == 0 {
		return nil, nil
	}
	return r.controlled(func(body []byte) ([]byte, error) {
		// The server guesses the encoding of such text.
		if !utf8.Valid(body) || bytes.IndexByte(body, 0) >= 0 {
			return nil, refuse(415, "esproxy_content_type", "text is read as UTF-8 only; send it so")
		}
		text := unescapedUnits(body)
		for _, rule := range r.Policy.Rules {
			for _, f := range rule.Fields {
				if hasWord(text, f.Path) || hasWord(text, f.Parts[len(f.Parts)-1]) {
					return nil, guardFault(f, "the text")
				}
			}
		}
		return body, nil
	})
}

// unescapedUnits gives text with its \uXXXX replaced, wherever they stand.
func unescapedUnits(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u`)) {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+6 <= len(text) && text[i+1] == 'u' {
			if c, err := hex4(text, i+2); err == nil {
				out = utf8.AppendRune(out, rune(c))
				i += 5
				continue
			}
		}
		out = append(out, text[i])
	}
	return out
}

// hasWord reports whether name stands in text as a word of its own.
func hasWord(text []byte, name string) bool {
	for from := 0; ; {
		i := bytes.Index(text[from:], []byte(name))
		if i < 0 {
			return false
		}
		i += from
		end := i + len(name)
		if (i == 0 || !wordByte(text[i-1])) && (end == len(text) || !wordByte(text[end])) {
			return true
		}
		from = i + 1
	}
}

// documents carries documents for a job that is under no index: concatenated JSON objects (RestPostDataAction). They pass
// when none of them holds a protected field.
func (r *request) documents() (Transform, error) {
	if !r.call.HasBody || len(r.Policy.Rules) == 0 {
		return nil, nil
	}
	return r.controlled(func(body []byte) ([]byte, error) {
		g := newGuard(r.Policy.Rules, body)
		return body, strictTrees(body, func(v *treeValue) error {
			if f := g.documentNames(v, ""); f != nil {
				return guardFault(f, "a document")
			}
			return nil
		})
	})
}

// strictTrees reads values that stand one after the other, with or without white space between them.
func strictTrees(b []byte, each func(*treeValue) error) error {
	s := strictPool.Get().(*strictScanner)
	defer s.release()
	s.b = b
	pos, err := s.begin()
	for err == nil && pos < len(b) {
		var v treeValue
		if v, err = s.tree(pos, 1); err != nil {
			break
		}
		if err := each(&v); err != nil {
			return err
		}
		s.count = 0 // the limit is one for each document
		pos = skipSpace(b, v.end)
	}
	if err != nil {
		return badBodyFault(s.finish(pos, err))
	}
	return nil
}

// streamsOf are the data streams that the binary protocols write to, by their names as Elasticsearch makes them.
var streamsOf = map[string][]string{
	"/_otlp/v1/logs":    {"logs-*"},
	"/_otlp/v1/metrics": {"metrics-*"},
	"/_otlp/v1/traces":  {"traces-*"},
}

// binary carries documents in a binary form (protobuf), which is not sealed: it passes where no rule can name what it
// is written to.
func (r *request) binary() (Transform, error) {
	targets, ok := streamsOf[r.template]
	if !ok {
		targets = []string{"metrics-*"} // Prometheus
	}
	for _, t := range targets {
		if r.Policy.CouldMatch(t) {
			return nil, r.refused()
		}
	}
	if len(r.Policy.Rules) > 0 && r.call.HasBody {
		for _, kind := range r.call.ContentType {
			if !strings.EqualFold(strings.TrimSpace(kind), "application/x-protobuf") {
				return nil, refuse(406, "esproxy_content_type", "this endpoint takes application/x-protobuf")
			}
		}
		if len(r.call.ContentType) != 1 {
			return nil, refuse(406, "esproxy_content_type", "this endpoint takes application/x-protobuf")
		}
	}
	return nil, nil
}

// promQL guards the parameters of queries over metrics, which name labels and their values.
func (r *request) promQL() (Transform, error) {
	rules := r.Policy.Rules
	if index, ok := r.values["index"]; ok {
		in, err := r.reach(r.ctx, index)
		if err != nil {
			return nil, err
		}
		rules = in.rules
	}
	if len(rules) > 0 && r.call.HasBody {
		return nil, refuse(400, "esproxy_bad_request", "this endpoint takes its query in the URL; send the request without a body")
	}
	for _, p := range r.params {
		for _, rule := range rules {
			for _, f := range rule.Fields {
				if hasWord([]byte(p.value), f.Path) {
					return nil, guardFault(f, "the query")
				}
			}
		}
	}
	return nil, nil
}

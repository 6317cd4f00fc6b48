package rewrite

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/esproxy/esproxy/internal/policy"
)

// Ingest pipelines run after the proxy has sealed a document. One that writes plain text to a protected path, changes a sealed
// value, changes the subject or sends the document to another index undoes the sealing, so its body is refused.
//
// What remains, and stands in docs/design.md: pipelines that are already there, stored scripts, and scripts that
// build a name while they run.

// inPlace are processors that write to their "field" when they have no target_field
// (org.elasticsearch.ingest.common).
var inPlace = map[string]bool{
	"append": true, "bytes": true, "circle": true, "convert": true, "gsub": true, "html_strip": true, "join": true, "json": true,
	"lowercase": true, "remove": true, "rename": true, "set": true, "sort": true, "split": true, "trim": true, "uppercase": true,
	"urldecode": true, "set_security_user": true, "redact": true, "terminate": true, "foreach": true,
}

// pipeline reads {"processors": […], "on_failure": […]}.
func (c *controlPass) pipeline(root *treeValue) error {
	if err := c.processors(root.member("processors"), ""); err != nil {
		return err
	}
	return c.processors(root.member("on_failure"), "")
}

// PipelineFault tells why a stored pipeline (its body as GET _ingest/pipeline shows it) could undo the sealing under the rules, nil if it
// could not or is no object.
func PipelineFault(rules []*policy.Rule, body []byte) *Fault {
	root, err := strictTree(body)
	if err != nil || !root.isObject() {
		return nil
	}
	if err := (&controlPass{guard: newGuard(rules, body)}).pipeline(&root); err != nil {
		return asFault(err)
	}
	return nil
}

func pipelineFault(kind, what string) error {
	return &Fault{Status: 400, Type: "esproxy_pipeline_refused", Reason: "a processor [" + kind + "] of the pipeline " + what}
}

func pipelineFieldFault(kind string, f *policy.Field) error {
	return pipelineFault(kind, "names ["+f.Path+"], which rule ["+f.Rule.Name+"] protects: pipelines see sealed values there and must not write to it; leave the field out of the pipeline")
}

// processors reads a list of {"type": {options}}. each is the path that _ingest._value stands for in a foreach.
func (c *controlPass) processors(v *treeValue, each string) error {
	if v == nil {
		return nil
	}
	return c.each(v, func(p *treeValue) error {
		for i := range p.kids {
			if err := c.processor(&p.kids[i], each); err != nil {
				return err
			}
		}
		return nil
	})
}

func (c *controlPass) processor(p *treeValue, each string) error {
	kind := string(p.name)
	shown := kind
	if !processorName().MatchString(kind) {
		shown = "unknown" // the client's text is not repeated
	}
	switch kind {
	case "reroute", "date_index_name":
		return pipelineFault(shown, "sends documents to another index, where other rules may apply; let the client name the index")
	case "script":
		if err := c.pipelineScript(p); err != nil {
			return err
		}
	case "foreach":
		inner := each
		if field := p.member("field"); field != nil {
			inner = pipelinePath(string(c.text(field)), each)
			if f := c.named([]byte(inner), atOrBelow); f != nil {
				return pipelineFieldFault(shown, f)
			}
		}
		if err := c.processors(p.member("processor"), inner); err != nil {
			return err
		}
	case "json":
		if v := p.member("add_to_root"); v != nil && !isFalse(c, v) {
			return pipelineFault(shown, "adds whatever a text holds to the root of the document (add_to_root), so also plain values of protected fields; give it a target_field")
		}
	case "kv":
		if err := c.keyValue(p, each); err != nil {
			return err
		}
	case "grok", "dissect":
		if err := c.captures(p, shown, each); err != nil {
			return err
		}
	case "dot_expander": // moves a value between two spellings of one path
		return c.processors(p.member("on_failure"), each)
	}
	// A condition compares plain values with sealed ones.
	if err := c.script(p.member("if"), nil); err != nil {
		return err
	}
	if err := c.processors(p.member("on_failure"), each); err != nil {
		return err
	}
	for i := range p.kids {
		m := &p.kids[i]
		switch name := string(m.name); {
		case name == "processor" || name == "on_failure" || name == "if" || name == "tag" || name == "description" || name == "source":
		case kind == "foreach" && name == "field", kind == "fingerprint" && name == "fields":
		case kind == "remove" && name == "keep":
		case kind == "kv" && (name == "field_split" || name == "include_keys" || name == "exclude_keys"):
		case namesPaths(name):
			writes := strings.Contains(name, "target") || strings.Contains(name, "output") ||
				name != "copy_from" && (inPlace[kind] && p.member("target_field") == nil || kind == "rename")
			if err := c.pipelinePaths(m, shown, each, writes); err != nil {
				return err
			}
		}
	}
	return nil
}

var processorName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[a-z][a-z0-9_]{0,40}$`)
})

// namesPaths reports whether an option of a processor holds names of fields. All processors of the server and its
// modules call them so.
func namesPaths(option string) bool {
	for _, word := range [...]string{"field", "target", "copy_from", "input", "output", "path", "property", "params"} {
		if strings.Contains(option, word) {
			return true
		}
	}
	return false
}

// pipelineName judges one name of a field.
func (c *controlPass) pipelineName(name, kind, each string, writes bool) error {
	if strings.Contains(name, "{{") {
		return pipelineFault(kind, "takes the name of a field from the document ({{…}}), so it may name a protected one; write the name itself")
	}
	path := pipelinePath(name, each)
	if path == "_index" {
		return pipelineFault(kind, "sets [_index] and so sends documents to another index, where other rules may apply; let the client name the index")
	}
	if f := c.named([]byte(path), andAbove); f != nil {
		return pipelineFieldFault(kind, f)
	}
	if !writes {
		return nil
	}
	for _, r := range c.rules {
		if r.Subject != "" && (atOrUnder([]byte(path), r.Subject) || above([]byte(path), r.Subject)) {
			return pipelineFault(kind, "writes to ["+r.Subject+"], the subject of rule ["+r.Name+"], so values sealed for it would no longer open; leave the field out of the pipeline")
		}
	}
	return nil
}

// pipelinePaths reads names of fields: a string, a list, or objects of them ({"field_map": {"from": "to"}}).
func (c *controlPass) pipelinePaths(v *treeValue, kind, each string, writes bool) error {
	switch {
	case v.isString():
		return c.pipelineName(string(c.text(v)), kind, each, writes)
	case v.isObject(), v.isArray():
		for i := range v.kids {
			m := &v.kids[i]
			if m.name != nil {
				if err := c.pipelineName(string(m.name), kind, each, writes); err != nil {
					return err
				}
			}
			if err := c.pipelinePaths(m, kind, each, writes); err != nil {
				return err
			}
		}
	}
	return nil
}

// pipelinePath gives the canonical path for a name in a pipeline: without the prefix for the document, with the path
// that a foreach is at, and without places in lists (org.elasticsearch.ingest.IngestDocument.FieldPath).
func pipelinePath(name, each string) string {
	name = strings.TrimPrefix(strings.TrimPrefix(name, "_source."), "ctx.")
	if rest, ok := strings.CutPrefix(name, "_ingest._value"); ok && each != "" {
		name = each + rest
	}
	var parts []string
	for part := range strings.SplitSeq(name, ".") {
		if part != "" && strings.Trim(part, "0123456789") != "" {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ".")
}

// keyValue reads a kv processor, whose keys become names of fields.
func (c *controlPass) keyValue(p *treeValue, each string) error {
	base := ""
	if t := p.member("target_field"); t != nil {
		base = pipelinePath(string(c.text(t)), each) + "."
	}
	if t := p.member("prefix"); t != nil {
		base += string(c.text(t))
	}
	keys := c.texts(p.member("include_keys"))
	dynamic := pipelineFault("kv", "makes names of fields from a text, so also those of protected fields; give it a target_field, or include_keys without them")
	if len(keys) == 0 {
		for _, f := range c.fields {
			if strings.HasPrefix(f.Path, base) || strings.HasPrefix(base, f.Path+".") {
				return dynamic
			}
		}
		if base == "" {
			return dynamic
		}
		return nil
	}
	for _, key := range keys {
		if f := c.named([]byte(base+key), andAbove); f != nil {
			return pipelineFieldFault("kv", f)
		}
		if base+key == "_index" {
			return dynamic
		}
	}
	return nil
}

var (
	grokCapture    = regexp.MustCompile(`%\{[^{}:]*:([^{}:]+)(?::[^{}]*)?\}|\(\?<([^<>]+)>`)
	dissectCapture = regexp.MustCompile(`%\{([^{}]*)\}`)
)

// captures reads the names that patterns of grok and dissect give to what they find.
func (c *controlPass) captures(p *treeValue, kind, each string) error {
	var texts []string
	for _, name := range [...]string{"pattern", "patterns"} {
		if v := p.member(name); v != nil {
			if v.isArray() {
				for i := range v.kids {
					texts = append(texts, string(c.text(&v.kids[i])))
				}
			} else {
				texts = append(texts, string(c.text(v)))
			}
		}
	}
	for i := range orNull(p.member("pattern_definitions")).kids {
		texts = append(texts, string(c.text(&p.member("pattern_definitions").kids[i])))
	}
	for _, text := range texts {
		var names []string
		if kind == "grok" {
			for _, m := range grokCapture.FindAllStringSubmatch(text, -1) {
				names = append(names, m[1]+m[2])
			}
		} else {
			for _, m := range dissectCapture.FindAllStringSubmatch(text, -1) {
				if strings.HasPrefix(m[1], "?") {
					continue
				}
				if strings.HasPrefix(m[1], "*") {
					return pipelineFault(kind, "takes the name of a field from the document (%{*…}), so it may name a protected one; write the name itself")
				}
				name, _, _ := strings.Cut(strings.Trim(m[1], "+&->"), "/")
				names = append(names, name)
			}
		}
		for _, name := range names {
			if err := c.pipelineName(name, kind, each, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// pipelineScript reads a script processor. It is refused when it names a protected path or the last part of
// one, or _index, or reaches into the document by a name that is built while it runs.
func (c *controlPass) pipelineScript(p *treeValue) error {
	if v := p.member("params"); v != nil {
		if err := c.pipelinePaths(v, "script", "", false); err != nil {
			return err
		}
	}
	var text []byte
	if source := scriptSource(p); source != nil {
		text = c.text(source)
	} else if id := p.member("id"); id.isScalar() && c.scripts != nil {
		script, err := c.scripts(string(c.text(id)))
		if err != nil {
			return err
		}
		if script == nil {
			return pipelineFault("script", "names a stored script that is not there, so it cannot be checked; store it first")
		}
		text = script.source
	} else {
		return nil
	}
	words := lexScript(text)
	metadata := slices.ContainsFunc(words, func(w scriptWord) bool { return w.text == "metadata" && w.kind == 'a' && !w.member })
	for _, w := range words {
		if w.text == "_index" || metadata && w.member && (w.text == "index" || w.text == "setIndex") { // metadata().index is ctx._index
			return pipelineFault("script", "names [_index] and may send documents to another index, where other rules may apply; leave it out")
		}
		if w.kind == '0' {
			continue
		}
		for _, f := range c.fields {
			if w.text == f.Parts[len(f.Parts)-1] && (w.member || w.kind == '"') || w.kind == '"' && atOrUnder([]byte(w.text), f.Path) {
				return pipelineFieldFault("script", f)
			}
		}
	}
	for _, f := range c.fields {
		if mentions(words, f) {
			return pipelineFieldFault("script", f)
		}
	}
	if dynamicAccess().Match(text) {
		return pipelineFault("script", "reaches into the document by a name that is built while it runs; write the name itself")
	}
	return nil
}

// dynamicAccess finds ctx[…] with anything but one string, and writes by a name that is no string.
var dynamicAccess = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\bctx(?:\._source)?\s*(?:\??\[\s*[^'"\s]|\??\[\s*(?:'[^'\\]*'|"[^"\\]*")\s*[^\]\s]|\??\.\s*(?:put|putIfAbsent)\s*\(\s*[^'"\s]|\??\.\s*putAll\b)`)
})

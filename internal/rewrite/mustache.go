package rewrite

import (
	"bytes"
	"errors"
	"strings"
)

// Search templates are mustache with the additions of Elasticsearch. What a template becomes is known only after its
// parameters are filled in, names of fields too, so the proxy fills them in as the server will and judges the result. This is the part of the
// language that is read in one way only (com.github.mustachejava.MustacheParser and
// org.elasticsearch.script.mustache.CustomMustacheFactory); everything else is an error here.

// mustacheKind says what a part of a template does.
type mustacheKind byte

const (
	mustacheText     mustacheKind = iota // stands for itself
	mustacheNothing                      // {{! a comment}}
	mustacheValue                        // {{name}}
	mustacheRaw                          // {{{name}}} and {{&name}}: not escaped
	mustacheSection                      // {{#name}}…{{/name}}
	mustacheInverted                     // {{^name}}…{{/name}}
	mustacheToJSON                       // {{#toJson}}name{{/toJson}}
	mustacheJoin                         // {{#join}}name{{/join}}, {{#join delimiter='…'}}name{{/join delimiter='…'}}
	mustacheURL                          // {{#url}}…{{/url}}
)

// mustachePart is one part of a parsed template.
type mustachePart struct {
	kind mustacheKind
	text string // the text, or a name
	join string // the delimiter of mustacheJoin
	kids []mustachePart
}

const (
	maxTemplateParts = 20_000 // of one template
	maxTemplateDepth = 100    // of sections in sections
)

// errTemplate is why a template or its rendering is refused. It holds no text of the client's.
type errTemplate struct{ what string }

func (e *errTemplate) Error() string { return e.what }

func badTemplate(what string) error { return &errTemplate{what} }

// parseMustache reads a template.
func parseMustache(source []byte) ([]mustachePart, error) {
	p := &mustacheParser{b: source}
	return p.section("", true, "{{", "}}", true, 0)
}

// mustacheParser is the state of one pass over a template. Delimiters and line breaks are ASCII, so bytes are as good as the
// characters that the server reads.
type mustacheParser struct {
	b           []byte
	pos         int
	line, count int
}

func (p *mustacheParser) at(i int) byte {
	if i < len(p.b) {
		return p.b[i]
	}
	return 0
}

// mustacheWriter collects the parts of one section.
type mustacheWriter struct {
	parts []mustachePart
	out   []byte
}

func (w *mustacheWriter) flush() {
	if len(w.out) == 0 {
		return
	}
	if n := len(w.parts); n > 0 && w.parts[n-1].kind == mustacheText {
		w.parts[n-1].text += string(w.out)
	} else {
		w.parts = append(w.parts, mustachePart{kind: mustacheText, text: string(w.out)})
	}
	w.out = w.out[:0]
}

// section reads up to the closing tag of a section, or to the end. The handling of line breaks is the server's to the
// letter: a line that holds nothing but tags of sections leaves no line behind.
func (p *mustacheParser) section(tag string, root bool, open, shut string, lineStart bool, depth int) ([]mustachePart, error) {
	if depth > maxTemplateDepth {
		return nil, badTemplate("its sections are nested too deep")
	}
	var w mustacheWriter
	carriage, onlySpace, iterable := false, true, !root
	for p.pos < len(p.b) {
		c := p.b[p.pos]
		p.pos++
		if c == '\r' { // kept only before a line feed
			carriage = true
			continue
		}
		if c == '\n' {
			p.line++
			if !iterable || !onlySpace {
				if carriage {
					w.out = append(w.out, '\r')
				}
				w.out = append(w.out, '\n')
			}
			w.flush()
			iterable, onlySpace, lineStart = false, true, true
			continue
		}
		carriage = false
		if c != open[0] || p.at(p.pos) != open[1] {
			onlySpace = onlySpace && (c == ' ' || c == '\t')
			w.out = append(w.out, c)
			continue
		}
		p.pos++
		command, err := p.command(shut)
		if err != nil {
			return nil, err
		}
		if p.count++; p.count > maxTemplateParts {
			return nil, badTemplate("it has too many tags")
		}
		name := javaTrim(command[1:])
		switch command[0] {
		case '#', '^':
			line := p.line
			lineStart = lineStart && onlySpace
			kids, err := p.section(name, false, open, shut, lineStart, depth+1)
			if err != nil {
				return nil, err
			}
			if !onlySpace || p.line == line {
				w.flush()
			}
			w.out = w.out[:0]
			part, err := newSection(command[0], name, kids)
			if err != nil {
				return nil, err
			}
			w.parts = append(w.parts, part)
			iterable = p.line != line
		case '/':
			if !lineStart || !onlySpace {
				w.flush()
			}
			if root || name != tag {
				return nil, badTemplate("a closing tag has no opening tag of the same name before it")
			}
			return w.parts, nil
		case '{':
			w.flush()
			if shut != "}}" || p.at(p.pos) != '}' {
				return nil, badTemplate("a tag of three braces is not closed by three braces")
			}
			p.pos++
			if err := w.value(mustacheRaw, name); err != nil {
				return nil, err
			}
		case '&':
			w.flush()
			if err := w.value(mustacheRaw, name); err != nil {
				return nil, err
			}
		case '!':
			w.flush()
			w.parts = append(w.parts, mustachePart{kind: mustacheNothing})
		case '=':
			w.flush()
			two := strings.Fields(name)
			if len(two) != 2 || !plainDelimiter(two[0]) || !plainDelimiter(two[1]) {
				return nil, badTemplate("it sets delimiters that are not two characters of punctuation each")
			}
			open, shut = two[0], two[1]
		case '>', '<', '$', '?', '%', '*':
			return nil, badTemplate("it has a tag {{" + command[:1] + "…}} (partials, inheritance and pragmas are not read)")
		default:
			w.flush()
			if err := w.value(mustacheValue, javaTrim(command)); err != nil {
				return nil, err
			}
		}
		lineStart = false
	}
	w.flush()
	if !root {
		return nil, badTemplate("a section is not closed")
	}
	return w.parts, nil
}

// command reads the text of a tag up to the delimiter that ends it. In one that sets delimiters the text up to the
// second = is taken as it is.
func (p *mustacheParser) command(shut string) (string, error) {
	var text []byte
	setting := p.at(p.pos) == '='
	if setting {
		text = append(text, '=')
		p.pos++
	}
	for p.pos < len(p.b) {
		c := p.b[p.pos]
		p.pos++
		switch {
		case setting && c == '=':
			setting = false
		case !setting && c == shut[0] && p.at(p.pos) == shut[1]:
			p.pos++
			if len(text) == 0 {
				return "", badTemplate("a tag is empty")
			}
			return string(text), nil
		default:
			text = append(text, c)
		}
	}
	return "", badTemplate("a tag is not closed")
}

func (w *mustacheWriter) value(kind mustacheKind, name string) error {
	if strings.HasPrefix(name, "*") {
		return badTemplate("it has a tag whose name is taken from a parameter")
	}
	w.parts = append(w.parts, mustachePart{kind: kind, text: name})
	return nil
}

// newSection makes the part for a section. Some names are functions, in any case of letters.
func newSection(sign byte, name string, kids []mustachePart) (mustachePart, error) {
	if strings.HasPrefix(name, "*") {
		return mustachePart{}, badTemplate("it has a section whose name is taken from a parameter")
	}
	part := mustachePart{kind: mustacheSection, text: name, kids: kids}
	if sign == '^' {
		part.kind = mustacheInverted
		return part, nil
	}
	delimiter, custom := "", false
	if rest, ok := strings.CutPrefix(name, "join delimiter='"); ok {
		delimiter, custom = strings.CutSuffix(rest, "'")
		custom = custom && !strings.ContainsAny(delimiter, "\r\n\u0085\u2028\u2029")
	}
	switch {
	case strings.EqualFold(name, "toJson"):
		part.kind = mustacheToJSON
	case strings.EqualFold(name, "join"):
		part.kind, part.join = mustacheJoin, ","
	case custom:
		part.kind, part.join = mustacheJoin, delimiter
	case strings.EqualFold(name, "url"):
		part.kind = mustacheURL
		return part, nil
	default:
		return part, nil
	}
	if len(kids) != 1 || kids[0].kind != mustacheText || strings.HasPrefix(kids[0].text, "*") {
		return part, badTemplate("the function [" + strings.ToLower(strings.Fields(name)[0]) + "] holds something other than the name of one parameter")
	}
	part.text, part.kids = kids[0].text, nil
	return part, nil
}

// plainDelimiter reports whether s can be a delimiter here.
func plainDelimiter(s string) bool {
	if len(s) != 2 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7F || c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '=' {
			return false
		}
	}
	return true
}

// javaTrim cuts what Java's String.trim cuts.
func javaTrim(s string) string {
	return strings.TrimFunc(s, func(r rune) bool { return r <= ' ' })
}

// mustacheRender is one rendering.
type mustacheRender struct {
	out   []byte
	plain bool // no escaping
	steps int
}

const (
	maxRendered    = 4 << 20 // bytes of a rendered template
	maxRenderSteps = 1 << 18 // parts carried out
)

// renderMustache fills params, an object, into a template. plain says that values are not escaped for JSON.
func renderMustache(parts []mustachePart, params map[string]any, plain bool) ([]byte, error) {
	r := &mustacheRender{plain: plain}
	if err := r.run(parts, []any{params}); err != nil {
		return nil, err
	}
	return r.out, nil
}

func (r *mustacheRender) run(parts []mustachePart, scopes []any) error {
	for i := range parts {
		if r.steps++; r.steps > maxRenderSteps || len(r.out) > maxRendered {
			return badTemplate("it becomes too large with these parameters")
		}
		if err := r.part(&parts[i], scopes); err != nil {
			return err
		}
	}
	return nil
}

func (r *mustacheRender) part(p *mustachePart, scopes []any) error {
	switch p.kind {
	case mustacheNothing:
		return nil
	case mustacheText:
		r.out = append(r.out, p.text...)
		return nil
	case mustacheURL:
		from := len(r.out)
		if err := r.run(p.kids, scopes); err != nil {
			return err
		}
		text := string(r.out[from:])
		r.out = appendFormEncoded(r.out[:from], text)
		return nil
	}
	v, err := lookUpParam(p.text, scopes)
	if err != nil {
		return err
	}
	switch p.kind {
	case mustacheValue, mustacheRaw:
		text, err := paramText(v)
		if err != nil {
			return err
		}
		if p.kind == mustacheRaw || r.plain {
			r.out = append(r.out, text...)
		} else {
			r.out = appendJSONEscaped(r.out, text)
		}
	case mustacheSection:
		return r.section(p, v, scopes)
	case mustacheInverted:
		if falsey(v) {
			return r.run(p.kids, scopes)
		}
	case mustacheToJSON:
		return r.toJSON(v)
	case mustacheJoin:
		list, ok := v.([]any)
		if !ok { // the server then writes the name itself
			r.out = append(r.out, p.text...)
			return nil
		}
		for i, one := range list {
			if one == nil {
				return badTemplate("it joins a list that holds null")
			}
			text, err := paramText(one)
			if err != nil {
				return err
			}
			if i > 0 {
				r.out = append(r.out, p.join...)
			}
			r.out = append(r.out, text...)
		}
	}
	return nil
}

func (r *mustacheRender) section(p *mustachePart, v any, scopes []any) error {
	if list, ok := v.([]any); ok {
		for _, one := range list {
			inner := scopes
			if one != nil {
				inner = append(scopes[:len(scopes):len(scopes)], one)
			}
			if err := r.run(p.kids, inner); err != nil {
				return err
			}
		}
		return nil
	}
	if falsey(v) {
		return nil
	}
	return r.run(p.kids, append(scopes[:len(scopes):len(scopes)], v))
}

func (r *mustacheRender) toJSON(v any) error {
	switch v.(type) {
	case map[string]any: // between quotes the order of its members would matter, which the server does not keep
		if bytes.HasSuffix(bytes.TrimRight(r.out, " \t\r\n"), []byte{'"'}) {
			return badTemplate("it has the function [toJson] of an object right after a quotation mark")
		}
	case []any:
	default:
		text, err := paramText(v)
		r.out = append(r.out, text...)
		return err
	}
	out, err := appendParamJSON(r.out, v)
	r.out = out
	return err
}

// templateFault is the refusal of a template that cannot be read.
func templateFault(err error) error {
	var bad *errTemplate
	if !errors.As(err, &bad) {
		return err
	}
	return &Fault{Status: 400, Type: "esproxy_template_refused", Reason: "where values are protected, a template is filled in by the proxy first to see what it becomes, and this one cannot be: " + bad.what +
		"; change the template, or send the search itself"}
}

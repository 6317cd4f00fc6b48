package rewrite

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/policy"
)

// luceneText gives the first protected field that a text in Lucene's query syntax names before a colon, or nil.
// "_exists_:field" and "field:*" pass. It does not follow quotes and regular expressions: what looks like
// a field name in them counts too, so that no odd quote can hide one
// (org.apache.lucene.queryparser.classic.QueryParser, discardEscapeChar).
func (g *guard) luceneText(text []byte) *policy.Field {
	if bytes.IndexByte(text, ':') < 0 {
		return nil
	}
	var word, last []byte // the word that is being read, and the one before the white space
	for i := 0; i < len(text); {
		c := text[i]
		switch {
		case c == '\\' && i+1 < len(text):
			if text[i+1] == 'u' && i+6 <= len(text) {
				if r, err := hex4(text, i+2); err == nil {
					word = utf8.AppendRune(word, rune(r))
					i += 6
					continue
				}
			}
			_, n := utf8.DecodeRune(text[i+1:])
			word = append(word, text[i+1:i+1+n]...)
			i += 1 + n
		case c == ':':
			if len(word) == 0 {
				word = last
			}
			if f := g.luceneName(word); f != nil && !onlyStar(text[i+1:]) {
				return f
			}
			word, last = nil, nil
			i++
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || strings.HasPrefix(string(text[i:min(i+3, len(text))]), "\u3000"):
			if len(word) > 0 {
				last, word = word, nil
			}
			i++
			if c == 0xE3 {
				i += 2
			}
		case strings.IndexByte(`!()^[]"{}~/`, c) >= 0, len(word) == 0 && (c == '+' || c == '-'):
			word, last = nil, nil
			i++
		default:
			word = append(word, c)
			i++
		}
	}
	return nil
}

// luceneName looks a word before a colon up, and what follows an operator in it ("a&&card").
func (g *guard) luceneName(word []byte) *policy.Field {
	if f := g.named(word, andAbove); f != nil {
		return f
	}
	if i := bytes.LastIndexAny(word, "&|<>=,;'"); i >= 0 {
		return g.named(word[i+1:], andAbove)
	}
	return nil
}

// onlyStar reports whether the term that text begins with is "*", which asks whether there is a value.
func onlyStar(text []byte) bool {
	text = bytes.TrimLeft(text, " \t\r\n")
	if len(text) == 0 || text[0] != '*' {
		return false
	}
	return len(text) == 1 || strings.IndexByte(" \t\r\n)", text[1]) >= 0
}

// script reads a script: its source, or an object with source and params. field is the protected field that
// the place of the script has it read anyway, or nil. A script that reads a protected field must bring no constants.
// A stored script is read where params come with it; its own literals were seen when it was stored. Names that are built while a
// script runs stay unseen.
func (g *guard) script(v *treeValue, field *policy.Field) error {
	if v == nil || len(g.fields) == 0 {
		return nil
	}
	if inner := v.member("script"); inner != nil { // a script clause where a script was expected
		return g.script(inner, field)
	}
	if f := g.scriptReads(v); f != nil {
		field = f
	}
	params := v.member("params")
	if f := g.documentNames(params, ""); f != nil {
		return guardFault(f, "a parameter of a script")
	}
	if id := v.member("id"); field == nil && id.isScalar() && params != nil && len(params.kids) > 0 {
		f, err := g.storedReads(string(g.text(id)))
		if err != nil {
			return err
		}
		field = f
	}
	if field == nil {
		return nil
	}
	if params != nil && len(params.kids) > 0 {
		return guardFault(field, "a script with params")
	}
	if source := scriptSource(v); source != nil && hasConstant(lexScript(g.text(source)), g.fields) {
		return guardFault(field, "a script with literals")
	}
	return nil
}

// scriptReads gives the protected field that a script's source names, or nil.
func (g *guard) scriptReads(v *treeValue) *policy.Field {
	source := scriptSource(v)
	if source == nil {
		return nil
	}
	words := lexScript(g.text(source))
	for _, f := range g.fields {
		if mentions(words, f) {
			return f
		}
	}
	return nil
}

// storedReads gives the protected field that a stored script names, or nil.
func (g *guard) storedReads(id string) (*policy.Field, error) {
	if g.scripts == nil {
		return nil, templateFault(badTemplate("a stored script with params cannot be read at this place"))
	}
	script, err := g.scripts(id)
	if err != nil || script == nil {
		return nil, err
	}
	words := lexScript(script.source)
	for _, f := range g.fields {
		if mentions(words, f) {
			return f, nil
		}
	}
	return nil, nil
}

// scriptSource gives the string that is a script's source, or nil.
func scriptSource(v *treeValue) *treeValue {
	if v.isString() {
		return v
	}
	for _, name := range [...]string{"source", "inline"} {
		if s := v.member(name); s.isString() {
			return s
		}
	}
	return nil
}

// scriptWord is one word of a script: an identifier, a string literal or a number.
type scriptWord struct {
	text   string
	kind   byte // 'a' identifier, '"' string, '0' number
	member bool // an identifier after a dot, or a string that stands for the name of a member

	start, end int // where it stands in the script, quotes included
}

// lexScript cuts a script (painless, expression) into words. Comments are left out.
func lexScript(source []byte) []scriptWord {
	var words []scriptWord
	var before byte // the first byte of the last word or the last byte that is no white space
	call := ""      // the last identifier
	access := false // whether a bracket that was just opened follows a value, and so takes a name
	for i := 0; i < len(source); {
		c := source[i]
		switch {
		case c == '/' && i+1 < len(source) && source[i+1] == '/':
			n := bytes.IndexByte(source[i:], '\n')
			if n < 0 {
				return words
			}
			i += n
			continue
		case c == '/' && i+1 < len(source) && source[i+1] == '*':
			n := bytes.Index(source[i+2:], []byte("*/"))
			if n < 0 {
				return words
			}
			i += n + 4
			continue
		case c == '"' || c == '\'' || c == '`':
			var text []byte
			start := i
			i++
			for i < len(source) && source[i] != c {
				if source[i] == '\\' && i+1 < len(source) {
					i++
				}
				text = append(text, source[i])
				i++
			}
			i++
			member := before == '[' && access || before == '(' && (call == "field" || call == "$" || call == "containsKey" || call == "get" || call == "remove")
			words = append(words, scriptWord{string(text), '"', member, start, min(i, len(source))})
		case wordByte(c):
			start := i
			for i < len(source) && wordByte(source[i]) {
				i++
			}
			kind := byte('a')
			if c-'0' <= 9 {
				kind = '0'
			}
			words = append(words, scriptWord{string(source[start:i]), kind, before == '.', start, i})
			call = string(source[start:i])
		default:
			if c == '[' {
				access = before == ']' || before == ')' || before == '?' || wordByte(before) && call != "return" && call != "in"
			}
			i++
		}
		if c > ' ' {
			before = c
		}
	}
	return words
}

func wordByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '_' || c == '$' || c >= utf8.RuneSelf
}

// mentions reports whether words name a field: its whole path in a string, or its parts in order as members.
func mentions(words []scriptWord, f *policy.Field) bool {
	part := 0
	for _, w := range words {
		if w.kind == '"' && atOrUnder([]byte(w.text), f.Path) {
			return true
		}
		if !w.member && w.kind != '"' {
			continue
		}
		if len(f.Parts) == 1 {
			if w.text == f.Path {
				return true
			}
			continue
		}
		for piece := range strings.SplitSeq(w.text, ".") {
			if piece == f.Parts[part] {
				if part++; part == len(f.Parts) {
					return true
				}
			}
		}
	}
	return false
}

// hasConstant reports whether a script holds a literal that could be a value: a string that is no member's name, or a number
// of three or more digits.
func hasConstant(words []scriptWord, fields []*policy.Field) bool {
	for _, w := range words {
		switch w.kind {
		case '0':
			if len(w.text) >= 3 {
				return true
			}
		case '"':
			if !w.member && w.text != "" && !isPathOf(w.text, fields) {
				return true
			}
		}
	}
	return false
}

func isPathOf(text string, fields []*policy.Field) bool {
	for _, f := range fields {
		if text == f.Path {
			return true
		}
	}
	return false
}

package rewrite

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// language is one of the query languages whose texts are read.
type language uint8

const (
	langESQL language = iota
	langSQL
	langEQL
)

// langToken is one token of a query text. Comments and white space are none.
type langToken struct {
	kind  byte   // see the constants below
	text  string // of names and strings what they stand for, of all else as written
	start int    // in the text
	end   int
	match int // of a bracket, and of CASE and END in SQL: the place of the other one; of a param without a name: -1 minus its number
}

const (
	tokWord   = 'a' // a name without quotes, or a keyword
	tokQuoted = '`' // a quoted name
	tokString = '"'
	tokNumber = '0'
	tokParam  = '?' // of ES|QL and SQL; text begins with the question marks
	tokSource = 's' // a part of an index pattern of ES|QL, as written
	tokOp     = '+' // operators and punctuation, brackets included
)

// is reports whether t is the keyword or operator, whatever the case.
func (t *langToken) is(text string) bool {
	return (t.kind == tokWord || t.kind == tokOp || t.kind == tokSource) && strings.EqualFold(t.text, text)
}

// names reports whether t is a name, in any spelling.
func (t *langToken) names() bool { return t.kind == tokWord || t.kind == tokQuoted }

// langLexer cuts a text into tokens as the lexers of the three languages do (EsqlBaseLexer.g4, SqlBase.g4, EqlBase.g4
// of Elasticsearch's plugins). What none of them would accept makes ok false.
type langLexer struct {
	lang     language
	text     string
	pos      int
	tokens   []langToken
	comments []string
	open     []int  // places of open brackets
	sources  []bool // for each of them, whether sources were read around it
	source   bool   // index patterns are read
	anon     int    // params without a name so far
}

// lexLanguage gives the tokens and the comments of a text. ok is false when the text can't be read surely; comments then
// mean nothing. A text of too many tokens gives a Fault.
func lexLanguage(lang language, text string) (tokens []langToken, comments []string, ok bool, err error) {
	l := langLexer{lang: lang, text: text}
	if !utf8.ValidString(text) {
		return nil, nil, false, nil
	}
	for l.pos < len(text) {
		if len(l.tokens) >= maxTree {
			return nil, nil, false, &Fault{Status: 413, Type: "esproxy_document_too_large", Reason: "where values are protected, a query text may have at most " + strconv.Itoa(maxTree) + " words; send a smaller one"}
		}
		if !l.next() {
			return nil, nil, false, nil
		}
	}
	return l.tokens, l.comments, len(l.open) == 0, nil
}

func (l *langLexer) at(s string) bool { return strings.HasPrefix(l.text[l.pos:], s) }

func (l *langLexer) add(kind byte, text string, end int) bool {
	l.tokens = append(l.tokens, langToken{kind: kind, text: text, start: l.pos, end: end})
	l.pos = end
	return true
}

// next reads one token, one comment or one byte of white space.
func (l *langLexer) next() bool {
	c := l.text[l.pos]
	switch {
	case c == ' ' || c == '\t' || c == '\n' || c == '\r':
		l.pos++
		return true
	case l.at("/*"):
		return l.blockComment()
	case l.lang != langSQL && l.at("//"), l.lang == langSQL && l.at("--"):
		end := len(l.text)
		if i := strings.IndexAny(l.text[l.pos:], "\r\n"); i >= 0 {
			end = l.pos + i
		}
		l.comments = append(l.comments, l.text[l.pos:end])
		l.pos = end
		return true
	case l.source:
		return l.sourceToken(c)
	case c == '"' && l.lang == langSQL || c == '`':
		return l.quoted(c, tokQuoted)
	case c == '\'' && l.lang == langSQL:
		return l.quoted(c, tokString)
	case c == '"' || c == '\'': // the latter is no string of ES|QL, but what somebody means to be one
		return l.escaped(c)
	case c-'0' <= 9 || c == '.' && l.pos+1 < len(l.text) && l.text[l.pos+1]-'0' <= 9 && !l.afterName():
		return l.number()
	case langWordByte(c):
		return l.word()
	case c == '?' && l.lang != langEQL:
		return l.param()
	}
	return l.operator(c)
}

// afterName reports whether the last token ends here and is a name, so that a dot goes on with it.
func (l *langLexer) afterName() bool {
	n := len(l.tokens)
	return n > 0 && l.tokens[n-1].end == l.pos && (l.tokens[n-1].names() || l.tokens[n-1].is("]"))
}

func langWordByte(c byte) bool {
	return c|0x20 >= 'a' && c|0x20 <= 'z' || c-'0' <= 9 || c == '_' || c == '@' || c >= utf8.RuneSelf
}

// blockComment reads a comment, which may hold others.
func (l *langLexer) blockComment() bool {
	depth, i := 0, l.pos
	for ; i+1 < len(l.text); i++ {
		switch l.text[i : i+2] {
		case "/*":
			depth++
			i++
		case "*/":
			depth--
			i++
			if depth == 0 {
				l.comments = append(l.comments, l.text[l.pos:i+1])
				l.pos = i + 1
				return true
			}
		}
	}
	return false
}

// quoted reads what ends at the quote that began it, unless that is there twice.
func (l *langLexer) quoted(quote byte, kind byte) bool {
	var b strings.Builder
	for i := l.pos + 1; i < len(l.text); i++ {
		if l.text[i] == quote {
			if i+1 == len(l.text) || l.text[i+1] != quote {
				return l.add(kind, b.String(), i+1)
			}
			i++
		}
		b.WriteByte(l.text[i])
	}
	return false
}

// escaped reads a string of ES|QL or EQL: in one quote at each end, with escapes, or in three, without.
func (l *langLexer) escaped(quote byte) bool {
	if l.at(`"""`) {
		n := strings.Index(l.text[l.pos+3:], `"""`)
		if n < 0 || strings.ContainsAny(l.text[l.pos+3:l.pos+3+n], "\r\n") {
			return false
		}
		end := l.pos + 6 + n
		for more := 0; more < 2 && end < len(l.text) && l.text[end] == '"'; more++ {
			end++
		}
		return l.add(tokString, l.text[l.pos+3:end-3], end)
	}
	var b strings.Builder
	for i := l.pos + 1; i < len(l.text); i++ {
		switch c := l.text[i]; c {
		case quote:
			return l.add(tokString, b.String(), i+1)
		case '\r', '\n':
			return false
		case '\\':
			if i++; i == len(l.text) {
				return false
			}
			if l.text[i] == 'u' { // EQL: \u{20AC}
				return false
			}
			b.WriteByte(l.text[i])
		default:
			b.WriteByte(c)
		}
	}
	return false
}

func (l *langLexer) number() bool {
	i := l.pos
	digits := func() {
		for i < len(l.text) && l.text[i]-'0' <= 9 {
			i++
		}
	}
	digits()
	if i < len(l.text) && l.text[i] == '.' {
		i++
		digits()
	}
	if i < len(l.text) && l.text[i]|0x20 == 'e' {
		at := i
		if i++; i < len(l.text) && (l.text[i] == '+' || l.text[i] == '-') {
			i++
		}
		if from := i; from == len(l.text) || l.text[from]-'0' > 9 {
			i = at
		}
		digits()
	}
	return l.add(tokNumber, l.text[l.pos:i], i)
}

func (l *langLexer) word() bool {
	i := l.pos
	for i < len(l.text) && langWordByte(l.text[i]) {
		i++
	}
	text := l.text[l.pos:i]
	if l.lang == langEQL && i < len(l.text) && l.text[i] == '~' { // like~, in~, regex~, and functions that ignore case
		i++
	}
	l.add(tokWord, text, i)
	switch n := len(l.tokens) - 1; {
	case l.lang == langESQL:
		l.source = l.leadsToSource(text)
	case l.lang == langSQL && strings.EqualFold(text, "case"):
		l.open, l.sources = append(l.open, n), append(l.sources, false)
	case l.lang == langSQL && strings.EqualFold(text, "end"):
		if last := len(l.open) - 1; last >= 0 && l.tokens[l.open[last]].kind == tokWord {
			l.tokens[l.open[last]].match, l.tokens[n].match = n, l.open[last]
			l.open, l.sources = l.open[:last], l.sources[:last]
		}
	}
	return true
}

// leadsToSource reports whether index patterns follow the word, which was just added.
func (l *langLexer) leadsToSource(word string) bool {
	n := len(l.tokens) - 1
	switch strings.ToLower(word) {
	case "join":
		return n > 0 && l.tokens[n-1].is("lookup")
	case "enrich":
		return l.beginsCommand(n) && l.sourceFollows()
	case "from", "ts", "metrics":
		return l.beginsCommand(n) && l.sourceFollows()
	}
	return false
}

// beginsCommand reports whether the token n begins a command: at the start, after a pipe, after a setting, or in brackets that
// hold a query of their own.
func (l *langLexer) beginsCommand(n int) bool {
	if n == 0 || l.tokens[n-1].is("|") || l.tokens[n-1].is(";") {
		return true
	}
	if !l.tokens[n-1].is("(") && !l.tokens[n-1].is("[") {
		return false
	}
	if l.sources[len(l.sources)-1] || n == 1 {
		return true
	}
	before := &l.tokens[n-2]
	return before.is("in") || before.is("exists") || before.is("explain") || before.is("fork") || before.is(")") || before.is("(") || before.is(";")
}

// sourceFollows reports whether what comes next can be a pattern, and is no operator after a column of that name.
func (l *langLexer) sourceFollows() bool {
	rest := strings.TrimLeft(l.text[l.pos:], " \t\r\n")
	if rest == "" || len(rest) == len(l.text)-l.pos && rest[0] != '"' && rest[0] != '/' && rest[0] != '(' {
		return false
	}
	return !strings.HasPrefix(rest, "==") && strings.IndexByte("=!<>+%),|?:", rest[0]) < 0 || strings.HasPrefix(rest, "<") && strings.Contains(rest, "{")
}

// sourceToken reads a token between FROM, JOIN or ENRICH and what ends the list of patterns.
func (l *langLexer) sourceToken(c byte) bool {
	switch c {
	case '"':
		return l.escaped(c)
	case '|', ')', ']', ';', '=':
		l.source = false
		return l.operator(c)
	case '(', '[', ',':
		return l.operator(c)
	}
	i := l.pos
	for i < len(l.text) && strings.IndexByte("\"=|,[]() \t\r\n", l.text[i]) < 0 {
		if l.text[i] == '/' && i+1 < len(l.text) && (l.text[i+1] == '/' || l.text[i+1] == '*') {
			break
		}
		i++
	}
	word := l.text[l.pos:i]
	switch strings.ToLower(word) {
	case "metadata", "on", "with", "options":
		l.source = false
		return l.add(tokWord, word, i)
	}
	return l.add(tokSource, word, i)
}

func (l *langLexer) param() bool {
	i := l.pos + 1
	if i < len(l.text) && l.text[i] == '?' && l.lang == langESQL {
		i++
	}
	for l.lang == langESQL && i < len(l.text) && langWordByte(l.text[i]) {
		i++
	}
	l.add(tokParam, l.text[l.pos:i], i)
	if last := &l.tokens[len(l.tokens)-1]; strings.Trim(last.text, "?") == "" {
		l.anon++
		last.match = -l.anon
	}
	return true
}

// langOperators are the operators of more than one byte, longer ones first.
var langOperators = []string{"<=>", "==", "=~", "!=", "!:", "<>", "<=", ">=", "::", "||"}

func (l *langLexer) operator(c byte) bool {
	n := len(l.tokens)
	switch c {
	case '(', '[', '{':
		l.open, l.sources = append(l.open, n), append(l.sources, l.source)
		l.source = false
	case ')', ']', '}':
		last := len(l.open) - 1
		if last < 0 || l.tokens[l.open[last]].text[0] != c-1-(c>>6) {
			return false
		}
		l.tokens[l.open[last]].match = n
		l.add(tokOp, l.text[l.pos:l.pos+1], l.pos+1)
		l.tokens[n].match = l.open[last]
		l.source = l.sources[last]
		l.open, l.sources = l.open[:last], l.sources[:last]
		return true
	}
	for _, op := range langOperators {
		if l.at(op) && !(op == "||" && l.lang != langSQL) {
			return l.add(tokOp, op, l.pos+len(op))
		}
	}
	if strings.IndexByte("()[]{}=<>!+-*/%,.|:;?#$&~^\\", c) < 0 {
		return false
	}
	return l.add(tokOp, l.text[l.pos:l.pos+1], l.pos+1)
}

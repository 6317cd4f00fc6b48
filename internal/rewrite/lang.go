package rewrite

import (
	"errors"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// Query texts (ES|QL, SQL, EQL) may show, sort, group, count and rename protected fields. They may not compare one
// with anything, nor put one into an expression with a constant: the constant would be a value in clear, and it
// could match nothing, as no two sealed values are alike.
//
// A text is read as far as that takes: into commands or clauses (lang_esql.go, lang_sql.go, lang_eql.go), and these
// into expressions, whose operators need no precedence here. Names that a text makes (EVAL, RENAME, AS, STATS) carry
// what they were made of, until nothing changes any more; a name is never cleared, so the order of commands and
// branches does not matter. A text that can't be read surely is judged by its words alone (roughly).

// constant says how much of a value a constant can be.
type constant uint8

const (
	constNone   constant = iota
	constSmall           // one or two digits, true, false, a sort order
	constNumber          // up to five digits
	constFull
)

// operand is what an expression is made of.
type operand struct {
	field    *policy.Field // a protected field, or nil
	constant constant
	null     bool // it is the word null
}

func (o operand) with(p operand) operand {
	if o.field == nil {
		o.field = p.field
	}
	o.constant = max(o.constant, p.constant)
	o.null = o.null && p.null
	return o
}

// langParams are the params beside a text. Of a param that is not known nothing is said.
type langParams struct {
	named map[string]langParam
	list  []langParam
}

// langParam is the value of one param.
type langParam struct {
	text string // of a string what it stands for, else as written
	name bool   // it stands for a name: {"identifier": …} or {"pattern": …}
}

// langText is the work on one text.
type langText struct {
	guard   *guard // with the protected fields
	lang    language
	tokens  []langToken
	params  langParams
	made    map[string]operand // what the text makes of names
	given   map[string]bool    // all names that the text gives to something
	apart   map[string]bool    // names of which one document's several values may stand in rows of their own
	groups  bool               // so for all names, in SQL
	changed bool
	depth   int
	view    bool // the text is kept, and others read what it makes

	// sources are the index expressions that the text reads, each a list of names. unsure is set when it may read others.
	sources []string
	unsure  bool
	tables  map[string]bool // of SQL: names and aliases of tables
	// category is the field that the category of an EQL event is compared with.
	category string
}

const (
	// maxLangDepth is how deep brackets and quoted expressions may lie in each other.
	maxLangDepth = 100
	// maxLangPasses is how often a text is read until its names are known. Text that is read in order takes two.
	maxLangPasses = 8
)

// newLangText cuts a text into tokens and finds what it reads. The guard comes later, as the rules depend on that.
// A text that can't be read has no tokens and is unsure.
func newLangText(lang language, text string, params langParams) (*langText, error) {
	t := &langText{lang: lang, params: params, guard: &guard{}}
	tokens, _, ok, err := lexLanguage(lang, text)
	if err != nil {
		return nil, err
	}
	if !ok {
		t.unsure = true
		return t, nil
	}
	t.tokens = tokens
	if t.pass() != nil { // without fields nothing is refused; what can't be read makes an error
		t.tokens, t.unsure = nil, true
	}
	return t, nil
}

// guardText refuses a text (*Fault, 400) that holds a constant for one of the guard's fields.
func (t *langText) guardText(g *guard, text string) error {
	t.guard = g
	_, comments, ok, err := lexLanguage(t.lang, text)
	if err != nil {
		return err
	}
	for _, c := range comments {
		if f := g.roughly(c); f != nil {
			return guardFault(f, "a comment in the query text")
		}
	}
	if ok && t.tokens != nil {
		t.made = map[string]operand{}
		for range maxLangPasses {
			if err := t.pass(); err == errUnreadText {
				break
			} else if err != nil {
				return err
			}
			if !t.changed {
				return nil
			}
		}
	}
	if f := g.roughly(text); f != nil {
		return guardFault(f, "the query text")
	}
	return nil
}

// errUnreadText means that a text is not what its language allows, as far as that is known here.
var errUnreadText = errors.New("unreadable query text")

// pass reads the text once.
func (t *langText) pass() error {
	t.changed, t.depth = false, 0
	t.sources, t.unsure = nil, false
	switch t.lang {
	case langSQL:
		return t.sql(0, len(t.tokens))
	case langEQL:
		return t.eql(0, len(t.tokens))
	}
	return t.esql()
}

// roughly gives the protected field that a text names if the text also holds what could be a value: a quoted text, a
// number of three digits or more, or a param.
func (g *guard) roughly(text string) *policy.Field {
	constant := strings.ContainsAny(text, "\"'?")
	var words []scriptWord
	for i := 0; i < len(text); {
		start := i
		for i < len(text) && langWordByte(text[i]) {
			i++
		}
		if i == start {
			i++
			continue
		}
		word := text[start:i]
		words = append(words, scriptWord{text: word, kind: 'a', member: true})
		constant = constant || digitsIn(word) >= 3
	}
	if !constant {
		return nil
	}
	for _, f := range g.fields {
		if mentions(words, f) {
			return f
		}
	}
	return nil
}

// digitsIn counts the digits of a word.
func digitsIn(word string) (n int) {
	for i := range len(word) {
		if word[i]-'0' <= 9 {
			n++
		}
	}
	return n
}

// set notes what a name is made of.
func (t *langText) set(name string, o operand) error {
	o.null = false
	if t.given == nil {
		t.given = map[string]bool{}
	}
	t.given[name] = true
	if f := t.guard.named([]byte(name), andAbove); f != nil {
		if o.constant != constNone {
			return guardFault(f, "the query text")
		}
		return nil
	}
	if t.view && o.field != nil {
		return &Fault{Status: 400, Type: "esproxy_protected_query", Reason: "the query of a view gives [" + o.field.Path + "], which rule [" + o.field.Rule.Name +
			"] protects, another name, under which queries of the view could compare it with a value; keep the name"}
	}
	was := t.made[name]
	now := was.with(o)
	now.null = false
	if now != was && t.made != nil {
		t.made[name] = now
		t.changed = true
	}
	return nil
}

// named tells what a name stands for.
func (t *langText) named(name string) (operand, error) {
	if o, ok := t.made[name]; ok {
		if f := t.guard.named([]byte(name), andAbove); f != nil {
			o.field = f
		}
		return o, nil
	}
	if f := t.guard.named([]byte(name), andAbove); f != nil {
		return operand{field: f}, nil
	}
	if t.lang == langSQL { // behind the name of a table
		for rest := name; ; {
			table, column, ok := strings.Cut(rest, ".")
			if !ok {
				break
			}
			rest = column
			if !t.tables[table] && !t.tables[name[:len(name)-len(column)-1]] {
				continue
			}
			if o, ok := t.made[column]; ok && o.field != nil {
				return o, nil
			}
			if f := t.guard.named([]byte(column), andAbove); f != nil {
				return operand{field: f}, nil
			}
		}
	}
	// A column that no command names is called like its expression: `MAX(card)`.
	if strings.ContainsAny(name, "( ") && len(t.guard.fields) > 0 {
		return t.expressionIn(name)
	}
	return operand{}, nil
}

// expressionIn reads a name that is the text of an expression.
func (t *langText) expressionIn(name string) (operand, error) {
	if t.depth++; t.depth > maxLangDepth {
		return operand{}, errUnreadText
	}
	defer func() { t.depth-- }()
	tokens, _, ok, err := lexLanguage(t.lang, name)
	if err != nil || !ok {
		return operand{field: t.guard.roughly(name + "?")}, err
	}
	outer := t.tokens
	t.tokens = tokens
	o, err := t.expression(0, len(tokens))
	t.tokens = outer
	if o.constant = constNone; err == errUnreadText {
		return operand{field: t.guard.roughly(name + "?")}, nil
	}
	return o, err
}

// skip gives the place behind the token at i, and behind what is in brackets when it opens some.
func (t *langText) skip(i int) int {
	if m := t.tokens[i].match; m > i {
		return m + 1
	}
	return i + 1
}

// find gives the place of the first token from i on, not in brackets, that is one of the words; end if there is none.
func (t *langText) find(i, end int, words ...string) int {
	for ; i < end; i = t.skip(i) {
		if slices.ContainsFunc(words, t.tokens[i].is) {
			return i
		}
	}
	return end
}

// each calls f for each of the parts between separators that are not in brackets.
func (t *langText) each(i, end int, separator string, f func(i, end int) error) error {
	for i <= end {
		next := t.find(i, end, separator)
		if err := f(i, next); err != nil {
			return err
		}
		i = next + 1
	}
	return nil
}

package rewrite

import (
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
)

// expressions reads a list of expressions.
func (t *langText) expressions(i, end int) (all operand, err error) {
	all.null = true
	err = t.each(i, end, ",", func(i, end int) error {
		if i == end {
			return nil
		}
		o, err := t.expression(i, end)
		all = all.with(o)
		return err
	})
	return all, err
}

// expression reads what AND and OR keep apart. A condition is of nothing: it can only be true or false.
func (t *langText) expression(i, end int) (operand, error) {
	if t.depth++; t.depth > maxLangDepth {
		return operand{}, errUnreadText
	}
	defer func() { t.depth-- }()
	between, condition := false, false
	start := i
	for ; i < end; i = t.skip(i) {
		tok := &t.tokens[i]
		switch {
		case tok.is("between"):
			between = true
		case tok.is("and") && between:
			between = false
		case tok.is("and"), tok.is("or"):
			condition = true
			if _, err := t.comparison(start, i); err != nil {
				return operand{}, err
			}
			start = i + 1
		}
	}
	o, err := t.comparison(start, end)
	if condition {
		return operand{}, err
	}
	return o, err
}

// cases reads what is between CASE and END.
func (t *langText) cases(i, end int) (all operand, err error) {
	for i <= end {
		next := t.find(i, end, "when", "then", "else")
		if i < next {
			o, err := t.expression(i, next)
			if err != nil {
				return all, err
			}
			all = all.with(o)
		}
		i = next + 1
	}
	if all.field != nil && all.constant != constNone {
		return all, guardFault(all.field, "the query text")
	}
	return all, nil
}

// langComparisons are the operators that compare.
var langComparisons = map[string]bool{
	"==": true, "=": true, "=~": true, "!=": true, "<>": true, "<=>": true, "<": true, "<=": true, ">": true, ">=": true, ":": true, "!:": true,
	"in": true, "like": true, "rlike": true, "regex": true, "between": true,
}

// comparison reads what stands between AND and OR. A protected field is compared with null alone.
func (t *langText) comparison(i, end int) (operand, error) {
	for i < end && (t.tokens[i].is("not") || t.tokens[i].is("!")) {
		i++
	}
	var field *policy.Field
	others, compared := 0, false // operands that are neither null nor the first that holds a protected field
	start := i
	var only operand
	side := func(to int) error {
		for to > start && t.tokens[to-1].is("not") {
			to--
		}
		if start >= to {
			return nil
		}
		o, err := t.value(start, to)
		switch {
		case o.field != nil && field == nil:
			field = o.field
			if o.constant != constNone {
				others++
			}
		case !o.null:
			others++
		}
		only = o
		return err
	}
	for ; i < end; i = t.skip(i) {
		tok := &t.tokens[i]
		if tok.kind != tokWord && tok.kind != tokOp {
			continue
		}
		word := strings.ToLower(tok.text)
		if word == "is" && tok.kind == tokWord && i > start { // IS [NOT] NULL
			return operand{}, side(i)
		}
		if !langComparisons[word] || tok.kind == tokWord && i == start {
			continue
		}
		if err := side(i); err != nil {
			return operand{}, err
		}
		compared, start = true, i+1
	}
	if err := side(end); err != nil || !compared {
		return only, err
	}
	if field != nil && others > 0 {
		return operand{}, guardFault(field, "the query text")
	}
	return operand{}, nil
}

// value reads operands that operators other than comparisons bring together.
func (t *langText) value(i, end int) (all operand, err error) {
	atoms := 0
	for i < end {
		var o operand
		next, known := i+1, true
		tok := &t.tokens[i]
		switch {
		case tok.is("::"): // and the name of a type
			i += 2
			continue
		case tok.match > i && tok.kind == tokWord:
			o, err = t.cases(i+1, tok.match)
			next = tok.match + 1
		case tok.names() || tok.kind == tokParam && t.paramName(i):
			o, next, err = t.nameOrCall(i, end)
		case tok.kind == tokString:
			o.constant = stringConstant(tok.text)
		case tok.kind == tokNumber:
			o.constant = numberConstant(tok.text)
		case tok.kind == tokParam:
			o.constant = constFull
		case tok.match > i:
			o, err = t.group(i+1, tok.match)
			if next = tok.match + 1; err == nil && o.field != nil && o.constant > constSmall { // a list
				err = guardFault(o.field, "the query text")
			}
		default:
			known = false
		}
		if err != nil {
			return all, err
		}
		if known {
			if atoms++; atoms == 1 {
				all = o
			} else {
				all = all.with(o)
			}
		}
		i = next
	}
	if all.field != nil && all.constant != constNone && atoms > 1 {
		return all, guardFault(all.field, "the query text")
	}
	return all, nil
}

func stringConstant(s string) constant {
	switch {
	case s == "":
		return constNone
	case strings.EqualFold(s, "asc") || strings.EqualFold(s, "desc"):
		return constSmall
	case len(s) <= 2 && strings.IndexFunc(s, func(r rune) bool { return r > '~' || langWordByte(byte(r)) }) < 0:
		return constSmall // a separator
	}
	return constFull
}

func numberConstant(s string) constant {
	switch {
	case len(s) <= 2:
		return constSmall
	case len(s) <= 5 && digitsIn(s) == len(s):
		return constNumber
	}
	return constFull
}

// group reads what is in brackets: a query, a list, or an expression.
func (t *langText) group(i, end int) (operand, error) {
	if t.lang == langEQL && t.find(i, end, "where") < end { // child of [event]
		return operand{}, t.deeper(i, end, t.event)
	}
	if i < end && t.tokens[i].kind == tokWord {
		switch strings.ToLower(t.tokens[i].text) {
		case "select", "with":
			if t.lang == langSQL {
				return t.subquery(i, end, t.sql)
			}
		case "from", "ts", "metrics", "row", "show":
			if t.lang == langESQL && i+1 < end && (t.tokens[i+1].kind == tokSource || t.tokens[i+1].kind == tokString || t.tokens[i].is("row") || t.tokens[i].is("show")) {
				return t.subquery(i, end, t.pipeline)
			}
		}
	}
	return t.expressions(i, end)
}

// deeper calls read for what is in brackets, unless they lie too deep in others.
func (t *langText) deeper(i, end int, read func(i, end int) error) error {
	if t.depth++; t.depth > maxLangDepth {
		return errUnreadText
	}
	defer func() { t.depth-- }()
	return read(i, end)
}

// subquery reads a query inside an expression, which stands for what it shows.
func (t *langText) subquery(i, end int, read func(i, end int) error) (operand, error) {
	if err := t.deeper(i, end, read); err != nil {
		return operand{}, err
	}
	from, to := i, end // what its last KEEP or STATS names, or its select list
	for at := i; at < end; at = t.skip(at) {
		switch {
		case t.lang == langESQL && at > i && t.tokens[at-1].is("|") && (t.tokens[at].is("keep") || t.tokens[at].is("stats")):
			from, to = at+1, t.find(at, end, "|")
		case t.lang == langSQL && t.tokens[at].is("select"):
			from, to = at+1, t.find(at, end, "from")
		}
	}
	var all operand
	for at := from; at < to; at++ {
		if !t.tokens[at].names() || at > from && t.tokens[at-1].is(".") {
			continue
		}
		name, _ := t.path(at, to)
		o, err := t.named(name)
		if err != nil {
			return all, err
		}
		if strings.Contains(name, "*") || at+1 < to && t.tokens[at+1].is("*") {
			o.field = t.guard.named([]byte(name+"*"), andAbove)
		}
		all = all.with(operand{field: o.field})
	}
	return all, nil
}

// path reads a dotted name and gives the place behind it.
func (t *langText) path(i, end int) (name string, next int) {
	name, next = t.part(i), i+1
	for next+1 < end && t.tokens[next].is(".") && (t.tokens[next+1].names() || t.tokens[next+1].kind == tokParam) {
		name += "." + t.part(next+1)
		next += 2
	}
	return name, next
}

// part gives one part of a name.
func (t *langText) part(i int) string {
	if t.tokens[i].kind == tokParam {
		p, _ := t.param(i)
		return p.text
	}
	return t.tokens[i].text
}

// param gives the value of a param of ES|QL, whose text is "?", "?1" or "?name", with one question mark more when it stands
// for a name.
func (t *langText) param(i int) (p langParam, ok bool) {
	name := strings.TrimLeft(t.tokens[i].text, "?")
	if p, ok = t.params.named[name]; ok && name != "" {
		return p, true
	}
	n := -1 - t.tokens[i].match
	if name != "" {
		if digitsIn(name) != len(name) || len(name) > 6 {
			return p, false
		}
		n = -1
		for _, c := range name {
			n = max(n, 0)*10 + int(c-'0')
		}
		n--
	}
	if n < 0 || n >= len(t.params.list) {
		return p, false
	}
	return t.params.list[n], true
}

// paramName reports whether the param at i stands for a name.
func (t *langText) paramName(i int) bool {
	if t.lang != langESQL {
		return false
	}
	p, _ := t.param(i)
	return p.name || strings.HasPrefix(t.tokens[i].text, "??")
}

// nameOrCall reads a name, or a function with what it is given.
func (t *langText) nameOrCall(i, end int) (o operand, next int, err error) {
	name, next := t.path(i, end)
	if t.tokens[i].kind == tokWord && next == i+1 {
		switch strings.ToLower(name) {
		case "null":
			return operand{null: true}, next, nil
		case "true", "false":
			return operand{constant: constSmall}, next, nil
		}
	}
	if next < end && t.tokens[next].is("(") {
		m := t.tokens[next].match
		o, err = t.call(strings.ToLower(name), next+1, m)
		return o, m + 1, err
	}
	o, err = t.named(name)
	return o, next, err
}

// langMeasures are functions whose result tells how many or how long, and nothing of a value.
var langMeasures = map[string]bool{
	"count": true, "count_distinct": true, "mv_count": true, "length": true, "byte_length": true, "bit_length": true, "char_length": true,
	"character_length": true, "octet_length": true, "present": true, "absent": true, "count_over_time": true, "count_distinct_over_time": true,
	"present_over_time": true, "absent_over_time": true,
}

// call reads what a function is given.
func (t *langText) call(name string, i, end int) (operand, error) {
	switch name {
	case "kql", "qstr", "query":
		if err := t.fullText(name, i, end); err != nil {
			return operand{}, err
		}
	case "match", "multi_match", "match_phrase":
		if err := t.fieldList(i, end); err != nil {
			return operand{}, err
		}
	case "json_extract", "field_extract":
		for at := i; at < end; at++ {
			if tok := &t.tokens[at]; tok.kind == tokString {
				if f := t.guard.roughly(tok.text + "?"); f != nil {
					return operand{field: f}, nil
				}
			}
		}
	}
	o, err := t.group(i, end)
	if err != nil {
		return o, err
	}
	limit := constSmall
	if langMeasures[name] {
		limit = constNumber
	}
	if o.field != nil && o.constant > limit {
		return o, guardFault(o.field, "the query text")
	}
	if langMeasures[name] {
		return operand{}, nil
	}
	if o.null = false; o.field != nil {
		o.constant = constNone
	}
	return o, nil
}

// texts calls f with each string, or value of a param, in a range, and with all of them in a row.
func (t *langText) texts(i, end int, f func(text string, first bool) error) error {
	all, first := "", true
	for ; i < end; i++ {
		text := t.tokens[i].text
		switch t.tokens[i].kind {
		case tokString:
		case tokParam:
			p, _ := t.param(i)
			text = p.text
		default:
			continue
		}
		if err := f(text, first); err != nil {
			return err
		}
		all += text
		first = false
	}
	return f(all, true)
}

// fullText reads the texts in Lucene's or Kibana's syntax that a function is given, and its options.
func (t *langText) fullText(name string, i, end int) error {
	return t.texts(i, end, func(text string, first bool) error {
		read := t.guard.luceneText
		if name == "kql" {
			read = t.guard.kqlText
		}
		f := read([]byte(text))
		if !first && f == nil { // an option: a default field
			_, value, _ := strings.Cut(text, "=")
			if f = t.guard.named([]byte(text), andAbove); f == nil {
				f = t.guard.named([]byte(value), andAbove)
			}
		}
		if f != nil {
			return guardFault(f, "the query text")
		}
		return nil
	})
}

// fieldList reads the first argument of SQL's MATCH, which may be a list of fields in a string.
func (t *langText) fieldList(i, end int) error {
	if i >= end || t.tokens[i].kind != tokString || t.lang != langSQL {
		return nil
	}
	for name := range strings.SplitSeq(t.tokens[i].text, ",") {
		name, _, _ = strings.Cut(strings.TrimSpace(name), "^")
		if f := t.guard.named([]byte(name), andAbove); f != nil {
			return guardFault(f, "the query text")
		}
	}
	return nil
}

package rewrite

import "strings"

// sql reads a statement of SQL: a query, or one that shows names of tables and columns and takes no values.
func (t *langText) sql(i, end int) error {
	if t.tables == nil {
		t.tables = map[string]bool{}
	}
	for i < end && t.tokens[i].is("(") && t.tokens[i].match == end-1 {
		i, end = i+1, end-1
	}
	if i == end {
		return nil
	}
	switch word := &t.tokens[i]; {
	case word.is("explain"), word.is("debug"):
		if i++; i < end && t.tokens[i].is("(") {
			i = t.skip(i)
		}
		return t.sql(i, end)
	case word.is("show"), word.is("describe"), word.is("desc"), word.is("sys"):
		return nil
	case word.is("with"):
		for i++; i < end && !t.tokens[i].is("select"); i = t.skip(i) {
			if t.tokens[i].is("(") {
				if err := t.sql(i+1, t.tokens[i].match); err != nil {
					return err
				}
			} else if t.tokens[i].names() {
				t.tables[t.tokens[i].text], t.unsure = true, true // a name that stands for no index
			}
		}
		return t.sql(i, end)
	case word.is("select"):
		return t.selection(i+1, end)
	}
	return errUnreadText
}

// selection reads what follows SELECT, clause by clause.
func (t *langText) selection(i, end int) error {
	clause := t.selectList
	for i <= end {
		next := t.find(i, end, "from", "where", "group", "having", "order", "limit", "pivot")
		if i < next {
			if err := clause(i, next); err != nil {
				return err
			}
		}
		if next == end {
			return nil
		}
		i = next + 1
		switch word := strings.ToLower(t.tokens[next].text); word {
		case "from":
			clause = t.relations
		case "where", "having":
			clause = func(i, end int) error { _, err := t.expression(i, end); return err }
		case "group", "order":
			t.groups = t.groups || word == "group" // by a composite aggregation, which has a group for each of several values
			if i < end && t.tokens[i].is("by") {
				i++
			}
			clause = func(i, end int) error { _, err := t.expressions(i, end); return err }
		case "limit":
			clause = func(int, int) error { return nil }
		case "pivot":
			t.groups = true
			clause = t.pivot
		}
	}
	return nil
}

// selectList reads "[DISTINCT] [TOP n] expression [[AS] name], …".
func (t *langText) selectList(i, end int) error {
	for i < end && (t.tokens[i].is("distinct") || t.tokens[i].is("all")) {
		t.groups = t.groups || t.tokens[i].is("distinct")
		i++
	}
	if i+1 < end && t.tokens[i].is("top") && t.tokens[i+1].kind == tokNumber {
		i += 2
	}
	return t.each(i, end, ",", t.item)
}

// item reads an expression with or without a name for it: the last one, where two operands follow each other.
func (t *langText) item(i, end int) error {
	if i == end {
		return nil
	}
	last, name := end-1, ""
	if t.tokens[last].names() && last > i {
		before := &t.tokens[last-1]
		switch {
		case before.is("as"):
			name, end = t.tokens[last].text, last-1
		case before.kind != tokOp, before.is(")"), before.is("}"):
			name, end = t.tokens[last].text, last
		}
	}
	o, err := t.expression(i, end)
	if err != nil || name == "" {
		return err
	}
	return t.set(name, o)
}

// relations reads tables and sub-queries, with their other names, and conditions of joins.
func (t *langText) relations(i, end int) error {
	table := true // one is expected
	for i < end {
		tok := &t.tokens[i]
		switch {
		case tok.is(","), tok.is("join"):
			table = true
			i++
		case tok.is("natural"), tok.is("inner"), tok.is("left"), tok.is("right"), tok.is("full"), tok.is("outer"), tok.is("as"):
			i++
		case tok.is("on"):
			next := t.find(i+1, end, ",", "join", "natural", "inner", "left", "right", "full")
			if _, err := t.expression(i+1, next); err != nil {
				return err
			}
			i = next
		case tok.is("using"):
			if i++; i < end {
				i = t.skip(i)
			}
		case tok.is("("):
			if !table || tok.match < i {
				return errUnreadText
			}
			read := t.relations
			if inner := i + 1; t.tokens[inner].is("select") || t.tokens[inner].is("with") || t.tokens[inner].is("(") {
				read = t.sql
			}
			if err := t.deeper(i+1, tok.match, read); err != nil {
				return err
			}
			i, table = tok.match+1, false
		case table:
			next, err := t.table(i, end)
			if err != nil {
				return err
			}
			i, table = next, false
		case tok.names(): // another name for it
			t.tables[tok.text] = true
			i++
		default:
			return errUnreadText
		}
	}
	return nil
}

// table reads "[cluster:]name", where a name without quotes may hold asterisks.
func (t *langText) table(i, end int) (next int, err error) {
	name := ""
	for next = i; next < end; next++ {
		tok := &t.tokens[next]
		if next > i && tok.start != t.tokens[next-1].end && !tok.is(":") && !t.tokens[next-1].is(":") {
			break
		}
		if !tok.names() && tok.kind != tokNumber && !tok.is("*") && !tok.is(":") && !tok.is(".") {
			break
		}
		name += tok.text
	}
	if name == "" {
		return i, errUnreadText
	}
	t.sources = append(t.sources, name)
	t.tables[name] = true
	return next, nil
}

// pivot reads "(aggregation [AS] name, … FOR column IN (value [AS] name, …))".
func (t *langText) pivot(i, end int) error {
	if i == end || t.tokens[i].match != end-1 {
		return errUnreadText
	}
	i, end = i+1, end-1
	column := t.find(i, end, "for")
	if column == end {
		return errUnreadText
	}
	if err := t.each(i, column, ",", t.item); err != nil {
		return err
	}
	_, err := t.expression(column+1, end)
	return err
}

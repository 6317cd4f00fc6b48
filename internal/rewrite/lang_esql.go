package rewrite

import "strings"

// esql reads settings (SET key = value;) and the query behind them.
func (t *langText) esql() error {
	i := 0
	for {
		next := t.find(i, len(t.tokens), ";")
		if next == len(t.tokens) {
			return t.pipeline(i, next)
		}
		if err := t.together(i, next); err != nil {
			return err
		}
		i = next + 1
	}
}

// pipeline reads commands with pipes between them.
func (t *langText) pipeline(i, end int) error {
	return t.each(i, end, "|", func(i, end int) error {
		if i == end {
			return nil
		}
		return t.command(i, end)
	})
}

// together reads a command of which nothing is known but that it brings together all that it names.
func (t *langText) together(i, end int) error {
	var all operand
	for ; i < end; i++ {
		o, next, err := t.atom(i, end)
		if err != nil {
			return err
		}
		all = all.with(o)
		i = next - 1
	}
	if all.field != nil && all.constant != constNone {
		return guardFault(all.field, "the query text")
	}
	return nil
}

// beside reads a list of names in which no constant belongs: what the names were made of is not put together here.
func (t *langText) beside(i, end int) error {
	var all operand
	for ; i < end; i++ {
		o, next, err := t.atom(i, end)
		if err != nil {
			return err
		}
		if t.tokens[i].names() {
			o.constant = constNone
		}
		all = all.with(o)
		i = next - 1
	}
	if all.field != nil && all.constant != constNone {
		return guardFault(all.field, "the query text")
	}
	return nil
}

// atom reads one name or constant, whatever it is for.
func (t *langText) atom(i, end int) (o operand, next int, err error) {
	tok := &t.tokens[i]
	switch {
	case tok.names() || tok.kind == tokParam && t.paramName(i):
		name, next := t.path(i, end)
		o, err = t.named(name)
		return o, next, err
	case tok.kind == tokString:
		o.constant = stringConstant(tok.text)
	case tok.kind == tokNumber:
		o.constant = numberConstant(tok.text)
	case tok.kind == tokParam:
		o.constant = constFull
	}
	return o, i + 1, nil
}

// command reads one command of ES|QL.
func (t *langText) command(i, end int) error {
	word := &t.tokens[i]
	if word.kind != tokWord {
		if word.match == end-1 && word.is("(") { // a query in brackets
			return t.deeper(i+1, end-1, t.pipeline)
		}
		return errUnreadText
	}
	i++
	switch strings.ToLower(word.text) {
	case "from", "ts", "metrics":
		return t.from(i, end)
	case "row", "eval":
		return t.fields(i, end)
	case "where":
		_, err := t.expression(i, end)
		return err
	case "stats", "inlinestats":
		return t.stats(i, end)
	case "inline": // INLINE STATS
		if i == end || !t.tokens[i].is("stats") {
			return errUnreadText
		}
		return t.stats(i+1, end)
	case "mv_expand":
		t.splits(i, end)
		return t.beside(i, end)
	case "keep", "drop", "show", "limit", "sample", "fuse", "insist":
		return t.beside(i, end)
	case "sort":
		_, err := t.expressions(i, end)
		return err
	case "rename":
		return t.rename(i, end)
	case "lookup":
		return t.lookup(i, end)
	case "enrich":
		return t.enrich(i, end)
	case "fork":
		for ; i < end; i = t.skip(i) {
			if !t.tokens[i].is("(") {
				return errUnreadText
			}
			if err := t.deeper(i+1, t.tokens[i].match, t.pipeline); err != nil {
				return err
			}
		}
		return nil
	case "explain":
		if i < end && t.tokens[i].match == end-1 {
			return t.deeper(i+1, end-1, t.pipeline)
		}
		return errUnreadText
	case "dissect", "grok":
		if err := t.captures(i, end); err != nil {
			return err
		}
	case "change_point", "completion", "rerank":
	default:
		t.unsure = true
	}
	return t.makes(i, end)
}

// makes reads a command that makes columns of all that it names: "name = …" and "… AS name, name".
func (t *langText) makes(i, end int) error {
	if err := t.together(i, end); err != nil {
		return err
	}
	var all operand
	for at := i; at < end; at++ {
		o, next, err := t.atom(at, end)
		if err != nil {
			return err
		}
		all = all.with(operand{field: o.field})
		at = next - 1
	}
	if all.field == nil {
		return nil
	}
	for at := i; at < end; at++ {
		if t.tokens[at].names() {
			name, next := t.path(at, end)
			if o, err := t.named(name); err != nil {
				return err
			} else if o.field == nil {
				if err := t.set(name, all); err != nil {
					return err
				}
			}
			at = next - 1
		}
	}
	return nil
}

// captures reads "name pattern, pattern" of DISSECT and GROK, whose columns are named in the patterns and hold parts of the first.
func (t *langText) captures(i, end int) error {
	if i == end {
		return nil
	}
	o, _, err := t.atom(i, end)
	if err != nil {
		return err
	}
	for at := i; at < end; at++ {
		if t.tokens[at].kind != tokString {
			continue
		}
		text := t.tokens[at].text
		for _, m := range append(grokCapture.FindAllStringSubmatch(text, -1), dissectCapture.FindAllStringSubmatch(text, -1)...) {
			name, _, _ := strings.Cut(m[1], "/") // an order, as in %{+name/2}
			if name = strings.Trim(name, "+*&?->"); len(m) > 2 && m[2] != "" {
				name = m[2]
			}
			if err := t.set(name, o); err != nil {
				return err
			}
		}
	}
	return nil
}

// from reads what a query reads: a list of patterns and of queries in brackets.
func (t *langText) from(i, end int) error {
	if m := t.find(i, end, "metadata", "options"); m < end {
		if err := t.beside(m, end); err != nil {
			return err
		}
		end = m
	}
	return t.each(i, end, ",", func(i, end int) error {
		if i < end && t.tokens[i].is("(") && t.tokens[i].match == end-1 {
			return t.deeper(i+1, end-1, t.pipeline)
		}
		if i < end && t.tokens[i].is("[") { // [METADATA _id]
			return nil
		}
		name := ""
		for ; i < end; i++ {
			switch tok := &t.tokens[i]; {
			case tok.is("["): // [METADATA _id]
				i = tok.match
			case tok.kind == tokSource, tok.kind == tokString:
				name += tok.text
			default:
				return errUnreadText
			}
		}
		if name == "" {
			return errUnreadText
		}
		t.sources = append(t.sources, name)
		return nil
	})
}

// fields reads "name = expression, expression".
func (t *langText) fields(i, end int) error {
	return t.each(i, end, ",", t.field)
}

// field reads one of them. An expression without a name makes a column of its own text, which t.named reads.
func (t *langText) field(i, end int) error {
	if i == end {
		return nil
	}
	name := ""
	if t.tokens[i].names() || t.tokens[i].kind == tokParam {
		n, next := t.path(i, end)
		if next < end && t.tokens[next].is("=") {
			name, i = n, next+1
		}
	}
	o, err := t.expression(i, end)
	if err != nil || name == "" {
		return err
	}
	return t.set(name, o)
}

// stats reads "name = aggregation WHERE condition, … BY name = expression, …".
func (t *langText) stats(i, end int) error {
	by := t.find(i, end, "by")
	err := t.each(i, by, ",", func(i, end int) error {
		where := t.find(i, end, "where")
		if where < end {
			if _, err := t.expression(where+1, end); err != nil {
				return err
			}
		}
		return t.field(i, where)
	})
	if err != nil || by == end {
		return err
	}
	if err := t.each(by+1, end, ",", func(i, end int) error { t.splits(i, end); return nil }); err != nil {
		return err
	}
	return t.fields(by+1, end)
}

// splits notes a column each of whose values becomes a row: a document with two subjects then looks like one of either.
func (t *langText) splits(i, end int) {
	if i < end && (t.tokens[i].names() || t.tokens[i].kind == tokParam) {
		if t.apart == nil {
			t.apart = map[string]bool{}
		}
		name, _ := t.path(i, end)
		t.apart[name] = true
	}
}

// rename reads "old AS new, new = old".
func (t *langText) rename(i, end int) error {
	return t.each(i, end, ",", func(i, end int) error {
		if i == end {
			return nil
		}
		first, next := t.path(i, end)
		if next+1 >= end {
			return errUnreadText
		}
		second, last := t.path(next+1, end)
		if last != end {
			return errUnreadText
		}
		switch {
		case t.tokens[next].is("as"):
		case t.tokens[next].is("="):
			first, second = second, first
		default:
			return errUnreadText
		}
		o, err := t.named(first)
		if err != nil {
			return err
		}
		return t.set(second, o)
	})
}

// lookup reads "JOIN index ON field, condition". The index has columns of its own, under their own names.
func (t *langText) lookup(i, end int) error {
	on := t.find(i, end, "on")
	if i == end || !t.tokens[i].is("join") || on == end {
		t.unsure = true
		return t.together(i, end)
	}
	as := t.find(i+1, on, "as")
	if err := t.from(i+1, as); err != nil {
		return err
	}
	_, err := t.expressions(on+1, end)
	return err
}

// enrich reads "policy ON field WITH new = field, field". Which indices a policy was made of is not known.
func (t *langText) enrich(i, end int) error {
	t.unsure = true
	with := t.find(i, end, "with")
	if with == end {
		return nil
	}
	return t.fields(with+1, end)
}

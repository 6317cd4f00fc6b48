package rewrite

import "strings"

// eql reads a query of EQL: one event with its condition, or a sequence, sample or join of several, and pipes.
func (t *langText) eql(i, end int) error {
	pipe := t.find(i, end, "|")
	if err := t.events(i, pipe); err != nil {
		return err
	}
	if pipe == end {
		return nil
	}
	return t.each(pipe+1, end, "|", func(i, end int) error {
		if i == end {
			return nil
		}
		if tok := &t.tokens[i]; !tok.is("head") && !tok.is("tail") && !tok.is("filter") && !tok.is("count") && !tok.is("unique") && !tok.is("unique_count") && !tok.is("sort") {
			return errUnreadText
		}
		_, err := t.expressions(i+1, end)
		return err
	})
}

func (t *langText) events(i, end int) error {
	if i == end {
		return nil
	}
	if !t.tokens[i].is("sequence") && !t.tokens[i].is("sample") && !t.tokens[i].is("join") || t.find(i, end, "where") < end {
		return t.event(i, end)
	}
	// sequence by key, key with maxspan=1m [event] by key with runs=2 ![event] until [event]
	for i++; i < end; {
		tok := &t.tokens[i]
		switch {
		case tok.is("["):
			if err := t.deeper(i+1, tok.match, t.event); err != nil {
				return err
			}
			i = tok.match + 1
		case tok.is("by"):
			next := t.find(i+1, end, "[", "with", "until", "!")
			if _, err := t.expressions(i+1, next); err != nil {
				return err
			}
			i = next
		case tok.is("with"):
			next := t.find(i+1, end, "[", "by", "until", "!")
			for ; i < next; i++ {
				if t.tokens[i].kind == tokString {
					return errUnreadText
				}
			}
		case tok.kind == tokString, tok.kind == tokNumber, tok.kind == tokParam:
			return errUnreadText
		default:
			i++
		}
	}
	return nil
}

// event reads "category where condition".
func (t *langText) event(i, end int) error {
	where := t.find(i, end, "where")
	if where == end || where != i+1 {
		return errUnreadText
	}
	category := t.tokens[i]
	if f := t.guard.named([]byte(t.category), andAbove); f != nil && !(category.kind == tokWord && strings.EqualFold(category.text, "any")) {
		return guardFault(f, "the category of an event")
	}
	_, err := t.expression(where+1, end)
	return err
}

package rewrite

import (
	"errors"
	"slices"
)

// Replies of SQL and ES|QL are tables: columns, then rows of cells (or values, one array for each row or, with columnar,
// for each column). Rows do not tell their index, so cells open only under rules that every target of the request is
// under, in a column that is called like the field, for the subject that another cell of the row shows. Where a
// text makes a column of such a name itself, nothing opens (langText.gives): a caller could put any sealed value beside any subject.
//
// The reply to a request that names an asynchronous query by its id alone tells no target. There a cell opens when one
// single rule of the policy has a field of that path. That is safe for the same reason: what opens was sealed by this
// rule, for this field and this subject, which the row shows, and the grant names the field. What it leaves open is
// that somebody copied the value into another index, beside the same subject.

// tableColumn is what is known of a column.
type tableColumn struct {
	node  *node // with the field, when cells may be sealed values of it
	rules []int // in the table's rules, those whose subject it is
}

// table is a table while it is read.
type table struct {
	t       *shownTarget
	columns []tableColumn
}

// table reads the reply. What comes before the columns, or comes without them, as later pages of SQL do, stays as it is.
func (r *replier) table() error {
	var tab *table
	read := false
	return r.s.object(func(name []byte) error {
		switch string(name) {
		case "columns":
			if tab != nil {
				read = true // a second time: no trust
				return r.s.copyValue()
			}
			var err error
			tab, err = r.tableColumns()
			return err
		case "rows", "values":
			if read || tab == nil {
				if c, err := r.s.peek(); err != nil {
					return err
				} else if c == '[' && !read {
					r.unopened(noColumns, 1)
				}
				return r.s.copyValue()
			}
			read = true
			if !slices.ContainsFunc(tab.columns, func(c tableColumn) bool { return c.node != nil }) {
				return r.s.copyValue()
			}
			return r.cells(tab, string(name) == "values")
		}
		return r.s.copyValue()
	})
}

// tableColumns reads [{"name": …, "type": …}, …].
func (r *replier) tableColumns() (*table, error) {
	tab := &table{t: r.shown(&target{rules: r.o.tableRules, root: &node{}}, r.o.index)}
	r.targets[""] = tab.t
	raw, ok, err := r.s.capture(r.o.eng.Limits.MaxHit)
	if err != nil || !ok {
		return tab, err
	}
	h := hitReader{b: raw}
	end := 0
	if raw[0] == '[' {
		end, err = h.elements(0, func(pos int) (int, error) {
			column := tableColumn{}
			named := 0
			end, err := pos, error(nil)
			if raw[pos] != '{' {
				end, err = h.skip(pos)
			} else {
				end, err = h.members(pos, func(name []byte, pos int) (int, error) {
					end, err := h.skip(pos)
					if err == nil && string(name) == "name" && raw[pos] == '"' {
						if named++; named == 1 {
							column = tab.column(string(unescape(nil, raw[pos+1:end-1])))
						}
					}
					return end, err
				})
			}
			if named != 1 {
				column = tableColumn{}
			}
			tab.columns = append(tab.columns, column)
			return end, err
		})
	} else {
		end, err = h.skip(0)
	}
	if err != nil {
		return tab, err
	}
	return tab, r.s.pass(end)
}

// column finds the field or the subjects that a column's name stands for.
func (tab *table) column(name string) (c tableColumn) {
	claims := 0
	for i := range tab.t.fields {
		if f := tab.t.fields[i].field; f.Path == name {
			claims++
			c.node = &node{field: f}
		}
	}
	if claims != 1 {
		c.node = nil
	}
	for i, rule := range tab.t.rules {
		if rule.Subject != "" && rule.Subject == name {
			c.rules = append(c.rules, i)
		}
	}
	return c
}

// cells reads the rows, or the columns of a columnar reply.
func (r *replier) cells(tab *table, values bool) error {
	if values && (r.o.columnar || r.o.unknownForm) {
		columnar := r.o.columnar
		if !columnar {
			var err error
			if columnar, err = r.guessForm(len(tab.columns)); err != nil {
				return err
			}
		}
		if columnar {
			return r.unitOf('[', func(pos int) (int, error) { return r.h.columnar(tab, pos) })
		}
	}
	return r.s.array(func() error {
		return r.unitOf('[', func(pos int) (int, error) { return r.h.row(tab, pos) })
	})
}

// guessForm tells from the first array of values whether it is a column: ES|QL calls both forms the same, and a request by id
// does not tell which it is. Where there are as many rows as columns it is taken for a row; cells of a wrong
// place do not authenticate.
func (r *replier) guessForm(columns int) (columnar bool, err error) {
	if _, err := r.s.peek(); err != nil {
		return false, err
	}
	for {
		h := hitReader{b: r.s.buf[r.s.pos:r.s.end]}
		count, first := 0, true
		_, err := h.elements(0, func(pos int) (int, error) {
			if !first {
				return pos, errShort // enough was seen
			}
			if h.b[pos] != '[' { // neither form
				first, count = false, columns
				return pos, errShort
			}
			end, err := h.elements(pos, func(pos int) (int, error) {
				count++
				return h.skip(pos)
			})
			first = err != nil
			return end, err
		})
		switch {
		case !first, err == nil: // the first array is there
			return count != columns, nil
		case !errors.Is(err, errShort):
			return false, nil // told once more when it is read
		case count > columns+1: // the last one may be cut
			return true, nil
		case r.s.end-r.s.pos >= windowSize/2:
			return false, nil
		}
		if err := r.s.fill(); errors.Is(err, errShort) {
			return false, nil
		} else if err != nil {
			return false, err
		}
	}
}

// row notes the subjects and the tokens of one row.
func (h *hitReader) row(tab *table, pos int) (int, error) {
	h.tableDoc(tab)
	i := 0
	return h.elements(pos, func(pos int) (int, error) {
		var c tableColumn
		if i < len(tab.columns) {
			c = tab.columns[i]
		}
		i++
		if c.node != nil {
			return h.protected(pos, c.node, 1)
		}
		end, err := h.skip(pos)
		if err == nil {
			h.cellSubject(c, pos, end)
		}
		return end, err
	})
}

// tableDoc begins what a row shows.
func (h *hitReader) tableDoc(tab *table) {
	h.doc = len(h.u.docs)
	h.u.docs = append(h.u.docs, shownDoc{t: tab.t, seen: len(h.u.seen)})
	for range tab.t.rules {
		h.u.seen = append(h.u.seen, subjectSeen{})
	}
}

func (h *hitReader) cellSubject(c tableColumn, start, end int) {
	for _, rule := range c.rules {
		x := &h.u.seen[h.u.docs[h.doc].seen+rule]
		x.count++
		x.start, x.end = start, end
	}
}

// columnar notes the tokens of all columns, with a document for each row that has some, and then the subjects of these rows.
func (h *hitReader) columnar(tab *table, pos int) (int, error) {
	docs := map[int]int{} // by row
	var subjects []int    // places of columns that hold subjects
	var columns []int
	i := -1
	end, err := h.elements(pos, func(pos int) (int, error) {
		if i++; i >= len(tab.columns) || h.b[pos] != '[' {
			return h.skip(pos)
		}
		c := tab.columns[i]
		if c.node == nil {
			if c.rules != nil {
				subjects, columns = append(subjects, pos), append(columns, i)
			}
			return h.skip(pos)
		}
		row := -1
		return h.elements(pos, func(pos int) (int, error) {
			row++
			from := len(h.u.tokens)
			h.doc = 0
			if len(h.u.docs) == 0 {
				h.tableDoc(tab) // for the target, while a cell is read
			}
			end, err := h.protected(pos, c.node, 1)
			if from < len(h.u.tokens) {
				doc, ok := docs[row]
				if !ok {
					h.tableDoc(tab)
					doc = h.doc
					docs[row] = doc
				}
				for ; from < len(h.u.tokens); from++ {
					h.u.tokens[from].doc = doc
				}
			}
			return end, err
		})
	})
	if err != nil || len(docs) == 0 {
		return end, err
	}
	for n, at := range subjects {
		row := -1
		_, err := h.elements(at, func(pos int) (int, error) {
			row++
			end, err := h.skip(pos)
			if doc, ok := docs[row]; ok && err == nil {
				h.doc = doc
				h.cellSubject(tab.columns[columns[n]], pos, end)
			}
			return end, err
		})
		if err != nil {
			return end, err
		}
	}
	return end, nil
}

// events reads the hits of an EQL reply: single events, or sequences of them.
func (r *replier) events() error {
	return r.only("hits", func() error {
		var events, sequences bool
		return r.s.object(func(name []byte) error {
			switch {
			case !events && string(name) == "events":
				events = true
				return r.hits(r.readHit)
			case !sequences && string(name) == "sequences":
				sequences = true
				return r.s.array(func() error {
					return r.only("events", func() error { return r.hits(r.readHit) })
				})
			}
			return r.s.copyValue()
		})
	})
}

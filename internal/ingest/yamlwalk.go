package ingest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

// MappingError is one mistake in a mapping file.
type MappingError struct {
	File         string
	Line, Column int // from 1; Column counts characters
	Message      string
}

// Error returns "file:line:column: message".
func (e MappingError) Error() string {
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Column, e.Message)
}

// MappingErrors are all mistakes of a mapping file in the order of the text.
type MappingErrors []MappingError

// Error returns one line for each mistake.
func (e MappingErrors) Error() string {
	lines := make([]string, len(e))
	for i, one := range e {
		lines[i] = one.Error()
	}
	return strings.Join(lines, "\n")
}

func (e MappingErrors) sort() {
	slices.SortStableFunc(e, func(a, b MappingError) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
}

type node = yaml.Node

const scalar = yaml.ScalarNode

// walker reads YAML nodes and collects mistakes instead of stopping at the first, which is what decoding into
// structs would do.
type walker struct {
	file string
	errs MappingErrors
}

func (w *walker) fail(n *node, format string, args ...any) {
	w.errs = append(w.errs, MappingError{w.file, max(n.Line, 1), max(n.Column, 1), fmt.Sprintf(format, args...)})
}

// document returns the root of the only document.
func (w *walker) document(data []byte) (*node, bool) {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	var doc, second node
	if err == nil {
		err = loader.Load(&doc)
	}
	if err == io.EOF {
		w.fail(&node{}, "the file is empty")
		return nil, false
	}
	if err != nil {
		at := &node{}
		message := err.Error()
		var le *yaml.LoadError
		if errors.As(err, &le) {
			at.Line, at.Column = le.Mark.Line, le.Mark.Column
			message = le.Message
		}
		w.fail(at, "not YAML: %s", message)
		return nil, false
	}
	if err := loader.Load(&second); err != io.EOF {
		w.fail(&second, "one document only: nothing may follow the first")
		return nil, false
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		w.fail(&doc, "the file is empty")
		return nil, false
	}
	return doc.Content[0], true
}

type entry struct{ key, value *node }

// entries returns the members of a YAML mapping in order. A missing or null node has none.
func (w *walker) entries(n *node) []entry {
	if n == nil || n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		w.fail(n, "must be a list of key: value%s", aliasHint(n))
		return nil
	}
	var list []entry
	seen := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.Tag == "!!merge" {
			w.fail(key, "keys must be plain strings")
			continue
		}
		if line, twice := seen[key.Value]; twice {
			w.fail(key, "%q stands twice, first on line %d", key.Value, line)
			continue
		}
		seen[key.Value] = key.Line
		list = append(list, entry{key, value})
	}
	return list
}

// object returns the members of a YAML mapping that may have only the known keys. It is false for a
// missing node and for anything else than a mapping.
func (w *walker) object(n *node, known ...string) (map[string]*node, bool) {
	before := len(w.errs)
	list := w.entries(n)
	if n == nil || n.Kind != yaml.MappingNode && len(w.errs) > before {
		return nil, false
	}
	o := map[string]*node{}
	for _, e := range list {
		if !slices.Contains(known, e.key.Value) {
			w.fail(e.key, "unknown key %q; known here: %s", e.key.Value, strings.Join(known, ", "))
			continue
		}
		o[e.key.Value] = e.value
	}
	return o, true
}

// list returns the items of a non-empty YAML list.
func (w *walker) list(n *node, what string) []*node {
	if n.Kind != yaml.SequenceNode || len(n.Content) == 0 {
		w.fail(n, "%s must be a list with at least one item%s", what, aliasHint(n))
		return nil
	}
	return n.Content
}

func (w *walker) str(n *node, what string) (string, bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!str" {
		w.fail(n, "%s must be a string%s", what, aliasHint(n))
		return "", false
	}
	return n.Value, true
}

func (w *walker) num(n *node, what string, low, high int) int {
	v, err := strconv.Atoi(n.Value)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil || v < low || v > high {
		w.fail(n, "%s must be a whole number from %d to %d", what, low, high)
		return low
	}
	return v
}

func aliasHint(n *node) string {
	if n.Kind == yaml.AliasNode {
		return " (aliases are not supported)"
	}
	return ""
}

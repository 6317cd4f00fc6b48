package rewrite

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/policy"
)

// filterPath is what the parameter filter_path leaves of a reply, as Elasticsearch reads it (FilterPath and
// FilterPathBasedFilter): patterns of names, "*" inside a name, "**" for any number of names. A pattern keeps all
// below the place it names; one with a leading minus removes that. nil keeps everything.
type filterPath struct {
	include, exclude [][]string // patterns, split into names
}

var errFilterPath = errors.New("filter_path is not UTF-8")

// newFilterPath reads the decoded value of filter_path. It gives nil when nothing is filtered.
func newFilterPath(value string) (*filterPath, error) {
	if !utf8.ValidString(value) {
		return nil, errFilterPath
	}
	f := &filterPath{}
	for _, pattern := range strings.Split(value, ",") {
		pattern = strings.TrimFunc(pattern, blankRune)
		rest, minus := strings.CutPrefix(pattern, "-")
		if minus {
			rest = strings.TrimFunc(rest, blankRune)
		}
		if rest == "" {
			continue
		}
		if minus {
			f.exclude = append(f.exclude, splitPattern(rest))
		} else {
			f.include = append(f.include, splitPattern(rest))
		}
	}
	if f.include == nil && f.exclude == nil {
		return nil, nil
	}
	return f, nil
}

// blankRune is what Java's String.trim removes.
func blankRune(r rune) bool { return r <= ' ' }

// splitPattern splits at dots that no backslash escapes. A dot at the beginning of what is left does not split: the
// server takes the rest as one name.
func splitPattern(pattern string) []string {
	var parts []string
	for {
		split, escaped := -1, false
		for i := 0; i < len(pattern) && split < 0; i++ {
			switch {
			case pattern[i] == '.':
				split = i
			case pattern[i] == '\\' && i+1 < len(pattern) && pattern[i+1] == '.':
				escaped = true
				i++
			}
		}
		part := pattern
		if split > 0 {
			part = pattern[:split]
		}
		if escaped {
			part = strings.ReplaceAll(part, `\.`, ".")
		}
		parts = append(parts, part)
		if split <= 0 {
			return parts
		}
		pattern = pattern[split+1:]
	}
}

// keeps reports whether the scalar at the path of names stays in a reply.
func (f *filterPath) keeps(path ...string) bool {
	if f == nil {
		return true
	}
	return (f.include == nil || matchesAny(f.include, path)) && !matchesAny(f.exclude, path)
}

// perItem reports whether each item of a bulk reply surely keeps an entry: each has a status and an _id.
func (f *filterPath) perItem() bool {
	for _, action := range [...]string{"index", "create", "update", "delete"} {
		if !f.keeps("items", action, "status") && !f.keeps("items", action, "_id") {
			return false
		}
	}
	return true
}

func matchesAny(patterns [][]string, path []string) bool {
	for _, p := range patterns {
		if matchesPath(p, path) {
			return true
		}
	}
	return false
}

// matchesPath reports whether the pattern matches the first names of path.
func matchesPath(pattern, path []string) bool {
	// at[k] tells whether the first k names of the pattern are used up.
	at, next := make([]bool, len(pattern)), make([]bool, len(pattern))
	at[0] = true
	for _, name := range path {
		clear(next)
		for k := range pattern {
			if !at[k] {
				continue
			}
			if policy.Glob(pattern[k], name) {
				if k+1 == len(pattern) {
					return true
				}
				next[k+1] = true
			}
			if k > 0 && pattern[k-1] == "**" {
				next[k] = true
			}
		}
		at, next = next, at
	}
	return false
}

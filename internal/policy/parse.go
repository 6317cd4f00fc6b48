package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds of a policy file. They keep a mistaken file from being worked on for long.
const (
	maxFile      = 1 << 20 // bytes
	maxPath      = 512     // bytes of a canonical path
	maxPathParts = 32
	maxPattern   = 255 // bytes; Elasticsearch's limit for an index name
	maxProblems  = 200
)

// Load reads and parses a policy file. Mistakes in it are Problems; a file that can't be read is another error.
func Load(path string) (*Policy, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("policy file: %w; name it with ESPROXY_FIELDS", err)
	}
	return Parse(path, data)
}

// Parse makes a Policy of the YAML text data. name stands for the file in messages. The error, if any, is
// Problems: every mistake at once, in the order of the file.
func Parse(name string, data []byte) (*Policy, error) {
	p := &parser{file: name}
	policy := p.parse(data)
	if len(p.problems) == 0 {
		return policy, nil
	}
	slices.SortStableFunc(p.problems, func(a, b Problem) int {
		if a.Line != b.Line {
			return a.Line - b.Line
		}
		return a.Col - b.Col
	})
	if len(p.problems) > maxProblems {
		last := p.problems[maxProblems]
		last.Text = fmt.Sprintf("%d more problems; correct the first ones", len(p.problems)-maxProblems)
		p.problems = append(p.problems[:maxProblems:maxProblems], last)
	}
	return nil, p.problems
}

// parser collects the problems of one file. Its methods walk YAML nodes, because a decoder would stop at
// the first mistake or lose its place.
type parser struct {
	file     string
	problems Problems
	places   map[any]*yaml.Node // where a rule, a pattern or a field stands
}

// patternOf is the key of one pattern of a rule in places.
type patternOf struct {
	*Rule
	int
}

func (p *parser) bad(n *yaml.Node, format string, args ...any) {
	p.badAt(n.Line, n.Column, format, args...)
}

func (p *parser) badAt(line, col int, format string, args ...any) {
	p.problems = append(p.problems, Problem{File: p.file, Line: max(line, 1), Col: max(col, 1), Text: fmt.Sprintf(format, args...)})
}

func (p *parser) parse(data []byte) *Policy {
	if len(data) > maxFile {
		p.badAt(1, 1, "the file has %d bytes; a policy may have %d", len(data), maxFile)
		return nil
	}
	root := p.document(data)
	if root == nil {
		return nil
	}
	p.plainYAML(root)
	p.places = map[any]*yaml.Node{}
	out := &Policy{Tokens: Tokens{MaxTTL: DefaultMaxTTL}, byName: map[string]*Rule{}, conflicts: map[[2]int]*Conflict{}}
	var rules, grants *yaml.Node
	p.mapping(root, "the policy", keys{
		"version": {required: true, read: func(n *yaml.Node) {
			if n.Kind != yaml.AliasNode && (n.Kind != yaml.ScalarNode || n.Value != "1") {
				p.bad(n, "version is not 1; this program reads version 1 only")
			}
		}},
		"rules":  {required: true, read: func(n *yaml.Node) { rules = n }},
		"grants": {read: func(n *yaml.Node) { grants = n }},
		"tokens": {read: func(n *yaml.Node) { p.tokens(n, &out.Tokens) }},
		"key_id": {read: func(n *yaml.Node) { out.KeyID = p.keyID(n) }},
		"allow":  {read: func(n *yaml.Node) { p.allow(n, out) }},
	})
	if rules != nil {
		p.rules(rules, out)
	}
	p.grants(grants, out)
	return out
}

// document gives the root node of the file's only YAML document.
func (p *parser) document(data []byte) *yaml.Node {
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err != nil {
		p.syntax(err)
		return nil
	}
	var doc yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) {
		p.badAt(1, 1, "the file is empty; write at least version and rules")
		return nil
	} else if err != nil {
		p.syntax(err)
		return nil
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		p.badAt(1, 1, "the file is empty; write at least version and rules")
		return nil
	}
	var second yaml.Node
	if err := loader.Load(&second); err == nil {
		p.bad(&second, "a second YAML document begins here; a policy is one document")
	} else if !errors.Is(err, io.EOF) {
		p.syntax(err)
	}
	return doc.Content[0]
}

func (p *parser) syntax(err error) {
	var e *yaml.LoadError
	if errors.As(err, &e) {
		p.badAt(e.Mark.Line, e.Mark.Column, "this is not YAML: %s; correct the syntax", e.Message)
		return
	}
	var es *yaml.LoadErrors
	if errors.As(err, &es) && len(es.Errors) > 0 {
		for _, e := range es.Errors {
			p.badAt(e.Mark.Line, e.Mark.Column, "this can't be read: %s; correct the syntax", e.Message)
		}
		return
	}
	p.badAt(1, 1, "this is not YAML; correct the syntax")
}

// plainYAML refuses what lets one text stand in two places or mean another type than it shows.
func (p *parser) plainYAML(n *yaml.Node) {
	if n.Kind == yaml.AliasNode {
		p.bad(n, "alias *%s; write the value out, a policy has no aliases", shown(n.Value))
		return // what it points to is visited in its own place
	}
	if n.Anchor != "" {
		p.bad(n, "anchor &%s; remove it, a policy has no anchors", shown(n.Anchor))
	}
	if n.Style&yaml.TaggedStyle != 0 {
		p.bad(n, "tag %s; remove it, a policy has no tags", shown(n.Tag))
	}
	for _, c := range n.Content {
		p.plainYAML(c)
	}
}

// key says how to read the value of one known key.
type key struct {
	required bool
	read     func(*yaml.Node)
}

type keys map[string]key

// mapping reads a mapping with known keys.
func (p *parser) mapping(n *yaml.Node, what string, known keys) {
	seen := map[string]bool{}
	ok := p.pairs(n, what, func(k, v *yaml.Node) {
		seen[k.Value] = true
		if use, ok := known[k.Value]; ok {
			use.read(v)
			return
		}
		names := make([]string, 0, len(known))
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		p.bad(k, "unknown key %s; %s knows %s", quoted(k.Value), what, strings.Join(names, ", "))
	})
	if !ok {
		return
	}
	for _, name := range slices.Sorted(requiredKeys(known)) {
		if !seen[name] {
			p.bad(n, "%s has no %s; add it", what, name)
		}
	}
}

func requiredKeys(known keys) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name, k := range known {
			if k.required && !yield(name) {
				return
			}
		}
	}
}

// pairs calls visit for every key of a mapping that is a text and stands there for the first time.
// It reports whether n is a mapping.
func (p *parser) pairs(n *yaml.Node, what string, visit func(k, v *yaml.Node)) bool {
	if n.Kind != yaml.MappingNode {
		if n.Kind != yaml.AliasNode {
			p.bad(n, "%s is not a mapping; write key: value pairs", what)
		}
		return false
	}
	first := map[string]*yaml.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if !p.isText(k, "a key of "+what) {
			continue
		}
		if before := first[k.Value]; before != nil {
			p.bad(k, "key %s stands here a second time, first in line %d; remove one", quoted(k.Value), before.Line)
			continue
		}
		first[k.Value] = k
		visit(k, v)
	}
	return true
}

// list calls visit for every element of a sequence and reports whether n is one.
func (p *parser) list(n *yaml.Node, what string, visit func(i int, v *yaml.Node)) bool {
	if n.Kind != yaml.SequenceNode {
		if n.Kind != yaml.AliasNode {
			p.bad(n, "%s is not a list; write [a, b] or lines that begin with a hyphen", what)
		}
		return false
	}
	for i, v := range n.Content {
		visit(i, v)
	}
	return true
}

// isText reports whether n is a string. Plain 123, true, null and dates are other types to YAML, and which
// text they stand for is a matter of taste; in quotes it is not.
func (p *parser) isText(n *yaml.Node, what string) bool {
	switch {
	case n.Kind == yaml.AliasNode:
		return false
	case n.Kind != yaml.ScalarNode:
		p.bad(n, "%s is not a text; write one word, in quotes if need be", what)
		return false
	case n.Tag != "!!str":
		p.bad(n, "%s is not a text to YAML; put it in quotes", what)
		return false
	case !utf8.ValidString(n.Value):
		p.bad(n, "%s is not valid UTF-8; correct it", what)
		return false
	}
	return true
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Tag == "!!null"
}

// choice reads one of a few words.
func choice[T comparable](p *parser, n *yaml.Node, what string, words []named[T]) (v T, ok bool) {
	if !p.isText(n, what) {
		return v, false
	}
	list := make([]string, len(words))
	for i, w := range words {
		if w.word == n.Value {
			return w.value, true
		}
		list[i] = w.word
	}
	p.bad(n, "%s is %s; it can be %s", what, quoted(n.Value), strings.Join(list, ", "))
	return v, false
}

func (p *parser) tokens(n *yaml.Node, t *Tokens) {
	p.mapping(n, "tokens", keys{
		"revoked": {read: func(n *yaml.Node) {
			if isNull(n) {
				return
			}
			t.Revoked = map[string]bool{}
			p.list(n, "revoked", func(_ int, v *yaml.Node) {
				switch {
				case !p.isText(v, "a revoked id"):
				case strings.HasPrefix(v.Value, "espt1."):
					p.bad(v, "revoked holds a whole token; write the token's id, and take the token out of this file")
				case !isName(v.Value, 64, true):
					p.bad(v, "a revoked id is not 1 to 64 letters, digits, hyphens and underscores; write the token's id as the audit log shows it")
				default:
					t.Revoked[v.Value] = true
				}
			})
		}},
		"not_before": {read: func(n *yaml.Node) {
			if isNull(n) || n.Kind == yaml.AliasNode {
				return
			}
			at, err := time.Parse(time.RFC3339, n.Value)
			if n.Kind != yaml.ScalarNode || err != nil {
				p.bad(n, "not_before is not a time like 2026-01-31T00:00:00Z (RFC 3339); write one, or null")
				return
			}
			t.NotBefore = at
		}},
		"max_ttl": {read: func(n *yaml.Node) {
			if !p.isText(n, "max_ttl") {
				return
			}
			d, err := time.ParseDuration(n.Value)
			switch {
			case err != nil:
				p.bad(n, "max_ttl is not a duration like 720h or 30m; write one in hours, minutes and seconds")
			case d <= 0:
				p.bad(n, "max_ttl is not above zero; write the longest lifetime a token may have")
			default:
				t.MaxTTL = d
			}
		}},
	})
}

func (p *parser) keyID(n *yaml.Node) string {
	if isNull(n) || n.Kind == yaml.AliasNode {
		return ""
	}
	// Eight digits may be a number to YAML (also 12e45678), but the text is what was meant.
	if n.Kind != yaml.ScalarNode || !isHex8(n.Value) {
		p.bad(n, "key_id is not eight hexadecimal digits; write the id that esproxy keygen printed, in quotes, or null")
		return ""
	}
	return strings.ToLower(n.Value)
}

func isHex8(s string) bool {
	return len(s) == 8 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// isName reports whether s is 1 to max of [a-z0-9_-], and A-Z where upper is set.
func isName(s string, limit int, upper bool) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '_', c == '-', upper && 'A' <= c && c <= 'Z':
		default:
			return false
		}
	}
	return s != "" && len(s) <= limit
}

// shown makes a text of the file fit for a message: printable and short.
func shown(s string) string {
	var b strings.Builder
	n := 0
	for _, r := range s {
		if n++; n > 64 {
			b.WriteString("…")
			break
		}
		if !unicode.IsPrint(r) {
			r = '\uFFFD'
		}
		b.WriteRune(r)
	}
	return b.String()
}

func quoted(s string) string { return `"` + shown(s) + `"` }

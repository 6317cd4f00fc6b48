package policy

import (
	"fmt"
	"slices"
	"strings"
)

// Conflict tells that two rules that apply to one target disagree about one path.
type Conflict struct {
	A, B *Rule  // in policy order
	Path string // the path that both claim, or the inner one where one lies under the other
	// Subject is set when Path is one rule's subject and lies at, under or above a path the other protects.
	Subject bool
}

// Error tells both rules and the path. It holds nothing but the operator's own words.
func (c *Conflict) Error() string {
	if c.Subject {
		return fmt.Sprintf("rules %q and %q apply to the same target and %q is the subject of one and protected by the other", c.A.Name, c.B.Name, c.Path)
	}
	return fmt.Sprintf("rules %q and %q apply to the same target and both protect %q", c.A.Name, c.B.Name, c.Path)
}

// Match gives the rules that claim any of the names, in policy order; nil when none does. names
// are everything one target is known by: as in the request, and what that resolves to. The
// slice is shared: callers don't change it. A Conflict means that the rules can't be united; the request is to be refused.
func (p *Policy) Match(names []string) ([]*Rule, *Conflict) {
	var out []*Rule
	for i, r := range p.Rules {
		if !r.MatchesAny(names) {
			continue
		}
		if out == nil {
			out = p.Rules[i : i+1 : i+1] // one rule is the rule, so nothing is allocated
			continue
		}
		for _, other := range out {
			if c := p.conflicts[[2]int{other.ordinal, r.ordinal}]; c != nil {
				return nil, c
			}
		}
		out = append(out, r) // there is no spare capacity at first, so this copies
	}
	return out, nil
}

// Matches reports whether the rule's patterns claim one name of an index, alias or data stream. Of a backing
// index alone, the name of its data stream is guessed, see MatchesAny.
func (r *Rule) Matches(name string) bool {
	name = withoutSelector(name)
	return r.claims(name) || r.claimsStream(name) != [2]string{}
}

// MatchesAny reports whether the rule's patterns claim one of the names that a target is known by. The date in the name of a
// backing index can belong to the data stream's own name ("logs-2026.11.25") or not ("logs"): where names holds one of the
// two, that is the stream, and it alone counts.
func (r *Rule) MatchesAny(names []string) bool {
	for _, name := range names {
		if r.claims(withoutSelector(name)) {
			return true
		}
	}
	for _, name := range names {
		// Rarely reached: whoever lists a backing index also lists its stream, which was looked at above.
		stream := r.claimsStream(withoutSelector(name))
		if stream != [2]string{} && !slices.Contains(names, stream[0]) && !slices.Contains(names, stream[1]) {
			return true
		}
	}
	return false
}

func (r *Rule) claims(name string) bool {
	for _, pattern := range r.Indices {
		if claims(pattern, name) {
			return true
		}
	}
	return false
}

// claimsStream gives both readings of the stream of a backing index, if the rule claims one of them.
func (r *Rule) claimsStream(name string) (stream [2]string) {
	rest, ok := backing(name)
	if !ok {
		return stream
	}
	if undated := withoutDate(rest); r.claims(rest) || r.claims(undated) {
		return [2]string{rest, undated}
	}
	return stream
}

// IsSystem reports whether a name begins with a dot and is not that of a backing index or failure
// store of an ordinary data stream. Only patterns that begin with a dot claim such names.
func IsSystem(name string) bool {
	if !strings.HasPrefix(name, ".") {
		return false
	}
	rest, ok := backing(name)
	return !ok || strings.HasPrefix(rest, ".")
}

// IsFailureStore reports whether name is that of an index of a data stream's failure store.
func IsFailureStore(name string) bool {
	_, ok := backing(name)
	return ok && strings.HasPrefix(name, ".fs-")
}

// CouldMatch reports whether Rule.CouldMatch is true of any rule.
func (p *Policy) CouldMatch(expression string) bool {
	for _, r := range p.Rules {
		if r.CouldMatch(expression) {
			return true
		}
	}
	return false
}

// CouldMatch reports whether an index expression could name something that the rule's patterns
// claim. expression is one part without a comma; "*" is a wildcard, "" and "_all" mean
// everything, and of "cluster:name" the name counts. It compares names alone: what an alias stands for only the cluster can tell.
// Where it can't tell (date math, exclusions on a remote cluster) the answer is true.
func (r *Rule) CouldMatch(expression string) bool {
	e := strings.TrimPrefix(withoutSelector(expression), "-")
	if _, name, ok := strings.Cut(e, ":"); ok && !strings.HasPrefix(e, "<") {
		if e = name; strings.HasPrefix(e, "-") {
			return true // all but that
		}
	}
	if e == "" || e == "_all" || strings.HasPrefix(e, "<") || strings.HasPrefix(e, "%3C") || strings.HasPrefix(e, "%3c") {
		return true
	}
	literal := !strings.Contains(e, "*")
	if literal && r.Matches(e) {
		return true
	}
	for _, pattern := range r.Indices {
		if !literal && meets(e, pattern) {
			return true
		}
		// The expression may name a data stream of which the pattern claims backing indices.
		if strings.HasPrefix(pattern, ".") && (intersect(pattern, ".ds-"+e+"-*") || intersect(pattern, ".fs-"+e+"-*")) {
			return true
		}
	}
	return false
}

// meets reports whether an expression with wildcards and a pattern could mean one name. A wildcard of the
// expression may reach hidden names (expand_wildcards), one of a pattern does not.
func meets(expression, pattern string) bool {
	hidden := strings.HasPrefix(expression, ".") && !strings.HasPrefix(pattern, ".")
	return !hidden && intersect(expression, pattern) ||
		intersect(expression, ".ds-"+pattern+"-*") || intersect(expression, ".fs-"+pattern+"-*")
}

// claims reports whether a pattern claims exactly this name. System names need a pattern that begins with a dot.
func claims(pattern, name string) bool {
	if strings.HasPrefix(name, ".") && !strings.HasPrefix(pattern, ".") {
		return false
	}
	return Glob(pattern, name)
}

// withoutSelector removes "::data" and "::failures", which choose a part of a data stream.
func withoutSelector(name string) string {
	if i := strings.Index(name, "::"); i >= 0 {
		return name[:i]
	}
	return name
}

// backing reports whether name is that of a backing index (".ds-") or failure store (".fs-")
// of a data stream, and gives what stands between that prefix and the generation
// (org.elasticsearch.cluster.metadata.DataStream: at least six digits).
func backing(name string) (string, bool) {
	rest, ok := strings.CutPrefix(name, ".ds-")
	if !ok {
		if rest, ok = strings.CutPrefix(name, ".fs-"); !ok {
			return "", false
		}
	}
	i := strings.LastIndexByte(rest, '-')
	if i <= 0 || len(rest)-i-1 < 6 || !isDigits(rest[i+1:]) {
		return "", false
	}
	return rest[:i], true
}

// withoutDate removes "-yyyy.MM.dd" from the end of what backing gives. Callers try both readings,
// because a stream's own name may end like a date and old servers wrote no date.
func withoutDate(rest string) string {
	const date = "-yyyy.MM.dd"
	if n := len(rest) - len(date); n > 0 {
		d := rest[n:]
		if d[0] == '-' && d[5] == '.' && d[8] == '.' && isDigits(d[1:5]) && isDigits(d[6:8]) && isDigits(d[9:]) {
			return rest[:n]
		}
	}
	return rest
}

func isDigits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}

// Glob matches name against a pattern in which "*" stands for any number of bytes and all else for itself
// (org.elasticsearch.common.regex.Regex.simpleMatch). It does not allocate.
func Glob(pattern, name string) bool {
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(name) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && pattern[i] == name[j]:
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(pattern) && pattern[i] == '*' {
		i++
	}
	return i == len(pattern)
}

// intersect reports whether some name matches both patterns.
func intersect(a, b string) bool {
	// row[j] tells whether some text is matched by a[:i] and b[:j] at once.
	row, next := make([]bool, len(b)+1), make([]bool, len(b)+1)
	row[0] = true
	for j := 1; j <= len(b) && b[j-1] == '*'; j++ {
		row[j] = true
	}
	for i := 1; i <= len(a); i++ {
		next[0] = row[0] && a[i-1] == '*'
		for j := 1; j <= len(b); j++ {
			switch {
			case a[i-1] == '*' && b[j-1] == '*':
				next[j] = row[j] || next[j-1]
			case a[i-1] == '*':
				next[j] = row[j] || next[j-1]
			case b[j-1] == '*':
				next[j] = next[j-1] || row[j]
			default:
				next[j] = a[i-1] == b[j-1] && row[j-1]
			}
		}
		row, next = next, row
	}
	return row[len(b)]
}

// overlap reports whether some name could be claimed by both patterns, directly or because
// it is the backing index of a data stream that one of them claims.
func overlap(a, b string) bool {
	if strings.HasPrefix(a, ".") == strings.HasPrefix(b, ".") && intersect(a, b) {
		return true
	}
	for _, prefix := range [...]string{".ds-", ".fs-"} {
		if strings.HasPrefix(a, ".") && intersect(a, prefix+b+"-*") ||
			strings.HasPrefix(b, ".") && intersect(b, prefix+a+"-*") {
			return true
		}
	}
	return false
}

// disagree gives the conflict of two rules on one document, or nil.
func disagree(a, b *Rule) *Conflict {
	for _, pair := range [...][2]*Rule{{a, b}, {b, a}} {
		for _, f := range pair[0].Fields {
			if pair[1].claimed(f.Path) != nil {
				return &Conflict{A: a, B: b, Path: f.Path}
			}
		}
	}
	for _, pair := range [...][2]*Rule{{a, b}, {b, a}} {
		subject := pair[0].Subject
		if subject == "" {
			continue
		}
		if pair[1].claimed(subject) != nil {
			return &Conflict{A: a, B: b, Path: subject, Subject: true}
		}
		for _, f := range pair[1].Fields {
			if under(f.Path, subject) {
				return &Conflict{A: a, B: b, Path: subject, Subject: true}
			}
		}
	}
	return nil
}

// under reports whether path lies below parent.
func under(path, parent string) bool {
	return len(path) > len(parent) && path[len(parent)] == '.' && strings.HasPrefix(path, parent)
}

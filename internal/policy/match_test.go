package policy_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/esproxy/esproxy/internal/policy"
)

// withPatterns makes a policy whose rules, named by their order, have these patterns.
func withPatterns(t testing.TB, patterns ...string) *policy.Policy {
	t.Helper()
	var b strings.Builder
	b.WriteString("version: 1\nrules:\n")
	for i, p := range patterns {
		n := string(rune('a' + i))
		b.WriteString("  - {name: " + n + ", indices: [\"" + p + "\"], fields: {field_" + n + ": {mode: encrypt}}}\n")
	}
	return parse(t, b.String())
}

func names(rules []*policy.Rule) string {
	var out []string
	for _, r := range rules {
		out = append(out, r.Name)
	}
	return strings.Join(out, " ")
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"user", "user", true},
		{"user", "users", false},
		{"user", "User", false},
		{"user-*", "user-", true},
		{"user-*", "user-1", true},
		{"user-*", "user", false},
		{"*user*", "user", true},
		{"a*b*c", "abcbc", true},
		{"a*b*c", "abcb", false},
		{"**", "x", true},
		{"*", "user", true},
		{"*", "", true},
		{"*", ".kibana", false},
		{"*kibana", ".kibana", false},
		{".kibana", ".kibana", true},
		{".kib*", ".kibana_1", true},
		{".*", ".kibana", true},
		{".*", "user", false},
		// Backing indices and failure stores belong to their data stream.
		{"logs-app", ".ds-logs-app-2026.11.24-000001", true},
		{"logs-app", ".fs-logs-app-2026.11.24-000001", true},
		{"logs-*", ".ds-logs-app-2026.11.24-000001", true},
		{"*", ".ds-logs-app-2026.11.24-000001", true},
		{"*", ".ds-logs-app-2026.11.24-1234567", true},
		{"*", ".ds-logs-app-000001", true},
		{"logs-app", ".ds-logs-app-000001", true},
		{"logs", ".ds-logs-app-2026.11.24-000001", false},
		{"logs-2026.11.24", ".ds-logs-2026.11.24-000001", true},
		{".ds-logs-*", ".ds-logs-app-2026.11.24-000001", true},
		{"*", ".ds-logs-app-2026.11.24-00001", false},
		{"*", ".ds-logs-app-2026.11.24-00000a", false},
		{"*", ".ds-logs", false},
		{"*", ".ds--000001", false},
		{"*", ".ds-.kibana-2026.11.24-000001", false},
		{".kibana", ".ds-.kibana-2026.11.24-000001", true},
		// Parts of a data stream are chosen by a selector.
		{"logs-app", "logs-app::failures", true},
		{"logs-app", "logs-app::data", true},
		{"logs", "logs-app::data", false},
	} {
		p := withPatterns(t, c.pattern)
		if got := p.Rules[0].Matches(c.name); got != c.want {
			t.Errorf("pattern %q claims %q: got %v, want %v", c.pattern, c.name, got, c.want)
		}
		got, conflict := p.Match([]string{c.name})
		if (len(got) == 1) != c.want || conflict != nil {
			t.Errorf("pattern %q, Match of %q: got %v, %v, want %v", c.pattern, c.name, got, conflict, c.want)
		}
	}
}

func TestMatchUnitesRules(t *testing.T) {
	p := withPatterns(t, "user", "*", "user-*", ".kibana", "people")
	for _, c := range []struct {
		names []string
		want  string
	}{
		{nil, ""},
		{[]string{"other"}, "b"},
		{[]string{"user"}, "a b"},
		{[]string{"people", "user-1"}, "b c e"},
		{[]string{"user-1", "people"}, "b c e"},
		{[]string{".kibana"}, "d"},
		{[]string{".security"}, ""},
		{[]string{".security", "people"}, "b e"},
	} {
		got, conflict := p.Match(c.names)
		if names(got) != c.want || conflict != nil {
			t.Errorf("%q: got %q, %v, want %q", c.names, names(got), conflict, c.want)
		}
	}
	if got := names(p.Rules); got != "a b c d e" {
		t.Errorf("Match changed the policy's rules to %s", got)
	}
}

func TestMatchConflicts(t *testing.T) {
	p := parse(t, `
version: 1
rules:
  - {name: a, indices: [a], subject: who, fields: {card: {mode: encrypt}}}
  - {name: b, indices: [b], fields: {card: {mode: encrypt}}}
  - {name: c, indices: [c], fields: {card.pan: {mode: encrypt}}}
  - {name: d, indices: [d], fields: {who: {mode: encrypt}}}
  - {name: e, indices: [e], fields: {who.name: {mode: encrypt}}}
  - {name: f, indices: [f], subject: card.owner.id, fields: {who_else: {mode: encrypt}}}
  - {name: g, indices: [g], subject: user, fields: {cards: {mode: encrypt}, whom: {mode: encrypt}}}
`)
	for _, c := range []struct{ names, want string }{
		{"a b", `rules "a" and "b" apply to the same target and both protect "card"`},
		{"b a", `rules "a" and "b" apply to the same target and both protect "card"`},
		{"c a", `rules "a" and "c" apply to the same target and both protect "card.pan"`},
		{"a d", `rules "a" and "d" apply to the same target and "who" is the subject of one and protected by the other`},
		{"a e", `rules "a" and "e" apply to the same target and "who" is the subject of one and protected by the other`},
		{"f b", `rules "b" and "f" apply to the same target and "card.owner.id" is the subject of one and protected by the other`},
		{"a g", ""},
		{"a f g", `rules "a" and "f" apply to the same target and "card.owner.id" is the subject of one and protected by the other`},
		{"c f g", ""},
		{"g d c", ""},
		{"d e", `rules "d" and "e" apply to the same target and both protect "who.name"`},
	} {
		got, conflict := p.Match(strings.Fields(c.names))
		switch {
		case c.want == "" && (conflict != nil || len(got) != len(strings.Fields(c.names))):
			t.Errorf("%s: got %q, %v", c.names, names(got), conflict)
		case c.want != "" && (conflict == nil || conflict.Error() != c.want || got != nil):
			t.Errorf("%s: got %q, %v, want %s", c.names, names(got), conflict, c.want)
		}
	}
}

// The date in a backing index's name belongs to the stream's own name or not; where the stream is known, nothing is guessed.
func TestMatchKnowsTheStream(t *testing.T) {
	p := parse(t, `
version: 1
rules:
  - {name: a, indices: ["logs"], fields: {card: {mode: encrypt}}}
  - {name: b, indices: ["logs-2026*"], fields: {card: {mode: encrypt}}}
  - {name: c, indices: [".ds-logs-*"], fields: {other: {mode: encrypt}}}
`)
	for _, c := range []struct{ names, want string }{
		{".ds-logs-2026.11.25-000001 logs", "a c"},
		{"logs .fs-logs-2026.11.25-000001", "a"},
		{".ds-logs-2026.11.25-000001 logs-2026.11.25", "b c"},
		{".ds-logs-2026.11.25-2026.11.25-000001 logs-2026.11.25", "b c"},
		{".ds-logs-000001", "a c"},
	} {
		rules, conflict := p.Match(strings.Fields(c.names))
		if conflict != nil || names(rules) != c.want {
			t.Errorf("%s: got %q, %v; want %q", c.names, names(rules), conflict, c.want)
		}
	}
	// A backing index whose stream nobody knows may be either's.
	if _, conflict := p.Match([]string{".ds-logs-2026.11.25-000001"}); conflict == nil {
		t.Error("no conflict where the stream is not known")
	}
}

func TestMatchAllocatesNothingForOneRule(t *testing.T) {
	p := withPatterns(t, "user", "user-*")
	in := []string{"user-1", "other"}
	if n := testing.AllocsPerRun(100, func() { p.Match(in) }); n != 0 {
		t.Errorf("got %v allocations, want none", n)
	}
}

func TestIsSystem(t *testing.T) {
	got := map[string]bool{}
	for _, n := range []string{"user", ".kibana", ".ds-logs-2026.11.24-000001", ".fs-logs-000001", ".ds-.logs-000001", ".ds-logs", "."} {
		got[n] = policy.IsSystem(n)
	}
	want := map[string]bool{"user": false, ".kibana": true, ".ds-logs-2026.11.24-000001": false, ".fs-logs-000001": false,
		".ds-.logs-000001": true, ".ds-logs": true, ".": true}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestCouldMatch(t *testing.T) {
	for _, c := range []struct {
		pattern, expression string
		want                bool
	}{
		{"user-*", "", true},
		{"user-*", "_all", true},
		{"user-*", "*", true},
		{"user-*", "user-1", true},
		{"user-*", "user", false},
		{"user-*", "use*", true},
		{"user-*", "*-2026", true},
		{"user-*", "*x*y*", true},
		{"user-*", "User*", false},
		{"user-*", "log*", false},
		{"user", "u*r", true},
		{"user", "u*z", false},
		{"user", "*user*", true},
		{"*", "log*", true},
		{"*", ".kibana*", false},
		{"*", ".*", true}, // backing indices
		{"*", ".ds-*", true},
		{"logs-*", ".ds-logs*", true},
		{"logs-*", ".ds-metrics*", false},
		{"logs-*", ".fs-*", true},
		{"logs-*", ".ds-logs-app-2026.11.24-000001", true},
		{".kibana", "*", true}, // with hidden names
		{".kibana", "*bana", true},
		{".kibana", ".*", true},
		{".kibana", "kibana*", false},
		{"user-*", "-user-1*", true},
		{"user-*", "<user-{now/d}>", true},
		{"user-*", "%3Cuser-%7Bnow%2Fd%7D%3E", true},
		{"user-*", "remote:user-1", true},
		{"user-*", "remote:log*", false},
		{"user-*", "remote:*", true},
		{"user-*", "*:user-1", true},
		{"user-*", "remote:-user-1", true},
		{"user-*", "-remote:log", false},
		{"user-*", "remote:<log-{now/d}>", true},
		{"user-*", "<log-{now/d{HH:mm}}>", true},
		{"logs", "lo*::failures", true},
		{"logs", "lo?s", false},
		{".ds-logs*", "logs", true}, // a data stream, by its backing indices
		{".ds-logs*", "log*", true},
		{".ds-logs*", "metrics", false},
	} {
		if got := withPatterns(t, c.pattern).CouldMatch(c.expression); got != c.want {
			t.Errorf("pattern %q could meet %q: got %v, want %v", c.pattern, c.expression, got, c.want)
		}
	}
}

// TestOverlapsAreFound draws two patterns and a name. Where both claim the name, rules that share a
// path do not load, and an expression like either pattern could match.
func TestOverlapsAreFound(t *testing.T) {
	pattern := rapid.StringMatching(`\.?[ab*]{1,5}|\.ds-[ab*.]{1,4}|a?\*?-[0-9*]{2,3}`)
	name := rapid.StringMatching(`\.?[ab]{1,5}|\.[df]s-\.?[ab]{1,4}(-2026\.11\.24)?-000001`)
	met := 0
	rapid.Check(t, func(t *rapid.T) {
		// Names and patterns at random seldom meet, so half of them are made of x.
		x := pattern.Draw(t, "x")
		fitting := strings.ReplaceAll(x, "*", rapid.StringMatching(`[ab]{0,2}`).Draw(t, "text"))
		wider := fitting[:rapid.IntRange(0, len(fitting)).Draw(t, "cut")] + "*"
		y := rapid.OneOf(pattern, rapid.Just(wider)).Draw(t, "y")
		n := rapid.OneOf(name, rapid.Just(fitting)).Draw(t, "name")
		rule := func(name, pattern string) string {
			return "  - {name: " + name + ", indices: [\"" + pattern + "\"], fields: {f: {mode: encrypt}}}\n"
		}
		one, err := policy.Parse("f.yaml", []byte("version: 1\nrules:\n"+rule("x", x)))
		if err != nil {
			return // not a pattern that a rule may have
		}
		two, err := policy.Parse("f.yaml", []byte("version: 1\nrules:\n"+rule("y", y)))
		if err != nil {
			return // not a pattern that a rule may have
		}
		// A backing index of the stream a may also be one of a stream a-2026.11.24. That reading is for requests alone:
		// else "a" and "a-2026*" could not stand side by side.
		undated := strings.Replace(n, "-2026.11.24", "", 1)
		if !one.Rules[0].Matches(undated) || !two.Rules[0].Matches(undated) {
			return
		}
		met++
		if _, err := policy.Parse("f.yaml", []byte("version: 1\nrules:\n"+rule("x", x)+rule("y", y))); err == nil || !strings.Contains(err.Error(), `both protect "f"`) {
			t.Fatalf("%q and %q both claim %q, but load: %v", x, y, n, err)
		}
		if !one.CouldMatch(y) || !two.CouldMatch(x) {
			t.Fatalf("%q and %q both claim %q, but as expressions they do not meet", x, y, n)
		}
	})
	if met == 0 {
		t.Error("no two patterns met: the test shows nothing")
	}
}

func TestGlob(t *testing.T) {
	for _, tc := range []struct {
		pattern, s string
		want       bool
	}{
		{"a", "a", true}, {"a", "ab", false}, {"a*", "ab", true}, {"*a", "ba", true}, {"*a", "ab", false}, {"a*a", "a", false}, {"a*b*c", "axbxc", true},
		{"a*b*c", "acb", false}, {"**", "", true}, {"a*ba", "aba", true}, {"a*ab", "ab", false}, {"*x*", "axb", true}, {"?", "a", false},
	} {
		if got := policy.Glob(tc.pattern, tc.s); got != tc.want {
			t.Errorf("%q %q: got %v", tc.pattern, tc.s, got)
		}
	}
}

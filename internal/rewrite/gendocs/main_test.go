package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestPageIsCurrent fails when the table or an explanation was changed without making the page anew.
func TestPageIsCurrent(t *testing.T) {
	want, err := page(read(t, "../routes.tsv"), read(t, "../seen.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	if string(read(t, "../../../docs/endpoints.md")) != string(want) {
		t.Error("docs/endpoints.md is stale; run: go generate ./internal/rewrite")
	}
}

// TestVerdictsAreThoseOfTheCode compares with the constants that the engine knows.
func TestVerdictsAreThoseOfTheCode(t *testing.T) {
	code := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\tverdict\w+\s+verdict = "(\w+)"`).FindAllStringSubmatch(string(read(t, "../route.go")), -1) {
		code[m[1]] = true
	}
	if len(code) < 20 {
		t.Fatalf("found %d verdicts in route.go", len(code))
	}
	for _, v := range verdicts {
		if !code[v.name] {
			t.Errorf("%s is explained and not in route.go", v.name)
		}
		delete(code, v.name)
	}
	for name := range code {
		t.Errorf("%s is not explained", name)
	}
}

// TestEveryRowIsOnThePage looks for each method and path with its verdicts, its reason and the mark of what was not seen.
func TestEveryRowIsOnThePage(t *testing.T) {
	tsv, seen := read(t, "../routes.tsv"), read(t, "../seen.tsv")
	out, err := page(tsv, seen)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parse(tsv, seen)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	unseen := 0
	for _, r := range rows {
		mark := "( †)"
		if r.seen {
			mark = "()"
		} else {
			unseen++
		}
		re := regexp.MustCompile("`[A-Z,]*\\b" + r.method + "\\b[A-Z,]* " + regexp.QuoteMeta(r.template) + "`" + mark + "(<br>| \\|)")
		end := "| `" + r.verdict + "` | `" + r.reply + "` | " + strings.ReplaceAll(r.reason, "|", "\\|") + " |"
		if !slices.ContainsFunc(lines, func(line string) bool {
			return strings.HasPrefix(line, "| "+r.api+" | ") && strings.HasSuffix(line, end) && re.MatchString(line)
		}) {
			t.Errorf("%s %s is missing", r.method, r.template)
		}
	}
	if unseen == 0 || unseen == len(rows) {
		t.Errorf("%d of %d rows are marked as not seen", unseen, len(rows))
	}
}

func TestMistakesInTheTable(t *testing.T) {
	for table, want := range map[string]string{
		"# head\nGET\t/\tinfo\tpass":             "line 2 has 4 columns",
		"GET\t/\tinfo\tguess\tpass\twhy\n":       `the verdict "guess" of GET / has no sentence`,
		"GET\t/\tinfo\tpass\tguess\twhy\n":       `the verdict "guess" on replies has no sentence`,
		"GET\t/_new\tnew.api\tpass\tpass\twhy\n": "new.api of GET /_new has no family",
	} {
		if _, err := page([]byte(table), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", table, err, want)
		}
	}
}

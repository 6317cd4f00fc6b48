package main

import (
	"os"
	"regexp"
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
	want, err := page(read(t, "../routes.tsv"))
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

// TestEveryRowIsOnThePage looks for each method and path.
func TestEveryRowIsOnThePage(t *testing.T) {
	tsv := read(t, "../routes.tsv")
	out, err := page(tsv)
	if err != nil {
		t.Fatal(err)
	}
	rows, err := parse(tsv)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		re := regexp.MustCompile("(?m)^\\| " + regexp.QuoteMeta(r.api) + " \\|.*`[A-Z,]*\\b" + r.method + "\\b[A-Z,]* " + regexp.QuoteMeta(r.template) + "`")
		if !re.Match(out) {
			t.Errorf("%s %s is missing", r.method, r.template)
		}
	}
}

func TestMistakesInTheTable(t *testing.T) {
	for table, want := range map[string]string{
		"# head\nGET\t/\tinfo\tpass":       "line 2 has 4 columns",
		"GET\t/\tinfo\tguess\tpass\twhy\n": `the verdict "guess" of GET / has no sentence`,
	} {
		if _, err := page([]byte(table)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", table, err, want)
		}
	}
}

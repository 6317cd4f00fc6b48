// Command gendocs writes docs/endpoints.md from the table of routes, for people. A test of its own fails when the
// page is older than the table. Run it by: go generate ./internal/rewrite
package main

import (
	"bytes"
	"cmp"
	_ "embed"
	"fmt"
	"log"
	"os"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("gendocs: ")
	if len(os.Args) != 4 {
		log.Fatal("usage: gendocs ROUTES.TSV SEEN.TSV PAGE.MD")
	}
	tsv, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	seen, err := os.ReadFile(os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	out, err := page(tsv, seen)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[3], out, 0o644); err != nil {
		log.Fatal(err)
	}
}

// row is one line of the table.
type row struct {
	method, template, api, verdict, reply, reason string
	seen                                          bool // on one of the servers that seen.tsv names
}

// parse reads the table, and with it the lines of seen.tsv, each method, template and versions.
func parse(tsv, seen []byte) ([]row, error) {
	known := map[string]bool{}
	for line := range strings.Lines(string(seen)) {
		if f := strings.Split(line, "\t"); len(f) == 3 {
			known[f[0]+" "+f[1]] = true
		}
	}
	var rows []row
	for i, line := range strings.Split(strings.TrimSuffix(string(tsv), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 6 {
			return nil, fmt.Errorf("line %d has %d columns, not 6", i+1, len(f))
		}
		rows = append(rows, row{f[0], f[1], f[2], f[3], f[4], f[5], known[f[0]+" "+f[1]]})
	}
	return rows, nil
}

//go:embed head.md
var head string

// page makes the whole page. Every verdict of the table must be explained, and every API must have a family.
func page(tsv, seen []byte) ([]byte, error) {
	rows, err := parse(tsv, seen)
	if err != nil {
		return nil, err
	}
	by := map[string][]row{}
	replied := map[string]int{}
	unseen := 0
	for _, r := range rows {
		f := familyOf(r.api)
		if f == "" {
			return nil, fmt.Errorf("the API %s of %s %s has no family in families.go", r.api, r.method, r.template)
		}
		by[f] = append(by[f], r)
		replied[r.reply]++
		if !r.seen {
			unseen++
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, head, len(rows), unseen)
	if err := explain(&b, rows); err != nil {
		return nil, err
	}
	fmt.Fprintf(&b, "\n## The verdicts on replies\n\n| verdict | rows | what the proxy does |\n| --- | --- | --- |\n")
	for _, v := range replies {
		if replied[v.name] > 0 {
			fmt.Fprintf(&b, "| `%s` | %d | %s |\n", v.name, replied[v.name], v.sentence)
			delete(replied, v.name)
		}
	}
	for name := range replied {
		return nil, fmt.Errorf("the verdict %q on replies has no sentence in verdicts.go", name)
	}
	fmt.Fprintf(&b, "\n## The endpoints\n\n")
	for _, f := range families {
		fmt.Fprintf(&b, "* [%s](#%s)\n", f.title, anchor(f.title))
	}
	for _, f := range families {
		fmt.Fprintf(&b, "\n### %s\n\n| API | requests | request | reply | why |\n| --- | --- | --- | --- | --- |\n", f.title)
		apis(&b, by[f.title])
	}
	return b.Bytes(), nil
}

// explain writes the table of verdicts on requests.
func explain(b *bytes.Buffer, rows []row) error {
	count := map[string]int{}
	for _, r := range rows {
		count[r.verdict]++
	}
	fmt.Fprintf(b, "\n## The verdicts on requests\n\n| verdict | rows | what the proxy does | what it does not guarantee |\n| --- | --- | --- | --- |\n")
	for _, v := range verdicts {
		if count[v.name] > 0 {
			fmt.Fprintf(b, "| `%s` | %d | %s | %s |\n", v.name, count[v.name], v.sentence, v.limits)
			delete(count, v.name)
		}
	}
	for _, r := range rows {
		if count[r.verdict] > 0 {
			return fmt.Errorf("the verdict %q of %s %s has no sentence in verdicts.go", r.verdict, r.method, r.template)
		}
	}
	return nil
}

// anchor is what a heading is linked by.
func anchor(title string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

// apis writes one line for the rows of each API that have the same verdicts and reason, the shortest paths first.
func apis(b *bytes.Buffer, rows []row) {
	key := func(r row) string { return r.api + "\t" + r.verdict + "\t" + r.reply + "\t" + r.reason }
	slices.SortStableFunc(rows, func(x, y row) int {
		return cmp.Or(cmp.Compare(x.api, y.api), cmp.Compare(key(x), key(y)), cmp.Compare(len(x.template), len(y.template)), cmp.Compare(x.template, y.template), cmp.Compare(x.method, y.method))
	})
	for len(rows) > 0 {
		n := 1
		for n < len(rows) && key(rows[n]) == key(rows[0]) {
			n++
		}
		r := rows[0]
		fmt.Fprintf(b, "| %s | %s | `%s` | `%s` | %s |\n", r.api, requests(rows[:n]), r.verdict, r.reply, strings.ReplaceAll(r.reason, "|", "\\|"))
		rows = rows[n:]
	}
}

// requests lists methods and paths; a dagger marks those that no server was seen with.
func requests(rows []row) string {
	var out []string
	for len(rows) > 0 {
		var methods []string
		n := 0
		for n < len(rows) && rows[n].template == rows[0].template && rows[n].seen == rows[0].seen {
			methods = append(methods, rows[n].method)
			n++
		}
		mark := " †"
		if rows[0].seen {
			mark = ""
		}
		out = append(out, fmt.Sprintf("`%s %s`%s", strings.Join(methods, ","), rows[0].template, mark))
		rows = rows[n:]
	}
	return strings.Join(out, "<br>")
}

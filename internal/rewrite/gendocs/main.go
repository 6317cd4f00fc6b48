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
	if len(os.Args) != 3 {
		log.Fatal("usage: gendocs ROUTES.TSV PAGE.MD")
	}
	tsv, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	out, err := page(tsv)
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[2], out, 0o644); err != nil {
		log.Fatal(err)
	}
}

// row is one line of the table.
type row struct{ method, template, api, verdict, reply, reason string }

func parse(tsv []byte) ([]row, error) {
	var rows []row
	for i, line := range strings.Split(strings.TrimSuffix(string(tsv), "\n"), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 6 {
			return nil, fmt.Errorf("line %d has %d columns, not 6", i+1, len(f))
		}
		rows = append(rows, row{f[0], f[1], f[2], f[3], f[4], f[5]})
	}
	return rows, nil
}

//go:embed head.md
var head string

// page makes the whole page. Every verdict of the table must be explained in verdicts.
func page(tsv []byte) ([]byte, error) {
	rows, err := parse(tsv)
	if err != nil {
		return nil, err
	}
	by := map[string][]row{}
	for _, r := range rows {
		by[r.verdict] = append(by[r.verdict], r)
	}
	var b bytes.Buffer
	b.WriteString(head)
	fmt.Fprintf(&b, "\n## The verdicts\n\n| verdict | requests | what the proxy does |\n| --- | --- | --- |\n")
	known := map[string]bool{}
	for _, v := range verdicts {
		known[v.name] = true
		if len(by[v.name]) > 0 {
			fmt.Fprintf(&b, "| [`%s`](#%s) | %d | %s |\n", v.name, v.name, len(by[v.name]), v.sentence)
		}
	}
	for name, r := range by {
		if !known[name] {
			return nil, fmt.Errorf("the verdict %q of %s %s has no sentence in verdicts.go", name, r[0].method, r[0].template)
		}
	}
	for _, v := range verdicts {
		if rows := by[v.name]; len(rows) > 0 {
			fmt.Fprintf(&b, "\n## %s\n\n%s\n", v.name, v.sentence)
			if v.limits != "" {
				fmt.Fprintf(&b, "\n*Not guaranteed:* %s\n", v.limits)
			}
			reasons(&b, rows)
		}
	}
	return b.Bytes(), nil
}

// reasons writes one table for each reason that rows have, the most frequent first.
func reasons(b *bytes.Buffer, rows []row) {
	by := map[string][]row{}
	for _, r := range rows {
		by[r.reason] = append(by[r.reason], r)
	}
	var names []string
	for name := range by {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(len(by[y]), len(by[x])), cmp.Compare(x, y))
	})
	for _, name := range names {
		if len(names) > 1 {
			fmt.Fprintf(b, "\n### %s%s\n", strings.ToUpper(name[:1]), name[1:])
		}
		fmt.Fprintf(b, "\n| API | requests |\n| --- | --- |\n")
		apis(b, by[name])
	}
}

// apis writes one line for each API, its paths in the order of their length, with all their methods.
func apis(b *bytes.Buffer, rows []row) {
	slices.SortStableFunc(rows, func(x, y row) int {
		return cmp.Or(cmp.Compare(x.api, y.api), cmp.Compare(len(x.template), len(y.template)), cmp.Compare(x.template, y.template), cmp.Compare(x.method, y.method))
	})
	for i := 0; i < len(rows); {
		api := rows[i].api
		var requests []string
		for i < len(rows) && rows[i].api == api {
			template := rows[i].template
			var methods []string
			for ; i < len(rows) && rows[i].api == api && rows[i].template == template; i++ {
				methods = append(methods, rows[i].method)
			}
			requests = append(requests, fmt.Sprintf("`%s %s`", strings.Join(methods, ","), template))
		}
		fmt.Fprintf(b, "| %s | %s |\n", api, strings.Join(requests, " · "))
	}
}

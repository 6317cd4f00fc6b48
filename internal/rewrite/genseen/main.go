// Command genseen asks running servers which rows of the table they know, and writes seen.tsv: method, path template, and
// the versions of the servers that have the route. It executes nothing. In internal/rewrite:
//
//	go run ./genseen routes.tsv seen.tsv http://127.0.0.1:9200 ...
//
// docs/endpoints.md marks the rows that none of them has.
package main

import (
	"bytes"
	"fmt"
	"log"
	"os"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("genseen: ")
	if len(os.Args) < 4 {
		log.Fatal("usage: genseen ROUTES.TSV SEEN.TSV URL...")
	}
	tsv, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	out, err := seen(parse(string(tsv)), os.Args[3:])
	if err != nil {
		log.Fatal(err)
	}
	if err := os.WriteFile(os.Args[2], out, 0o644); err != nil {
		log.Fatal(err)
	}
}

// row is what is needed of a line of the table.
type row struct{ method, template, api string }

func parse(tsv string) (rows []row) {
	for line := range strings.Lines(tsv) {
		if f := strings.Split(line, "\t"); !strings.HasPrefix(line, "#") && len(f) > 2 {
			rows = append(rows, row{f[0], f[1], f[2]})
		}
	}
	return rows
}

// seen makes the whole file.
func seen(rows []row, urls []string) ([]byte, error) {
	var servers []*server
	for _, u := range urls {
		s, err := connect(u)
		if err != nil {
			return nil, err
		}
		servers = append(servers, s)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Made by genseen from running servers: method, path template, versions of the servers that have the route (3.8.0 is OpenSearch).\n# servers: %s\n", labels(servers))
	for _, r := range rows {
		var have []string
		for _, s := range servers {
			known, err := s.knows(r)
			if err != nil {
				return nil, fmt.Errorf("%s %s on %s: %w", r.method, r.template, s.version, err)
			}
			if known {
				have = append(have, s.version)
			}
		}
		if len(have) > 0 {
			fmt.Fprintf(&b, "%s\t%s\t%s\n", r.method, r.template, strings.Join(have, " "))
		}
	}
	return b.Bytes(), nil
}

func labels(servers []*server) string {
	var names []string
	for _, s := range servers {
		names = append(names, s.version)
	}
	return strings.Join(names, " ")
}

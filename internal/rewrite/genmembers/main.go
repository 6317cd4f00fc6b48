// Command genmembers writes members.tsv: for each API of the table the members that its body is documented to have at
// the top, and the union of all documented query parameters.
//
// It reads the types that the published Elasticsearch specification generates for TypeScript, one file for each version. In
// a clone of github.com/elastic/elasticsearch-specification:
//
//	git show 8.19:output/typescript/types.ts >types-8.19.ts
//	git show 9.5:output/typescript/types.ts >types-9.5.ts
//
// and then, in internal/rewrite:
//
//	go run ./genmembers routes.tsv members.tsv types-8.19.ts types-9.5.ts
//
// The specification is not needed to build or test, so members.tsv is committed.
package main

import (
	"bytes"
	"fmt"
	"log"
	"maps"
	"os"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("genmembers: ")
	if len(os.Args) < 4 {
		log.Fatal("usage: genmembers ROUTES.TSV MEMBERS.TSV TYPES.TS...")
	}
	routes, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	var versions []types
	for _, name := range os.Args[3:] {
		source, err := os.ReadFile(name)
		if err != nil {
			log.Fatal(err)
		}
		versions = append(versions, parseTypes(string(source)))
	}
	if err := os.WriteFile(os.Args[2], members(string(routes), versions), 0o644); err != nil {
		log.Fatal(err)
	}
}

const head = `# Made by genmembers from the published Elasticsearch specification. First the query parameters that any API documents ("?"),
# then for each API of routes.tsv the members that its body is documented to have at the top; * stands for names of the client's choice.
`

// members makes the whole file.
func members(routes string, versions []types) []byte {
	parts := map[string]set{} // by API: names of path parameters
	for line := range strings.Lines(routes) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if strings.HasPrefix(line, "#") || len(f) < 3 {
			continue
		}
		if parts[f[2]] == nil {
			parts[f[2]] = set{}
		}
		for seg := range strings.SplitSeq(f[1], "/") {
			if strings.HasPrefix(seg, "{") {
				parts[f[2]].add(strings.Trim(seg, "{}"))
			}
		}
	}
	path := map[string]set{} // by name of interface
	for api, names := range parts {
		path[requestOf(api)] = names
	}
	params := set{}
	for _, t := range versions {
		for name := range t {
			if !strings.HasSuffix(name, "Request") {
				continue
			}
			for _, p := range t.paramsOf(name) {
				if !path[name].has(p) {
					params.add(p)
				}
			}
		}
	}
	var b bytes.Buffer
	b.WriteString(head)
	fmt.Fprintf(&b, "?\t%s\n", strings.Join(params.sorted(), " "))
	for _, api := range slices.Sorted(maps.Keys(parts)) {
		all := set{}
		for _, t := range versions {
			all.add(t.bodyOf(requestOf(api))...)
		}
		if len(all) > 0 {
			fmt.Fprintf(&b, "%s\t%s\n", api, strings.Join(all.sorted(), " "))
		}
	}
	return b.Bytes()
}

// requestOf gives the name of the interface of an API's request: security.put_user is SecurityPutUserRequest.
func requestOf(api string) string {
	var b strings.Builder
	for word := range strings.FieldsFuncSeq(api, func(r rune) bool { return r == '.' || r == '_' }) {
		b.WriteString(strings.ToUpper(word[:1]) + word[1:])
	}
	return b.String() + "Request"
}

type set map[string]bool

func (s set) add(names ...string) {
	for _, n := range names {
		s[n] = true
	}
}
func (s set) has(name string) bool { return s[name] }
func (s set) sorted() []string     { return slices.Sorted(maps.Keys(s)) }

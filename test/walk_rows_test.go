package test

import (
	"os"
	"strings"
	"testing"
)

// row is one line of the proxy's table of endpoints.
type row struct {
	method, template, api string
	verdict, reply        string
	reason                string
}

func (r row) String() string { return r.method + " " + r.template }

// tableRows reads the table from the tree, so that a new row is walked without being asked for.
func tableRows(t *testing.T) []row {
	t.Helper()
	data, err := os.ReadFile("../internal/rewrite/routes.tsv")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	for line := range strings.Lines(string(data)) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) < 6 {
			t.Fatalf("a row of %d columns", len(f))
		}
		rows = append(rows, row{f[0], f[1], f[2], f[3], f[4], f[5]})
	}
	if len(rows) < 1000 {
		t.Fatalf("only %d rows", len(rows))
	}
	return rows
}

// one reports whether the row's {index} names one index to write to, so that it takes no list and no wildcard.
func (r row) one() bool {
	switch r.verdict {
	case "bulk", "doc", "create", "update", "create_index", "rollover", "copy", "get", "source", "explain":
		return true
	}
	return strings.HasPrefix(r.api, "compat7.")
}

// path fills the template: target for the index that the row is about, further values for all other parameters.
func (r row) path(target string) string {
	segs := strings.Split(r.template, "/")
	for i, s := range segs {
		if !strings.HasPrefix(s, "{") {
			continue
		}
		name := strings.Trim(s, "{}")
		if r.api == "esql.put_view" { // its name must be one of the rule's
			segs[i] = "$Puser-view"
			continue
		}
		if segs[i-1] == "_data_stream" || segs[i-1] == "_migrate" || name == "alias" && i == 1 {
			name = "index"
		}
		switch name {
		case "index", "rollup_index", "source":
			segs[i] = target
		case "id":
			segs[i] = "kept"
		case "type":
			segs[i] = "kind"
		case "field", "fields":
			segs[i] = "city"
		case "zoom", "x", "y", "part", "version":
			segs[i] = "1"
		case "block":
			segs[i] = "write"
		case "task_id":
			segs[i] = "node:1"
		case "target", "dest", "new_index":
			segs[i] = "$Pcopy"
		default:
			segs[i] = "$Pwalk-" + strings.ReplaceAll(name, "_", "-")
		}
	}
	return strings.Join(segs, "/")
}

// spelledTargets are ways to name the protected index in a path. Those after the first four are for rows that take several.
var spelledTargets = []string{
	"$Puser", "$Palias", "$Puse%72", "$P%75ser",
	"$Puser,$Pfree", "$Pus*", "$Pfree,$Palias", "$P%2a", "*,-$Pfree", "_all",
}

// target gives the nth way to name the protected index in this row.
func (r row) target(n int) string {
	if r.one() {
		return spelledTargets[n%4]
	}
	return spelledTargets[n%len(spelledTargets)]
}

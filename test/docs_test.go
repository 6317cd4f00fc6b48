package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// top is the root of the repository, seen from this package.
const top = ".."

// faultTypesInCode finds the fault types: strings of their form in the code that answers clients. Names of metrics have the
// same form and stand in one file.
func faultTypesInCode(t *testing.T) map[string]string {
	t.Helper()
	form := regexp.MustCompile(`^esproxy_[a-z]+(_[a-z]+)*$`)
	found := map[string]string{}
	for _, dir := range []string{"internal/rewrite", "internal/proxy", "internal/cluster", "internal/access", "cmd/esproxy"} {
		files, err := filepath.Glob(filepath.Join(top, dir, "*.go"))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v, %d files", dir, err, len(files))
		}
		for _, name := range files {
			if strings.HasSuffix(name, "_test.go") || filepath.Base(name) == "metrics.go" {
				continue
			}
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(file, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
					if s, err := strconv.Unquote(lit.Value); err == nil && form.MatchString(s) {
						found[s] = name
					}
				}
				return true
			})
		}
	}
	return found
}

func TestErrorsAreDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(top, "docs/errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	// A row: type, one or more statuses, cause, remedy.
	row := regexp.MustCompile("(?m)^\\| `(esproxy_[a-z_]+)` \\| [1-5][0-9]{2}(, [1-5][0-9]{2})* \\| [^|]+ \\| [^|]+ \\|$")
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		if documented[m[1]] {
			t.Errorf("docs/errors.md has %s twice", m[1])
		}
		documented[m[1]] = true
	}
	code := faultTypesInCode(t)
	for typ, file := range code {
		if !documented[typ] {
			t.Errorf("%s (in %s) has no row in docs/errors.md", typ, file)
		}
	}
	for typ := range documented {
		if code[typ] == "" {
			t.Errorf("docs/errors.md has %s, which is nowhere in the code", typ)
		}
	}
	if len(code) < 20 {
		t.Errorf("only %d types found: the search is broken", len(code))
	}
}

// Every setting and every metric has its place in docs/operations.md.
func TestOperationsAreDocumented(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	doc := read("docs/operations.md")
	check := func(what, file, pattern, prefix string, least int) {
		found := regexp.MustCompile(pattern).FindAllStringSubmatch(read(file), -1)
		for _, m := range found {
			if name := prefix + m[1]; !strings.Contains(doc, "`"+name+"`") {
				t.Errorf("docs/operations.md does not name the %s %s", what, name)
			}
		}
		if len(found) < least {
			t.Errorf("only %d names of the kind %s found in %s: the search is broken", len(found), what, file)
		}
	}
	check("setting", "cmd/esproxy/settings.go", `envconfig:"([A-Z_]+)"`, "", 40)
	check("metric", "internal/proxy/metrics.go", `(?:counter|gauge|gaugeFunc)\("([a-z_]+)", "`, "esproxy_", 12)
	check("metric", "internal/proxy/metrics.go", `Name: "(esproxy_[a-z_]+)"`, "", 3)
	check("reason", "internal/rewrite/reply.go", `(?m)^\t[a-zA-Z]+ += "([a-z_]+)"$`, "", 7)
}

// repositoryFiles are the files that git knows or would take, or all files where there is no git.
func repositoryFiles(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "-C", top, "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err == nil && len(out) > 0 {
		return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	}
	var files []string
	err = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == ".git" {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			rel, err := filepath.Rel(top, path)
			files = append(files, rel)
			return err
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The repository must build and test anywhere: it names no folder of one machine and no host of a package registry.
func TestNothingOfOneMachine(t *testing.T) {
	// Written in pieces, so that this file does not hold what it looks for.
	forbidden := []string{
		"/wo" + "rk/", "/var/" + "tmp", "/ro" + "ot/", "/home" + "/",
		"proxy.gol" + "ang.org", "sum.gol" + "ang.org", "registry.npm" + "js.org", "py" + "pi.org", "files.python" + "hosted.org", "index.cra" + "tes.io", "static.cra" + "tes.io",
		"repo1.ma" + "ven.org", "repo.ma" + "ven.apache.org", "deb.deb" + "ian.org", "security.deb" + "ian.org",
	}
	// test/real-es keeps its servers in a folder that survives a restart of the machine; a setting changes it.
	allowed := map[string][]string{"/var/" + "tmp": {"test/real-es/up", "test/real-es/down"}}
	n := 0
	for _, name := range repositoryFiles(t) {
		text, err := os.ReadFile(filepath.Join(top, name))
		if err != nil {
			continue // removed, and git does not know yet
		}
		n++
		for _, f := range forbidden {
			if strings.Contains(string(text), f) && !slices.Contains(allowed[f], name) {
				t.Errorf("%s holds %s", name, f)
			}
		}
	}
	if n < 100 {
		t.Errorf("only %d files looked at: the search is broken", n)
	}
}

// The borders between the packages; docs/design.md gives the reasons. A package that is not here must be added with its own.
func TestImports(t *testing.T) {
	const module = "github.com/esproxy/esproxy/"
	may := map[string][]string{
		"internal/policy":           {},
		"internal/envelope":         {},
		"internal/rewrite":          {"internal/policy"},
		"internal/access":           {"internal/policy"},
		"internal/cluster":          {"internal/policy", "internal/rewrite"},
		"internal/proxy":            {"internal/access", "internal/policy", "internal/rewrite"},
		"internal/devnode":          {},
		"internal/ingest":           {"config"},
		"internal/ingest/sampleapi": {},
		"config":                    {},
	}
	for _, tags := range []string{"", "nodevnode"} {
		cmd := exec.Command("go", "list", "-tags", tags, "-f", `{{.ImportPath}} {{.Name}} {{join .Imports " "}}`, "./...")
		cmd.Dir = top
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v", err)
		}
		seen := 0
		for line := range strings.Lines(string(out)) {
			words := strings.Fields(line)
			pkg := strings.TrimPrefix(words[0], module)
			if words[1] == "main" || pkg == "test" || pkg+"/" == module {
				continue // commands wire everything; tests look at it from outside
			}
			allowed, known := may[pkg]
			if !known {
				t.Errorf("package %s is not in this test: say what it may import", pkg)
				continue
			}
			seen++
			for _, imp := range words[2:] {
				if own, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, own) {
					t.Errorf("%s imports %s", pkg, own)
				}
				if imp == "net/http" && (pkg == "internal/rewrite" || pkg == "internal/envelope" || pkg == "internal/policy") {
					t.Errorf("%s imports net/http: it knows no HTTP", pkg)
				}
			}
		}
		if seen != len(may) {
			t.Errorf("tags %q: %d packages seen, want %d", tags, seen, len(may))
		}
	}
}

package clients

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// TestPython and TestJavaScript run scenario.py and scenario.js, applications on the official clients, through the proxy. The client's
// major version must be the server's, so the caller says where it is installed: ESPROXY_TEST_PYTHON is the python of a virtual environment with
// python/requirements-N.txt, ESPROXY_TEST_NODE_PATH a node_modules folder made by npm ci from js/N.

func TestPython(t *testing.T) {
	python := os.Getenv("ESPROXY_TEST_PYTHON")
	if python == "" {
		t.Skip("needs the Python client: set ESPROXY_TEST_PYTHON")
	}
	scenario(t, nil, python, "-B", "python/scenario.py")
}

func TestJavaScript(t *testing.T) {
	modules := os.Getenv("ESPROXY_TEST_NODE_PATH")
	if modules == "" {
		t.Skip("needs the JavaScript client: set ESPROXY_TEST_NODE_PATH")
	}
	scenario(t, []string{"NODE_PATH=" + modules}, "node", "js/scenario.js")
}

var passed = regexp.MustCompile(`(?m)^[0-9]{2,} checks passed$`)

func scenario(t *testing.T, env []string, args ...string) {
	t.Helper()
	if os.Getenv("ESPROXY_TEST_ES_URL") == "" {
		t.Skip("needs a real Elasticsearch: set ESPROXY_TEST_ES_URL")
	}
	p := start(t)
	cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
	cmd.Env = append(env, "PATH="+os.Getenv("PATH"), "HOME="+t.TempDir(), "PYTHONWARNINGS=ignore", "SERVER="+p.server, "URL="+p.url, "TOKEN="+p.token, "INDEX="+p.prefix+"user")
	if lacksByQuery(t, p.server) {
		cmd.Env = append(cmd.Env, "LACKS_BY_QUERY=1")
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !passed.Match(out) {
		t.Fatalf("%s: %v\n%s", filepath.Base(args[len(args)-1]), err, out)
	}
	t.Logf("%s", passed.Find(out))
}

// lacksByQuery reports whether a server is the minimal build, without reindex and the requests by query.
func lacksByQuery(t *testing.T, server string) bool {
	t.Helper()
	res, err := http.Get(server + "/_nodes/plugins?filter_path=nodes.*.modules.name")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var b bytes.Buffer
	if _, err := b.ReadFrom(res.Body); err != nil {
		t.Fatal(err)
	}
	return !bytes.Contains(b.Bytes(), []byte(`"reindex"`))
}

package main

import (
	"strings"
	"testing"
)

// TestIngestFiles: files without a given name differ by source and index, stay in the working directory, and can be left out.
func TestIngestFiles(t *testing.T) {
	c1, d1 := ingestFiles("http://a/users", "user", "", "")
	c2, d2 := ingestFiles("http://b/users", "user", "", "")
	if c1 == c2 || d1 == d2 || c1 == d1 || !strings.HasPrefix(c1, "esproxy-user-") || !strings.HasSuffix(c1, ".checkpoint") || !strings.HasSuffix(d1, ".rejected.ndjson") {
		t.Errorf("got %q %q and %q %q", c1, d1, c2, d2)
	}
	if c, d := ingestFiles("-", "<../x-{now/d}>", "", ""); strings.ContainsAny(c+d, "/<>{}") {
		t.Errorf("got %q %q", c, d)
	}
	if c, d := ingestFiles("x", "user", "none", "/tmp/letters"); c != "" || d != "/tmp/letters" {
		t.Errorf("got %q %q", c, d)
	}
}

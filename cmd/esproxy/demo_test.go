//go:build !nodevnode

package main

import (
	"strings"
	"testing"
)

// TestDemoOnce: the whole demo in this process, to writers that are no terminals.
func TestDemoOnce(t *testing.T) {
	r := command(t, nil, "", "demo", "--once")
	r.want(t, exitOK, "read 100, indexed 100")
	parts := strings.Split(r.out, `"credit_card_num": `)
	if len(parts) != 4 {
		t.Fatalf("%d records are shown:\n%s", len(parts)-1, r.out)
	}
	for i, begins := range []string{`"esp1.`, `"5859-`, `"****`} {
		if !strings.HasPrefix(parts[i+1], begins) {
			t.Errorf("record %d begins with %.40s, want %s", i+1, parts[i+1], begins)
		}
	}
	if strings.Count(r.out, "curl -s 'http://127.0.0.1:") != 3 || strings.Count(r.out, "X-Esproxy-Authorization: Bearer espt1.") != 2 {
		t.Error("the curl lines are not there")
	}
	if strings.ContainsAny(r.out+r.err, "\x1b\r") {
		t.Error("control characters for a terminal were written")
	}
	if strings.Contains(r.err, "5859-") {
		t.Error("plaintext in the log")
	}
}

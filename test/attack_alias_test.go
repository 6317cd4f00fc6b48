package test

import (
	"fmt"
	"testing"
)

// A client that adds an alias and writes at once, on the same connection or another, must find the rule in force.
func TestAliasCountsAtOnce(t *testing.T) {
	needReal(t)
	s := start(t, config{})
	do := func(method, path, body string) {
		t.Helper()
		if a := s.do(method, path, body); a.err != nil || a.status >= 300 {
			t.Fatalf("%s %s: %d %v\n%s", method, path, a.status, a.err, a.body)
		}
	}
	for i := range 5 {
		index := fmt.Sprintf("%splain-%d", s.prefix, i)
		do("PUT", "/"+index, `{"settings":{"number_of_shards":1,"number_of_replicas":0}}`)
		do("PUT", "/"+index+"/_doc/0", `{"n":1}`)
		do("POST", "/_aliases", fmt.Sprintf(`{"actions":[{"add":{"index":%q,"alias":"%suser-%d"}}]}`, index, s.prefix, i))
		do("PUT", "/"+index+"/_doc/1", `{"username":"Ana","credit_card_num":"c4n4ry"}`)
		do("DELETE", "/"+index, "")
	}
	if leak := s.rec.leaks(0, "c4n4ry"); leak != "" {
		t.Fatalf("in clear:\n%s", leak)
	}
}

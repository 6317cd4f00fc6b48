package test

import (
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func readAll(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// rekey starts the proxy anew with another key, and earlier ones that only open.
func (s *stack) rekey(key, previous string) {
	s.t.Helper()
	s.stop()
	s.env = slices.DeleteFunc(s.env, func(v string) bool { return strings.HasPrefix(v, "MASTER_KEY") })
	s.env = append(s.env, "MASTER_KEY="+key, "MASTER_KEY_PREVIOUS="+previous)
	s.tokens = map[string]string{}
	s.run()
}

// keyID gives a key's id.
func (s *stack) keyID(key string) string {
	s.t.Helper()
	out, errs, code := s.commandEnv("", []string{"MASTER_KEY=" + key}, "check")
	m := regexp.MustCompile(`key id ([0-9a-f]{8})`).FindStringSubmatch(out)
	if code != 0 || m == nil {
		s.t.Fatalf("check: status %d: %s%s", code, out, errs)
	}
	return m[1]
}

// TestStoredUnderAnotherKey starts the proxy with a key that the stored values are not under.
func TestStoredUnderAnotherKey(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	for id, name := range map[string]string{"1": "Ana", "2": "Bob"} {
		s.must(s.do("PUT", "/$Puser/_doc/"+id, `{"username":"`+name+`","credit_card_num":"c4n4ry-`+id+`","credit_card_ccv":"123"}`), 201)
	}
	s.must(s.direct("POST", "/$Puser/_refresh", ""), 200)
	before := s.must(s.direct("GET", "/$Puser/_search?sort=_doc&version=true&filter_path=hits.hits", ""), 200).body
	ids := []string{s.keyID(masterKey), s.keyID(otherKey)}

	s.rekey(otherKey, "")
	waitFor(t, "a word in the log on the stored keys", func() bool { return strings.Contains(s.log.String(), ids[0]) })
	from := s.rec.count()
	named := func(what, text string) {
		t.Helper()
		for _, id := range ids {
			if !strings.Contains(text, id) {
				t.Errorf("%s: the key id %s is not named: %s", what, id, tail(text, 600))
			}
		}
	}
	for _, read := range []struct{ method, path, body string }{
		{"GET", "/$Puser/_doc/1", ""}, {"POST", "/$Puser/_search", `{"query":{"match_all":{}}}`}, {"GET", "/$Puser/_source/1", ""}, {"POST", "/$Puser/_mget", `{"ids":["1","2"]}`},
	} {
		a := s.must(s.as("full", read.method, read.path, read.body), 200)
		if strings.Contains(a.body, "c4n4ry") || !strings.Contains(a.body, `"credit_card_num":"esp1.`) {
			t.Errorf("%s: %s", read.path, tail(a.body, 500))
		}
		if plain := s.must(s.do(read.method, read.path, read.body), 200); plain.body != a.body && read.path != "/$Puser/_search" {
			t.Errorf("%s: it differs from what a caller without a grant gets", read.path)
		}
	}
	m := regexp.MustCompile(`esproxy_unopened_values_total\{reason="([a-z_]*key[a-z_]*)"\} ([0-9]+)`).FindStringSubmatch(metrics(t, s))
	if m == nil || m[2] != "12" {
		t.Errorf("metrics: %v", m)
	}
	for _, write := range []struct{ method, path, body string }{
		{"PUT", "/$Puser/_doc/3", `{"username":"Eve","credit_card_num":"n3w"}`},
		{"PUT", "/$Puser/_doc/1", `{"username":"Ana","credit_card_num":"n3w"}`},
		{"PUT", "/$Puser/_create/3", `{"username":"Eve","credit_card_num":"n3w"}`},
		{"POST", "/$Puser/_update/1", `{"doc":{"credit_card_num":"n3w"}}`},
		{"POST", "/$Puser/_update/1", `{"doc":{"username":"Ana","credit_card_num":"n3w"},"doc_as_upsert":true}`},
	} {
		a := s.must(s.do(write.method, write.path, write.body), 503)
		if a.json("error.type").String() != "esproxy_wrong_key" {
			t.Errorf("%s %s: %s", write.method, write.path, a.body)
		}
		named(write.path, a.body)
	}
	a := s.do("POST", "/_bulk", "{\"index\":{\"_index\":\"$Puser\",\"_id\":\"1\"}}\n{\"username\":\"Ana\",\"credit_card_num\":\"n3w\"}\n{\"index\":{\"_index\":\"$Pfree\",\"_id\":\"1\"}}\n{\"a\":1}\n")
	s.must(a, 200)
	if got := a.json("items.0.index.status").Int(); got != 503 || a.json("items.1.index.status").Int() != 201 {
		t.Errorf("bulk: %s", a.body)
	}
	named("bulk", a.json("items.0").Raw)
	if in := s.rec.sent(from, "n3w"); in != "" {
		t.Errorf("it went upstream: %s", in)
	}
	for _, args := range [][]string{{"get", "--subject", "Ana", "--rule", "users"}, {"export", "--rule", "users"}} {
		out, errs, code := s.command("", args...)
		if code != 1 || strings.Contains(out, "c4n4ry") || !strings.Contains(errs, "did not open") {
			t.Errorf("%v: status %d, %s%s", args, code, out, errs)
		}
		// The key that the values are under makes no token for this proxy.
		out, errs, code = s.commandEnv("", []string{"MASTER_KEY=" + masterKey}, args...)
		if code != 1 || strings.Contains(out, "c4n4ry") || !strings.Contains(errs, "MASTER_KEY") {
			t.Errorf("%v with the first key: status %d, %s%s", args, code, out, errs)
		}
	}
	s.must(s.direct("POST", "/$Puser/_refresh", ""), 200)
	if after := s.must(s.direct("GET", "/$Puser/_search?sort=_doc&version=true&filter_path=hits.hits", ""), 200).body; after != before {
		t.Errorf("the documents changed:\n%s\n%s", before, after)
	}

	// With the first key beside it the new one works, and with the first alone all is as it was.
	s.rekey(otherKey, masterKey)
	if got := s.must(s.as("full", "GET", "/$Puser/_doc/1", ""), 200).json("_source.credit_card_num").String(); got != "c4n4ry-1" {
		t.Errorf("with the first key as a previous one: %q", got)
	}
	s.must(s.do("PUT", "/$Puser/_doc/3", `{"username":"Eve","credit_card_num":"c4n4ry-3"}`), 201)
	if got := s.must(s.as("full", "GET", "/$Puser/_doc/3", ""), 200).json("_source.credit_card_num").String(); got != "c4n4ry-3" {
		t.Errorf("under the new key: %q", got)
	}
	s.rekey(masterKey, "")
	for _, id := range []string{"1", "2"} {
		if got := s.must(s.as("full", "GET", "/$Puser/_doc/"+id, ""), 200).json("_source.credit_card_num").String(); got != "c4n4ry-"+id {
			t.Errorf("with the first key again: %q", got)
		}
	}
}

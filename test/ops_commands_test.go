package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestOpsAudit: one line for each request with a grant, with names and counts and no value.
func TestOpsAudit(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "audit.log")
	s := start(t, config{env: []string{"ESPROXY_AUDIT_FILE=" + file}})
	bulk := ""
	for i := range 3 {
		bulk += fmt.Sprintf(`{"index":{"_index":"$Puser","_id":"%d"}}`+"\n"+`{"username":"Ana","credit_card_num":"6767-2293-4172-516%d","credit_card_ccv":"824"}`+"\n", i, i)
	}
	s.must(s.do("POST", "/_bulk?refresh=true", bulk), 200)
	s.must(s.do("GET", "/$Puser/_search", ""), 200)
	header := http.Header{"X-Opaque-Id": {"kibana \"7\"\nforged"[:10]}}
	s.must(s.send(request{method: "POST", path: "/$Puser/_search", header: header, grant: "support", body: strings.NewReader(`{"query":{"match":{"username":"Ana"}}}`)}), 200)
	s.must(s.as("full", "GET", "/$Puser/_doc/1", ""), 200)
	s.must(s.as("full", "GET", "/$Puser/_doc/missing", ""), 404)
	s.must(s.as("full", "POST", "/_bulk?refresh=true", `{"index":{"_index":"$Puser","_id":"9"}}`+"\n"+anasDoc+"\n"), 200)
	if a := s.as("full", "GET", "/$Puser/_doc/1?source=x", ""); a.status != 400 {
		t.Errorf("got %d", a.status)
	}
	var text []byte
	waitFor(t, "five lines", func() bool {
		var err error
		if text, err = os.ReadFile(file); err != nil {
			t.Fatal(err)
		}
		return strings.Count(string(text), "\n") == 5
	})
	var lines []map[string]any
	in := bufio.NewScanner(strings.NewReader(string(text)))
	for in.Scan() {
		var line map[string]any
		if err := json.Unmarshal(in.Bytes(), &line); err != nil {
			t.Fatalf("%s: %v", in.Text(), err)
		}
		for _, name := range []string{"time", "token", "who", "grant", "method", "status"} {
			if line[name] == nil {
				t.Errorf("%s is missing in %s", name, in.Text())
			}
		}
		delete(line, "time")
		delete(line, "level")
		delete(line, "msg")
		if !regexp.MustCompile(`^[A-Za-z0-9_-]{8,64}$`).MatchString(line["token"].(string)) {
			t.Errorf("token id %v", line["token"])
		}
		delete(line, "token")
		lines = append(lines, line)
	}
	index := s.prefix + "user"
	for i, want := range []string{
		`{"api":"search","grant":"support","indices":["` + index + `"],"method":"POST","opaque_id":"kibana \\\"7\\\"","opened":{"users.credit_card_num":{"masked":3,"plain":0}},"route":"/{index}/_search","status":200,"unopened":{"no_grant":3},"who":"tester"}`,
		`{"api":"get","grant":"full","indices":["` + index + `"],"method":"GET","opened":{"users.credit_card_ccv":{"masked":0,"plain":1},"users.credit_card_num":{"masked":0,"plain":1}},"route":"/{index}/_doc/{id}","status":200,"who":"tester"}`,
		`{"api":"get","grant":"full","method":"GET","route":"/{index}/_doc/{id}","status":404,"who":"tester"}`,
		`{"api":"bulk","grant":"full","method":"POST","route":"/_bulk","sealed":{"users.credit_card_num":1},"status":200,"who":"tester"}`,
		`{"grant":"full","method":"GET","status":400,"who":"tester"}`,
	} {
		got, err := json.Marshal(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("line %d\ngot  %s\nwant %s", i+1, got, want)
		}
	}
	// Without times, ids of tokens and the random prefix, in which short digits may stand by chance.
	rest, err := json.Marshal(lines)
	if err != nil {
		t.Fatal(err)
	}
	said := strings.ReplaceAll(string(rest), s.prefix, "")
	for _, secret := range []string{"6767", "5160", "****", "824", "Ana", "espt1.", "esp1."} {
		if strings.Contains(said, secret) {
			t.Errorf("%s stands in the audit log", secret)
		}
	}
	for _, secret := range []string{s.token("full"), masterKey} {
		if strings.Contains(string(text), secret) {
			t.Errorf("%.12s stands in the audit log", secret)
		}
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
}

// TestOpsGetExport: records come back opened, through the proxy, with the key, a token key or a token.
func TestOpsGetExport(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	const many = 1234
	var bulk strings.Builder
	for i := range many {
		fmt.Fprintf(&bulk, `{"index":{"_index":"$Puser","_id":"%d"}}`+"\n"+`{"username":"Ana","n":1.50,"credit_card_num":"6767-%04d"}`+"\n", i, i)
	}
	bulk.WriteString(`{"index":{"_index":"$Puser","_id":"e"}}` + "\n" + `{"username":"Ana Eva","credit_card_num":"1111"}` + "\n")
	bulk.WriteString(`{"index":{"_index":"$Pnote","_id":"1"}}` + "\n" + `{"mail":"ana@example.org"}` + "\n")
	if a := s.must(s.do("POST", "/_bulk?refresh=true", bulk.String()), 200); a.json("errors").Bool() {
		t.Fatal(a.body)
	}

	out, errs, code := s.command("", "get", "--rule", "users", "--username", "Ana Eva")
	if want := "{\n  \"username\": \"Ana Eva\",\n  \"credit_card_num\": \"1111\"\n}\n"; code != 0 || out != want || errs != "" {
		t.Errorf("get: %d %q %q", code, out, errs)
	}
	out, errs, code = s.command("", "get", "--rule", "users", "--subject", "Ana")
	if code != 0 || strings.Count(out, `"username": "Ana"`) != many || !strings.Contains(out, `"n": 1.50`) || strings.Contains(out, "esp1.") {
		t.Errorf("get: %d, %d records, %s", code, strings.Count(out, `"username"`), errs)
	}
	out, errs, code = s.command("", "export", "--rule", "users", "--ndjson")
	if code != 0 || strings.Count(out, "\n") != many+1 || errs != fmt.Sprintf("%d documents\n", many+1) || strings.Contains(out, "esp1.") {
		t.Errorf("export --ndjson: %d, %d lines, %s", code, strings.Count(out, "\n"), errs)
	}
	out, _, code = s.command("", "export", "--rule", "notes")
	if code != 0 || out != "[\n{\"mail\":\"ana@example.org\"}\n]\n" {
		t.Errorf("export: %d %q", code, out)
	}
	out, _, code = s.command("", "export", "--rule", "users", "--index", s.prefix+"user-none")
	if code != 0 || out != "[\n]\n" {
		t.Errorf("export of nothing: %d %q", code, out)
	}

	// A token key mints, a token is taken as it is, and neither needs MASTER_KEY.
	tokenKey, _, _ := s.command("", "keygen", "--token-key")
	for name, env := range map[string][]string{
		"token key": {"MASTER_KEY=", "ESPROXY_TOKEN_KEY=" + strings.TrimSpace(tokenKey)},
		"token":     {"MASTER_KEY=", "ESPROXY_TOKEN=" + s.token("full")},
	} {
		if out, errs, code := s.commandEnv("", env, "get", "--rule", "users", "--subject", "Ana Eva"); code != 0 || !strings.Contains(out, "1111") {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
		}
	}

	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Esproxy-Authorization") != "" {
			t.Error("the token followed a redirect")
		}
	}))
	defer elsewhere.Close()
	redirect := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	defer redirect.Close()
	for name, c := range map[string]struct {
		env  []string
		args string
		code int
		want []string
	}{
		"several rules":       {nil, "get --subject Ana", 2, []string{"several rules", "--rule: users, notes"}},
		"no such rule":        {nil, "export --rule nobody", 2, []string{`no rule "nobody"`, "users, notes"}},
		"no subject":          {nil, "get --rule notes --subject Ana", 2, []string{"no subject", "esproxy export --rule notes"}},
		"nobody":              {nil, "get --rule users --subject Nobody", 1, []string{`no document has the subject "Nobody"`}},
		"no key":              {[]string{"MASTER_KEY="}, "get --rule users --subject Ana", 2, []string{"without MASTER_KEY or ESPROXY_TOKEN"}},
		"wrong key":           {[]string{"MASTER_KEY=" + otherKey}, "get --rule users --subject Ana", 1, []string{"must be the proxy's own MASTER_KEY"}},
		"wrong key, export":   {[]string{"MASTER_KEY=" + otherKey}, "export --rule users", 1, []string{"must be the proxy's own MASTER_KEY"}},
		"a bad token":         {[]string{"ESPROXY_TOKEN=espt1.canary.token"}, "get --rule users --subject Ana", 1, []string{"the proxy refuses ESPROXY_TOKEN"}},
		"a small grant":       {[]string{"MASTER_KEY=", "ESPROXY_TOKEN=" + s.token("cards")}, "export --rule notes", 1, []string{"mail did not open", "grant"}},
		"no proxy":            {[]string{"ESPROXY_URL=http://127.0.0.1:1"}, "get --rule users --subject Ana", 1, []string{"the proxy at http://127.0.0.1:1 does not answer", "refused"}},
		"not a proxy":         {[]string{"ESPROXY_URL=" + elsewhere.URL, "MASTER_KEY="}, "export --rule users", 2, nil},
		"a redirect":          {[]string{"ESPROXY_URL=" + redirect.URL}, "export --rule users", 1, []string{"status 307"}},
		"a password in a URL": {[]string{"ESPROXY_URL=http://ana:canary@127.0.0.1:1"}, "export --rule users", 2, []string{"ESPROXY_URL must hold no user name"}},
		"no address":          {[]string{"ESPROXY_URL=canary"}, "export --rule users", 2, []string{"ESPROXY_URL must be an address"}},
		"no authority":        {[]string{"ESPROXY_CA_FILE=/nonexistent"}, "export --rule users", 2, []string{"ESPROXY_CA_FILE"}},
	} {
		env := append([]string{"ELASTICSEARCH_USERNAME=someone", "ELASTICSEARCH_PASSWORD=canary-password"}, c.env...)
		out, errs, code := s.commandEnv("", env, strings.Fields(c.args)...)
		if code != c.code || strings.Contains(out, "esp1.") || strings.Contains(out, "6767") {
			t.Errorf("%s: status %d, want %d; %q %q", name, code, c.code, out, errs)
		}
		for _, text := range c.want {
			if !strings.Contains(errs, text) {
				t.Errorf("%s: %q is missing in %s", name, text, errs)
			}
		}
		for _, secret := range []string{"canary", masterKey, otherKey, s.token("full"), s.token("cards")} {
			if strings.Contains(out+errs, secret) {
				t.Errorf("%s: a secret is written: %q %q", name, out, errs)
			}
		}
	}
}

// TestOpsIngestSecrets: neither credentials nor records stand in what a failing ingest writes.
func TestOpsIngestSecrets(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	var authorization string
	api := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		authorization = r.Header.Get("Authorization")
		http.Error(w, "canary in the body", http.StatusForbidden)
	}))
	defer api.Close()
	env := []string{"API_TOKEN=canary-bearer", "ELASTICSEARCH_USERNAME=someone", "ELASTICSEARCH_PASSWORD=canary-password", "API_URL=" + api.URL + "/?key=canary-query"}
	for name, c := range map[string]struct {
		args  []string
		stdin string
		code  int
	}{
		"an API that refuses": {[]string{"ingest", "--index", s.prefix + "user"}, "", 1},
		"a password in a URL": {[]string{"ingest", "--index", s.prefix + "user", "--source", strings.Replace(api.URL, "http://", "http://ana:canary@", 1)}, "", 1},
		"broken input":        {[]string{"ingest", "--index", s.prefix + "user", "--source", "-", "--format", "ndjson"}, `{"id":"1","user_name":"Ana","credit_card_num":"canary"` + "\n", 1},
	} {
		out, errs, code := s.commandEnv(c.stdin, env, c.args...)
		if code != c.code || strings.TrimSpace(errs) == "" || strings.Contains(out+errs, "canary") {
			t.Errorf("%s: %d %q %q", name, code, out, errs)
		}
	}
	if authorization != "Bearer canary-bearer" {
		t.Errorf("the API got %q", authorization)
	}
}

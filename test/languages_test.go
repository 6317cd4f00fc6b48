package test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestESQL stores through the proxy and asks in ES|QL, on a server that answers it.
func TestESQL(t *testing.T) {
	s := start(t, config{server: needESQL(t)})
	keyword := `{"type":"keyword"}`
	s.must(s.do("PUT", "/$Puser", `{"settings":{"number_of_shards":1,"number_of_replicas":0},"mappings":{"properties":{"username":`+keyword+`,"status":`+keyword+`,"n":{"type":"long"}}}}`), 200)
	s.must(s.do("PUT", "/$Pplans", `{"settings":{"index.mode":"lookup"},"mappings":{"properties":{"username":`+keyword+`,"plan":`+keyword+`}}}`), 200)
	s.must(s.do("POST", "/_bulk?refresh=true", `{"index":{"_index":"$Puser","_id":"1"}}
{"username":"Ana","credit_card_num":"c4n4ry-1","status":"x","n":1}
{"index":{"_index":"$Puser","_id":"2"}}
{"username":"Bob","credit_card_num":["c4n4ry-2","c4n4ry-3"],"status":"y","n":2}
{"index":{"_index":"$Pplans","_id":"1"}}
{"username":"Ana","plan":"gold"}
{"index":{"_index":"$Pplain","_id":"1"}}
{"username":"Ana","status":"x","n":7}
`), 200)
	s.must(s.do("POST", "/_aliases", `{"actions":[{"add":{"index":"$Puser","alias":"$Pview"}},{"add":{"index":"$Puser","alias":"$Pmix"}},{"add":{"index":"$Pplain","alias":"$Pmix"}}]}`), 200)

	ask := func(grant, path, text, more string) answer {
		t.Helper()
		q, err := json.Marshal(strings.ReplaceAll(text, "$P", s.prefix))
		if err != nil {
			t.Fatal(err)
		}
		return s.as(grant, "POST", path, `{"query":`+string(q)+more+`}`)
	}
	const both = `FROM $Puser | SORT n | KEEP username, credit_card_num`
	opened := `"values":[["Ana","c4n4ry-1"],["Bob",["c4n4ry-2","c4n4ry-3"]]]`
	for _, c := range []struct{ grant, path, text, more, want string }{
		{"full", "/_query", both, "", `[["Ana","c4n4ry-1"],["Bob",`}, {"full", "/_query", both, `,"columnar":true`, `[["Ana","Bob"],["c4n4ry-1",`},
		{"full", "/_query?drop_null_columns=true", "FROM $Pview METADATA _id, _index | SORT n", "", `"c4n4ry-1"`}, {"full", "/_query", `FROM "$Pus*" | WHERE username == "Ana"`, "", `"c4n4ry-1"`},
		{"support", "/_query", both, "", `["Ana","****`}, {"full", "/_query", `FROM $Puser | LOOKUP JOIN $Pplans ON username | WHERE plan == "gold" | KEEP username, credit_card_num, plan`, "", `esp1.`},
		{"full", "/_query", `FROM $Puser | STATS c = COUNT(*) BY credit_card_num, username | SORT c, username`, "", `esp1.`}, {"full", "/_query", `FROM $Puser | MV_EXPAND username | KEEP username, credit_card_num`, "", `esp1.`}, {"full", "/_query", `FROM $Puser | WHERE username == ?u | KEEP username, credit_card_num`, `,"params":[{"u":"Ana"}],"filter":{"term":{"status":"x"}}`, `[["Ana","c4n4ry-1"]]`},
		{"full", "/_query", `FROM $Puser | RENAME credit_card_num AS x | KEEP username, x`, "", `esp1.`}, {"full", "/_query", `FROM $Puser | KEEP credit_card_num`, "", `esp1.`}, {"full", "/_query", `FROM $Puser | EVAL username = "Bob" | WHERE n == 1 | KEEP username, credit_card_num`, "", `esp1.`},
		{"full", "/_query", `FROM $Pmix | SORT n | KEEP username, credit_card_num`, "", `esp1.`}, {"full", "/_query", `FROM $Puser, $Pplain | SORT n | KEEP username, credit_card_num`, "", `esp1.`},
		{"", "/_query", both, "", `esp1.`}, {"", "/_query?format=csv", both, "", "username,credit_card_num\r\nAna,esp1."}, {"full", "/_query/async", both, `,"wait_for_completion_timeout":"10s","keep_on_completion":true`, `"c4n4ry-1"`},
		{"", "/_query", `FROM $Puser | EVAL l = LENGTH(credit_card_num) | STATS m = MV_COUNT(VALUES(username)), d = COUNT_DISTINCT(credit_card_num, 3000) BY k = credit_card_num IS NULL | WHERE d > 0`, "", `[[2,2,false]]`},
	} {
		a := ask(c.grant, c.path, c.text, c.more)
		if a.status != 200 || !strings.Contains(a.body, c.want) || c.grant == "" && strings.Contains(a.body, "c4n4ry") {
			t.Errorf("%q asks %s %s%s: %d\n%s", c.grant, c.path, c.text, c.more, a.status, tail(a.body, 900))
		}
		if (strings.Contains(c.want, "esp1.") || c.grant == "support") && strings.Contains(a.body, "c4n4ry") {
			t.Errorf("%s opened a value: %s", c.text, tail(a.body, 900))
		}
	}
	if a := ask("full", "/_query?format=csv", both, ""); a.status != 406 {
		t.Errorf("csv with a grant: %d %s", a.status, a.body)
	}

	for _, columnar := range []string{"", `,"columnar":true`} {
		a := s.must(ask("", "/_query/async", both, `,"wait_for_completion_timeout":"10s","keep_on_completion":true`+columnar), 200)
		id := a.json("id").String()
		if id == "" || strings.Contains(a.body, "c4n4ry") {
			t.Fatalf("no id, or in clear: %s", a.body)
		}
		for _, c := range []struct {
			method, path string
		}{{"GET", "/_query/async/" + id}, {"POST", "/_query/async/" + id + "/stop"}} {
			got, plain := s.as("full", c.method, c.path, ""), s.do(c.method, c.path, "")
			if got.status != 200 || strings.Contains(plain.body, "c4n4ry") || !strings.Contains(plain.body, "esp1.") {
				t.Errorf("%s %s: %d %s; without a grant %s", c.method, c.path, got.status, got.body, plain.body)
			}
			if columnar == "" && !strings.Contains(got.body, opened) {
				t.Errorf("by id: %s", got.body)
			}
		}
		s.do("DELETE", "/_query/async/"+id, "")
	}

	n := s.rec.count()
	for _, text := range []string{
		`FROM $Puser | WHERE credit_card_num == "c4n4ry"`, `FROM $Pview | RENAME credit_card_num AS x | WHERE x LIKE "c4n4ry*"`, `FROM $Pu* | EVAL y = credit_card_num | WHERE y == "c4n4ry"`, `ROW x = "c4n4ry" | LOOKUP JOIN $Puser ON x == credit_card_num`,
		`ROW credit_card_num = "c4n4ry"`, `FROM $Puser | EVAL x = "c4n4ry" | DISSECT x "%{credit_card_num}"`,
		`FROM $Pmix | WHERE KQL("credit_card_num: c4n4ry")`, `FROM $Puser // credit_card_num == "c4n4ry"`, `FROM $Puser | WHERE credit_card_num == "c4n4ry`, `FROM * | WHERE credit_card_num : "c4n4ry"`, `FROM $Pnothing | WHERE credit_card_num == "c4n4ry"`,
	} {
		for _, path := range []string{"/_query", "/_query/async"} {
			if a := ask("", path, text, ""); a.status != 400 || a.json("error.type").String() != "esproxy_protected_query" || strings.Contains(a.body, "c4n4ry") {
				t.Errorf("%s: %d %s", text, a.status, a.body)
			}
		}
	}
	if leak := s.rec.leaks(n, "c4n4ry"); leak != "" {
		t.Errorf("in clear:\n%s", leak)
	}
	// What no rule names is not touched.
	for _, text := range []string{`FROM $Pplain | WHERE credit_card_num == "c4n4ry" /* x */ | LIMIT 5`, `ROW a = "x"`, `FROM $Pplain | EVAL credit_card_num = "z" | KEEP n`} {
		body := fmt.Sprintf("{ \"query\" : %q }\n", strings.ReplaceAll(text, "$P", s.prefix))
		from := s.rec.count()
		through, around := s.do("POST", "/_query?filter_path=columns,values,error", body), s.direct("POST", "/_query?filter_path=columns,values,error", body)
		if through.body != around.body || through.status != around.status {
			t.Errorf("%s: %d %s, around the proxy %d %s", text, through.status, through.body, around.status, around.body)
		}
		if sent := s.rec.leaks(from, body); sent == "" {
			t.Errorf("%s: did not go up as it was sent", text)
		}
	}
}

// TestLanguagesOnRecorder asks in SQL and EQL, which no server here answers: the upstream plays back replies of the documented form.
func TestLanguagesOnRecorder(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/1?refresh=true", `{"username":"Ana","credit_card_num":"c4n4ry-1"}`), 201)
	card := s.must(s.direct("GET", "/$Puser/_source/1", ""), 200).json("credit_card_num").String()
	if !strings.HasPrefix(card, "esp1.") {
		t.Fatalf("not sealed: %q", card)
	}
	table := `{"columns":[{"name":"username","type":"keyword"},{"name":"credit_card_num","type":"keyword"},{"name":"n","type":"long"}],`
	rows := table + `"rows":[["Ana","` + card + `",1],["Bob","` + card + `",2]],"cursor":"abc"}`
	columns := table + `"values":[["Ana","Bob"],["` + card + `","` + card + `"],[1,2]]}`
	event := `{"_index":"` + s.prefix + `user","_id":"1","_source":{"username":"Ana","credit_card_num":"` + card + `"}}`
	events := `{"is_partial":false,"is_running":false,"took":1,"timed_out":false,"hits":{"total":{"value":1,"relation":"eq"},"events":[` + event + `]}}`
	sequences := `{"id":"FmNJ","is_partial":false,"is_running":false,"took":1,"timed_out":false,"hits":{"total":{"value":1,"relation":"eq"},"sequences":[{"join_keys":["` + card + `"],"events":[` + event + `,` + event + `]}]}}`
	reply := ""
	s.rec.meet(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "_sql") && !strings.Contains(r.URL.Path, "_eql") && !strings.Contains(r.URL.Path, "_query") {
			return false
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Elastic-Product", "Elasticsearch")
		io.WriteString(w, reply)
		return true
	})
	sql := `{"query":"SELECT username, credit_card_num, n FROM \"$Puser\" WHERE username = 'Ana' OR n > 400 ORDER BY n"`
	for _, c := range []struct {
		method, path, body, reply string
		opened                    int
	}{
		{"POST", "/_sql?format=json", sql + `}`, rows, 1}, {"GET", "/_sql", sql + `,"fetch_size":1000}`, rows, 1}, {"POST", "/_sql", sql + `,"columnar":true}`, columns, 1}, {"GET", "/_sql/async/abc", "", rows, 1},
		{"POST", "/_sql", `{"cursor":"abc"}`, `{"rows":[["Ana","` + card + `",1]]}`, 0}, {"POST", "/_sql", `{"query":"SELECT username, credit_card_num FROM \"$Pplain\""}`, rows, 0}, {"POST", "/_sql", sql + `,"catalog":"other"}`, rows, 0},
		{"POST", "/_sql/translate", sql + `}`, `{"query":{"term":{"username":"Ana"}},"x":"` + card + `"}`, 0}, {"POST", "/_sql/close", `{"cursor":"abc"}`, `{"succeeded":true}`, 0},
		{"POST", "/$Puser/_eql/search", `{"query":"any where username == \"Ana\"","fields":["credit_card_num"]}`, events, 1}, {"GET", "/$Puser/_eql/search", `{"query":"sequence by credit_card_num [any where true] [any where n == 400]"}`, sequences, 2},
		{"GET", "/_eql/search/FmNJ", "", sequences, 2}, {"GET", "/_eql/search/FmNJ", "", events, 1}, {"POST", "/_query", `{"query":"FROM $Puser | ENRICH p ON username"}`, strings.ReplaceAll(columns, `"values":`, `"x":`), 0},
		{"PUT", "/_query/view/$Puser-ana", `{"query":"FROM $Puser | WHERE username == \"Ana\" | KEEP username, credit_card_num"}`, `{"acknowledged":true}`, 0},
	} {
		reply = c.reply
		plain, full := s.do(c.method, c.path, c.body), s.as("full", c.method, c.path, c.body)
		if plain.status != 200 || plain.body != reply {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, plain.status, plain.body)
		}
		if n := strings.Count(full.body, `"c4n4ry-1"`); full.status != 200 || n != c.opened || strings.ReplaceAll(full.body, "c4n4ry-1", card) != reply {
			t.Errorf("%s %s %s: %d opened, want %d: %d %s", c.method, c.path, c.body, n, c.opened, full.status, full.body)
		}
	}
	n := s.rec.count()
	for _, c := range []struct{ method, path, body string }{
		{"POST", "/_sql", `{"query":"SELECT * FROM \"$Puser\" WHERE credit_card_num = 'c4n4ry'"}`}, {"POST", "/_sql/translate", `{"query":"SELECT credit_card_num AS c FROM \"$Pu*\" HAVING c = 'c4n4ry'"}`}, {"GET", "/_sql", `{"query":"SELECT * FROM \"$Puser\" WHERE credit_card_num = ?","params":["c4n4ry"]}`},
		{"POST", "/$Puser/_eql/search", `{"query":"any where credit_card_num == \"c4n4ry\""}`}, {"GET", "/$Puser*/_eql/search", `{"query":"any where true","filter":{"term":{"credit_card_num":"c4n4ry"}}}`},
		{"PUT", "/_query/view/$Puser-x", `{"query":"FROM $Puser | WHERE credit_card_num == \"c4n4ry\""}`}, {"PUT", "/_query/view/other", `{"query":"FROM $Puser"}`}, {"PUT", "/_query/view/$Puser-y", `{"query":"FROM $Puser | RENAME credit_card_num AS c"}`},
	} {
		if a := s.do(c.method, c.path, c.body); a.status != 400 || a.json("error.type").String() != "esproxy_protected_query" || strings.Contains(a.body, "c4n4ry") {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, a.status, a.body)
		}
	}
	if leak := s.rec.leaks(n, "c4n4ry"); leak != "" {
		t.Errorf("in clear:\n%s", leak)
	}
	for _, c := range []struct {
		header http.Header
		path   string
		grant  string
		status int
	}{
		{http.Header{"Content-Type": {"application/cbor"}}, "/_sql", "", 406}, {http.Header{"Accept": {"text/csv"}}, "/_sql", "full", 406}, {http.Header{"Accept": {"text/csv"}}, "/_sql", "", 200}, {nil, "/_sql?format=yaml", "full", 406}, {nil, "/_sql?format=txt", "", 200},
		{http.Header{"Accept": {"application/vnd.apache.arrow.stream"}}, "/_query", "full", 406},
	} {
		reply = rows
		body := strings.ReplaceAll(`{"query":"FROM $Puser"}`, "$P", s.prefix)
		if a := s.send(request{method: "POST", path: c.path, header: c.header, grant: c.grant, body: strings.NewReader(body)}); a.status != c.status {
			t.Errorf("%s %v: %d, want %d: %s", c.path, c.header, a.status, c.status, a.body)
		}
	}
}

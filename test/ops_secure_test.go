package test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// secured is a real server with security on, at ESPROXY_TEST_ES_SECURE_URL, with name and password of a superuser in the URL.
type secured struct {
	t     *testing.T
	base  string
	admin string // value of Authorization
	user  string // of the superuser
	pass  string
}

const testPassword = "canary-long-enough"

func needSecured(t *testing.T) *secured {
	t.Helper()
	u, err := url.Parse(os.Getenv("ESPROXY_TEST_ES_SECURE_URL"))
	if err != nil || u.Host == "" {
		t.Skip("needs a real Elasticsearch with security on: set ESPROXY_TEST_ES_SECURE_URL")
	}
	pass, _ := u.User.Password()
	return &secured{t, u.Scheme + "://" + u.Host, basic(u.User.Username(), pass), u.User.Username(), pass}
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// do asks the server itself as the superuser.
func (e *secured) do(method, path, body string) answer {
	e.t.Helper()
	req, err := http.NewRequest(method, e.base+path, strings.NewReader(body))
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("Authorization", e.admin)
	req.Header.Set("Content-Type", "application/json")
	res, err := passer.Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b), err}
}

// newUser makes a user with a role of its own and gives the value of Authorization.
func (e *secured) newUser(name, cluster, indices string) string {
	e.t.Helper()
	e.t.Cleanup(func() { e.do("DELETE", "/_security/user/"+name, ""); e.do("DELETE", "/_security/role/"+name, "") })
	for path, body := range map[string]string{
		"/_security/role/" + name: `{"cluster":[` + cluster + `],"indices":[` + indices + `]}`,
		"/_security/user/" + name: `{"password":"` + testPassword + `","roles":["` + name + `"]}`,
	} {
		if a := e.do("PUT", path, body); a.status != 200 {
			e.t.Fatalf("%s: %d %s", path, a.status, a.body)
		}
	}
	return basic(name, testPassword)
}

// start is start with the proxy's own credentials, and with a clean-up of its indices.
func (e *secured) start(own ...string) *stack {
	e.t.Helper()
	s := start(e.t, config{server: e.base, env: own})
	e.t.Cleanup(func() {
		for _, i := range gjson.Parse(e.do("GET", "/_cat/indices/"+s.prefix+"*?format=json&h=index", "").body).Array() {
			e.do("DELETE", "/"+i.Get("index").Str, "")
		}
		for _, secret := range []string{testPassword, e.pass, masterKey} {
			if strings.Contains(s.log.String(), secret) {
				e.t.Error("a password or key stands in the log")
			}
		}
	})
	return s
}

// by sends a request with a caller's credentials.
func (s *stack) by(authorization, grant, method, path, body string) answer {
	s.t.Helper()
	r := request{method: method, path: path, grant: grant, header: http.Header{}}
	if authorization != "" {
		r.header.Set("Authorization", authorization)
	}
	if body != "" {
		r.body = strings.NewReader(strings.ReplaceAll(body, "$P", s.prefix))
	}
	return s.send(r)
}

// own are the proxy's credentials in its environment.
func own(user, password string) []string {
	return []string{"ELASTICSEARCH_USERNAME=" + user, "ELASTICSEARCH_PASSWORD=" + password}
}

// TestOpsSecured: with credentials of its own the proxy leaves it to Elasticsearch what each caller may do.
func TestOpsSecured(t *testing.T) {
	e := needSecured(t)
	s := e.start(own(e.user, e.pass)...)
	on := func(privileges string) string {
		return `{"names":["` + s.prefix + `*"],"privileges":[` + privileges + `]}`
	}
	writer := e.newUser(s.prefix+"writer", "", on(`"write"`))
	creator := e.newUser(s.prefix+"creator", "", on(`"write","auto_configure"`))
	reader := e.newUser(s.prefix+"reader", "", on(`"read"`))
	nobody := e.newUser(s.prefix+"nobody", "", "")
	doc := func(id string) string { return "/$Puser/_doc/" + id }

	// 401 and 403 are Elasticsearch's own, byte for byte, with or without a grant.
	for name, authorization := range map[string]string{"nobody known": "", "wrong password": basic(e.user, "wrong"), "no privileges": nobody} {
		for _, req := range [][2]string{{"GET", "/_cluster/health"}, {"GET", doc("1")}, {"POST", "/$Puser/_search"}} {
			direct := s.send(request{method: req[0], path: req[1], header: http.Header{"Authorization": {authorization}}, direct: true})
			if authorization == "" {
				direct = s.send(request{method: req[0], path: req[1], direct: true})
			}
			for _, grant := range []string{"", "full"} {
				got := s.by(authorization, grant, req[0], req[1], "")
				if got.status != direct.status || got.status != 401 && got.status != 403 || got.body != direct.body ||
					strings.Join(got.header.Values("Www-Authenticate"), "|") != strings.Join(direct.header.Values("Www-Authenticate"), "|") {
					t.Errorf("%s: %v with grant %q: got %d %s, directly %d %s", name, req, grant, got.status, got.body, direct.status, direct.body)
				}
			}
		}
		if got := s.by(authorization, "", "PUT", doc("1"), anasDoc); got.status != 401 && got.status != 403 || got.json("error.type").Str != "security_exception" {
			t.Errorf("%s: a write got %d %s", name, got.status, got.body)
		}
	}

	// The proxy may create indices; a caller who may not still can't.
	if got := s.by(writer, "", "PUT", doc("1"), anasDoc); got.status != 403 || got.json("error.type").Str != "security_exception" {
		t.Errorf("a writer without the index: %d %s", got.status, got.body)
	}
	if a := e.do("GET", "/"+s.prefix+"user", ""); a.status != 404 {
		t.Errorf("the index was created for a caller who may not: %d %s", a.status, a.body)
	}
	s.must(s.by(creator, "", "PUT", doc("1")+"?refresh=true", anasDoc), 201)
	if m := e.do("GET", "/"+s.prefix+"user/_mapping", "").json(s.prefix + "user.mappings.properties.credit_card_num").Raw; m != `{"type":"keyword","index":false,"doc_values":false}` {
		t.Errorf("mapping %s", m)
	}
	s.must(s.by(writer, "", "PUT", doc("2")+"?refresh=true", strings.Replace(anasDoc, "Ana", "Eva", 1)), 201)
	if a := s.by(writer, "", "POST", "/_bulk", `{"index":{"_index":"$Puser","_id":"3"}}`+"\n"+anasDoc+"\n"); a.json("items.0.index.status").Int() != 201 {
		t.Errorf("bulk: %s", a.body)
	}

	// An update without the subject needs the stored one: the writer may not read, so the proxy looks it up.
	if a := s.by(writer, "", "POST", "/$Puser/_update/2?refresh=true", `{"doc":{"credit_card_num":"4111-1111-1111-1111"}}`); a.status != 200 || a.json("result").Str != "updated" {
		t.Errorf("update: %d %s", a.status, a.body)
	}
	for _, user := range []string{nobody, basic(e.user, "wrong"), ""} {
		if a := s.by(user, "", "POST", "/$Puser/_update/2", `{"doc":{"credit_card_num":"1"}}`); a.status != 401 && a.status != 403 {
			t.Errorf("an update by someone who may not: %d %s", a.status, a.body)
		}
	}
	if a := s.by(writer, "full", "GET", doc("2"), ""); a.status != 403 {
		t.Errorf("a writer reads: %d %s", a.status, a.body)
	}
	if a := s.must(s.by(reader, "full", "GET", doc("2"), ""), 200); a.json("_source.credit_card_num").Str != "4111-1111-1111-1111" {
		t.Errorf("read %s", a.body)
	}
	if a := s.must(s.by(reader, "", "GET", doc("2"), ""), 200); !strings.HasPrefix(a.json("_source.credit_card_num").Str, "esp1.") {
		t.Errorf("read %s", a.body)
	}
	// With the source filtered the subject is looked up with the caller's credentials.
	if a := s.must(s.by(reader, "full", "POST", "/$Puser/_search?filter_path=hits.hits._source,hits.hits._index,hits.hits._id", `{"query":{"ids":{"values":["2"]}},"_source":["credit_card_num"]}`), 200); a.json("hits.hits.0._source").Raw != `{"credit_card_num":"4111-1111-1111-1111"}` {
		t.Errorf("read %s", a.body)
	}

	// API keys, and the commands with credentials.
	k := e.do("POST", "/_security/api_key", `{"name":"`+s.prefix+`key","expiration":"1h"}`)
	defer e.do("DELETE", "/_security/api_key", `{"ids":["`+k.json("id").Str+`"]}`)
	s.must(s.by("ApiKey "+k.json("encoded").Str, "full", "GET", doc("1"), ""), 200)
	get := []string{"get", "--rule", "users", "--subject", "Eva"}
	for name, env := range map[string][]string{
		"user":    own(s.prefix+"reader", testPassword),
		"API key": {"ELASTICSEARCH_USERNAME=", "ELASTICSEARCH_PASSWORD=", "ELASTICSEARCH_API_KEY=" + k.json("encoded").Str},
	} {
		if out, errs, code := s.commandEnv("", env, get...); code != 0 || !strings.Contains(out, "4111-1111-1111-1111") {
			t.Errorf("get with %s: %d %q %q", name, code, out, errs)
		}
	}
	for name, env := range map[string][]string{"wrong password": own(s.prefix+"reader", "canary-wrong"), "no privileges": own(s.prefix+"nobody", testPassword)} {
		out, errs, code := s.commandEnv("", env, get...)
		if code != 1 || out != "" || !strings.Contains(errs, "Elasticsearch refuses the credentials") || strings.Contains(errs, "canary") {
			t.Errorf("get with %s: %d %q %q", name, code, out, errs)
		}
	}
	if text := s.rec.leaks(0, anasCard) + s.rec.leaks(0, "4111-1111"); text != "" {
		t.Errorf("plaintext went up: %s", text)
	}
	for _, r := range s.rec.since(0) {
		if len(r.header.Values("X-Esproxy-Authorization")) > 0 || len(r.header.Values("Authorization")) > 1 {
			t.Errorf("sent %s", r)
		}
	}
}

// TestOpsSecuredOwn: without good credentials of its own the proxy cannot know what names stand for. It refuses documents, says what is needed,
// and lets all else pass.
func TestOpsSecuredOwn(t *testing.T) {
	e := needSecured(t)
	weak := "t" + strings.ToLower(t.Name()) + "-weak"
	e.newUser(weak, "", "")
	for name, c := range map[string]struct {
		own    []string
		reason string
	}{
		"none":          {nil, "has no credentials of its own"},
		"wrong":         {own(e.user, "canary-wrong"), "own credentials are wrong or lack privileges"},
		"no privileges": {own(weak, testPassword), "own credentials are wrong or lack privileges"},
		"wrong API key": {[]string{"ELASTICSEARCH_API_KEY=Y2FuYXJ5OmNhbmFyeQ=="}, "own credentials are wrong or lack privileges"},
	} {
		t.Run(name, func(t *testing.T) {
			e := &secured{t, e.base, e.admin, e.user, e.pass}
			s := e.start(c.own...)
			needs := []string{c.reason, "ELASTICSEARCH_USERNAME", "ELASTICSEARCH_PASSWORD", "ELASTICSEARCH_API_KEY", "monitor", "view_index_metadata"}
			waitFor(t, "the log to tell", func() bool { return strings.Contains(s.log.String(), "level=ERROR") })
			for _, need := range needs {
				if !strings.Contains(s.log.String(), need) {
					t.Errorf("the log lacks %q", need)
				}
			}
			s.must(s.by(e.admin, "", "GET", "/_cluster/health", ""), 200)
			if a := s.by("", "", "GET", "/_cluster/health", ""); a.status != 401 || a.json("error.type").Str != "security_exception" {
				t.Errorf("got %d %s", a.status, a.body)
			}
			n := s.rec.count()
			for _, req := range [][3]string{
				{"PUT", "/$Puser/_doc/1", anasDoc}, {"PUT", "/$Pother/_doc/1", anasDoc}, {"GET", "/$Puser/_search", ""},
				{"POST", "/$Puser/_update/1", `{"doc":{"credit_card_num":"1"}}`},
			} {
				a := s.by(e.admin, "", req[0], req[1], req[2])
				if a.status != 503 || a.json("error.type").Str != "esproxy_cluster_unknown" {
					t.Errorf("%v: %d %s", req[:2], a.status, a.body)
				}
				for _, need := range needs {
					if !strings.Contains(a.json("error.reason").Str, need) {
						t.Errorf("the reason lacks %q: %s", need, a.body)
					}
				}
			}
			if a := s.by(e.admin, "", "POST", "/_bulk", `{"index":{"_index":"$Puser","_id":"3"}}`+"\n"+anasDoc+"\n"); a.status != 503 && a.json("items.0.index.status").Int() != 503 {
				t.Errorf("bulk: %d %s", a.status, a.body)
			}
			for _, r := range s.rec.since(n) {
				if strings.Contains(r.target, s.prefix) && (strings.Contains(r.target, "_doc") || strings.Contains(r.target, "_search") || strings.Contains(r.target, "_update")) || strings.Contains(r.String(), anasCard) {
					t.Errorf("sent %s", r)
				}
			}
			if strings.Contains(s.log.String(), "canary") {
				t.Error("a password stands in the log")
			}
		})
	}

	t.Run("least", func(t *testing.T) {
		e := &secured{t, e.base, e.admin, e.user, e.pass}
		least := weak + "-least"
		e.newUser(least, `"monitor"`, `{"names":["*"],"privileges":["view_index_metadata"]}`)
		s := e.start(own(least, testPassword)...)
		// The mapping cannot be put, which is told once; sealing does not depend on it.
		s.must(s.by(e.admin, "", "PUT", "/$Puser/_doc/1", anasDoc), 201)
		s.must(s.by(e.admin, "", "PUT", "/$Puser/_doc/2", anasDoc), 201)
		if a := s.must(s.by(e.admin, "full", "GET", "/$Puser/_doc/1", ""), 200); a.json("_source").Raw != anasDoc {
			t.Errorf("read %s", a.body)
		}
		if text := s.rec.leaks(0, anasCard); text != "" {
			t.Errorf("plaintext went up: %s", text)
		}
		warned := 0
		for _, line := range strings.Split(s.log.String(), "\n") {
			if strings.Contains(line, "level=WARN") && strings.Contains(line, "mapping") {
				warned++
			}
		}
		if warned == 0 {
			t.Error("no warning of the mapping")
		}
	})
}

package cluster_test

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// TestRealPrivileges needs a real server with security on at ESPROXY_TEST_ES_SECURE_URL, with the name and password of a
// superuser in the URL. It makes users and roles of its own.
func TestRealPrivileges(t *testing.T) {
	u, err := url.Parse(os.Getenv("ESPROXY_TEST_ES_SECURE_URL"))
	if err != nil || u.Host == "" {
		t.Skip("ESPROXY_TEST_ES_SECURE_URL is not set")
	}
	basic := func(user, password string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
	}
	password, _ := u.User.Password()
	base := u.Scheme + "://" + u.Host
	r := &realES{t, newCaller(t, base, basic(u.User.Username(), password)), "clusec"}
	const pw = "long-enough-for-a-test"
	user := func(name, cluster, indices string) rewrite.Caller {
		r.do("PUT", "/_security/role/"+name, `{"cluster":[`+cluster+`],"indices":[`+indices+`]}`)
		r.do("PUT", "/_security/user/"+name, `{"password":"`+pw+`","roles":["`+name+`"]}`)
		r.later("/_security/user/"+name, "/_security/role/"+name)
		return newCaller(t, base, basic(name, pw))
	}
	metadata := `{"names":["*"],"privileges":["view_index_metadata"]}`
	least := user("clusec-least", `"monitor"`, metadata)
	full := user("clusec-full", `"monitor"`, metadata+`,{"names":["clusec*"],"privileges":["manage","read"]}`)
	blind := user("clusec-blind", `"monitor"`, `{"names":["other*"],"privileges":["view_index_metadata"]}`)
	writer := user("clusec-writer", ``, `{"names":["clusec*"],"privileges":["write","auto_configure"]}`)
	nobody := user("clusec-nobody", ``, ``)
	r.later("/clusec-a", "/clusec-b")
	open := func(own rewrite.Caller, has bool) (*cluster.Cluster, *logBuffer) {
		logs := &logBuffer{}
		c := cluster.New(cluster.Config{Own: own, HasOwn: has, ViewEvery: -1, Log: logs.logger(), KeyID: demoKeys})
		t.Cleanup(c.Close)
		return c, logs
	}
	for what, who := range map[string]rewrite.Caller{"none": newCaller(t, base, ""), "blind": blind, "nobody": nobody, "wrong": newCaller(t, base, basic("x", "y"))} {
		c, _ := open(who, what != "none")
		_, err := c.Resolve(t.Context(), "clusec-a")
		t.Log(what, err)
		wantFault(t, err, 503, cluster.FaultUnknown, "ELASTICSEARCH_USERNAME", "monitor", "view_index_metadata")
	}

	rules := ruleOf("card")
	c, _ := open(full, true)
	if err := c.Ready(t.Context(), nobody, "clusec-a", rules); err != nil {
		t.Fatal(err)
	}
	if status, _, _ := r.caller.Do(context.Background(), http.MethodGet, "/clusec-a", nil, 1<<20); status != 404 {
		t.Errorf("an index was created for a caller who may not: %d", status)
	}
	if err := c.Ready(t.Context(), writer, "clusec-a", rules); err != nil {
		t.Fatal(err)
	}
	if m := r.do("GET", "/clusec-a/_mapping", ""); !strings.Contains(m, `"card":{"type":"keyword","index":false,"doc_values":false}`) {
		t.Errorf("mapping %s", m)
	}
	r.do("PUT", "/clusec-a/_doc/1?refresh", `{"user":"Ana","card":"esp1.old.x"}`)
	got, err := c.Documents(t.Context(), writer, []rewrite.Ref{{Index: "clusec-a", ID: "1"}}, []string{"user"})
	if err != nil || !got[0].Found || string(got[0].Source) != `{"user":"Ana"}` {
		t.Errorf("after a 403: %+v %v", got, err)
	}
	_, err = c.Documents(t.Context(), newCaller(t, base, ""), []rewrite.Ref{{Index: "clusec-a", ID: "1"}}, nil)
	wantFault(t, err, 401, cluster.FaultLookup)
	wantFault(t, c.Ready(t.Context(), writer, "clusec-a", ruleOf("card", "user")), 503, cluster.FaultWrongKey, "old")

	// With the least privileges names are known, and the rest is a warning.
	r.do("PUT", "/clusec-b", ``)
	c, logs := open(least, true)
	if err := c.Ready(t.Context(), writer, "clusec-b", rules); err != nil {
		t.Fatal(err)
	}
	if l := logs.String(); !strings.Contains(l, "manage") || !strings.Contains(l, "stored key ids could not be checked") {
		t.Errorf("logged %s", l)
	}
	wantNames(t, "new", mustResolve(t, c, "clusec-new"), "", "clusec-new")
	_, err = c.Documents(t.Context(), writer, []rewrite.Ref{{Index: "clusec-a", ID: "1"}}, nil)
	wantFault(t, err, 403, cluster.FaultLookup)
	if n := c.MaxContentLength(t.Context()); n != 104857600 {
		t.Errorf("limit %d", n)
	}
}

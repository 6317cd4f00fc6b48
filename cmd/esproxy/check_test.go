package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestCheck(t *testing.T) {
	text, key := newKey(t)
	env := map[string]string{"MASTER_KEY": text, "ESPROXY_FIELDS": file(t, "fields.yaml", onePolicy+"key_id: "+key.ID().String()+"\n")}
	r := command(t, env, "", "check")
	r.want(t, exitOK)
	for _, want := range []string{"rule users", "indices user", "subject username", "card", "encrypt", "mask last4", "grant support", "users.card masked", "grant full", "key id " + key.ID().String() + ", suite eax"} {
		if !strings.Contains(r.out, want) {
			t.Errorf("standard output lacks %q:\n%s", want, r.out)
		}
	}
	if r.err != "" {
		t.Errorf("standard error %q", r.err)
	}

	delete(env, "MASTER_KEY")
	command(t, env, "", "check").want(t, exitOK, "MASTER_KEY is not set, so it was not checked")
	other, otherKey := newKey(t)
	env["MASTER_KEY"] = other
	command(t, env, "", "check").want(t, exitUsage, "MASTER_KEY has the id "+otherKey.ID().String(), "asks for "+key.ID().String(), "wrong key")
}

// TestCheckPolicyMistakes: all of them at once, each with its place.
func TestCheckPolicyMistakes(t *testing.T) {
	fields := file(t, "fields.yaml", `version: 1
rules:
  - name: Users
    indices: ["user"]
    subjekt: username
    fields:
      card: {mode: encrypt, mask: last5}
      card.pan: {mode: encrypt}
grants:
  - {name: support, reveal: {users.card: shown}}
`)
	r := command(t, map[string]string{"ESPROXY_FIELDS": fields}, "", "check")
	r.want(t, exitUsage)
	for _, at := range []string{":3:11: ", ":5:5: ", ":7:35: ", ":8:7: ", ":10:42: "} {
		if !strings.Contains(r.err, fields+at) {
			t.Errorf("no mistake at %s:\n%s", at, r.err)
		}
	}
	if r.out != "" {
		t.Errorf("standard output %q", r.out)
	}
}

func TestHealthcheck(t *testing.T) {
	status, body := 200, "ok\n"
	var asked string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = r.Method + " " + r.URL.Path
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer srv.Close()
	addr := srv.Listener.Addr().String()
	_, port, _ := net.SplitHostPort(addr)
	for _, listen := range []string{addr, "0.0.0.0:" + port, ":" + port, "[::]:" + port} {
		r := command(t, map[string]string{"ESPROXY_ADMIN_LISTEN": listen}, "", "healthcheck")
		r.want(t, exitOK)
		if r.out != "ready\n" || r.err != "" || asked != "GET /readyz" {
			t.Errorf("%s: got %q %q, asked %s", listen, r.out, r.err, asked)
		}
	}
	status, body = 503, "draining\nno Elasticsearch node answers\n"
	r := command(t, nil, "", "healthcheck", "--admin-listen", addr)
	r.want(t, exitFailure, "not ready: draining; no Elasticsearch node answers")
	if r.out != "" {
		t.Errorf("standard output %q", r.out)
	}
	srv.Close()
	command(t, nil, "", "healthcheck", "--admin-listen", addr).want(t, exitFailure, "no answer", "refused")
	command(t, nil, "", "healthcheck", "--admin-listen", "none").want(t, exitUsage, "ESPROXY_ADMIN_LISTEN is none")
	command(t, nil, "", "healthcheck", "--admin-listen", "9281").want(t, exitUsage, "must be host:port")
}

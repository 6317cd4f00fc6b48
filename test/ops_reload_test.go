package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// policyWith is a policy that protects the named fields of user indices.
func policyWith(extra string, fields ...string) string {
	text := "version: 1\nrules:\n  - name: users\n    indices: [\"$Puser\"]\n    subject: username\n    fields:\n"
	for _, f := range fields {
		text += "      " + f + ": {mode: encrypt}\n"
	}
	return text + extra
}

// TestOpsReload: a changed policy comes into force by signal, by request and by itself; a broken one leaves the old one in
// force, and a gauge and the log say so.
func TestOpsReload(t *testing.T) {
	t.Parallel()
	for name, trigger := range map[string]func(s *stack) answer{
		"signal":  func(s *stack) answer { s.cmd.Process.Signal(syscall.SIGHUP); return answer{} },
		"request": (*stack).reload,
		"file":    func(*stack) answer { return answer{} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var env []string
			if name == "file" {
				env = []string{"ESPROXY_RELOAD_INTERVAL=100ms"}
			}
			s := start(t, config{policy: policyWith("", "card"), env: env})
			stored := func(id string) (card, pin string) {
				t.Helper()
				s.must(s.do("PUT", "/$Puser/_doc/"+id, `{"username":"Ana","card":"6767","pin":"1234"}`), 201)
				a := s.must(s.direct("GET", "/$Puser/_doc/"+id, ""), 200)
				return a.json("_source.card").Str, a.json("_source.pin").Str
			}
			if card, pin := stored("1"); !strings.HasPrefix(card, "esp1.") || pin != "1234" {
				t.Fatalf("before: %s %s", card, pin)
			}
			loaded := s.metric("esproxy_reload_success_timestamp_seconds")
			s.writePolicy(policyWith("", "card", "pin"))
			if a := trigger(s); name == "request" && (a.status != 200 || a.body != "reloaded\n") {
				t.Errorf("reload: %d %s", a.status, a.body)
			}
			waitFor(t, "the new policy", func() bool { return s.metric("esproxy_reload_success_timestamp_seconds") != loaded })
			if card, pin := stored("2"); !strings.HasPrefix(card, "esp1.") || !strings.HasPrefix(pin, "esp1.") {
				t.Errorf("after: %s %s", card, pin)
			}
			if s.metric("esproxy_reload_success") != "1" {
				t.Error("the gauge tells of no success")
			}

			s.writePolicy(policyWith("grants:\n  - {name: x, reveal: {nothing.card: plain}}\n", "card"))
			a := trigger(s)
			if at := s.fields + ":"; name == "request" && (a.status != 500 || !strings.Contains(a.body, at)) {
				t.Errorf("reload of a broken policy: %d %s", a.status, a.body)
			}
			waitFor(t, "the gauge", func() bool { return s.metric("esproxy_reload_success") == "0" })
			if card, pin := stored("3"); !strings.HasPrefix(card, "esp1.") || !strings.HasPrefix(pin, "esp1.") {
				t.Errorf("with a broken policy: %s %s", card, pin)
			}
			if n := strings.Count(s.log.String(), "reload failed"); n != 1 || !strings.Contains(s.log.String(), s.fields+":") {
				t.Errorf("the log tells of %d failed reloads", n)
			}
			if a := s.adminGet("/readyz"); a.status != 200 {
				t.Errorf("not ready with the old policy in force: %s", a.body)
			}
			s.writePolicy(policyWith("", "card", "pin"))
			trigger(s)
			waitFor(t, "the gauge", func() bool { return s.metric("esproxy_reload_success") == "1" })
		})
	}
}

// TestOpsRevokedToken: a token that the policy revokes is refused from the reload on, with a reason, and others are not.
func TestOpsRevokedToken(t *testing.T) {
	t.Parallel()
	s := start(t, config{policy: policyWith("", "card")})
	s.must(s.do("PUT", "/$Puser/_doc/1", `{"username":"Ana","card":"6767"}`), 201)
	mint := func(id string) string {
		out, errs, code := s.command("", "token", "--grant", "full", "--for", "alice", "--id", id)
		if code != 0 {
			t.Fatal(errs)
		}
		return strings.TrimSpace(out)
	}
	one, two := mint("one"), mint("two")
	with := func(token string) answer {
		return s.send(request{method: "GET", path: "/$Puser/_doc/1", header: map[string][]string{"X-Esproxy-Authorization": {"Bearer " + token}}})
	}
	for _, token := range []string{one, two} {
		if a := s.must(with(token), 200); a.json("_source.card").Str != "6767" {
			t.Fatalf("got %s", a.body)
		}
	}
	s.writePolicy(policyWith("tokens: {revoked: [one]}\n", "card"))
	s.must(s.reload(), 200)
	if a := with(one); a.status != 403 || a.json("error.type").Str != "esproxy_bad_grant" || !strings.Contains(a.json("error.reason").Str, "revoked") || strings.Contains(a.body, one) {
		t.Errorf("revoked: %d %s", a.status, a.body)
	}
	s.must(with(two), 200)
	s.writePolicy(policyWith("tokens: {not_before: 2099-01-01T00:00:00Z}\n", "card"))
	s.must(s.reload(), 200)
	if a := with(two); a.status != 403 || a.json("error.type").Str != "esproxy_bad_grant" {
		t.Errorf("before not_before: %d %s", a.status, a.body)
	}
}

// TestOpsKeySwap: the key is changed in its file while the proxy runs. Old values still open, new ones lie under the new key, and
// tokens must be made with the new one.
func TestOpsKeySwap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	keyFile, previousFile := filepath.Join(dir, "key"), filepath.Join(dir, "previous")
	replaceFile(t, keyFile, masterKey+"\n")
	replaceFile(t, previousFile, otherKey+"\n") // the first step of a rotation: every replica can open what the new key seals
	s := start(t, config{policy: policyWith("", "card"), env: []string{
		"MASTER_KEY=", "MASTER_KEY_FILE=" + keyFile, "MASTER_KEY_PREVIOUS_FILE=" + previousFile, "ESPROXY_RELOAD_INTERVAL=100ms",
	}})
	s.must(s.do("PUT", "/$Puser/_doc/1?refresh=true", `{"username":"Ana","card":"6767"}`), 201)
	sealed := func(id string) string {
		return s.must(s.direct("GET", "/$Puser/_doc/"+id, ""), 200).json("_source.card").Str
	}
	oldToken := s.token("full")
	// Between the two both files hold the new key; a look in that moment is refused, and the former keys stay.
	replaceFile(t, keyFile, otherKey+"\n")
	replaceFile(t, previousFile, masterKey+"\n")
	waitFor(t, "the new key", func() bool {
		a := s.send(request{method: "GET", path: "/$Puser/_doc/1", header: map[string][]string{"X-Esproxy-Authorization": {"Bearer " + oldToken}}})
		return a.status == 403 && s.metric("esproxy_reload_success") == "1"
	})
	delete(s.tokens, "full")
	if a := s.must(s.as("full", "GET", "/$Puser/_doc/1", ""), 200); a.json("_source.card").Str != "6767" {
		t.Errorf("the old value does not open: %s", a.body)
	}
	s.must(s.do("PUT", "/$Puser/_doc/2", `{"username":"Ana","card":"8989"}`), 201)
	if a := s.must(s.as("full", "GET", "/$Puser/_doc/2", ""), 200); a.json("_source.card").Str != "8989" {
		t.Errorf("the new value does not open: %s", a.body)
	}
	// The first characters are suite, flags and key id.
	one, two := sealed("1"), sealed("2")
	if one[5:13] == two[5:13] {
		t.Errorf("both lie under one key: %.16s %.16s", one, two)
	}
	for _, secret := range []string{masterKey, otherKey, oldToken} {
		if strings.Contains(s.log.String(), secret) {
			t.Error("a secret stands in the log")
		}
	}
	// A file that is gone leaves the keys in force.
	if err := os.Remove(previousFile); err != nil {
		t.Fatal(err)
	}
	if a := s.reload(); a.status != 500 || !strings.Contains(a.body, "MASTER_KEY_PREVIOUS_FILE") {
		t.Errorf("reload without the file: %d %s", a.status, a.body)
	}
	s.must(s.as("full", "GET", "/$Puser/_doc/1", ""), 200)
}

package main

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/access"
	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/policy"
)

func TestKeygen(t *testing.T) {
	alone := func(r result) string {
		t.Helper()
		r.want(t, exitOK)
		if strings.Count(r.out, "\n") != 1 || r.err != "" {
			t.Errorf("standard output %d lines, standard error %q", strings.Count(r.out, "\n"), r.err)
		}
		return strings.TrimSuffix(r.out, "\n")
	}
	key := alone(command(t, nil, "", "keygen"))
	parsed, err := envelope.ParseKey(key, envelope.KeyOptions{})
	if err != nil || !strings.HasPrefix(key, "esk1:") {
		t.Fatalf("the key does not parse: %v", err)
	}
	if again := alone(command(t, nil, "", "keygen")); again == key {
		t.Error("two keys are the same")
	}

	const phrase = "correct horse battery staple"
	for _, end := range []string{"\n", "\r\n", ""} {
		text := alone(command(t, nil, phrase+end, "keygen", "--passphrase"))
		if _, err := envelope.ParseKey(text, envelope.KeyOptions{}); err != nil || !strings.HasPrefix(text, "espw1:") || !strings.HasSuffix(text, ":"+phrase) {
			t.Errorf("the passphrase key does not parse: %v", err)
		}
	}

	text := alone(command(t, map[string]string{"MASTER_KEY": key}, "", "keygen", "--token-key"))
	id, tokenKey, err := envelope.ParseTokenKey(text)
	if err != nil || id != parsed.ID() || string(tokenKey) != string(parsed.TokenKey()) {
		t.Errorf("the token key differs: %v", err)
	}
	if alone(command(t, map[string]string{"MASTER_KEY_FILE": file(t, "key", key+"\n")}, "", "keygen", "--token-key")) != text {
		t.Error("the token key of a file differs")
	}

	command(t, nil, "canary-short\n", "keygen", "--passphrase").want(t, exitUsage, "at least 16 characters")
	command(t, nil, "", "keygen", "--passphrase").want(t, exitUsage, "nothing on standard input")
	command(t, nil, " white space around it \n", "keygen", "--passphrase").want(t, exitUsage, "white space")
	command(t, nil, "", "keygen", "--passphrase", "--token-key").want(t, exitUsage, "exclude each other")
	command(t, nil, "", "keygen", "--token-key").want(t, exitUsage, "MASTER_KEY is not set")
	if r := command(t, nil, "canary-short\n", "keygen", "--passphrase"); strings.Contains(r.out+r.err, "canary") {
		t.Errorf("the passphrase is quoted: %s", r.err)
	}
}

// judge says what the proxy would say about a token.
func judgeToken(t *testing.T, key *envelope.Key, audience, token string) (*access.Session, error) {
	t.Helper()
	pol, err := policy.Parse("fields.yaml", []byte(onePolicy))
	if err != nil {
		t.Fatal(err)
	}
	return access.NewVerifier(pol, key.ID(), key.TokenKey(), access.Options{Audience: audience}).Judge([]string{"Bearer " + token}, nil, true)
}

func TestToken(t *testing.T) {
	text, key := newKey(t)
	fields := file(t, "fields.yaml", onePolicy)
	for name, env := range map[string]map[string]string{
		"MASTER_KEY":        {"MASTER_KEY": text},
		"MASTER_KEY_FILE":   {"MASTER_KEY_FILE": file(t, "key", text+"\n")},
		"ESPROXY_TOKEN_KEY": {"ESPROXY_TOKEN_KEY": key.TokenKeyText()},
	} {
		env["ESPROXY_FIELDS"] = fields
		r := command(t, env, "", "token", "--grant", "support", "--for", "alice", "--ttl", "1h", "--id", "ticket-7")
		r.want(t, exitOK, "token id ticket-7, grant support, for alice, until ")
		token := strings.TrimSuffix(r.out, "\n")
		if strings.ContainsAny(token, " \n") || strings.Contains(r.err, token) || strings.Count(r.err, "\n") != 1 {
			t.Errorf("%s: the token is not alone on standard output: %q %q", name, r.out, r.err)
		}
		s, err := judgeToken(t, key, access.DefaultAudience, token)
		if err != nil || s.Who != "alice" || s.Grant != "support" || s.TokenID != "ticket-7" {
			t.Errorf("%s: %+v %v", name, s, err)
		}
	}

	env := map[string]string{"MASTER_KEY": text, "ESPROXY_FIELDS": fields, "ESPROXY_AUDIENCE": "berlin"}
	r := command(t, env, "", "token", "--grant", "full", "--for", "bob", "--not-before", "2096-01-31T08:00:00Z", "--ttl", "30m")
	r.want(t, exitOK, "until 2096-01-31T08:30:00Z")
	part := strings.Split(r.out, ".")[1]
	b, err := base64.RawURLEncoding.DecodeString(part)
	var claims struct {
		Aud, Kid string
		Nbf, Exp int64
	}
	if err != nil || json.Unmarshal(b, &claims) != nil || claims.Aud != "berlin" || claims.Kid != key.ID().String() || claims.Exp-claims.Nbf != 1800 {
		t.Errorf("claims %s", b)
	}
}

func TestTokenMistakes(t *testing.T) {
	text, key := newKey(t)
	env := map[string]string{"MASTER_KEY": text, "ESPROXY_FIELDS": file(t, "fields.yaml", onePolicy+"tokens: {max_ttl: 2h}\n")}
	good := []string{"token", "--grant", "full", "--for", "alice"}
	for _, c := range []struct {
		env  map[string]string
		args []string
		want string
	}{
		{env, []string{"token"}, "--grant and --for are needed"},
		{env, []string{"token", "--grant", "full"}, "--grant and --for are needed"},
		{env, []string{"token", "--for", "alice"}, "--grant and --for are needed"},
		{env, append(good, "--ttl", "0s"), "--ttl must be above zero"},
		{env, append(good, "--ttl", "-1h"), "--ttl must be above zero"},
		{env, append(good, "--not-before", "tomorrow"), "--not-before must be a time such as"},
		{env, append(good, "--not-before", "2026-01-31T08:00:00Z"), "--not-before lies in the past"},
		{env, append(good, "--id", "not an id"), "id"},
		{nil, good, "set MASTER_KEY, or ESPROXY_TOKEN_KEY"},
		{map[string]string{"ESPROXY_TOKEN_KEY": text}, good, "estk1:"},
		{map[string]string{"MASTER_KEY": key.TokenKeyText()}, good, "token key"},
	} {
		r := command(t, c.env, "", c.args...)
		r.want(t, exitUsage, c.want)
		if r.out != "" {
			t.Errorf("standard output %q", r.out)
		}
	}
	// What the proxy will refuse is said early, and the token made all the same: the policy may be another one there.
	r := command(t, env, "", "token", "--grant", "nobody", "--for", "alice")
	r.want(t, exitOK, `has no grant "nobody"`, "takes tokens of at most 2h0m0s")
	if !strings.HasPrefix(r.out, access.Prefix) {
		t.Errorf("standard output %q", r.out)
	}
	if d := 8 * time.Hour; !strings.Contains(command(t, env, "", "token", "--help").out, d.String()) {
		t.Error("the help lacks the default of --ttl")
	}
}

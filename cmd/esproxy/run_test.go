package main

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/envelope"
)

// result is what one command line left.
type result struct {
	out, err string
	code     int
}

// settingsEnv makes the environment of a test: of all settings only those in env are set.
func settingsEnv(t testing.TB, env map[string]string) {
	t.Helper()
	eachSetting(new(settings), func(_ reflect.StructField, _ reflect.Value, name string) { t.Setenv(name, "") })
	for name, value := range env {
		t.Setenv(name, value)
	}
}

// command runs one command line in this process. No secret of env may stand in what it writes, except on the
// standard output of keygen and token, which is for secrets.
func command(t *testing.T, env map[string]string, stdin string, args ...string) result {
	t.Helper()
	settingsEnv(t, env)
	var out, errs bytes.Buffer
	code := run(t.Context(), args, environ{strings.NewReader(stdin), &out, &errs})
	r := result{out.String(), errs.String(), code}
	secret := func(s string) {
		if s = strings.TrimSpace(s); len(s) > 5 && strings.Contains(r.out+r.err, s) {
			t.Errorf("a secret stands in the output of esproxy %s", strings.Join(args, " "))
		}
	}
	eachSetting(new(settings), func(f reflect.StructField, _ reflect.Value, name string) {
		if f.Tag.Get("secret") == "" {
			return
		}
		secret(env[name])
		if text, err := os.ReadFile(env[name+"_FILE"]); err == nil {
			secret(string(text))
		}
	})
	return r
}

// want checks status and texts.
func (r result) want(t *testing.T, code int, errHas ...string) {
	t.Helper()
	if r.code != code {
		t.Errorf("status %d, want %d\nstdout: %s\nstderr: %s", r.code, code, r.out, r.err)
	}
	for _, text := range errHas {
		if !strings.Contains(r.err, text) {
			t.Errorf("standard error lacks %q: %s", text, r.err)
		}
	}
}

func file(t testing.TB, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func newKey(t *testing.T) (text string, key *envelope.Key) {
	t.Helper()
	text, err := envelope.GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	if key, err = envelope.ParseKey(text, envelope.KeyOptions{}); err != nil {
		t.Fatal(err)
	}
	return text, key
}

const onePolicy = `version: 1
rules:
  - name: users
    indices: ["user"]
    subject: username
    fields:
      card: {mode: encrypt, mask: last4}
grants:
  - {name: support, reveal: {users.card: masked}}
`

// TestUsage: mistakes on the command line end with status 2 and say where to look.
func TestUsage(t *testing.T) {
	for _, c := range []struct {
		args string
		want string
	}{
		{"serv", `unknown command "serv"; did you mean serve?`},
		{"xyzzy", `unknown command "xyzzy"; see esproxy --help`},
		{"token extra", `unknown argument "extra"; see esproxy token --help`},
		{"serve --nonsense", "unknown flag: --nonsense"},
		{"serve --master-key x", "unknown flag: --master-key"},
		{"token --ttl soon", "--ttl"},
		{"ingest --index user", "--source (or API_URL) and --index are needed"},
		{"get", "--subject is needed"},
		{"get --subject a --username b", "give one"},
	} {
		command(t, nil, "", strings.Fields(c.args)...).want(t, exitUsage, c.want)
	}
	r := command(t, nil, "")
	r.want(t, exitOK)
	for _, name := range []string{"serve", "check", "keygen", "token", "ingest", "get", "export", "open", "demo", "healthcheck", "version"} {
		if !strings.Contains(r.out, "\n  "+name) {
			t.Errorf("the help lacks %s", name)
		}
	}
}

func TestVersion(t *testing.T) {
	r := command(t, nil, "", "version")
	r.want(t, exitOK)
	if strings.TrimSpace(r.out) != version() || strings.Count(r.out, "\n") != 1 || r.err != "" {
		t.Errorf("got %q %q", r.out, r.err)
	}
}

// TestStartErrors: what keeps the proxy from starting says what to do, and has the status of a wrong setting.
func TestStartErrors(t *testing.T) {
	key, parsed := newKey(t)
	other, _ := newKey(t)
	good := file(t, "fields.yaml", onePolicy)
	base := map[string]string{"MASTER_KEY": key, "ESPROXY_FIELDS": good, "ESPROXY_LISTEN": "127.0.0.1:0", "ESPROXY_ADMIN_LISTEN": "none", "ELASTICSEARCH_URL": "http://127.0.0.1:1"}
	for name, c := range map[string]struct {
		env  map[string]string
		want []string
	}{
		"no key":             {map[string]string{"MASTER_KEY": ""}, []string{"MASTER_KEY is not set", "esproxy keygen"}},
		"a mistyped key":     {map[string]string{"MASTER_KEY": key[:20] + "AAAA" + key[24:]}, []string{"MASTER_KEY", "checksum", "copy the key again"}},
		"a bare passphrase":  {map[string]string{"MASTER_KEY": "canary passphrase of some length"}, []string{"MASTER_KEY", "keygen", "allow bare passphrases with ESPROXY_ALLOW_PASSPHRASE=true"}},
		"a short passphrase": {map[string]string{"MASTER_KEY": "canary-short", "ESPROXY_ALLOW_PASSPHRASE": "true"}, []string{"at least 16 characters"}},
		"a token key":        {map[string]string{"MASTER_KEY": parsed.TokenKeyText()}, []string{"token key", "esk1:"}},
		"a bad previous key": {map[string]string{"MASTER_KEY_PREVIOUS": other + "\ncanary-not-a-key"}, []string{"MASTER_KEY_PREVIOUS, key 2"}},
		"the key twice":      {map[string]string{"MASTER_KEY_PREVIOUS": key}, []string{parsed.ID().String()}},
		"no policy":          {map[string]string{"ESPROXY_FIELDS": filepath.Join(t.TempDir(), "none.yaml")}, []string{"none.yaml", "ESPROXY_FIELDS"}},
		"a bad policy":       {map[string]string{"ESPROXY_FIELDS": file(t, "bad.yaml", "version: 2\n")}, []string{"bad.yaml:1:"}},
		"another key id":     {map[string]string{"ESPROXY_FIELDS": file(t, "id.yaml", onePolicy+"key_id: 00c0ffee\n")}, []string{"00c0ffee", parsed.ID().String(), "wrong key"}},
		"a password in a URL": {map[string]string{"ELASTICSEARCH_URL": "http://elastic:canary-password@127.0.0.1:9200"},
			[]string{"ELASTICSEARCH_URL, entry 1", "ELASTICSEARCH_USERNAME"}},
		"no scheme":                    {map[string]string{"ELASTICSEARCH_URL": "canary-host:9200"}, []string{"ELASTICSEARCH_URL, entry 1", "http://"}},
		"a bad fingerprint":            {map[string]string{"ELASTICSEARCH_URL": "https://127.0.0.1:1", "ELASTICSEARCH_CA_FINGERPRINT": "canary"}, []string{"fingerprint", "hex"}},
		"no CA file":                   {map[string]string{"ELASTICSEARCH_CA_FILE": "/nonexistent/ca.pem"}, []string{"/nonexistent/ca.pem"}},
		"half a certificate":           {map[string]string{"ESPROXY_TLS_CERT_FILE": good}, []string{"ESPROXY_TLS_KEY_FILE", "set both"}},
		"half an upstream certificate": {map[string]string{"ELASTICSEARCH_CLIENT_KEY_FILE": good}, []string{"ELASTICSEARCH_CLIENT_CERT_FILE", "set both"}},
		"client CA alone":              {map[string]string{"ESPROXY_TLS_CLIENT_CA_FILE": good}, []string{"ESPROXY_TLS_CERT_FILE"}},
		"bad certificate":              {map[string]string{"ESPROXY_TLS_CERT_FILE": good, "ESPROXY_TLS_KEY_FILE": good}, []string{"listener certificate"}},
		"little memory":                {map[string]string{"ESPROXY_MEMORY": "8MiB"}, []string{"ESPROXY_MEMORY (8MiB)", "ESPROXY_MAX_DOCUMENT"}},
		"a bad level":                  {map[string]string{"ESPROXY_LOG_LEVEL": "canary"}, []string{"ESPROXY_LOG_LEVEL", "debug, info, warn or error"}},
		"a bad format":                 {map[string]string{"ESPROXY_LOG_FORMAT": "canary"}, []string{"ESPROXY_LOG_FORMAT", "text or json"}},
		"a bad suite":                  {map[string]string{"ESPROXY_SUITE": "rot13"}, []string{"ESPROXY_SUITE"}},
		"a bad key id":                 {map[string]string{"ESPROXY_COMPROMISED_KEYS": "xyz"}, []string{"ESPROXY_COMPROMISED_KEYS"}},
		"a bad discovery":              {map[string]string{"ESPROXY_DISCOVERY": "canary"}, []string{"ESPROXY_DISCOVERY", "rewrite or pass"}},
		"a bad publish address":        {map[string]string{"ESPROXY_PUBLISH_ADDRESS": "canary.example"}, []string{"ESPROXY_PUBLISH_ADDRESS", "host:port"}},
		"no audit file":                {map[string]string{"ESPROXY_AUDIT_FILE": t.TempDir()}, []string{"ESPROXY_AUDIT_FILE"}},
	} {
		t.Run(name, func(t *testing.T) {
			env := map[string]string{}
			for k, v := range base {
				env[k] = v
			}
			for k, v := range c.env {
				env[k] = v
			}
			r := command(t, env, "", "serve")
			r.want(t, exitUsage, c.want...)
			if strings.Contains(r.out+r.err, "canary") {
				t.Errorf("a value is quoted: %s", r.err)
			}
		})
	}
}

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
)

// sample is a text for a setting and what it means; n makes different ones.
func sample(v reflect.Value, n int) (text string, want any) {
	switch v.Interface().(type) {
	case string:
		text = []string{"first", "second"}[n]
		return text, text
	case []string:
		text = []string{"a,b", "c"}[n]
		return text, strings.Split(text, ",")
	case bool:
		return []string{"true", "false"}[n], n == 0
	case time.Duration:
		return []string{"90s", "2h"}[n], []time.Duration{90 * time.Second, 2 * time.Hour}[n]
	case size:
		return []string{"3MiB", "512"}[n], []size{3 << 20, 512}[n]
	}
	panic("unknown kind of setting")
}

// secretFile is the setting that env is the file of, "" where env is no such thing.
func secretFile(env string) (of string) {
	eachSetting(new(settings), func(f reflect.StructField, _ reflect.Value, name string) {
		if env == name+"_FILE" && f.Tag.Get("secret") != "" {
			of = name
		}
	})
	return of
}

// load is loadSettings for a command that has flags for envs.
func load(t *testing.T, envs []string, args ...string) (*settings, error) {
	t.Helper()
	cmd := &cobra.Command{RunE: func(*cobra.Command, []string) error { return nil }, SilenceErrors: true, SilenceUsage: true}
	addSettings(cmd, envs...)
	cmd.SetArgs(args)
	cmd.SetOut(io.Discard)
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	return loadSettings(cmd)
}

// TestEverySetting: each variable reaches its field, and where a command has its flag, the flag stands over it.
func TestEverySetting(t *testing.T) {
	eachSetting(new(settings), func(f reflect.StructField, v reflect.Value, env string) {
		if secretFile(env) != "" {
			return // TestSecretFiles
		}
		text, want := sample(v, 0)
		settingsEnv(t, map[string]string{env: text})
		s, err := load(t, nil)
		if err != nil {
			t.Fatalf("%s: %v", env, err)
		}
		if got := reflect.ValueOf(s).Elem().FieldByName(f.Name).Interface(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %v, want %v", env, got, want)
		}
		if f.Tag.Get("secret") != "" {
			return
		}
		flag, want := sample(v, 1)
		s, err = load(t, []string{env}, "--"+flagName(env)+"="+flag)
		if err != nil {
			t.Fatalf("%s: %v", env, err)
		}
		if got := reflect.ValueOf(s).Elem().FieldByName(f.Name).Interface(); !reflect.DeepEqual(got, want) {
			t.Errorf("--%s over %s: got %v, want %v", flagName(env), env, got, want)
		}
	})
}

// TestEveryCommandsFlags: secrets have none, and the help of a flag names its variable.
func TestEveryCommandsFlags(t *testing.T) {
	for _, cmd := range newRoot(environ{}).Commands() {
		eachSetting(new(settings), func(f reflect.StructField, _ reflect.Value, env string) {
			flag := cmd.Flags().Lookup(flagName(env))
			switch {
			case flag == nil:
			case f.Tag.Get("secret") != "" && flag.Value.Type() != "bool":
				t.Errorf("%s has a flag for the secret %s", cmd.Name(), env)
			case f.Tag.Get("secret") == "" && !strings.Contains(flag.Usage, env) && cmd.Name() != "sample-api":
				t.Errorf("%s --%s: the help does not name %s: %s", cmd.Name(), flag.Name, env, flag.Usage)
			}
		})
	}
	serve, _, _ := newRoot(environ{}).Find([]string{"serve"})
	for _, env := range []string{"MASTER_KEY_FILE", "ELASTICSEARCH_URL", "ESPROXY_LISTEN", "ESPROXY_FIELDS", "ESPROXY_RELOAD_INTERVAL"} {
		if serve.Flags().Lookup(flagName(env)) == nil {
			t.Errorf("serve has no flag for %s", env)
		}
	}
}

func TestDefaults(t *testing.T) {
	settingsEnv(t, nil)
	s, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := &settings{
		ElasticsearchURL: []string{"http://127.0.0.1:9200"}, Listen: "127.0.0.1:9280", AdminListen: "127.0.0.1:9281", Fields: "config/fields.yaml",
		LogLevel: "info", LogFormat: "text", Memory: 64 << 20, MaxDocument: 16 << 20, MaxHit: 16 << 20, DrainTimeout: 30 * time.Second,
		ReloadInterval: 10 * time.Second, Discovery: "rewrite", URL: "http://127.0.0.1:9280",
	}
	if !reflect.DeepEqual(s, want) {
		t.Errorf("got %+v", s)
	}
}

// TestSecretFiles: a secret may come from a file, without the line end that editors leave; not from both.
func TestSecretFiles(t *testing.T) {
	files := map[string]bool{}
	eachSetting(new(settings), func(_ reflect.StructField, _ reflect.Value, env string) { files[env] = true })
	eachSetting(new(settings), func(f reflect.StructField, _ reflect.Value, env string) {
		if f.Tag.Get("secret") == "" {
			return
		}
		if !files[env+"_FILE"] {
			t.Errorf("the secret %s cannot come from a file", env)
			return
		}
		for _, end := range []string{"", "\n", "\r\n", "\n\n"} {
			settingsEnv(t, map[string]string{env + "_FILE": file(t, "secret", " a b"+end)})
			s, err := load(t, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := reflect.ValueOf(s).Elem().FieldByName(f.Name).String(); got != " a b" {
				t.Errorf("%s_FILE: got %q", env, got)
			}
		}
		missing := filepath.Join(t.TempDir(), "missing")
		for _, c := range []struct{ env, file, want string }{
			{"canary", file(t, "secret", "canary"), env + " and " + env + "_FILE are both set"},
			{"", missing, env + "_FILE: open " + missing},
			{"", file(t, "empty", "\n"), env + "_FILE: the file"},
			{"", t.TempDir(), env + "_FILE: read"},
		} {
			settingsEnv(t, map[string]string{env: c.env, env + "_FILE": c.file})
			_, err := load(t, nil)
			var usage usageError
			if err == nil || !errors.As(err, &usage) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v, want %s", err, c.want)
			}
		}
	})
}

// TestBadValues: variables that cannot be read are all named, and their values never quoted.
func TestBadValues(t *testing.T) {
	settingsEnv(t, map[string]string{
		"ESPROXY_MEMORY": "canary1", "ESPROXY_MAX_HIT": "-1", "ESPROXY_MAX_DOCUMENT": "9999999999GiB", "ESPROXY_DRAIN_TIMEOUT": "canary2", "ESPROXY_ALLOW_PLAIN_GRANTS": "canary3",
	})
	_, err := load(t, nil)
	want := "ESPROXY_MEMORY: not a size such as 64MiB\nESPROXY_MAX_DOCUMENT: not a size such as 64MiB\nESPROXY_MAX_HIT: not a size such as 64MiB\n" +
		"ESPROXY_DRAIN_TIMEOUT: not a duration such as 30s\nESPROXY_ALLOW_PLAIN_GRANTS: not a truth value: true or false"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	settingsEnv(t, nil)
	_, err = load(t, []string{"ESPROXY_MEMORY", "ESPROXY_DRAIN_TIMEOUT"}, "--memory=canary1", "--drain-timeout=canary2")
	want = "--memory: not a size such as 64MiB\n--drain-timeout: not a duration such as 30s"
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

// TestEmptyIsUnset: compose files leave variables empty that nobody set. An empty ESPROXY_LISTEN must not mean every interface.
func TestEmptyIsUnset(t *testing.T) {
	eachSetting(new(settings), func(_ reflect.StructField, _ reflect.Value, env string) { t.Setenv(env, "") })
	s, err := load(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s.Listen != "127.0.0.1:9280" || s.Memory != 64<<20 || s.DrainTimeout != 30*time.Second {
		t.Errorf("got %+v", s)
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]size{"0": 0, "1": 1, "1KiB": 1 << 10, "64MiB": 64 << 20, "2 GiB": 2 << 30, "1536KiB": 1536 << 10} {
		var s size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q: got %d, %v", text, s, err)
		}
		b, _ := s.MarshalText()
		if got := strings.ReplaceAll(text, " ", ""); string(b) != got && text != "0" {
			t.Errorf("%d is written %s, want %s", s, b, got)
		}
	}
	for _, text := range []string{"", "MiB", "1MB", "1.5GiB", "-1KiB", "0x10", "8589934592GiB"} {
		if new(size).UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

func TestWarnUnknown(t *testing.T) {
	var known []string
	eachSetting(new(settings), func(_ reflect.StructField, _ reflect.Value, env string) { known = append(known, env+"=x") })
	silent := append(known, "PATH=/bin", "ESPROXY_TEST_ES_URL=x",
		"ESPROXY_SERVICE_HOST=10.0.0.1", "ESPROXY_SERVICE_PORT=9280", "ESPROXY_SERVICE_PORT_HTTP=9280", "ESPROXY_PORT=tcp://10.0.0.1:9280",
		"ESPROXY_PORT_9280_TCP=tcp://10.0.0.1:9280", "ESPROXY_PORT_9280_TCP_ADDR=10.0.0.1", "ESPROXY_PORT_9280_TCP_PORT=9280",
		"ESPROXY_ADMIN_SERVICE_HOST=10.0.0.1", "ESPROXY_ADMIN_PORT=tcp://10.0.0.1:9281", "ESPROXY_ADMIN_PORT_9281_TCP_PROTO=tcp")
	var b bytes.Buffer
	if warnUnknown(&b, silent); b.Len() > 0 {
		t.Errorf("warned: %s", b.String())
	}
	warnUnknown(&b, []string{"ESPROXY_LISTNE=canary", "ESPROXY_LOGLEVEL=canary", "ESPROXY_ADMIN_PORT=9281"})
	if !strings.Contains(b.String(), "ESPROXY_LISTNE is no setting; did you mean ESPROXY_LISTEN?") ||
		!strings.Contains(b.String(), "ESPROXY_LOGLEVEL is no setting; did you mean ESPROXY_LOG_LEVEL?") || !strings.Contains(b.String(), "ESPROXY_ADMIN_PORT is no setting") {
		t.Errorf("got %s", b.String())
	}
	if strings.Contains(b.String(), "canary") {
		t.Errorf("a value is quoted: %s", b.String())
	}
	t.Setenv("ESPROXY_FIELD", "canary")
	r := command(t, map[string]string{"ESPROXY_FIELDS": file(t, "fields.yaml", onePolicy)}, "", "check")
	r.want(t, exitOK, "ESPROXY_FIELD is no setting; did you mean ESPROXY_FIELDS?")
	os.Unsetenv("ESPROXY_FIELD")
}

// TestIngestUsage: an argument that ingest can't use is a mistake in arguments, not a failed run.
func TestIngestUsage(t *testing.T) {
	r := command(t, nil, "", "ingest", "--source", "-", "--index", "user", "--format", "yaml")
	r.want(t, exitUsage, "--format must be auto, array or ndjson")
}

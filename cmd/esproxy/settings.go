package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/kelseyhightower/envconfig"
	"github.com/spf13/cobra"
)

// size is a number of bytes, written as 64MiB, 512KiB, 1GiB or a plain number.
type size int64

// UnmarshalText reads a size.
func (s *size) UnmarshalText(text []byte) error {
	t := strings.TrimSpace(string(text))
	shift := 0
	for _, u := range []struct {
		suffix string
		shift  int
	}{{"KiB", 10}, {"MiB", 20}, {"GiB", 30}} {
		if n, ok := strings.CutSuffix(t, u.suffix); ok {
			t, shift = strings.TrimSpace(n), u.shift
		}
	}
	n, err := strconv.ParseInt(t, 10, 64)
	if err != nil || n < 0 || n > (1<<62)>>shift {
		return errors.New("expected a size such as 64MiB")
	}
	*s = size(n << shift)
	return nil
}

// MarshalText writes a size.
func (s size) MarshalText() ([]byte, error) {
	for _, u := range []struct {
		suffix string
		shift  int
	}{{"GiB", 30}, {"MiB", 20}, {"KiB", 10}} {
		if s != 0 && s%(1<<u.shift) == 0 {
			return []byte(strconv.FormatInt(int64(s)>>u.shift, 10) + u.suffix), nil
		}
	}
	return strconv.AppendInt(nil, int64(s), 10), nil
}

// settings are all settings, one field for each environment variable. Secrets are plain strings that nothing
// prints; the tag secret keeps them from having flags.
type settings struct {
	MasterKey         string `envconfig:"MASTER_KEY" secret:"yes" help:"the key that seals and opens: esk1:… or espw1:… (esproxy keygen)"`
	MasterKeyFile     string `envconfig:"MASTER_KEY_FILE" help:"file with MASTER_KEY, read again on reload"`
	MasterKeyPrevious string `envconfig:"MASTER_KEY_PREVIOUS" secret:"yes" help:"earlier keys that open and never seal, one a line"`
	PreviousFile      string `envconfig:"MASTER_KEY_PREVIOUS_FILE" help:"file with MASTER_KEY_PREVIOUS, read again on reload"`
	TokenKey          string `envconfig:"ESPROXY_TOKEN_KEY" secret:"yes" help:"key that makes tokens and opens nothing: estk1:… (esproxy keygen --token-key)"`
	TokenKeyFile      string `envconfig:"ESPROXY_TOKEN_KEY_FILE" help:"file with ESPROXY_TOKEN_KEY"`

	ElasticsearchURL         []string `envconfig:"ELASTICSEARCH_URL" default:"http://127.0.0.1:9200" help:"addresses of the Elasticsearch nodes, separated by commas"`
	ElasticsearchUsername    string   `envconfig:"ELASTICSEARCH_USERNAME" help:"user for the proxy's own questions"`
	ElasticsearchPassword    string   `envconfig:"ELASTICSEARCH_PASSWORD" secret:"yes" help:"password for the proxy's own questions"`
	ElasticsearchPassFile    string   `envconfig:"ELASTICSEARCH_PASSWORD_FILE" help:"file with ELASTICSEARCH_PASSWORD"`
	ElasticsearchAPIKey      string   `envconfig:"ELASTICSEARCH_API_KEY" secret:"yes" help:"API key (encoded) for the proxy's own questions"`
	ElasticsearchAPIFile     string   `envconfig:"ELASTICSEARCH_API_KEY_FILE" help:"file with ELASTICSEARCH_API_KEY"`
	ElasticsearchCAFile      string   `envconfig:"ELASTICSEARCH_CA_FILE" help:"PEM file of the authorities that Elasticsearch's certificate must come from"`
	ElasticsearchFingerprint string   `envconfig:"ELASTICSEARCH_CA_FINGERPRINT" help:"SHA-256 fingerprint, in hexadecimal, of a certificate in Elasticsearch's chain"`
	ElasticsearchCertFile    string   `envconfig:"ELASTICSEARCH_CLIENT_CERT_FILE" help:"PEM file of the client certificate shown to Elasticsearch"`
	ElasticsearchKeyFile     string   `envconfig:"ELASTICSEARCH_CLIENT_KEY_FILE" help:"PEM file of that certificate's key"`

	Listen           string        `envconfig:"ESPROXY_LISTEN" default:"127.0.0.1:9280" help:"address that clients connect to"`
	AdminListen      string        `envconfig:"ESPROXY_ADMIN_LISTEN" default:"127.0.0.1:9281" help:"address of health, readiness, metrics and reload; none to switch it off"`
	Fields           string        `envconfig:"ESPROXY_FIELDS" default:"config/fields.yaml" help:"the policy file"`
	Suite            string        `envconfig:"ESPROXY_SUITE" default:"" help:"cipher suite of new values: eax or gcm; empty: eax, or gcm in FIPS mode"`
	TLSCertFile      string        `envconfig:"ESPROXY_TLS_CERT_FILE" help:"PEM file of the listener's certificate chain"`
	TLSKeyFile       string        `envconfig:"ESPROXY_TLS_KEY_FILE" help:"PEM file of its key"`
	TLSClientCAFile  string        `envconfig:"ESPROXY_TLS_CLIENT_CA_FILE" help:"PEM file of authorities; clients must then show a certificate"`
	LogLevel         string        `envconfig:"ESPROXY_LOG_LEVEL" default:"info" help:"debug, info, warn or error"`
	LogFormat        string        `envconfig:"ESPROXY_LOG_FORMAT" default:"text" help:"text or json"`
	AuditFile        string        `envconfig:"ESPROXY_AUDIT_FILE" help:"file that audit lines are appended to; empty: standard error"`
	Memory           size          `envconfig:"ESPROXY_MEMORY" default:"64MiB" help:"memory that the bodies of all requests share"`
	MaxDocument      size          `envconfig:"ESPROXY_MAX_DOCUMENT" default:"16MiB" help:"largest document"`
	MaxHit           size          `envconfig:"ESPROXY_MAX_HIT" default:"16MiB" help:"largest hit that is opened"`
	DrainTimeout     time.Duration `envconfig:"ESPROXY_DRAIN_TIMEOUT" default:"30s" help:"how long requests in flight may take when the proxy stops"`
	ReloadInterval   time.Duration `envconfig:"ESPROXY_RELOAD_INTERVAL" default:"10s" help:"how often the policy and key files are looked at; 0 to switch it off"`
	AllowPlainGrants bool          `envconfig:"ESPROXY_ALLOW_PLAIN_GRANTS" help:"accept tokens on a listener that is neither TLS nor loopback"`
	MasterKeyLogin   bool          `envconfig:"ESPROXY_MASTER_KEY_LOGIN" help:"accept the master key itself in X-Esproxy-Authorization"`
	AllowPassphrase  bool          `envconfig:"ESPROXY_ALLOW_PASSPHRASE" help:"accept a bare passphrase of 16 or more characters as MASTER_KEY"`
	CompressOpened   bool          `envconfig:"ESPROXY_COMPRESS_OPENED" help:"compress opened replies; see docs/design.md on what lengths tell"`
	Discovery        string        `envconfig:"ESPROXY_DISCOVERY" default:"rewrite" help:"rewrite or pass: whether HTTP addresses of nodes in replies become the proxy's own"`
	PublishAddress   string        `envconfig:"ESPROXY_PUBLISH_ADDRESS" help:"that address, host:port or a URL without path; empty: the one that the client used"`
	Audience         string        `envconfig:"ESPROXY_AUDIENCE" help:"name of this installation that tokens must carry; empty: esproxy"`
	Compromised      []string      `envconfig:"ESPROXY_COMPROMISED_KEYS" help:"ids of previous keys whose values are not opened for callers"`

	URL       string `envconfig:"ESPROXY_URL" default:"http://127.0.0.1:9280" help:"address of the proxy, for commands that are its clients"`
	CAFile    string `envconfig:"ESPROXY_CA_FILE" help:"PEM file of the authorities of the proxy's certificate, for commands that are its clients"`
	Token     string `envconfig:"ESPROXY_TOKEN" secret:"yes" help:"token for commands that are clients of the proxy"`
	TokenFile string `envconfig:"ESPROXY_TOKEN_FILE" help:"file with ESPROXY_TOKEN"`
	APIURL    string `envconfig:"API_URL" help:"default source of ingest"`
	APIToken  string `envconfig:"API_TOKEN" secret:"yes" help:"bearer token for the source of ingest"`
	APIFile   string `envconfig:"API_TOKEN_FILE" help:"file with API_TOKEN"`
}

// flagName is the flag of an environment variable: ESPROXY_LOG_LEVEL is --log-level.
func flagName(env string) string {
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(env, "ESPROXY_")), "_", "-")
}

// eachSetting visits the fields of settings.
func eachSetting(s *settings, visit func(f reflect.StructField, v reflect.Value, env string)) {
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		visit(f, v.Field(i), f.Tag.Get("envconfig"))
	}
}

// addSettings gives cmd a flag for each named environment variable.
func addSettings(cmd *cobra.Command, envs ...string) {
	var s settings
	eachSetting(&s, func(f reflect.StructField, _ reflect.Value, env string) {
		for _, want := range envs {
			if want != env {
				continue
			}
			if f.Tag.Get("secret") != "" {
				panic("a secret has no flag: " + env)
			}
			help := f.Tag.Get("help") + " (" + env
			if d := f.Tag.Get("default"); d != "" {
				help += ", default " + d
			}
			help += ")"
			if f.Type.Kind() == reflect.Bool {
				cmd.Flags().Bool(flagName(env), false, help)
			} else {
				cmd.Flags().String(flagName(env), "", help)
			}
		}
	})
}

// loadSettings reads the environment and the flags that cmd has for it. Errors name variables, all that are wrong, and
// never quote values. A variable that is set to nothing counts as not set, as compose files leave it so.
func loadSettings(cmd *cobra.Command) (*settings, error) {
	s := new(settings)
	var bad []error
	eachSetting(new(settings), func(_ reflect.StructField, v reflect.Value, env string) {
		switch text, ok := os.LookupEnv(env); {
		case !ok:
		case text == "":
			os.Unsetenv(env)
		case setField(v, text) != nil:
			bad = append(bad, fmt.Errorf("%s: not a %s", env, kindName(v.Type().String())))
		}
	})
	if err := errors.Join(bad...); err != nil {
		return nil, usageError{err}
	}
	if err := envconfig.Process("", s); err != nil {
		return nil, usagef("a setting in the environment cannot be read") // err would quote it
	}
	eachSetting(s, func(f reflect.StructField, v reflect.Value, env string) {
		flag := cmd.Flags().Lookup(flagName(env))
		if flag == nil || !flag.Changed || f.Tag.Get("secret") != "" {
			return
		}
		if err := setField(v, flag.Value.String()); err != nil {
			bad = append(bad, fmt.Errorf("--%s: not a %s", flag.Name, kindName(v.Type().String())))
		}
	})
	if err := errors.Join(bad...); err != nil {
		return nil, usageError{err}
	}
	for _, x := range []struct {
		value *string
		file  string
		name  string
	}{
		{&s.MasterKey, s.MasterKeyFile, "MASTER_KEY"},
		{&s.MasterKeyPrevious, s.PreviousFile, "MASTER_KEY_PREVIOUS"},
		{&s.TokenKey, s.TokenKeyFile, "ESPROXY_TOKEN_KEY"},
		{&s.ElasticsearchPassword, s.ElasticsearchPassFile, "ELASTICSEARCH_PASSWORD"},
		{&s.ElasticsearchAPIKey, s.ElasticsearchAPIFile, "ELASTICSEARCH_API_KEY"},
		{&s.Token, s.TokenFile, "ESPROXY_TOKEN"},
		{&s.APIToken, s.APIFile, "API_TOKEN"},
	} {
		if x.file == "" {
			continue
		}
		if *x.value != "" {
			return nil, usagef("%s and %s_FILE are both set; set one", x.name, x.name)
		}
		text, err := os.ReadFile(x.file)
		if err != nil {
			return nil, usagef("%s_FILE: %w", x.name, err)
		}
		if *x.value = strings.TrimRight(string(text), "\r\n"); *x.value == "" {
			return nil, usagef("%s_FILE: the file %s is empty", x.name, x.file)
		}
	}
	return s, nil
}

func kindName(goType string) string {
	switch goType {
	case "time.Duration":
		return "duration such as 30s"
	case "bool":
		return "truth value: true or false"
	case "main.size":
		return "size such as 64MiB"
	}
	return "value of type " + goType
}

func setField(v reflect.Value, text string) error {
	switch p := v.Addr().Interface().(type) {
	case *string:
		*p = text
	case *[]string:
		*p = strings.Split(text, ",")
	case *bool:
		b, err := strconv.ParseBool(text)
		*p = b
		return err
	case *time.Duration:
		d, err := time.ParseDuration(text)
		*p = d
		return err
	case *size:
		return p.UnmarshalText([]byte(text))
	default:
		return errors.New("unknown kind of setting")
	}
	return nil
}

// warnUnknown writes a line for each variable ESPROXY_* that is no setting, with the nearest name. Kubernetes sets
// variables of that form for services whose names begin with esproxy; they are no mistake.
func warnUnknown(w io.Writer, environ []string) {
	var known []string
	eachSetting(new(settings), func(_ reflect.StructField, _ reflect.Value, env string) { known = append(known, env) })
	sort.Strings(environ)
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "ESPROXY_") || serviceLink(name, value) || strings.HasPrefix(name, "ESPROXY_TEST_") {
			continue
		}
		nearest, best := "", 1<<30
		for _, k := range known {
			if k == name {
				nearest = ""
				best = -1
				break
			}
			if d := distance(name, k); d < best {
				nearest, best = k, d
			}
		}
		if best >= 0 {
			fmt.Fprintf(w, "esproxy: %s is no setting; did you mean %s?\n", name, nearest)
		}
	}
}

func serviceLink(name, value string) bool {
	rest := strings.TrimPrefix(name, "ESPROXY_")
	link := strings.HasPrefix(value, "tcp://") || strings.HasPrefix(value, "udp://") || strings.HasPrefix(value, "sctp://")
	return rest == "PORT" || link && strings.HasSuffix(rest, "_PORT") || strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "SERVICE_") || strings.Contains(rest, "_SERVICE_") || strings.Contains(rest, "_PORT_")
}

// distance is the Levenshtein distance of two names.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := diagonal
			if a[i-1] != b[j-1] {
				cost++
			}
			diagonal = row[j]
			row[j] = min(cost, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}

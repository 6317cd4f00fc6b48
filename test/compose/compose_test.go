// Package compose checks docker-compose.yml, .env.example and the Dockerfile's promises without a container engine. It is a
// module of its own, so that nobody who builds esproxy downloads compose-go.
package compose

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

const root = "../.."

// variables are the names in .env.example, with their values there.
func variables(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, ".env.example"))
	if err != nil {
		t.Fatal(err)
	}
	vars := map[string]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			t.Fatalf(".env.example: %q is no assignment", line)
		}
		vars[name] = value
	}
	return vars
}

// mayBeEmpty are the variables that compose does without.
var mayBeEmpty = map[string]bool{"MASTER_KEY_PREVIOUS": true}

// marker is a value that cannot stand in the file by chance.
func marker(name string) string { return "from-env-" + strings.ToLower(name) }

// load reads docker-compose.yml as "docker compose config" does, with a variable for each name in .env.example except those left out.
func load(t *testing.T, without ...string) (*types.Project, error) {
	t.Helper()
	var env []string
	for name := range variables(t) {
		if !slices.Contains(without, name) {
			env = append(env, name+"="+marker(name))
		}
	}
	opt, err := cli.NewProjectOptions([]string{filepath.Join(root, "docker-compose.yml")},
		cli.WithWorkingDirectory(root), cli.WithEnv(env), cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	return opt.LoadProject(context.Background())
}

func project(t *testing.T) *types.Project {
	t.Helper()
	p, err := load(t)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func service(t *testing.T, p *types.Project, name string) types.ServiceConfig {
	t.Helper()
	s, err := p.GetService(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServices(t *testing.T) {
	p := project(t)
	want := []string{"elasticsearch", "esproxy", "ingest", "kibana", "sample-api", "setup"}
	if got := slices.Sorted(slices.Values(p.ServiceNames())); !slices.Equal(got, want) {
		t.Fatalf("services %q, want %q", got, want)
	}
	const version = "8.19.8"
	for name, image := range map[string]string{
		"elasticsearch": "docker.elastic.co/elasticsearch/elasticsearch:" + version,
		"setup":         "docker.elastic.co/elasticsearch/elasticsearch:" + version,
		"kibana":        "docker.elastic.co/kibana/kibana:" + version,
		"esproxy":       "esproxy", "sample-api": "esproxy", "ingest": "esproxy",
	} {
		if got := service(t, p, name).Image; got != image {
			t.Errorf("%s: image %q, want %q", name, got, image)
		}
	}
}

func TestStartOrder(t *testing.T) {
	p := project(t)
	for name, want := range map[string]map[string]string{
		"elasticsearch": {},
		"setup":         {"elasticsearch": types.ServiceConditionHealthy},
		"esproxy":       {"setup": types.ServiceConditionCompletedSuccessfully},
		"kibana":        {"esproxy": types.ServiceConditionHealthy},
		"sample-api":    {},
		"ingest":        {"esproxy": types.ServiceConditionHealthy, "sample-api": types.ServiceConditionStarted},
	} {
		got := service(t, p, name).DependsOn
		if len(got) != len(want) {
			t.Errorf("%s depends on %d services, want %d", name, len(got), len(want))
		}
		for on, condition := range want {
			if got[on].Condition != condition {
				t.Errorf("%s: %s is waited for until %q, want %q", name, on, got[on].Condition, condition)
			}
			// A condition on health needs a health check to ever come true.
			if condition == types.ServiceConditionHealthy {
				if h := service(t, p, on).HealthCheck; h == nil || h.Disable || len(h.Test) == 0 {
					t.Errorf("%s is waited for by %s and has no health check", on, name)
				}
			}
		}
	}
}

func TestHealthChecks(t *testing.T) {
	p := project(t)
	if got := []string(service(t, p, "esproxy").HealthCheck.Test); !slices.Equal(got, []string{"CMD", "/esproxy", "healthcheck"}) {
		t.Errorf("esproxy: health check %q", got)
	}
	for _, s := range p.Services {
		h := s.HealthCheck
		switch {
		case h == nil:
			t.Errorf("%s: says nothing about its health check", s.Name)
		case s.Image == "esproxy" && !h.Disable && len(h.Test) > 0 && h.Test[0] != "CMD":
			t.Errorf("%s: the image has no shell for %q", s.Name, h.Test)
		case !h.Disable && (h.Interval == nil || h.Timeout == nil || h.Retries == nil):
			t.Errorf("%s: interval, timeout or retries are missing", s.Name)
		}
	}
	// Kibana and Elasticsearch take long: at least three minutes.
	for _, name := range []string{"elasticsearch", "kibana"} {
		h := service(t, p, name).HealthCheck
		if seconds := float64(*h.Retries) * float64(*h.Interval) / 1e9; seconds < 180 {
			t.Errorf("%s: given up after %v s", name, seconds)
		}
	}
}

func TestHardening(t *testing.T) {
	p := project(t)
	for _, s := range p.Services {
		if s.MemLimit <= 0 {
			t.Errorf("%s: no memory limit", s.Name)
		}
		if !slices.Contains(s.CapDrop, "ALL") || len(s.CapAdd) > 0 || s.Privileged {
			t.Errorf("%s: capabilities are not all dropped", s.Name)
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s: may gain privileges", s.Name)
		}
		if !s.ReadOnly && s.Name != "elasticsearch" {
			t.Errorf("%s: the root file system can be written", s.Name)
		}
		if s.NetworkMode != "" || s.Pid != "" || s.Ipc != "" || s.UserNSMode != "" {
			t.Errorf("%s: shares a namespace with the host", s.Name)
		}
		if len(s.Networks) != 1 {
			t.Errorf("%s: networks %v, want the project's own alone", s.Name, s.Networks)
		}
		for _, port := range s.Ports {
			if port.HostIP != "127.0.0.1" {
				t.Errorf("%s: port %s is published on %q, want loopback", s.Name, port.Published, port.HostIP)
			}
		}
	}
	if ports := service(t, p, "elasticsearch").Ports; len(ports) > 0 {
		t.Error("elasticsearch is published: clients could write around the proxy")
	}
}

// Keys and plaintext must not reach a disk by way of swap or a core file.
func TestNoSwap(t *testing.T) {
	p := project(t)
	for _, name := range []string{"esproxy", "ingest"} {
		s := service(t, p, name)
		if s.MemSwapLimit != s.MemLimit {
			t.Errorf("%s: memswap_limit %d, want mem_limit %d", name, s.MemSwapLimit, s.MemLimit)
		}
		// compose-go has no difference between 0 and absent, so the file itself is looked at.
		if s.MemSwappiness != 0 || !strings.Contains(section(t, name), "mem_swappiness: 0\n") {
			t.Errorf("%s: mem_swappiness is not 0", name)
		}
		if u := s.Ulimits["core"]; u == nil || u.Single != 0 {
			t.Errorf("%s: core files are allowed", name)
		}
	}
	// What bodies may take (64 MiB), 24 MiB for the program, and the rest of the runtime.
	if limit := service(t, p, "esproxy").MemLimit; limit < 128<<20 {
		t.Errorf("esproxy: a limit of %d bytes ends it under load", limit)
	}
}

// section is the text of one service.
func section(t *testing.T, name string) string {
	t.Helper()
	_, rest, ok := strings.Cut(composeText(t), "\n  "+name+":\n")
	if !ok {
		t.Fatalf("no service %s", name)
	}
	if end := regexp.MustCompile(`(?m)^ {0,2}[a-z#]`).FindStringIndex(rest); end != nil {
		rest = rest[:end[0]]
	}
	return rest
}

func composeText(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestKibanaGoesThroughTheProxy(t *testing.T) {
	p := project(t)
	for name, value := range service(t, p, "kibana").Environment {
		if value == nil {
			t.Errorf("kibana: %s comes from the shell", name)
			continue
		}
		if strings.Contains(strings.ToLower(name), "customheaders") {
			t.Errorf("kibana: %s would give plaintext to every user", name)
		}
		if strings.Contains(*value, "//elasticsearch") || strings.Contains(*value, marker("MASTER_KEY")) {
			t.Errorf("kibana: %s leads around the proxy", name)
		}
	}
	if v := service(t, p, "kibana").Environment["ELASTICSEARCH_HOSTS"]; v == nil || *v != "http://esproxy:9280" {
		t.Error("kibana: ELASTICSEARCH_HOSTS is not the proxy")
	}
	if v := service(t, p, "elasticsearch").Environment["xpack.security.enabled"]; v == nil || *v != "true" {
		t.Error("elasticsearch: security is not on")
	}
}

// secretName tells variables that hold secrets.
var secretName = regexp.MustCompile(`(?i)(PASSWORD|MASTER_KEY|ENCRYPTION_?KEY|TOKEN|API_KEY|SECRET)`)

// Every secret comes from .env: with markers in the environment, nothing else may stand in a variable of such a name.
func TestSecretsComeFromEnv(t *testing.T) {
	vars := variables(t)
	fromEnv := map[string]bool{}
	for name, value := range vars {
		if value != "" {
			t.Errorf(".env.example: %s has a value", name)
		}
		fromEnv[marker(name)] = true
	}
	used := map[string]bool{}
	for _, s := range project(t).Services {
		for name, value := range s.Environment {
			if value == nil {
				t.Errorf("%s: %s comes from the shell, not from .env", s.Name, name)
				continue
			}
			used[*value] = true
			if secretName.MatchString(name) && !fromEnv[*value] {
				t.Errorf("%s: %s is a literal", s.Name, name)
			}
		}
		for _, word := range append(append([]string(nil), s.Command...), s.Entrypoint...) {
			for name := range vars {
				if strings.Contains(word, marker(name)) {
					t.Errorf("%s: %s stands in the command line", s.Name, name)
				}
			}
		}
	}
	for name := range vars {
		if !used[marker(name)] {
			t.Errorf(".env.example: %s is used by no service", name)
		}
	}
	for _, m := range regexp.MustCompile(`\$\{([A-Z_]+)`).FindAllStringSubmatch(composeText(t), -1) {
		if _, ok := vars[m[1]]; !ok {
			t.Errorf("docker-compose.yml wants %s, and .env.example does not name it", m[1])
		}
	}
	if regexp.MustCompile(`esk1:|espw1:|estk1:|espt1\.`).MatchString(composeText(t)) {
		t.Error("docker-compose.yml holds a key or token")
	}
}

func TestMissingSecretsStopTheStart(t *testing.T) {
	for name := range variables(t) {
		_, err := load(t, name)
		switch {
		case mayBeEmpty[name] && err != nil:
			t.Errorf("without %s: %v", name, err)
		case !mayBeEmpty[name] && (err == nil || !strings.Contains(err.Error(), name)):
			t.Errorf("without %s: got %v, want an error that names it", name, err)
		}
	}
}

func TestMasterKeyGoesOnlyWhereItIsNeeded(t *testing.T) {
	for _, s := range project(t).Services {
		for _, value := range s.Environment {
			if value != nil && *value == marker("MASTER_KEY") && s.Name != "esproxy" && s.Name != "ingest" {
				t.Errorf("%s has MASTER_KEY", s.Name)
			}
		}
	}
}

// instructions are the Dockerfile's, continued lines joined.
func instructions(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(strings.ReplaceAll(string(text), "\\\n", " ")) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, line)
		}
	}
	return out
}

func TestDockerfile(t *testing.T) {
	lines := instructions(t)
	last := slices.IndexFunc(lines, func(l string) bool { return l == "FROM scratch" })
	if last < 0 {
		t.Fatal("the image is not made from scratch")
	}
	build, image := strings.Join(lines[:last], "\n"), lines[last:]
	for _, want := range []string{"CGO_ENABLED=0", "-trimpath", "-tags nodevnode", "./cmd/esproxy"} {
		if !strings.Contains(build, want) {
			t.Errorf("the build does not say %s", want)
		}
	}
	has := func(pattern string) bool {
		return slices.ContainsFunc(image, regexp.MustCompile(pattern).MatchString)
	}
	for what, pattern := range map[string]string{
		"numeric user that is not root": `^USER [1-9][0-9]*:[1-9][0-9]*$`,
		"health check without a shell":  `^HEALTHCHECK .*CMD \["/esproxy", "healthcheck"\]$`,
		"entry point without a shell":   `^ENTRYPOINT \["/esproxy"\]$`,
		"policy":                        `^COPY config/fields\.yaml .*/config/$`,
		"labels":                        `^LABEL .*org\.opencontainers\.image\.licenses="Apache-2\.0"`,
		"authorities":                   `ca-certificates\.crt$`,
		"command":                       `^CMD \["serve"\]$`,
	} {
		if !has(pattern) {
			t.Errorf("the image has no %s", what)
		}
	}
	if has(`^RUN `) {
		t.Error("a RUN in an image from scratch has no shell to run it")
	}
	for _, l := range lines {
		if strings.HasPrefix(l, "ENV ") && secretName.MatchString(l) {
			t.Errorf("a secret in the image: %s", l)
		}
	}
}

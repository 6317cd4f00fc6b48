package test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// slowServer makes the server hold writes of a document named slow until release is called; begun is closed when one came.
func slowServer(s *stack) (begun chan struct{}, release func()) {
	begun, gate := make(chan struct{}), make(chan struct{})
	s.rec.mu.Lock()
	defer s.rec.mu.Unlock()
	s.rec.before = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if strings.Contains(r.RequestURI, "/_doc/slow") {
			close(begun)
			select {
			case <-gate:
			case <-r.Context().Done():
			}
		}
		return false
	}
	return begun, func() { close(gate) }
}

// TestOpsDrain: after SIGTERM a request in flight completes, new connections are refused, readiness says why, and the status is 0.
func TestOpsDrain(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	begun, release := slowServer(s)
	done := make(chan answer, 1)
	go func() { done <- s.do("PUT", "/$Puser/_doc/slow", anasDoc) }()
	<-begun
	s.cmd.Process.Signal(syscall.SIGTERM)
	addr := strings.TrimPrefix(s.url, "http://")
	waitFor(t, "the listener to close", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	if a := s.adminGet("/readyz"); a.status != 503 || !strings.Contains(a.body, "draining") {
		t.Errorf("readiness %d %s", a.status, a.body)
	}
	if a := s.adminGet("/healthz"); a.status != 200 {
		t.Errorf("health %d", a.status)
	}
	if got := s.metric("esproxy_draining"); got != "1" {
		t.Errorf("gauge %s", got)
	}
	out, errs, code := s.command("", "healthcheck", "--admin-listen", strings.TrimPrefix(s.admin, "http://"))
	if code != 1 || out != "" || !strings.Contains(errs, "not ready: draining") {
		t.Errorf("healthcheck: %d %q %q", code, out, errs)
	}
	release()
	if a := <-done; a.err != nil || a.status != 201 || a.json("result").Str != "created" {
		t.Errorf("the request in flight got %+v", a)
	}
	if err := s.wait(t); err != nil {
		t.Errorf("ended with %v", err)
	}
	if a := s.direct("GET", "/$Puser/_doc/slow", ""); a.status != 200 {
		t.Errorf("not stored: %s", a.body)
	}
}

// TestOpsDrainTimeout: what takes longer than the drain may is cut, and the status says so. A second signal ends the process at once.
func TestOpsDrainTimeout(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env    string
		second bool
		want   string
	}{
		"timeout":       {"ESPROXY_DRAIN_TIMEOUT=200ms", false, "exit status 1"},
		"second signal": {"ESPROXY_DRAIN_TIMEOUT=10m", true, "signal: terminated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, config{env: []string{c.env}})
			begun, release := slowServer(s)
			defer release()
			done := make(chan answer, 1)
			go func() { done <- s.do("PUT", "/$Puser/_doc/slow", anasDoc) }()
			<-begun
			s.cmd.Process.Signal(syscall.SIGTERM)
			waitFor(t, "the drain", func() bool { return strings.Contains(s.log.String(), "msg=draining") })
			if c.second {
				s.cmd.Process.Signal(syscall.SIGTERM)
			}
			if err := s.wait(t); err == nil || err.Error() != c.want {
				t.Errorf("ended with %v, want %s", err, c.want)
			}
			if a := <-done; a.err == nil && a.status < 400 {
				t.Errorf("the request that was cut got %d %s", a.status, a.body)
			}
		})
	}
}

// TestOpsAdmin: health, readiness, metrics and version; and none of it on the listener for clients.
func TestOpsAdmin(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	for path, want := range map[string]string{"/healthz": "^ok\n$", "/readyz": "^ok\n$", "/version": `^\{"go":"go1[^"]*","version":"[^"]+"\}\n$`} {
		if a := s.must(s.adminGet(path), 200); !regexp.MustCompile(want).MatchString(a.body) {
			t.Errorf("%s: %q", path, a.body)
		}
	}
	s.must(s.do("PUT", "/$Puser/_doc/1?refresh=true", anasDoc), 201)
	s.must(s.as("full", "GET", "/$Puser/_doc/1", ""), 200)
	s.must(s.as("support", "GET", "/$Puser/_doc/1", ""), 200)
	s.do("GET", "/$Puser/_doc/1?source=x", "")
	for name, want := range map[string]string{
		`esproxy_sealed_values_total{field="credit_card_num",rule="users"}`:              "1",
		`esproxy_opened_values_total{field="credit_card_num",how="plain",rule="users"}`:  "1",
		`esproxy_opened_values_total{field="credit_card_num",how="masked",rule="users"}`: "1",
		`esproxy_requests_total{class="2xx",method="PUT",route="/{index}/_doc/{id}"}`:    "1",
		`esproxy_requests_total{class="2xx",method="GET",route="/{index}/_doc/{id}"}`:    "2",
		`esproxy_refused_total{type="esproxy_bad_request"}`:                              "1",
		"esproxy_reload_success":     "1",
		"esproxy_draining":           "0",
		"esproxy_requests_in_flight": "0",
		"esproxy_memory_used_bytes":  "0",
		"esproxy_panics_total":       "0",
	} {
		// A request's end is counted after its reply.
		waitFor(t, name, func() bool { return s.metric(name) == want })
	}
	if a := s.adminGet("/metrics"); strings.Contains(a.body, s.prefix) || strings.Contains(a.body, anasCard) {
		t.Error("a name or a value from a request stands in the metrics")
	}
	for _, path := range []string{"/metrics", "/healthz", "/-/reload"} {
		if a := s.do("GET", path, ""); a.status == 200 || strings.Contains(a.body, "esproxy_sealed") {
			t.Errorf("the clients' listener answers %s: %d", path, a.status)
		}
	}
	s.rec.CloseClientConnections()
	s.rec.Close()
	if a := s.adminGet("/readyz"); a.status != 200 && a.status != 503 {
		t.Errorf("readiness %d", a.status)
	}
}

// TestOpsAdminNone: the admin listener can be switched off.
func TestOpsAdminNone(t *testing.T) {
	t.Parallel()
	s := start(t, config{env: []string{"ESPROXY_ADMIN_LISTEN=none"}})
	s.must(s.do("GET", "/_cluster/health", ""), 200)
	if s.admin != "" || strings.Contains(s.log.String(), "admin=") {
		t.Errorf("an admin listener is told of: %s", s.log)
	}
	if n := listeners(t, s.cmd.Process.Pid); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

// listeners counts the listening TCP sockets of a process.
func listeners(t *testing.T, pid int) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 1
	}
	sockets := map[string]bool{}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		return 1 // a process that cannot be looked into has hidden itself well
	}
	for _, fd := range fds {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", pid, fd.Name())); err == nil {
			sockets[strings.TrimSuffix(strings.TrimPrefix(to, "socket:["), "]")] = true
		}
	}
	n := 0
	for _, table := range []string{"tcp", "tcp6"} {
		text, err := os.ReadFile("/proc/net/" + table)
		if err != nil {
			continue
		}
		for _, line := range strings.Split(string(text), "\n") {
			if f := strings.Fields(line); len(f) > 9 && f[3] == "0A" && sockets[f[9]] {
				n++
			}
		}
	}
	return n
}

// TestOpsStartErrors: the program's own status and messages when it cannot start.
func TestOpsStartErrors(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	bad := filepath.Join(t.TempDir(), "fields.yaml")
	if err := os.WriteFile(bad, []byte(strings.ReplaceAll(policyWith("key_id: 00c0ffee\n", "card"), "$P", "")), 0o600); err != nil {
		t.Fatal(err)
	}
	worse := filepath.Join(t.TempDir(), "fields.yaml")
	if err := os.WriteFile(worse, []byte("version: 1\nrulez: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		env  []string
		code int
		want []string
	}{
		"bad policy":         {[]string{"ESPROXY_FIELDS=" + worse}, 2, []string{worse + ":2:1:", "rulez"}},
		"wrong key id":       {[]string{"ESPROXY_FIELDS=" + bad}, 2, []string{"00c0ffee", "wrong key"}},
		"no key":             {[]string{"MASTER_KEY="}, 2, []string{"MASTER_KEY is not set", "keygen"}},
		"port in use":        {[]string{"ESPROXY_LISTEN=" + strings.TrimPrefix(s.url, "http://")}, 1, []string{"data listener", "in use"}},
		"admin port in use":  {[]string{"ESPROXY_ADMIN_LISTEN=" + strings.TrimPrefix(s.admin, "http://")}, 1, []string{"admin listener", "in use"}},
		"address of another": {[]string{"ESPROXY_LISTEN=192.0.2.1:0"}, 1, []string{"data listener", "192.0.2.1"}},
	} {
		e := s.failStart(c.env)
		if e.code != c.code || e.stdout != "" {
			t.Errorf("%s: status %d, want %d; standard output %q", name, e.code, c.code, e.stdout)
		}
		for _, text := range c.want {
			if !strings.Contains(e.stderr, text) {
				t.Errorf("%s: %q is missing in %s", name, text, e.stderr)
			}
		}
		if strings.Contains(e.stderr, masterKey) || strings.Contains(e.stderr, "panic") {
			t.Errorf("%s: %s", name, e.stderr)
		}
	}
}

// TestOpsWrongKey: a proxy with another key finds that at its start, says so, gives ciphertext and writes nothing.
func TestOpsWrongKey(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/1?refresh=true", anasDoc), 201)
	stored := s.must(s.direct("GET", "/$Puser/_doc/1", ""), 200).body
	s.stop()
	s.with("MASTER_KEY=" + otherKey)
	s.run()
	waitFor(t, "the log to tell", func() bool {
		return regexp.MustCompile(`level=ERROR msg="wrong MASTER_KEY".*` + s.prefix + `user`).MatchString(s.log.String())
	})
	a := s.as("full", "GET", "/$Puser/_doc/1", "")
	if s.must(a, 200); a.body != stored {
		t.Errorf("got %s", a.body)
	}
	waitFor(t, "the counter", func() bool { return s.metric(`esproxy_unopened_values_total{reason="unknown_key"}`) != "" })
	n := s.rec.count()
	for _, a := range []answer{s.do("PUT", "/$Puser/_doc/2", anasDoc), s.do("POST", "/$Puser/_update/1", `{"doc":{"username":"Ana","credit_card_num":"1"}}`)} {
		if a.status != 503 || a.json("error.type").Str != "esproxy_wrong_key" || len(regexp.MustCompile(`\b[0-9a-f]{8}\b`).FindAllString(a.json("error.reason").Str, -1)) < 2 {
			t.Errorf("a write got %d %s", a.status, a.body)
		}
	}
	for _, r := range s.rec.since(n) {
		if strings.Contains(r.target, "/_doc/2") || strings.Contains(r.target, "_update") {
			t.Errorf("sent %s", r)
		}
	}
	for _, args := range [][]string{{"get", "--rule", "users", "--subject", "Ana"}, {"export", "--rule", "users"}} {
		out, errs, code := s.command("", args...)
		if code != 1 || !strings.Contains(errs, "credit_card_num did not open") || strings.Contains(out, "esp1.") {
			t.Errorf("%v: %d %q %q", args, code, out, errs)
		}
	}
	if now := s.must(s.direct("GET", "/$Puser/_doc/1", ""), 200).body; now != stored {
		t.Errorf("the stored document changed: %s", now)
	}
}

// TestOpsHardening: no core files, and no looking into the process by others of its user.
func TestOpsHardening(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("Linux only")
	}
	t.Parallel()
	s := start(t, config{})
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^Max core file size +0 +0 `).Match(limits) {
		t.Errorf("limits:\n%s", limits)
	}
	// The files of a process that is not dumpable belong to root, whoever runs it.
	cmd := exec.Command(binary, "sample-api", "--listen", "127.0.0.1:0")
	if os.Getuid() == 0 {
		if err := os.Chmod(filepath.Dir(binary), 0o755); err != nil {
			t.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	if _, err := pipe.Read(make([]byte, 1)); err != nil { // its first line: it is past the start
		t.Fatal(err)
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d/environ", cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if uid := info.Sys().(*syscall.Stat_t).Uid; uid != 0 {
		t.Errorf("/proc/PID/environ belongs to user %d", uid)
	}
}

package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/devnode"
)

// binary is the program under test, built once.
var binary string

// masterKey and otherKey are keys for tests only.
var masterKey, otherKey string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "esproxy-test-")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	binary = filepath.Join(dir, "esproxy")
	if out, err := exec.Command("go", "build", "-o", binary, "../cmd/esproxy").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "building esproxy: %v\n%s", err, out)
		return 1
	}
	for _, k := range []*string{&masterKey, &otherKey} {
		out, err := exec.Command(binary, "keygen").Output()
		if err != nil {
			fmt.Fprintln(os.Stderr, "keygen:", err)
			return 1
		}
		*k = strings.TrimSpace(string(out))
	}
	return m.Run()
}

// realURL is the real server's address, "" without one.
func realURL() string { return strings.TrimRight(os.Getenv("ESPROXY_TEST_ES_URL"), "/") }

// needReal ends a test that the embedded node cannot carry.
func needReal(t *testing.T) {
	t.Helper()
	if realURL() == "" {
		t.Skip("needs a real Elasticsearch: set ESPROXY_TEST_ES_URL")
	}
}

// needOpenSearch gives the address of an OpenSearch, which has data streams. It ends the test when there is none.
func needOpenSearch(t *testing.T) string {
	t.Helper()
	u := strings.TrimRight(os.Getenv("ESPROXY_TEST_OS_URL"), "/")
	if u == "" {
		t.Skip("needs an OpenSearch: set ESPROXY_TEST_OS_URL")
	}
	return u
}

// needESQL gives the address of an Elasticsearch that answers ES|QL. It ends the test when there is none.
func needESQL(t *testing.T) string {
	t.Helper()
	u := strings.TrimRight(os.Getenv("ESPROXY_TEST_ESQL_URL"), "/")
	if u == "" {
		t.Skip("needs an Elasticsearch with ES|QL: set ESPROXY_TEST_ESQL_URL")
	}
	return u
}

// recorded is one request as the proxy sent it.
type recorded struct {
	method, target string
	header         http.Header
	body           []byte
}

func (r *recorded) String() string {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", r.method, r.target)
	r.header.Write(&b)
	b.WriteByte('\n')
	b.Write(r.body)
	return b.String()
}

// recorder passes requests on to the server and keeps them.
type recorder struct {
	*httptest.Server
	to   string
	mu   sync.Mutex
	reqs []*recorded
	// early, if set, may answer a request before its body is read; such a request is not kept.
	early func(w http.ResponseWriter, r *http.Request) bool
	// before, if set, may answer a request itself, or change what is passed on.
	before func(w http.ResponseWriter, r *http.Request, body []byte) bool
}

func newRecorder(t *testing.T, to string) *recorder {
	t.Helper()
	rec := &recorder{to: to}
	rec.Server = httptest.NewServer(rec)
	t.Cleanup(rec.Close)
	return rec
}

var passer = &http.Client{
	Transport:     &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 32},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func (rec *recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rec.mu.Lock()
	early := rec.early
	rec.mu.Unlock()
	if early != nil && early(w, r) {
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	rec.mu.Lock()
	rec.reqs = append(rec.reqs, &recorded{r.Method, r.RequestURI, r.Header.Clone(), body})
	before := rec.before
	rec.mu.Unlock()
	if before != nil && before(w, r, body) {
		return
	}
	u, _ := url.Parse(rec.to)
	out := &http.Request{Method: r.Method, URL: &url.URL{Scheme: u.Scheme, Host: u.Host}, Header: r.Header, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body))}
	out.URL.Opaque = r.RequestURI // as it is, nothing cleaned
	if len(body) == 0 {
		out.Body = http.NoBody
	}
	if _, ok := out.Header["User-Agent"]; !ok {
		out.Header["User-Agent"] = nil
	}
	res, err := passer.Do(out.WithContext(r.Context()))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	w.Header()["Date"] = nil
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	io.Copy(w, res.Body)
}

// meet sets what answers requests instead of the server; nil for nothing.
func (rec *recorder) meet(early func(w http.ResponseWriter, r *http.Request) bool) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.early = early
}

// since gives what was recorded from the nth request on.
func (rec *recorder) since(n int) []*recorded {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return append([]*recorded(nil), rec.reqs[n:]...)
}

func (rec *recorder) count() int {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return len(rec.reqs)
}

// leaks gives the first request in which text stands, in clear or compressed.
func (rec *recorder) leaks(n int, text string) string {
	for _, r := range rec.since(n) {
		if s := r.String(); strings.Contains(s, text) {
			return s
		}
	}
	return ""
}

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// stack is a proxy between a client and a server.
type stack struct {
	t        *testing.T
	server   string // the server itself
	rec      *recorder
	url      string // of the proxy
	admin    string
	prefix   string // of all index names of this stack
	fields   string // path of the policy
	dir      string // where commands run
	env      []string
	log      *safeBuffer
	cmd      *exec.Cmd
	exited   chan struct{}
	exitErr  error
	tokens   map[string]string
	tokensMu sync.Mutex
}

// config says how a stack differs from the usual.
type config struct {
	policy string   // "" is defaultPolicy; $P is the prefix
	env    []string // further environment
	server string   // "" is the real server or a new embedded node
}

const defaultPolicy = `
version: 1
rules:
  - name: users
    indices: ["$Puser", "$Puser-*"]
    subject: username
    fields:
      credit_card_num: {mode: encrypt, mask: last4}
      credit_card_ccv: {mode: encrypt}
      cuenta_numero: {mode: encrypt, mask: last4}
      payment.cards.pan: {mode: encrypt, mask: first6last4}
      pin: {mode: drop}
  - name: notes
    indices: ["$Pnote"]
    fields:
      secret.text: {mode: encrypt}
      mail: {mode: encrypt, mask: email}
grants:
  - name: support
    reveal: {users.credit_card_num: masked, users.payment.cards.pan: masked, notes.mail: masked}
  - name: cards
    reveal: {users.credit_card_num: plain}
`

// newServer gives the address of the server that tests run against.
func newServer(t *testing.T) string {
	t.Helper()
	if u := realURL(); u != "" {
		return u
	}
	return embedded(t)
}

// embedded gives the address of a new embedded node.
func embedded(t *testing.T) string {
	t.Helper()
	node, err := devnode.New(devnode.Options{})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(node)
	t.Cleanup(func() { srv.Close(); node.Close() })
	return srv.URL
}

func start(t *testing.T, c config) *stack {
	t.Helper()
	s := &stack{t: t, prefix: fmt.Sprintf("t%08x-", rand.Uint32()), tokens: map[string]string{}, server: c.server}
	if s.server == "" {
		s.server = newServer(t)
	}
	s.rec = newRecorder(t, s.server)
	if c.policy == "" {
		c.policy = defaultPolicy
	}
	s.dir = t.TempDir()
	s.fields = filepath.Join(t.TempDir(), "fields.yaml")
	s.writePolicy(c.policy)
	s.env = append([]string{
		"MASTER_KEY=" + masterKey, "ELASTICSEARCH_URL=" + s.rec.URL, "ESPROXY_LISTEN=127.0.0.1:0", "ESPROXY_ADMIN_LISTEN=127.0.0.1:0",
		"ESPROXY_FIELDS=" + s.fields, "ESPROXY_LOG_LEVEL=debug", "ESPROXY_RELOAD_INTERVAL=0", "HOME=" + t.TempDir(),
	}, c.env...)
	s.run()
	t.Cleanup(func() {
		s.stop()
		s.deleteIndices()
		if t.Failed() {
			t.Logf("log of the proxy:\n%s", tail(s.log.String(), 6000))
		}
	})
	return s
}

func tail(s string, n int) string {
	if len(s) > n {
		return "…" + s[len(s)-n:]
	}
	return s
}

func (s *stack) writePolicy(text string) {
	s.t.Helper()
	replaceFile(s.t, s.fields, strings.ReplaceAll(text, "$P", s.prefix))
}

// replaceFile puts a new file in the place of one, if there is one, as secrets are replaced: a proxy that looks never sees half of it.
func replaceFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

var (
	listenRE = regexp.MustCompile(`msg=serving .*\blisten=(\S+)`)
	adminRE  = regexp.MustCompile(`msg=serving .*\badmin=(\S+)`)
)

// run starts the proxy and waits until it listens.
func (s *stack) run() {
	s.t.Helper()
	s.log = &safeBuffer{}
	s.cmd = exec.Command(binary, "serve")
	s.cmd.Env = s.env
	pipe, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	serving := make(chan string, 1)
	exited := make(chan struct{})
	s.exited = exited
	go func() {
		r := bufio.NewReader(pipe)
		for {
			line, err := r.ReadString('\n')
			io.WriteString(s.log, line)
			if strings.Contains(line, "msg=serving") {
				serving <- line
			}
			if err != nil {
				break
			}
		}
		s.exitErr = s.cmd.Wait()
		close(exited)
	}()
	select {
	case line := <-serving:
		scheme := "http://"
		if strings.Contains(line, "tls=true") {
			scheme = "https://"
		}
		s.url = scheme + listenRE.FindStringSubmatch(line)[1]
		if m := adminRE.FindStringSubmatch(line); m != nil {
			s.admin = "http://" + m[1]
		}
	case <-exited:
		s.t.Fatalf("the proxy ended: %v\n%s", s.exitErr, s.log)
	case <-time.After(30 * time.Second):
		s.t.Fatalf("the proxy does not listen\n%s", s.log)
	}
}

// stop ends the proxy with SIGTERM and checks that it ends well.
func (s *stack) stop() {
	select {
	case <-s.exited:
		return
	default:
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.exited:
		if s.exitErr != nil {
			s.t.Errorf("the proxy ended with %v", s.exitErr)
		}
	case <-time.After(40 * time.Second):
		s.cmd.Process.Kill()
		s.t.Error("the proxy did not end after SIGTERM")
	}
}

// command runs another command of the program with the stack's environment.
func (s *stack) command(stdin string, args ...string) (stdout, stderr string, code int) {
	return s.commandEnv(stdin, nil, args...)
}

func (s *stack) commandEnv(stdin string, env []string, args ...string) (stdout, stderr string, code int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir = s.dir // where files without a given name go
	cmd.Env = append(append(append([]string(nil), s.env...), "ESPROXY_URL="+s.url), env...)
	cmd.Stdin = strings.NewReader(stdin)
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return out.String(), errb.String(), cmd.ProcessState.ExitCode()
}

// token makes a token of the stack's key.
func (s *stack) token(grant string) string {
	s.t.Helper()
	s.tokensMu.Lock()
	defer s.tokensMu.Unlock()
	if t, ok := s.tokens[grant]; ok {
		return t
	}
	out, errs, code := s.command("", "token", "--grant", grant, "--for", "tester", "--ttl", "1h")
	if code != 0 {
		s.t.Fatalf("token: %s", errs)
	}
	s.tokens[grant] = strings.TrimSpace(out)
	return s.tokens[grant]
}

// answer is a whole reply.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of the body
}

func (a answer) json(path string) gjson.Result { return gjson.Get(a.body, path) }

// request is one request of a test.
type request struct {
	method, path string // $P is the prefix
	header       http.Header
	body         io.Reader
	grant        string
	direct       bool // around the proxy
}

func (s *stack) send(r request) answer {
	s.t.Helper()
	base := s.url
	if r.direct {
		base = s.server
	}
	path := strings.ReplaceAll(r.path, "$P", s.prefix)
	req, err := http.NewRequest(r.method, base, r.body)
	if err != nil {
		s.t.Fatal(err)
	}
	req.URL.Opaque = path // as it is, nothing cleaned
	req.Header = http.Header{}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.body != nil && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if v, ok := req.Header["Content-Type"]; ok && len(v) == 1 && v[0] == "none" {
		delete(req.Header, "Content-Type")
	}
	req.Host = req.Header.Get("Host") // "" is the address
	if r.grant != "" {
		req.Header.Set("X-Esproxy-Authorization", "Bearer "+s.token(r.grant))
	}
	res, err := passer.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b), err}
}

// do sends a request with a body through the proxy.
func (s *stack) do(method, path, body string) answer {
	s.t.Helper()
	r := request{method: method, path: path}
	if body != "" {
		r.body = strings.NewReader(strings.ReplaceAll(body, "$P", s.prefix))
	}
	return s.send(r)
}

// as is do with a grant.
func (s *stack) as(grant, method, path, body string) answer {
	s.t.Helper()
	r := request{method: method, path: path, grant: grant}
	if body != "" {
		r.body = strings.NewReader(strings.ReplaceAll(body, "$P", s.prefix))
	}
	return s.send(r)
}

// direct is do around the proxy.
func (s *stack) direct(method, path, body string) answer {
	s.t.Helper()
	r := request{method: method, path: path, direct: true}
	if body != "" {
		r.body = strings.NewReader(strings.ReplaceAll(body, "$P", s.prefix))
	}
	return s.send(r)
}

// must fails the test when a reply has another status.
func (s *stack) must(a answer, status int) answer {
	s.t.Helper()
	if a.err != nil || a.status != status {
		s.t.Fatalf("got status %d, error %v, body %s; want %d", a.status, a.err, tail(a.body, 2000), status)
	}
	return a
}

func (s *stack) deleteIndices() {
	if s.server == strings.TrimRight(os.Getenv("ESPROXY_TEST_OS_URL"), "/") {
		for _, what := range []string{"_data_stream", "_index_template", "_template"} {
			s.direct("DELETE", "/"+what+"/"+s.prefix+"*", "")
		}
	}
	a := s.direct("GET", "/_cat/indices?format=json&h=index&expand_wildcards=all", "")
	var list []struct{ Index string }
	if json.Unmarshal([]byte(a.body), &list) != nil {
		return
	}
	for _, i := range list {
		if strings.Contains(i.Index, s.prefix) {
			s.direct("DELETE", "/"+i.Index, "")
		}
	}
}

// waitFor polls for something that another process does.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

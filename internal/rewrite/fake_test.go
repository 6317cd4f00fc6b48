package rewrite

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/esproxy/esproxy/internal/policy"
)

// fakeToken makes a value that is "sealed" readably: rule, path, subject and JSON value in clear, so that goldens
// can be checked by eye. It has the length and alphabet of a real one.
func fakeToken(rule, path, subject, value string) string {
	text := strings.Join([]string{rule, path, url.QueryEscape(subject), value}, "|")
	if pad := 151 - len(text); pad > 0 {
		text += strings.Repeat(" ", pad)
	}
	text += fmt.Sprintf("|%08x", crc32.ChecksumIEEE([]byte(text))) // stands for the tag
	return "esp1." + base64.RawURLEncoding.EncodeToString([]byte(text))
}

// fakeCrypto is a Sealer and an Opener whose values open only at their rule, path and subject.
type fakeCrypto struct {
	mu     sync.Mutex
	opened int // calls of Open
	busy   bool
}

// fakeOpenError is the error of a value that does not open.
type fakeOpenError struct{ reason string }

func (e *fakeOpenError) Error() string  { return "the value does not open" }
func (e *fakeOpenError) Reason() string { return e.reason }

var errFakeBusy = &Fault{Status: 429, Type: "esproxy_busy", Reason: "too many key derivations"}

func (c *fakeCrypto) IsToken(s []byte) bool {
	if len(s) < 6 || s[0] != 'e' || s[1] != 's' || s[2]|0x20 < 'a' || s[2]|0x20 > 'z' || s[3]-'0' > 9 || s[4] != '.' {
		return false
	}
	for _, b := range s[5:] {
		if b != '-' && b != '_' && b-'0' > 9 && (b|0x20)-'a' > 25 {
			return false
		}
	}
	return true
}

func (c *fakeCrypto) NewDocument(rule *policy.Rule, subject []byte) (DocumentSealer, error) {
	if c.busy {
		return nil, errFakeBusy
	}
	return &fakeDocument{rule.Name, string(subject)}, nil
}

type fakeDocument struct{ rule, subject string }

func (d *fakeDocument) Seal(dst []byte, path string, value []byte) ([]byte, error) {
	return append(dst, fakeToken(d.rule, path, d.subject, string(value))...), nil
}

func (d *fakeDocument) Close() {}

func (c *fakeCrypto) NewSession() OpenSession { return fakeSession{c} }

type fakeSession struct{ c *fakeCrypto }

func (s fakeSession) Close() {}

func (s fakeSession) Open(dst []byte, rule *policy.Rule, path string, subject, token []byte) ([]byte, error) {
	s.c.mu.Lock()
	s.c.opened++
	s.c.mu.Unlock()
	if s.c.busy {
		return dst, &fakeOpenError{"busy"}
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(string(token), "esp1."))
	if err != nil {
		return dst, &fakeOpenError{"malformed"}
	}
	text, tag := raw[:max(0, len(raw)-9)], raw[max(0, len(raw)-9):]
	part := strings.SplitN(string(text), "|", 4)
	if len(part) != 4 || string(tag) != fmt.Sprintf("|%08x", crc32.ChecksumIEEE(text)) {
		return dst, &fakeOpenError{"malformed"}
	}
	if part[0] == "otherkey" {
		return dst, &fakeOpenError{"unknown_key"}
	}
	if part[0] != rule.Name || part[1] != path || part[2] != url.QueryEscape(string(subject)) {
		return dst, errors.New("authentication failed")
	}
	return append(dst, strings.TrimRight(part[3], " ")...), nil
}

// fakeCluster knows names and documents.
type fakeCluster struct {
	mu    sync.Mutex
	names map[string]Resolved // by name in the request; others stand for themselves
	docs  map[Ref]Stored
	err   error // of Documents
	asked [][]Ref
	paths []string // of the last look-up
	limit int64
	ready error
}

func (c *fakeCluster) Resolve(_ context.Context, name string) (Resolved, error) {
	if r, ok := c.names[name]; ok {
		return r, nil
	}
	r := Resolved{Names: []string{name}, Write: name, System: policy.IsSystem(name), Failures: policy.IsFailureStore(name)}
	if base, ok := strings.CutSuffix(name, "::failures"); ok {
		r = Resolved{Names: []string{base}, Failures: true}
	}
	return r, nil
}

func (c *fakeCluster) Expand(ctx context.Context, expression string) (Resolved, error) {
	var out Resolved
	out.System = true
	for name := range strings.SplitSeq(expression, ",") {
		r, err := c.Resolve(ctx, name)
		if err != nil {
			return out, err
		}
		out.Names = append(out.Names, r.Names...)
		out.System = out.System && r.System
		out.Failures = out.Failures || r.Failures
	}
	return out, nil
}

func (c *fakeCluster) Ready(context.Context, Caller, string, []*policy.Rule) error { return c.ready }

func (c *fakeCluster) Documents(_ context.Context, _ Caller, refs []Ref, paths []string) ([]Stored, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, append([]Ref(nil), refs...))
	c.paths = append([]string(nil), paths...)
	if c.err != nil {
		return nil, c.err
	}
	out := make([]Stored, len(refs))
	for i, ref := range refs {
		out[i] = c.docs[ref]
	}
	return out, nil
}

func (c *fakeCluster) MaxContentLength(context.Context) int64 {
	if c.limit == 0 {
		return 100 << 20
	}
	return c.limit
}

// fakeViewer shows fields by "rule.path"; "*" stands for all others.
type fakeViewer map[string]policy.Reveal

func (v fakeViewer) Reveal(f *policy.Field) policy.Reveal {
	if how, ok := v[f.Rule.Name+"."+f.Path]; ok {
		return how
	}
	return v["*"]
}

func (v fakeViewer) Mask(dst []byte, f *policy.Field, value []byte) []byte {
	return fmt.Appendf(dst, `"mask of %d"`, len(value))
}

// fakeCounter keeps counts by readable keys: "opened users.card plain in user", "unopened auth", …
type fakeCounter struct {
	mu sync.Mutex
	n  map[string]int
}

func (c *fakeCounter) add(key string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.n == nil {
		c.n = make(map[string]int)
	}
	c.n[key] += n
}

func (c *fakeCounter) Sealed(f *policy.Field, n int) { c.add("sealed "+f.Rule.Name+"."+f.Path, n) }

func (c *fakeCounter) Opened(f *policy.Field, how policy.Reveal, index string, n int) {
	c.add("opened "+f.Rule.Name+"."+f.Path+" "+how.String()+" in "+index, n)
}

func (c *fakeCounter) Unopened(reason string, n int) { c.add("unopened "+reason, n) }

func (c *fakeCounter) Refused(faultType string) { c.add("refused "+faultType, 1) }

// fakeBudget counts what is out. Beyond max it refuses at once; 0 means no bound.
type fakeBudget struct {
	mu             sync.Mutex
	max, out, peak int64
}

func (b *fakeBudget) Acquire(_ context.Context, n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.max > 0 && b.out+n > b.max {
		return &Fault{Status: 429, Type: "esproxy_busy", Reason: "no memory is free"}
	}
	b.out += n
	b.peak = max(b.peak, b.out)
	return nil
}

func (b *fakeBudget) TryAcquire(n int64) bool { return b.Acquire(context.Background(), n) == nil }

func (b *fakeBudget) Release(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out -= n
}

// fakeCaller answers small requests by "METHOD path" and keeps what it was asked.
type fakeCaller struct {
	mu      sync.Mutex
	answers map[string]string
	status  int // of all answers; 0 means 200
	err     error
	asked   []string
}

func (c *fakeCaller) Do(_ context.Context, method, path string, body []byte, max int64) (int, []byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.asked = append(c.asked, method+" "+path+" "+string(bytes.TrimSpace(body)))
	if c.err != nil {
		return 0, nil, c.err
	}
	status := c.status
	if status == 0 {
		status = 200
	}
	reply := c.answers[method+" "+path]
	if int64(len(reply)) > max {
		return 0, nil, errors.New("the answer is too long")
	}
	return status, []byte(reply), nil
}

// fakePolicy parses a policy file.
func fakePolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("fields.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// fakeRules is a policy with the usual cases: a rule with a subject and one without, nested and dotted paths.
const fakeRules = `version: 1
rules:
  - name: users
    indices: ["user", "user-*"]
    subject: username
    fields:
      card: {mode: encrypt, mask: last4}
      ccv: {mode: encrypt}
      items.card: {mode: encrypt}
      pay.iban: {mode: encrypt}
  - name: deep
    indices: ["deep"]
    subject: who.name
    fields:
      card: {mode: encrypt}
  - name: shop
    indices: ["shop"]
    fields:
      key: {mode: encrypt}
`

// fakeEngine is an engine of fakes.
func fakeEngine(t testing.TB) (*Engine, *fakeCluster, *fakeCrypto) {
	t.Helper()
	crypto, cluster := &fakeCrypto{}, &fakeCluster{names: map[string]Resolved{}, docs: map[Ref]Stored{}}
	return &Engine{
		Policy: fakePolicy(t, fakeRules), Sealer: crypto, Opener: crypto, Cluster: cluster, Budget: &fakeBudget{},
		Limits: Limits{MaxDocument: 16 << 20, MaxHit: 16 << 20},
	}, cluster, crypto
}

func (c *fakeCluster) Read(ctx context.Context, caller Caller, path string, max int64) (int, []byte, error) {
	if caller == nil {
		return 404, []byte(`{"found":false}`), nil
	}
	status, body, err := caller.Do(ctx, "GET", path, nil, max)
	if status == 200 && len(body) == 0 {
		status = 404
	}
	return status, body, err
}

func (c *fakeCluster) Changed() {}

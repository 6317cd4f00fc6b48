package ingest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

// cluster is an Elasticsearch that knows _bulk with index actions only, and is strict about them: anything that is
// not exactly one action line and one object per document fails the test.
type cluster struct {
	t   *testing.T
	srv *httptest.Server

	// item, if set, decides over one document, given how often its id was sent before; status 0 stores it.
	item func(id string, doc []byte, before int) (status int, kind string)
	// whole, if set, decides over request n (1, 2, …); status 0 lets it through.
	whole func(n int, w http.ResponseWriter, r *http.Request) bool

	mu       sync.Mutex
	requests int
	headers  []http.Header
	sent     map[string]int    // by id
	docs     map[string]string // by id
	order    []string          // ids as they were stored
	sizes    [][2]int          // bytes and documents of each request
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{t: t, sent: map[string]int{}, docs: map[string]string{}}
	c.srv = httptest.NewServer(c)
	t.Cleanup(c.srv.Close)
	return c
}

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client gave up
	}
	c.requests++
	c.headers = append(c.headers, r.Header.Clone())
	if c.whole != nil && c.whole(c.requests, w, r) {
		return
	}
	if r.Method != "POST" || r.URL.Path != "/user/_bulk" || r.URL.RawQuery != "" || r.Header.Get("Content-Type") != "application/x-ndjson" {
		c.t.Errorf("request %s %s with type %q, want POST /user/_bulk with application/x-ndjson", r.Method, r.URL, r.Header.Get("Content-Type"))
	}
	if r.ContentLength != int64(len(body)) || !bytes.HasSuffix(body, []byte("\n")) {
		c.t.Errorf("a body of %d bytes with length %d, want them equal and a newline at the end", len(body), r.ContentLength)
	}
	lines := strings.Split(strings.TrimSuffix(string(body), "\n"), "\n")
	if len(lines)%2 != 0 {
		c.t.Fatalf("a bulk of %d lines", len(lines))
	}
	c.sizes = append(c.sizes, [2]int{len(body), len(lines) / 2})
	var items []any
	failed := false
	inRequest := map[string]bool{}
	for i := 0; i < len(lines); i += 2 {
		var action struct {
			Index *struct {
				ID *string `json:"_id"`
			} `json:"index"`
		}
		dec := json.NewDecoder(strings.NewReader(lines[i]))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&action); err != nil || action.Index == nil || action.Index.ID == nil || dec.More() {
			c.t.Errorf("action line %q: %v", lines[i], err)
			continue
		}
		id, doc := *action.Index.ID, lines[i+1]
		if !json.Valid([]byte(doc)) || doc[0] != '{' {
			c.t.Errorf("document %q is not one JSON object", doc)
		}
		if inRequest[id] {
			c.t.Errorf("id %q is twice in one request", id)
		}
		inRequest[id] = true
		before := c.sent[id]
		c.sent[id]++
		status, kind := 0, ""
		if c.item != nil {
			status, kind = c.item(id, []byte(doc), before)
		}
		if status != 0 {
			failed = true
			// Elasticsearch quotes values in reasons.
			items = append(items, map[string]any{"index": map[string]any{"_index": "user", "_id": id, "status": status,
				"error": map[string]any{"type": kind, "reason": "failed to parse: Preview of field's value: '" + doc + "'"}}})
			continue
		}
		result := map[string]any{"_index": "user", "_id": id, "status": 201, "result": "created", "_version": 1}
		if _, ok := c.docs[id]; ok {
			result["status"], result["result"] = 200, "updated"
		}
		c.docs[id] = doc
		c.order = append(c.order, id)
		items = append(items, map[string]any{"index": result})
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{"took": 1, "errors": failed, "items": items})
}

// clock fires at once and keeps what it was asked to wait.
type clock struct {
	mu     sync.Mutex
	now    time.Time
	step   time.Duration // how far the clock moves each time it is read
	waits  []time.Duration
	onWait func(time.Duration)
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(c.step)
	return c.now
}

func (c *clock) After(d time.Duration) <-chan time.Time {
	c.mu.Lock()
	c.now = c.now.Add(d)
	c.waits = append(c.waits, d)
	now, f := c.now, c.onWait
	c.mu.Unlock()
	if f != nil {
		f(d)
	}
	ch := make(chan time.Time, 1)
	ch <- now
	return ch
}

func (c *clock) waited() []time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]time.Duration{}, c.waits...)
}

// env is one run's surroundings.
type env struct {
	t     *testing.T
	c     *cluster
	clock *clock
	log   *bytes.Buffer
	out   *bytes.Buffer
	opt   ingest.Options
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{t: t, c: newCluster(t), clock: newClock(), log: &bytes.Buffer{}, out: &bytes.Buffer{}}
	e.opt = ingest.Options{
		Index: "user", ProxyURL: e.c.srv.URL, Clock: e.clock, Progress: e.out, FlushInterval: time.Hour,
		Logger: slog.New(slog.NewTextHandler(e.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	return e
}

func (e *env) run() (ingest.Summary, error) { return ingest.Run(context.Background(), e.opt) }

// api starts a sample API and makes it the source.
func (e *env) api(o sampleapi.Options, path string) *httptest.Server {
	e.t.Helper()
	srv := httptest.NewServer(sampleapi.New(o))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	e.t.Cleanup(srv.Close)
	e.opt.Source = srv.URL + path
	return srv
}

// mustRun runs and fails the test on an error.
func (e *env) mustRun() ingest.Summary {
	e.t.Helper()
	s, err := e.run()
	if err != nil {
		e.t.Fatalf("run: %v\n%s", err, e.log)
	}
	return s
}

// wantAll checks that records 1..n of the sample API are stored, each under its id with its own content.
func (e *env) wantAll(n int) {
	e.t.Helper()
	if len(e.c.docs) != n {
		e.t.Errorf("%d documents are stored, want %d", len(e.c.docs), n)
	}
	for _, r := range sampleapi.Records(n) {
		want := strings.NewReplacer(`"user_name":`, `"username":`, `"codigo_zip":`, `"code_zip":`,
			quoted(r.FecAlta), quoted(storedDate(e.t, r.FecAlta)), quoted(r.FecBirthday), quoted(storedDate(e.t, r.FecBirthday))).Replace(string(r.JSON()))
		if got := e.c.docs[r.ID]; got != want {
			e.t.Errorf("document %s:\n got %s\nwant %s", r.ID, got, want)
			return
		}
	}
}

func quoted(s string) string { return `"` + s + `"` }

func storedDate(t *testing.T, s string) string {
	t.Helper()
	for _, layout := range []string{time.RFC3339, "02/01/2006"} {
		if d, err := time.Parse(layout, s); err == nil {
			return d.Format("2006-01-02 15:04:05")
		}
	}
	t.Fatalf("no date: %s", s)
	return ""
}

// canaries returns every protected value of n records.
func canaries(n int) []string {
	var list []string
	for _, r := range sampleapi.Records(n) {
		list = append(list, r.CreditCardNum, r.CuentaNumero, fmt.Sprintf("%q:%q", "credit_card_ccv", r.CreditCardCCV))
	}
	return list
}

// wantNone checks that no protected value stands in text.
func wantNone(t *testing.T, what, text string, n int) {
	t.Helper()
	for _, c := range canaries(n) {
		if strings.Contains(text, c) || strings.Contains(text, strings.ReplaceAll(c, `"`, `\"`)) {
			t.Errorf("%s holds the protected value %s:\n%.2000s", what, c, text)
			return
		}
	}
}

package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

func TestItemsAnswered429AreSentAgainAlone(t *testing.T) {
	const n = 30
	e := newEnv(t)
	e.api(sampleapi.Options{N: n}, "/users")
	slow := map[string]int{"3": 1, "4": 4, "29": 2, "30": 1}
	e.c.item = func(id string, _ []byte, before int) (int, string) {
		if before < slow[id] {
			return 429, "es_rejected_execution_exception"
		}
		return 0, ""
	}
	e.opt.BatchCount = 15
	s := e.mustRun()
	e.wantAll(n)
	if s.Created != n || s.Retried != 8 || s.Rejected != 0 {
		t.Errorf("summary %+v, want %d created and 8 retried", s, n)
	}
	for id, k := range e.c.sent {
		if k != 1+slow[id] {
			t.Errorf("document %s was sent %d times, want %d", id, k, 1+slow[id])
		}
	}
	wantNone(t, "the log", e.log.String(), n)
}

func TestWholeRequestsAreSentAgain(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		after  string
		wait   time.Duration
	}{"503": {503, "", 0}, "429": {429, "42", 42 * time.Second}, "502": {502, "", 0}, "504": {504, "", 0}} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.api(sampleapi.Options{N: 5}, "/users")
			e.c.whole = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n > 2 {
					return false
				}
				if c.after != "" {
					w.Header().Set("Retry-After", c.after)
				}
				w.WriteHeader(c.status)
				return true
			}
			s := e.mustRun()
			e.wantAll(5)
			if waits := e.clock.waited(); s.Retried != 10 || len(waits) != 2 || c.wait > 0 && waits[0] != c.wait {
				t.Errorf("summary %+v, waits %v; want 10 retried in two tries", s, waits)
			}
		})
	}
}

func TestRepliesThatCannotBeTrustedAreNotBelieved(t *testing.T) {
	for name, reply := range map[string]string{
		"cut":                `{"errors":false,"items":[{"index":{"_id":"1","status":201}}`,
		"too few items":      `{"errors":false,"items":[{"index":{"_id":"1","status":201}}]}`,
		"no items":           `{"errors":false}`,
		"an item of another": `{"items":[{"index":{"_id":"2","status":201}},{"index":{"_id":"1","status":201}}]}`,
		"another action":     `{"items":[{"create":{"_id":"1","status":201}},{"create":{"_id":"2","status":201}}]}`,
		"no status":          `{"items":[{"index":{"_id":"1"}},{"index":{"_id":"2"}}]}`,
		"not JSON":           `<html>`,
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.api(sampleapi.Options{N: 2}, "/users")
			e.c.whole = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 1 {
					_, _ = w.Write([]byte(reply))
				}
				return n == 1
			}
			s := e.mustRun()
			e.wantAll(2)
			if s.Created != 2 || s.Retried != 2 {
				t.Errorf("summary %+v, want both documents sent again", s)
			}
		})
	}
}

func TestConnectionsThatBreakAreTriedAgain(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 5}, "/users")
	e.c.srv.Config.ErrorLog = nil
	e.c.whole = func(n int, _ http.ResponseWriter, _ *http.Request) bool {
		if n <= 2 {
			panic(http.ErrAbortHandler)
		}
		return false
	}
	e.mustRun()
	e.wantAll(5)
}

func TestAProxyThatDoesNotAnswerTimesOut(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 1}, "/users")
	e.opt.BulkTimeout, e.opt.Retry.MaxTries = 50*time.Millisecond, 2
	e.c.whole = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		return true
	}
	if _, err := e.run(); err == nil || !strings.Contains(err.Error(), "gave up after 2 tries: the bulk request was not answered in time") {
		t.Errorf("error %v", err)
	}
}

func TestRefusalsOfTheWholeRequestEndTheRun(t *testing.T) {
	for status, c := range map[int]struct{ body, want string }{
		401: {`{"error":{"type":"security_exception","reason":"SECRET"},"status":401}`, "answered 401 security_exception: check the credentials"},
		403: {`{"error":{"type":"esproxy_bad_grant","reason":"SECRET"}}`, "403 esproxy_bad_grant"},
		400: {`{"error":{"type":"SECRET value","reason":"SECRET"}}`, "answered 400 unknown"},
		404: {`{"error":"SECRET"}`, "answered 404: is this the address of the proxy"},
	} {
		e := newEnv(t)
		e.api(sampleapi.Options{N: 3}, "/users")
		e.c.whole = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(c.body))
			return true
		}
		_, err := e.run()
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error()+e.log.String(), "SECRET") || e.c.requests != 1 {
			t.Errorf("%d: error %v after %d requests, want %q after one", status, err, e.c.requests, c.want)
		}
	}
}

func TestAWrongKeyIsReportedByItsType(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 3}, "/users")
	e.opt.Retry.MaxTries = 2
	e.c.whole = func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(503)
		_, _ = w.Write([]byte(`{"error":{"type":"esproxy_wrong_key","reason":"…"},"status":503}`))
		return true
	}
	if _, err := e.run(); err == nil || !strings.Contains(err.Error(), "503 esproxy_wrong_key") {
		t.Errorf("error %v, want the type in it", err)
	}
}

func TestBatchesKeepTheirLimits(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 100}, "/users")
	e.opt.BatchBytes, e.opt.BatchCount = 8<<10, 12
	s := e.mustRun()
	e.wantAll(100)
	var total int64
	for _, size := range e.c.sizes {
		total += int64(size[0])
		if size[0] > 8<<10 || size[1] > 12 {
			t.Errorf("a bulk of %d bytes and %d documents, want at most %d and 12", size[0], size[1], 8<<10)
		}
	}
	if s.Bytes != total {
		t.Errorf("summary says %d bytes, %d were sent", s.Bytes, total)
	}
}

func TestABatchThatIsTooLargeIsHalved(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 20}, "/users")
	e.c.whole = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		if r.ContentLength > 2000 {
			w.WriteHeader(http.StatusRequestEntityTooLarge)
			return true
		}
		return false
	}
	e.mustRun()
	e.wantAll(20)

	e.opt.Source, e.opt.Stdin = "-", strings.NewReader(`{"id":"a"}`+"\n"+`{"id":"b","x":"`+strings.Repeat("y", 3000)+`"}`+"\n"+`{"id":"c"}`)
	s, err := e.run()
	if !isRejected(err) || s.Rejected != 1 || s.Created != 2 || e.c.docs["c"] == "" {
		t.Errorf("error %v, summary %+v; want the one document over the limit rejected", err, s)
	}
}

func TestOfTwoRecordsWithOneIDTheLaterWins(t *testing.T) {
	e := newEnv(t)
	e.opt.Source, e.opt.Stdin = "-", strings.NewReader(`{"id":"1","v":1}
{"id":"2","v":1}
{"id":1,"v":2}`)
	// The first answer to "1" is 429: sent again blindly later, it would overwrite the second record.
	e.c.item = func(id string, _ []byte, before int) (int, string) {
		if id == "1" && before == 0 {
			return 429, "es_rejected_execution_exception"
		}
		return 0, ""
	}
	s := e.mustRun()
	if e.c.docs["1"] != `{"id":1,"v":2}` || s.Created != 2 || s.Updated != 1 {
		t.Errorf("stored %v, summary %+v", e.c.docs, s)
	}
}

func TestHeadersAreAskedForEachRequest(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 4}, "/users")
	e.opt.BatchCount = 1
	n := 0
	e.opt.Headers = func() (http.Header, error) {
		n++
		return http.Header{"Authorization": {fmt.Sprintf("ApiKey %d", n)}}, nil
	}
	e.mustRun()
	var got []string
	for _, h := range e.c.headers {
		got = append(got, h.Get("Authorization"))
	}
	if want := []string{"ApiKey 1", "ApiKey 2", "ApiKey 3", "ApiKey 4"}; !slices.Equal(got, want) {
		t.Errorf("credentials %q, want %q", got, want)
	}
	e.opt.Headers = func() (http.Header, error) { return nil, errors.New("no token") }
	if _, err := e.run(); err == nil || !strings.Contains(err.Error(), "no token") {
		t.Errorf("error %v, want the one of Headers", err)
	}
}

func TestRecordsThatComeSlowlyAreNotHeldBack(t *testing.T) {
	e := newEnv(t)
	e.opt.FlushInterval = time.Millisecond
	stored := make(chan string, 1)
	e.c.item = func(id string, _ []byte, _ int) (int, string) { stored <- id; return 0, "" }
	r, w := newPipe(t)
	e.opt.Source, e.opt.Stdin = "-", r
	done := make(chan error, 1)
	go func() { _, err := e.run(); done <- err }()
	for _, id := range []string{"1", "2"} {
		if _, err := w.Write([]byte(`{"id":"` + id + `"}` + "\n")); err != nil {
			t.Fatal(err)
		}
		if got := <-stored; got != id { // while the source is still open
			t.Errorf("stored %q, want %q", got, id)
		}
	}
	_ = w.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestAnInterruptDoesNotWaitForStandardInput(t *testing.T) {
	e := newEnv(t)
	r, w := newPipe(t)
	e.opt.Source, e.opt.Stdin, e.opt.FlushInterval = "-", r, time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	e.c.item = func(string, []byte, int) (int, string) { cancel(); return 0, "" }
	go func() { _, _ = w.Write([]byte(`{"id":"1"}` + "\n")) }()
	if _, err := ingest.Run(ctx, e.opt); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

func TestPolling(t *testing.T) {
	e := newEnv(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e.opt.Every = 5 * time.Minute
	e.opt.Retry.MaxTries = 1
	polls := 0
	e.clock.onWait = func(d time.Duration) {
		if d != 5*time.Minute {
			t.Errorf("waited %s, want 5m", d)
		}
		if polls++; polls == 3 {
			cancel()
		}
	}
	e.api(sampleapi.Options{N: 3, Fault: faults(map[int64]sampleapi.Fault{2: {Status: 500}})}, "/users")
	s, err := ingest.Run(ctx, e.opt)
	if s.Passes != 3 || s.Created != 3 || s.Updated != 3 || s.Failed != 1 {
		t.Errorf("summary %+v; want three passes, the second failed", s)
	}
	if err == nil || err.Error() != "1 of 3 passes failed" {
		t.Errorf("error %v, want the failed pass told", err)
	}
	e.wantAll(3)
}

func TestOptionsThatAreWrong(t *testing.T) {
	for want, change := range map[string]func(*ingest.Options){
		"no source":        func(o *ingest.Options) { o.Source = "" },
		"no index":         func(o *ingest.Options) { o.Index = "" },
		"no name of an":    func(o *ingest.Options) { o.Index = "user/_doc" },
		"is no name of":    func(o *ingest.Options) { o.Index = "User" },
		"proxy's address":  func(o *ingest.Options) { o.ProxyURL = "localhost:9280" },
		"cannot be polled": func(o *ingest.Options) { o.Source, o.Every = "-", time.Second },
		"folder":           func(o *ingest.Options) { o.Source = "." },
		"paging mode":      func(o *ingest.Options) { o.Paging = &ingest.Paging{Mode: "pages"} },
		"format must":      func(o *ingest.Options) { o.Format = "csv" },
		"the source: stat": func(o *ingest.Options) { o.Source = "no-such-file.json" },
	} {
		e := newEnv(t)
		e.opt.Source = "bulk_test.go"
		change(&e.opt)
		if _, err := e.run(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

func TestProgressOnATerminalIsABar(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 30}, "/users")
	e.opt.IsTerminal, e.opt.BatchCount, e.opt.Total = true, 10, 30
	e.mustRun()
	out := e.out.String()
	if !strings.Contains(out, "(30/30") || !strings.Contains(out, "\r") || !strings.Contains(out, "ingest: read 30, indexed 30") {
		t.Errorf("output %q, want a bar and the summary", out)
	}
	var s ingest.Summary
	if _, err := json.Marshal(s); err != nil {
		t.Error(err)
	}
}

func TestProgressElsewhereIsLines(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 30}, "/users")
	e.opt.BatchCount, e.clock.step = 10, 3*time.Second
	e.mustRun()
	lines := strings.Split(strings.TrimSpace(e.out.String()), "\n")
	if len(lines) < 2 || !strings.HasPrefix(lines[0], "ingest: read ") || strings.Contains(e.out.String(), "\r") || !strings.Contains(lines[len(lines)-1], "created 30") {
		t.Errorf("output %q, want lines and the summary", e.out)
	}
}

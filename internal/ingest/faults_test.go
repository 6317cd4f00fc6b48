package ingest_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

// faults plays the given faults for the requests with these numbers.
func faults(m map[int64]sampleapi.Fault) func(int64, *http.Request) *sampleapi.Fault {
	return func(n int64, _ *http.Request) *sampleapi.Fault {
		if f, ok := m[n]; ok {
			return &f
		}
		return nil
	}
}

func TestFaultsOfTheSource(t *testing.T) {
	const n = 40
	for name, c := range map[string]struct {
		faults map[int64]sampleapi.Fault
		path   string
		mode   ingest.PagingMode
		gzip   bool
		wait   time.Duration // a wait that must be among those asked for, exactly
	}{
		"429 with seconds":      {map[int64]sampleapi.Fault{1: {Status: 429, RetryAfter: "77"}}, "/users", "", false, 77 * time.Second},
		"429 with a date":       {map[int64]sampleapi.Fault{1: {Status: 429, RetryAfter: "Fri, 02 Jan 2026 03:06:05 GMT"}}, "/users", "", false, 2 * time.Minute},
		"429 without":           {map[int64]sampleapi.Fault{1: {Status: 429}, 2: {Status: 429}}, "/users", "", false, 0},
		"500, 502, 503":         {map[int64]sampleapi.Fault{1: {Status: 500}, 2: {Status: 502}, 3: {Status: 503, RetryAfter: "nonsense"}}, "/users", "", false, 0},
		"cut":                   {map[int64]sampleapi.Fault{1: {CutAfter: 3000}, 2: {CutAfter: 9000}}, "/users", "", false, 0},
		"cut in gzip":           {map[int64]sampleapi.Fault{1: {CutAfter: 500}, 2: {CutAfter: 1}}, "/users", "", true, 0},
		"cut NDJSON":            {map[int64]sampleapi.Fault{1: {CutAfter: 3000}, 2: {CutAfter: 9000}}, "/users.ndjson", "", false, 0},
		"cut page":              {map[int64]sampleapi.Fault{2: {CutAfter: 3000}, 5: {Status: 500}}, "/users", ingest.PagingPage, false, 0},
		"cut page with link":    {map[int64]sampleapi.Fault{2: {CutAfter: 3000}, 5: {Status: 500}}, "/users/next", ingest.PagingNext, false, 0},
		"cut page with cursor":  {map[int64]sampleapi.Fault{1: {CutAfter: 10}, 3: {CutAfter: 3000}}, "/users?cursor=", ingest.PagingCursor, false, 0},
		"stalled in the middle": {map[int64]sampleapi.Fault{1: {Stall: true}, 2: {Stall: true}}, "/users", "", false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			limit := 10
			e.opt.Paging = &ingest.Paging{Mode: c.mode, Limit: &limit}
			e.opt.SourceTimeout = 200 * time.Millisecond
			e.opt.BatchCount = 7
			e.api(sampleapi.Options{N: n, Gzip: c.gzip, Fault: faults(c.faults)}, c.path)
			s := e.mustRun()
			e.wantAll(n)
			if s.Read != n || s.Created != n || s.Updated != 0 || s.Retried != int64(len(c.faults)) {
				t.Errorf("summary %+v; want each record once and %d retries", s, len(c.faults))
			}
			waits := e.clock.waited()
			if len(waits) != len(c.faults) {
				t.Errorf("waits %v, want %d", waits, len(c.faults))
			}
			if c.wait > 0 && (len(waits) == 0 || waits[0] != c.wait) {
				t.Errorf("waits %v, want %s as Retry-After says", waits, c.wait)
			}
			wantNone(t, "the log", e.log.String(), n)
		})
	}
}

func TestASourceThatNeverAnswersTimesOut(t *testing.T) {
	e := newEnv(t)
	e.opt.SourceTimeout, e.opt.Retry.MaxTries = 50*time.Millisecond, 3
	var requests atomic.Int64
	e.opt.Source = newHandlerServer(t, func(_ http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		<-r.Context().Done()
	})
	_, err := e.run()
	if err == nil || !strings.Contains(err.Error(), "gave up after 3 tries: the source did not answer in time") || requests.Load() != 3 {
		t.Errorf("error %v after %d requests", err, requests.Load())
	}
}

func TestAPageThatIsAlwaysCutAtOnePlaceEnds(t *testing.T) {
	e := newEnv(t)
	e.opt.Retry.MaxTries = 4
	e.api(sampleapi.Options{N: 20, Fault: func(int64, *http.Request) *sampleapi.Fault { return &sampleapi.Fault{CutAfter: 4000} }}, "/users")
	s, err := e.run()
	if err == nil || !strings.Contains(err.Error(), "gave up after 4 tries") {
		t.Errorf("error %v, want an end after 4 tries without progress", err)
	}
	if s.Created == 0 || int(s.Created) != len(e.c.docs) {
		t.Errorf("created %d, stored %d; want what was read before the cut", s.Created, len(e.c.docs))
	}
}

func TestAPageThatChangesBetweenTriesIsReadWhole(t *testing.T) {
	e := newEnv(t)
	e.opt.BatchCount = 1
	n := 0
	e.opt.Source = newHandlerServer(t, func(w http.ResponseWriter, _ *http.Request) {
		n++
		if n == 1 {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte(`[{"id":"1"},{"id":"2"},`))
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		_, _ = w.Write([]byte(`[{"id":"0"},{"id":"1"},{"id":"2"},{"id":"3"}]`))
	})
	e.mustRun()
	if len(e.c.docs) != 4 {
		t.Errorf("stored %v, want the records 0 to 3: skipping two of the new page would lose one", e.c.docs)
	}
	if !strings.Contains(e.log.String(), "changed") {
		t.Errorf("the log does not say that the page changed:\n%s", e.log)
	}
}

func TestSourcesThatCannotBeReadFailAtOnce(t *testing.T) {
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"401": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, "answered 401: check the credentials"},
		"404": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) }, "answered 404"},
		"brotli": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "br")
			_, _ = w.Write([]byte("x"))
		}, "content encoding"},
		"HTML": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("[<html>the secret page</html>]"))
		}, "not JSON"},
		"damaged gzip": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			zw := gzip.NewWriter(damaging{w})
			_, _ = zw.Write([]byte(`[{"id":"1"}]`))
			_ = zw.Close()
		}, "gzip"},
		"two arrays":     {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("[][]")) }, "goes on after"},
		"redirect loops": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, "redirects more than 10 times"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.opt.Source = newHandlerServer(t, c.handler) + "/?key=secret"
			_, err := e.run()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want %q", err, c.want)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error %q quotes the address's key or the body", err)
			}
			if w := e.clock.waited(); len(w) > 0 {
				t.Errorf("waited %v, want no second try", w)
			}
		})
	}
}

// damaging changes the last bytes of gzip's trailer.
type damaging struct{ w http.ResponseWriter }

func (d damaging) Write(p []byte) (int, error) {
	if len(p) == 8 { // checksum and length
		p = append([]byte{p[0] ^ 1}, p[1:]...)
	}
	return d.w.Write(p)
}

func TestAnUnreachableSourceNamesNoSecrets(t *testing.T) {
	e := newEnv(t)
	e.opt.Source = "http://user:pa55@127.0.0.1:1/users?api_key=k3y"
	e.opt.Retry.MaxTries = 2
	_, err := e.run()
	if err == nil || !strings.Contains(err.Error(), "cannot be reached") {
		t.Fatalf("error %v", err)
	}
	for _, secret := range []string{"pa55", "k3y"} {
		if strings.Contains(err.Error()+e.log.String(), secret) {
			t.Errorf("error or log holds %q:\n%v\n%s", secret, err, e.log)
		}
	}
}

func TestRetryAfterBeyondTheLimitGivesUp(t *testing.T) {
	e := newEnv(t)
	e.api(sampleapi.Options{N: 1, Fault: faults(map[int64]sampleapi.Fault{1: {Status: 429, RetryAfter: "86400"}})}, "/users")
	_, err := e.run()
	if err == nil || !strings.Contains(err.Error(), "answered 429") || len(e.clock.waited()) != 0 {
		t.Errorf("error %v, waits %v; want an end at once", err, e.clock.waited())
	}
}

func TestInterruptionDuringAWait(t *testing.T) {
	e := newEnv(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e.clock.onWait = func(time.Duration) { cancel() }
	e.api(sampleapi.Options{N: 1, Fault: func(int64, *http.Request) *sampleapi.Fault { return &sampleapi.Fault{Status: 500} }}, "/users")
	if _, err := ingest.Run(ctx, e.opt); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want the context's", err)
	}
}

package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

// Every interruption point: the run is cut at request k of the bulk endpoint, the second run must store the rest.
// What was settled before is not sent again, but for the batch in flight.
func TestResumeLosesNothing(t *testing.T) {
	const n, count = 43, 4
	file := filepath.Join(t.TempDir(), "users.ndjson")
	var lines []byte
	for _, r := range sampleapi.Records(n) {
		lines = append(append(lines, r.JSON()...), '\n')
	}
	if err := os.WriteFile(file, lines, 0o600); err != nil {
		t.Fatal(err)
	}
	sources := map[string]func(e *env){
		"array": func(e *env) { e.api(sampleapi.Options{N: n}, "/users") },
		"page":  func(e *env) { e.api(sampleapi.Options{N: n}, "/users"); e.opt.Paging = paging(ingest.PagingPage, 10) },
		"next": func(e *env) {
			e.api(sampleapi.Options{N: n}, "/users/next")
			e.opt.Paging = paging(ingest.PagingNext, 0)
		},
		"cursor": func(e *env) {
			e.api(sampleapi.Options{N: n}, "/users?cursor=")
			e.opt.Paging = paging(ingest.PagingCursor, 5)
		},
		"file": func(e *env) { e.opt.Source = file },
	}
	for name, set := range sources {
		for at := 1; at <= (n+count-1)/count; at++ {
			t.Run(fmt.Sprintf("%s, batch %d", name, at), func(t *testing.T) {
				e := newEnv(t)
				set(e)
				e.opt.BatchCount = count
				e.opt.Checkpoint = filepath.Join(t.TempDir(), "checkpoint.json")
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				e.c.whole = func(k int, w http.ResponseWriter, r *http.Request) bool {
					if k == at {
						cancel()
						<-r.Context().Done()
						return true
					}
					return false
				}
				if _, err := ingest.Run(ctx, e.opt); !errors.Is(err, context.Canceled) {
					t.Fatalf("first run: %v, want the context's error", err)
				}
				if len(e.c.docs) != (at-1)*count {
					t.Fatalf("first run stored %d, want %d", len(e.c.docs), (at-1)*count)
				}
				e.c.whole = nil
				s := e.mustRun()
				e.wantAll(n)
				if want := int64(n - (at-1)*count); s.Created != want || s.Updated != 0 {
					t.Errorf("second run: %s; want the %d records that were left, and none twice", s, want)
				}
				if s = e.mustRun(); s.Updated != n {
					t.Errorf("third run: %s; want a new beginning", s)
				}
			})
		}
	}
}

func paging(m ingest.PagingMode, limit int) *ingest.Paging {
	return &ingest.Paging{Mode: m, Limit: &limit}
}

// interrupted runs until the cluster has settled the first batch.
func (e *env) interrupted() {
	e.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	e.c.whole = func(k int, _ http.ResponseWriter, r *http.Request) bool {
		if k == 2 {
			cancel()
			<-r.Context().Done()
		}
		return k == 2
	}
	if _, err := ingest.Run(ctx, e.opt); !errors.Is(err, context.Canceled) {
		e.t.Fatalf("interrupted run: %v", err)
	}
	e.c.whole = nil
}

func TestACheckpointThatNoLongerFitsIsNotUsed(t *testing.T) {
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	other, err := ingest.ParseMapping("other.yaml", []byte("version: 1\nid: id\nconstants: {x: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(e *env){
		"the file has other records": func(e *env) { write(e.opt.Source, `{"id":"9"}`+"\n"+`{"id":"2"}`+"\n"+`{"id":"3"}`) },
		"the mapping is another":     func(e *env) { e.opt.Mapping = other },
		"the entry is another source's": func(e *env) {
			copied := filepath.Join(filepath.Dir(e.opt.Source), "copy.ndjson")
			write(copied, read(t, e.opt.Source))
			e.opt.Source = copied
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			dir := t.TempDir()
			e.opt.Source, e.opt.Checkpoint, e.opt.BatchCount = filepath.Join(dir, "in.ndjson"), filepath.Join(dir, "cp.json"), 1
			write(e.opt.Source, `{"id":"1"}`+"\n"+`{"id":"2"}`+"\n"+`{"id":"3"}`)
			e.interrupted()
			change(e)
			if s := e.mustRun(); s.Read != 3 {
				t.Errorf("second run: %s, want all three records read", s)
			}
		})
	}
}

func TestARecordPutInFrontIsNotLost(t *testing.T) {
	e := newEnv(t)
	var mu sync.Mutex
	body := `[{"id":"1"},{"id":"2"},{"id":"3"}]`
	e.opt.Source = newHandlerServer(t, func(w http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = w.Write([]byte(body))
	})
	e.opt.Checkpoint, e.opt.BatchCount = filepath.Join(t.TempDir(), "cp.json"), 1
	e.interrupted()
	mu.Lock()
	body = `[{"id":"0"},{"id":"1"},{"id":"2"},{"id":"3"}]`
	mu.Unlock()
	e.mustRun()
	if len(e.c.docs) != 4 {
		t.Errorf("stored %v, want 0 to 3", e.c.docs)
	}
}

func TestCheckpointFile(t *testing.T) {
	e := newEnv(t)
	srv := e.api(sampleapi.Options{N: 30}, "/users?token=k3y")
	e.opt.Source = strings.Replace(e.opt.Source, "http://", "http://u:pa55@", 1)
	e.opt.Checkpoint, e.opt.BatchCount = filepath.Join(t.TempDir(), "cp.json"), 10
	e.interrupted()
	text := read(t, e.opt.Checkpoint)
	for _, secret := range []string{"k3y", "pa55"} {
		if strings.Contains(text, secret) {
			t.Errorf("the checkpoint holds %q:\n%s", secret, text)
		}
	}
	wantNone(t, "the checkpoint", text, 30)
	var file struct {
		Entries map[string]struct {
			Source, Index string
			Position      struct{ Records int64 }
		}
	}
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		t.Fatal(err)
	}
	for _, entry := range file.Entries {
		if entry.Source != srv.URL+"/users" || entry.Index != "user" || entry.Position.Records != 10 {
			t.Errorf("entry %+v, want the source without secrets, the index and 10 records", entry)
		}
	}
	if info, err := os.Stat(e.opt.Checkpoint); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	e.mustRun()
	if text := read(t, e.opt.Checkpoint); strings.Contains(text, "position") {
		t.Errorf("after a whole run the checkpoint still holds a place:\n%s", text)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(e.opt.Checkpoint), "*")); len(left) != 1 {
		t.Errorf("files left behind: %v", left)
	}

	if err := os.WriteFile(e.opt.Checkpoint, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := e.run(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("error %v, want the damaged checkpoint named", err)
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

package ingest_test

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

func TestEverySourceStoresTheSameDocuments(t *testing.T) {
	const n = 57
	var ndjson, array bytes.Buffer
	array.WriteString("\ufeff[\r\n")
	for i, r := range sampleapi.Records(n) {
		ndjson.Write(r.JSON())
		ndjson.WriteString("\r\n\n")
		if i > 0 {
			array.WriteString(" ,\n")
		}
		array.Write(r.JSON())
	}
	array.WriteString("]\n")
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = zw.Write(ndjson.Bytes())
	_ = zw.Close()
	file := func(name string, content []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mode := func(m ingest.PagingMode, limit int) *ingest.Paging { return &ingest.Paging{Mode: m, Limit: &limit} }
	for name, set := range map[string]func(e *env){
		"array":          func(e *env) { e.api(sampleapi.Options{N: n}, "/users") },
		"ndjson":         func(e *env) { e.api(sampleapi.Options{N: n}, "/users.ndjson") },
		"gzip":           func(e *env) { e.api(sampleapi.Options{N: n, Gzip: true}, "/users") },
		"page":           func(e *env) { e.api(sampleapi.Options{N: n}, "/users"); e.opt.Paging = mode(ingest.PagingPage, 10) },
		"page, own size": func(e *env) { e.api(sampleapi.Options{N: n}, "/users"); e.opt.Paging = mode(ingest.PagingPage, 0) },
		"next": func(e *env) {
			e.api(sampleapi.Options{N: n, Gzip: true}, "/users/next?limit=7")
			e.opt.Paging = mode(ingest.PagingNext, 0)
		},
		"link": func(e *env) { e.api(sampleapi.Options{N: n}, "/users/link"); e.opt.Paging = mode(ingest.PagingNext, 0) },
		"cursor": func(e *env) {
			e.api(sampleapi.Options{N: n}, "/users?cursor=")
			e.opt.Paging = mode(ingest.PagingCursor, 8)
		},
		"bearer": func(e *env) {
			e.api(sampleapi.Options{N: n, Bearer: "s3cret"}, "/users")
			e.opt.SourceAuth.Bearer = "s3cret"
		},
		"basic": func(e *env) {
			e.api(sampleapi.Options{N: n, Username: "u", Password: "p:w"}, "/users")
			e.opt.SourceAuth = ingest.SourceAuth{Username: "u", Password: "p:w"}
		},
		"basic in the address": func(e *env) {
			e.api(sampleapi.Options{N: n, Username: "u", Password: "p"}, "/users")
			e.opt.Source = strings.Replace(e.opt.Source, "http://", "http://u:p@", 1)
		},
		"file, array":    func(e *env) { e.opt.Source = file("a.json", array.Bytes()) },
		"file, ndjson":   func(e *env) { e.opt.Source = file("a.ndjson", ndjson.Bytes()) },
		"file, gzip":     func(e *env) { e.opt.Source = file("a.ndjson.gz", zipped.Bytes()) },
		"standard input": func(e *env) { e.opt.Source, e.opt.Stdin = "-", bytes.NewReader(array.Bytes()) },
		"no last newline": func(e *env) {
			e.opt.Source, e.opt.Stdin = "-", bytes.NewReader(bytes.TrimSpace(ndjson.Bytes()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			set(e)
			e.opt.BatchCount = 10
			s := e.mustRun()
			e.wantAll(n)
			if s.Read != n || s.Created != n || s.Updated != 0 || s.Rejected != 0 || s.Retried != 0 || s.Passes != 1 {
				t.Errorf("summary %+v", s)
			}
			if want := "read 57, indexed 57 (created 57, updated 0)"; !strings.Contains(e.out.String(), want) {
				t.Errorf("output %q, want %q in it", e.out, want)
			}
			if s = e.mustRunAgain(set); s.Updated != n || s.Created != 0 {
				t.Errorf("second run: %+v, want %d updated", s, n)
			}
			e.wantAll(n)
			for _, secret := range []string{"s3cret", "p:w", "u:p@"} {
				if strings.Contains(e.log.String()+e.out.String(), secret) {
					t.Errorf("output or log holds the secret %q", secret)
				}
			}
			wantNone(t, "log and output", e.log.String()+e.out.String(), n)
		})
	}
}

// mustRunAgain prepares the source anew (standard input was read) and runs.
func (e *env) mustRunAgain(set func(*env)) ingest.Summary {
	e.t.Helper()
	set(e)
	return e.mustRun()
}

func TestLinksToOtherHostsAreNotFollowed(t *testing.T) {
	asked := false
	e := newEnv(t)
	e.api(sampleapi.Options{N: 1}, "")
	other := newHandlerServer(t, func(http.ResponseWriter, *http.Request) { asked = true })
	here := newHandlerServer(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"data":[{"id":"1"}],"next":"` + other + `/users?page=2"}`))
	})
	e.opt.Source, e.opt.SourceAuth.Bearer, e.opt.Paging = here+"/users", "s3cret", &ingest.Paging{Mode: ingest.PagingNext}
	_, err := e.run()
	if err == nil || !strings.Contains(err.Error(), "another host") || asked {
		t.Errorf("error %v, other host asked: %t; want a refusal", err, asked)
	}
}

func TestCredentialsDoNotFollowRedirects(t *testing.T) {
	var got []string
	e := newEnv(t)
	other := newHandlerServer(t, func(w http.ResponseWriter, r *http.Request) {
		got = append(got, r.Header.Get("Authorization"))
		_, _ = w.Write([]byte(`[{"id":"1"}]`))
	})
	e.opt.Source = newHandlerServer(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other, http.StatusFound) })
	e.opt.SourceAuth.Bearer = "s3cret"
	e.mustRun()
	if len(got) != 1 || got[0] != "" {
		t.Errorf("the other host saw %q, want one request without credentials", got)
	}
}

func TestPagesThatNeverEnd(t *testing.T) {
	for name, c := range map[string]struct {
		body   func(r *http.Request) string
		paging ingest.Paging
		want   string
	}{
		"the page parameter is ignored": {func(*http.Request) string { return `[{"id":"1"},{"id":"2"}]` }, ingest.Paging{Mode: ingest.PagingPage}, "does the provider know the parameter"},
		"a link to itself":              {func(r *http.Request) string { return `{"data":[],"next":"` + r.URL.Path + `"}` }, ingest.Paging{Mode: ingest.PagingNext}, "round in a circle"},
		"two links in turn": {func(r *http.Request) string {
			return `{"next":"/?x=` + map[string]string{"1": "2", "2": "1", "": "1"}[r.URL.Query().Get("x")] + `","data":[{"id":"1"}]}`
		}, ingest.Paging{Mode: ingest.PagingNext}, "round in a circle"},
		"one cursor": {func(*http.Request) string { return `{"next_cursor":7,"data":[{"id":"1"}]}` }, ingest.Paging{Mode: ingest.PagingCursor}, "round in a circle"},
		"ever new links": {func(r *http.Request) string {
			return `{"data":[],"next":"/?x=` + r.URL.Query().Get("x") + `1"}`
		}, ingest.Paging{Mode: ingest.PagingNext, MaxPages: 9}, "more than 9 pages"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.opt.Source = newHandlerServer(t, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(c.body(r))) })
			e.opt.Paging = &c.paging
			_, err := e.run()
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestPageShapes(t *testing.T) {
	for name, c := range map[string]struct {
		first string // the page at /; the page at /2 holds record 2 in the same place
		items string
		next  string
		want  string // "" for both records, otherwise part of the error
	}{
		"nested":              {`{"meta":{"n":1,"links":{"next":"/2"}},"result":{"x":[[1]],"users":[{"id":1}]}}`, "result.users", "meta.links.next", ""},
		"next before items":   {`{"next":"/2","data":[{"id":1}]}`, "", "", ""},
		"array, no link":      {`[{"id":1}]`, "", "", "1 documents"},
		"null items":          {`{"next":"/2","data":null}`, "", "", "1 documents"},
		"false is no link":    {`{"next":false,"data":[{"id":1}]}`, "", "", "1 documents"},
		"no items":            {`{"next":"/2","users":[{"id":1}]}`, "", "", `no array of records at "data"`},
		"items twice":         {`{"data":[],"data":[]}`, "", "", "two members"},
		"items no array":      {`{"data":{"id":1}}`, "", "", "not an array"},
		"link no string":      {`{"data":[],"next":{"href":"/2"}}`, "", "", "neither a string nor a number"},
		"scalar":              {`7`, "", "", "neither an array nor an object"},
		"more after the page": {`{"data":[]} {}`, "", "", "goes on after"},
		"not JSON":            {`{"data":[{"id":1},secret-value]}`, "", "", "not JSON, near byte"},
		"an empty body":       {"", "", "", "0 documents"},
	} {
		t.Run(name, func(t *testing.T) {
			e := newEnv(t)
			e.opt.Source = newHandlerServer(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/2" {
					_, _ = w.Write([]byte(strings.NewReplacer(`"next":"/2","data":null`, `"data":[{"id":2}]`, `"id":1`, `"id":2`, `"next":"/2"`, `"next":null`).Replace(c.first)))
					return
				}
				_, _ = w.Write([]byte(c.first))
			})
			e.opt.Paging = &ingest.Paging{Mode: ingest.PagingNext, Items: c.items, Next: c.next}
			_, err := e.run()
			switch {
			case strings.HasSuffix(c.want, " documents") || c.want == "":
				want := 2
				if c.want != "" {
					want = int(c.want[0] - '0')
				}
				if err != nil || len(e.c.docs) != want {
					t.Errorf("%d documents, error %v; want %d", len(e.c.docs), err, want)
				}
			case err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret"):
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestOversizedRecords(t *testing.T) {
	big := `{"id":"2","x":"` + strings.Repeat("a", 200_000) + `"}`
	e := newEnv(t)
	e.opt.MaxRecord = 100_000
	e.opt.Source, e.opt.Stdin = "-", strings.NewReader(`{"id":"1"}`+"\n"+big+"\n"+`{"id":"3"}`)
	s, err := e.run()
	if !isRejected(err) || s.Rejected != 1 || len(e.c.docs) != 2 {
		t.Errorf("NDJSON: %v, %+v, %d documents; want one rejected and two stored", err, s, len(e.c.docs))
	}
	e.opt.Source, e.opt.Stdin = "-", strings.NewReader(`[{"id":"4"},`+big+`]`)
	if _, err = e.run(); err == nil || !strings.Contains(err.Error(), "larger than the limit") || e.c.docs["4"] == "" {
		t.Errorf("array: %v, first record stored: %t; want an error that names the limit, and the records before it", err, e.c.docs["4"] != "")
	}
	e.opt.MaxRecord, e.opt.BatchBytes = 1<<20, 50_000
	e.opt.Source, e.opt.Stdin = "-", strings.NewReader(`[{"id":"4"},`+big+`,{"id":"5"}]`)
	if e.mustRun(); len(e.c.docs["2"]) != len(big) {
		t.Errorf("a record over the size of a batch was not stored whole")
	}
}

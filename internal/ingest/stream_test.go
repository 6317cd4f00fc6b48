package ingest_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

// endless makes n records of about 1 KB while it is read.
type endless struct {
	n, at int
	left  []byte
}

func (s *endless) Read(p []byte) (int, error) {
	if len(s.left) == 0 {
		if s.at == s.n {
			return 0, io.EOF
		}
		s.at++
		s.left = fmt.Appendf(nil, `{"id":%d,"x":"%s"}`+"\n", s.at, strings.Repeat("x", 1000))
	}
	n := copy(p, s.left)
	s.left = s.left[n:]
	return n, nil
}

// accepting answers every bulk request with success and keeps nothing.
func accepting(t *testing.T, seen func()) string {
	return newHandlerServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		var out bytes.Buffer
		out.WriteString(`{"errors":false,"items":[`)
		for i, line := range bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n")) {
			if i%2 == 0 {
				if i > 0 {
					out.WriteByte(',')
				}
				fmt.Fprintf(&out, `{"index":{%s,"status":201}}`, bytes.TrimSuffix(bytes.TrimPrefix(line, []byte(`{"index":{`)), []byte("}}")))
			}
		}
		out.WriteString(`]}`)
		seen()
		_, _ = w.Write(out.Bytes())
	})
}

// Whatever the source's size, a few batches are all that is held.
func TestMemoryDoesNotGrowWithTheSource(t *testing.T) {
	const n = 30_000 // 30 MB
	e := newEnv(t)
	var peak uint64
	requests := 0
	e.opt.ProxyURL = accepting(t, func() {
		if requests++; requests%10 != 0 {
			return
		}
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapAlloc)
	})
	e.opt.Source, e.opt.Stdin, e.opt.BatchBytes = "-", &endless{n: n}, 1<<20
	if s := e.mustRun(); s.Created != n {
		t.Errorf("%s, want %d created", s, n)
	}
	if peak == 0 || peak > 24<<20 {
		t.Errorf("%d MiB of live heap at most, want under 24 for a source of 30 MB in batches of 1 MiB", peak>>20)
	}
}

func BenchmarkApply(b *testing.B) {
	m := ingest.DefaultMapping()
	raw := sampleapi.Records(1)[0].JSON()
	b.SetBytes(int64(len(raw)))
	b.ReportAllocs()
	for b.Loop() {
		if id, _, reject, _ := m.Apply(raw); id != "1" || reject != "" {
			b.Fatal(id, reject)
		}
	}
}

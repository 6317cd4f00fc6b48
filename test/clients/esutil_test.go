package clients

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esutil"
)

const policy = `
version: 1
rules:
  - name: users
    indices: ["$Puser"]
    subject: username
    fields:
      credit_card_num: {mode: encrypt, mask: last4}
`

// proxy is the program, built from this checkout, before a server. The embedded node is no package of another module, so without
// ESPROXY_TEST_ES_URL the program's own demo is that server.
type proxy struct {
	server, url, token, prefix string
}

func run(t *testing.T, binary string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = env
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v\n%s", args, err, errs.String())
	}
	return strings.TrimSpace(string(out))
}

// launch starts a command that goes on, and returns the first match in its output. It ends with the test.
func launch(t *testing.T, binary string, env []string, re *regexp.Regexp, args ...string) string {
	t.Helper()
	cmd := exec.Command(binary, args...)
	cmd.Env = env
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	found, ended := make(chan string, 1), make(chan struct{})
	var text strings.Builder
	go func() {
		defer close(ended)
		in := bufio.NewReader(r)
		done := false
		for {
			line, err := in.ReadString('\n')
			if !done {
				text.WriteString(line)
				if m := re.FindStringSubmatch(line); m != nil {
					found <- m[1]
					done = true
				}
			}
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		<-ended
		r.Close()
	})
	select {
	case m := <-found:
		return m
	case <-ended:
		t.Fatalf("%v ended: %s", args, text.String())
	case <-time.After(time.Minute):
		t.Fatalf("%v does not answer", args)
	}
	return ""
}

// start builds and starts the program with further environment.
func start(t *testing.T, further ...string) *proxy {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "esproxy")
	build := exec.Command("go", "build", "-o", binary, "./cmd/esproxy")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	p := &proxy{prefix: fmt.Sprintf("c%08x-", rand.Uint32()), server: strings.TrimRight(os.Getenv("ESPROXY_TEST_ES_URL"), "/")}
	env := []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
	if p.server == "" {
		p.server = launch(t, binary, env, regexp.MustCompile(`Embedded node\s+(http://\S+)`), "demo")
	}
	fields := filepath.Join(dir, "fields.yaml")
	if err := os.WriteFile(fields, []byte(strings.ReplaceAll(policy, "$P", p.prefix)), 0o600); err != nil {
		t.Fatal(err)
	}
	env = append(env, "MASTER_KEY="+run(t, binary, env, "keygen"), "ELASTICSEARCH_URL="+p.server, "ESPROXY_LISTEN=127.0.0.1:0",
		"ESPROXY_ADMIN_LISTEN=none", "ESPROXY_FIELDS="+fields, "ESPROXY_MAX_DOCUMENT=64KiB")
	env = append(env, further...)
	p.token = run(t, binary, env, "token", "--grant", "full", "--for", "tester", "--ttl", "1h")
	p.url = "http://" + launch(t, binary, env, regexp.MustCompile(`msg=serving .*\blisten=(\S+)`), "serve")
	t.Cleanup(func() {
		req, _ := http.NewRequest("DELETE", p.server+"/"+p.prefix+"user", nil)
		if res, err := http.DefaultClient.Do(req); err == nil {
			res.Body.Close()
		}
	})
	return p
}

// TestBulkIndexer sends 1,000 documents with 7 bad ones through esutil.BulkIndexer. It must report exactly those.
func TestBulkIndexer(t *testing.T) {
	p := start(t)
	bad := map[int]string{
		0:   `{"username":"Ana","credit_card_num":"4"`,
		13:  `{"credit_card_num":"4"}`,
		14:  `{"username":["Ana"],"credit_card_num":"4"}`,
		500: `{"username":"Ana","credit_card_num":"esp1.` + strings.Repeat("A", 222) + `"}`,
		501: `{"username":"Ana","esproxy_x":1}`,
		777: `{"username":"Ana","text":"` + strings.Repeat("y", 70<<10) + `"}`,
		999: `{"username":"Ana","username":"Bob"}`,
	}
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("compress %v", compress), func(t *testing.T) {
			es, err := elasticsearch.NewClient(elasticsearch.Config{Addresses: []string{p.url}, CompressRequestBody: compress})
			if err != nil {
				t.Fatal(err)
			}
			indexer, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{
				Client: es, Index: p.prefix + "user", NumWorkers: 1, FlushBytes: 40 << 10, Refresh: "true",
				OnError: func(_ context.Context, err error) { t.Errorf("a whole bulk failed: %v", err) },
			})
			if err != nil {
				t.Fatal(err)
			}
			var mu sync.Mutex
			var failed []string
			for i := range 1000 {
				doc, ok := bad[i]
				if !ok {
					doc = fmt.Sprintf(`{"username":"u%d","credit_card_num":"card-%d","text":%q}`, i%40, i, strings.Repeat("x", 300))
				}
				err := indexer.Add(t.Context(), esutil.BulkIndexerItem{
					Action: "index", DocumentID: fmt.Sprint(i), Body: strings.NewReader(doc),
					OnFailure: func(_ context.Context, item esutil.BulkIndexerItem, res esutil.BulkIndexerResponseItem, err error) {
						mu.Lock()
						defer mu.Unlock()
						if err != nil || !strings.HasPrefix(res.Error.Type, "esproxy_") || res.Error.Reason == "" || res.DocumentID != item.DocumentID {
							t.Errorf("document %s: %v, %+v", item.DocumentID, err, res)
						}
						failed = append(failed, item.DocumentID)
					},
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := indexer.Close(t.Context()); err != nil {
				t.Fatal(err)
			}
			stats := indexer.Stats()
			want := []string{"0", "13", "14", "500", "501", "777", "999"}
			if !slices.Equal(failed, want) || stats.NumFailed != 7 || stats.NumIndexed != 993 {
				t.Errorf("failed %v, want %v; statistics %+v", failed, want, stats)
			}
		})
	}
	// What it wrote is sealed for everybody, and open for a grant.
	es, err := elasticsearch.NewClient(elasticsearch.Config{Addresses: []string{p.url}, Header: http.Header{"X-Esproxy-Authorization": {"Bearer " + p.token}}})
	if err != nil {
		t.Fatal(err)
	}
	res, err := es.Search(es.Search.WithIndex(p.prefix+"user"), es.Search.WithSize(1000), es.Search.WithTrackTotalHits(true))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var reply struct {
		Hits struct {
			Hits []struct {
				ID     string `json:"_id"`
				Source struct {
					Card string `json:"credit_card_num"`
				} `json:"_source"`
			} `json:"hits"`
		} `json:"hits"`
	}
	if err := json.NewDecoder(res.Body).Decode(&reply); err != nil || res.IsError() {
		t.Fatal(res.Status(), err)
	}
	if len(reply.Hits.Hits) != 993 {
		t.Errorf("%d documents", len(reply.Hits.Hits))
	}
	for _, hit := range reply.Hits.Hits {
		if hit.Source.Card != "card-"+hit.ID {
			t.Errorf("document %s reads %q", hit.ID, hit.Source.Card)
		}
	}
	direct, err := http.Get(p.server + "/" + p.prefix + "user/_search?size=1000")
	if err != nil {
		t.Fatal(err)
	}
	defer direct.Body.Close()
	text, err := io.ReadAll(direct.Body)
	if err != nil || direct.StatusCode != 200 || bytes.Contains(text, []byte(`"card-`)) || !bytes.Contains(text, []byte(`"esp1.`)) {
		t.Errorf("status %d, error %v: stored in clear", direct.StatusCode, err)
	}
}

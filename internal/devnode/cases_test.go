//go:build !nodevnode

package devnode_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/esproxy/esproxy/internal/devnode"
)

var update = flag.Bool("update", false, "record the replies in testdata from the server at ESPROXY_TEST_ES_URL")

// TestCases runs the requests in testdata against the node and compares its
// replies with those recorded from a real server. With ESPROXY_TEST_ES_URL
// the same requests also go to that server, so that the records stay true.
//
// A case is an archive of requests and replies. A request is a file named
// "METHOD target" with the body as its content; headers follow in the name
// after bars. A reply is named "<- status type".
func TestCases(t *testing.T) {
	url := os.Getenv("ESPROXY_TEST_ES_URL")
	if *update && url == "" {
		t.Fatal("-update needs ESPROXY_TEST_ES_URL")
	}
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases: %v", err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if url != "" {
				clear(t, url, ar)
				got := play(t, url, ar)
				clear(t, url, ar)
				if *update {
					if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
						t.Fatal(err)
					}
					ar = got
				} else {
					compare(t, "real server", ar, got)
				}
			}
			srv := httptest.NewServer(newNode(t, ""))
			defer srv.Close()
			compare(t, "embedded node", ar, play(t, srv.URL, ar))
		})
	}
}

func newNode(t testing.TB, dir string) *devnode.Node {
	t.Helper()
	n, err := devnode.New(devnode.Options{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
	return n
}

func compare(t *testing.T, who string, want, got *txtar.Archive) {
	t.Helper()
	if len(want.Files) != len(got.Files) {
		t.Fatalf("%s: %d files in the record, %d after the run: record the case with -update", who, len(want.Files), len(got.Files))
	}
	for i := range want.Files {
		w, g := want.Files[i], got.Files[i]
		if w.Name != g.Name {
			t.Errorf("%s: %s\n got %s\nwant %s\n%s", who, want.Files[i-1].Name, g.Name, w.Name, g.Data)
			continue
		}
		if d := cmp.Diff(string(w.Data), string(g.Data)); d != "" {
			t.Errorf("%s: %s (-want +got)\n%s", who, want.Files[max(i-1, 0)].Name, d)
		}
	}
}

var indexName = regexp.MustCompile(`\bdn-[a-z0-9-]+\b`)

// clear removes every index a case names.
func clear(t *testing.T, url string, ar *txtar.Archive) {
	t.Helper()
	names := indexName.FindAllString(string(txtar.Format(ar)), -1)
	slices.Sort(names)
	for _, n := range slices.Compact(names) {
		req, err := http.NewRequest("DELETE", url+"/"+n, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
	}
}

// play sends the requests of a case and collects normalised replies.
func play(t *testing.T, url string, ar *txtar.Archive) *txtar.Archive {
	t.Helper()
	out := &txtar.Archive{Comment: ar.Comment}
	vars := map[string]string{}
	for _, f := range ar.Files {
		if strings.HasPrefix(f.Name, "<- ") {
			continue
		}
		out.Files = append(out.Files, f)
		parts := strings.Split(f.Name, " | ")
		method, target, ok := strings.Cut(parts[0], " ")
		if !ok {
			t.Fatalf("bad request %q", f.Name)
		}
		fill := func(s string) string {
			for k, v := range vars {
				s = strings.ReplaceAll(s, "{{"+k+"}}", v)
			}
			return s
		}
		body := fill(string(f.Data))
		if !strings.Contains(target, "_bulk") && !strings.Contains(target, "_msearch") {
			body = strings.TrimSuffix(body, "\n")
		}
		req, err := http.NewRequest(method, url+fill(target), strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		for _, h := range parts[1:] {
			k, v, _ := strings.Cut(h, ": ")
			req.Header.Set(k, v)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if resp.Header.Get("X-Elastic-Product") != "Elasticsearch" {
			t.Errorf("%s: no X-Elastic-Product header", f.Name)
		}
		var ids struct {
			Scroll string `json:"_scroll_id"`
			ID     string `json:"id"`
		}
		if json.Unmarshal(b, &ids) == nil {
			if ids.Scroll != "" {
				vars["scroll_id"] = ids.Scroll
			}
			if ids.ID != "" {
				vars["pit_id"] = ids.ID
			}
		}
		data := normalise(b)
		if l := resp.Header.Get("Location"); l != "" {
			data = append([]byte("Location: "+autoID.ReplaceAllString(l, "/AUTOID$1")+"\n"), data...)
		}
		out.Files = append(out.Files, txtar.File{Name: fmt.Sprintf("<- %d %s", resp.StatusCode, resp.Header.Get("Content-Type")), Data: data})
	}
	return out
}

var (
	autoID  = regexp.MustCompile(`/[A-Za-z0-9_-]{20}(\?|$)`)
	isAuto  = regexp.MustCompile(`^[A-Za-z0-9_-]{20}$`)
	inUUID  = regexp.MustCompile(`/[A-Za-z0-9_-]{22}\]`)
	docID   = regexp.MustCompile(`document with id '[A-Za-z0-9_-]{20}'`)
	context = regexp.MustCompile(`No search context found for id \[\d+\]`)
)

// volatile members differ from run to run or from cluster to cluster.
var volatile = map[string]bool{"took": true, "ingest_took": true, "number_of_pending_tasks": true, "task_max_waiting_in_queue_millis": true, "uuid": true, "index_uuid": true, "_scroll_id": true, "pit_id": true, "node": true,
	"cluster_name": true, "cluster_uuid": true, "creation_date": true, "build_hash": true, "build_type": true, "build_date": true, "name": false,
	"store.size": true, "pri.store.size": true, "dataset.size": true}

// normalise indents a JSON reply in its own order and blanks what may differ.
// Text stays as it is.
func normalise(b []byte) []byte {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var out bytes.Buffer
	if len(b) == 0 || b[0] != '{' && b[0] != '[' || writeNormal(&out, dec, "", "") != nil {
		return b
	}
	out.WriteByte('\n')
	return out.Bytes()
}

func writeNormal(w *bytes.Buffer, dec *json.Decoder, key, indent string) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch x := tok.(type) {
	case json.Delim:
		if x == '[' {
			w.WriteString("[")
			n := 0
			for ; dec.More(); n++ {
				w.WriteString("\n" + indent + "  ")
				if err := writeNormal(w, dec, "", indent+"  "); err != nil {
					return err
				}
			}
			if n > 0 {
				w.WriteString("\n" + indent)
			}
			w.WriteString("]")
			_, err = dec.Token()
			return err
		}
		var members []string
		for dec.More() {
			k, err := dec.Token()
			if err != nil {
				return err
			}
			var m bytes.Buffer
			fmt.Fprintf(&m, "\n%s  %q: ", indent, k)
			if err := writeNormal(&m, dec, k.(string), indent+"  "); err != nil {
				return err
			}
			members = append(members, m.String())
		}
		// The real server keeps these in a hash map.
		if key == "fields" || key == "ignored_field_values" {
			slices.Sort(members)
		}
		w.WriteString("{" + strings.Join(members, ""))
		if len(members) > 0 {
			w.WriteString("\n" + indent)
		}
		w.WriteString("}")
		_, err = dec.Token()
		return err
	case string:
		switch {
		case volatile[key], key == "id" && len(x) > 20:
			x = "*"
		case key == "_id" && isAuto.MatchString(x):
			x = "AUTOID"
		}
		x = inUUID.ReplaceAllString(x, "/UUID]")
		x = docID.ReplaceAllString(x, "document with id 'AUTOID'")
		x = context.ReplaceAllString(x, "No search context found for id [*]")
		x = strings.ReplaceAll(x, "[Accept, Content-Type]", "[Content-Type, Accept]") // the order differs between starts of a server
		j, err := json.Marshal(x)
		w.Write(j)
		return err
	case json.Number:
		if volatile[key] {
			x = "0"
		}
		w.WriteString(x.String())
	default:
		j, err := json.Marshal(x)
		w.Write(j)
		return err
	}
	return nil
}

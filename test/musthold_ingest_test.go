package test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

// provider serves 100 good records and some that must be rejected: no subject, a date that no layout fits, a name that
// renaming would give twice, a value that looks sealed.
func provider(t *testing.T) (address string, good []sampleapi.Record, bad []string) {
	t.Helper()
	good = sampleapi.Records(100)
	list := make([]string, 0, 110)
	for _, r := range good {
		list = append(list, string(r.JSON()))
	}
	model := sampleapi.Records(110)
	for i, change := range []func(text string) string{
		func(s string) string {
			return regexp.MustCompile(`"user_name":"[^"]*"`).ReplaceAllString(s, `"user_name":null`)
		},
		func(s string) string { return regexp.MustCompile(`"user_name":"[^"]*",`).ReplaceAllString(s, ``) },
		func(s string) string {
			return regexp.MustCompile(`"fec_alta":"[^"]*"`).ReplaceAllString(s, `"fec_alta":"soon"`)
		},
		func(s string) string { return strings.TrimSuffix(s, "}") + `,"username":"twice"}` },
		func(s string) string {
			return strings.Replace(s, `"credit_card_num":"`, `"credit_card_num":"esp1.`, 1)
		},
		func(s string) string { return regexp.MustCompile(`"id":"[^"]*"`).ReplaceAllString(s, `"id":null`) },
	} {
		r := model[100+i]
		list = append(list, change(string(r.JSON())))
		bad = append(bad, r.CreditCardNum, r.CuentaNumero)
	}
	body := "[" + strings.Join(list, ",\n") + "]"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, body)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/users", good, bad
}

// stored gives the document that a record must become, read with a grant.
func stored(t *testing.T, r sampleapi.Record) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal(r.JSON(), &doc); err != nil {
		t.Fatal(err)
	}
	for from, to := range map[string]string{"user_name": "username", "codigo_zip": "code_zip"} {
		doc[to] = doc[from]
		delete(doc, from)
	}
	for _, name := range []string{"fec_alta", "fec_birthday"} {
		when, err := time.Parse(time.RFC3339, doc[name].(string))
		if err != nil {
			if when, err = time.Parse("02/01/2006", doc[name].(string)); err != nil {
				t.Fatal(err)
			}
		}
		doc[name] = when.UTC().Format("2006-01-02 15:04:05")
	}
	return doc
}

// byID indexes documents by their member id.
func byID(t *testing.T, docs []gjson.Result) map[string]map[string]any {
	t.Helper()
	out := map[string]map[string]any{}
	for _, d := range docs {
		var doc map[string]any
		if err := json.Unmarshal([]byte(d.Raw), &doc); err != nil {
			t.Fatalf("%v: %s", err, tail(d.Raw, 300))
		}
		id, _ := doc["id"].(string)
		if out[id] != nil {
			t.Errorf("id %s twice", id)
		}
		out[id] = doc
	}
	return out
}

func lines(text string) []gjson.Result {
	var out []gjson.Result
	for _, l := range strings.Split(strings.TrimSpace(text), "\n") {
		out = append(out, gjson.Parse(l))
	}
	return out
}

// TestIngestHoldsNothingInClear pulls records from an API through the proxy and looks for their protected values in
// Elasticsearch, in all that the proxy sent, in logs and in dead letters; then it takes the values back in every way.
func TestIngestHoldsNothingInClear(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	source, good, bad := provider(t)
	letters := filepath.Join(t.TempDir(), "letters.ndjson")
	var outputs strings.Builder
	run := func() {
		t.Helper()
		out, errs, code := s.command("", "ingest", "--source", source, "--index", s.prefix+"user", "--dead-letter", letters, "--batch", "30")
		if code != 1 {
			t.Errorf("ingest with rejected records ended with %d\n%s", code, tail(errs, 2000))
		}
		outputs.WriteString(out + errs)
	}
	ids := func() map[string]string {
		t.Helper()
		m := map[string]string{}
		for _, hit := range gjson.Parse(s.must(s.direct("POST", "/$Puser/_search?size=1000", ""), 200).body).Get("hits.hits").Array() {
			m[hit.Get("_id").String()] = hit.Get("_source.username").String()
		}
		return m
	}
	run()
	s.must(s.direct("POST", "/$Puser/_refresh", ""), 200)
	first := ids()
	run()
	s.must(s.direct("POST", "/$Puser/_refresh", ""), 200)
	if diff := cmp.Diff(first, ids()); diff != "" || len(first) != len(good) {
		t.Errorf("%d documents after the first run, of %d; the second run changed:\n%s", len(first), len(good), diff)
	}

	dead, err := os.ReadFile(letters)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(lines(string(dead))); n != 12 {
		t.Errorf("%d dead letters, want 6 of each run", n)
	}
	if !strings.Contains(string(dead), `"esp1.`) {
		t.Error("no dead letter holds a sealed value")
	}
	places := map[string]string{
		"Elasticsearch": s.everything(), "the proxy's log": s.log.String(), "dead letters": string(dead), "output of ingest": outputs.String(),
		"metrics": metrics(t, s),
	}
	var sent strings.Builder
	for _, r := range s.rec.since(0) {
		sent.WriteString(strings.Join(r.readings(), "\n"))
	}
	places["requests to Elasticsearch"] = sent.String()
	secrets := append([]string(nil), bad...)
	for _, r := range good {
		secrets = append(secrets, r.CreditCardNum, r.CuentaNumero, strings.ReplaceAll(r.CreditCardNum, "-", ""))
	}
	ccv := regexp.MustCompile(`credit_card_ccv[\\"]*\s*:\s*[\\"]*[0-9]`)
	for place, text := range places {
		for _, secret := range secrets {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s: %s", place, text[max(0, i-200):i+len(secret)])
				break
			}
		}
		if i := ccv.FindStringIndex(text); i != nil {
			t.Errorf("%s: %s", place, text[max(0, i[0]-200):i[1]])
		}
	}
	if !strings.Contains(places["Elasticsearch"], `"credit_card_ccv":"esp1.`) || !strings.Contains(places["requests to Elasticsearch"], `"credit_card_num":"esp1.`) {
		t.Error("nothing was looked through")
	}

	want := map[string]map[string]any{}
	for _, r := range good {
		want[r.ID] = stored(t, r)
	}
	var ana map[string]any
	for _, d := range want {
		if d["username"] == "Ana" {
			ana = d
		}
	}
	t.Run("get", func(t *testing.T) {
		for _, flag := range []string{"--subject", "--username"} {
			out, errs, code := s.command("", "get", flag, "Ana", "--rule", "users")
			var got map[string]any
			if err := json.Unmarshal([]byte(out), &got); err != nil || code != 0 {
				t.Fatalf("status %d, %v: %s", code, err, errs)
			}
			if diff := cmp.Diff(ana, got); diff != "" {
				t.Error(diff)
			}
		}
		if out, errs, code := s.command("", "get", "--subject", "Nobody", "--rule", "users"); code != 1 || out != "" || !strings.Contains(errs, "Nobody") {
			t.Errorf("nobody: status %d: %s%s", code, out, errs)
		}
	})
	t.Run("export", func(t *testing.T) {
		out, errs, code := s.command("", "export", "--rule", "users")
		if code != 0 || !gjson.Valid(out) {
			t.Fatalf("status %d: %s", code, errs)
		}
		if diff := cmp.Diff(want, byID(t, gjson.Parse(out).Array())); diff != "" {
			t.Error(tail(diff, 2000))
		}
	})
	t.Run("export as NDJSON", func(t *testing.T) {
		out, errs, code := s.command("", "export", "--ndjson", "--rule", "users")
		if code != 0 {
			t.Fatalf("status %d: %s", code, errs)
		}
		if diff := cmp.Diff(want, byID(t, lines(out))); diff != "" {
			t.Error(tail(diff, 2000))
		}
	})
	t.Run("open", func(t *testing.T) {
		var hits, sources strings.Builder
		for _, hit := range s.must(s.direct("POST", "/$Puser/_search?size=1000", ""), 200).json("hits.hits").Array() {
			hits.WriteString(strings.ReplaceAll(hit.Raw, "\n", "") + "\n")
			sources.WriteString(hit.Get("_source").Raw + "\n")
		}
		offline := []string{"ELASTICSEARCH_URL=http://127.0.0.1:1", "ESPROXY_URL=http://127.0.0.1:1"}
		out, errs, code := s.commandEnv(sources.String(), offline, "open", "--scope", "users")
		if code != 0 {
			t.Fatalf("status %d: %s", code, errs)
		}
		if diff := cmp.Diff(want, byID(t, lines(out))); diff != "" {
			t.Error(tail(diff, 2000))
		}
		out, errs, code = s.commandEnv(hits.String(), offline, "open", "--scope", "users")
		if code != 0 {
			t.Fatalf("hits: status %d: %s", code, errs)
		}
		var docs []gjson.Result
		for _, l := range lines(out) {
			docs = append(docs, l.Get("_source"))
		}
		if diff := cmp.Diff(want, byID(t, docs)); diff != "" {
			t.Error(tail(diff, 2000))
		}
		out, errs, code = s.commandEnv(sources.String(), append(offline, "MASTER_KEY="+otherKey), "open", "--scope", "users")
		if code != 1 || strings.Contains(out, good[0].CreditCardNum) || !strings.Contains(errs, "stayed sealed") {
			t.Errorf("another key: status %d: %s", code, errs)
		}
	})
	t.Run("key", func(t *testing.T) {
		for _, args := range [][]string{{"get", "--subject", "Ana", "--rule", "users"}, {"export", "--rule", "users"}, {"export", "--ndjson", "--rule", "users"}, {"open", "--scope", "users"}} {
			for _, c := range []struct {
				key, want string
			}{
				{"", "MASTER_KEY"},
				{"esk1:nonsense", "MASTER_KEY"},
				{otherKey, "MASTER_KEY"},
			} {
				if args[0] == "open" && c.key == otherKey {
					continue // tried above: it needs something to open
				}
				out, errs, code := s.commandEnv("", []string{"MASTER_KEY=" + c.key}, args...)
				if code == 0 || out != "" || !strings.Contains(errs, c.want) || c.key != "" && strings.Contains(errs, c.key) {
					t.Errorf("%v with key %q…: status %d, output %q, error %s", args, tail(c.key, 3), code, tail(out, 200), errs)
				}
			}
		}
		out, errs, code := s.commandEnv("", []string{"MASTER_KEY=", "ESPROXY_TOKEN=" + s.token("full")}, "get", "--subject", "Ana", "--rule", "users")
		if code != 0 || !strings.Contains(out, ana["credit_card_num"].(string)) {
			t.Errorf("a token in place of the key: status %d: %s", code, errs)
		}
		out, errs, code = s.commandEnv("", []string{"MASTER_KEY=", "ESPROXY_TOKEN=" + s.token("support")}, "export", "--rule", "users")
		if code != 1 || strings.Contains(out, ana["credit_card_num"].(string)) {
			t.Errorf("a token of a lesser grant: status %d: %s", code, errs)
		}
	})
}

// metrics gives the proxy's metrics.
func metrics(t *testing.T, s *stack) string {
	t.Helper()
	res, err := http.Get(s.admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 {
		t.Fatalf("metrics: status %d", res.StatusCode)
	}
	return readAll(t, res)
}

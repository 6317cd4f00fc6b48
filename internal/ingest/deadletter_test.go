package ingest_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/ingest"
	"github.com/esproxy/esproxy/internal/ingest/sampleapi"
)

// sealer seals the three protected fields readably.
type sealer struct{ got []string }

var protected = regexp.MustCompile(`"(credit_card_num|credit_card_ccv|cuenta_numero)":"[^"]*"`)

func (s *sealer) SealRecord(index string, record []byte) ([]byte, error) {
	s.got = append(s.got, index)
	return protected.ReplaceAll(record, []byte(`"$1":"sealed"`)), nil
}

type badSealer struct{ reply string }

func (b badSealer) SealRecord(_ string, record []byte) ([]byte, error) {
	if b.reply == "" {
		return record, errors.New("cannot seal " + string(record))
	}
	return []byte(b.reply), nil
}

func letters(t *testing.T, path string) []map[string]any {
	t.Helper()
	var list []map[string]any
	for _, line := range strings.Split(strings.TrimSpace(read(t, path)), "\n") {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("dead letter %q: %v", line, err)
		}
		list = append(list, m)
	}
	return list
}

func TestRejectedRecordsAreDeadLetters(t *testing.T) {
	const n = 12
	e := newEnv(t)
	e.api(sampleapi.Options{N: n}, "/users")
	s := &sealer{}
	e.opt.DeadLetter, e.opt.Sealer = filepath.Join(t.TempDir(), "dead.ndjson"), s
	e.c.item = func(id string, doc []byte, _ int) (int, string) {
		switch id {
		case "2":
			return 400, "mapper_parsing_exception"
		case "5":
			return 409, "version " + string(doc) // no type: must not be written down
		}
		return 0, ""
	}
	sum, err := e.run()
	if !isRejected(err) || err.Error() != "2 of 12 records were rejected" || sum.Rejected != 2 || sum.Created != n-2 {
		t.Fatalf("error %v, summary %s", err, sum)
	}
	list := letters(t, e.opt.DeadLetter)
	if len(list) != 2 || list[0]["id"] != "2" || list[0]["index"] != "user" || list[0]["status"] != 400.0 || list[0]["type"] != "mapper_parsing_exception" ||
		list[1]["id"] != "5" || list[1]["type"] != "unknown" {
		t.Fatalf("dead letters %v", list)
	}
	record := list[0]["record"].(map[string]any)
	if r := sampleapi.Records(n)[1]; record["credit_card_num"] != "sealed" || record["username"] != r.UserName || record["direccion"] != r.Direccion {
		t.Errorf("record %v, want the mapped record with sealed values", record)
	}
	wantNone(t, "the dead-letter file", read(t, e.opt.DeadLetter), n)
	wantNone(t, "log and output", e.log.String()+e.out.String()+err.Error(), n)
	if strings.Contains(read(t, e.opt.DeadLetter)+e.log.String(), "Preview") {
		t.Error("a reason was kept")
	}
	if info, _ := os.Stat(e.opt.DeadLetter); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600", info.Mode())
	}
	if _, err := e.run(); !isRejected(err) || len(letters(t, e.opt.DeadLetter)) != 4 {
		t.Errorf("second run: %v; want its letters appended", err)
	}
}

func TestRecordsThatCannotBeSealedAreLeftOut(t *testing.T) {
	for name, s := range map[string]ingest.DeadLetterSealer{"no sealer": nil, "a failing one": badSealer{}, "no JSON": badSealer{"4111-x"}, "no object": badSealer{`"x"`}} {
		e := newEnv(t)
		e.api(sampleapi.Options{N: 3}, "/users")
		e.opt.DeadLetter, e.opt.Sealer = filepath.Join(t.TempDir(), "dead.ndjson"), s
		e.c.item = func(string, []byte, int) (int, string) { return 400, "mapper_parsing_exception" }
		if _, err := e.run(); !isRejected(err) {
			t.Errorf("%s: error %v", name, err)
		}
		for _, m := range letters(t, e.opt.DeadLetter) {
			if m["record"] != nil || m["omitted"] == "" || m["id"] == "" || m["status"] != 400.0 {
				t.Errorf("%s: dead letter %v, want no record, and why", name, m)
			}
		}
		for _, r := range sampleapi.Records(3) {
			for _, v := range []string{r.CreditCardNum, r.UserName, r.Direccion, r.CuentaNumero} {
				if strings.Contains(read(t, e.opt.DeadLetter)+e.log.String(), v) {
					t.Errorf("%s: %q is in the file or the log", name, v)
				}
			}
		}
	}
}

func TestRecordsThatAreNeverSent(t *testing.T) {
	lines := []string{
		`{"id":"1","fec_alta":"4111-1111-1111-1111"}`,               // a card number where a date should be
		`{"id":"2","user_name":"a","username":"b","cuenta":"4111"}`, // two members, one name
		`{"user_name":"4111"}`,                                      // no id
		`4111`,
		`{"id":"4111`,
		`["4111"]`,
		`{"id":{"x":"4111"}}`,
		`{"id":"7"} {"id":"4111"}`,
		`{"id":"ok"}`,
	}
	e := newEnv(t)
	e.opt.Source, e.opt.Stdin = "-", strings.NewReader(strings.Join(lines, "\n"))
	e.opt.DeadLetter, e.opt.Sealer = filepath.Join(t.TempDir(), "dead.ndjson"), &sealer{}
	sum, err := e.run()
	if !isRejected(err) || sum.Read != 9 || sum.Created != 1 || sum.Rejected != 8 {
		t.Fatalf("error %v, summary %s", err, sum)
	}
	want := []struct{ id, kind, fields string }{
		{"1", "ingest_date_not_understood", "fec_alta"}, {"2", "ingest_duplicate_member", "username"}, {"", "ingest_no_usable_id", "id"},
		{"", "ingest_not_a_json_object", ""}, {"", "ingest_not_a_json_object", ""}, {"", "ingest_not_a_json_object", ""},
		{"", "ingest_no_usable_id", "id"}, {"", "ingest_not_a_json_object", ""},
	}
	for i, m := range letters(t, e.opt.DeadLetter) {
		id, _ := m["id"].(string)
		fields := ""
		if f, ok := m["fields"].([]any); ok {
			fields = f[0].(string)
		}
		if id != want[i].id || m["type"] != want[i].kind || fields != want[i].fields || m["status"] != nil {
			t.Errorf("letter %d: %v, want %v", i, m, want[i])
		}
	}
	if text := read(t, e.opt.DeadLetter); strings.Count(text, "4111") != 2 || strings.Contains(text, "4111-1111") {
		// The two are in records that went through the sealer under names that it does not protect.
		t.Errorf("the file quotes values it should not:\n%s", text)
	}
	if strings.Contains(e.log.String()+err.Error(), "4111") {
		t.Errorf("log or error quote values:\n%s", e.log)
	}
}

func TestRejectedRecordsAreDurableBeforeTheCheckpointMoves(t *testing.T) {
	e := newEnv(t)
	dir := t.TempDir()
	e.api(sampleapi.Options{N: 30}, "/users")
	e.opt.BatchCount, e.opt.Checkpoint = 10, filepath.Join(dir, "cp.json")
	e.opt.DeadLetter = filepath.Join(dir, "missing", "dead.ndjson") // cannot be made
	e.c.item = func(id string, _ []byte, _ int) (int, string) {
		if id == "15" {
			return 400, "mapper_parsing_exception"
		}
		return 0, ""
	}
	if _, err := e.run(); err == nil || !strings.Contains(err.Error(), "dead-letter file") {
		t.Fatalf("error %v, want the dead-letter file named", err)
	}
	e.opt.DeadLetter = filepath.Join(dir, "dead.ndjson")
	sum, err := e.run()
	if !isRejected(err) || sum.Read != 20 || len(letters(t, e.opt.DeadLetter)) != 1 {
		t.Errorf("second run: %v, %s; want the batch of the rejected record again and its dead letter", err, sum)
	}
}

func TestRejectionsInAnInterruptedRunAreKept(t *testing.T) {
	e := newEnv(t)
	dir := t.TempDir()
	e.api(sampleapi.Options{N: 30}, "/users")
	e.opt.BatchCount, e.opt.Checkpoint, e.opt.DeadLetter = 10, filepath.Join(dir, "cp.json"), filepath.Join(dir, "dead.ndjson")
	e.c.item = func(id string, _ []byte, _ int) (int, string) {
		if id == "3" {
			return 400, "mapper_parsing_exception"
		}
		return 0, ""
	}
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
		t.Fatal(err)
	}
	if list := letters(t, e.opt.DeadLetter); len(list) != 1 || list[0]["id"] != "3" {
		t.Errorf("dead letters %v, want record 3", list)
	}
}

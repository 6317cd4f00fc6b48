package main

import (
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/policy"
)

// sealDoc seals a document under the rule users of onePolicy.
func sealDoc(t *testing.T, key *envelope.Key, index, doc string, pol *policy.Policy) string {
	t.Helper()
	ring, err := envelope.NewKeyring(key, nil, envelope.Options{})
	if err != nil {
		t.Fatal(err)
	}
	out, err := newRecordSealer(pol, ring).SealRecord(index, []byte(doc))
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func parsePolicy(t *testing.T, text string) *policy.Policy {
	t.Helper()
	pol, err := policy.Parse("fields.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return pol
}

func TestOpen(t *testing.T) {
	text, key := newKey(t)
	pol := parsePolicy(t, onePolicy)
	env := map[string]string{"MASTER_KEY": text, "ESPROXY_FIELDS": file(t, "fields.yaml", onePolicy)}
	// Blanks, order, escapes, numbers and line ends stay as they are.
	docs := []string{
		`{ "username" : "Ana",  "card": "6767-2293-4172-5169" , "n": 1.0E+5, "e": "A\/" }`,
		`{"card": [1, {"a": null}], "username": 7}`,
		`{"a":1}`,
	}
	var in, want string
	for i, doc := range docs {
		sealed := sealDoc(t, key, "user", doc, pol)
		if i < 2 && !strings.Contains(sealed, `"esp1.`) {
			t.Fatalf("not sealed: %s", sealed)
		}
		in += sealed + "\n"
		want += doc + "\n"
		in += `  {"_index":"user","_id":"` + string(rune('1'+i)) + `","_score":1.0, "_source": ` + sealed + ` , "sort":[1]}` + "\r\n\n"
		want += `  {"_index":"user","_id":"` + string(rune('1'+i)) + `","_score":1.0, "_source": ` + doc + ` , "sort":[1]}` + "\r\n\n"
	}
	in, want = strings.TrimSuffix(in, "\r\n\n"), strings.TrimSuffix(want, "\r\n\n")
	r := command(t, env, in, "open")
	r.want(t, exitOK)
	if r.out != want || r.err != "" {
		t.Errorf("got\n%s\nwant\n%s\nstandard error %q", r.out, want, r.err)
	}
	if r := command(t, env, "", "open"); r.code != exitOK || r.out != "" {
		t.Errorf("nothing in: %+v", r)
	}

	wrong, _ := newKey(t)
	r = command(t, map[string]string{"MASTER_KEY": wrong, "ESPROXY_FIELDS": env["ESPROXY_FIELDS"]}, in, "open")
	r.want(t, exitFailure, "4 sealed values stayed sealed", "another key")
	if r.out != in {
		t.Error("lines that did not open were changed")
	}
	r = command(t, map[string]string{"MASTER_KEY": wrong, "MASTER_KEY_PREVIOUS": text, "ESPROXY_FIELDS": env["ESPROXY_FIELDS"]}, in, "open")
	r.want(t, exitOK)
	if r.out != want {
		t.Error("a previous key does not open")
	}
	// A value in another person's document stays sealed.
	moved := strings.Replace(sealDoc(t, key, "user", docs[0], pol), `"Ana"`, `"Eva"`, 1)
	if r = command(t, env, moved, "open"); r.code != exitFailure || r.out != moved {
		t.Errorf("another subject's value: status %d, %s", r.code, r.out)
	}

	for line, at := range map[string]string{
		"{\"a\":1}\ncanary\n": "line 2 is no JSON object",
		"[\"canary\"]\n":      "line 1 is no JSON object",
		"\"canary\"":          "line 1 is no JSON object",
		"{\"canary\":1}}\n":   "line 1 is no JSON object",
	} {
		r := command(t, env, line, "open")
		r.want(t, exitFailure, at)
		if strings.Contains(r.err, "canary") {
			t.Errorf("a line is quoted: %s", r.err)
		}
	}
	command(t, map[string]string{"ESPROXY_FIELDS": env["ESPROXY_FIELDS"]}, in, "open").want(t, exitUsage, "MASTER_KEY is not set")
}

const severalRules = `version: 1
rules:
  - name: users
    indices: ["user"]
    subject: username
    fields: {card: {mode: encrypt}}
  - name: notes
    indices: ["note", "note-*"]
    fields: {text: {mode: encrypt}}
`

func TestOpenSeveralRules(t *testing.T) {
	text, key := newKey(t)
	pol := parsePolicy(t, severalRules)
	env := map[string]string{"MASTER_KEY": text, "ESPROXY_FIELDS": file(t, "fields.yaml", severalRules)}
	user, note := `{"username":"Ana","card":"6767"}`, `{"text":"hush"}`
	in := `{"_index":"user","_source":` + sealDoc(t, key, "user", user, pol) + "}\n" + `{"_index":"note-1","_source":` + sealDoc(t, key, "note", note, pol) + "}\n"
	want := `{"_index":"user","_source":` + user + "}\n" + `{"_index":"note-1","_source":` + note + "}\n"
	r := command(t, env, in, "open")
	r.want(t, exitOK)
	if r.out != want {
		t.Errorf("got %s", r.out)
	}
	sealed := sealDoc(t, key, "note", note, pol)
	command(t, env, sealed, "open").want(t, exitUsage, "line 1", "choose one with --scope: users, notes")
	r = command(t, env, sealed, "open", "--scope", "notes")
	r.want(t, exitOK)
	if r.out != note {
		t.Errorf("got %s", r.out)
	}
	command(t, env, sealed, "open", "--scope", "users").want(t, exitOK) // users has no field there, so nothing stays sealed
	command(t, env, sealed, "open", "--scope", "nothing").want(t, exitUsage, `has no rule "nothing"; it has: users, notes`)
}

package rewrite

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// storeUser stores one document of user Ana (or whom doc names), sealed, and gives the token at card.
func storeUser(t *testing.T, e *Engine, cluster *fakeCluster, index, id, doc string, seq int64) string {
	t.Helper()
	rules, _ := e.Policy.Match([]string{index})
	out, err := e.SealDocument(nil, []byte(doc), rules)
	if err != nil {
		t.Fatal(err)
	}
	cluster.docs[Ref{index, id, ""}] = Stored{Found: true, Index: index, SeqNo: seq, PrimaryTerm: 3, Source: out}
	return tokenText.FindString(string(out))
}

func updateCall(path, query string) *Call {
	return &Call{Method: "POST", Path: path, Query: query, ContentType: []string{"application/json"}, HasBody: true, Caller: &fakeCaller{}, Counter: &fakeCounter{}}
}

const ana = `{"username":"Ana","card":"4111","ccv":1}`

func TestSingleUpdateForms(t *testing.T) {
	for _, c := range []struct {
		name, query, in     string
		stored              string // "" : missing
		path, wantQuery, up string
	}{
		{"nothing protected", "retry_on_conflict=3&refresh", ` {"doc":{"city":"x"}} `, ana, "/user/_update/1", "retry_on_conflict=3&refresh", ` {"doc":{"city":"x"}} `},
		{"nothing protected, upsert", "", `{"doc":{"city":"x"},"upsert":{"username":"Bob","card":2}}`, ana, "/user/_update/1", "", `{"doc":{"city":"x"},"upsert":{"username":"Bob","card":<Bob>2}}`},
		{"protected", "retry_on_conflict=3&refresh", `{"doc":{"card":2},"detect_noop":false}`, ana, "/user/_update/1", "refresh&if_seq_no=7&if_primary_term=3", `{"doc":{"card":<Ana>2},"detect_noop":false}`},
		{"found, upsert left out", "", `{ "upsert" : {"card":9} , "doc":{"card":2} }`, ana, "/user/_update/1", "if_seq_no=7&if_primary_term=3", `{"doc":{"card":<Ana>2}}`},
		{"found, doc_as_upsert left out", "", `{"doc":{"card":2},"doc_as_upsert":true}`, ana, "/user/_update/1", "if_seq_no=7&if_primary_term=3", `{"doc":{"card":<Ana>2}}`},
		{"missing, upsert", "routing=r&_source=true&retry_on_conflict=2", `{"doc":{"card":2},"upsert":{"username":"Bob","card":3} }`, "", "/user/_create/1", "routing=r", `{"username":"Bob","card":<Bob>3}`},
		{"missing, doc_as_upsert", "if_primary_t%65rm=", `{"doc":{"username":"Bob","card":3},"doc_as_upsert":true}`, "", "/user/_create/1", "", `{"username":"Bob","card":<Bob>3}`},
		{"subject sent again", "", `{"doc":{"username":"Ana","card":2}}`, ana, "/user/_update/1", "if_seq_no=7&if_primary_term=3", `{"doc":{"username":"Ana","card":<Ana>2}}`},
		{"subject changed whole", "", `{"doc":{"username":"Bob","card":2,"ccv":null}}`, ana, "/user/_update/1", "if_seq_no=7&if_primary_term=3", `{"doc":{"username":"Bob","card":<Bob>2,"ccv":null}}`},
		{"subject alone, nothing sealed", "", `{"doc":{"username":"Bob"}}`, `{"username":"Ana","card":null}`, "/user/_update/1", "if_seq_no=7&if_primary_term=3", `{"doc":{"username":"Bob"}}`},
		{"subject first given", "", `{"doc":{"username":"Bob","card":1}}`, `{"city":"x"}`, "/user/_update/1", "if_seq_no=7&if_primary_term=3", `{"doc":{"username":"Bob","card":<Bob>1}}`},
		{"own condition", "if_seq_no=7&if_primary_term=3", `{"doc":{"card":2}}`, ana, "/user/_update/1", "if_seq_no=7&if_primary_term=3", `{"doc":{"card":<Ana>2}}`},
		{"null needs nobody", "", `{"doc":{"card":null}}`, "", "/user/_update/1", "", `{"doc":{"card":null}}`},
	} {
		e, cluster, _ := fakeEngine(t)
		if c.stored != "" {
			storeUser(t, e, cluster, "user", "1", c.stored, 7)
		}
		call := updateCall("/user/_update/1", c.query)
		if strings.Contains(c.query, "routing=r") {
			cluster.docs[Ref{"user", "1", "r"}] = Stored{}
		}
		o := exchange(t, e, call, strings.NewReader(c.in), func(Target, []byte) (int, string) { return 200, `{"result":"updated"}` })
		if o.err != nil || o.reply != `{"result":"updated"}` {
			t.Errorf("%s: %v, %s", c.name, o.err, o.reply)
			continue
		}
		got := tokenText.ReplaceAllStringFunc(o.up, func(token string) string {
			_, _, who, value, _ := readFakeToken(strings.Trim(token, `"`))
			return "<" + who + ">" + value
		})
		if got != c.up || o.targets[0] != (Target{"POST", c.path, c.wantQuery}) {
			t.Errorf("%s: %+v\n got %s\nwant %s", c.name, o.targets[0], got, c.up)
		}
	}
}

func TestSingleUpdateRefuses(t *testing.T) {
	for _, c := range []struct {
		name, query, in, stored string
		status                  int
		kind, words             string
	}{
		{"missing", "", `{"doc":{"card":2}}`, "", 404, "document_missing_exception", "missing"},
		{"subject changed, sealed values stay", "", `{"doc":{"username":"Bob","card":2}}`, ana, 400, "esproxy_subject_change", "[username]"},
		{"subject nowhere", "", `{"doc":{"card":2}}`, `{"city":1}`, 400, "esproxy_subject", "neither the update nor the stored"},
		{"subject of no use", "", `{"doc":{"card":2,"username":["Ana"]}}`, ana, 400, "esproxy_subject", "neither a string"},
		{"stored subject of no use", "", `{"doc":{"card":2}}`, `{"username":[1]}`, 400, "esproxy_subject", ""},
		{"upsert without subject", "", `{"doc":{"card":2},"upsert":{"card":3}}`, "", 400, "esproxy_subject", "no value there"},
		{"doc_as_upsert without subject", "", `{"doc":{"card":2},"doc_as_upsert":true}`, "", 400, "esproxy_subject", "no value there"},
		{"other condition", "if_seq_no=6&if_primary_term=3", `{"doc":{"card":2}}`, ana, 409, "version_conflict_engine_exception", "[7]"},
		{"other term", "if_seq_no=7&if_primary_term=2", `{"doc":{"card":2}}`, ana, 409, "version_conflict_engine_exception", "[3]"},
		{"condition and upsert", "if_seq_no=7&if_primary_term=3", `{"doc":{"card":2},"doc_as_upsert":true}`, ana, 400, "action_request_validation_exception", "if_seq_no"},
		{"condition and upsert, nothing protected", "if_seq_no=7&if_primary_term=3", `{"doc":{"city":2},"upsert":{}}`, ana, 400, "action_request_validation_exception", "if_seq_no"},
		{"condition in the body", "", `{"doc":{"card":2},"if_seq_no":7,"if_primary_term":3}`, ana, 400, "esproxy_bad_document", "action line"},
		{"script", "", `{"script":"ctx._source.card='1'"}`, ana, 400, "esproxy_script_refused", "[users]"},
		{"scripted upsert", "", `{"doc":{},"scripted_upsert":true,"upsert":{}}`, ana, 400, "esproxy_script_refused", "[users]"},
		{"script and doc", "", `{"script":"x","doc":{}}`, ana, 400, "esproxy_bad_document", "both a script and a doc"},
		{"neither", "", `{"upsert":{}}`, ana, 400, "esproxy_bad_document", "neither"},
		{"empty", "", `{}`, ana, 400, "esproxy_bad_document", "neither"},
		{"both upserts", "", `{"doc":{},"doc_as_upsert":true,"upsert":{}}`, ana, 400, "esproxy_bad_document", "both doc_as_upsert"},
		{"unknown member", "", `{"doc":{},"Doc":{"card":1}}`, ana, 400, "esproxy_bad_document", "unknown member"},
		{"member twice", "", `{"doc":{},"d\u006fc":{"card":1}}`, ana, 400, "esproxy_bad_document", "twice"},
		{"doc no object", "", `{"doc":[{"card":1}]}`, ana, 400, "esproxy_bad_document", "expected an object"},
		{"flag no boolean", "", `{"doc":{},"doc_as_upsert":"true"}`, ana, 400, "esproxy_bad_document", "true or false"},
		{"trailing text", "", `{"doc":{}}{"doc":{}}`, ana, 400, "esproxy_bad_document", "after the end"},
		{"trailing brace", "", `{"doc":{}}}`, ana, 400, "esproxy_bad_document", "after the end"},
		{"token of another field", "", `{"doc":{"ccv":<token>}}`, ana, 400, "esproxy_misplaced_token", "[ccv]"},
		{"token elsewhere", "", `{"doc":{"note":<token>}}`, ana, 400, "esproxy_misplaced_token", ""},
		{"retries no number", "retry_on_conflict=x", `{"doc":{}}`, ana, 400, "esproxy_bad_request", "retry_on_conflict"},
		{"not ready", "", `{"doc":{"city":1}}`, "not ready", 503, "esproxy_wrong_key", ""},
		{"look-up fails", "", `{"doc":{"card":1}}`, "no look-up", 503, "esproxy_lookup_failed", ""},
		{"stored document that cannot be read", "", `{"doc":{"card":1}}`, "broken", 409, "esproxy_stored_document", ""},
	} {
		e, cluster, _ := fakeEngine(t)
		token := `""`
		switch c.stored {
		case "":
		case "not ready":
			cluster.ready = &Fault{Status: 503, Type: "esproxy_wrong_key"}
		case "no look-up":
			cluster.err = &Fault{Status: 503, Type: "esproxy_lookup_failed"}
		case "broken":
			cluster.docs[Ref{"user", "1", ""}] = Stored{Found: true, Source: []byte(`{"username":"Ana","username":"Bob"}`)}
		default:
			token = storeUser(t, e, cluster, "user", "1", c.stored, 7)
		}
		o := exchange(t, e, updateCall("/user/_update/1", c.query), strings.NewReader(strings.ReplaceAll(c.in, "<token>", token)), func(_ Target, up []byte) (int, string) {
			t.Errorf("%s: %s went up", c.name, up)
			return 200, `{}`
		})
		if o.err == nil {
			continue
		}
		if f := asFault(o.err); f.Status != c.status || f.Type != c.kind || !strings.Contains(f.Reason, c.words) {
			t.Errorf("%s: %d %v", c.name, f.Status, f)
		}
	}
}

// What a client read it may write back where it was: under a subject if it opens there, else if it is what is stored.
func TestWriteBack(t *testing.T) {
	e, cluster, crypto := fakeEngine(t)
	users := storeUser(t, e, cluster, "user", "1", ana, 7)
	shop := storeUser(t, e, cluster, "shop", "1", `{"key":"k"}`, 7)
	storeUser(t, e, cluster, "shop", "2", `{"key":"other"}`, 7)
	up := func(Target, []byte) (int, string) { return 200, `{"errors":false,"items":[]}` }
	put := func(path string) *Call {
		c := updateCall(path, "")
		c.Method = "PUT"
		return c
	}
	for _, c := range []struct {
		call *Call
		in   string
		ok   bool
	}{
		{put("/user/_doc/9"), `{"username":"Ana","card":` + users + `}`, true},
		{put("/user/_doc/9"), `{"username":"Bob","card":` + users + `}`, false},
		{updateCall("/user/_update/1", ""), `{"doc":{"card":` + users + `}}`, true},
		{updateCall("/user/_update/1", ""), `{"doc":{"username":"Bob","ccv":2,"card":` + users + `}}`, false},
		{put("/shop/_doc/1"), `{"key":` + shop + `,"x":1}`, true},
		{put("/shop/_doc/2"), `{"key":` + shop + `}`, false},
		{put("/shop/_doc/3"), `{"key":` + shop + `}`, false},
		{updateCall("/shop/_doc", ""), `{"key":` + shop + `}`, false},
		{updateCall("/shop/_update/1", ""), `{"doc":{"key":` + shop + `}}`, true},
		{updateCall("/shop/_update/2", ""), `{"doc":{"key":` + shop + `}}`, false},
		{bulkCall("/_bulk", ""), `{"index":{"_index":"shop","_id":"1"}}` + "\n" + `{"key":` + shop + "}\n", true},
		{bulkCall("/_bulk", ""), `{"index":{"_index":"shop","_id":"2"}}` + "\n" + `{"key":` + shop + "}\n", false},
		{bulkCall("/_bulk", ""), `{"index":{"_index":"shop"}}` + "\n" + `{"key":` + shop + "}\n", false},
		{bulkCall("/_bulk", ""), `{"update":{"_index":"shop","_id":"1"}}` + "\n" + `{"doc":{"key":` + shop + "}}\n", true},
	} {
		o := exchange(t, e, c.call, strings.NewReader(c.in), up)
		if c.ok {
			if o.err != nil || !strings.Contains(o.up, strings.Trim(tokenText.FindString(c.in), `"`)) {
				t.Errorf("%s %s: %v", c.call.Path, c.in, o.err)
			}
			continue
		}
		if o.answered {
			_, entries := readReply(t, o.reply)
			if len(entries) != 1 || entries[0].Error.Type != "esproxy_misplaced_token" {
				t.Errorf("%s %s: %s", c.call.Path, c.in, o.reply)
			}
			continue
		}
		wantFault(t, o.err, "esproxy_misplaced_token", "")
	}
	if crypto.opened == 0 {
		t.Error("nothing was opened")
	}
}

// A conflict with another writer is dealt with as often as the client asked: look-up, sealing and write again.
func TestSingleUpdateConflicts(t *testing.T) {
	for _, c := range []struct {
		query    string
		failures int // conflicts before it works
		rounds   int
		status   bool // it works in the end
	}{
		{"", 1, 1, false}, {"retry_on_conflict=1", 1, 2, true}, {"retry_on_conflict=2", 3, 3, false}, {"retry_on_conflict=0", 1, 1, false},
		{"retry_on_conflict=1000000", 150, maxRetries + 1, false}, {"retry_on_conflict=5&if_seq_no=7&if_primary_term=3", 1, 1, false},
	} {
		e, cluster, _ := fakeEngine(t)
		storeUser(t, e, cluster, "user", "1", ana, 7)
		rounds := 0
		o := exchange(t, e, updateCall("/user/_update/1", c.query), strings.NewReader(`{"doc":{"card":2}}`), func(target Target, up []byte) (int, string) {
			seq := 6 + rounds + 1
			if want := fmt.Sprintf("if_seq_no=%d&if_primary_term=3", seq); target.Query != want || !strings.Contains(string(up), "esp1.") {
				t.Errorf("%s, round %d: %+v", c.query, rounds, target)
			}
			rounds++
			if rounds <= c.failures {
				who := []string{"Bob", "Ana"}[(rounds+1)%2]
				storeUser(t, e, cluster, "user", "1", `{"username":"`+who+`","card":1}`, int64(7+rounds))
				return 409, `{"error":{"type":"version_conflict_engine_exception"},"status":409}`
			}
			return 200, `{"result":"updated"}`
		})
		if o.err != nil || rounds != c.rounds || c.status != (o.reply == `{"result":"updated"}`) {
			t.Errorf("%s: %v after %d rounds: %s", c.query, o.err, rounds, o.reply)
		}
		if _, _, who, _, _ := readFakeToken(strings.Trim(tokenText.FindString(o.up), `"`)); who != []string{"Ana", "Bob"}[(rounds-1)%2] {
			t.Errorf("%s: sealed for %s in round %d", c.query, who, rounds)
		}
	}
	// A document that appears between look-up and create, and one that vanishes.
	e, cluster, _ := fakeEngine(t)
	var paths []string
	o := exchange(t, e, updateCall("/user/_update/1", "retry_on_conflict=3"), strings.NewReader(`{"doc":{"username":"Ana","card":2},"doc_as_upsert":true}`), func(target Target, _ []byte) (int, string) {
		paths = append(paths, target.Path+"?"+target.Query)
		switch len(paths) {
		case 1:
			storeUser(t, e, cluster, "user", "1", ana, 7)
			return 409, `{}`
		case 2:
			delete(cluster.docs, Ref{"user", "1", ""})
			return 409, `{}`
		}
		return 201, `{"result":"created"}`
	})
	if want := "/user/_create/1? /user/_update/1?if_seq_no=7&if_primary_term=3 /user/_create/1?"; o.err != nil || strings.Join(paths, " ") != want {
		t.Errorf("%v: %v", o.err, paths)
	}
	// What needs no look-up is not repeated by the proxy: Elasticsearch does it.
	rounds := 0
	exchange(t, e, updateCall("/user/_update/1", "retry_on_conflict=3"), strings.NewReader(`{"doc":{"city":2}}`), func(Target, []byte) (int, string) { rounds++; return 409, `{}` })
	if rounds != 1 {
		t.Errorf("%d rounds", rounds)
	}
}

// Elasticsearch refuses a whole bulk for some updates; here it is the item's own error.
func TestBulkUpdateItems(t *testing.T) {
	e, cluster, _ := fakeEngine(t)
	storeUser(t, e, cluster, "user", "1", ana, 7)
	for _, c := range []struct {
		meta, src string
		status    int
		up        string
	}{
		{`"_id":"1"`, `{"doc":{"card":2}}`, 201, `{"update":{"_index":"user","_id":"1","if_seq_no":7,"if_primary_term":3}}` + "\n" + `{"doc":{"card":<Ana>2}}`},
		{`"_id":"1","retry_on_conflict":2`, `{"doc":{"card":2},"upsert":{"x":1}}`, 201, `{"update":{"_index":"user","_id":"1","if_seq_no":7,"if_primary_term":3}}` + "\n" + `{"doc":{"card":<Ana>2}}`},
		{`"_id":"2"`, `{"doc":{"card":2},"upsert":{"username":"Bob","card":3}}`, 201, `{"create":{"_index":"user","_id":"2"}}` + "\n" + `{"username":"Bob","card":<Bob>3}`},
		{`"_id":"1","if_seq_no":7,"if_primary_term":3`, `{"doc":{"card":2}}`, 201, `{"update":{"_index":"user","_id":"1","if_seq_no":7,"if_primary_term":3}}` + "\n" + `{"doc":{"card":<Ana>2}}`},
		{`"_id":"1","if_seq_no":8,"if_primary_term":3`, `{"doc":{"card":2}}`, 409, ``},
		{`"_id":"2","if_seq_no":8,"if_primary_term":3`, `{"doc":{"username":"Bob","card":2},"doc_as_upsert":true}`, 400, ``},
		{`"_id":"1","if_seq_no":8,"if_primary_term":3`, `{"doc":{"city":2},"upsert":{}}`, 400, ``},
		{`"_id":"2"`, `{"doc":{"card":2}}`, 404, ``},
		{`"routing":"r"`, `{"doc":{"card":2}}`, 400, ``},
		{`"_id":"1"`, `{"doc":{"card":2}}{}`, 400, ``},
		{`"_id":"1"`, `{"script":"x"}`, 400, ``},
		{`"_id":"1"`, `{"doc":{"card":2},"if_seq_no":7}`, 400, ``},
	} {
		in := `{"update":{"_index":"user",` + c.meta + "}}\n" + c.src + "\n"
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(in), func(_ Target, up []byte) (int, string) {
			reply, _ := bulkReply(t, nil, up, "")
			return 200, reply
		})
		if o.err != nil || o.replyErr != nil {
			t.Errorf("%s: %v, %v", in, o.err, o.replyErr)
			continue
		}
		_, entries := readReply(t, o.reply)
		got := tokenText.ReplaceAllStringFunc(strings.TrimSpace(o.up), func(token string) string {
			_, _, who, value, _ := readFakeToken(strings.Trim(token, `"`))
			return "<" + who + ">" + value
		})
		if len(entries) != 1 || entries[0].Status != c.status || entries[0].kind != "update" || got != c.up {
			t.Errorf("%s: %+v\n got %s\nwant %s", in, entries, got, c.up)
		}
	}
}

func FuzzUpdate(f *testing.F) {
	for _, s := range []string{`{"doc":{"card":"canary"},"upsert":{"username":"Ana","card":[1]}}`, `{"doc":{"username":"Ana","card":"canary"},"doc_as_upsert":true,"detect_noop":false,"_source":["card"]}`, `{"d\u006fc":{"pay":{"iban":1}} }`, `{"script":{"source":"x"}}`} {
		f.Add([]byte(s))
	}
	e, _, _ := fakeEngine(f)
	target := newTarget(e.Policy.Rules[:1], false)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newDocScanner(e.Sealer.IsToken)
		var u updateBody
		if err := s.update(b, target, &u); err != nil {
			var fault *Fault
			if !errors.As(err, new(*syntaxError)) && !errors.Is(err, errShort) && !errors.Is(err, errReservedName) && !errors.Is(err, errTokenElsewhere) && !errors.As(err, &fault) {
				t.Fatalf("%q: %v", b, err)
			}
			return
		}
		if err := strictJSON(b); err != nil {
			t.Fatalf("accepted %q: %v", b, err)
		}
		if u.check(target) != nil {
			return
		}
		seal := sealing{eng: e}
		defer seal.close()
		for _, form := range []updateForm{formUpdate, formGuarded, formCreate} {
			if form == formCreate && !u.upsert.there() && !u.docAsUpsert {
				continue
			}
			out, err := seal.appendUpdate(nil, &u, target, form, subjects{[]byte("Ana")}, nil)
			if err != nil {
				continue
			}
			var v map[string]any
			if err := json.Unmarshal(out, &v); err != nil {
				t.Fatalf("%q became %q: %v", b, out, err)
			}
			docs := []any{v}
			if form != formCreate {
				docs = []any{v["doc"], v["upsert"]}
				if form == formGuarded && (v["upsert"] != nil || v["doc_as_upsert"] != nil) {
					t.Fatalf("%q became %q", b, out)
				}
			}
			for _, doc := range docs {
				var at []any
				splitProtected(doc, "", &at)
				for _, x := range at {
					if token, ok := x.(string); !ok || !strings.HasPrefix(token, "esp1.") {
						t.Fatalf("%q became %q", b, out)
					}
				}
			}
		}
	})
}

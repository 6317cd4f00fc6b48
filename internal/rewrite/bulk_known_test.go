package rewrite

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// wholeIn gives a document of all protected fields.
func wholeIn(who string) string {
	return fmt.Sprintf(`{"username":%q,"card":"c","ccv":"v","items":[{"card":"i"}],"pay":{"iban":"b"}}`, who)
}

// knownItem is one item of the test of what a bulk knows of its own documents.
type knownItem struct {
	kind, id, routing string
	doc, upsert       string
	asUpsert          bool
	seq               int64 // -1: no condition
}

func (k *knownItem) text() string {
	meta := fmt.Sprintf(`{"%s":{"_index":"user","_id":"%s"`, k.kind, k.id)
	if k.routing != "" {
		meta += `,"routing":"` + k.routing + `"`
	}
	if k.seq >= 0 {
		meta += fmt.Sprintf(`,"if_seq_no":%d,"if_primary_term":1`, k.seq)
	}
	meta += "}}\n"
	switch {
	case k.kind == "delete":
		return meta
	case k.kind != "update":
		return meta + k.doc + "\n"
	case k.asUpsert:
		return meta + `{"doc":` + k.doc + `,"doc_as_upsert":true}` + "\n"
	case k.upsert != "":
		return meta + `{"doc":` + k.doc + `,"upsert":` + k.upsert + "}\n"
	}
	return meta + `{"doc":` + k.doc + "}\n"
}

func drawDoc(t *rapid.T, label string) string {
	var members []string
	add := func(name string, values ...string) {
		if rapid.Bool().Draw(t, label+" "+name) {
			members = append(members, `"`+name+`":`+rapid.SampledFrom(values).Draw(t, label+" value"))
		}
	}
	add("username", `"Ana"`, `"Bob"`)
	add("card", `"1"`, `"2"`, `null`)
	add("ccv", `3`)
	add("city", `"Lima"`, `"Rome"`)
	if rapid.IntRange(0, 4).Draw(t, label+" whole") == 0 {
		return wholeIn(rapid.SampledFrom([]string{"Ana", "Bob"}).Draw(t, label+" who"))
	}
	return "{" + strings.Join(members, ",") + "}"
}

func hasProtected(doc map[string]any) bool {
	found := false
	var walk func(v any, path string)
	walk = func(v any, path string) {
		if protectedPath(path) {
			found = found || v != nil
			return
		}
		switch v := v.(type) {
		case map[string]any:
			for name, x := range v {
				walk(x, strings.TrimPrefix(path+"."+name, "."))
			}
		case []any:
			for _, x := range v {
				walk(x, path)
			}
		}
	}
	walk(doc, "")
	return found
}

// Within one bulk, items build on each other. A model server carries out what goes up; another one what the client sent,
// without what was refused. In the end both hold the same, every value sealed for its document, and each refusal
// has its reason.
func TestBulkKnown(outer *testing.T) {
	counts := map[string]int{}
	rapid.Check(outer, func(t *rapid.T) {
		e, cluster, _ := fakeEngine(outer)
		sealed, plain := &modelES{}, &modelES{}
		// What is stored before.
		for _, id := range []string{"1", "2"} {
			if !rapid.Bool().Draw(t, "stored") {
				continue
			}
			doc := drawDoc(t, "stored")
			out, err := sealWhole(e, "user", doc)
			if err != nil {
				continue
			}
			sealed.put(Ref{"user", id, ""}, decodeObject(t, []byte(out)))
			plain.put(Ref{"user", id, ""}, decodeObject(t, []byte(doc)))
		}
		before := sealed.stored(t)
		cluster.docs = before
		var items []knownItem
		var body strings.Builder
		for range rapid.IntRange(1, 8).Draw(t, "items") {
			k := knownItem{
				kind: rapid.SampledFrom([]string{"index", "create", "update", "update", "update", "delete"}).Draw(t, "kind"),
				id:   rapid.SampledFrom([]string{"1", "2"}).Draw(t, "id"), seq: -1,
				routing: rapid.SampledFrom([]string{"", "", "", "", "r"}).Draw(t, "routing"),
				doc:     drawDoc(t, "doc"),
			}
			how := rapid.IntRange(0, 5).Draw(t, "how")
			if k.kind == "update" && how == 0 {
				k.asUpsert = true
			} else if k.kind == "update" && how == 1 {
				k.upsert = drawDoc(t, "upsert")
			} else if how == 2 && k.kind != "create" {
				k.seq = int64(rapid.IntRange(1, 2).Draw(t, "seq"))
			}
			items = append(items, k)
			body.WriteString(k.text())
			if rapid.IntRange(0, 9).Draw(t, "filler") == 0 {
				items = append(items, knownItem{kind: "delete", id: "filler"})
				body.WriteString("{\"delete\":{\"_index\":\"plain\",\"_id\":\"filler\"}}" + strings.Repeat(" ", maxActionLine-100) + "\n")
			}
		}
		var up []modelAction
		call := bulkCall("/_bulk", "")
		o := exchange(t, e, call, strings.NewReader(body.String()), func(_ Target, raw []byte) (int, string) {
			up = readBulk(t, raw, "")
			reply, _ := bulkReply(t, nil, raw, "")
			return 200, reply
		})
		if o.err != nil || o.replyErr != nil {
			t.Fatalf("%v, %v", o.err, o.replyErr)
		}
		_, entries := readReply(t, o.reply)
		if len(entries) != len(items) {
			t.Fatalf("%d entries for %d items", len(entries), len(items))
		}
		client := readBulk(t, []byte(body.String()), "")
		touched := map[Ref]bool{} // by an item of this bulk
		// What an item may find of a document, when each item before it may or may not have failed.
		who := map[Ref]map[any]bool{}
		for ref, d := range plain.docs {
			who[ref] = map[any]bool{d.source["username"]: true}
		}
		meet := func(ref Ref, subject any) {
			if who[ref] == nil {
				who[ref] = map[any]bool{"missing": true}
			}
			who[ref][subject] = true
		}
		for i := range items {
			a := client[i]
			ref := Ref{a.index, a.id, a.routing}
			cur := plain.docs[ref]
			if entries[i].Error != nil { // the server's own replies are all 201 here
				// Refused by the proxy: it must have a reason.
				status, kind := entries[i].Status, entries[i].Error.Type
				counts["refused "+kind]++
				if !mayRefuse(&a, cur, status, kind, touched[ref], len(who[ref]) > 1) {
					t.Fatalf("item %d is refused: %d %s\n%s", i, status, kind, short(body.String()))
				}
				continue
			}
			if len(up) == 0 {
				t.Fatalf("item %d was not refused and did not go up", i)
			}
			sent := up[0]
			up = up[1:]
			got := sealed.do(t, &sent)
			if got == 409 || got == 404 {
				trial := plain.copy()
				if want := trial.do(t, &a); want != got {
					if len(who[ref]) < 2 {
						t.Fatalf("item %d went up as %s and got %d, not %d\n%s", i, sent.line, got, want, short(body.String()))
					}
					counts[fmt.Sprint("unsure ", got)]++
					continue
				}
			}
			if want := plain.do(t, &a); want != got {
				t.Fatalf("item %d went up as %s and got %d, not %d\n%s", i, sent.line, got, want, short(body.String()))
			}
			counts[fmt.Sprint("done ", a.kind, " ", got)]++
			touched[ref] = true
			if a.conditional {
				meet(ref, "condition")
			}
			switch a.kind {
			case "delete":
				meet(ref, "missing")
			case "update":
				for _, part := range []string{"doc", "upsert"} {
					if doc, ok := a.update[part].(map[string]any); ok && (part == "upsert" || doc["username"] != nil || a.update["doc_as_upsert"] != nil) {
						meet(ref, doc["username"])
					}
				}
			default:
				meet(ref, a.doc["username"])
			}
		}
		if len(up) > 0 {
			t.Fatalf("more went up than there are items: %v", up)
		}
		for ref, d := range sealed.docs {
			if ref.Index != "user" {
				continue
			}
			want := plain.docs[ref]
			if want == nil || !reflect.DeepEqual(openModel(t, d.source), want.source) {
				t.Fatalf("document %v holds %v, not %v\n%s", ref, d.source, want, short(body.String()))
			}
		}
		if len(sealed.docs) != len(plain.docs) {
			t.Fatalf("%d documents, not %d\n%s", len(sealed.docs), len(plain.docs), short(body.String()))
		}
	})
	outer.Log(counts)
	for _, key := range []string{"done update 200", "done update 201", "done index 200", "refused esproxy_subject_change", "refused esproxy_subject"} {
		if counts[key] == 0 {
			outer.Errorf("never seen: %s", key)
		}
	}
}

// short leaves most of the white space out.
func short(s string) string { return strings.Join(strings.Fields(s), " ") }

// mayRefuse says whether the proxy has a reason to refuse an item. cur is the document that it finds.
func mayRefuse(a *modelAction, cur *modelDoc, status int, kind string, touched, unsure bool) bool {
	needs := func(doc map[string]any) bool { return hasProtected(doc) && doc["username"] == nil }
	if a.kind != "update" {
		return kind == "esproxy_subject" && needs(a.doc)
	}
	doc := a.update["doc"].(map[string]any)
	upsert, _ := a.update["upsert"].(map[string]any)
	switch kind {
	case "esproxy_subject":
		subject := doc["username"]
		if subject == nil && cur != nil {
			subject = cur.source["username"]
		}
		return needs(upsert) || hasProtected(doc) && subject == nil || unsure && hasProtected(doc)
	case "document_missing_exception":
		return cur == nil && upsert == nil && a.update["doc_as_upsert"] == nil
	case "esproxy_subject_change":
		if doc["username"] == nil || cur != nil && doc["username"] == cur.source["username"] && !unsure {
			return false
		}
		if touched || unsure {
			return true // every field of the rule counts
		}
		for _, name := range []string{"card", "ccv", "items", "pay"} {
			if _, sent := doc[name]; cur.source[name] != nil && !sent {
				return true
			}
		}
		return false
	case "version_conflict_engine_exception":
		return a.conditional && (cur == nil || cur.seq != a.seqNo)
	case "esproxy_ambiguous_update":
		return unsure
	case "esproxy_bad_document":
		return upsert != nil && a.update["doc_as_upsert"] != nil
	}
	return false
}

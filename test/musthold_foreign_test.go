package test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// TestForeignTokens puts one person's sealed value where it does not belong, by writing around the proxy, and reads it
// with a full grant in every way: it must stay sealed, while what is in its place beside it opens.
func TestForeignTokens(t *testing.T) {
	t.Parallel()
	s := start(t, config{})
	s.must(s.do("PUT", "/$Puser/_doc/ana", `{"username":"Ana","credit_card_num":"ana-card","payment":{"cards":[{"pan":"ana-pan"}]}}`), 201)
	s.must(s.do("PUT", "/$Puser/_doc/bob", `{"username":"Bob","credit_card_num":"bob-card","credit_card_ccv":"bob-ccv","payment":{"cards":[{"pan":"bob-pan"}]}}`), 201)
	source := func(id string) gjson.Result {
		return s.must(s.direct("GET", "/$Puser/_doc/"+id, ""), 200).json("_source")
	}
	ana, bob := source("ana"), source("bob")
	card, pan := ana.Get("credit_card_num").Raw, ana.Get("payment.cards.0.pan").Raw
	shaped := fmt.Sprintf(`{"_index":"$Puser","_id":"ana","found":true,"_source":{"username":"Ana","credit_card_num":%s},"fields":{"username":["Ana"],"credit_card_num":[%[1]s]}}`, card)
	reply := fmt.Sprintf(`"found":true,"hits":{"total":1,"hits":[%s]},"docs":[%[1]s],"get":%[1]s,"inner_hits":{"x":{"hits":{"hits":[%[1]s]}}},"responses":[{"hits":{"hits":[%[1]s]}}],"fields":{"credit_card_num":[%s]}`, shaped, card)
	docs := map[string]string{
		"copied":    fmt.Sprintf(`{"username":"Bob","credit_card_num":%s,"credit_card_ccv":%s,"payment":{"cards":[{"pan":%s},{"pan":%s}]}}`, card, bob.Get("credit_card_ccv").Raw, pan, bob.Get("payment.cards.0.pan").Raw),
		"moved":     fmt.Sprintf(`{"username":"Ana","credit_card_ccv":%s,"cuenta_numero":%s}`, card, pan),
		"shaped":    fmt.Sprintf(`{"username":"Bob",%s,"credit_card_ccv":%s}`, reply, bob.Get("credit_card_ccv").Raw),
		"no-name":   fmt.Sprintf(`{"credit_card_num":%s,"credit_card_ccv":%s}`, card, bob.Get("credit_card_ccv").Raw),
		"two":       fmt.Sprintf(`{"username":["Bob","Ana"],"credit_card_num":%s}`, card),
		"elsewhere": fmt.Sprintf(`{"username":"Ana","note":%s,"x":{"credit_card_num":%s}}`, card, card),
	}
	for id, doc := range docs {
		for _, index := range []string{"$Puser", "$Pfree"} {
			s.must(s.direct("PUT", "/"+index+"/_doc/"+id, doc), 201)
		}
	}
	s.must(s.direct("PUT", "/$Pfree/_doc/ana", ana.Raw), 201)
	s.must(s.direct("POST", "/$P*/_refresh", ""), 200)

	// closed fails when a value of Ana's is open in a reply that holds none of her own documents of the protected index.
	closed := func(t *testing.T, what string, a answer, opened ...string) {
		t.Helper()
		s.must(a, 200)
		if strings.Contains(a.body, "ana-card") || strings.Contains(a.body, "ana-pan") {
			t.Errorf("%s: a value of Ana's is open:\n%s", what, tail(a.body, 1500))
		}
		for _, want := range opened {
			if !strings.Contains(a.body, want) {
				t.Errorf("%s: %s is not open:\n%s", what, want, tail(a.body, 1500))
			}
		}
	}
	notAna := `"query":{"bool":{"must_not":[{"ids":{"values":["ana"]}}]}}`
	search := func(extra string) string { return `{"size":100,` + notAna + extra + `}` }
	for name, extra := range map[string]string{
		"whole":            "",
		"filtered":         `,"_source":["credit_card_*","payment"]`,
		"filtered by list": `,"_source":{"includes":["*"],"excludes":["username"]}`,
		"one field":        `,"_source":"credit_card_num"`,
	} {
		closed(t, "search, "+name, s.as("full", "POST", "/$Puser/_search", search(extra)), "bob-card")
		closed(t, "search everywhere, "+name, s.as("full", "POST", "/$Puser,$Pfree/_search", search(extra)), "bob-card")
		closed(t, "scroll, "+name, s.as("full", "POST", "/$Puser,$Pfree/_search?scroll=1m", search(extra)), "bob-card")
		closed(t, "search of several, "+name, s.as("full", "POST", "/_msearch", `{"index":"$Puser"}`+"\n"+search(extra)+"\n"+`{"index":"$Pfree"}`+"\n"+search(extra)+"\n"), "bob-card")
	}
	closed(t, "search, filtered in the URL", s.as("full", "POST", "/$Puser/_search?_source_includes=credit_card_num,payment.cards.pan", search("")), "bob-card", "bob-pan")
	closed(t, "search, filtered reply", s.as("full", "POST", "/$Puser/_search?filter_path=hits.hits._source.credit_card_num,hits.hits._index,hits.hits._id", search("")), "bob-card")
	closed(t, "search, all of the free index", s.as("full", "POST", "/$Pfree/_search", `{"size":100}`))
	for id := range docs {
		want := map[string][]string{"copied": {"bob-ccv", "bob-pan"}, "shaped": {"bob-ccv"}}[id]
		closed(t, "get "+id, s.as("full", "GET", "/$Puser/_doc/"+id, ""), want...)
		closed(t, "get filtered "+id, s.as("full", "GET", "/$Puser/_doc/"+id+"?_source_includes=credit_card_num,credit_card_ccv,payment,hits,docs,get", ""), want...)
		closed(t, "source "+id, s.as("full", "GET", "/$Puser/_source/"+id, ""), want...)
		closed(t, "source filtered "+id, s.as("full", "GET", "/$Puser/_source/"+id+"?_source_excludes=username", ""), want...)
		for _, body := range []string{
			`{"ids":["` + id + `"]}`, `{"docs":[{"_id":"` + id + `","_source":["credit_card_*","payment"]}]}`, `{"docs":[{"_id":"` + id + `","_source":{"exclude":["username"]}}]}`,
		} {
			closed(t, "mget "+id+" "+body, s.as("full", "POST", "/$Puser/_mget", body), want...)
		}
		closed(t, "get free "+id, s.as("full", "GET", "/$Pfree/_doc/"+id, ""))
		closed(t, "source free "+id, s.as("full", "GET", "/$Pfree/_source/"+id, ""))
	}
	closed(t, "her own, in the free index", s.as("full", "GET", "/$Pfree/_doc/ana", ""))
	// An update that answers with _source: Bob's document with her value.
	closed(t, "update", s.as("full", "POST", "/$Puser/_update/copied?_source=true", `{"doc":{"n":1}}`), "bob-ccv")
	closed(t, "update, filtered", s.as("full", "POST", "/$Puser/_update/copied?_source_includes=credit_card_num,credit_card_ccv", `{"doc":{"n":2}}`), "bob-ccv")

	t.Run("runtime field", func(t *testing.T) {
		needReal(t)
		const mapping = `{"runtime":{"who":{"type":"keyword","script":{"source":"emit('Ana')"}}}}`
		if a := s.direct("PUT", "/$Pprobe", `{"mappings":`+mapping+`}`); a.status == 400 && strings.Contains(a.body, "painless") {
			t.Log("this server has no painless")
			return
		}
		// A runtime field of the subject's name shadows it in fields and queries.
		s.must(s.direct("PUT", "/$Puser/_mapping", `{"runtime":{"username":{"type":"keyword","script":{"source":"emit('Ana')"}}}}`), 200)
		for _, extra := range []string{
			`,"fields":["username","credit_card_num","payment.cards.pan"]`,
			`,"fields":["username","credit_card_num"],"_source":false`,
			`,"fields":["*"],"_source":["credit_card_num"]`,
		} {
			body := `{"size":100,"query":{"ids":{"values":["copied","bob"]}}` + extra + `}`
			a := s.as("full", "POST", "/$Puser/_search", body)
			closed(t, "fields "+extra, a, "bob-card")
		}
		// The same in the request; refusing it is right too.
		for _, field := range []string{`"username":{"type":"keyword","script":{"source":"emit('Ana')"}}`, `"shadow":{"type":"keyword","script":{"source":"emit(params._source.note)"}}`} {
			a := s.as("full", "POST", "/$Puser/_search", `{"query":{"ids":{"values":["copied","elsewhere"]}},"fields":["*"],"runtime_mappings":{`+field+`}}`)
			if a.status == 400 || a.status == 403 {
				if err := asESError(a); err != nil {
					t.Error(err)
				}
				continue
			}
			closed(t, "runtime_mappings", a)
		}
		s.must(s.direct("PUT", "/$Puser/_mapping", `{"runtime":{"username":null}}`), 200)
	})
	t.Run("nested", func(t *testing.T) {
		needReal(t)
		s.must(s.do("PUT", "/$Puser-nested", `{"mappings":{"properties":{"username":{"type":"keyword"},"payment":{"properties":{"cards":{"type":"nested","properties":{"username":{"type":"keyword"},"brand":{"type":"keyword"}}}}}}}}`), 200)
		s.must(s.do("PUT", "/$Puser-nested/_doc/own", `{"username":"Bob","payment":{"cards":[{"username":"Ana","brand":"v","pan":"bob-nested"}]}}`), 201)
		s.must(s.direct("PUT", "/$Puser-nested/_doc/foreign", fmt.Sprintf(`{"username":"Bob","payment":{"cards":[{"username":"Ana","brand":"v","pan":%s,"credit_card_num":%s}]}}`, pan, card)), 201)
		s.must(s.direct("PUT", "/$Puser-nested/_doc/nameless", fmt.Sprintf(`{"payment":{"cards":[{"username":"Ana","brand":"v","pan":%s}]}}`, pan)), 201)
		s.must(s.direct("POST", "/$Puser-nested/_refresh", ""), 200)
		inner := func(inner, extra string) string {
			return `{"query":{"nested":{"path":"payment.cards","query":{"term":{"payment.cards.brand":"v"}},"inner_hits":{` + inner + `}}}` + extra + `}`
		}
		for _, body := range []string{
			inner("", ""), inner("", `,"_source":false`), inner(`"_source":["payment.cards.pan"]`, `,"_source":["username"]`), inner(`"_source":["payment.cards.pan","payment.cards.username"]`, `,"_source":false`),
			inner(`"_source":false,"fields":["payment.cards.pan","payment.cards.username"]`, ""), inner("", `,"fields":[{"field":"payment.cards.*"}]`),
		} {
			closed(t, body, s.as("full", "POST", "/$Puser-nested/_search", body))
		}
		closed(t, "inner hits", s.as("full", "POST", "/$Puser-nested/_search", inner("", "")), "bob-nested")
		a := s.must(s.as("full", "POST", "/$Puser-nested/_search", inner("", `,"_source":false`)), 200)
		if !strings.Contains(a.body, "bob-nested") {
			t.Errorf("an inner hit's own value stays sealed:\n%s", tail(a.body, 1500))
		}
		top := `{"size":0,"aggs":{"n":{"nested":{"path":"payment.cards"},"aggs":{"t":{"top_hits":{"_source":["payment.cards.pan","payment.cards.username"]}}}}}}`
		if a := s.as("full", "POST", "/$Puser-nested/_search", top); a.status == 200 {
			closed(t, "top hits", a)
		} else if err := asESError(a); err != nil {
			t.Error(err)
		}
	})
}

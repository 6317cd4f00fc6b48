package cluster

import (
	"slices"
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/policy"
)

func doctorRule(t *testing.T) *policy.Rule {
	t.Helper()
	p, err := policy.Parse("fields.yaml", []byte("version: 1\nrules:\n  - name: r\n    indices: [\"a\"]\n    fields:\n      card: {mode: encrypt}\n      pay.iban: {mode: encrypt}\n      pin: {mode: drop}\n"))
	if err != nil {
		t.Fatal(err)
	}
	return p.Rules[0]
}

// TestEachProtected finds values in all spellings in which the server reads them.
func TestEachProtected(t *testing.T) {
	rule := doctorRule(t)
	for doc, want := range map[string][]string{
		`{"card":1}`:                              {"card=1"},
		`{"card.":1,"card..":2}`:                  {"card=1", "card=2"},
		`{"card":{"x":1}}`:                        {`card={"x":1}`},
		`{"card.x":1}`:                            {"card={}"},
		`{"pay":{"iban":"a"},"pay.iban":"b"}`:     {`pay.iban="a"`, `pay.iban="b"`},
		`{"pay":[[{"iban":["a",null]}],{"x":1}]}`: {`pay.iban=["a",null]`},
		`{"p\u0061y.":{"\u0069ban":1}}`:           {"pay.iban=1"},
		`{"x":{"card":1},"Card":1,"pins":1}`:      nil,
		`{"pin":null}`:                            {"pin=null"},
	} {
		var got []string
		eachProtected(gjson.Parse(doc), []*policy.Rule{rule}, func(f *policy.Field, v gjson.Result) { got = append(got, f.Path+"="+v.Raw) })
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", doc, got, want)
		}
	}
}

func TestTally(t *testing.T) {
	rule := doctorRule(t)
	x := &Examination{Describe: func(token []byte) (Key, bool) {
		id, ok := strings.CutPrefix(string(token), "esp1.")
		return Key{ID: id, Suite: "eax"}, ok
	}}
	tallies := map[*policy.Field]*tally{}
	for _, f := range rule.Fields {
		tallies[f] = &tally{keys: map[Key]int64{}}
	}
	for _, doc := range []string{
		`{"card":"esp1.k1"}`, `{"card":["esp1.k1","esp1.k2","esp1.k1"]}`, `{"card":null}`, `{"card":[]}`, `{}`, `{"card":"plain"}`, `{"card":["esp1.k1",7]}`,
		`{"card":{"a":"esp1.k1"}}`, `{"pin":"esp1.k1"}`, `{"pin":null}`,
	} {
		x.tally(rule, tallies, gjson.Parse(`{"_id":"7","_source":`+doc+`}`))
	}
	card, pin := tallies[rule.Fields[0]], tallies[rule.Fields[2]]
	if card.with != 5 || card.plain != 3 || card.keys[Key{ID: "k1", Suite: "eax"}] != 3 || card.keys[Key{ID: "k2", Suite: "eax"}] != 1 || len(card.example) != 3 {
		t.Errorf("card: %+v", card)
	}
	if pin.with != 1 || pin.plain != 1 {
		t.Errorf("pin: %+v", pin)
	}
}

package rewrite

import (
	"errors"
	"reflect"
	"strings"
	"testing"
)

func parseLine(line string) (action, error) {
	s := newDocScanner(func([]byte) bool { return false })
	var a action
	err := s.parseAction([]byte(line), &a)
	a.meta = nil
	return a, err
}

func TestAction(t *testing.T) {
	for line, want := range map[string]action{
		`{"index":{}}`:     {},
		`{"create":{}}`:    {kind: actionCreate},
		`{"update":{}}`:    {kind: actionUpdate},
		`{"delete":{}}`:    {kind: actionDelete},
		"{\"index\":{}}\r": {},
		" {\t\"index\" : { \"_index\" : \"a\" , \"_id\" : \"1\" } } ":                                   {index: "a", id: "1", hasID: true},
		`{"ind\u0065x":{"_\u0069ndex":"us\u0065r","_id":"\n\u00e9\ud83d\ude00"}}`:                       {index: "user", id: "\né😀", hasID: true},
		`{"index":{"_index":7,"_id":1.50}}`:                                                             {index: "7", id: "1.50", hasID: true},
		`{"index":{"_index":true,"_id":false}}`:                                                         {index: "true", id: "false", hasID: true},
		`{"index":{"_index":null,"_id":null,"routing":null}}`:                                           {},
		`{"index":{"_id":""}}`:                                                                          {hasID: true},
		`{"index":{"op_type":"create","_id":"1"}}`:                                                      {kind: actionCreate, id: "1", hasID: true},
		`{"index":{"op_type":"index"}}`:                                                                 {},
		`{"index":{"op_type":"anything"}}`:                                                              {}, // still replaces the document
		`{"index":{"op_type":null}}`:                                                                    {},
		`{"create":{"op_type":"index"}}`:                                                                {kind: actionCreate},
		`{"delete":{"op_type":"create"}}`:                                                               {kind: actionDelete},
		`{"index":{"routing":"r","pipeline":"p","dynamic_templates":{"a.b":"x"},"require_alias":true}}`: {routing: "r"},
		`{"index":{"if_seq_no":5,"if_primary_term":"2"}}`:                                               {guarded: true, seqNo: 5, term: 2},
		`{"index":{"if_seq_no":null,"if_primary_term":null,"version":null,"version_type":null}}`:        {},
		`{"index":{"version":3,"version_type":"external"}}`:                                             {version: true},
		`{"update":{"retry_on_conflict":3}}`:                                                            {kind: actionUpdate, retry: 3},
		`{"update":{"retry_on_conflict":"3"}}`:                                                          {kind: actionUpdate, retry: 3},
		`{"update":{"retry_on_conflict":-1}}`:                                                           {kind: actionUpdate},
		`{"update":{"retry_on_conflict":null}}`:                                                         {kind: actionUpdate},
		`{"update":{"retry_on_conflict":1000000}}`:                                                      {kind: actionUpdate, retry: maxRetries},
		`{"update":{"_source":true}}`:                                                                   {kind: actionUpdate, source: true},
		`{"update":{"_source":["a"]}}`:                                                                  {kind: actionUpdate, source: true},
		`{"update":{"_source":{"includes":"a"}}}`:                                                       {kind: actionUpdate, source: true},
		`{"update":{"_source":false}}`:                                                                  {kind: actionUpdate},
		`{"update":{"_source":null}}`:                                                                   {kind: actionUpdate},
		`{"index":{"_id":"esp1.AAAA","esproxy_x":"esp1.AAAA"}}`:                                         {id: "esp1.AAAA", hasID: true},
	} {
		got, err := parseLine(line)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", line, got, err, want)
		}
	}
}

func TestActionRefuses(t *testing.T) {
	for line, words := range map[string]string{
		``: "expected an object", `[]`: "expected an object", `"index"`: "expected an object", "\xEF\xBB\xBF{\"index\":{}}": "expected an object",
		`{}`: "member name", `{"index"`: "unexpected end", `{"index":{}`: "unexpected end", `{"index":{"_id":"1"`: "unexpected end", `{"index":`: "expected an object",
		`{"index":{}}{"index":{}}`: "after the end", `{"index":{}} x`: "after the end", `{"index":{}}}`: "after the end", `{"index":{}},`: "after the end",
		`{"index":{},"create":{}}`: "more than one action", `{"index":{},"_id":"1"}`: "more than one action", `{"index":{},}`: "more than one action",
		`{"Index":{}}`: "none of", `{"upsert":{}}`: "none of", `{"index ":{}}`: "none of", `{"":{}}`: "empty part", `{"index.":{}}`: "ends with a dot",
		`{"index":null}`: "expected an object", `{"index":[]}`: "expected an object", `{"index":"x"}`: "expected an object",
		`{"index":{"_id":"1","_id":"2"}}`: "twice", `{"index":{"_index":"a","_inde\u0078":"b"}}`: "twice",
		`{"index":{"_id":{"a":1}}}`: "simple value", `{"index":{"_index":["a"]}}`: "simple value", `{"index":{"routing":[1]}}`: "simple value",
		`{"index":{"if_seq_no":"x"}}`: "whole number", `{"index":{"if_seq_no":1.5}}`: "whole number", `{"update":{"retry_on_conflict":true}}`: "whole number",
		`{/* */"index":{}}`: "member name", `{"index":{"_id":"1"/* */}}`: "comma or }", `// {"index":{}}`: "expected an object",
		"{\"index\":{\"_index\":\"\xC1\xA3\"}}": "invalid UTF-8", `{"index":{"_id":"\ud800"}}`: "lone surrogate", `{"index":{"_index":"a\udc00"}}`: "lone surrogate",
		`{"index":{"routing":"\ud800"}}`: "lone surrogate", `{"index":{"_\ud800":1}}`: "lone surrogate",
		`{"index":{"_id":01}}`: "", `{"index":{"_id":'1'}}`: "expected a value", `{'index':{}}`: "member name", `{index:{}}`: "member name",
	} {
		_, err := parseLine(line)
		var s *syntaxError
		if err == nil || !errors.As(err, &s) && !errors.Is(err, errShort) || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: got %v, want %q", line, err, words)
		}
	}
}

// A name that comes twice is found however many names an action has.
func TestActionManyNames(t *testing.T) {
	for _, n := range []int{1, 17, 64, 65, 500} {
		var b strings.Builder
		for i := range n {
			b.WriteString(`"x` + strings.Repeat("y", i) + `":1,`)
		}
		if _, err := parseLine(`{"index":{` + b.String() + `"_id":1}}`); err != nil {
			t.Errorf("%d names: %v", n, err)
		}
		if _, err := parseLine(`{"index":{"_id":2,` + b.String() + `"_id":1}}`); err == nil {
			t.Errorf("%d names: one is there twice", n)
		}
	}
}

func TestUpdateActionForms(t *testing.T) {
	was := &before{seq: 7, term: 2}
	for _, c := range []struct{ in, guarded, created string }{
		{`{"update":{}}`, `{"update":{"if_seq_no":7,"if_primary_term":2}}`, `{"create":{}}`},
		{` { "update" : { "_id" : "\u0031" , "_index":"user"} } ` + "\r", `{"update":{"_id":"\u0031","_index":"user","if_seq_no":7,"if_primary_term":2}}`, `{"create":{"_id":"\u0031","_index":"user"}}`},
		{`{"\u0075pdate":{"_id":1,"retry_on_conflict":3,"_source":["a"],"routing":"r"}}`, `{"update":{"_id":1,"_source":["a"],"routing":"r","if_seq_no":7,"if_primary_term":2}}`, `{"create":{"_id":1,"routing":"r"}}`},
		{`{"update":{"if_seq_no":7,"if_primary_term":2,"_id":1,"require_alias":true}}`, `{"update":{"_id":1,"require_alias":true,"if_seq_no":7,"if_primary_term":2}}`, `{"create":{"_id":1,"require_alias":true}}`},
		{`{"update":{"retr\u0079_on_conflict":3,"_id":1}}`, `{"update":{"_id":1,"if_seq_no":7,"if_primary_term":2}}`, `{"create":{"_id":1}}`},
	} {
		s := newDocScanner(func([]byte) bool { return false })
		var a action
		if err := s.parseAction([]byte(c.in), &a); err != nil {
			t.Fatal(err)
		}
		for form, want := range map[updateForm]string{formUpdate: c.in, formBare: c.in, formGuarded: c.guarded, formCreate: c.created} {
			if got := string(a.appendUpdateAction(nil, []byte(c.in), form, was)); got != want {
				t.Errorf("%s, form %d:\n got %s\nwant %s", c.in, form, got, want)
			}
		}
	}
}

func FuzzAction(f *testing.F) {
	for _, s := range []string{`{"index":{"_index":"user","_id":"1"}}`, `{"update":{"_id":1,"retry_on_conflict":"3","_source":["a"]}}` + "\r", `{"create":{"op_type":null,"if_seq_no":5}}`, `{"delete":{"_id":"\ud83d\ude00"}} `, `{"index":{}}{}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		s := newDocScanner(func([]byte) bool { return false })
		var a action
		if err := s.parseAction(line, &a); err != nil {
			if !errors.As(err, new(*syntaxError)) && !errors.Is(err, errShort) {
				t.Fatalf("%q: %v", line, err)
			}
			return
		}
		if err := strictJSON(line); err != nil {
			t.Fatalf("accepted %q: %v", line, err)
		}
		again := action{meta: a.meta}
		if err := s.parseAction(line, &again); err != nil || !reflect.DeepEqual(again, a) {
			t.Fatalf("%q is %+v and then %+v, %v", line, a, again, err)
		}
		if a.kind != actionUpdate {
			return
		}
		for _, form := range []updateForm{formGuarded, formCreate} {
			out := a.appendUpdateAction(nil, line, form, &before{seq: 7, term: 2})
			var b action
			if err := s.parseAction(out, &b); err != nil {
				t.Fatalf("%q became %q: %v", line, out, err)
			}
			if b.index != a.index || b.id != a.id || b.hasID != a.hasID || b.routing != a.routing || b.retry != 0 {
				t.Fatalf("%q became %q", line, out)
			}
			if form == formGuarded && (b.kind != actionUpdate || !b.guarded || b.seqNo != 7 || b.term != 2) || form == formCreate && (b.kind != actionCreate || b.guarded) {
				t.Fatalf("%q became %q", line, out)
			}
		}
	})
}

// TestActionsInTurn reads lines one after another: what was learned of one must not change what another says.
func TestActionsInTurn(t *testing.T) {
	lines := []string{
		`{"index":{}}`, `{"index":{} }`, `{"create":{}}`, `{"index":{"_id":""}}`, `{"index":{"_id":"1"}}`, `{"index":{"_id":"22"}}`, `{"index":{"_id":22}}`, `{"index":{"_id":2}}`, `{"index":{"_id":null}}`,
		`{"index":{"_id":"1"} }`, `{"index":{"_id":"a\"b"}}`, `{"index":{"_id":"a","routing":"b"}}`, `{"index":{"_id":"c","routing":"b"}}`, `{"index":{"_id":"c","routing":"d"}}`, `{"index":{"routing":"d","_id":"e"}}`,
		`{"index":{"_id":"a\\"}}`, `{"index":{"_id":"a\u0062"}}`, "{\"index\":{\"_id\":\"a\tb\"}}", "{\"index\":{\"_id\":\"a\x7fb\"}}", "{\"index\":{\"_id\":\"é\"}}", "{\"index\":{\"_id\":\"\xe9\"}}",
		`{"index":{"_id":"1","_id":"2"}}`, `{"index":{"_id":"1"},"delete":{"_id":"2"}}`, `{"index":{"_id":"1"}}{"index":{"_id":"2"}}`, `{"delete":{"_id":"1"}}`, `{"delete":{"_id":"4"}}`,
		`{"update":{"_id":"1"}}`, `{"update":{"_id":"12"}}`, `{"index":{"_index":"a","_id":"1"}}`, `{"index":{"_index":"a","_id":"3"}}`, `{"index":{"_index":"b","_id":"3"}}`, `{"index":{"_index":"\u0061","_id":"3"}}`,
		`{"index":{"_id":"` + strings.Repeat("x", 2000) + `"}}`, `{"index":{"_index":"` + strings.Repeat("x", 2000) + `","_id":"1"}}`, `{"index":{"_id":"1"}`, `{"index":{"_id":"1}}`, `{"index":{"_id":"1`, `"}}`, ``,
	}
	for _, first := range lines {
		for _, second := range lines {
			s := newDocScanner(func([]byte) bool { return false })
			var a action
			for _, line := range []string{first, second, first, second} {
				err := s.parseAction([]byte(line), &a)
				want, wantErr := parseLine(line)
				got := a
				if len(want.meta) == 0 {
					got.meta = nil
				}
				if !reflect.DeepEqual(err, wantErr) || err == nil && !reflect.DeepEqual(got, want) {
					t.Fatalf("%.80s after %.80s:\n got %+v, %v\nwant %+v, %v", line, first, got, err, want, wantErr)
				}
			}
		}
	}
}

package rewrite

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/esproxy/esproxy/internal/policy"
)

const (
	esqlHead  = `{"took":3,"is_partial":false,"all_columns":[{"name":"card","type":"keyword"}],"columns":[{"name":"card","type":"keyword"},{"name":"n","type":"integer"},{"name":"username","type":"keyword"}],"values":`
	esqlCard  = `"<<users|card|Ana|"4111">>"`
	opensOne  = "opened users.card plain in "
	tableSQL  = `{"columns":[{"name":"username","type":"keyword"},{"name":"c","type":"keyword"},{"name":"card","type":"keyword"},{"name":"items.card","type":"keyword"}],`
	eqlSource = `{"_index":"user","_id":"1","_source":{"card":` + esqlCard + `,"username":"Ana"}}`
	eqlOpened = `{"_index":"user","_id":"1","_source":{"card":"4111","username":"Ana"}}`
)

var tableCases = []replyCase{
	{
		name: "rows of ES|QL", kind: replyTable, rules: "users",
		in:     esqlHead + `[[` + esqlCard + `,1,"Ana"],[` + esqlCard + `,2,"Bob"],[null,3,"Ana"],["plain",4,"Ana"],[[` + esqlCard + `,"<<users|card|Ana|2>>",null],5,"Ana"],[` + esqlCard + `,6,["Ana"]],[` + esqlCard + `,7,null]],"profile":{"values":[[` + esqlCard + `,1,"Ana"]]}}`,
		want:   esqlHead + `[["4111",1,"Ana"],[` + esqlCard + `,2,"Bob"],[null,3,"Ana"],["plain",4,"Ana"],[["4111",2,null],5,"Ana"],[` + esqlCard + `,6,["Ana"]],[` + esqlCard + `,7,null]],"profile":{"values":[[` + esqlCard + `,1,"Ana"]]}}`,
		counts: map[string]int{opensOne: 3, "unopened auth": 1, "unopened no_subject": 2},
	},
	{
		name: "columns of ES|QL", kind: replyTable, rules: "users", form: "columnar",
		in:     esqlHead + `[[` + esqlCard + `,` + esqlCard + `,null,[` + esqlCard + `,"<<users|card|Ana|2>>"],` + esqlCard + `],[1,2,3,4,5],["Ana","Bob","Ana","Ana",["Ana"]],["more"]]}`,
		want:   esqlHead + `[["4111",` + esqlCard + `,null,["4111",2],` + esqlCard + `],[1,2,3,4,5],["Ana","Bob","Ana","Ana",["Ana"]],["more"]]}`,
		counts: map[string]int{opensOne: 3, "unopened auth": 1, "unopened no_subject": 1},
	},
	{
		name: "columns by id", kind: replyTable, form: "unknown",
		in:     strings.ReplaceAll(esqlHead, "card", "items.card") + `[["<<users|items.card|Ana|1>>",null],[1,2],["Ana","Bob"]]}`,
		want:   strings.ReplaceAll(esqlHead, "card", "items.card") + `[[1,null],[1,2],["Ana","Bob"]]}`,
		counts: map[string]int{"opened users.items.card plain in ": 1},
	},
	{
		name: "rows by id, with a path that two rules have", kind: replyTable, form: "unknown",
		in:     `{"id":"x","is_running":false,"columns":[{"name":"username"},{"name":"items.card"},{"name":"card"}],"values":[["Ana","<<users|items.card|Ana|1>>",` + esqlCard + `],[17,"<<users|items.card|17|1>>",null]]}`,
		want:   `{"id":"x","is_running":false,"columns":[{"name":"username"},{"name":"items.card"},{"name":"card"}],"values":[["Ana",1,` + esqlCard + `],[17,1,null]]}`,
		counts: map[string]int{"opened users.items.card plain in ": 2},
	},
	{
		name: "rows of SQL, masked", kind: replyTable, rules: "users", viewer: fakeViewer{"users.card": policy.Masked},
		in:     tableSQL + `"rows":[["Ana",` + esqlCard + `,` + esqlCard + `,"<<users|items.card|Ana|1>>"],["Ana","x"],["Ana","x",` + esqlCard + `,"y",` + esqlCard + `]],"cursor":` + esqlCard + `}`,
		want:   tableSQL + `"rows":[["Ana",` + esqlCard + `,"mask of 6","<<users|items.card|Ana|1>>"],["Ana","x"],["Ana","x","mask of 6","y",` + esqlCard + `]],"cursor":` + esqlCard + `}`,
		counts: map[string]int{"opened users.card masked in ": 2, "unopened no_grant": 1},
	},
	{
		name: "SQL with columns for rows", kind: replyTable, rules: "users", form: "columnar",
		in:     tableSQL + `"values":[["Ana","Bob"],[],[` + esqlCard + `,"<<users|card|Bob|2>>"],["<<users|items.card|Ana|1>>",null]]}`,
		want:   tableSQL + `"values":[["Ana","Bob"],[],["4111",2],[1,null]]}`,
		counts: map[string]int{opensOne: 2, "opened users.items.card plain in ": 1},
	},
	{
		name: "a later page", kind: replyTable, rules: "users",
		in:     `{"rows":[["Ana",` + esqlCard + `]],"cursor":"x"}`,
		want:   `{"rows":[["Ana",` + esqlCard + `]],"cursor":"x"}`,
		counts: map[string]int{"unopened no_columns": 1},
	},
	{
		name: "no rule that all targets are under", kind: replyTable, rules: "none",
		in:   esqlHead + `[[` + esqlCard + `,1,"Ana"]]}`,
		want: esqlHead + `[[` + esqlCard + `,1,"Ana"]]}`,
	},
	{
		name: "another rule's value, and a rule without subject", kind: replyTable, rules: "users shop",
		in:     `{"columns":[{"name":"key"},{"name":"card"},{"name":"username"}],"values":[["<<shop|key||1>>","<<deep|card|Ana|1>>","Ana"]]}`,
		want:   `{"columns":[{"name":"key"},{"name":"card"},{"name":"username"}],"values":[[1,"<<deep|card|Ana|1>>","Ana"]]}`,
		counts: map[string]int{"opened shop.key plain in ": 1, "unopened auth": 1},
	},
	{
		name: "a subject's column that is there twice", kind: replyTable, rules: "users",
		in:     `{"columns":[{"name":"card"},{"name":"username"},{"name":"username"}],"rows":[[` + esqlCard + `,"Ana","Ana"]]}`,
		want:   `{"columns":[{"name":"card"},{"name":"username"},{"name":"username"}],"rows":[[` + esqlCard + `,"Ana","Ana"]]}`,
		counts: map[string]int{"unopened no_subject": 1},
	},
	{
		name: "columns twice, without a name, and no columns", kind: replyTable, rules: "users",
		in:   `{"columns":[{"name":"card","name":"x"},"card",{"type":"card"},{"name":"username"}],"values":[[` + esqlCard + `,` + esqlCard + `,` + esqlCard + `,"Ana"]],"columns":[{"name":"card"},{"name":"username"}],"values":[[` + esqlCard + `,"Ana"]]}`,
		want: `{"columns":[{"name":"card","name":"x"},"card",{"type":"card"},{"name":"username"}],"values":[[` + esqlCard + `,` + esqlCard + `,` + esqlCard + `,"Ana"]],"columns":[{"name":"card"},{"name":"username"}],"values":[[` + esqlCard + `,"Ana"]]}`,
	},
	{
		name: "cells that are objects, and a table inside another reply", kind: replyTable, rules: "users",
		in:   `{"x":` + esqlHead + `[[` + esqlCard + `,1,"Ana"]]},"columns":{"name":"card"},"values":[{"card":` + esqlCard + `,"username":"Ana"}]}`,
		want: `{"x":` + esqlHead + `[[` + esqlCard + `,1,"Ana"]]},"columns":{"name":"card"},"values":[{"card":` + esqlCard + `,"username":"Ana"}]}`,
	},
	{
		name: "events", kind: replyEvents,
		in:     `{"id":"x","is_running":false,"hits":{"total":{"value":2},"events":[` + eqlSource + `,{"_index":"","_id":"","_source":{},"missing":true},{"_index":"user","_id":"2","_source":{"username":"Ana"},"fields":{"card":[` + esqlCard + `]}}]}}`,
		want:   `{"id":"x","is_running":false,"hits":{"total":{"value":2},"events":[` + eqlOpened + `,{"_index":"","_id":"","_source":{},"missing":true},{"_index":"user","_id":"2","_source":{"username":"Ana"},"fields":{"card":["4111"]}}]}}`,
		counts: map[string]int{opensOne + "user": 2},
	},
	{
		name: "sequences", kind: replyEvents,
		in:     `{"hits":{"sequences":[{"join_keys":[` + esqlCard + `],"events":[` + eqlSource + `,` + eqlSource + `]},{"events":[` + eqlSource + `],"events":[` + eqlSource + `]}]},"hits":{"events":[` + eqlSource + `]}}`,
		want:   `{"hits":{"sequences":[{"join_keys":[` + esqlCard + `],"events":[` + eqlOpened + `,` + eqlOpened + `]},{"events":[` + eqlOpened + `],"events":[` + eqlSource + `]}]},"hits":{"events":[` + eqlSource + `]}}`,
		counts: map[string]int{opensOne + "user": 3},
	},
}

func TestTables(t *testing.T) { testReplies(t, tableCases) }

// A long table opens in little memory row by row; a columnar one up to the limit of one hit.
func TestTableMemory(t *testing.T) {
	const rows = 20_000
	card := `"` + fakeToken("users", "card", "Ana", "1") + `"`
	byRow := replyTokens(esqlHead) + "[" + strings.TrimSuffix(strings.Repeat(`[`+card+`,1,"Ana"],`, rows), ",") + "]}"
	byColumn := replyTokens(esqlHead) + "[[" + strings.TrimSuffix(strings.Repeat(card+",", rows), ",") + "],[1],[" + strings.TrimSuffix(strings.Repeat(`"Ana",`, rows), ",") + "]]}"
	for _, c := range []struct {
		form, in string
		max      int64
		opened   int
	}{{"", byRow, 100 << 10, rows}, {"unknown", byRow, 100 << 10, rows}, {"columnar", byColumn, 100 << 10, 0}, {"columnar", byColumn, 16 << 20, rows}, {"unknown", byColumn, 16 << 20, rows}} {
		eng, _, _ := fakeEngine(t)
		eng.Limits.MaxHit = c.max
		budget := eng.Budget.(*fakeBudget)
		counter := &fakeCounter{}
		o := &opening{eng: eng, viewer: replyFull, counter: counter, kind: replyTable, tableRules: eng.Policy.Rules[:1], columnar: c.form == "columnar", unknownForm: c.form == "unknown"}
		var out bytes.Buffer
		if err := o.rewrite(context.Background(), iotest.HalfReader(strings.NewReader(c.in)), &out); err != nil {
			t.Fatal(err)
		}
		want := c.in
		if c.opened > 0 {
			want = strings.ReplaceAll(c.in, card, "1")
		}
		if out.String() != want || counter.n[opensOne] != c.opened {
			t.Errorf("%s with %d: %d bytes, want %d; %v", c.form, c.max, out.Len(), len(want), counter.n)
		}
		if c.max < 1<<20 && budget.peak > 4*c.max+2*batchSize*(maxWorkers+3) || budget.out != 0 {
			t.Errorf("%s with %d: %d bytes of the budget, %d not given back", c.form, c.max, budget.peak, budget.out)
		}
		if c.opened == 0 && fmt.Sprint(counter.n) != "map[unopened too_large:1]" {
			t.Errorf("counted %v", counter.n)
		}
	}
}

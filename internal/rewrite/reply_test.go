package rewrite

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/google/go-cmp/cmp"
)

// replyCase is one reply and what a caller gets of it. In texts, <<rule|path|subject|value>> is a token and
// [[value]] what stands in its place when it is opened.
type replyCase struct {
	name    string
	kind    replyKind
	index   string
	id      string
	typed   bool
	whole   bool
	topHits [][]string
	rules   string // under which cells of a table may open, by their names; "" are all of them
	form    string // of a table: "columnar" or "unknown"
	viewer  fakeViewer
	docs    map[Ref]string // for look-ups
	lookErr error
	solo    int // see opening.soloUnits
	in      string
	want    string
	counts  map[string]int
	asked   [][]Ref
}

// replyTokens replaces <<…>> by tokens.
func replyTokens(s string) string {
	for {
		i := strings.Index(s, "<<")
		if i < 0 {
			return s
		}
		j := strings.Index(s[i:], ">>") + i
		part := strings.SplitN(s[i+2:j], "|", 4)
		s = s[:i] + fakeToken(part[0], part[1], part[2], part[3]) + s[j+2:]
	}
}

var replyFull = fakeViewer{"*": policy.Plain}

func (c *replyCase) open(t testing.TB, in io.Reader) (string, map[string]int, *fakeCluster, error) {
	t.Helper()
	eng, cluster, _ := fakeEngine(t)
	cluster.err = c.lookErr
	for ref, source := range c.docs {
		cluster.docs[ref] = Stored{Found: true, Index: ref.Index, Source: []byte(source)}
	}
	viewer := c.viewer
	if viewer == nil {
		viewer = replyFull
	}
	counter := &fakeCounter{}
	o := &opening{eng: eng, viewer: viewer, counter: counter, kind: c.kind, index: c.index, id: c.id, typedKeys: c.typed, topHits: c.topHits, sourceWhole: c.whole}
	for _, rule := range eng.Policy.Rules {
		if c.rules == "" || slices.Contains(strings.Fields(c.rules), rule.Name) {
			o.tableRules = append(o.tableRules, rule)
		}
	}
	o.soloUnits = c.solo
	o.columnar, o.unknownForm = c.form == "columnar", c.form == "unknown"
	var out bytes.Buffer
	err := o.rewrite(context.Background(), in, &out)
	if left := eng.Budget.(*fakeBudget).out; left != 0 {
		t.Errorf("%d bytes of the budget were not given back", left)
	}
	return out.String(), counter.n, cluster, err
}

const replyHead = `{"took":3,"_scroll_id":"<<users|card|Ana|\"x\">>","hits":{"total":{"value":1},"max_score":1.0,"hits":[`

var replyCases = []replyCase{
	{
		name:   "subject in sight",
		in:     replyHead + `{"_index":"user","_id":"1","_source":{"card":"<<users|card|Ana|"4111">>","username":"Ana","n":1.0E+5}}]}}`,
		want:   replyHead + `{"_index":"user","_id":"1","_source":{"card":"4111","username":"Ana","n":1.0E+5}}]}}`,
		counts: map[string]int{"opened users.card plain in user": 1},
	},
	{
		name:   "values of any type, escaped and dotted names, objects, arrays",
		in:     replyHead + `{"_index":"user-2","_id":"1","_source":{"c\u0061rd":"<<users|card|Ana|{"a":[1,null]}>>","user\u006eame":"\u0041na","pay.iban":"<<users|pay.iban|Ana|12345678901234567890>>","pay":{"iban":["<<users|pay.iban|Ana|true>>",null,"plain"]},"items":[{"card":"<<users|items.card|Ana|1>>"},[{"card":"<<users|items.card|Ana|2>>"}]]}}]}}`,
		want:   replyHead + `{"_index":"user-2","_id":"1","_source":{"c\u0061rd":{"a":[1,null]},"user\u006eame":"\u0041na","pay.iban":12345678901234567890,"pay":{"iban":[true,null,"plain"]},"items":[{"card":1},[{"card":2}]]}}]}}`,
		counts: map[string]int{"opened users.card plain in user-2": 1, "opened users.pay.iban plain in user-2": 2, "opened users.items.card plain in user-2": 2},
	},
	{
		name:   "subject is an integer",
		in:     `{"hits":{"hits":[{"_index":"user","_source":{"username":-17,"card":"<<users|card|-17|1>>"}},{"_index":"user","_source":{"username":1.0,"card":"<<users|card|1.0|1>>"}},{"_index":"user","_source":{"username":-0,"card":"<<users|card|-0|1>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_source":{"username":-17,"card":1}},{"_index":"user","_source":{"username":1.0,"card":"<<users|card|1.0|1>>"}},{"_index":"user","_source":{"username":-0,"card":"<<users|card|-0|1>>"}}]}}`,
		counts: map[string]int{"opened users.card plain in user": 1, "unopened no_subject": 2},
	},
	{
		name:   "another person's, path's, rule's and key's value",
		in:     `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana","card":"<<users|card|Bob|1>>","ccv":"<<users|card|Ana|1>>","pay":{"iban":"<<deep|pay.iban|Ana|1>>"},"items":{"card":"<<otherkey|items.card|Ana|1>>"},"note":"<<users|card|Ana|1>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana","card":"<<users|card|Bob|1>>","ccv":"<<users|card|Ana|1>>","pay":{"iban":"<<deep|pay.iban|Ana|1>>"},"items":{"card":"<<otherkey|items.card|Ana|1>>"},"note":"<<users|card|Ana|1>>"}}]}}`,
		counts: map[string]int{"unopened auth": 3, "unopened unknown_key": 1},
	},
	{
		name:   "subject in an array, twice, below and beside",
		in:     `{"hits":{"hits":[{"_index":"user","_source":{"username":["Ana"],"card":"<<users|card|Ana|1>>"}},{"_index":"deep","_source":{"who":{"name":"Ana"},"who.name":"Bob","card":"<<deep|card|Ana|1>>"}},{"_index":"deep","_source":{"who":[{"name":"Ana"}],"card":"<<deep|card|Ana|1>>"}},{"_index":"deep","_source":{"who":{"name":"Ana"},"name":"Bob","card":"<<deep|card|Ana|1>>"}},{"_index":"user","_source":{"username":"\ud800","card":"<<users|card|Ana|1>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_source":{"username":["Ana"],"card":"<<users|card|Ana|1>>"}},{"_index":"deep","_source":{"who":{"name":"Ana"},"who.name":"Bob","card":"<<deep|card|Ana|1>>"}},{"_index":"deep","_source":{"who":[{"name":"Ana"}],"card":"<<deep|card|Ana|1>>"}},{"_index":"deep","_source":{"who":{"name":"Ana"},"name":"Bob","card":1}},{"_index":"user","_source":{"username":"\ud800","card":"<<users|card|Ana|1>>"}}]}}`,
		counts: map[string]int{"opened deep.card plain in deep": 1, "unopened no_subject": 4},
	},
	{
		name:   "an unprotected index, and a rule without subject",
		in:     `{"hits":{"hits":[{"_index":"free","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},{"_index":"shop","_source":{"key":"<<shop|key||"k">>"}},{"_index":".user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"free","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},{"_index":"shop","_source":{"key":"k"}},{"_index":".user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}`,
		counts: map[string]int{"opened shop.key plain in shop": 1},
	},
	{
		name:   "a document, a field, a highlight and a script's value shaped like a reply",
		in:     `{"hits":{"hits":[{"_index":"user","_id":"9","_source":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]},"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"},"username":"Bob"},"highlight":{"card":["<<users|card|Bob|1>>"]},"sort":["<<users|card|Bob|1>>"],"ignored_field_values":{"card":["<<users|card|Bob|1>>"]}}]},"aggregations":{"top_hits#x":{"value":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}}},"suggest":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"9","_source":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]},"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"},"username":"Bob"},"highlight":{"card":["<<users|card|Bob|1>>"]},"sort":["<<users|card|Bob|1>>"],"ignored_field_values":{"card":["<<users|card|Bob|1>>"]}}]},"aggregations":{"top_hits#x":{"value":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}}},"suggest":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}}`,
		counts: nil,
	},
	{
		name:   "members that are there twice open nothing",
		in:     `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"},"_sou\u0072ce":{"username":"Ana","card":"<<users|card|Ana|2>>"}},{"_index":"free","_source":{"username":"Ana"},"_index":"user","fields":{"card":["<<users|card|Ana|1>>"]}},{"_index":"user","_sou\u0072ce":{"username":"Ana","card":"<<users|card|Ana|3>>"}}],"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|4>>"}}]},"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|5>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"},"_sou\u0072ce":{"username":"Ana","card":"<<users|card|Ana|2>>"}},{"_index":"free","_source":{"username":"Ana"},"_index":"user","fields":{"card":["<<users|card|Ana|1>>"]}},{"_index":"user","_sou\u0072ce":{"username":"Ana","card":3}}],"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|4>>"}}]},"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|5>>"}}]}}`,
		counts: map[string]int{"opened users.card plain in user": 1, "unopened duplicate_member": 2},
	},
	{
		name:   "index and nested path told after the body",
		in:     `{"hits":{"hits":[{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"},"_id":"1","_index":"user"},{"_index":"user","_source":{"card":"<<users|items.card|Ana|2>>"},"_id":"1","_nested":{"offset":0,"field":"items"}}]}}`,
		want:   `{"hits":{"hits":[{"_source":{"username":"Ana","card":1},"_id":"1","_index":"user"},{"_index":"user","_source":{"card":2},"_id":"1","_nested":{"offset":0,"field":"items"}}]}}`,
		docs:   map[Ref]string{{"user", "1", ""}: `{"username":"Ana"}`},
		counts: map[string]int{"opened users.card plain in user": 1, "opened users.items.card plain in user": 1},
		asked:  [][]Ref{{{"user", "1", ""}}},
	},
	{
		name:   "inner hits take the enclosing hit's subject, other documents their own",
		in:     `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana"},"inner_hits":{"a":{"hits":{"hits":[{"_index":"user","_id":"1","_nested":{"field":"items","offset":0},"_source":{"username":"Bob","card":"<<users|items.card|Ana|1>>"},"fields":{"items":[{"card":["<<users|items.card|Ana|1>>"]}],"card":["<<users|card|Ana|2>>","<<users|items.card|Ana|2>>"]}},{"_index":"user","_id":"1","_nested":{"field":"items","offset":1},"_source":{"username":"Bob","card":"<<users|items.card|Bob|1>>"}},{"_index":"user","_id":"2","_source":{"username":"Bob","card":"<<users|card|Bob|3>>"}},{"_index":"user","_id":"3","_nested":{"field":"items","offset":1},"_source":{"card":"<<users|items.card|Cyd|4>>"}}]}}}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana"},"inner_hits":{"a":{"hits":{"hits":[{"_index":"user","_id":"1","_nested":{"field":"items","offset":0},"_source":{"username":"Bob","card":1},"fields":{"items":[{"card":[1]}],"card":[2,"<<users|items.card|Ana|2>>"]}},{"_index":"user","_id":"1","_nested":{"field":"items","offset":1},"_source":{"username":"Bob","card":"<<users|items.card|Bob|1>>"}},{"_index":"user","_id":"2","_source":{"username":"Bob","card":3}},{"_index":"user","_id":"3","_nested":{"field":"items","offset":1},"_source":{"card":4}}]}}}}]}}`,
		docs:   map[Ref]string{{"user", "3", ""}: `{"username":"Cyd"}`},
		counts: map[string]int{"opened users.items.card plain in user": 3, "opened users.card plain in user": 2, "unopened auth": 2},
		asked:  [][]Ref{{{"user", "3", ""}}},
	},
	{
		name:   "nested deeper",
		in:     `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana"},"inner_hits":{"a":{"hits":{"hits":[{"_index":"user","_id":"1","_nested":{"field":"x","offset":0},"inner_hits":{"x.y":{"hits":{"hits":[{"_index":"user","_id":"1","_nested":{"field":"items","offset":0,"_nested":{"field":"card","offset":0}},"_source":{"card":"<<users|items.card|Ana|1>>"}},{"_index":"user","_id":"1","_nested":{"field":"pay","offset":0},"_source":{"iban":"<<users|pay.iban|Ana|1>>"}}]}}}}]}}}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana"},"inner_hits":{"a":{"hits":{"hits":[{"_index":"user","_id":"1","_nested":{"field":"x","offset":0},"inner_hits":{"x.y":{"hits":{"hits":[{"_index":"user","_id":"1","_nested":{"field":"items","offset":0,"_nested":{"field":"card","offset":0}},"_source":{"card":"<<users|items.card|Ana|1>>"}},{"_index":"user","_id":"1","_nested":{"field":"pay","offset":0},"_source":{"iban":1}}]}}}}]}}}}]}}`,
		counts: map[string]int{"opened users.pay.iban plain in user": 1},
	},
	{
		name:   "fields alone: the subject is looked up, never taken from fields",
		in:     `{"hits":{"hits":[{"_index":"user","_id":"1","_routing":"r","fields":{"username":["Bob"],"card":["<<users|card|Ana|1>>"],"pay.iban":["<<users|pay.iban|Ana|2>>"]}},{"_index":"user","_id":"2","fields":{"username":["Bob"],"card":["<<users|card|Bob|1>>"]}},{"_index":"user","_id":"3","_source":{"x":1},"fields":{"card":["<<users|card|Cyd|3>>"]}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"1","_routing":"r","fields":{"username":["Bob"],"card":[1],"pay.iban":[2]}},{"_index":"user","_id":"2","fields":{"username":["Bob"],"card":["<<users|card|Bob|1>>"]}},{"_index":"user","_id":"3","_source":{"x":1},"fields":{"card":[3]}}]}}`,
		docs:   map[Ref]string{{"user", "1", "r"}: `{"username":"Ana"}`, {"user", "3", ""}: `{"username":"Cyd"}`},
		counts: map[string]int{"opened users.card plain in user": 2, "opened users.pay.iban plain in user": 1, "unopened no_subject": 1},
		asked:  [][]Ref{{{"user", "1", "r"}, {"user", "2", ""}, {"user", "3", ""}}},
	},
	{
		name:   "source whole: no look-up for documents without subject",
		whole:  true,
		in:     `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"card":"<<users|card|Ana|1>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"card":"<<users|card|Ana|1>>"}}]}}`,
		docs:   map[Ref]string{{"user", "1", ""}: `{"username":"Ana"}`},
		counts: map[string]int{"unopened no_subject": 1},
	},
	{
		name:    "a look-up that fails",
		in:      `{"hits":{"hits":[{"_index":"user","_id":"1","fields":{"card":["<<users|card|Ana|1>>"]}},{"_index":"user","_id":"2","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}`,
		want:    `{"hits":{"hits":[{"_index":"user","_id":"1","fields":{"card":["<<users|card|Ana|1>>"]}},{"_index":"user","_id":"2","_source":{"username":"Ana","card":1}}]}}`,
		lookErr: errors.New("down"),
		counts:  map[string]int{"unopened lookup_failed": 1, "opened users.card plain in user": 1},
		asked:   [][]Ref{{{"user", "1", ""}}},
	},
	{
		name:   "masks and fields the grant leaves out",
		viewer: fakeViewer{"users.card": policy.Masked, "users.ccv": policy.Plain},
		in:     `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana","card":"<<users|card|Ana|"41">>","ccv":"<<users|ccv|Ana|"7">>","pay":{"iban":"<<users|pay.iban|Ana|1>>"}}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_id":"1","_source":{"username":"Ana","card":"mask of 4","ccv":"7","pay":{"iban":"<<users|pay.iban|Ana|1>>"}}}]}}`,
		counts: map[string]int{"opened users.card masked in user": 1, "opened users.ccv plain in user": 1, "unopened no_grant": 1},
	},
	{
		name:   "a value inside a longer string or a larger value, and an escaped one",
		in:     `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":{"a":"<<users|card|Ana|1>>"},"ccv":"x <<users|ccv|Ana|1>>","pay.iban":"\u0065sp1.aaaa"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":{"a":"<<users|card|Ana|1>>"},"ccv":"x <<users|ccv|Ana|1>>","pay.iban":"\u0065sp1.aaaa"}}]}}`,
		counts: nil,
	},
	{
		name: "get", kind: replyGet, index: "user", id: "1",
		in:     `{"_index":"user","_id":"1","_version":1,"found":true,"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}`,
		want:   `{"_index":"user","_id":"1","_version":1,"found":true,"_source":{"username":"Ana","card":1}}`,
		counts: map[string]int{"opened users.card plain in user": 1},
	},
	{
		name: "get without _index and with a filtered source", kind: replyGet, index: "user", id: "1",
		in:     `{"_source":{"card":"<<users|card|Ana|1>>"}}`,
		want:   `{"_source":{"card":1}}`,
		docs:   map[Ref]string{{"user", "1", ""}: `{"username":"Ana"}`},
		counts: map[string]int{"opened users.card plain in user": 1},
		asked:  [][]Ref{{{"user", "1", ""}}},
	},
	{
		name: "source", kind: replySource, index: "user", id: "1",
		in:     " {\n\"username\":\"Ana\",\"_source\":{\"card\":\"<<users|card|Ana|1>>\"},\"card\":\"<<users|card|Ana|1>>\"}\n",
		want:   " {\n\"username\":\"Ana\",\"_source\":{\"card\":\"<<users|card|Ana|1>>\"},\"card\":1}\n",
		counts: map[string]int{"opened users.card plain in user": 1},
	},
	{
		name: "mget", kind: replyMget,
		in:     `{"docs":[{"_index":"user","_id":"1","found":true,"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},{"_index":"nope","error":{"docs":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}]}`,
		want:   `{"docs":[{"_index":"user","_id":"1","found":true,"_source":{"username":"Ana","card":1}},{"_index":"nope","error":{"docs":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}]}`,
		counts: map[string]int{"opened users.card plain in user": 1},
	},
	{
		name: "msearch", kind: replyMsearch,
		in:     `{"took":1,"responses":[{"error":{},"status":400},{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]},"status":200},3]}`,
		want:   `{"took":1,"responses":[{"error":{},"status":400},{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}}]},"status":200},3]}`,
		counts: map[string]int{"opened users.card plain in user": 1},
	},
	{
		name: "async", kind: replyAsync,
		in:     `{"id":"x","is_partial":false,"response":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}}`,
		want:   `{"id":"x","is_partial":false,"response":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}}]}}}`,
		counts: map[string]int{"opened users.card plain in user": 1},
	},
	{
		name: "update", kind: replyUpdate, index: "user", id: "1",
		in:     `{"_index":"user","_id":"1","_version":2,"_source":{"username":"Ana","card":"<<users|card|Ana|0>>"},"get":{"found":true,"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"},"fields":{"card":["<<users|card|Ana|2>>"]}}}`,
		want:   `{"_index":"user","_id":"1","_version":2,"_source":{"username":"Ana","card":"<<users|card|Ana|0>>"},"get":{"found":true,"_source":{"username":"Ana","card":1},"fields":{"card":[2]}}}`,
		counts: map[string]int{"opened users.card plain in user": 2},
	},
	{
		name: "explain", kind: replyExplain, index: "user", id: "1",
		in:     `{"_index":"user","_id":"1","matched":true,"explanation":{"get":{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}},"get":{"_routing":"r","found":true,"_source":{"card":"<<users|card|Ana|1>>"}}}`,
		want:   `{"_index":"user","_id":"1","matched":true,"explanation":{"get":{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}},"get":{"_routing":"r","found":true,"_source":{"card":1}}}`,
		docs:   map[Ref]string{{"user", "1", "r"}: `{"username":"Ana"}`},
		counts: map[string]int{"opened users.card plain in user": 1},
		asked:  [][]Ref{{{"user", "1", "r"}}},
	},
	{
		name: "typed top hits", typed: true,
		in:     `{"hits":{"hits":[]},"aggregations":{"filter#f":{"doc_count":1,"meta":{"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|0>>"}}]}}},"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}},"filters#g":{"buckets":{"value":{"scripted_metric#top_hits#x":{"value":{"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|2>>"}}]}}}},"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|3>>"}}]}}}}},"sterms#t":{"buckets":[{"key":"a","top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|4>>"}}]}}}]}}}`,
		want:   `{"hits":{"hits":[]},"aggregations":{"filter#f":{"doc_count":1,"meta":{"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|0>>"}}]}}},"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}}]}}},"filters#g":{"buckets":{"value":{"scripted_metric#top_hits#x":{"value":{"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|2>>"}}]}}}},"top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":3}}]}}}}},"sterms#t":{"buckets":[{"key":"a","top_hits#h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":4}}]}}}]}}}`,
		counts: map[string]int{"opened users.card plain in user": 3},
	},
	{
		name: "top hits known from the request", topHits: [][]string{{"f", "h"}, {"t", "[]", "h"}},
		in:     `{"aggregations":{"h":{"value":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|0>>"}}]}}},"f":{"doc_count":1,"h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}},"t":{"h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|0>>"}}]}},"buckets":[{"key":"x","h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|2>>"}}]}}}]}}}`,
		want:   `{"aggregations":{"h":{"value":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|0>>"}}]}}},"f":{"doc_count":1,"h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}}]}}},"t":{"h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|0>>"}}]}},"buckets":[{"key":"x","h":{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":2}}]}}}]}}}`,
		counts: map[string]int{"opened users.card plain in user": 2},
	},
	{
		name:   "from a comment on nothing opens, and nothing is lost",
		in:     `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},{"_index":"user","_source":{/* c */"username":"Ana","card":"<<users|card|Ana|2>>"}},{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|3>>"}}]}}`,
		want:   `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}},{"_index":"user","_source":{/* c */"username":"Ana","card":"<<users|card|Ana|2>>"}},{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|3>>"}}]}}`,
		counts: map[string]int{"opened users.card plain in user": 1, "unopened not_strict_json": 1},
	},
	{
		name:   "BOM",
		in:     "\ufeff" + `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}`,
		want:   "\ufeff" + `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}`,
		counts: map[string]int{"unopened not_strict_json": 1},
	},
	{
		name:   "overlong bytes, garbage after the end, text cut off",
		in:     `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}` + " \n{\xC1\xA3",
		want:   `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}}]}}` + " \n{\xC1\xA3",
		counts: map[string]int{"opened users.card plain in user": 1, "unopened not_strict_json": 1},
	},
	{
		name:   "cut off in a hit",
		in:     `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>`,
		want:   `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}},{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>`,
		counts: map[string]int{"opened users.card plain in user": 1, "unopened not_strict_json": 1},
	},
	{name: "an empty reply", in: "", want: "", counts: map[string]int{"unopened not_strict_json": 1}},
	{name: "a number", in: "12.5e3", want: "12.5e3"},
	{name: "a list", kind: replyGet, in: ` [{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]`, want: ` [{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]`},
}

// replyReaders cut a text in different ways.
var replyReaders = map[string]func(io.Reader) io.Reader{
	"whole": func(r io.Reader) io.Reader { return r },
	"byte":  iotest.OneByteReader,
	"half":  iotest.HalfReader,
	"eof":   iotest.DataErrReader,
}

func TestReplies(t *testing.T) { testReplies(t, replyCases) }

func testReplies(t *testing.T, cases []replyCase) {
	for _, c := range cases {
		for how, cut := range replyReaders {
			t.Run(c.name+"/"+how, func(t *testing.T) {
				c := c
				if how == "half" || how == "eof" { // with a crew from the second unit on
					c.solo = 1
				}
				in, want := replyTokens(c.in), replyTokens(c.want)
				got, counts, cluster, err := c.open(t, cut(strings.NewReader(in)))
				if err != nil {
					t.Fatal(err)
				}
				if got != want {
					t.Errorf("reply\n got %s\nwant %s", got, want)
				}
				if diff := cmp.Diff(c.counts, counts); diff != "" && len(c.counts)+len(counts) > 0 {
					t.Errorf("counts (-want +got):\n%s", diff)
				}
				if diff := cmp.Diff(c.asked, cluster.asked); diff != "" && len(c.asked)+len(cluster.asked) > 0 {
					t.Errorf("look-ups (-want +got):\n%s", diff)
				}
			})
		}
	}
}

func TestReplyReaderErrors(t *testing.T) {
	broken := errors.New("connection reset")
	in := replyTokens(replyCases[0].in)
	for _, n := range []int{0, 1, 40, len(in) - 1, len(in)} {
		c := replyCases[0]
		got, _, _, err := c.open(t, io.MultiReader(strings.NewReader(in[:n]), iotest.ErrReader(broken)))
		if !errors.Is(err, broken) {
			t.Errorf("after %d bytes: error %v, want that of the reader", n, err)
		}
		if want := replyTokens(c.want); !strings.HasPrefix(want, got) {
			t.Errorf("after %d bytes: %q is no beginning of the reply", n, got)
		}
	}
}

func TestReplyWriterErrors(t *testing.T) {
	eng, _, _ := fakeEngine(t)
	broken := errors.New("client gone")
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}
	in := replyTokens(replyCases[0].in)
	if err := o.rewrite(context.Background(), strings.NewReader(in), replyFailWriter{broken}); !errors.Is(err, broken) {
		t.Errorf("error %v, want that of the writer", err)
	}
}

type replyFailWriter struct{ err error }

func (w replyFailWriter) Write([]byte) (int, error) { return 0, w.err }

// A hit with a token goes out before the next one is there.
func TestReplyFirstBytes(t *testing.T) {
	for _, solo := range []int{0, 1} {
		replyFirstBytes(t, solo)
	}
}

func replyFirstBytes(t *testing.T, solo int) {
	eng, _, _ := fakeEngine(t)
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}, soloUnits: solo}
	from, to := io.Pipe()
	got := make(chan []byte)
	done := make(chan error)
	go func() {
		done <- o.rewrite(context.Background(), from, replyChanWriter(got))
		close(got)
	}()
	first := `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},`
	go io.WriteString(to, replyTokens(first))
	var seen []byte
	want := `{"hits":{"hits":[{"_index":"user","_source":{"username":"Ana","card":1}},`
	for len(seen) < len(want) {
		seen = append(seen, <-got...)
	}
	if string(seen) != want {
		t.Errorf("first bytes %q, want %q", seen, want)
	}
	go func() {
		for range got {
		}
	}()
	io.WriteString(to, `{}]}}`)
	to.Close()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

type replyChanWriter chan<- []byte

func (w replyChanWriter) Write(p []byte) (int, error) {
	w <- bytes.Clone(p)
	return len(p), nil
}

// Hits larger than the limit pass sealed; those up to it open, also beyond the window.
func TestReplyHitLimit(t *testing.T) {
	for _, size := range []int{10, windowSize - 300, windowSize, 300 << 10} {
		hit := fmt.Sprintf(`{"_index":"user","_id":"1","_source":{"username":"Ana","pad":%q,"card":"<<users|card|Ana|1>>"}}`, strings.Repeat("x", size))
		in := replyTokens(`{"hits":{"hits":[` + hit + `,{"_index":"shop","_source":{"key":"<<shop|key||2>>"}}]}}`)
		opened := strings.Replace(strings.Replace(in, fakeToken("users", "card", "Ana", "1"), "1", 1), `"1"}}`, `1}}`, 1)
		for _, over := range []int{0, 1} {
			eng, _, _ := fakeEngine(t)
			eng.Limits.MaxHit = int64(len(replyTokens(hit)) - over)
			counter := &fakeCounter{}
			o := &opening{eng: eng, viewer: replyFull, counter: counter}
			var out bytes.Buffer
			if err := o.rewrite(context.Background(), iotest.HalfReader(strings.NewReader(in)), &out); err != nil {
				t.Fatal(err)
			}
			want := opened
			if over > 0 {
				want = in
			}
			want = strings.Replace(want, `"`+fakeToken("shop", "key", "", "2")+`"`, "2", 1)
			if out.String() != want {
				t.Errorf("size %d, %d over the limit: wrong reply of %d bytes, want %d", size, over, out.Len(), len(want))
			}
			if counter.n["unopened too_large"] != over {
				t.Errorf("size %d: counted %v", size, counter.n)
			}
			if left := eng.Budget.(*fakeBudget).out; left != 0 {
				t.Errorf("size %d: %d bytes not given back", size, left)
			}
		}
	}
}

// A hit needs memory beyond the budget: the reply fails, it is not shown sealed.
func TestReplyBudget(t *testing.T) {
	eng, _, _ := fakeEngine(t)
	eng.Budget.(*fakeBudget).max = 300 << 10
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}
	in := `{"hits":{"hits":[{"_index":"user","pad":"` + strings.Repeat("x", 1<<20) + `"}]}}`
	var fault *Fault
	if err := o.rewrite(context.Background(), strings.NewReader(in), io.Discard); !errors.As(err, &fault) || fault.Status != 429 {
		t.Errorf("error %v, want a 429", err)
	}
	if left := eng.Budget.(*fakeBudget).out; left != 0 {
		t.Errorf("%d bytes not given back", left)
	}
}

// A value of any size outside hits is copied in constant memory.
func TestReplyHugeValues(t *testing.T) {
	eng, _, _ := fakeEngine(t)
	eng.Budget.(*fakeBudget).max = 1 // nothing may grow
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}
	const size = 8 << 20
	in := io.MultiReader(
		strings.NewReader(`{"suggest":"`), io.LimitReader(replyRepeat(`\u00e9\ud83d\ude00é`), size/20*20),
		strings.NewReader(`","n":-`), io.LimitReader(replyRepeat("7"), size), strings.NewReader(`.5,"l":[`),
		io.LimitReader(replyRepeat(`{"a":[null,true]},`), size/18*18), strings.NewReader(`0]}`))
	out := &replyCountWriter{}
	if err := o.rewrite(context.Background(), in, out); err != nil {
		t.Fatal(err)
	}
	if want := int64(12 + size/20*20 + 7 + size + 8 + size/18*18 + 3); out.n != want {
		t.Errorf("wrote %d bytes, want %d", out.n, want)
	}
	if n := o.counter.(*fakeCounter).n; len(n) > 0 {
		t.Errorf("counted %v", n)
	}
}

type replyCountWriter struct{ n int64 }

func (w *replyCountWriter) Write(p []byte) (int, error) {
	w.n += int64(len(p))
	return len(p), nil
}

type replyRepeater struct {
	s  string
	at int
}

func replyRepeat(s string) io.Reader { return &replyRepeater{s: s} }

func (r *replyRepeater) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		k := copy(p[n:], r.s[r.at:])
		n += k
		r.at = (r.at + k) % len(r.s)
	}
	return n, nil
}

// Many hits whose subjects must be looked up: few look-ups, right order, bounded memory.
func TestReplyLookUpBlocks(t *testing.T) {
	c := replyCase{docs: map[Ref]string{}}
	var in, want strings.Builder
	in.WriteString(`{"hits":{"hits":[`)
	want.WriteString(`{"hits":{"hits":[`)
	const hits = 3000
	for i := range hits {
		if i > 0 {
			in.WriteString(" , ")
			want.WriteString(" , ")
		}
		id, who := fmt.Sprint(i), fmt.Sprintf("user %d", i)
		fmt.Fprintf(&in, `{"_index":"user","_id":%q,"fields":{"card":[%q]},"x":"`, id, fakeToken("users", "card", who, id))
		fmt.Fprintf(&want, `{"_index":"user","_id":%q,"fields":{"card":[%s]},"x":"`, id, id)
		pad := strings.Repeat("y", i%700) + `"}`
		in.WriteString(pad)
		want.WriteString(pad)
		c.docs[Ref{"user", id, ""}] = fmt.Sprintf(`{"username":%q}`, who)
	}
	tail := `]},"aggregations":{"x":"` + strings.Repeat("z", 400<<10) + `"}}`
	in.WriteString(tail)
	want.WriteString(tail)
	for how, cut := range replyReaders {
		got, counts, cluster, err := c.open(t, cut(strings.NewReader(in.String())))
		if err != nil {
			t.Fatal(err)
		}
		if got != want.String() {
			t.Errorf("%s: wrong reply of %d bytes, want %d", how, len(got), want.Len())
		}
		if counts["opened users.card plain in user"] != hits {
			t.Errorf("%s: counted %v", how, counts)
		}
		if len(cluster.asked) > 12 {
			t.Errorf("%s: %d look-ups", how, len(cluster.asked))
		}
	}
}

func TestReplyFallback(t *testing.T) {
	eng, _, _ := fakeEngine(t)
	rules, _ := eng.Policy.Match([]string{"user"})
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}, fallback: newTarget(rules, false)}
	in := replyTokens(`{"hits":{"hits":[{"_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}},{"_index":"shop","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}`)
	want := replyTokens(`{"hits":{"hits":[{"_source":{"username":"Ana","card":1}},{"_index":"shop","_source":{"username":"Ana","card":"<<users|card|Ana|1>>"}}]}}`)
	var out bytes.Buffer
	if err := o.rewrite(context.Background(), strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != want {
		t.Errorf("got %s\nwant %s", out.String(), want)
	}
}

// FuzzReplies: any reply, cut anywhere, gives the same output; what is no opened token is copied; and a canary, sealed
// for another rule, path or subject than any place of the cases, never shows.
func FuzzReplies(f *testing.F) {
	for _, c := range slices.Concat(replyCases, tableCases) {
		f.Add(uint8(c.kind), replyTokens(c.in), uint8(7))
	}
	canaries := []string{fakeToken("users", "card", "Zoe", `"CANARY"`), fakeToken("users", "other", "Ana", `"CANARY"`), fakeToken("none", "card", "Ana", `"CANARY"`)}
	f.Fuzz(func(t *testing.T, kind uint8, in string, cut uint8) {
		if strings.Contains(in, "CANARY") {
			return
		}
		for i, c := range canaries {
			in = strings.ReplaceAll(in, fakeToken("users", "card", "Bob", fmt.Sprint(i)), c)
		}
		c := replyCase{kind: replyKind(kind) % (replyEvents + 1), index: "user", id: "1", rules: "users", form: []string{"", "columnar", "unknown"}[cut%3], typed: cut%2 == 0, docs: map[Ref]string{{"user", "1", ""}: `{"username":"Ana"}`}}
		whole, counts, _, err := c.open(t, strings.NewReader(in))
		if err != nil {
			t.Fatal(err)
		}
		c.solo = 1
		pieces, counts2, _, err := c.open(t, &replyPieces{in, int(cut) + 1})
		if err != nil {
			t.Fatal(err)
		}
		if whole != pieces {
			t.Errorf("in pieces\n got %q\nwant %q", pieces, whole)
		}
		if !maps.Equal(counts, counts2) {
			t.Errorf("in pieces counted %v, want %v", counts2, counts)
		}
		if strings.Contains(whole, "CANARY") {
			t.Errorf("a value showed in another's place: %q", whole)
		}
		opened := 0
		for key, n := range counts {
			if strings.HasPrefix(key, "opened") {
				opened += n
			}
		}
		if opened == 0 && whole != in {
			t.Errorf("nothing was opened, but\n got %q\nwant %q", whole, in)
		}
		if json.Valid([]byte(in)) && !json.Valid([]byte(whole)) {
			t.Errorf("the reply is no JSON any more: %q", whole)
		}
	})
}

// replyPieces reads n bytes at a time.
type replyPieces struct {
	s string
	n int
}

func (r *replyPieces) Read(p []byte) (int, error) {
	if r.s == "" {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), r.n)], r.s)
	r.s = r.s[n:]
	return n, nil
}

func replyHits(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"took":3,"hits":{"total":{"value":10000,"relation":"eq"},"hits":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		who := fmt.Sprintf("user %d", i)
		fmt.Fprintf(&b, `{"_index":"user","_id":"%d","_score":1.0,"_source":{"fec_alta":"2021-08-23 10:35:24","username":%q,"code_zip":"57353-3487","card":%q,"ccv":%q,"pay":{"iban":%q},"direccion":"Calle Falsa 123, piso 4","geo_latitud":"-25.4601","geo_longitud":"-120.4236","color_favorito":"azul","foto_dni":"http://example.com/dni/%d.jpg","ip":"10.0.0.1","auto":"Ford Focus","cantidad_compras_realizadas":62301,"avatar":"http://example.com/avatar/%d.png","id":"%d"}}`,
			i, who, fakeToken("users", "card", who, `"6767-2293-4172-5169"`), fakeToken("users", "ccv", who, `"824"`), fakeToken("users", "pay.iban", who, `"58443297"`), i, i, i)
	}
	b.WriteString(`]}}`)
	return b.Bytes()
}

// replyCheapOpener opens everything to the same value, so that benchmarks measure this package.
type replyCheapOpener struct{}

func (replyCheapOpener) NewSession() OpenSession { return replyCheapOpener{} }
func (replyCheapOpener) Close()                  {}
func (replyCheapOpener) Open(dst []byte, _ *policy.Rule, _ string, _, _ []byte) ([]byte, error) {
	return append(dst, `"6767-2293-4172-5169"`...), nil
}

func BenchmarkReplyCopy(b *testing.B) {
	in := replyHits(10_000)
	b.SetBytes(int64(len(in)))
	buf := make([]byte, 32<<10)
	for b.Loop() {
		io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{bytes.NewReader(in)}, buf)
	}
}

func BenchmarkReplyOpen(b *testing.B) {
	in := replyHits(10_000)
	eng, _, _ := fakeEngine(b)
	eng.Opener = replyCheapOpener{}
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if err := o.rewrite(context.Background(), struct{ io.Reader }{bytes.NewReader(in)}, struct{ io.Writer }{io.Discard}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkReplyScan reads hits of an index without rules.
func BenchmarkReplyScan(b *testing.B) {
	in := bytes.ReplaceAll(replyHits(10_000), []byte(`"_index":"user"`), []byte(`"_index":"free"`))
	eng, _, _ := fakeEngine(b)
	o := &opening{eng: eng, viewer: replyFull, counter: &fakeCounter{}}
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if err := o.rewrite(context.Background(), struct{ io.Reader }{bytes.NewReader(in)}, struct{ io.Writer }{io.Discard}); err != nil {
			b.Fatal(err)
		}
	}
}

package rewrite

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func controlEngine(t testing.TB) *Engine {
	t.Helper()
	return &Engine{Policy: fakePolicy(t, `version: 1
rules:
  - name: users
    indices: ["user", "user-*"]
    subject: username
    fields:
      card: {mode: encrypt}
      pay.cards.pan: {mode: encrypt}
  - name: shop
    indices: ["shop-*"]
    fields:
      key: {mode: encrypt}
`)}
}

// controlWant puts the mapping of a protected field where a case says SEALED.
func controlWant(s string) string { return strings.ReplaceAll(s, "SEALED", SealedMapping) }

func TestControlRewrites(t *testing.T) {
	e := controlEngine(t)
	for _, c := range []struct {
		name     string
		kind     controlKind
		in, want string
	}{
		{"create without a body", controlCreate, ``, `{"mappings":{"properties":{"card":SEALED}}}`},
		{"create with white space", controlCreate, ` `, `{"mappings":{"properties":{"card":SEALED}}}`},
		{"create, empty object", controlCreate, ` {} `, ` {"mappings":{"properties":{"card":SEALED}}} `},
		{"create with settings", controlCreate, `{"settings":{"index":{"number_of_shards":1}}}`, `{"settings":{"index":{"number_of_shards":1}},"mappings":{"properties":{"card":SEALED}}}`},
		{"null mappings", controlCreate, `{"mappings":null}`, `{"mappings":{"properties":{"card":SEALED}}}`},
		{"null properties", controlCreate, `{"mappings":{"dynamic":false,"properties":null}}`, `{"mappings":{"dynamic":false,"properties":{"card":SEALED}}}`},
		{"bytes are kept", controlMapping, "{ \"properties\" : {\"a\":{\"type\":\"long\"} }\n}", "{ \"properties\" : {\"a\":{\"type\":\"long\"} ,\"card\":SEALED}\n}"},
		{"already there", controlMapping, `{"properties":{"card":SEALED}}`, `{"properties":{"card":SEALED}}`},
		{"already there in other words", controlMapping, `{"properties":{"c\u0061rd":{"index":"false","doc_values":false,"type":"keyword","ignore_above":"2147483647","meta":{"unit":"x"},"store":false,"fields":{}}}}`, `{"properties":{"c\u0061rd":{"index":"false","doc_values":false,"type":"keyword","ignore_above":"2147483647","meta":{"unit":"x"},"store":false,"fields":{}}}}`},
		{"ignore_above is completed", controlMapping, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false}}}`, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"ignore_above":2147483647}}}`},
		{"parents in the body", controlMapping, `{"properties":{"pay":{"properties":{"cards":{"type":"nested"}}}}}`, `{"properties":{"pay":{"properties":{"cards":{"type":"nested","properties":{"pan":SEALED}}}},"card":SEALED}}`},
		{"dotted parents", controlMapping, `{"properties":{"pay.cards":{"type":"nested","properties":{"type":{"type":"keyword"}}}}}`, `{"properties":{"pay.cards":{"type":"nested","properties":{"type":{"type":"keyword"},"pan":SEALED}},"card":SEALED}}`},
		{"a farther parent says nothing of the nearest", controlMapping, `{"properties":{"pay":{"type":"object"}}}`, `{"properties":{"pay":{"type":"object"},"card":SEALED}}`},
		{"dotted name", controlMapping, `{"properties":{"pay.cards.pan":SEALED}}`, `{"properties":{"pay.cards.pan":SEALED,"card":SEALED}}`},
		{"subobjects: false", controlMapping, `{"subobjects":false}`, `{"subobjects":false,"properties":{"card":SEALED,"pay.cards.pan":SEALED}}`},
		{"flattened parent", controlMapping, `{"properties":{"pay":{"type":"flattened","index":false,"doc_values":false}}}`, `{"properties":{"pay":{"type":"flattened","index":false,"doc_values":false},"card":SEALED}}`},
		{"parent that is not mapped", controlMapping, `{"properties":{"pay":{"type":"object","enabled":false}}}`, `{"properties":{"pay":{"type":"object","enabled":false},"card":SEALED}}`},
		{"nothing mapped at all", controlCreate, `{"mappings":{"enabled":false}}`, `{"mappings":{"enabled":false}}`},
		{"harmless rest", controlCreate, `{"mappings":{"_source":{"mode":"synthetic","excludes":["tmp.*"],"includes":[]},"_routing":{"required":true},"dynamic_templates":[{"x":{"match":"card","mapping":{"type":"text"}}}],"runtime":{"card":null,"day":{"type":"keyword","script":"emit('x')"}},"properties":{"username":{"type":"text","fields":{"raw":{"type":"keyword"}}},"also":{"type":"alias","path":"username"}}},"aliases":{"a":{"filter":{"term":{"username":"Ana"}}}}}`,
			`{"mappings":{"_source":{"mode":"synthetic","excludes":["tmp.*"],"includes":[]},"_routing":{"required":true},"dynamic_templates":[{"x":{"match":"card","mapping":{"type":"text"}}}],"runtime":{"card":null,"day":{"type":"keyword","script":"emit('x')"}},"properties":{"username":{"type":"text","fields":{"raw":{"type":"keyword"}}},"also":{"type":"alias","path":"username"},"card":SEALED}},"aliases":{"a":{"filter":{"term":{"username":"Ana"}}}}}`},
		{"includes that keep all", controlCreate, `{"mappings":{"_source":{"includes":["card","pay","user*"]},"properties":{"card":SEALED}}}`, `{"mappings":{"_source":{"includes":["card","pay","user*"]},"properties":{"card":SEALED}}}`},
		{"index template", controlIndexTemplate, `{"index_patterns":["user-*"],"priority":1}`, `{"index_patterns":["user-*"],"priority":1,"template":{"mappings":{"properties":{"card":SEALED}}}}`},
		{"template of a data stream", controlIndexTemplate, `{"index_patterns":"user-a-*","data_stream":{},"template":{"settings":{}}}`, `{"index_patterns":"user-a-*","data_stream":{},"template":{"settings":{},"mappings":{"properties":{"card":SEALED}}}}`},
		{"two rules", controlIndexTemplate, `{"index_patterns":["user-*","shop-1"]}`, `{"index_patterns":["user-*","shop-1"]}`},
		{"a pattern that only overlaps", controlIndexTemplate, `{"index_patterns":["*"],"template":{"mappings":{"properties":{"a":{"type":"long"}}}}}`, `{"index_patterns":["*"],"template":{"mappings":{"properties":{"a":{"type":"long"}}}}}`},
		{"another index", controlIndexTemplate, `{"index_patterns":["logs-*"],"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, `{"index_patterns":["logs-*"],"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`},
		{"legacy template", controlLegacyTemplate, `{"index_patterns":["user"],"order":1,"mappings":{}}`, `{"index_patterns":["user"],"order":1,"mappings":{"properties":{"card":SEALED}}}`},
		{"old legacy template", controlLegacyTemplate, `{"template":"shop-*"}`, `{"template":"shop-*","mappings":{"properties":{"key":SEALED}}}`},
		{"simulate is only read", controlSimulate, `{"index_patterns":["user"]}`, `{"index_patterns":["user"]}`},
		{"component template", controlComponentTemplate, `{"template":{"mappings":{"_source":{"enabled":false},"properties":{"card":{"type":"text"}}}}}`, `{"template":{"mappings":{"_source":{"enabled":false},"properties":{"card":{"type":"text"}}}}}`},
		{"settings", controlSettings, `{"index":{"default_pipeline":"p","mapping.ignore_above":10},"index.mapping.source.mode":"stored"}`, `{"index":{"default_pipeline":"p","mapping.ignore_above":10},"index.mapping.source.mode":"stored"}`},
		{"aliases", controlAliases, `{"actions":[{"add":{"index":"user","alias":"a","filter":{"exists":{"field":"card"}}}},{"remove":{"index":"x","alias":"y"}}]}`, `{"actions":[{"add":{"index":"user","alias":"a","filter":{"exists":{"field":"card"}}}},{"remove":{"index":"x","alias":"y"}}]}`},
		{"alias without a body", controlAliases, ``, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			rules := e.Policy.Rules[:1]
			switch c.kind {
			case controlIndexTemplate, controlLegacyTemplate, controlSimulate, controlComponentTemplate:
				rules = e.Policy.Rules
			}
			in := []byte(controlWant(c.in))
			got, err := e.control(c.kind, rules, in)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(controlWant(c.want), string(got)); d != "" {
				t.Fatal(d)
			}
			if len(got) > 0 && !json.Valid(got) {
				t.Fatal("no JSON")
			}
			again, err := e.control(c.kind, rules, got)
			if err != nil || string(again) != string(got) {
				t.Fatalf("the second time: %s, %v", again, err)
			}
			if none, err := e.control(c.kind, nil, in); err != nil || string(none) != string(in) {
				t.Fatalf("without rules: %s, %v", none, err)
			}
		})
	}
}

func TestMappingFault(t *testing.T) {
	rules := controlEngine(t).Policy.Rules[:1]
	for _, c := range []struct{ mapping, says string }{
		{``, ""}, {`{}`, ""}, {`{"_data_stream_timestamp":{"enabled":true},"_new_thing":{"x":1},"dynamic_templates":[{"s":{"match":"c*","mapping":{"copy_to":"all"}}}]}`, ""},
		{`{"properties":{"card":` + SealedMapping + `,"pay":{"type":"nested","properties":{"note":{"type":"text"}}}}}`, ""},
		{`{"properties":{"card":{"type":"keyword","index":false,"doc_values":{"enabled":false}}}}`, ""},
		{`{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"ignore_above":10}}}`, ""},
		{`{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"fields":{"raw":{"type":"keyword"}}}}}`, "fields"},
		{`{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"copy_to":["all"]}}}`, "copy_to"},
		{`{"properties":{"card":{"type":"text"}}}`, "another type"},
		{`{"_source":{"enabled":false}}`, "_source"}, {`{"_source":{"mode":"synthetic"}}`, ""}, {`{"_source":{"excludes":["card"]}}`, "[card]"},
		{`{"runtime":{"username":{"type":"keyword"}}}`, "[username]"},
	} {
		f := MappingFault(rules, []byte(c.mapping))
		if f == nil != (c.says == "") || f != nil && !strings.Contains(f.Reason, c.says) {
			t.Errorf("%s: %v, want %q", c.mapping, f, c.says)
		}
	}
}

func TestControlRefuses(t *testing.T) {
	e := controlEngine(t)
	conflict, query, bad := "esproxy_mapping_conflict", "esproxy_protected_query", "esproxy_bad_request"
	for _, c := range []struct {
		kind              controlKind
		body, fault, says string
	}{
		{controlMapping, `{"properties":{"card":{"type":"text"}}}`, conflict, "[card]"},
		{controlMapping, `{"properties":{"card":{}}}`, conflict, "another type"},
		{controlMapping, `{"properties":{"card":{"type":"keyword"}}}`, conflict, SealedMapping},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":false}}}`, conflict, "doc_values"},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":true,"doc_values":false}}}`, conflict, "[index]"},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"ignore_above":256}}}`, conflict, "ignore_above"},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"copy_to":"all"}}}`, conflict, "copy_to"},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"fields":{"raw":{"type":"keyword"}}}}}`, conflict, "fields"},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"null_value":"none"}}}`, conflict, "null_value"},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"store":true}}}`, conflict, "stores"},
		{controlMapping, `{"properties":{"card":{"type":"keyword","index":false,"doc_values":false,"script":"emit('x')"}}}`, conflict, "option"},
		{controlMapping, `{"properties":{"card":{"properties":{"a":{"type":"long"}}}}}`, conflict, "another type"},
		{controlMapping, `{"properties":{"card.raw":{"type":"keyword"}}}`, conflict, "below"},
		{controlMapping, `{"properties":{"pay":{"properties":{"cards.pan":{"type":"long"}}}}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"properties":{"pay.cards":{"properties":{"p\u0061n":{"type":"long"}}}}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"properties":{"pay":{"type":"keyword"}}}`, conflict, "above"},
		{controlMapping, `{"properties":{"pay":{"type":"flattened"}}}`, conflict, "flattened"},
		{controlMapping, `{"properties":{"pay":{"type":"flattened","index":false}}}`, conflict, "flattened"},
		{controlMapping, `{"properties":{"x":{"type":"alias","path":"card"}}}`, conflict, "alias"},
		{controlMapping, `{"properties":{"username":{"type":"alias","path":"x"}}}`, conflict, "[username]"},
		{controlMapping, `{"properties":{"user":{"properties":{"name":{"type":"keyword"}}}},"_meta":{"a":1,"card":"4111"}}`, conflict, "[card]"},
		{controlMapping, `{"_meta":{"pay":[{"cards.pan":4111}]}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"properties":{"x":{"type":"text","copy_to":["y","card"]}}}`, conflict, "copy_to"},
		{controlMapping, `{"properties":{"x":{"type":"keyword","script":"emit(params._source.card)"}}}`, conflict, "script"},
		{controlMapping, `{"runtime":{"card":{"type":"keyword"}}}`, conflict, "[card]"},
		{controlMapping, `{"runtime":{"username":{"type":"keyword","script":"emit('x')"}}}`, conflict, "[username]"},
		{controlMapping, `{"runtime":{"x":{"type":"keyword","script":{"source":"emit(doc['pay.cards.pan'].value)"}}}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"runtime":{"x":{"type":"keyword","script":{"source":"emit(params._source.pay.cards[0].pan)"}}}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"runtime":{"pay":{"type":"composite","script":"emit('a')","fields":{"cards.pan":{"type":"keyword"}}}}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"_source":{"enabled":false}}`, conflict, "_source"},
		{controlMapping, `{"_source":{"mode":"disabled"}}`, conflict, "_source"},
		{controlMapping, `{"_source":{"excludes":["card"]}}`, conflict, "[card]"},
		{controlMapping, `{"_source":{"excludes":"pa*"}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"_source":{"excludes":["*.pan"]}}`, conflict, "[pay.cards.pan]"},
		{controlMapping, `{"_source":{"excludes":["user*"]}}`, conflict, "[username]"},
		{controlMapping, `{"_source":{"includes":["card","pay"]}}`, conflict, "[username]"},
		{controlMapping, `{"_doc":{"properties":{}}}`, conflict, "type"},
		{controlMapping, `{"properties":[]}`, conflict, "object"},
		{controlCreate, `{"mappings":{"doc":{"properties":{"card":{"type":"text"}}}}}`, conflict, "type"},
		{controlCreate, `{"mappings":"eyJhIjoxfQ=="}`, conflict, "object"},
		{controlCreate, `{"settings":{"index.mapping.source.mode":"disabled"}}`, conflict, "source.mode"},
		{controlCreate, `{"settings":{"index":{"mapping":{"source":{"mode":"DISABLED"}}}}}`, conflict, "source.mode"},
		{controlSettings, `{"settings":{"mapping.source":{"mode":"disabled"}}}`, conflict, "source.mode"},
		{controlCreate, `{"aliases":{"a":{"filter":{"term":{"card":"4111"}}}}}`, query, "[card]"},
		{controlAliases, `{"actions":[{"add":{"index":"user","alias":"a","filter":{"bool":{"must":{"term":{"card":"4111"}}}}}}]}`, query, "[card]"},
		{controlAliases, `{"filter":{"term":{"card":"4111"}}}`, query, "[card]"},
		{controlIndexTemplate, `{"index_patterns":["user-1"],"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, conflict, "[card]"},
		{controlIndexTemplate, `{"index_patterns":["x","us*"],"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, conflict, "[card]"},
		{controlIndexTemplate, `{"index_patterns":["shop-*"],"template":{"aliases":{"a":{"filter":{"term":{"key":"4111"}}}}}}`, query, "[key]"},
		{controlSimulate, `{"index_patterns":["user"],"template":{"mappings":{"properties":{"card":{"type":"text"}}}}}`, conflict, "[card]"},
		{controlLegacyTemplate, `{"index_patterns":["*"],"mappings":{"properties":{"key":{"type":"long"}}}}`, conflict, "[key]"},
		{controlComponentTemplate, `{"template":{"aliases":{"a":{"filter":{"term":{"card":"4111"}}}}}}`, query, "[card]"},
		{controlCreate, `{"mappings":{},"mappings":{}}`, bad, "duplicate"},
		{controlCreate, `[]`, bad, "object"},
		{controlMapping, `{} {}`, bad, "after"},
	} {
		rules := e.Policy.Rules[:1]
		switch c.kind {
		case controlIndexTemplate, controlLegacyTemplate, controlSimulate, controlComponentTemplate:
			rules = e.Policy.Rules
		}
		_, err := e.control(c.kind, rules, []byte(c.body))
		controlWantFault(t, c.body, err, c.fault, c.says)
	}
}

func controlWantFault(t *testing.T, body string, err error, fault, says string) {
	t.Helper()
	var f *Fault
	switch {
	case !errors.As(err, &f):
		t.Errorf("%s\n\tpassed (%v)", body, err)
	case f.Status != 400 || f.Type != fault || !strings.Contains(f.Reason, says) || strings.Contains(f.Reason, "4111"):
		t.Errorf("%s\n\t%d %v, want %s and %q", body, f.Status, f, fault, says)
	}
}

func TestControlPipelines(t *testing.T) {
	e := controlEngine(t)
	for _, processor := range []string{
		`{"set":{"field":"a","value":"{{card}}"}}`, `{"set":{"field":"payment","value":1}}`, `{"set":{"field":"pay.note","value":1}}`, `{"set":{"field":"a","copy_from":"username"}}`,
		`{"date":{"field":"t","formats":["ISO8601"],"target_field":"@timestamp"}}`, `{"grok":{"field":"message","patterns":["%{IP:client} %{WORD:method}"],"pattern_definitions":{"X":"[a-z]+"}}}`,
		`{"grok":{"field":"username","patterns":["%{WORD:first}"]}}`, `{"dissect":{"field":"message","pattern":"%{a} %{+a/2} %{?card} %{b->} x"}}`, `{"dot_expander":{"field":"*","override":true}}`,
		`{"kv":{"field":"m","field_split":" ","value_split":"=","target_field":"kv"}}`, `{"kv":{"field":"m","field_split":" ","value_split":"=","include_keys":["a","b"]}}`, `{"json":{"field":"m","target_field":"j"}}`,
		`{"script":{"source":"ctx.a = ctx['b'] + params.x","params":{"x":1}}}`, `{"script":{"source":"void drop(Map m) { m.values().removeIf(v -> v == null) } drop(ctx);"}}`, `{"script":{"id":"stored"}}`, `{"script":{"source":"ctx.sum = 0; for (x in ctx.list) { ctx.sum += x['n'] }"}}`,
		`{"foreach":{"field":"list","processor":{"uppercase":{"field":"_ingest._value.name"}}}}`, `{"foreach":{"field":"pay.cards","processor":{"set":{"field":"_ingest._value.type","value":"x"}}}}`,
		`{"fingerprint":{"fields":["card","username"],"target_field":"fp"}}`, `{"remove":{"field":["a","b"]}}`, `{"remove":{"keep":["a"]}}`, `{"rename":{"field":"a","target_field":"b"}}`, `{"enrich":{"policy_name":"p","field":"username","target_field":"u"}}`,
		`{"pipeline":{"name":"x"}}`, `{"drop":{"if":"ctx.card == null"}}`, `{"set":{"field":"a","value":1,"if":"ctx.b == 'card'","on_failure":[{"set":{"field":"error.message","value":"{{ _ingest.on_failure_message }}"}}]}}`,
		`{"geoip":{"field":"ip","target_field":"geo","properties":["country"]}}`, `{"user_agent":{"field":"agent"}}`, `{"inference":{"model_id":"m","input_output":[{"input_field":"a","output_field":"b"}]}}`, `{"append":{"field":"tags","value":["card"]}}`, `{"csv":{"field":"m","target_fields":["a","b"]}}`, `{"lowercase":{"field":"username","target_field":"user_lower"}}`,
	} {
		body := `{"description":"card","processors":[` + processor + `],"version":1}`
		got, err := e.control(controlPipeline, e.Policy.Rules, []byte(body))
		if err != nil || string(got) != body {
			t.Errorf("%s\n\t%v", processor, err)
		}
	}
	for processor, says := range map[string]string{
		`{"set":{"field":"card","value":"4111"}}`: "[card]", `{"set":{"field":"_source.card","value":"4111"}}`: "[card]", `{"set":{"field":"pay","value":{"cards":[{"pan":"4111"}]}}}`: "[pay.cards.pan]",
		`{"set":{"field":"pay.cards.0.pan","value":"4111"}}`: "[pay.cards.pan]", `{"set":{"field":"card.x","value":"4111"}}`: "[card]", `{"append":{"field":"card","value":"4111"}}`: "[card]", `{"set":{"field":"a","copy_from":"card"}}`: "[card]",
		`{"set":{"field":"{{name}}","value":"4111"}}`: "{{", `{"set":{"field":"a","value":1,"on_failure":[{"set":{"field":"card","value":"4111"}}]}}`: "[card]",
		`{"rename":{"field":"a","target_field":"card"}}`: "[card]", `{"rename":{"field":"card","target_field":"b"}}`: "[card]", `{"rename":{"field":"username","target_field":"b"}}`: "[username]", `{"convert":{"field":"a","target_field":"card","type":"string"}}`: "[card]",
		`{"gsub":{"field":"card","pattern":"-","replacement":""}}`: "[card]", `{"split":{"field":"a","separator":",","target_field":"pay.cards"}}`: "[pay.cards.pan]", `{"join":{"field":"card","separator":","}}`: "[card]", `{"remove":{"field":["a","card"]}}`: "[card]",
		`{"lowercase":{"field":"username"}}`: "[username]", `{"set":{"field":"username","value":"x"}}`: "[username]", `{"uppercase":{"field":"a","target_field":"username"}}`: "[username]",
		`{"json":{"field":"m","add_to_root":true}}`: "add_to_root", `{"json":{"field":"m","target_field":"pay"}}`: "[pay.cards.pan]", `{"kv":{"field":"m","field_split":" ","value_split":"="}}`: "names of fields", `{"kv":{"field":"m","field_split":" ","value_split":"=","prefix":"ca"}}`: "names of fields",
		`{"kv":{"field":"m","field_split":" ","value_split":"=","target_field":"pay"}}`: "names of fields", `{"kv":{"field":"m","field_split":" ","value_split":"=","include_keys":["a","card"]}}`: "[card]",
		`{"grok":{"field":"message","patterns":["%{NUMBER:card}"]}}`: "[card]", `{"grok":{"field":"message","patterns":["x (?<card>[0-9]+)"]}}`: "[card]", `{"grok":{"field":"message","patterns":["%{Y}"],"pattern_definitions":{"Y":"%{NUMBER:card:long}"}}}`: "[card]",
		`{"dissect":{"field":"message","pattern":"%{a} %{+card/1}"}}`: "[card]", `{"dissect":{"field":"message","pattern":"%{*a} %{&a}"}}`: "{*", `{"csv":{"field":"m","target_fields":["a","card"]}}`: "[card]",
		`{"reroute":{"dataset":"x"}}`: "another index", `{"date_index_name":{"field":"d","date_rounding":"d"}}`: "another index", `{"set":{"field":"_index","value":"x"}}`: "_index", `{"rename":{"field":"a","target_field":"_index"}}`: "_index",
		`{"script":{"source":"ctx._index = 'x'"}}`: "_index", `{"script":{"source":"ctx['_index'] = 'x'"}}`: "_index", `{"script":{"source":"ctx.card = '4111'"}}`: "[card]", `{"script":"ctx['card'] = '4111'"}`: "[card]", `{"script":{"source":"ctx.pay.cards[0].put('pan','4111')"}}`: "[pay.cards.pan]",
		`{"script":{"source":"def c = ctx.pay.cards[0]; c.pan = 1"}}`: "[pay.cards.pan]", `{"script":{"source":"ctx[params.f] = 1","params":{"f":"card"}}}`: "[card]", `{"script":{"source":"ctx[params.f] = 1","params":{"f":"x"}}}`: "built while it runs", `{"script":{"source":"ctx['ca' + 'rd'] = 1"}}`: "built while it runs", `{"script":{"source":"ctx.putAll(m)"}}`: "built while it runs",
		`{"foreach":{"field":"pay.cards","processor":{"set":{"field":"_ingest._value.pan","value":"4111"}}}}`: "[pay.cards.pan]", `{"foreach":{"field":"card","processor":{"trim":{"field":"_ingest._value"}}}}`: "[card]", `{"foreach":{"field":"pay","processor":{"foreach":{"field":"_ingest._value.cards","processor":{"remove":{"field":"_ingest._value.pan"}}}}}}`: "[pay.cards.pan]",
		`{"foreach":{"field":"x","processor":{"reroute":{}}}}`: "another index", `{"drop":{"if":"ctx.card == '4111'"}}`: "literals", `{"inference":{"model_id":"m","field_map":{"a":"card"}}}`: "[card]", `{"inference":{"model_id":"m","input_output":[{"input_field":"a","output_field":"card"}]}}`: "[card]", `{"enrich":{"policy_name":"p","field":"a","target_field":"key"}}`: "[key]",
		`{"dot_expander":{"field":"*","on_failure":[{"set":{"field":"card","value":"4111"}}]}}`: "[card]", `{"fancy_plugin":{"target_field":"card"}}`: "[card]",
	} {
		fault := "esproxy_pipeline_refused"
		if says == "literals" {
			fault = "esproxy_protected_query"
		}
		for _, body := range []string{`{"processors":[{"trim":{"field":"a"}},` + processor + `]}`, `{"processors":[],"on_failure":[` + processor + `]}`} {
			_, err := e.control(controlPipeline, e.Policy.Rules, []byte(body))
			controlWantFault(t, body, err, fault, says)
		}
	}
}

func FuzzControl(f *testing.F) {
	e := controlEngine(f)
	f.Add(uint8(controlCreate), []byte(`{"mappings":{"properties":{"pay":{"properties":{"cards":{"type":"nested"}}},"card":{"type":"keyword","index":false,"doc_values":false}},"_source":{"excludes":["a"]}}}`))
	f.Add(uint8(controlIndexTemplate), []byte(`{"index_patterns":["user-*"],"template":{"aliases":{"a":{"filter":{"term":{"x":1}}}},"settings":{"index":{"a":1}}}}`))
	f.Add(uint8(controlPipeline), []byte(`{"processors":[{"foreach":{"field":"a","processor":{"script":{"source":"ctx.a=1"}}}},{"grok":{"patterns":["%{A:b}"]}},{"kv":{"prefix":"x"}}]}`))
	f.Add(uint8(controlAliases), []byte(`{"actions":[{"add":{"filter":{"term":{"a":1}}}}]}`))
	f.Add(uint8(controlMapping), []byte(`{"properties":null,"runtime":{"a":{"type":"composite","fields":{"b":{}}}}}`))
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		k := controlKind(kind % uint8(controlAliases+1))
		got, err := e.control(k, e.Policy.Rules, body)
		if err != nil {
			var fault *Fault
			if !errors.As(err, &fault) {
				t.Fatalf("%T is no fault", err)
			}
			return
		}
		if len(got) > 0 && strings.TrimSpace(string(got)) != "" && strictJSON(got) != nil {
			t.Fatalf("%q became %q", body, got)
		}
		again, err := e.control(k, e.Policy.Rules, got)
		if err != nil || string(again) != string(got) {
			t.Fatalf("the second time %q became %q, %v", got, again, err)
		}
	})
}

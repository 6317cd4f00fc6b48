package rewrite

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sentinelEngine(t *testing.T) *Engine {
	return &Engine{Policy: fakePolicy(t, `version: 1
rules:
  - name: users
    indices: ["user", "user-*"]
    sentinel: required
    fields:
      card: {mode: encrypt}
  - name: shop
    indices: ["shop-*"]
    sentinel: on
    fields:
      key: {mode: encrypt}
  - name: plain
    indices: ["plain-*"]
    fields:
      pin: {mode: encrypt}
`)}
}

func TestControlAddsSentinels(t *testing.T) {
	e := sentinelEngine(t)
	member := func(i int) string {
		name, definition := Sentinel(e.Policy.Rules[i])
		return `"` + name + `":` + string(definition)
	}
	users, shop := member(0), member(1)
	fill := strings.NewReplacer("SEALED", SealedMapping, "USERS", users, "SHOP", shop)
	for _, c := range []struct {
		name     string
		kind     controlKind
		rule     int
		in, want string
	}{
		{"no body", controlCreate, 0, ``, `{"mappings":{"properties":{USERS,"card":SEALED}}}`},
		{"on", controlCreate, 1, `{}`, `{"mappings":{"properties":{SHOP,"key":SEALED}}}`},
		{"off", controlCreate, 2, `{}`, `{"mappings":{"properties":{"pin":SEALED}}}`},
		{"beside the field", controlCreate, 0, `{"mappings":{"properties":{"card":SEALED}}}`, `{"mappings":{"properties":{"card":SEALED,USERS}}}`},
		{"there already", controlCreate, 0, `{"mappings":{"properties":{USERS,"card":SEALED}}}`, `{"mappings":{"properties":{USERS,"card":SEALED}}}`},
		{"that of another rule, copied", controlCreate, 0, `{"mappings":{"properties":{SHOP}}}`, `{"mappings":{"properties":{SHOP,USERS,"card":SEALED}}}`},
		{"nothing mapped", controlCreate, 0, `{"mappings":{"enabled":false}}`, `{"mappings":{"enabled":false,"properties":{USERS}}}`},
		{"a runtime field of the name is removed", controlCreate, 2, `{"mappings":{"runtime":{"esproxy_key_x":null}}}`, `{"mappings":{"runtime":{"esproxy_key_x":null},"properties":{"pin":SEALED}}}`},
		{"put mapping", controlMapping, 0, `{}`, `{"properties":{"card":SEALED}}`},
		{"put mapping with it", controlMapping, 0, `{"properties":{USERS,"card":SEALED}}`, `{"properties":{USERS,"card":SEALED}}`},
		{"index template", controlIndexTemplate, -1, `{"index_patterns":["user-a"]}`, `{"index_patterns":["user-a"],"template":{"mappings":{"properties":{USERS,"card":SEALED}}}}`},
		{"index template of more than the rule", controlIndexTemplate, -1, `{"index_patterns":["user-a","logs"]}`, `{"index_patterns":["user-a","logs"]}`},
		{"legacy template", controlLegacyTemplate, -1, `{"index_patterns":["shop-*"]}`, `{"index_patterns":["shop-*"],"mappings":{"properties":{SHOP,"key":SEALED}}}`},
		{"component template", controlComponentTemplate, -1, `{"template":{"mappings":{"properties":{USERS}}}}`, `{"template":{"mappings":{"properties":{USERS}}}}`},
	} {
		rules := e.Policy.Rules
		if c.rule >= 0 {
			rules = rules[c.rule : c.rule+1]
		}
		got, err := e.control(c.kind, rules, []byte(fill.Replace(c.in)))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if d := cmp.Diff(fill.Replace(c.want), string(got)); d != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, d)
		}
		if again, err := e.control(c.kind, rules, got); err != nil || string(again) != string(got) {
			t.Errorf("%s, the second time: %s, %v", c.name, again, err)
		}
	}
}

func TestControlRefusesFalseSentinels(t *testing.T) {
	e := sentinelEngine(t)
	name, definition := Sentinel(e.Policy.Rules[0])
	other, _ := Sentinel(e.Policy.Rules[1])
	change := func(old, to string) string { return strings.Replace(string(definition), old, to, 1) }
	for why, properties := range map[string]string{
		"switched off":          `"` + name + `":` + change(`"fail"`, `"continue"`),
		"empty report":          `"` + name + `":` + change(`2147483647`, `1`),
		"another type":          `"` + name + `":{"type":"keyword"}`,
		"another script":        `"` + name + `":` + change(`throw`, `return; throw`),
		"another path":          `"` + name + `":` + change(`"card"`, `"cart"`),
		"another name":          `"` + other + `":` + string(definition),
		"a name of nobody":      `"esproxy_key_":{"type":"long"}`,
		"below the name":        `"` + name + `.x":{"type":"keyword"}`,
		"no object":             `"` + name + `":5`,
		"an escape in the name": `"\u0065sproxy_key_1":{"type":"long"}`,
	} {
		for kind, body := range map[controlKind]string{
			controlCreate:            `{"mappings":{"properties":{` + properties + `}}}`,
			controlMapping:           `{"properties":{` + properties + `}}`,
			controlIndexTemplate:     `{"index_patterns":["*"],"template":{"mappings":{"properties":{` + properties + `}}}}`,
			controlLegacyTemplate:    `{"index_patterns":["user"],"mappings":{"properties":{` + properties + `}}}`,
			controlComponentTemplate: `{"template":{"mappings":{"properties":{` + properties + `}}}}`,
		} {
			_, err := e.control(kind, e.Policy.Rules, []byte(body))
			if err == nil || asFault(err).Type != "esproxy_mapping_conflict" || !strings.Contains(err.Error(), SentinelPrefix) {
				t.Errorf("%s, kind %d: got %v", why, kind, err)
			}
		}
	}
	_, err := e.control(controlMapping, e.Policy.Rules[:1], []byte(`{"runtime":{"`+name+`":{"type":"keyword"}}}`))
	if err == nil || asFault(err).Type != "esproxy_mapping_conflict" {
		t.Errorf("runtime field: got %v", err)
	}
	_, err = e.guardQuery(e.Policy.Rules, []byte(`{"runtime_mappings":{"`+name+`":{"type":"keyword"}}}`))
	if err == nil || asFault(err).Type != "esproxy_protected_query" || !strings.Contains(err.Error(), SentinelPrefix) {
		t.Errorf("runtime mapping of a search: got %v", err)
	}
}

// TestControlWithoutPainless sees to it that a body is not refused by a server that cannot have what is only switched on.
func TestControlWithoutPainless(t *testing.T) {
	e := sentinelEngine(t)
	asked := 0
	e.CanHaveSentinels = func(context.Context) (bool, string) { asked++; return false, "" }
	r := &request{Engine: e, ctx: t.Context()}
	for i, want := range []bool{true, false} {
		got, err := r.control(controlCreate, e.Policy.Rules[i:i+1], []byte(`{}`))
		if err != nil || strings.Contains(string(got), SentinelPrefix) != want {
			t.Errorf("rule %d: got %s, %v", i, got, err)
		}
	}
	if asked != 1 {
		t.Errorf("the cluster was asked %d times, want once", asked)
	}
}

package cluster_test

import (
	"strings"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

const (
	withPainless    = `{"nodes":{"a":{"modules":[{"name":"x"},{"name":"lang-painless"}]},"b":{"plugins":[{"name":"lang-painless"}]}}}`
	withoutPainless = `{"nodes":{"a":{"modules":[{"name":"lang-painless"}]},"b":{"modules":[{"name":"x"}]}}}`
)

func sentinelRules(s policy.Sentinel) []*policy.Rule {
	rules := ruleOf("card")
	rules[0].Sentinel = s
	return rules
}

// sentinelMapping is a mapping with the field and the sentinel of the rules; change alters its definition.
func sentinelMapping(rules []*policy.Rule, change func(string) string) string {
	name, definition := rewrite.Sentinel(rules[0])
	return `{"properties":{"card":` + sealedMapping + `,"` + name + `":` + change(string(definition)) + `}}`
}

func same(s string) string { return s }

func TestCanHaveSentinels(t *testing.T) {
	for _, c := range []struct {
		plugins, root, why string
	}{
		{withPainless, `{"version":{"number":"8.19.8"}}`, ""},
		{withPainless, `{"version":{"distribution":"opensearch"}}`, "OpenSearch"},
		{withoutPainless, `{}`, "painless"},
		{`{}`, `{}`, ""},
	} {
		f := newFake(t)
		f.set("GET /_nodes/plugins", 200, c.plugins)
		f.set("GET /", 200, c.root)
		ok, why := f.cluster(cluster.Config{}).CanHaveSentinels(t.Context())
		if ok != (c.why == "") || !strings.Contains(why, c.why) {
			t.Errorf("%s: got %v, %q", c.plugins, ok, why)
		}
	}
}

func TestReadyJudgesSentinels(t *testing.T) {
	for _, tc := range []struct {
		name    string
		word    policy.Sentinel
		plugins string
		change  func(string) string // nil: the mapping has none
		fault   []string
		warn    []string
	}{
		{"there", policy.SentinelRequired, withPainless, same, nil, nil},
		{"missing", policy.SentinelRequired, withPainless, nil, []string{"[i]", "missing", "esproxy setup"}, nil},
		{"switched off", policy.SentinelRequired, withPainless, func(s string) string { return strings.Replace(s, `"fail"`, `"continue"`, 1) }, []string{"on_script_error"}, nil},
		{"altered", policy.SentinelRequired, withPainless, func(s string) string { return strings.Replace(s, `throw`, `//`, 1) }, []string{"defined otherwise"}, nil},
		{"no painless", policy.SentinelRequired, withoutPainless, nil, []string{"no painless"}, nil},
		{"missing where it is on", policy.SentinelOn, withPainless, nil, nil, []string{"index=i", "missing", "esproxy setup"}},
		{"no painless where it is on", policy.SentinelOn, withoutPainless, nil, nil, []string{"no painless", "sentinel: off"}},
		{"off", policy.SentinelOff, withPainless, nil, nil, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f, clk := newFake(t), newClock()
			var logs logBuffer
			rules := sentinelRules(tc.word)
			mapping := `{"properties":{"card":` + sealedMapping + `}}`
			if tc.change != nil {
				mapping = sentinelMapping(rules, tc.change)
			}
			f.set("GET /_alias", 200, `{"i":{"aliases":{}}}`)
			f.set("GET /_nodes/plugins", 200, tc.plugins)
			f.set("GET /i/_mapping", 200, `{"i":{"mappings":`+mapping+`}}`)
			f.on("PUT /i/_mapping", func(_, body string) (int, string) {
				t.Errorf("something was put into an index that takes writes: %s", body)
				return 200, `{}`
			})
			c := f.cluster(cluster.Config{Log: logs.logger(), Now: clk.now})
			err := c.Ready(t.Context(), f.caller(), "i", rules)
			if tc.fault == nil && err != nil {
				t.Fatal(err)
			}
			if tc.fault != nil {
				wantFault(t, err, 503, cluster.FaultSentinel, tc.fault...)
				asked := f.count("own GET /i/_mapping")
				wantFault(t, c.Ready(t.Context(), f.caller(), "i", rules), 503, cluster.FaultSentinel)
				if got := f.count("own GET /i/_mapping"); got != asked {
					t.Errorf("the refusal was not kept: %d questions, then %d", asked, got)
				}
				f.set("GET /i/_mapping", 200, `{"i":{"mappings":`+sentinelMapping(rules, same)+`}}`) // setup ran
				clk.move(time.Minute)
				if err := c.Ready(t.Context(), f.caller(), "i", rules); err != nil {
					t.Errorf("after setup: %v", err)
				}
			}
			for _, w := range tc.warn {
				if !strings.Contains(logs.String(), w) {
					t.Errorf("no %q in %s", w, logs.String())
				}
			}
			if tc.warn == nil && logs.String() != "" {
				t.Errorf("logged %s", logs.String())
			}
		})
	}
}

func TestReadyCreatesWithSentinel(t *testing.T) {
	name, _ := rewrite.Sentinel(ruleOf("card")[0])
	for _, tc := range []struct {
		name    string
		word    policy.Sentinel
		plugins string
		takes   func(body string) bool // what the server takes
		bodies  string                 // s: the sentinel is in the body, f: the field is, -: neither
		fault   bool
	}{
		{"required", policy.SentinelRequired, withPainless, func(string) bool { return true }, "sf", false},
		{"on", policy.SentinelOn, withPainless, func(string) bool { return true }, "sf", false},
		{"on, no painless", policy.SentinelOn, withoutPainless, func(string) bool { return true }, "f", false},
		{"required, no painless", policy.SentinelRequired, withoutPainless, func(b string) bool { return !strings.Contains(b, name) }, "sf s", true},
		{"on, refused", policy.SentinelOn, withPainless, func(b string) bool { return !strings.Contains(b, name) }, "sf s f", false},
		{"the field is refused", policy.SentinelRequired, withPainless, func(b string) bool { return !strings.Contains(b, `"card":`+sealedMapping) }, "sf s", false},
		{"on, all is refused", policy.SentinelOn, withPainless, func(b string) bool { return b == "" }, "sf s f -", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			f.set("GET /_nodes/plugins", 200, tc.plugins)
			var seen []string
			f.on("PUT /user", func(_, b string) (int, string) {
				s := ""
				if strings.Contains(b, name) {
					s += "s"
				}
				if strings.Contains(b, `"card":`+sealedMapping) {
					s += "f"
				}
				if s == "" {
					s = "-"
				}
				seen = append(seen, s)
				if !tc.takes(b) {
					return 400, `{"error":{"type":"mapper_parsing_exception"}}`
				}
				if b == "" {
					b = `{"mappings":{}}`
				}
				f.set("GET /_alias", 200, `{"user":{"aliases":{}}}`)
				f.set("GET /user/_mapping", 200, `{"user":`+b+`}`)
				return 200, `{"acknowledged":true}`
			})
			f.set("PUT /user/_mapping", 200, `{}`)
			var logs logBuffer
			err := f.cluster(cluster.Config{Log: logs.logger()}).Ready(t.Context(), f.caller(), "user", sentinelRules(tc.word))
			if tc.fault {
				wantFault(t, err, 503, cluster.FaultSentinel, "painless")
			} else if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(seen, " "); got != tc.bodies {
				t.Errorf("bodies %q, want %q", got, tc.bodies)
			}
		})
	}
}

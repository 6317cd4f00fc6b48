package cluster_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// liveIndex makes the fake hold one index "user" that takes writes, with one document.
func liveIndex(f *fake, document string) (settings *[]string, mapping *string) {
	settings, mapping = new([]string), new(string)
	*mapping = `{"properties":{"card":` + sealedMapping + `}}`
	f.set("GET /_alias", 200, `{"user":{"aliases":{}}}`)
	f.set("GET /_nodes/plugins", 200, withPainless)
	f.set("GET /_component_template", 200, `{"component_templates":[]}`)
	f.on("GET /user/_mapping", func(string, string) (int, string) { return 200, `{"user":{"mappings":` + *mapping + `}}` })
	f.on("PUT /user/_mapping", func(_, body string) (int, string) {
		*settings = append(*settings, "mapping")
		*mapping = body
		return 200, `{"acknowledged":true}`
	})
	f.set("GET /user/_settings/index.blocks.*,index.verified_before_close", 200, `{"user":{"settings":{}}}`)
	f.on("PUT /user/_block/write", func(string, string) (int, string) {
		*settings = append(*settings, "block")
		return 200, `{"acknowledged":true,"shards_acknowledged":true}`
	})
	f.on("PUT /user/_settings", func(_, body string) (int, string) {
		*settings = append(*settings, body)
		return 200, `{"acknowledged":true}`
	})
	f.set("POST /user/_refresh", 200, `{"_shards":{"failed":0}}`)
	f.set("POST /user/_count", 200, `{"count":1}`)
	f.set("POST /user/_search", 200, `{"_scroll_id":"s","hits":{"hits":[{"_id":"1","_source":`+document+`}]}}`)
	f.set("POST /_search/scroll", 200, `{"_scroll_id":"s","hits":{"hits":[]}}`)
	f.set("DELETE /_search/scroll", 200, `{}`)
	f.set("POST /user/_flush", 200, `{"_shards":{"failed":0}}`)
	f.set("GET /_cluster/health/user", 200, `{"status":"green","indices":{"user":{"number_of_shards":1}}}`)
	f.set("GET /user/_stats/translog", 200, `{"indices":{"user":{"shards":{"0":[{"routing":{"state":"STARTED","node":"a"},"seq_no":{"max_seq_no":0,"global_checkpoint":0},"commit":{"user_data":{"local_checkpoint":"0","max_seq_no":"0"}}}]}}}}`)
	return settings, mapping
}

func setupOf(f *fake, word policy.Sentinel) *cluster.Cluster {
	r := ruleFields(word)
	return f.cluster(cluster.Config{Policy: func() *policy.Policy { return r }})
}

func ruleFields(word policy.Sentinel) *policy.Policy {
	p, err := policy.Parse("test.yaml", []byte("version: 1\nrules:\n  - {name: users, indices: [user], sentinel: '"+word.String()+"', fields: {card: {mode: encrypt}}}\n"))
	if err != nil {
		panic(err)
	}
	return p
}

func TestInstallOnLiveIndex(t *testing.T) {
	const lifted = `{"index.blocks.write":null}`
	sealed := `"esp1.` + strings.Repeat("A", 211) + `"`
	for _, tc := range []struct {
		name, document string
		change         func(f *fake)
		word           policy.Sentinel
		did            string
		plain          int64
		refused        string
	}{
		{"sealed", `{"card":` + sealed + `}`, nil, policy.SentinelOn, "block mapping " + lifted, 0, ""},
		{"off", `{"card":1}`, nil, policy.SentinelOff, "", 0, ""},
		{"plain", `{"card":"4111"}`, nil, policy.SentinelOn, "block " + lifted, 1, "plain values"},
		{"plain below", `{"card.x":null}`, nil, policy.SentinelOn, "block " + lifted, 1, "plain values"},
		{"sealed in an array", `{"card":[` + sealed + `]}`, nil, policy.SentinelOn, "block " + lifted, 1, "plain values"},
		{"cut short", `{"card":"esp1.AAAA"}`, nil, policy.SentinelOn, "block " + lifted, 1, "plain values"},
		{"overlong UTF-8", "{\"\xC1\xA3ard\":1}", nil, policy.SentinelOn, "block " + lifted, 1, "plain values"},
		{"blocked before", `{}`, func(f *fake) {
			f.set("GET /user/_settings/index.blocks.*,index.verified_before_close", 200, `{"user":{"settings":{"index.blocks.write":"true"}}}`)
		}, policy.SentinelOn, "mapping", 0, ""},
		{"explicitly unblocked before", `{}`, func(f *fake) {
			f.set("GET /user/_settings/index.blocks.*,index.verified_before_close", 200, `{"user":{"settings":{"index.blocks.write":"false"}}}`)
		}, policy.SentinelOn, `block mapping {"index.blocks.write":"false"}`, 0, ""},
		{"closed", `{}`, func(f *fake) {
			f.set("GET /user/_settings/index.blocks.*,index.verified_before_close", 200, `{"user":{"settings":{"index.verified_before_close":"true"}}}`)
		}, policy.SentinelOn, "", 0, "closed"},
		{"no painless", `{}`, func(f *fake) { f.set("GET /_nodes/plugins", 200, withoutPainless) }, policy.SentinelOn, "", 0, "no painless"},
		{"the block is not everywhere", `{}`, func(f *fake) {
			f.set("PUT /user/_block/write", 200, `{"acknowledged":true,"shards_acknowledged":false}`)
		}, policy.SentinelOn, lifted, 0, "not all shards"},
		{"the server refuses", `{}`, func(f *fake) {
			f.set("PUT /user/_mapping", 400, `{"error":{"type":"mapper_parsing_exception","reason":"4111"}}`)
		}, policy.SentinelOn, "block " + lifted, 0, "mapper_parsing_exception"},
		{"it can't be unblocked", `{}`, func(f *fake) { f.set("PUT /user/_settings", 500, `{}`) }, policy.SentinelOn, "block mapping", 0, "WRITES ARE STILL BLOCKED"},
		{"no answer while it is read", `{}`, func(f *fake) { f.set("POST /user/_count", 503, `{}`) }, policy.SentinelOn, "block " + lifted, 0, "503"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFake(t)
			did, mapping := liveIndex(f, tc.document)
			if tc.change != nil {
				tc.change(f)
			}
			r, err := setupOf(f, tc.word).Install(t.Context(), cluster.Setup{})
			if err != nil || len(r.Indices) != 1 {
				t.Fatalf("got %+v, %v", r, err)
			}
			i := r.Indices[0]
			if got := strings.Join(*did, " "); got != tc.did {
				t.Errorf("did %s, want %s", got, tc.did)
			}
			if i.Plain != tc.plain || !strings.Contains(i.Refused, tc.refused) || (i.Refused == "") != (tc.refused == "") || (r.Refused == 0) != (tc.refused == "") {
				t.Errorf("got %+v", i)
			}
			if strings.Contains(i.Refused, "4111") {
				t.Errorf("it quotes a value: %s", i.Refused)
			}
			if tc.refused == "" && tc.word == policy.SentinelOn {
				if !rewrite.JudgeSentinel([]byte(*mapping), ruleFields(tc.word).Rules[0]).Guards() || i.Sentinels[0].State != "added" {
					t.Errorf("the sentinel is not there: %+v", i)
				}
			}
		})
	}
}

func TestInstallInterrupted(t *testing.T) {
	f := newFake(t)
	did, _ := liveIndex(f, `{}`)
	ctx, cancel := context.WithCancel(t.Context())
	f.on("POST /user/_search", func(string, string) (int, string) {
		cancel()
		return 200, `{}`
	})
	_, err := setupOf(f, policy.SentinelOn).Install(ctx, cluster.Setup{})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if got := strings.Join(*did, " "); got != `block {"index.blocks.write":null}` {
		t.Errorf("did %s", got)
	}
}

func TestInstallDryRun(t *testing.T) {
	f := newFake(t)
	did, _ := liveIndex(f, `{}`)
	f.set("GET /_index_template", 200, `{"index_templates":[{"name":"t","index_template":{"index_patterns":["user"],"created_date":"x"}},{"name":"wide","index_template":{"index_patterns":["*"]}}]}`)
	r, err := setupOf(f, policy.SentinelOn).Install(t.Context(), cluster.Setup{DryRun: true})
	if err != nil || len(*did) > 0 {
		t.Fatalf("did %v, %v", *did, err)
	}
	if len(r.Templates) != 1 || r.Templates[0].State != "to be added" || r.Indices[0].Sentinels[0].State != "to be added" {
		t.Errorf("got %+v", r)
	}
	for _, a := range f.take() {
		if strings.Contains(a, " PUT ") || strings.Contains(a, "_flush") {
			t.Errorf("asked %s", a)
		}
	}
}

func TestInstallTemplates(t *testing.T) {
	f := newFake(t)
	liveIndex(f, `{}`)
	f.set("GET /_alias", 200, `{}`)
	body := `{"index_patterns":["user"],"template":{"settings":{"a":1}}}`
	f.on("GET /_index_template", func(string, string) (int, string) {
		return 200, `{"index_templates":[{"name":"t","index_template":` + body + `}]}`
	})
	f.on("PUT /_index_template/t", func(_, b string) (int, string) { body = b; return 200, `{"acknowledged":true}` })
	name, _ := rewrite.Sentinel(ruleFields(policy.SentinelOn).Rules[0])
	for _, want := range []string{"added", "complete"} {
		r, err := setupOf(f, policy.SentinelOn).Install(t.Context(), cluster.Setup{})
		if err != nil || len(r.Templates) != 1 || r.Templates[0].State != want || r.Refused != 0 {
			t.Errorf("got %+v, %v, want %s", r, err, want)
		}
	}
	if !strings.Contains(body, name) || !strings.Contains(body, sealedMapping) {
		t.Errorf("put %s", body)
	}
	body = `{"index_patterns":["user"],"template":{"mappings":{"properties":{"` + name + `":{"type":"keyword"}}}}}`
	if r, err := setupOf(f, policy.SentinelOn).Install(t.Context(), cluster.Setup{}); err != nil || r.Refused != 1 || !strings.Contains(r.Templates[0].Refused, name[:12]) {
		t.Errorf("a template with a false sentinel: %+v, %v", r, err)
	}
}

package test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// sentinelPlain is what must not get into a protected index, from whatever side.
const sentinelPlain = "4929 0000 CANARY"

const sentinelPolicy = `
version: 1
rules:
  - name: users
    indices: ["$Puser", "$Puser-*"]
    subject: username
    sentinel: required
    scripts: allow
    fields:
      card: {mode: encrypt}
      payment.cards.pan: {mode: encrypt}
      pin: {mode: drop}
`

// canHaveSentinels asks the server as a person would: by a mapping with a script.
func (s *stack) canHaveSentinels() bool {
	s.t.Helper()
	a := s.direct("PUT", "/$Pprobe", `{"mappings":{"properties":{"x":{"type":"keyword","script":{"source":"emit('x')"}}}}}`)
	s.direct("DELETE", "/$Pprobe", "")
	if a.status != 200 && !strings.Contains(a.body, "painless") && !strings.Contains(a.body, "[script]") {
		s.t.Fatalf("a mapping with a script: %s", a.body)
	}
	return a.status == 200
}

func (s *stack) setup(t *testing.T, want int, args ...string) (report gjson.Result, errs string) {
	t.Helper()
	env := append(append([]string{}, s.env...), "ELASTICSEARCH_URL="+s.server)
	out, errs, code := s.commandEnv("", env, append([]string{"setup", "--json"}, args...)...)
	if code != want || !gjson.Valid(out) {
		t.Fatalf("setup %v: exit status %d, want %d\n%s\n%s", args, code, want, out, errs)
	}
	if strings.Contains(out+errs, sentinelPlain) {
		t.Errorf("setup shows a value:\n%s\n%s", out, errs)
	}
	return gjson.Parse(out), errs
}

// TestSentinelStopsWritersAroundTheProxy writes plain values straight to the server in every way there is.
func TestSentinelStopsWritersAroundTheProxy(t *testing.T) {
	needReal(t)
	s := start(t, config{policy: sentinelPolicy})
	sealed := `{"username":"ana","card":"` + sentinelPlain + `","payment":{"cards":[{"pan":"1"},{"pan":null},[{"pan":"2"}]]},"pin":"0000"}`
	if !s.canHaveSentinels() {
		a := s.must(s.do("PUT", "/$Puser/_doc/1", sealed), 503)
		if a.json("error.type").String() != "esproxy_sentinel_missing" || !strings.Contains(a.body, "painless") {
			t.Errorf("a write where sentinels are required and can't be: %s", a.body)
		}
		if leak := s.rec.leaks(0, sentinelPlain); leak != "" {
			t.Errorf("sent:\n%s", leak)
		}
		s.must(s.direct("PUT", "/$Puser", `{}`), 200)
		report, _ := s.setup(t, 1)
		if why := report.Get("indices.0.refused").String(); !strings.Contains(why, "painless") {
			t.Errorf("setup says %q", why)
		}
		if got := report.Get("indices.0.mapping").String(); got != "added" {
			t.Errorf("the mapping is %s", got)
		}
		if report, _ := s.setup(t, 0, "--sentinel", "off"); report.Get("indices.0.sentinels.0.state").String() != "off" {
			t.Errorf("without sentinels: %s", report)
		}
		s.writePolicy(strings.Replace(sentinelPolicy, "required", "on", 1))
		s.must(s.reload(), 200)
		s.must(s.do("PUT", "/$Puser-on", `{"mappings":{"properties":{"a":{"type":"long"}}}}`), 200)
		s.must(s.do("PUT", "/$Puser/_doc/1", sealed), 201)
		waitFor(t, "the warning", func() bool { return strings.Contains(s.log.String(), "can't have them") })
		return
	}
	s.must(s.do("PUT", "/$Puser/_doc/1?refresh=true", sealed), 201)
	s.must(s.do("POST", "/$Puser/_update/1", `{"doc":{"username":"ana","card":"other"}}`), 200)
	token := s.must(s.direct("GET", "/$Puser/_doc/1?filter_path=_source.card", ""), 200).json("_source.card").String()
	s.must(s.direct("PUT", "/$Pfree/_doc/1?refresh=true", `{"username":"ana","card":"`+sentinelPlain+`"}`), 201)
	s.must(s.direct("PUT", "/$Pfree/_doc/2?refresh=true", `{"username":"ana","free":"`+sentinelPlain+`"}`), 201)
	s.must(s.direct("PUT", "/_ingest/pipeline/"+s.prefix+"rename", `{"processors":[{"rename":{"field":"free","target_field":"card"}}]}`), 200)
	t.Cleanup(func() { s.direct("DELETE", "/_ingest/pipeline/"+s.prefix+"rename", "") })
	refused := func(what string, a answer) {
		t.Helper()
		if !strings.Contains(a.body, "write through the proxy") && !strings.Contains(a.body, "script_exception") && !strings.Contains(a.body, "failed to parse field [card]") {
			t.Errorf("%s passed: %d %s", what, a.status, tail(a.body, 500))
		}
		if strings.Contains(a.body, sentinelPlain) {
			t.Errorf("%s: the refusal quotes the value", what)
		}
	}
	plain, _ := json.Marshal(sentinelPlain)
	v := string(plain)
	for _, doc := range []string{
		`{"card":` + v + `}`, `{"card.":` + v + `}`, `{"c\u0061rd":` + v + `}`, `{"card":5}`, `{"card":[` + v + `]}`, `{"card":{"x":1}}`, `{"card":["` + token + `"]}`,
		`{"card":"` + token + `x="}`, `{"card":" ` + token + `"}`, `{"card":"` + token + `\n"}`, `{"card":"esp1.` + strings.Repeat("A", 210) + `"}`,
		`{"payment":{"cards":{"pan":` + v + `}}}`, `{"payment":{"cards":[{"pan":"` + token + `"},{"pan":` + v + `}]}}`, `{"payment":{"cards":[[{"pan":` + v + `}]]}}`,
		`{"payment.cards.pan":` + v + `}`, `{"payment.cards":[{"pan":` + v + `}]}`, `{"payment":{"cards.pan":` + v + `}}`, `{"payment.":{"cards.":{"pan.":` + v + `}}}`,
		`{"pin":"0000"}`, `{"pin":[]}`, `{"pin":false}`,
	} {
		refused("index "+doc, s.direct("POST", "/$Puser/_doc", doc))
	}
	refused("create", s.direct("PUT", "/$Puser/_create/9", `{"card":`+v+`}`))
	refused("update", s.direct("POST", "/$Puser/_update/1", `{"doc":{"card":`+v+`}}`))
	refused("upsert", s.direct("POST", "/$Puser/_update/9", `{"doc":{"card":`+v+`},"doc_as_upsert":true}`))
	refused("scripted update", s.direct("POST", "/$Puser/_update/1", `{"script":{"source":"ctx._source.card = params.v","params":{"v":`+v+`}}}`))
	refused("scripted update through the proxy", s.do("POST", "/$Puser/_update/1", `{"script":{"source":"ctx._source['ca'+'rd'] = ctx._source.username"}}`))
	refused("bulk", s.direct("POST", "/$Puser/_bulk", `{"index":{}}`+"\n"+`{"card":`+v+"}\n"))
	refused("bulk update", s.direct("POST", "/$Puser/_bulk", `{"update":{"_id":"1"}}`+"\n"+`{"doc":{"card":`+v+"}}\n"))
	refused("update by query", s.direct("POST", "/$Puser/_update_by_query?conflicts=proceed", `{"script":{"source":"ctx._source.card = 'x'"}}`))
	refused("reindex", s.direct("POST", "/_reindex", `{"source":{"index":"$Pfree","query":{"ids":{"values":["1"]}}},"dest":{"index":"$Puser"}}`))
	refused("pipeline", s.direct("PUT", "/$Puser/_doc/9?pipeline=$Prename", `{"free":`+v+`}`))
	refused("reindex with a pipeline", s.direct("POST", "/_reindex", `{"source":{"index":"$Pfree","query":{"ids":{"values":["2"]}}},"dest":{"index":"$Puser","pipeline":"$Prename"}}`))

	// What is sealed, null or elsewhere goes on.
	s.must(s.direct("PUT", "/$Puser/_doc/2", `{"username":"ana","card":null,"pin":null,"x":{"card":`+v+`},"cards":1,"payment":{"cards":[{"pan":"`+token+`"},{}]}}`), 201)
	s.must(s.direct("POST", "/_reindex?refresh=true", `{"source":{"index":"$Puser"},"dest":{"index":"$Puser-copy"}}`), 200)
	s.must(s.do("POST", "/$Puser/_bulk?refresh=true", `{"index":{"_id":"3"}}`+"\n"+sealed+"\n"+`{"update":{"_id":"1"}}`+"\n"+`{"doc":{"username":"ana","card":"third"}}`+"\n"), 200)
	if got := s.must(s.as("full", "GET", "/$Puser/_doc/1", ""), 200).json("_source.card").String(); got != "third" {
		t.Errorf("got %q back", got)
	}
	a := s.must(s.direct("POST", "/$Puser/_search?q=username:ana&filter_path=hits.hits._source.card,hits.hits._source.payment,hits.hits._source.pin", ""), 200)
	if strings.Contains(a.body, sentinelPlain) {
		t.Errorf("a plain value is stored: %s", a.body)
	}
	// The report.
	name := ""
	s.must(s.direct("GET", "/$Puser/_mapping", ""), 200).json("*.mappings.properties").ForEach(func(k, _ gjson.Result) bool {
		if strings.HasPrefix(k.String(), "esproxy_key_") {
			name = k.String()
		}
		return true
	})
	a = s.must(s.direct("POST", "/$Puser/_search", `{"size":0,"aggs":{"keys":{"terms":{"field":"`+name+`"}}}}`), 200)
	for _, b := range a.json("aggregations.keys.buckets").Array() {
		if !strings.HasPrefix(b.Get("key").String(), "card:") && !strings.HasPrefix(b.Get("key").String(), "payment.cards.pan:") {
			t.Errorf("a term is %s", b)
		}
	}
	// It can't be switched off or hidden through the proxy.
	for body, status := range map[string]int{
		`{"properties":{"` + name + `":{"type":"keyword","on_script_error":"continue"}}}`: 400,
		`{"runtime":{"` + name + `":{"type":"keyword"}}}`:                                 400,
	} {
		s.must(s.do("PUT", "/$Puser/_mapping", body), status)
	}
	s.must(s.do("POST", "/$Puser/_search", `{"runtime_mappings":{"`+name+`":{"type":"keyword"}}}`), 400)
}

// TestSetupOfLiveIndices takes indices as they are: with plain values, with blocks, and templates.
func TestSetupOfLiveIndices(t *testing.T) {
	needReal(t)
	s := start(t, config{policy: sentinelPolicy})
	if !s.canHaveSentinels() {
		s.must(s.direct("PUT", "/$Puser", `{}`), 200)
		report, errs := s.setup(t, 1, "--dry-run")
		if !strings.Contains(report.Get("indices.0.refused").String(), "painless") || !strings.Contains(errs, "not as the policy wants") {
			t.Errorf("got %s, %s", report, errs)
		}
		return
	}
	s.must(s.direct("PUT", "/$Puser", `{"settings":{"number_of_shards":2}}`), 200)
	s.must(s.direct("PUT", "/$Puser-off", `{"settings":{"index.blocks.write":true}}`), 200)
	s.must(s.direct("PUT", "/$Puser-ro", `{"settings":{"index.blocks.read_only":true}}`), 200)
	t.Cleanup(func() { s.direct("PUT", "/$Puser-ro/_settings", `{"index.blocks.read_only":null}`) })
	s.must(s.direct("PUT", "/_index_template/$Pa", `{"index_patterns":["$Puser-new-*"],"priority":500,"template":{"settings":{"number_of_shards":1}}}`), 200)
	s.must(s.direct("PUT", "/_template/$Pb", `{"index_patterns":["$Puser-old-*"],"mappings":{"properties":{"a":{"type":"long"}}}}`), 200)
	t.Cleanup(func() {
		s.direct("DELETE", "/_index_template/$Pa", "")
		s.direct("DELETE", "/_template/$Pb", "")
	})
	refusal := s.must(s.do("PUT", "/$Puser/_doc/1", `{"username":"ana","card":"1"}`), 503)
	if !strings.Contains(refusal.body, "esproxy setup") {
		t.Errorf("a write to an index without its sentinel: %s", refusal.body)
	}
	s.must(s.direct("PUT", "/$Puser/_doc/odd", `{"username":"ana","payment":[{"cards.pan":"`+sentinelPlain+`"}]}`), 201)
	block := func(index string) string {
		return s.must(s.direct("GET", "/$P"+index+"/_settings?flat_settings=true", ""), 200).json(`*.settings.index\.blocks\.write`).String()
	}
	entry := func(r gjson.Result, index string) gjson.Result {
		return r.Get(`indices.#(index=="` + s.prefix + index + `")`)
	}

	report, _ := s.setup(t, 1, "--dry-run")
	if e := entry(report, "user"); e.Get("plain").Int() != 1 || e.Get("plain_ids.0").String() != "odd" || e.Get("refused").String() == "" {
		t.Errorf("dry run: %s", e)
	}
	report, _ = s.setup(t, 1)
	if e := entry(report, "user"); e.Get("plain").Int() != 1 || e.Get("sentinels.0.state").String() != "missing" || e.Get("mapping").String() != "complete" {
		t.Errorf("with a plain value: %s", e)
	}
	if e := entry(report, "user-off"); e.Get("sentinels.0.state").String() != "added" || e.Get("refused").String() != "" {
		t.Errorf("an index that takes no writes: %s", e)
	}
	if e := entry(report, "user-ro"); !strings.Contains(e.Get("refused").String(), "read_only") && !strings.Contains(e.Get("refused").String(), "block") {
		t.Errorf("a read-only index: %s", e)
	}
	if got := report.Get(`templates.#(state=="added")#.template`).String(); !strings.Contains(got, s.prefix+"a") || !strings.Contains(got, s.prefix+"b") {
		t.Errorf("templates: %s", report.Get("templates"))
	}
	if got := block("user") + "," + block("user-off"); got != ",true" {
		t.Errorf("blocks are %q", got)
	}
	s.must(s.direct("PUT", "/$Puser-ro/_settings", `{"index.blocks.read_only":null}`), 200)
	s.must(s.direct("DELETE", "/$Puser/_doc/odd", ""), 200)
	report, errs := s.setup(t, 0)
	if e := entry(report, "user"); e.Get("sentinels.0.state").String() != "added" || !strings.Contains(errs, "blocking writes to "+s.prefix+"user ") {
		t.Errorf("repaired: %s, %s", e, errs)
	}
	report, errs = s.setup(t, 0)
	if strings.Contains(report.Raw, `"added"`) || strings.Contains(errs, "blocking") || block("user") != "" {
		t.Errorf("a second time: %s, %s", report, errs)
	}
	for _, index := range []string{"user", "user-new-1", "user-old-1"} {
		if a := s.direct("PUT", "/$P"+index+"/_doc/1", `{"username":"ana","card":"`+sentinelPlain+`"}`); a.status != 400 {
			t.Errorf("%s takes a plain value: %d %s", index, a.status, a.body)
		}
	}
	waitFor(t, "the proxy to see that setup ran", func() bool {
		return s.do("PUT", "/$Puser/_doc/1", `{"username":"ana","card":"1"}`).status < 300
	})
	s.must(s.do("PUT", "/$Puser-new-2/_doc/1", `{"username":"ana","card":"1"}`), 201)

	// Switched off around the proxy: setup mends it once nothing plain is there.
	name := entry(report, "user").Get("sentinels.0.name").String()
	def := s.must(s.direct("GET", "/$Puser/_mapping", ""), 200).json("*.mappings.properties." + name).Raw
	s.must(s.direct("PUT", "/$Puser/_mapping", `{"properties":{"`+name+`":`+strings.Replace(def, `{`, `{"on_script_error":"continue",`, 1)+`}}`), 200)
	s.must(s.direct("PUT", "/$Puser/_doc/2", `{"username":"ana","card":"`+sentinelPlain+`"}`), 201)
	report, _ = s.setup(t, 1)
	if e := entry(report, "user"); e.Get("plain_ids.0").String() != "2" {
		t.Errorf("switched off, with a plain value: %s", e)
	}
	s.must(s.direct("DELETE", "/$Puser/_doc/2", ""), 200)
	s.setup(t, 0, "--index", s.prefix+"user")
	if a := s.direct("PUT", "/$Puser/_doc/2", `{"card":"`+sentinelPlain+`"}`); a.status != 400 {
		t.Errorf("mended, it takes a plain value: %s", a.body)
	}
	if _, errs, code := s.command("", "setup", "--sentinel", "always"); code != 2 || !strings.Contains(errs, "off, on or required") {
		t.Errorf("a wrong word: %d %s", code, errs)
	}
}

package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

// Examination says what Examine looks at.
type Examination struct {
	// Sample is how many documents of each index are read at most, those that a sentinel has counted left out; 0: all of them.
	Sample int
	// Describe tells key id, suite and profile of a sealed value, and false for what is none.
	Describe func(token []byte) (Key, bool)
	// Only limits it to indices whose name matches one of these patterns; empty: all.
	Only []string
}

// Key says what a sealed value was sealed with.
type Key struct {
	ID     string `json:"key_id"`
	Suite  string `json:"suite"`
	Source string `json:"kdf,omitempty"` // empty for the usual one
}

// Report is the state of all protected indices, as far as the credentials may read.
type Report struct {
	Sentinels string           `json:"sentinels"` // "possible", or why this cluster can't have any
	Indices   []IndexReport    `json:"indices"`
	Templates []TemplateReport `json:"templates,omitempty"`
	Pipelines []PipelineReport `json:"pipelines,omitempty"`
	Problems  int              `json:"problems"` // all of them together
}

// IndexReport is the state of one concrete index.
type IndexReport struct {
	Index     string           `json:"index"`
	Stream    string           `json:"data_stream,omitempty"`
	Rules     []string         `json:"rules"`
	Documents int64            `json:"documents"`
	Fields    []FieldReport    `json:"fields"`
	Sentinels []SentinelReport `json:"sentinels"`
	Mapping   []Finding        `json:"mapping,omitempty"`
	Problems  []string         `json:"problems,omitempty"`
}

// FieldReport counts documents by what they hold at one field.
type FieldReport struct {
	Field   string     `json:"field"`   // rule.path
	Counted int64      `json:"counted"` // documents that the numbers below stand for
	Keys    []KeyCount `json:"keys"`    // sealed values, by key
	Without int64      `json:"without"` // documents that have no value there
	Plain   int64      `json:"plain"`   // documents with a value that is not sealed
	Example []string   `json:"plain_ids,omitempty"`
}

// KeyCount is the number of documents with values under one key.
type KeyCount struct {
	Key
	Documents int64  `json:"documents"`
	Loaded    string `json:"loaded"` // "yes", "no", or "unknown" without a key to compare
}

// SentinelReport is the state of one rule's sentinel.
type SentinelReport struct {
	Rule   string `json:"rule"`
	Name   string `json:"name"`
	State  string `json:"state"`
	Wanted string `json:"wanted"` // the rule's word: off, on or required
}

// Finding is something about a mapping that does not fit, and what repairs it.
type Finding struct {
	Field   string `json:"field,omitempty"`
	Problem string `json:"problem"`
	Repair  string `json:"repair"`
}

// TemplateReport is an index template that makes protected indices without what they need.
type TemplateReport struct {
	Template string `json:"template"`
	Problem  string `json:"problem"`
}

// PipelineReport is a stored pipeline that the proxy would refuse.
type PipelineReport struct {
	Pipeline string   `json:"pipeline"`
	Problem  string   `json:"problem"`
	UsedBy   []string `json:"used_by,omitempty"` // protected indices that have it as default or final pipeline
}

// examples is how many ids of documents with plain values a report gives for a field.
const examples = 3

// Examine looks at all indices that rules of the policy claim: mappings, sentinels, keys of stored values, plain values, pipelines
// and templates. It changes nothing. The error is a *rewrite.Fault when the cluster did not answer.
func (c *Cluster) Examine(ctx context.Context, x Examination) (*Report, error) {
	v, err := c.fresh(ctx)
	if err != nil {
		return nil, err
	}
	r := &Report{Indices: []IndexReport{}}
	r.Sentinels = "possible"
	can, why := c.CanHaveSentinels(ctx)
	if !can {
		r.Sentinels = why
	}
	pipelines := map[string][]string{} // by name: the indices that use it
	for _, name := range slices.Sorted(maps.Keys(v.indices)) {
		found, _ := v.resolve(name, false)
		rules, conflict := c.policy().Match(found.Names)
		if len(rules) == 0 && conflict == nil || found.Failures || len(x.Only) > 0 && !slices.ContainsFunc(x.Only, func(p string) bool { return policy.Glob(p, name) }) {
			continue
		}
		ir := IndexReport{Index: name, Stream: v.indices[name].stream, Fields: []FieldReport{}, Sentinels: []SentinelReport{}}
		if conflict != nil {
			ir.Problems = append(ir.Problems, conflict.Error())
		}
		for _, rule := range rules {
			ir.Rules = append(ir.Rules, rule.Name)
		}
		if err := c.examineIndex(ctx, x, &ir, rules, can, pipelines); err != nil {
			return nil, err
		}
		r.Indices = append(r.Indices, ir)
	}
	if err := c.examineTemplates(ctx, r); err != nil {
		return nil, err
	}
	if err := c.examinePipelines(ctx, r, pipelines); err != nil {
		return nil, err
	}
	r.Problems = len(r.Templates)
	for _, ir := range r.Indices {
		r.Problems += len(ir.Problems) + len(ir.Mapping)
	}
	for _, p := range r.Pipelines {
		r.Problems += min(len(p.UsedBy), 1)
	}
	return r, nil
}

func (c *Cluster) examineIndex(ctx context.Context, x Examination, ir *IndexReport, rules []*policy.Rule, can bool, pipelines map[string][]string) error {
	if len(rules) == 0 {
		return nil
	}
	mapping, found, err := c.readMapping(ctx, ir.Index)
	switch {
	case errors.Is(err, errDenied):
		ir.Problems = append(ir.Problems, "the credentials may not read its mapping")
		return nil
	case err != nil || !found:
		return err
	}
	plan := planMapping(mapping, rules)
	for _, w := range plan.warnings {
		ir.Mapping = append(ir.Mapping, Finding{w.path, w.problem, w.repair})
	}
	if f := rewrite.MappingFault(rules, []byte(mapping)); f != nil && len(plan.warnings) == 0 {
		ir.Mapping = append(ir.Mapping, Finding{"", f.Reason, "create a new index without it, and reindex through the proxy"})
	}
	if plan.lacking {
		ir.Mapping = append(ir.Mapping, Finding{"", "not all protected fields are mapped as sealed values need it", "esproxy setup --index " + ir.Index})
	}
	counted := map[*policy.Rule]string{} // sentinels whose terms can be counted
	for _, rule := range rules {
		name, _ := rewrite.Sentinel(rule)
		state := rewrite.JudgeSentinel([]byte(mapping), rule)
		ir.Sentinels = append(ir.Sentinels, SentinelReport{rule.Name, name, state.String(), rule.Sentinel.String()})
		if state == rewrite.SentinelSame || state == rewrite.SentinelOff {
			counted[rule] = name
		}
		switch {
		case state == rewrite.SentinelMissing && rule.Sentinel != policy.SentinelOff && !can:
			ir.Problems = append(ir.Problems, "rule "+rule.Name+" wants a sentinel, which this cluster can't have; say sentinel: off in the rule, or use Elasticsearch with all its modules")
		case state == rewrite.SentinelMissing && rule.Sentinel != policy.SentinelOff:
			ir.Problems = append(ir.Problems, "the sentinel of rule "+rule.Name+" is missing; run esproxy setup --index "+ir.Index)
		case state == rewrite.SentinelOff:
			ir.Problems = append(ir.Problems, "the sentinel of rule "+rule.Name+" is switched off by on_script_error: plain values pass it; run esproxy setup --index "+ir.Index)
		case state == rewrite.SentinelDiffers, state == rewrite.SentinelShadowed:
			ir.Problems = append(ir.Problems, "the sentinel of rule "+rule.Name+" is "+state.String()+"; make a new index and reindex")
		}
	}
	for _, name := range rewrite.OtherSentinels([]byte(mapping), rules) {
		ir.Sentinels = append(ir.Sentinels, SentinelReport{Name: name, State: "retired: of an earlier policy"})
	}
	if err := c.usedPipelines(ctx, ir.Index, pipelines); err != nil {
		return err
	}
	if ir.Documents, err = c.countOf(ctx, ir.Index, `{"match_all":{}}`); err == nil {
		for _, rule := range rules {
			if err = c.count(ctx, x, ir, rule, counted[rule]); err != nil {
				break
			}
		}
	}
	if errors.Is(err, errDenied) {
		ir.Problems = append(ir.Problems, "the credentials may not read its documents")
		return nil
	}
	return err
}

// tally counts documents for one field.
type tally struct {
	keys        map[Key]int64
	with, plain int64
	example     []string
}

// count counts documents by field and key: by the terms of a sentinel where there is one, and by reading the documents that have none.
func (c *Cluster) count(ctx context.Context, x Examination, ir *IndexReport, r *policy.Rule, sentinel string) error {
	tallies := map[*policy.Field]*tally{}
	var paths []string
	for _, f := range r.Fields {
		tallies[f] = &tally{keys: map[Key]int64{}}
		paths = append(paths, f.Parts[0]+"*") // a filter by the path itself would miss names that end in a dot
	}
	query := `{"match_all":{}}`
	if sentinel != "" {
		if err := c.countTerms(ctx, ir.Index, sentinel, tallies); err != nil {
			return err
		}
		query = `{"bool":{"must_not":{"exists":{"field":"` + sentinel + `"}}}}`
	}
	read, of, err := c.scan(ctx, ir.Index, query, paths, x.Sample, func(hit gjson.Result) { x.tally(r, tallies, hit) })
	if err != nil {
		return err
	}
	counted := ir.Documents - of + read
	for _, f := range r.Fields {
		t := tallies[f]
		fr := FieldReport{Field: r.Name + "." + f.Path, Counted: counted, Keys: []KeyCount{}, Without: max(counted-t.with, 0), Plain: t.plain, Example: t.example}
		for k, n := range t.keys {
			fr.Keys = append(fr.Keys, KeyCount{k, n, c.isLoaded(k.ID)})
			if c.isLoaded(k.ID) == "no" {
				ir.Problems = append(ir.Problems, "values of "+fr.Field+" lie under key "+k.ID+", which is not loaded; add it to MASTER_KEY_PREVIOUS")
			}
		}
		slices.SortFunc(fr.Keys, func(a, b KeyCount) int {
			return cmp.Or(cmp.Compare(b.Documents, a.Documents), strings.Compare(a.ID, b.ID), strings.Compare(a.Suite, b.Suite))
		})
		if t.plain > 0 {
			ir.Problems = append(ir.Problems, "plain values at "+fr.Field+"; write these documents again through the proxy")
		}
		ir.Fields = append(ir.Fields, fr)
	}
	return nil
}

func (c *Cluster) isLoaded(id string) string {
	switch {
	case len(c.loaded) == 0:
		return "unknown"
	case c.loaded[id]:
		return "yes"
	}
	return "no"
}

// tally adds one document that was read.
func (x *Examination) tally(r *policy.Rule, tallies map[*policy.Field]*tally, hit gjson.Result) {
	type seen struct {
		keys  map[Key]bool
		plain bool
	}
	here := map[*policy.Field]*seen{}
	eachProtected(hit.Get("_source"), []*policy.Rule{r}, func(f *policy.Field, v gjson.Result) {
		eachScalar(v, func(v gjson.Result) {
			s := here[f]
			if s == nil {
				s = &seen{keys: map[Key]bool{}}
				here[f] = s
			}
			if k, ok := x.Describe([]byte(v.String())); ok && v.Type == gjson.String && f.Mode == policy.Encrypt {
				s.keys[k] = true
			} else {
				s.plain = true
			}
		})
	})
	for f, s := range here {
		t := tallies[f]
		t.with++
		for k := range s.keys {
			t.keys[k]++
		}
		if s.plain {
			t.plain++
			if len(t.example) < examples {
				t.example = append(t.example, hit.Get("_id").String())
			}
		}
	}
}

// eachScalar calls visit for each value that is neither null nor an array; an object is one.
func eachScalar(v gjson.Result, visit func(gjson.Result)) {
	if v.IsArray() {
		v.ForEach(func(_, one gjson.Result) bool {
			eachScalar(one, visit)
			return true
		})
		return
	}
	if v.Type != gjson.Null {
		visit(v)
	}
}

// countTerms reads the terms of a sentinel.
func (c *Cluster) countTerms(ctx context.Context, index, sentinel string, tallies map[*policy.Field]*tally) error {
	aggs := map[string]any{"terms": map[string]any{"terms": map[string]any{"field": sentinel, "size": 10000}}}
	for f := range tallies {
		aggs["with "+f.Path] = map[string]any{"filter": map[string]any{"prefix": map[string]any{sentinel: f.Path + ":"}}}
	}
	body, err := json.Marshal(map[string]any{"size": 0, "aggs": aggs})
	if err != nil {
		return c.unknown(err)
	}
	status, reply, err := c.ask(ctx, c.own, http.MethodPost, "/"+url.PathEscape(index)+"/_search?request_cache=false", body, maxView)
	switch {
	case err != nil:
		return c.unknown(err)
	case isDenied(status):
		return errDenied
	case status != http.StatusOK || !gjson.ValidBytes(reply):
		return unanswered(status, reply)
	}
	gjson.GetBytes(reply, "aggregations").ForEach(func(name, agg gjson.Result) bool {
		for f, t := range tallies {
			if name.String() == "with "+f.Path {
				t.with = agg.Get("doc_count").Int()
			}
		}
		for _, bucket := range agg.Get("buckets").Array() {
			term, ok := rewrite.ParseSentinelTerm(bucket.Get("key").String())
			for f, t := range tallies {
				if ok && term.Path == f.Path {
					t.keys[keyOfTerm(term)] += bucket.Get("doc_count").Int()
				}
			}
		}
		return true
	})
	return nil
}

// keyOfTerm says in words what a sentinel's term says in bytes; see docs/envelope.md.
func keyOfTerm(t rewrite.SentinelTerm) Key {
	k := Key{ID: t.KeyID, Suite: map[byte]string{1: "eax", 2: "gcm"}[t.Suite]}
	if t.Flags&3 == 1 {
		k.Source = "scrypt-per-subject"
	}
	return k
}

// usedPipelines notes the pipelines that an index runs by its settings.
func (c *Cluster) usedPipelines(ctx context.Context, index string, pipelines map[string][]string) error {
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/"+url.PathEscape(index)+"/_settings?flat_settings=true", nil, maxView)
	switch {
	case err != nil:
		return c.unknown(err)
	case status != http.StatusOK || !gjson.ValidBytes(reply):
		return nil // the mapping was readable; a report without this is still one
	}
	gjson.ParseBytes(reply).ForEach(func(_, v gjson.Result) bool {
		for _, name := range []string{`settings.index\.default_pipeline`, `settings.index\.final_pipeline`} {
			if p := v.Get(name).String(); p != "" && p != "_none" {
				pipelines[p] = append(pipelines[p], index)
			}
		}
		return true
	})
	return nil
}

// examinePipelines looks for stored pipelines that undo the sealing.
func (c *Cluster) examinePipelines(ctx context.Context, r *Report, used map[string][]string) error {
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/_ingest/pipeline", nil, maxView)
	switch {
	case err != nil:
		return c.unknown(err)
	case status != http.StatusOK || !gjson.ValidBytes(reply):
		return nil // none, not allowed, or a build without them
	}
	gjson.ParseBytes(reply).ForEach(func(name, body gjson.Result) bool {
		if f := rewrite.PipelineFault(c.policy().Rules, []byte(body.Raw)); f != nil {
			r.Pipelines = append(r.Pipelines, PipelineReport{name.String(), f.Reason, used[name.String()]})
		}
		return true
	})
	return nil
}

// examineTemplates looks for index templates within a rule that lack its sentinel: what rolls over or is created by itself follows them.
func (c *Cluster) examineTemplates(ctx context.Context, r *Report) error {
	if ok, _ := c.CanHaveSentinels(ctx); !ok {
		return nil
	}
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/_index_template", nil, maxView)
	switch {
	case err != nil:
		return c.unknown(err)
	case status != http.StatusOK || !gjson.ValidBytes(reply):
		return nil
	}
	for _, t := range gjson.GetBytes(reply, "index_templates").Array() {
		name := t.Get("name").String()
		for _, rule := range c.policy().Rules {
			if rule.Sentinel == policy.SentinelOff || !slices.ContainsFunc(t.Get("index_template.index_patterns").Array(), func(p gjson.Result) bool { return rule.Matches(p.String()) }) {
				continue
			}
			mapping := t.Get("index_template.template.mappings").Raw
			status, composed, err := c.ask(ctx, c.own, http.MethodPost, "/_index_template/_simulate/"+url.PathEscape(name), nil, maxView)
			if err != nil {
				return c.unknown(err)
			}
			if status == http.StatusOK {
				mapping = gjson.GetBytes(composed, "template.mappings").Raw
			}
			if !rewrite.JudgeSentinel([]byte(mapping), rule).Guards() {
				r.Templates = append(r.Templates, TemplateReport{name, "makes indices without the sentinel of rule " + rule.Name + "; run esproxy setup"})
			}
		}
	}
	return nil
}

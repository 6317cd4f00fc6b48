package cluster

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

// Setup says what Install does. What a rule wants is its own word.
type Setup struct {
	// Only limits it to indices and templates whose names or patterns match one of these patterns; empty: all.
	Only []string
	// DryRun looks at everything and changes nothing.
	DryRun bool
	// Progress, if not nil, is told what is about to be done to an index that takes writes.
	Progress func(text string)
}

// SetupReport is what Install did, or with DryRun would do.
type SetupReport struct {
	Indices   []SetupIndex    `json:"indices"`
	Templates []SetupTemplate `json:"templates"`
	Refused   int             `json:"refused"` // indices and templates that are not as the policy wants them
}

// SetupIndex is what was done to one concrete index.
type SetupIndex struct {
	Index     string          `json:"index"`
	Stream    string          `json:"data_stream,omitempty"`
	Rules     []string        `json:"rules"`
	Mapping   string          `json:"mapping"` // "complete", "added", "to be added" or "does not fit"
	Sentinels []SetupSentinel `json:"sentinels"`
	Findings  []Finding       `json:"findings,omitempty"`
	Plain     int64           `json:"plain"` // documents with a plain value at a protected path; only looked for before a sentinel is added
	PlainIDs  []string        `json:"plain_ids,omitempty"`
	Refused   string          `json:"refused,omitempty"` // why it is not as it should be, and what to do
}

// SetupSentinel is what was done about the sentinel of one rule.
type SetupSentinel struct {
	Rule  string `json:"rule"`
	Name  string `json:"name"`
	State string `json:"state"` // "off", "there", "added", "to be added", or why it is not there
}

// SetupTemplate is what was done to one template.
type SetupTemplate struct {
	Template string `json:"template"`
	Kind     string `json:"kind"`  // "index template", "legacy template", "component template" or "data stream"
	State    string `json:"state"` // "complete", "added", "to be added" or "refused"
	Refused  string `json:"refused,omitempty"`
}

// maxPlainIDs is how many ids of documents with plain values are named for an index.
const maxPlainIDs = 10

// Install brings every index that the rules of the policy claim, and every template that makes only such indices, to what the rules want:
// mappings of protected fields, and sentinels where a rule says on or required. It is done once it is done: a second call changes nothing.
//
// A sentinel is added to an index that takes writes like this: writes are blocked, all documents are read, and if none holds a plain value at a protected
// path, everything is flushed, the field is added and the block is lifted. On a restart Elasticsearch plays operations that are not in a
// commit yet through the script and drops those that fail, so the commits of all copies are compared with their last operation first.
// The block is lifted again whatever happens, unless it was there before.
//
// The error is a *rewrite.Fault when the cluster did not answer, or that of ctx; the report then holds what was done until then.
func (c *Cluster) Install(ctx context.Context, s Setup) (*SetupReport, error) {
	r := &SetupReport{Indices: []SetupIndex{}, Templates: []SetupTemplate{}}
	// Templates first: an index that rolls over meanwhile is made right.
	if err := c.installTemplates(ctx, s, r); err != nil {
		return r, err
	}
	v, err := c.fresh(ctx)
	if err != nil {
		return r, err
	}
	for _, name := range slices.Sorted(maps.Keys(v.indices)) {
		found, _ := v.resolve(name, false)
		rules, conflict := c.policy().Match(found.Names)
		if len(rules) == 0 && conflict == nil || found.Failures || !s.wants(found.Names) {
			continue
		}
		si := SetupIndex{Index: name, Stream: v.indices[name].stream, Rules: []string{}, Sentinels: []SetupSentinel{}}
		for _, rule := range rules {
			si.Rules = append(si.Rules, rule.Name)
		}
		if conflict != nil {
			si.Refused = conflict.Error() + "; change the policy or the aliases"
		} else if err = c.installIndex(ctx, s, &si, rules); err != nil && si.Refused == "" {
			si.Refused = explain(err)
		}
		if si.Refused != "" {
			r.Refused++
		}
		r.Indices = append(r.Indices, si)
		if ctx.Err() != nil {
			return r, ctx.Err()
		}
	}
	return r, c.checkStreams(ctx, s, v, r)
}

// wants reports whether one of the names matches.
func (s *Setup) wants(names []string) bool {
	return len(s.Only) == 0 || slices.ContainsFunc(s.Only, func(p string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return policy.Glob(p, n) })
	})
}

func (s *Setup) progress(text string) {
	if s.Progress != nil {
		s.Progress(text)
	}
}

// explain gives what went wrong in words that hold no values.
func explain(err error) string {
	var f *rewrite.Fault
	switch {
	case errors.Is(err, errDenied):
		return "the credentials may not do this; use a user with the privileges manage and read on protected indices"
	case errors.As(err, &f) && f.Cause != nil:
		return f.Reason + " (" + f.Cause.Error() + ")"
	case errors.As(err, &f):
		return f.Reason
	}
	return err.Error()
}

// change sends a request that is to be answered with 200.
func (c *Cluster) change(ctx context.Context, what, method, path, body string) ([]byte, error) {
	status, reply, err := c.ask(ctx, c.own, method, path, []byte(body), maxView)
	switch {
	case err != nil:
		return nil, c.unknown(err)
	case isDenied(status) && gjson.GetBytes(reply, "error.type").Str != "cluster_block_exception":
		return nil, errDenied
	case status != http.StatusOK || !gjson.ValidBytes(reply):
		kind := gjson.GetBytes(reply, "error.type").Str
		if root := gjson.GetBytes(reply, "error.root_cause.0.type").Str; root != "" {
			kind = root
		}
		if !errorType().MatchString(kind) {
			kind = "no type"
		}
		return nil, errors.New(what + ": " + statusError(status).Error() + " (" + kind + ")")
	}
	return reply, nil
}

// installIndex does one index. What is wrong with the index stands in si.Refused; an error is a question that was not answered.
func (c *Cluster) installIndex(ctx context.Context, s Setup, si *SetupIndex, rules []*policy.Rule) error {
	mapping, found, err := c.readMapping(ctx, si.Index)
	switch {
	case err != nil:
		return err
	case !found:
		si.Refused = "it was deleted meanwhile"
		return nil
	}
	path := "/" + url.PathEscape(si.Index)
	plan := planMapping(mapping, rules)
	for _, w := range plan.warnings {
		si.Findings = append(si.Findings, Finding{w.path, w.problem, w.repair})
	}
	if f := rewrite.MappingFault(rules, []byte(mapping)); f != nil && len(plan.warnings) == 0 {
		si.Findings = append(si.Findings, Finding{"", f.Reason, "create a new index without it, and reindex through the proxy"})
	}
	si.Mapping = "complete"
	switch {
	case plan.lacking && s.DryRun:
		si.Mapping = "to be added"
	case plan.lacking:
		if _, err := c.change(ctx, "the mapping was not accepted", http.MethodPut, path+"/_mapping", string(plan.put)); err != nil {
			return err
		}
		if mapping, _, err = c.readMapping(ctx, si.Index); err != nil {
			return err
		}
		if again := planMapping(mapping, rules); again.lacking {
			si.Refused = "the mapping was accepted, and is not there; look at it"
			return nil
		}
		si.Mapping = "added"
	}
	if len(si.Findings) > 0 {
		si.Mapping = "does not fit"
		defer func() {
			if si.Refused == "" {
				si.Refused = "its mapping can't be mended in place; see what was found"
			}
		}()
	}
	var missing []*policy.Rule
	for _, r := range rules {
		name, _ := rewrite.Sentinel(r)
		state := rewrite.JudgeSentinel([]byte(mapping), r)
		ss := SetupSentinel{r.Name, name, state.String()}
		switch {
		case r.Sentinel == policy.SentinelOff && state == rewrite.SentinelMissing:
			ss.State = policy.SentinelOff.String()
		case state == rewrite.SentinelMissing, state == rewrite.SentinelOff && r.Sentinel != policy.SentinelOff:
			missing = append(missing, r)
		case state == rewrite.SentinelDiffers:
			si.Refused = "the sentinel of rule " + r.Name + " is defined otherwise, which can't be mended; make a new index and reindex through the proxy"
		case state == rewrite.SentinelShadowed:
			si.Refused = "a runtime field hides the sentinel of rule " + r.Name + " from searches; remove the runtime field " + name
		}
		si.Sentinels = append(si.Sentinels, ss)
	}
	if len(missing) == 0 {
		return nil
	}
	if ok, why := c.CanHaveSentinels(ctx); !ok {
		si.Refused = "no sentinel: " + why
		return nil
	}
	err = c.addLive(ctx, s, si, missing)
	if err == nil && si.Refused == "" {
		to := "added"
		if s.DryRun {
			to = "to be added"
		}
		for i := range si.Sentinels {
			if slices.ContainsFunc(missing, func(r *policy.Rule) bool { return r.Name == si.Sentinels[i].Rule }) {
				si.Sentinels[i].State = to
			}
		}
	}
	return err
}

// addLive adds the sentinels of rules to an index that may take writes at any time.
func (c *Cluster) addLive(ctx context.Context, s Setup, si *SetupIndex, rules []*policy.Rule) (err error) {
	path := "/" + url.PathEscape(si.Index)
	reply, err := c.change(ctx, "its settings could not be read", http.MethodGet, path+"/_settings/index.blocks.*,index.verified_before_close?flat_settings=true", "")
	if err != nil {
		return err
	}
	settings := func(name string) (text string) {
		gjson.ParseBytes(reply).ForEach(func(_, v gjson.Result) bool {
			text = v.Get("settings." + strings.ReplaceAll(name, ".", `\.`)).String()
			return false
		})
		return text
	}
	for _, block := range []string{"index.blocks.read_only", "index.blocks.metadata", "index.blocks.read", "index.blocks.read_only_allow_delete"} {
		if settings(block) == "true" {
			si.Refused = "it has the block " + block + "; lift that, and run setup again"
			return nil
		}
	}
	if settings("index.verified_before_close") == "true" {
		si.Refused = "it is closed; open it, and run setup again"
		return nil
	}
	was := settings("index.blocks.write")
	if !s.DryRun && was != "true" {
		s.progress("blocking writes to " + si.Index + " while its documents are read")
		defer func() {
			if e := c.unblock(ctx, path, was); e != nil {
				err = errors.Join(err, e)
				si.Refused = "WRITES ARE STILL BLOCKED (" + explain(e) + "); lift that by PUT " + path + `/_settings {"index.blocks.write":null}`
			}
		}()
		reply, err := c.change(ctx, "writes could not be blocked", http.MethodPut, path+"/_block/write", "")
		if err != nil {
			return err
		}
		if !gjson.GetBytes(reply, "acknowledged").Bool() || !gjson.GetBytes(reply, "shards_acknowledged").Bool() {
			return errors.New("not all shards say that writes are blocked; run setup again when the index is well")
		}
	}
	if reply, err = c.change(ctx, "it could not be refreshed", http.MethodPost, path+"/_refresh", ""); err != nil {
		return err
	}
	if gjson.GetBytes(reply, "_shards.failed").Int() > 0 {
		return errors.New("not all shards could be refreshed; run setup again when the index is well")
	}
	if err := c.findPlain(ctx, si, rules); err != nil {
		return err
	}
	if si.Plain > 0 {
		si.Refused = "documents hold plain values at protected paths, and a sentinel would make Elasticsearch lose or refuse them; read them, and write them again through the proxy"
		return nil
	}
	if s.DryRun {
		return nil
	}
	if err := c.settle(ctx, path); err != nil {
		return err
	}
	if _, err := c.change(ctx, "the sentinel was not accepted", http.MethodPut, path+"/_mapping", string(addSentinels(nil, rules))); err != nil {
		return err
	}
	mapping, _, err := c.readMapping(ctx, si.Index)
	if err != nil {
		return err
	}
	for _, r := range rules {
		if state := rewrite.JudgeSentinel([]byte(mapping), r); !state.Guards() {
			return errors.New("the sentinel of rule " + r.Name + " was accepted, and is " + state.String() + "; look at the mapping")
		}
	}
	return nil
}

// unblock puts the setting index.blocks.write back as it was, also when ctx has ended.
func (c *Cluster) unblock(ctx context.Context, path, was string) error {
	value := "null"
	if was != "" {
		value = `"` + was + `"` // true or false, as the server gave it
	}
	_, err := c.change(context.WithoutCancel(ctx), "the block could not be lifted", http.MethodPut, path+"/_settings", `{"index.blocks.write":`+value+`}`)
	return err
}

// findPlain reads all documents and counts those that the sentinels of rules would not take.
func (c *Cluster) findPlain(ctx context.Context, si *SetupIndex, rules []*policy.Rule) error {
	var paths []string
	for _, r := range rules {
		for _, f := range r.Fields {
			paths = append(paths, f.Parts[0]+"*") // a filter by the path itself would miss names that end in a dot
		}
	}
	read, of, err := c.scan(ctx, si.Index, `{"match_all":{}}`, paths, 0, func(hit gjson.Result) {
		plain := !utf8.ValidString(hit.Raw) // the server reads overlong forms
		eachProtected(hit.Get("_source"), rules, func(f *policy.Field, v gjson.Result) {
			plain = plain || v.Type != gjson.Null && (f.Mode != policy.Encrypt || v.Type != gjson.String || !rewrite.LooksSealed(v.String()))
		})
		if plain {
			si.Plain++
			if len(si.PlainIDs) < maxPlainIDs {
				si.PlainIDs = append(si.PlainIDs, hit.Get("_id").String())
			}
		}
	})
	if err == nil && read != of {
		return errors.New("not all documents could be read; run setup again")
	}
	return err
}

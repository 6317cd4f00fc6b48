package cluster

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// installTemplates completes the templates that make indices of one rule alone. Component templates are made complete by the index
// templates that use them; one that defines a sentinel falsely is told.
func (c *Cluster) installTemplates(ctx context.Context, s Setup, r *SetupReport) error {
	can, _ := c.CanHaveSentinels(ctx)
	for _, kind := range []rewrite.TemplateKind{rewrite.IndexTemplate, rewrite.LegacyTemplate, rewrite.ComponentTemplate} {
		all, err := c.templatesOf(ctx, kind)
		if err != nil {
			return err
		}
		for _, name := range slices.Sorted(maps.Keys(all)) {
			st := SetupTemplate{Template: name, Kind: kind.String(), State: "complete"}
			within, err := c.installTemplate(ctx, s, kind, name, all[name], can, &st)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				st.State, st.Refused = "refused", explain(err)
				r.Refused++
			}
			if within || err != nil {
				r.Templates = append(r.Templates, st)
			}
		}
	}
	return nil
}

// templatesOf reads the templates of one kind, by name, each in the form in which it can be put back.
func (c *Cluster) templatesOf(ctx context.Context, kind rewrite.TemplateKind) (map[string][]byte, error) {
	reply, err := c.askTemplates(ctx, kind.Path())
	if err != nil {
		return nil, c.unknown(err)
	}
	all := map[string][]byte{}
	if kind == rewrite.LegacyTemplate {
		gjson.ParseBytes(reply).ForEach(func(name, body gjson.Result) bool {
			all[name.String()] = []byte(body.Raw)
			return true
		})
		return all, nil
	}
	list, body := "index_templates", "index_template"
	if kind == rewrite.ComponentTemplate {
		list, body = "component_templates", "component_template"
	}
	for _, t := range gjson.GetBytes(reply, list).Array() {
		raw := []byte(t.Get(body).Raw)
		for _, own := range []string{"created_date", "created_date_millis", "modified_date", "modified_date_millis"} { // the server's, not to be put
			raw, _ = sjson.DeleteBytes(raw, own)
		}
		all[t.Get("name").String()] = raw
	}
	return all, nil
}

func (c *Cluster) installTemplate(ctx context.Context, s Setup, kind rewrite.TemplateKind, name string, body []byte, can bool, st *SetupTemplate) (within bool, err error) {
	if kind != rewrite.ComponentTemplate {
		var patterns []string
		for _, p := range gjson.GetBytes(body, "index_patterns").Array() {
			patterns = append(patterns, p.String())
		}
		if !s.wants(patterns) {
			return false, nil
		}
	} else if len(s.Only) > 0 {
		return false, nil
	}
	done, within, err := rewrite.CompleteTemplate(kind, c.policy().Rules, body, can)
	if err != nil || !within || string(done) == string(body) {
		return within, err
	}
	if s.DryRun {
		st.State = "to be added"
		return within, nil
	}
	if _, err := c.change(ctx, "the template was not accepted", http.MethodPut, kind.Path()+"/"+url.PathEscape(name), string(done)); err != nil {
		return within, err
	}
	all, err := c.templatesOf(ctx, kind)
	if err != nil {
		return within, err
	}
	if again, _, err := rewrite.CompleteTemplate(kind, c.policy().Rules, all[name], can); err != nil || string(again) != string(all[name]) {
		return within, statusError(http.StatusOK) // accepted, and not there
	}
	st.State = "added"
	return within, nil
}

// checkStreams tells of data streams whose next backing index will be without its sentinel, because its template makes other indices, too.
func (c *Cluster) checkStreams(ctx context.Context, s Setup, v *view, r *SetupReport) error {
	if can, _ := c.CanHaveSentinels(ctx); !can || s.DryRun {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(v.streams)) {
		found, _ := v.resolve(name, false)
		rules, _ := c.policy().Match(found.Names)
		if !slices.ContainsFunc(rules, func(r *policy.Rule) bool { return r.Sentinel != policy.SentinelOff }) || !s.wants(found.Names) {
			continue
		}
		status, reply, err := c.ask(ctx, c.own, http.MethodPost, "/_index_template/_simulate_index/"+url.PathEscape(name), nil, maxView)
		if err != nil {
			return c.unknown(err)
		}
		if status != http.StatusOK || !gjson.ValidBytes(reply) {
			continue // not allowed; the first write to the new index tells
		}
		mapping := []byte(gjson.GetBytes(reply, "template.mappings").Raw)
		var lacking []string
		for _, rule := range rules {
			if rule.Sentinel != policy.SentinelOff && !rewrite.JudgeSentinel(mapping, rule).Guards() {
				lacking = append(lacking, rule.Name)
			}
		}
		if len(lacking) > 0 {
			r.Refused++
			r.Templates = append(r.Templates, SetupTemplate{name, "data stream", "refused",
				"its next backing index will be without the sentinel of rule " + strings.Join(lacking, ", ") + ": its template also makes indices that the rule does not name. Make an index template of a higher priority for [" +
					name + "] alone, and run setup again"})
		}
	}
	return nil
}

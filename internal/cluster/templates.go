package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/policy"
)

// keepTemplates is how long what templates say of a name is believed.
const keepTemplates = 2 * time.Second

// future is what an index will be like once it is created.
type future struct {
	aliases  []string
	stream   bool   // it will be a data stream
	mappings string // JSON object, "" when not known
}

// indexTemplate is what matters here of a composable template.
type indexTemplate struct {
	patterns   []string
	priority   int64
	stream     bool
	autoCreate *bool
	aliases    []string
	components []string
}

// legacyTemplate is what matters here of a legacy template.
type legacyTemplate struct {
	Patterns []string                   `json:"index_patterns"`
	Aliases  map[string]json.RawMessage `json:"aliases"`
}

// future asks what templates will make of a name that does not exist. The server's own simulation is
// asked first; it needs the privilege manage_index_templates, so without it templates are read and matched here.
func (c *Cluster) future(ctx context.Context, name string) (future, error) {
	if f, ok := c.templates.get(name, c.now()); ok {
		return f, nil
	}
	before := c.changed()
	f, matched, err := c.simulate(ctx, name)
	if err != nil {
		return f, c.unknown(err)
	}
	if !matched {
		aliases, err := c.legacyAliases(ctx, name)
		if err != nil {
			return f, c.unknown(err)
		}
		f.aliases = append(f.aliases, aliases...)
	}
	for i, a := range f.aliases {
		// Templates may build alias names from the index name.
		f.aliases[i] = strings.ReplaceAll(a, "{index}", name)
	}
	if before == c.changed() {
		c.templates.put(name, f, c.now().Add(keepTemplates))
	}
	return f, nil
}

// simulate reports whether a composable template matches and what it makes of the name.
func (c *Cluster) simulate(ctx context.Context, name string) (f future, matched bool, err error) {
	status, reply, err := c.ask(ctx, c.own, http.MethodPost, "/_index_template/_simulate_index/"+url.PathEscape(name), nil, maxView)
	switch {
	case err != nil:
		return f, false, err
	case status == http.StatusOK:
		if !gjson.ValidBytes(reply) {
			return f, false, errGarbage
		}
		tpl := gjson.GetBytes(reply, "template")
		if !tpl.Exists() {
			return f, false, nil
		}
		for a := range tpl.Get("aliases").Map() {
			f.aliases = append(f.aliases, a)
		}
		f.mappings = tpl.Get("mappings").Raw
		f.stream = tpl.Get("mappings._data_stream_timestamp.enabled").Bool()
		return f, true, nil
	case !isDenied(status) && !isMissingAPI(status):
		return f, false, statusError(status)
	}
	t, err := c.winner(ctx, name)
	if err != nil || t == nil {
		return f, false, err
	}
	f.stream = t.stream
	f.aliases = append(f.aliases, t.aliases...)
	for _, comp := range t.components {
		aliases, err := c.componentAliases(ctx, comp)
		if err != nil {
			return f, false, err
		}
		f.aliases = append(f.aliases, aliases...)
	}
	return f, true, nil
}

// winner is the composable template that applies to the name: of all that match, that of the highest priority.
func (c *Cluster) winner(ctx context.Context, name string) (*indexTemplate, error) {
	before := c.changed()
	all, ok := c.composed.get("", c.now())
	if !ok {
		reply, err := c.askTemplates(ctx, "/_index_template")
		if err != nil {
			return nil, err
		}
		for _, r := range gjson.GetBytes(reply, "index_templates").Array() {
			t := indexTemplate{priority: r.Get("index_template.priority").Int(), stream: r.Get("index_template.data_stream").IsObject()}
			for _, p := range r.Get("index_template.index_patterns").Array() {
				t.patterns = append(t.patterns, p.String())
			}
			for _, p := range r.Get("index_template.composed_of").Array() {
				t.components = append(t.components, p.String())
			}
			for a := range r.Get("index_template.template.aliases").Map() {
				t.aliases = append(t.aliases, a)
			}
			if a := r.Get("index_template.allow_auto_create"); a.IsBool() {
				b := a.Bool()
				t.autoCreate = &b
			}
			all = append(all, t)
		}
		if before == c.changed() {
			c.composed.put("", all, c.now().Add(keepTemplates))
		}
	}
	var best *indexTemplate
	for i := range all {
		for _, p := range all[i].patterns {
			if policy.Glob(p, name) && (best == nil || all[i].priority > best.priority) {
				best = &all[i]
			}
		}
	}
	return best, nil
}

func (c *Cluster) componentAliases(ctx context.Context, name string) (aliases []string, err error) {
	reply, err := c.askTemplates(ctx, "/_component_template/"+url.PathEscape(name))
	if err != nil {
		return nil, err
	}
	for _, r := range gjson.GetBytes(reply, "component_templates").Array() {
		for a := range r.Get("component_template.template.aliases").Map() {
			aliases = append(aliases, a)
		}
	}
	return aliases, nil
}

// legacyAliases are the aliases of all legacy templates that match; they apply where no composable one does.
func (c *Cluster) legacyAliases(ctx context.Context, name string) (aliases []string, err error) {
	before := c.changed()
	all, ok := c.legacy.get("", c.now())
	if !ok {
		reply, err := c.askTemplates(ctx, "/_template")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(reply, &all); err != nil {
			return nil, fmt.Errorf("%w: templates", errGarbage)
		}
		if before == c.changed() {
			c.legacy.put("", all, c.now().Add(keepTemplates))
		}
	}
	for _, t := range all {
		for _, p := range t.Patterns {
			if !policy.Glob(p, name) {
				continue
			}
			for a := range t.Aliases {
				aliases = append(aliases, a)
			}
			break
		}
	}
	return aliases, nil
}

// askTemplates reads one kind of templates; a build without them has none.
func (c *Cluster) askTemplates(ctx context.Context, path string) ([]byte, error) {
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, path, nil, maxView)
	switch {
	case err != nil:
		return nil, err
	case isDenied(status):
		return nil, c.denied(status)
	case isMissingAPI(status):
		return []byte(`{}`), nil
	case status != http.StatusOK:
		return nil, statusError(status)
	case !gjson.ValidBytes(reply):
		return nil, errGarbage
	}
	return reply, nil
}

package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
)

// readiness remembers which targets were made ready. The zero value is ready.
type readiness struct {
	mu    sync.RWMutex
	m     map[string][]made // by name
	locks locks
}

// made is one target made ready: name, concrete index and rules.
type made struct {
	index string // with its UUID, see view.id
	rules []*policy.Rule
	err   error     // why writes are refused
	until time.Time // the end of that; zero: for good
}

func (r *readiness) get(name, index string, rules []*policy.Rule, now time.Time) (made, bool) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, m := range r.m[name] {
		if m.index == index && slices.Equal(m.rules, rules) && (m.until.IsZero() || now.Before(m.until)) {
			return m, true
		}
	}
	return made{}, false
}

func (r *readiness) put(name string, m made) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.m == nil {
		r.m = make(map[string][]made)
	}
	if _, ok := r.m[name]; !ok && len(r.m) >= memoSize {
		for k := range r.m { // any one makes room
			delete(r.m, k)
			break
		}
	}
	// An entry for another index is out of date. Others of this one stem from rules
	// before a reload, or from the name being reached in several ways: few are kept.
	list := []made{m}
	for _, o := range r.m[name] {
		if o.index == m.index && !slices.Equal(o.rules, m.rules) && len(list) < 4 {
			list = append(list, o)
		}
	}
	r.m[name] = list
}

func (r *readiness) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.m)
}

// keepRefusal is how long a refusal for a wrong key stands before stored keys are read again.
const keepRefusal = 10 * time.Second

// Ready makes a protected target ready for its first write; see rewrite.Cluster. Once per name, concrete index and rules it
//
//   - creates a missing index that the write would create by itself, so that mapping and sentinels are there first;
//   - adds missing mappings of protected fields;
//   - looks for sentinels: where one is required and missing or altered, writes are refused (503 FaultSentinel);
//   - reads some stored documents: values under none of the loaded keys refuse writes (503 FaultWrongKey).
//
// What only makes a mapping worse gives one warning in the log and does not stop the write. rules must not be changed
// afterwards. Other faults are those of Resolve, and 503 FaultUnknown when the cluster did not answer.
func (c *Cluster) Ready(ctx context.Context, caller rewrite.Caller, name string, rules []*policy.Rule) error {
	if len(rules) == 0 {
		return nil
	}
	t, err := c.parse(name)
	if err != nil {
		return err
	}
	if t.failures {
		return nil // Elasticsearch takes no writes there
	}
	v, err := c.current(ctx)
	if err != nil {
		return err
	}
	if r, ok := v.resolve(t.name, false); ok {
		if r.Write == "" {
			return nil // Elasticsearch refuses a write to it
		}
		if m, ok := c.ready.get(t.name, v.id(r.Write), rules, c.now()); ok {
			return m.err
		}
	}
	unlock, err := c.ready.locks.lock(ctx, t.name)
	if err != nil {
		return c.unknown(err)
	}
	defer unlock()
	return c.makeReady(ctx, caller, t.name, rules)
}

// makeReady does it, with the lock of name held.
func (c *Cluster) makeReady(ctx context.Context, caller rewrite.Caller, name string, rules []*policy.Rule) error {
	v, err := c.current(ctx)
	if err != nil {
		return err
	}
	r, ok := v.resolve(name, false)
	if !ok {
		if v, err = c.fresh(ctx); err != nil {
			return err
		}
		r, ok = v.resolve(name, false)
	}
	if !ok {
		created, err := c.create(ctx, caller, name, rules)
		if err != nil || !created {
			return err
		}
		if v, err = c.fresh(ctx); err != nil {
			return err
		}
		r, _ = v.resolve(name, false)
	}
	if r.Write == "" {
		return nil
	}
	if m, ok := c.ready.get(name, v.id(r.Write), rules, c.now()); ok {
		return m.err // another request did it meanwhile
	}
	mappings, found := "", true
	if !r.Failures { // Elasticsearch maps failure stores itself, and nothing of the failed document
		if mappings, found, err = c.putMapping(ctx, r.Write, rules); err != nil {
			return err
		}
	}
	if !found {
		c.Changed() // the view is out of date
		return nil
	}
	if err := c.checkSentinels(ctx, r.Write, mappings, rules); err != nil {
		c.ready.put(name, made{v.id(r.Write), rules, err, c.now().Add(keepRefusal)})
		return err
	}
	if err := c.checkKeys(ctx, caller, name, rules); err != nil {
		if f, ok := err.(*rewrite.Fault); ok && f.Type == FaultWrongKey {
			c.ready.put(name, made{v.id(r.Write), rules, err, c.now().Add(keepRefusal)})
		}
		return err
	}
	c.ready.put(name, made{index: v.id(r.Write), rules: rules})
	return nil
}

// create makes a missing index or data stream with the protected mapping, if a write would create it. It reports
// whether it is there now. When it can't be made, the write goes on and gets Elasticsearch's own answer.
func (c *Cluster) create(ctx context.Context, caller rewrite.Caller, name string, rules []*policy.Rule) (bool, error) {
	if !validNew(name) {
		return false, nil
	}
	may, err := c.autoCreates(ctx, name)
	if err != nil || !may {
		return false, err
	}
	f, err := c.future(ctx, name)
	if err != nil {
		return false, err
	}
	if !f.stream { // OpenSearch's simulation does not tell
		t, err := c.winner(ctx, name)
		if err != nil {
			return false, c.unknown(err)
		}
		f.stream = t != nil && t.stream
	}
	path := "/" + url.PathEscape(name)
	bodies := [][]byte{nil}
	required := false
	if f.stream {
		path = "/_data_stream/" + url.PathEscape(name)
	} else {
		bodies, required = c.bodies(ctx, f.mappings, rules)
	}
	who := caller
	if who == nil {
		who = c.own
	}
	var status int
	var reply []byte
	for _, body := range bodies {
		// The mapping may not go with that of a template: the next body has less of it, and the index's own is completed afterwards.
		status, reply, err = c.ask(ctx, who, http.MethodPut, path, body, 1<<20)
		if err == nil && status == http.StatusForbidden && who != c.own && c.mayCreate(ctx, caller, name) {
			who = c.own
			status, reply, err = c.ask(ctx, who, http.MethodPut, path, body, 1<<20)
		}
		if err != nil || status != http.StatusBadRequest || exists(reply) {
			break
		}
	}
	if err == nil && status == http.StatusBadRequest && required && !exists(reply) {
		why := "Elasticsearch refused to make it with one (" + gjson.GetBytes(reply, "error.type").Str + ")"
		if ok, cannot := c.CanHaveSentinels(ctx); !ok {
			why = cannot
		}
		return false, sentinelFault(name, why)
	}
	switch {
	case err != nil:
		return false, c.unknown(err)
	case status == http.StatusOK || status == http.StatusBadRequest && exists(reply):
		return true, nil
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests:
		return false, c.unknown(statusError(status))
	}
	if status == http.StatusUnauthorized {
		return false, nil
	}
	c.warnOnce("a protected index could not be created with its mapping before the first write", "target", name, "status", status,
		"repair", "create it with the protected fields mapped as "+wanted)
	return false, nil
}

// exists tells the answer to a creation that another request won.
func exists(reply []byte) bool {
	switch gjson.GetBytes(reply, "error.type").Str {
	case "resource_already_exists_exception", "index_already_exists_exception":
		return true
	}
	return false
}

// mayCreate reports whether the caller's own write would have created the index.
func (c *Cluster) mayCreate(ctx context.Context, caller rewrite.Caller, name string) bool {
	body, err := json.Marshal(map[string]any{"index": []any{
		map[string]any{"names": []string{name}, "privileges": []string{"auto_configure", "create_index"}},
	}})
	if err != nil {
		return false
	}
	status, reply, err := c.ask(ctx, caller, http.MethodPost, "/_security/user/_has_privileges", body, 1<<20)
	if err != nil || status != http.StatusOK || !gjson.ValidBytes(reply) {
		return false
	}
	has := false
	gjson.GetBytes(reply, "index").ForEach(func(index, privileges gjson.Result) bool {
		has = index.String() == name && (privileges.Get("auto_configure").Bool() || privileges.Get("create_index").Bool())
		return false
	})
	return has
}

// autoCreate is the setting action.auto_create_index, read as
// org.elasticsearch.action.support.AutoCreateIndex does.
type autoCreate struct {
	always, never bool
	patterns      []string // with + or - before; the first that matches decides
}

func parseAutoCreate(s string) autoCreate {
	switch s {
	case "", "true":
		return autoCreate{always: true}
	case "false":
		return autoCreate{never: true}
	}
	var a autoCreate
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			a.patterns = append(a.patterns, p)
		}
	}
	return a
}

func (a autoCreate) allows(name string) bool {
	for _, p := range a.patterns {
		positive := true
		switch p[0] {
		case '+':
			p = p[1:]
		case '-':
			positive, p = false, p[1:]
		}
		if policy.Glob(p, name) {
			return positive
		}
	}
	return a.always
}

// autoCreates reports whether a write to a missing index would create it.
func (c *Cluster) autoCreates(ctx context.Context, name string) (bool, error) {
	// A template's own word beats the setting.
	t, err := c.winner(ctx, name)
	if err != nil {
		return false, c.unknown(err)
	}
	if t != nil && t.autoCreate != nil {
		return *t.autoCreate, nil
	}
	before := c.changed()
	a, ok := c.auto.get("", c.now())
	if !ok {
		status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/_cluster/settings?include_defaults=true&filter_path=**.auto_create_index", nil, 1<<20)
		switch {
		case err != nil:
			return false, c.unknown(err)
		case isDenied(status):
			return false, c.denied(status)
		case isMissingAPI(status):
			reply = []byte(`{}`)
		case status != http.StatusOK:
			return false, c.unknown(statusError(status))
		case !gjson.ValidBytes(reply):
			return false, c.unknown(errGarbage)
		}
		a = autoCreate{always: true}
		for _, level := range []string{"defaults", "persistent", "transient"} { // the last one set counts
			if s := gjson.GetBytes(reply, level+".action.auto_create_index"); s.Exists() {
				a = parseAutoCreate(settingText(s))
			}
		}
		if before == c.changed() {
			c.auto.put("", a, c.now().Add(30*time.Second))
		}
	}
	return a.allows(name), nil
}

// settingText is a setting as one string; lists come as such in some replies.
func settingText(r gjson.Result) string {
	if !r.IsArray() {
		return r.String()
	}
	var parts []string
	for _, p := range r.Array() {
		parts = append(parts, p.String())
	}
	return strings.Join(parts, ",")
}

// putMapping adds what protected fields lack to the mapping of a concrete index, with the proxy's own credentials. It gives the mapping as it was,
// "" if the proxy may not read it; found is false when there is no such index.
func (c *Cluster) putMapping(ctx context.Context, index string, rules []*policy.Rule) (mappings string, found bool, err error) {
	mappings, found, err = c.readMapping(ctx, index)
	switch {
	case errors.Is(err, errDenied):
		return "", true, nil
	case err != nil || !found:
		return "", false, err
	}
	p := planMapping(mappings, rules)
	c.warnMappings(index, p, mappings, rules)
	if p.nested != "" && c.synthetic(ctx, index, mappings) {
		c.warnOnce("the index keeps a synthetic _source", "index", index, "field", p.nested,
			"problem", "arrays of objects come back as parallel arrays, so which values belong together may be lost",
			"repair", `create a new index with "index.mapping.source.mode":"stored" and reindex`)
	}
	if p.put == nil {
		return mappings, true, nil
	}
	status, reply, err := c.ask(ctx, c.own, http.MethodPut, "/"+url.PathEscape(index)+"/_mapping", p.put, 1<<20)
	switch {
	case err != nil:
		return "", false, c.unknown(err)
	case status == http.StatusOK:
	case status == http.StatusNotFound:
		return "", false, nil
	case isDenied(status) && gjson.GetBytes(reply, "error.type").Str != "cluster_block_exception":
		c.warnMapping(index, status)
	case status >= http.StatusInternalServerError || status == http.StatusTooManyRequests:
		return "", false, c.unknown(statusError(status))
	default:
		c.warnOnce("the mapping of protected fields was not accepted", "index", index, "status", status,
			"error", gjson.GetBytes(reply, "error.type").Str, "repair", "map them by hand as "+wanted)
	}
	return mappings, true, nil
}

// synthetic reports whether an index rebuilds _source from its fields. Where the server does not tell, it answers false.
func (c *Cluster) synthetic(ctx context.Context, index, mappings string) bool {
	if mode := gjson.Get(mappings, "_source.mode"); mode.Exists() {
		return mode.Str == "synthetic"
	}
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/"+url.PathEscape(index)+"/_settings/index.mode,index.mapping.source.mode", nil, 1<<20)
	if err != nil || status != http.StatusOK || !gjson.ValidBytes(reply) {
		return false
	}
	is := false
	gjson.ParseBytes(reply).ForEach(func(_, v gjson.Result) bool {
		s := v.Get("settings.index")
		if mode := s.Get("mapping.source.mode"); mode.Exists() {
			is = mode.Str == "synthetic"
		} else {
			is = s.Get("mode").Str == "time_series" || s.Get("mode").Str == "logsdb"
		}
		return false
	})
	return is
}

func (c *Cluster) warnMapping(index string, status int) {
	advice := "give the proxy's user the privilege manage on protected indices"
	if !c.hasOwn || status == http.StatusUnauthorized {
		advice = "set ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD (or ELASTICSEARCH_API_KEY) to a user with the privilege manage on protected indices"
	}
	if c.warned.first("mapping denied") {
		c.log.Warn("the proxy may not read or complete mappings; protected fields get whatever mapping Elasticsearch makes up",
			"index", index, "status", status, "repair", advice+", or map the fields by hand as "+wanted)
	}
}

// warnOnce logs a warning unless the same was logged before.
func (c *Cluster) warnOnce(msg string, args ...any) {
	if c.warned.first(fmt.Sprint(append([]any{msg}, args...)...)) {
		c.log.Warn(msg, args...)
	}
}

package cluster

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// clockSlack is how far the server's clock may be from ours: names of date math are
// computed at both ends of it, too, so that a write around midnight is under the rules of both days.
const clockSlack = time.Minute

// target is what one name in a request says by itself.
type target struct {
	name     string   // without selector, date math computed
	near     []string // what date math gives within clockSlack, where that differs
	failures bool     // the selector ::failures
}

func badName(reason string) *rewrite.Fault {
	return &rewrite.Fault{Status: http.StatusBadRequest, Type: FaultName, Reason: reason}
}

// parse reads one name. A selector is split off first and date math computed after, as
// org.elasticsearch.cluster.metadata.IndexNameExpressionResolver does.
func (c *Cluster) parse(name string) (target, error) {
	var t target
	base, selector := cutSelector(name)
	switch selector {
	case "", "data":
	case "failures":
		t.failures = true
	default:
		return t, badName("the selector after :: in an index name is not one of data and failures")
	}
	switch {
	case base == "":
		return t, badName("an index name is empty")
	case base == "_all" || strings.ContainsAny(base, ",*"):
		return t, badName("one index, alias or data stream is to be named here, not a list, a wildcard or _all")
	}
	if !isDateMath(base) {
		if strings.Contains(base, ":") {
			return t, badName("a name on a remote cluster (cluster:name) can't be used here; send the request to that cluster")
		}
		t.name = base
		return t, nil
	}
	names, err := c.dateMath(base)
	if err != nil {
		return t, err
	}
	t.name, t.near = names[0], names[1:]
	for _, n := range names {
		if n == "_all" || strings.ContainsAny(n, ",*:") {
			return t, badName("date math gives a list, a wildcard or a remote name where one index is to be named")
		}
	}
	return t, nil
}

// dateMath computes an expression now, and around now where that gives other names.
func (c *Cluster) dateMath(expr string) ([]string, error) {
	now := c.now()
	var names []string
	for _, at := range []time.Time{now, now.Add(-clockSlack), now.Add(clockSlack)} {
		n, err := evalDateMath(expr, at)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return names, nil
}

// cutSelector splits "name::selector". What ends in ">" is date math, which may hold colons of its own.
func cutSelector(s string) (base, selector string) {
	if strings.HasSuffix(s, ">") {
		return s, ""
	}
	i := strings.LastIndex(s, "::")
	if i < 0 {
		return s, ""
	}
	if s[i+2:] == "" {
		return s[:i], "?" // nothing after the colons is no selector
	}
	return s[:i], s[i+2:]
}

// validNew reports whether Elasticsearch could create an index of that name. It is deliberately no
// stricter than org.elasticsearch.cluster.metadata.MetadataCreateIndexService: what it refuses can't be written to.
func validNew(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) <= 255 &&
		!strings.ContainsAny(name, "\\/*?\"<>| ,#:") && !strings.ContainsAny(name[:1], "_-+") &&
		strings.ToLower(name) == name
}

// Resolve tells what one name stands for; see rewrite.Cluster. A name may be date math and may carry the selectors
// ::data and ::failures, both percent-decoded. A name that the view does not have is looked up
// anew; if it does not exist, the aliases count that templates would give it at its creation.
// The Names slice is shared and must not be changed.
// Faults: 400 FaultName for what is not one name of this cluster, 503 FaultUnknown.
func (c *Cluster) Resolve(ctx context.Context, name string) (rewrite.Resolved, error) {
	t, err := c.parse(name)
	if err != nil {
		return rewrite.Resolved{}, err
	}
	r, err := c.resolve(ctx, t.name, t.failures)
	if err != nil || len(t.near) == 0 {
		return r, err
	}
	set := map[string]struct{}{}
	for _, n := range r.Names {
		set[n] = struct{}{}
	}
	for _, n := range t.near {
		o, err := c.resolve(ctx, n, t.failures)
		if err != nil {
			return rewrite.Resolved{}, err
		}
		for _, n := range o.Names {
			set[n] = struct{}{}
		}
	}
	names := sorted(set)
	return rewrite.Resolved{Names: names, Write: r.Write, Routing: r.Routing, System: system(names), Failures: r.Failures}, nil
}

func (c *Cluster) resolve(ctx context.Context, name string, failures bool) (rewrite.Resolved, error) {
	v, err := c.current(ctx)
	if err != nil {
		return rewrite.Resolved{}, err
	}
	if r, ok := v.resolve(name, failures); ok {
		return r, nil
	}
	if !validNew(name) {
		// No alias or data stream can have it either, but for upper case, which an alias may have.
		if strings.ToLower(name) == name {
			return alone(name), nil
		}
	}
	if v, err = c.freshFor(ctx, v); err != nil {
		return rewrite.Resolved{}, err
	}
	if r, ok := v.resolve(name, failures); ok {
		return r, nil
	}
	if !validNew(name) {
		return alone(name), nil
	}
	f, err := c.future(ctx, name)
	if err != nil {
		return rewrite.Resolved{}, err
	}
	if len(f.aliases) == 0 {
		return alone(name), nil
	}
	set := map[string]struct{}{name: {}}
	for _, a := range f.aliases {
		set[a] = struct{}{}
	}
	names := sorted(set)
	return rewrite.Resolved{Names: names, System: system(names)}, nil
}

func alone(name string) rewrite.Resolved {
	names := []string{name}
	return rewrite.Resolved{Names: names, System: system(names), Failures: policy.IsFailureStore(name)}
}

// Expand tells all names that an index expression reaches, and with them everything that Resolve tells of
// each; see rewrite.Cluster. It takes commas, wildcards (hidden and system indices included), exclusions, _all, "",
// date math and selectors. The answer may hold more than the expression reaches, never less:
// exclusions take nothing away, and each part stands for itself, too. Names on remote clusters are
// given as they are. Write is set only for a single name.
// The Names slice is shared and must not be changed. Faults as those of Resolve.
func (c *Cluster) Expand(ctx context.Context, expression string) (rewrite.Resolved, error) {
	v, err := c.current(ctx)
	if err != nil {
		return rewrite.Resolved{}, err
	}
	if expression == "" || expression == "_all" || expression == "*" {
		return v.all(), nil
	}
	if r, ok := v.cachedExpansion(expression); ok {
		return r, nil
	}
	parts := strings.Split(expression, ",")
	set := map[string]struct{}{}
	complete := true // nothing depends on what is not in the view
	var write string
	wild := false // a part with a wildcard was seen
	store := false
	for _, part := range parts {
		part = strings.TrimSpace(part) // no name holds blanks, so this can only find more
		if rest, ok := strings.CutPrefix(part, "-"); ok {
			if isRemote(rest) || wild {
				continue
			}
			return v.all(), nil // with nothing to take away from it means "all but" on 9.x, as tried
		}
		base, selector := cutSelector(part)
		failures := selector == "failures" || selector == "*"
		store = store || failures
		names := []string{base}
		switch {
		case base == "":
			continue
		case isDateMath(base):
			complete = false
			if names, err = c.dateMath(base); err != nil {
				return rewrite.Resolved{}, err
			}
		case isRemote(part):
			set[part] = struct{}{}
			continue
		}
		for _, n := range names {
			if n == "_all" || n == "*" {
				r := v.all()
				r.Failures = r.Failures || failures
				return r, nil
			}
			set[n] = struct{}{}
			if strings.Contains(n, "*") {
				wild = true
				store = v.match(set, n, failures) || store
				continue
			}
			r, ok := v.resolve(n, failures)
			if !ok {
				complete = false
				if c.now().Sub(v.made) >= time.Second {
					if v, err = c.fresh(ctx); err != nil {
						return rewrite.Resolved{}, err
					}
					r, _ = v.resolve(n, failures)
				}
			}
			write, store = r.Write, store || r.Failures || !ok && policy.IsFailureStore(n)
			for _, m := range r.Names {
				set[m] = struct{}{}
			}
		}
	}
	names := sorted(set)
	r := rewrite.Resolved{Names: names, System: system(names), Failures: store}
	if len(parts) == 1 && !strings.Contains(expression, "*") {
		r.Write = write
	}
	if complete {
		v.keepExpansion(expression, r)
	}
	return r, nil
}

// isRemote reports whether a part of an expression names something on another cluster: one colon, not "::".
func isRemote(part string) bool {
	base, _ := cutSelector(part)
	return !isDateMath(base) && strings.Contains(base, ":")
}

func (v *view) cachedExpansion(expr string) (rewrite.Resolved, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r, ok := v.expanded[expr]
	return r, ok
}

func (v *view) keepExpansion(expr string, r rewrite.Resolved) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.expanded) < maxExpanded {
		v.expanded[expr] = r
	}
}

// match adds the closures of all names that fit a pattern of "*" and literal text. It reports whether a failure store is among them.
func (v *view) match(set map[string]struct{}, pattern string, failures bool) (store bool) {
	add := func(name string) {
		if !policy.Glob(pattern, name) {
			return
		}
		r, _ := v.resolve(name, failures)
		store = store || r.Failures
		for _, n := range r.Names {
			set[n] = struct{}{}
		}
	}
	for n := range v.indices {
		add(n)
	}
	for n := range v.aliases {
		add(n)
	}
	for n := range v.streams {
		add(n)
	}
	return store
}

package rewrite

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
)

// compiled keeps the compiled form of each set of rules that targets were found under. There are
// few: a set is what the operator's patterns bring together.
type compiled struct{ sets sync.Map }

func (c *compiled) get(rules []*policy.Rule, failures bool) *target {
	if len(rules) == 0 {
		return nil
	}
	key := rules[0].Name
	if len(rules) > 1 {
		var b strings.Builder
		for _, r := range rules {
			b.WriteString(r.Name)
			b.WriteByte(' ')
		}
		key = b.String()
	}
	if failures {
		key += "::failures"
	}
	if t, ok := c.sets.Load(key); ok {
		return t.(*target)
	}
	t, _ := c.sets.LoadOrStore(key, newTarget(rules, failures))
	return t.(*target)
}

type momentKey struct{}

// AsOf gives a context for questions about names that were all known at the moment at: a view of the cluster that was made
// after it answers them all. Without it a name that is not in the view costs a new view each.
func AsOf(ctx context.Context, at time.Time) context.Context {
	return context.WithValue(ctx, momentKey{}, at)
}

// Moment is the time that AsOf gave ctx.
func Moment(ctx context.Context) (at time.Time, ok bool) {
	at, ok = ctx.Value(momentKey{}).(time.Time)
	return at, ok
}

// place is where a write goes: a name and what it stands for.
type place struct {
	name  string  // as the request names it
	index string  // the concrete index where it is known, else the name
	route string  // the routing of an alias, for requests without
	t     *target // nil: no rule applies
}

// place resolves one name that a write goes to.
func (e *Engine) place(ctx context.Context, name string) (*place, error) {
	r, err := e.Cluster.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	rules, conflict := e.Policy.Match(r.Names)
	if conflict != nil {
		return nil, conflictFaultOf(conflict)
	}
	if len(rules) > 0 && r.Write == "" && strings.HasSuffix(name, "::failures") {
		return nil, refuse(400, "esproxy_bad_request", "Elasticsearch takes no documents through [::failures]: a failure store holds what it could not index itself; write the corrected document to the data stream")
	}
	p := &place{name: name, index: r.Write, route: r.Routing, t: e.compiled.get(rules, r.Failures)}
	if p.index == "" {
		p.index = name
	}
	return p, nil
}

func conflictFaultOf(c *policy.Conflict) *Fault {
	return &Fault{Status: 400, Type: "esproxy_rule_conflict", Reason: c.Error() + "; change the patterns in the policy, or the alias that brings them together"}
}

// indices gives the rules of each concrete index that one name stands for; of a name that does not exist
// those of the index it would become.
func (e *Engine) indices(ctx context.Context, name string) ([]*target, error) {
	r, err := e.Cluster.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	var out []*target
	for _, n := range r.Names {
		one, err := e.Cluster.Resolve(ctx, n)
		if err != nil {
			return nil, err
		}
		if one.Write != n {
			continue // an alias or a data stream
		}
		rules, conflict := e.Policy.Match(one.Names)
		if conflict != nil {
			return nil, conflictFaultOf(conflict)
		}
		out = append(out, e.compiled.get(rules, one.Failures))
	}
	if len(out) > 0 {
		return out, nil
	}
	rules, conflict := e.Policy.Match(r.Names)
	if conflict != nil {
		return nil, conflictFaultOf(conflict)
	}
	return []*target{e.compiled.get(rules, r.Failures)}, nil
}

// hitTarget gives the rules of the index that a hit names; nil when none applies or the index is not known. Of an index on a
// remote cluster ("cluster:index") its own name tells them, as nobody here knows its aliases.
func (e *Engine) hitTarget(ctx context.Context, index string) *target {
	var r Resolved
	if name, remote := onRemote(index); remote {
		r = Resolved{Names: []string{name}, Failures: policy.IsFailureStore(name)}
	} else {
		var err error
		if r, err = e.Cluster.Resolve(ctx, index); err != nil {
			return nil
		}
	}
	rules, conflict := e.Policy.Match(r.Names)
	if conflict != nil {
		return nil
	}
	return e.compiled.get(rules, r.Failures)
}

// onRemote splits "cluster:name".
func onRemote(index string) (name string, remote bool) {
	if strings.HasPrefix(index, "<") {
		return index, false
	}
	if cluster, name, ok := strings.Cut(index, ":"); ok && cluster != "" && !strings.HasPrefix(name, ":") {
		return name, true
	}
	return index, false
}

// reached is what an index expression reaches.
type reached struct {
	rules    []*policy.Rule // of all names together, also where they cannot be united
	named    []*policy.Rule // the same, and those of failure stores with their paths there: what a query must not name
	conflict *policy.Conflict
	system   bool // every name is a system index
}

// reach tells which rules apply to anything that an expression reaches.
func (e *Engine) reach(ctx context.Context, expression string) (reached, error) {
	r, err := e.Cluster.Expand(ctx, expression)
	if err != nil {
		return reached{}, err
	}
	var out reached
	out.system = r.System
	_, out.conflict = e.Policy.Match(r.Names)
	failures := r.Failures
	for _, rule := range e.Policy.Rules {
		claims := rule.MatchesAny(r.Names)
		for _, name := range r.Names {
			if local, remote := onRemote(name); remote {
				claims = claims || rule.CouldMatch(name)
				failures = failures || strings.Contains(local, "::") || strings.HasPrefix(local, ".") || strings.Contains(local, "*")
			}
		}
		if claims {
			out.rules = append(out.rules, rule)
		}
	}
	if out.named = out.rules; failures {
		out.named = slices.Concat(out.rules, shifted(out.rules))
	}
	return out, nil
}

package rewrite

import (
	"context"
	"testing"
)

// The query of a role is stored and shown to administrators.
func TestRoleQueries(t *testing.T) {
	e, _, _ := fakeEngine(t)
	for body, refused := range map[string]bool{
		`{"indices":[{"names":["user-*"],"privileges":["read"],"query":{"term":{"card":"4111"}}}]}`:                                                true,
		`{"indices":[{"names":"*","query":"{\"bool\":{\"filter\":{\"term\":{\"card\":\"4111\"}}}}"}]}`:                                             true,
		`{"indices":[{"names":["user"],"query":{"template":{"source":"{\"term\":{\"card\":\"{{_user.username}}\"}}"}}}]}`:                          true,
		`{"indices":[{"names":["user"],"query":"{\"template\":{\"source\":\"{\\\"term\\\":{\\\"card\\\":\\\"4111\\\"}}\"}}"}]}`:                    true,
		`{"name":"k","role_descriptors":{"r":{"index":[{"names":["user"],"query":{"terms":{"card":["4111"]}}}]}}}`:                                 true,
		`{"access":{"search":[{"names":["us*"],"query":{"term":{"card":"4111"}}}]}}`:                                                               true,
		`{"indices":[{"names":["logs-*"],"privileges":["read"],"query":{"term":{"card":"4111"}}}],"cluster":["monitor"],"metadata":{"query":"x"}}`: false,
		`{"indices":[{"names":["user"],"query":{"term":{"department":"x"}}},{"names":["shop"],"query":{"term":{"card":"1"}}}]}`:                    false,
		`{"cluster":["all"]}`: false,
	} {
		got, err := e.control(controlRoles, e.Policy.Rules, []byte(body))
		if refused {
			controlWantFault(t, body, err, "esproxy_protected_query", "[card]")
		} else if err != nil || string(got) != body {
			t.Errorf("%s: %v", body, err)
		}
	}
}

// typed_keys=false is no typed_keys: names that look typed are the client's then.
func TestTypedKeysFalse(t *testing.T) {
	e, _, _ := fakeEngine(t)
	for params, want := range map[string]bool{"": false, "typed_keys": true, "typed_keys=true": true, "typed_keys=false": false} {
		p, err := e.Plan(context.Background(), &Call{Method: "POST", Path: "/user/_search", Query: params, HasBody: true, ContentType: []string{"application/json"}, Viewer: fakeViewer{}, Caller: &fakeCaller{}})
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Transform.(*query).opening.typedKeys; got != want {
			t.Errorf("%q: %v", params, got)
		}
	}
}

// A copy needs every index of its source under the rules of its destination; an alias may stand for more.
func TestSourcesOfCopies(t *testing.T) {
	e, cluster, _ := fakeEngine(t)
	cluster.names["user"] = Resolved{Names: []string{"mix", "user"}, Write: "user"}
	cluster.names["plain"] = Resolved{Names: []string{"mix", "plain"}, Write: "plain"}
	cluster.names["mix"] = Resolved{Names: []string{"mix", "plain", "user"}}
	r := &request{Engine: e, ctx: context.Background()}
	rules, _ := e.Policy.Match([]string{"user"})
	for source, good := range map[string]bool{"user": true, "user-2": true, "plain": false, "mix": false} {
		if err := r.sameRules(source, rules, source); (err == nil) != good {
			t.Errorf("%s: %v", source, err)
		}
	}
}

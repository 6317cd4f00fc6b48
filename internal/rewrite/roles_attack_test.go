package rewrite

import "testing"

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

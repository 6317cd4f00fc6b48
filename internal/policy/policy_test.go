package policy_test

import (
	"testing"

	"github.com/esproxy/esproxy/internal/policy"
)

func TestShippedPolicyLoads(t *testing.T) {
	p, err := policy.Load("../../config/fields.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got, conflict := p.Match([]string{"user-1"})
	if conflict != nil || len(got) != 1 || got[0].Name != "users" || got[0].Subject != "username" {
		t.Errorf("got %v, %v", got, conflict)
	}
}

package policy_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/esproxy/esproxy/internal/policy"
)

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestShippedPolicy(t *testing.T) {
	p, err := policy.Load("../../config/fields.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Rules) != 1 {
		t.Fatalf("got %d rules, want 1", len(p.Rules))
	}
	r := p.Rule("users")
	var fields []string
	for _, f := range r.Fields {
		fields = append(fields, f.Path+" "+f.Mode.String()+" "+f.Mask.String())
		if f.Rule != r || r.Field(f.Path) != f {
			t.Errorf("field %s does not know its rule, or the rule not its field", f.Path)
		}
	}
	want := []string{"credit_card_num encrypt last4", "credit_card_ccv encrypt full", "cuenta_numero encrypt last4"}
	if d := cmp.Diff(want, fields); d != "" {
		t.Errorf("fields (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"user", "user-*"}, r.Indices); d != "" {
		t.Errorf("indices (-want +got):\n%s", d)
	}
	if r.Subject != "username" || r.KDF != policy.HKDF || r.AllowScripts || r.Sentinel != policy.SentinelOff {
		t.Errorf("got subject %q, kdf %s, scripts %v, sentinel %s", r.Subject, r.KDF, r.AllowScripts, r.Sentinel)
	}
	support := p.Grants["support"]
	for path, want := range map[string]policy.Reveal{"credit_card_num": policy.Masked, "credit_card_ccv": policy.Sealed} {
		if got := support.Of(r.Field(path)); got != want {
			t.Errorf("support sees %s %s, want %s", path, got, want)
		}
		if got := p.Grants[policy.FullGrant].Of(r.Field(path)); got != policy.Plain {
			t.Errorf("full sees %s %s, want plain", path, got)
		}
	}
	if len(p.Tokens.Revoked) != 0 || !p.Tokens.NotBefore.IsZero() || p.Tokens.MaxTTL != 720*time.Hour || p.KeyID != "" {
		t.Errorf("got tokens %+v, key id %q", p.Tokens, p.KeyID)
	}
}

func TestParseEverything(t *testing.T) {
	p := parse(t, `
version: 1
rules:
  - name: all
    kdf: scrypt-per-subject
    subject: who.name
    scripts: allow
    sentinel: required
    fields:
      payment.cards.pan: {mode: encrypt, mask: first6last4}
      "números": {mode: drop}
  - {name: dots, indices: [.kibana*], fields: {payment: {mode: encrypt, mask: email}}}
grants:
  - {name: full, reveal: {"*": plain}}
  - {name: g1, reveal: {"*": masked, "all.*": plain, all.payment.cards.pan: sealed}}
tokens: {revoked: [t1, "2"], not_before: 2026-01-31T00:00:00+01:00, max_ttl: 90m}
key_id: 12E45678
`)
	all := p.Rules[0]
	if d := cmp.Diff([]string{"*"}, all.Indices); d != "" {
		t.Errorf("default indices (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"who", "name"}, all.SubjectParts); d != "" {
		t.Errorf("subject (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"payment", "cards", "pan"}, all.Fields[0].Parts); d != "" {
		t.Errorf("parts (-want +got):\n%s", d)
	}
	if all.KDF != policy.ScryptPerSubject || !all.AllowScripts || all.Sentinel != policy.SentinelRequired || all.Fields[1].Mode != policy.Drop {
		t.Errorf("got %s, %v, %s, %s", all.KDF, all.AllowScripts, all.Sentinel, all.Fields[1].Mode)
	}
	if p.KeyID != "12e45678" || !p.Tokens.Revoked["t1"] || !p.Tokens.Revoked["2"] || p.Tokens.MaxTTL != 90*time.Minute ||
		!p.Tokens.NotBefore.Equal(time.Date(2026, 1, 30, 23, 0, 0, 0, time.UTC)) {
		t.Errorf("got key id %q, tokens %+v", p.KeyID, p.Tokens)
	}
	g := p.Grants["g1"]
	got := []policy.Reveal{g.Of(all.Fields[0]), g.Of(all.Fields[1]), g.Of(p.Rules[1].Fields[0])}
	if d := cmp.Diff([]policy.Reveal{policy.Sealed, policy.Sealed, policy.Masked}, got); d != "" {
		t.Errorf("reveals (-want +got):\n%s", d)
	}
}

// TestProblems reads testdata/problems/*.yaml. A comment "#! col: text" at the end of a line expects a problem there, with
// the column given and a message that begins with the text; "#! col: text #! col: text" expects two. No other problem may be found.
func TestProblems(t *testing.T) {
	files, err := filepath.Glob("testdata/problems/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no cases found: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for i, line := range strings.Split(string(data), "\n") {
				for _, w := range strings.Split(line, "#! ")[1:] {
					want = append(want, policy.Problem{File: "f.yaml", Line: i + 1, Text: strings.TrimSpace(w)}.String())
				}
			}
			got, err := policy.Parse("f.yaml", data)
			var ps policy.Problems
			if got != nil || !errors.As(err, &ps) {
				t.Fatalf("got %v, %v; want problems", got, err)
			}
			// want says "file:line:0: col: text".
			for i := range max(len(want), len(ps)) {
				switch {
				case i >= len(want):
					t.Errorf("not expected: %s", ps[i])
				case i >= len(ps):
					t.Errorf("not found: %s", want[i])
				case !strings.HasPrefix(ps[i].String(), strings.Replace(want[i], ":0: ", ":", 1)):
					t.Errorf("got  %s\nwant %s", ps[i], want[i])
				}
			}
			for _, p := range ps {
				if !strings.Contains(p.Text, ";") {
					t.Errorf("%s: does not say what to do", p)
				}
			}
		})
	}
}

func TestProblemsOfWholeFiles(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"empty":          {"", "f.yaml:1:1: the file is empty; write at least version and rules"},
		"comment only":   {"# nothing\n", "f.yaml:1:1: the file is empty; write at least version and rules"},
		"null":           {"null", "f.yaml:1:1: the policy is not a mapping; write key: value pairs"},
		"list":           {"- a", "f.yaml:1:1: the policy is not a mapping; write key: value pairs"},
		"syntax":         {"version: 1\nrules: [\n", "f.yaml:3:1: this is not YAML: did not find expected node content; correct the syntax"},
		"tab":            {"version: 1\nrules:\n\t- a\n", "f.yaml:3:1: this is not YAML: "},
		"unknown anchor": {"version: *x\n", "f.yaml:1:10: this is not YAML: unknown anchor 'x' referenced; correct the syntax"},
		"not UTF-8":      {"version: \xff\n", "f.yaml:1:1: this is not YAML: "},
		"too large":      {strings.Repeat("#", 1<<20+1), "f.yaml:1:1: the file has 1048577 bytes; a policy may have 1048576"},
		"two documents":  {"version: 1\nrules:\n  - {name: a, fields: {b: {mode: drop}}}\n---\nversion: 1\n", "f.yaml:4:1: a second YAML document begins here; a policy is one document"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Parse("f.yaml", []byte(c.text))
			if p != nil || err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v, %v, want %s", p, err, c.want)
			}
		})
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	_, err := policy.Parse("f.yaml", []byte("version: 1\nrules: ["+strings.Repeat("1, ", 1000)+"]"))
	var ps policy.Problems
	if !errors.As(err, &ps) || len(ps) != 201 || !strings.Contains(ps[200].Text, "800 more problems; correct the first ones") {
		t.Errorf("got %d problems, want 200 and one that tells of the rest", len(ps))
	}
}

func TestLongPaths(t *testing.T) {
	for name, c := range map[string]struct{ path, want string }{
		"33 parts":  {strings.Repeat("a.", 32) + "a", "has more than 32 parts; shorten the path"},
		"32 parts":  {strings.Repeat("a.", 31) + "a", ""},
		"513 bytes": {strings.Repeat("a", 513), "is longer than 512 bytes; shorten the path"},
		"512 bytes": {strings.Repeat("a", 512), ""},
	} {
		_, err := policy.Parse("f.yaml", []byte("version: 1\nrules:\n  - {name: a, fields: {? \""+c.path+"\" : {mode: encrypt}}}\n"))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func TestLoadNamesTheFile(t *testing.T) {
	if _, err := policy.Load("testdata/none.yaml"); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "name it with ESPROXY_FIELDS") {
		t.Errorf("got %v", err)
	}
	if _, err := policy.Load("testdata/problems/top.yaml"); err == nil || !strings.HasPrefix(err.Error(), "testdata/problems/top.yaml:") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/problems/*.yaml")
	for _, file := range append(files, "../../config/fields.yaml") {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := policy.Parse("f.yaml", data)
		if (p == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of them", p, err)
		}
		if err != nil {
			var ps policy.Problems
			if !errors.As(err, &ps) || len(ps) == 0 {
				t.Fatalf("the error is no list of problems: %v", err)
			}
			return
		}
		for _, r := range p.Rules {
			if len(r.Fields) == 0 || len(r.Indices) == 0 || r.KDF == policy.ScryptPerSubject && r.Subject == "" {
				t.Fatalf("rule %+v is not whole", r)
			}
			for _, f := range r.Fields {
				if f.Mode == 0 || len(f.Parts) == 0 || strings.Join(f.Parts, ".") != f.Path {
					t.Fatalf("field %+v is not whole", f)
				}
			}
		}
		// A policy that loads has no two rules that the patterns alone bring into conflict.
		for _, r := range p.Rules {
			for _, pattern := range r.Indices {
				name := strings.ReplaceAll(pattern, "*", "x")
				if _, c := p.Match([]string{name}); c != nil {
					t.Fatalf("%q: %v", name, c)
				}
				if !p.CouldMatch(pattern) || !r.Matches(name) {
					t.Fatalf("pattern %q does not claim its own names", pattern)
				}
			}
		}
	})
}

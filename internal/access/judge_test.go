package access_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/access"
	"github.com/esproxy/esproxy/internal/policy"
)

const fields = `
version: 1
rules:
  - name: users
    indices: ["user", "user-*"]
    subject: username
    fields:
      card: {mode: encrypt, mask: last4}
      iban: {mode: encrypt, mask: first6last4}
      mail: {mode: encrypt, mask: email}
      ccv: {mode: drop}
  - name: notes
    indices: ["note"]
    fields:
      text: {mode: encrypt}
grants:
  - name: support
    reveal: {users.card: masked, "users.*": plain}
  - name: most
    reveal: {"*": plain, "users.*": masked, users.iban: sealed}
tokens: {revoked: [gone], not_before: "2026-01-01T00:00:00Z", max_ttl: 24h}
`

var (
	now   = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	keyID = [4]byte{0xaa, 0xbb, 0xcc, 0xdd}
	key   = []byte("0123456789abcdef0123456789abcdef")
)

func load(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("fields.yaml", []byte(fields))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func verifier(t testing.TB, change func(*access.Options)) *access.Verifier {
	t.Helper()
	opt := access.Options{Clock: func() time.Time { return now }}
	if change != nil {
		change(&opt)
	}
	return access.NewVerifier(load(t), keyID, key, opt)
}

func claims() access.Claims {
	return access.Claims{ID: "t1", Who: "alice", Grant: "support", Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour)}
}

func mint(t testing.TB, change func(*access.Claims)) string {
	t.Helper()
	c := claims()
	if change != nil {
		change(&c)
	}
	token, err := access.Mint(c, keyID, key)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// signed makes an authentic token of any payload.
func signed(payload string) string {
	text := access.Prefix + base64.RawURLEncoding.EncodeToString([]byte(payload))
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

func TestJudgeAccepts(t *testing.T) {
	for name, c := range map[string]struct {
		header string
		opt    func(*access.Options)
		want   string
		secure bool
	}{
		"plain":             {"Bearer " + mint(t, nil), nil, "t1 alice support", true},
		"scheme in capital": {"BEARER " + mint(t, nil), nil, "t1 alice support", true},
		"blanks around":     {" Bearer " + mint(t, nil) + "\t", nil, "t1 alice support", true},
		"insecure allowed":  {"Bearer " + mint(t, nil), func(o *access.Options) { o.AllowInsecure = true }, "t1 alice support", false},
		"clock behind":      {"Bearer " + mint(t, func(c *access.Claims) { c.Issued = now.Add(60 * time.Second) }), nil, "t1 alice support", true},
		"last second":       {"Bearer " + mint(t, func(c *access.Claims) { c.Expires = now.Add(time.Second) }), nil, "t1 alice support", true},
		"longest life":      {"Bearer " + mint(t, func(c *access.Claims) { c.Expires = c.Issued.Add(24 * time.Hour) }), nil, "t1 alice support", true},
		"other audience": {"Bearer " + mint(t, func(c *access.Claims) { c.Audience = "west" }),
			func(o *access.Options) { o.Audience = "west" }, "t1 alice support", true},
		"quotes in the name": {"Bearer " + mint(t, func(c *access.Claims) { c.Who = `José "<&>" \ 日本` }), nil, `t1 José "<&>" \ 日本 support`, true},
		"the master key": {"MasterKey espw1:salt:a, b", func(o *access.Options) { o.MasterKeyLogin = access.MasterKeyCheck("espw1:salt:a, b") },
			"master-key master-key full", true},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := verifier(t, c.opt).Judge([]string{c.header}, []string{"Basic dXNlcjpwYXNz"}, c.secure)
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(s.TokenID, " ", s.Who, " ", s.Grant); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestJudgeWithoutHeader(t *testing.T) {
	for _, credentials := range [][]string{nil, {"Basic ZXNwdDE6eA=="}, {"Bearer eyJhbGciOiJIUzI1NiJ9.e30.xyz"}, {"ApiKey abc"}, {""}} {
		if s, err := verifier(t, nil).Judge(nil, credentials, false); s != nil || err != nil {
			t.Errorf("%q: got %v, %v; want neither session nor refusal", credentials, s, err)
		}
	}
}

func TestJudgeRefuses(t *testing.T) {
	good := mint(t, nil)
	body, mac := good[len("espt1."):strings.LastIndex(good, ".")], good[strings.LastIndex(good, ".")+1:]
	other, err := access.Mint(claims(), keyID, []byte("another key, 32 bytes long......"))
	if err != nil {
		t.Fatal(err)
	}
	otherID, err := access.Mint(claims(), [4]byte{1}, key)
	if err != nil {
		t.Fatal(err)
	}
	payload := `{"id":"t1","who":"alice","grant":"support","aud":"esproxy","kid":"aabbccdd","iat":1780311600,"nbf":1780311600,"exp":1780318800}`
	if signed(payload) != good {
		t.Fatalf("the payload of the tests is not that of a minted token")
	}
	login := func(o *access.Options) { o.MasterKeyLogin = access.MasterKeyCheck("esk1:right") }
	one := func(s string) []string { return []string{s} }
	cases := map[string]struct {
		header, credentials []string
		opt                 func(*access.Options)
		insecure            bool
		code, reason        string
	}{
		"insecure listener":          {header: one("Bearer " + good), insecure: true, code: "insecure_listener", reason: "neither TLS nor loopback"},
		"bad header, insecure":       {header: one("x"), insecure: true, code: "insecure_listener", reason: "neither TLS nor loopback"},
		"twice":                      {header: []string{"Bearer " + good, "Bearer " + good}, code: "duplicated", reason: "more than once"},
		"twice, one empty":           {header: []string{"Bearer " + good, ""}, code: "duplicated", reason: "more than once"},
		"joined":                     {header: one("Bearer " + good + ", Bearer " + good), code: "comma_joined", reason: "holds a comma"},
		"trailing comma":             {header: one("Bearer " + good + ","), code: "comma_joined", reason: "holds a comma"},
		"empty":                      {header: one(""), code: "missing_scheme", reason: "does not begin with the word Bearer"},
		"no scheme":                  {header: one(good), code: "missing_scheme", reason: "does not begin with the word Bearer"},
		"scheme alone":               {header: one("Bearer"), code: "missing_scheme", reason: "does not begin with the word Bearer"},
		"other scheme":               {header: one("Basic " + good), code: "missing_scheme", reason: "does not begin with the word Bearer"},
		"tab":                        {header: one("Bearer\t" + good), code: "missing_scheme", reason: "does not begin with the word Bearer"},
		"two blanks":                 {header: one("Bearer  " + good), code: "malformed", reason: "malformed or cut off"},
		"nothing to see":             {header: one("Bearer x"), code: "malformed", reason: "malformed or cut off"},
		"other version":              {header: one("Bearer espt2." + body + "." + mac), code: "malformed", reason: "malformed or cut off"},
		"no second part":             {header: one("Bearer espt1." + body), code: "malformed", reason: "malformed or cut off"},
		"cut":                        {header: one("Bearer " + good[:len(good)-1]), code: "malformed", reason: "malformed or cut off"},
		"three parts":                {header: one("Bearer " + good + ".x"), code: "malformed", reason: "malformed or cut off"},
		"padding":                    {header: one("Bearer " + good + "="), code: "malformed", reason: "malformed or cut off"},
		"newline inside":             {header: one("Bearer espt1." + body + ".\n" + mac), code: "malformed", reason: "malformed or cut off"},
		"other bits at the end":      {header: one("Bearer espt1." + body + "." + mac[:len(mac)-1] + string(mac[len(mac)-1]+1)), code: "malformed", reason: "malformed or cut off"},
		"empty payload":              {header: one("Bearer " + signed("")), code: "malformed", reason: "malformed or cut off"},
		"over 4 KiB":                 {header: one("Bearer " + signed(strings.Repeat(" ", 4096))), code: "malformed", reason: "malformed or cut off"},
		"unknown claim":              {header: one("Bearer " + signed(payload[:len(payload)-1]+`,"x":1}`)), code: "malformed", reason: "malformed or cut off"},
		"duplicate claim":            {header: one("Bearer " + signed(payload[:len(payload)-1]+`,"grant":"full"}`)), code: "malformed", reason: "malformed or cut off"},
		"claim in capitals":          {header: one("Bearer " + signed(strings.Replace(payload, `"who"`, `"WHO"`, 1))), code: "malformed", reason: "malformed or cut off"},
		"missing claim":              {header: one("Bearer " + signed(strings.Replace(payload, `"aud":"esproxy",`, "", 1))), code: "malformed", reason: "malformed or cut off"},
		"blank in payload":           {header: one("Bearer " + signed(payload+" ")), code: "malformed", reason: "malformed or cut off"},
		"two payloads":               {header: one("Bearer " + signed(payload+payload)), code: "malformed", reason: "malformed or cut off"},
		"key id in capitals":         {header: one("Bearer " + signed(strings.Replace(payload, "aabbccdd", "AABBCCDD", 1))), code: "malformed", reason: "malformed or cut off"},
		"key id too long":            {header: one("Bearer " + signed(strings.Replace(payload, "aabbccdd", "aabbccddee", 1))), code: "malformed", reason: "malformed or cut off"},
		"fraction of a second":       {header: one("Bearer " + signed(strings.Replace(payload, "1780318800", "1780318800.5", 1))), code: "malformed", reason: "malformed or cut off"},
		"ends before it begins":      {header: one("Bearer " + signed(strings.Replace(payload, "1780318800", "1780311600", 1))), code: "malformed", reason: "malformed or cut off"},
		"begins before it is issued": {header: one("Bearer " + signed(strings.Replace(payload, `"nbf":1780311600`, `"nbf":1780311599`, 1))), code: "malformed", reason: "malformed or cut off"},
		"year 300000":                {header: one("Bearer " + signed(strings.Replace(payload, "1780318800", "9223372036854775807", 1))), code: "malformed", reason: "malformed or cut off"},
		"control in name":            {header: one("Bearer " + signed(strings.Replace(payload, "alice", `al\nice`, 1))), code: "malformed", reason: "malformed or cut off"},
		"wrong key":                  {header: one("Bearer " + other), code: "wrong_key", reason: "made under another key"},
		"payload changed":            {header: one("Bearer espt1." + strings.Replace(body, "c", "d", 1) + "." + mac), code: "wrong_key", reason: "made under another key"},
		"wrong key id":               {header: one("Bearer " + otherID), code: "wrong_key", reason: "made under another key"},
		"wrong audience":             {header: one("Bearer " + mint(t, func(c *access.Claims) { c.Audience = "east" })), code: "wrong_audience", reason: "another installation"},
		"expired":                    {header: one("Bearer " + mint(t, func(c *access.Claims) { c.Expires = now })), code: "expired", reason: "has expired"},
		"issued in future":           {header: one("Bearer " + mint(t, func(c *access.Claims) { c.Issued = now.Add(61 * time.Second) })), code: "not_yet_valid", reason: "not valid yet"},
		"not before in future":       {header: one("Bearer " + mint(t, func(c *access.Claims) { c.NotBefore = now.Add(61 * time.Second) })), code: "not_yet_valid", reason: "not valid yet"},
		"lives too long":             {header: one("Bearer " + mint(t, func(c *access.Claims) { c.Expires = c.Issued.Add(24*time.Hour + time.Second) })), code: "lifetime", reason: "max_ttl"},
		"revoked by id":              {header: one("Bearer " + mint(t, func(c *access.Claims) { c.ID = "gone" })), code: "revoked", reason: "revoked by the policy"},
		"unknown grant":              {header: one("Bearer " + mint(t, func(c *access.Claims) { c.Grant = "nobody" })), code: "unknown_grant", reason: "names a grant that the policy does not have"},
		"master key off":             {header: one("MasterKey esk1:right"), code: "master_key_off", reason: "not switched on"},
		"wrong master key":           {header: one("MasterKey esk1:wrong"), opt: login, code: "wrong_master_key", reason: "not this proxy's MASTER_KEY"},
		"empty master key":           {header: one("MasterKey  "), opt: login, code: "missing_scheme", reason: "does not begin with the word Bearer"},
		"no master key set":          {header: one("MasterKey \t x"), opt: func(o *access.Options) { o.MasterKeyLogin = access.MasterKeyCheck("") }, code: "wrong_master_key", reason: "not this proxy's MASTER_KEY"},
		"token to Elasticsearch":     {credentials: one("Bearer " + good), code: "misplaced_token", reason: "would go to Elasticsearch"},
		"in any scheme":              {credentials: []string{"Basic eDp5", "ApiKey  " + good}, code: "misplaced_token", reason: "would go to Elasticsearch"},
		"beside the right header":    {header: one("Bearer " + good), credentials: one("bearer,token=\"" + good), code: "misplaced_token", reason: "would go to Elasticsearch"},
		"key to Elasticsearch":       {credentials: one("masterkey whatever it is"), code: "misplaced_key", reason: "consider the key known"},
		"key by its form":            {credentials: one("Bearer esk1:abc"), code: "misplaced_key", reason: "consider the key known"},
		"token key by its form":      {credentials: one("Bearer estk1:abc"), code: "misplaced_key", reason: "consider the key known"},
		"passphrase by its form":     {credentials: one("Bearer espw1:abc:def"), code: "misplaced_key", reason: "consider the key known"},
	}
	codes := map[string]bool{}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			s, err := verifier(t, c.opt).Judge(c.header, c.credentials, !c.insecure)
			var r *access.Refusal
			if s != nil || !errors.As(err, &r) {
				t.Fatalf("got %v, %v; want a refusal", s, err)
			}
			codes[r.Code] = true
			if r.Code != c.code || !strings.Contains(r.Reason, c.reason) || r.Error() != r.Reason {
				t.Errorf("got %s %q, want %s %q", r.Code, r.Reason, c.code, c.reason)
			}
			for _, secret := range []string{body, mac, "alice", "support", "t1 ", "esk1:", "aabbccdd"} {
				if strings.Contains(r.Reason, secret) {
					t.Errorf("the reason %q holds %q of the header", r.Reason, secret)
				}
			}
		})
	}
	if len(codes) != 16 {
		t.Errorf("%d kinds of refusal were seen, want 16", len(codes))
	}
}

func TestIssuedBeforeNotBeforeOfPolicy(t *testing.T) {
	at := time.Date(2025, 12, 31, 23, 59, 59, 0, time.UTC)
	token := mint(t, func(c *access.Claims) { c.Issued, c.Expires = at, at.Add(time.Hour) })
	v := verifier(t, func(o *access.Options) { o.Clock = func() time.Time { return at.Add(time.Minute) } })
	if _, err := v.Judge([]string{"Bearer " + token}, nil, true); err == nil || !strings.Contains(err.Error(), "revoked by the policy") {
		t.Errorf("got %v, want a refusal as revoked", err)
	}
}

func TestUnusableTokenKeys(t *testing.T) {
	for _, bad := range [][]byte{nil, make([]byte, 32), []byte("short")} {
		if _, err := access.Mint(claims(), keyID, bad); err == nil || !strings.Contains(err.Error(), "token key is missing") {
			t.Errorf("Mint with key %x: got %v, want an error", bad, err)
		}
		text := access.Prefix + base64.RawURLEncoding.EncodeToString([]byte(`{}`))
		h := hmac.New(sha256.New, bad)
		h.Write([]byte(text))
		token := text + "." + base64.RawURLEncoding.EncodeToString(h.Sum(nil))
		v := access.NewVerifier(load(t), keyID, bad, access.Options{Clock: func() time.Time { return now }})
		if _, err := v.Judge([]string{"Bearer " + token}, nil, true); err == nil || !strings.Contains(err.Error(), "another key") {
			t.Errorf("Judge with key %x: got %v, want a refusal", bad, err)
		}
	}
}

func TestMintRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*access.Claims)
		want   string
	}{
		"no name":       {func(c *access.Claims) { c.Who = "" }, "say for whom"},
		"control":       {func(c *access.Claims) { c.Who = "a\nb" }, "say for whom"},
		"not UTF-8":     {func(c *access.Claims) { c.Who = "a\xff" }, "say for whom"},
		"long name":     {func(c *access.Claims) { c.Who = strings.Repeat("a", 129) }, "say for whom"},
		"no grant":      {func(c *access.Claims) { c.Grant = "" }, "name a grant"},
		"bad id":        {func(c *access.Claims) { c.ID = "a b" }, "the token id is not"},
		"bad audience":  {func(c *access.Claims) { c.Audience = "a,b" }, "the audience is not"},
		"no end":        {func(c *access.Claims) { c.Expires = time.Time{} }, "must expire after it begins"},
		"no beginning":  {func(c *access.Claims) { c.Issued = time.Time{} }, "must expire after it begins"},
		"ends at start": {func(c *access.Claims) { c.Expires = c.Issued }, "must expire after it begins"},
	} {
		bad := claims()
		c.change(&bad)
		if token, err := access.Mint(bad, keyID, key); token != "" || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %q, %v; want an error with %q", name, token, err, c.want)
		}
	}
}

func TestRandomIDs(t *testing.T) {
	v := verifier(t, nil)
	seen := map[string]bool{}
	for range 100 {
		s, err := v.Judge([]string{"Bearer " + mint(t, func(c *access.Claims) { c.ID = "" })}, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if seen[s.TokenID] || len(s.TokenID) != 27 || s.TokenID[0] != 't' {
			t.Fatalf("id %q is not new, or not of the right form", s.TokenID)
		}
		seen[s.TokenID] = true
	}
}

func TestReveal(t *testing.T) {
	p := load(t)
	v := access.NewVerifier(p, keyID, key, access.Options{Clock: func() time.Time { return now }})
	for grant, want := range map[string]string{
		"full":    "users.card=plain users.iban=plain users.mail=plain users.ccv=sealed notes.text=plain",
		"support": "users.card=masked users.iban=plain users.mail=plain users.ccv=sealed notes.text=sealed",
		"most":    "users.card=masked users.iban=sealed users.mail=masked users.ccv=sealed notes.text=plain",
	} {
		s, err := v.Judge([]string{"Bearer " + mint(t, func(c *access.Claims) { c.Grant = grant })}, nil, true)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, r := range p.Rules {
			for _, f := range r.Fields {
				got = append(got, fmt.Sprintf("%s.%s=%s", r.Name, f.Path, s.Reveal(f)))
			}
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("%s: got %s, want %s", grant, g, want)
		}
		if s.Reveal(load(t).Rules[0].Fields[0]) != policy.Sealed {
			t.Errorf("%s: a field of another policy is shown", grant)
		}
	}
}

func FuzzJudge(f *testing.F) {
	good := mint(f, nil)
	for _, s := range []string{"", "Bearer", "Bearer " + good, good, "Bearer " + good + "x", "MasterKey esk1:x", "Bearer espt1..", "Bearer " + signed("{}")} {
		f.Add(s, s, "{}")
	}
	f.Add("Bearer "+good, "Basic x", `{"id":"t1","who":"alice","grant":"support","aud":"esproxy","kid":"aabbccdd","iat":1780311600,"nbf":1780311600,"exp":1780318800}`)
	v := verifier(f, nil)
	accepted := map[string]bool{"bearer " + strings.ToLower(good): true}
	f.Fuzz(func(t *testing.T, header, credentials, payload string) {
		s, err := v.Judge([]string{header}, []string{credentials}, true)
		if (s == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of them", s, err)
		}
		if s != nil && !accepted[strings.ToLower(strings.Trim(header, " \t"))] {
			t.Fatalf("accepted %q", header)
		}
		// An authentic payload of any form: what is accepted is canonical, so it mints to the same token.
		token := signed(payload)
		s, err = v.Judge([]string{"Bearer " + token}, nil, true)
		if (s == nil) == (err == nil) {
			t.Fatalf("got %v and %v, want one of them", s, err)
		}
	})
}

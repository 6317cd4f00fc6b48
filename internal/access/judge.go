package access

import (
	"crypto/hmac"
	"crypto/rand"
	"strings"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
)

// leeway is how far clocks of issuer and proxy may differ at the start of a token's life. There is none at its end.
const leeway = 60 * time.Second

// Options are what a Verifier needs besides policy and keys.
type Options struct {
	Audience string           // what tokens must name; "" is DefaultAudience
	Clock    func() time.Time // nil is time.Now
	// MasterKeyLogin, where it is set, judges the text of "MasterKey <text>", which then has the grant full.
	// See MasterKeyCheck. nil refuses the scheme.
	MasterKeyLogin func(text string) bool
	// AllowInsecure takes the header also where others on the network could read it.
	AllowInsecure bool
}

// Verifier judges the headers of requests. It is immutable and safe for concurrent use.
type Verifier struct {
	tokens   policy.Tokens
	keyID    [4]byte
	tokenKey []byte
	opt      Options
	reveals  map[string]map[*policy.Field]policy.Reveal // by grant
}

// NewVerifier makes a Verifier of one policy and one token key. keyID is that of the primary MASTER_KEY,
// tokenKey at least 32 bytes; a shorter one or zeros accept no token.
func NewVerifier(p *policy.Policy, keyID [4]byte, tokenKey []byte, opt Options) *Verifier {
	if opt.Audience == "" {
		opt.Audience = DefaultAudience
	}
	if opt.Clock == nil {
		opt.Clock = time.Now
	}
	v := &Verifier{
		tokens: p.Tokens, keyID: keyID, tokenKey: append([]byte(nil), tokenKey...), opt: opt,
		reveals: map[string]map[*policy.Field]policy.Reveal{},
	}
	for name, g := range p.Grants {
		shown := map[*policy.Field]policy.Reveal{}
		for _, r := range p.Rules {
			for _, f := range r.Fields {
				if how := g.Of(f); how != policy.Sealed {
					shown[f] = how
				}
			}
		}
		v.reveals[name] = shown
	}
	return v
}

// MasterKeyCheck gives a function that reports whether a text is the master key. It holds no key, only its HMAC
// under a random key of this process, and compares in constant time without a scrypt.
func MasterKeyCheck(masterKey string) func(text string) bool {
	key := make([]byte, 32)
	rand.Read(key) // never fails
	want := sum(key, masterKey)
	empty := masterKey == ""
	return func(text string) bool {
		return hmac.Equal(want, sum(key, text)) && !empty
	}
}

// Refusal says why a header is not accepted. The request is answered 403 esproxy_bad_grant.
type Refusal struct {
	Code   string // one of a fixed set of words, for metrics
	Reason string // what was wrong; what to do. It holds nothing of the header.
}

// Error gives the reason.
func (r *Refusal) Error() string { return r.Reason }

// The refusals. Each is the same whatever the header holds.
var (
	refuseInsecure   = &Refusal{"insecure_listener", "X-Esproxy-Authorization came over a connection that is neither TLS nor loopback; use TLS, or allow it in the proxy's settings"}
	refuseDuplicate  = &Refusal{"duplicated", "X-Esproxy-Authorization is there more than once; send it once"}
	refuseComma      = &Refusal{"comma_joined", "X-Esproxy-Authorization holds a comma, as if two headers were joined; send one token"}
	refuseScheme     = &Refusal{"missing_scheme", "X-Esproxy-Authorization does not begin with the word Bearer and a blank; send Bearer and a token made by esproxy token"}
	refuseMalformed  = &Refusal{"malformed", "the token in X-Esproxy-Authorization is malformed or cut off; send it exactly as esproxy token printed it"}
	refuseKey        = &Refusal{"wrong_key", "the token in X-Esproxy-Authorization was changed, or made under another key than this proxy's; make one with the current MASTER_KEY"}
	refuseAudience   = &Refusal{"wrong_audience", "the token in X-Esproxy-Authorization was made for another installation (audience); make one for this proxy"}
	refuseEarly      = &Refusal{"not_yet_valid", "the token in X-Esproxy-Authorization is not valid yet; wait, or compare the clocks of issuer and proxy"}
	refuseExpired    = &Refusal{"expired", "the token in X-Esproxy-Authorization has expired; make a new one with esproxy token"}
	refuseLifetime   = &Refusal{"lifetime", "the token in X-Esproxy-Authorization is made to live longer than max_ttl of the policy allows; make one with a shorter --ttl"}
	refuseRevoked    = &Refusal{"revoked", "the token in X-Esproxy-Authorization is revoked by the policy; make a new one with esproxy token"}
	refuseGrant      = &Refusal{"unknown_grant", "the token in X-Esproxy-Authorization names a grant that the policy does not have; make one for a grant of config/fields.yaml"}
	refuseMasterOff  = &Refusal{"master_key_off", "X-Esproxy-Authorization has the scheme MasterKey, which is not switched on here; send Bearer and a token made by esproxy token"}
	refuseMasterKey  = &Refusal{"wrong_master_key", "the key in X-Esproxy-Authorization is not this proxy's MASTER_KEY; send Bearer and a token made by esproxy token"}
	refuseMisplaced  = &Refusal{"misplaced_token", "Authorization holds an esproxy token, which would go to Elasticsearch; send it as X-Esproxy-Authorization"}
	refuseMisplacedK = &Refusal{"misplaced_key", "Authorization holds a master key or token key, which would go to Elasticsearch; send a token as X-Esproxy-Authorization, and consider the key known to others"}
)

// Judge judges one request by all values of its headers X-Esproxy-Authorization (authorization) and Authorization
// (credentials). secureListener tells that the connection is TLS or loopback. Without the header, session and
// error are nil; an error is always a *Refusal.
func (v *Verifier) Judge(authorization, credentials []string, secureListener bool) (*Session, error) {
	if r := misplaced(credentials); r != nil {
		return nil, r
	}
	if len(authorization) == 0 {
		return nil, nil
	}
	if !secureListener && !v.opt.AllowInsecure {
		return nil, refuseInsecure
	}
	if len(authorization) > 1 {
		return nil, refuseDuplicate
	}
	s, r := v.judge(strings.Trim(authorization[0], " \t"))
	if r != nil {
		return nil, r
	}
	return s, nil
}

func (v *Verifier) judge(header string) (*Session, *Refusal) {
	scheme, rest, ok := strings.Cut(header, " ")
	switch {
	case ok && strings.EqualFold(scheme, "MasterKey"):
		// A passphrase may hold a comma, so this comes before the check for one.
		return v.masterKey(rest)
	case strings.Contains(header, ","):
		return nil, refuseComma
	case !ok || !strings.EqualFold(scheme, "Bearer"):
		return nil, refuseScheme
	}
	c, form, authentic, err := verify(rest, v.tokenKey)
	switch {
	case !form:
		return nil, refuseMalformed
	case !authentic:
		return nil, refuseKey
	case err != nil:
		return nil, refuseMalformed
	}
	return v.claims(c)
}

// claims judges what an authentic token says.
func (v *Verifier) claims(c Claims) (*Session, *Refusal) {
	now := v.opt.Clock()
	reveals, known := v.reveals[c.Grant]
	switch {
	case c.KeyID != v.keyID:
		return nil, refuseKey
	case c.Audience != v.opt.Audience:
		return nil, refuseAudience
	case !now.Before(c.Expires):
		return nil, refuseExpired
	case now.Add(leeway).Before(c.NotBefore), now.Add(leeway).Before(c.Issued):
		return nil, refuseEarly
	case c.Expires.Sub(c.Issued) > v.tokens.MaxTTL:
		return nil, refuseLifetime
	case v.tokens.Revoked[c.ID], c.Issued.Before(v.tokens.NotBefore):
		return nil, refuseRevoked
	case !known:
		return nil, refuseGrant
	}
	return &Session{TokenID: c.ID, Who: c.Who, Grant: c.Grant, Expires: c.Expires, reveals: reveals}, nil
}

func (v *Verifier) masterKey(text string) (*Session, *Refusal) {
	if v.opt.MasterKeyLogin == nil {
		return nil, refuseMasterOff
	}
	if !v.opt.MasterKeyLogin(text) {
		return nil, refuseMasterKey
	}
	return &Session{TokenID: "master-key", Who: "master-key", Grant: policy.FullGrant, reveals: v.reveals[policy.FullGrant]}, nil
}

// misplaced looks for our secrets in the header that Elasticsearch gets. Whatever the scheme, they don't belong there.
func misplaced(credentials []string) *Refusal {
	for _, value := range credentials {
		for word := range strings.FieldsFuncSeq(value, func(r rune) bool { return r == ' ' || r == '\t' || r == ',' || r == '"' || r == '=' }) {
			switch {
			case strings.HasPrefix(word, Prefix):
				return refuseMisplaced
			case strings.EqualFold(word, "MasterKey"), strings.HasPrefix(word, "esk1:"), strings.HasPrefix(word, "espw1:"), strings.HasPrefix(word, "estk1:"):
				return refuseMisplacedK
			}
		}
	}
	return nil
}

// Session is what one accepted header allows. It is immutable and safe for concurrent use. Reveals are those
// of the policy that the Verifier was made of; fields of another policy are Sealed.
type Session struct {
	TokenID string    // for the audit log
	Who     string    // for the audit log
	Grant   string    // name of the grant
	Expires time.Time // zero for the master key

	reveals map[*policy.Field]policy.Reveal
}

// Reveal says how f is shown to the caller.
func (s *Session) Reveal(f *policy.Field) policy.Reveal { return s.reveals[f] }

// Mask appends the masked form of an opened JSON value: one JSON string.
func (s *Session) Mask(dst []byte, f *policy.Field, value []byte) []byte {
	return Mask(dst, f.Mask, value)
}

package access

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Prefix begins every access token. The number is the version of the form.
const Prefix = "espt1."

// DefaultAudience is the audience of tokens and verifiers that name none.
const DefaultAudience = "esproxy"

const (
	maxToken = 4096 // bytes of a whole token
	maxWho   = 128  // bytes
	maxName  = 64   // bytes of an id, grant or audience
	// lastSecond is the end of the year 9999, past which RFC 3339 has no form. It keeps sums of times from overflowing.
	lastSecond = 253402300799
)

// Claims are what a token says. Times have a resolution of one second.
type Claims struct {
	ID       string // 1 to 64 of [A-Za-z0-9_-]; what revocation and the audit log name
	Who      string // 1 to 128 bytes of printable UTF-8; the person or program, for the audit log
	Grant    string // a grant of the policy
	Audience string // 1 to 64 of [A-Za-z0-9_-]; the installation that is to accept the token
	KeyID    [4]byte
	// Issued <= NotBefore < Expires.
	Issued, NotBefore, Expires time.Time
}

// payload is the JSON form of Claims, members in this order, no blanks between.
type payload struct {
	ID        string `json:"id"`
	Who       string `json:"who"`
	Grant     string `json:"grant"`
	Audience  string `json:"aud"`
	KeyID     string `json:"kid"`
	Issued    int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
}

// Mint makes the token for claims:
//
//	"espt1." base64url(payload) "." base64url(HMAC-SHA256(tokenKey, everything before the second dot))
//
// without padding. keyID replaces c.KeyID. An empty ID becomes a random one, an empty Audience DefaultAudience,
// a zero NotBefore equals Issued. Claims that no verifier would accept are an error.
func Mint(c Claims, keyID [4]byte, tokenKey []byte) (string, error) {
	if !usableKey(tokenKey) {
		return "", errors.New("the token key is missing; derive it from MASTER_KEY or give one made by esproxy keygen --token-key")
	}
	c.KeyID = keyID
	if c.ID == "" {
		c.ID = NewID()
	}
	if c.Audience == "" {
		c.Audience = DefaultAudience
	}
	if c.NotBefore.IsZero() {
		c.NotBefore = c.Issued
	}
	switch {
	case !isID(c.ID):
		return "", errors.New("the token id is not 1 to 64 letters, digits, hyphens and underscores")
	case !isWho(c.Who):
		return "", errors.New("the name of the token's holder is not 1 to 128 bytes of printable text; say for whom the token is")
	case !isID(c.Grant):
		return "", errors.New("the grant's name is not 1 to 64 letters, digits, hyphens and underscores; name a grant of the policy")
	case !isID(c.Audience):
		return "", errors.New("the audience is not 1 to 64 letters, digits, hyphens and underscores")
	case !timesAgree(c.Issued.Unix(), c.NotBefore.Unix(), c.Expires.Unix()):
		return "", errors.New("the token would never be valid; it must expire after it begins, at least one second")
	}
	body, err := encode(c)
	if err != nil {
		return "", err
	}
	signed := Prefix + base64.RawURLEncoding.EncodeToString(body)
	token := signed + "." + base64.RawURLEncoding.EncodeToString(sum(tokenKey, signed))
	if len(token) > maxToken {
		return "", errors.New("the token would be longer than 4096 bytes; shorten the holder's name")
	}
	return token, nil
}

// NewID makes the id of a token: 128 random bits. It begins with a letter, so that it is a text to YAML and to a shell.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	return "t" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// encode gives the one JSON text of c.
func encode(c Claims) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(payload{
		ID: c.ID, Who: c.Who, Grant: c.Grant, Audience: c.Audience, KeyID: hex.EncodeToString(c.KeyID[:]),
		Issued: c.Issued.Unix(), NotBefore: c.NotBefore.Unix(), Expires: c.Expires.Unix(),
	})
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

var errMalformed = errors.New("malformed")

// decode reads a payload. Comparing with what encode makes of it refuses unknown, missing and duplicate
// claims, other spellings of names and of values, and blanks, all at once.
func decode(body []byte) (Claims, error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	var p payload
	if d.Decode(&p) != nil {
		return Claims{}, errMalformed
	}
	if _, err := d.Token(); err != io.EOF {
		return Claims{}, errMalformed
	}
	c := Claims{
		ID: p.ID, Who: p.Who, Grant: p.Grant, Audience: p.Audience,
		Issued: time.Unix(p.Issued, 0), NotBefore: time.Unix(p.NotBefore, 0), Expires: time.Unix(p.Expires, 0),
	}
	kid, err := hex.DecodeString(p.KeyID)
	if err != nil || len(kid) != len(c.KeyID) {
		return Claims{}, errMalformed
	}
	copy(c.KeyID[:], kid)
	if !isID(c.ID) || !isID(c.Grant) || !isID(c.Audience) || !isWho(c.Who) || !timesAgree(p.Issued, p.NotBefore, p.Expires) {
		return Claims{}, errMalformed
	}
	again, err := encode(c)
	if err != nil || !bytes.Equal(again, body) {
		return Claims{}, errMalformed
	}
	return c, nil
}

// verify gives the claims of an authentic token. The HMAC is checked before anything of the payload is
// read; form is false where the text has not the form of a token. err tells that an authentic payload can't be read.
func verify(token string, tokenKey []byte) (c Claims, form, authentic bool, err error) {
	if len(token) > maxToken || !strings.HasPrefix(token, Prefix) {
		return Claims{}, false, false, nil
	}
	body64, mac64, ok := strings.Cut(token[len(Prefix):], ".")
	if !ok {
		return Claims{}, false, false, nil
	}
	mac, ok := decode64(mac64)
	if !ok || len(mac) != sha256.Size {
		return Claims{}, false, false, nil
	}
	body, ok := decode64(body64)
	if !ok || len(body) == 0 {
		return Claims{}, false, false, nil
	}
	if !usableKey(tokenKey) || !hmac.Equal(mac, sum(tokenKey, token[:len(Prefix)+len(body64)])) {
		return Claims{}, true, false, nil
	}
	c, err = decode(body)
	return c, true, true, err
}

// decode64 decodes unpadded base64url of which only one text exists for each value. The alphabet is
// checked first because Go's decoder skips CR and LF even when strict.
func decode64(s string) ([]byte, bool) {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return nil, false
		}
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil && base64.RawURLEncoding.EncodeToString(b) == s
}

func sum(key []byte, signed string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, signed) // never fails
	return h.Sum(nil)
}

// usableKey refuses keys that anyone can guess: short ones and zeros.
func usableKey(key []byte) bool {
	return len(key) >= 32 && !bytes.Equal(key, make([]byte, len(key)))
}

func timesAgree(issued, notBefore, expires int64) bool {
	return 0 < issued && issued <= notBefore && notBefore < expires && expires <= lastSecond
}

func isID(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return s != "" && len(s) <= maxName
}

func isWho(s string) bool {
	if s == "" || len(s) > maxWho || !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return false
		}
	}
	return true
}

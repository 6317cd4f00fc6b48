package envelope

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// Prefixes of key texts, docs/envelope.md "Key texts".
const (
	keyPrefix        = "esk1:"
	passphrasePrefix = "espw1:"
	tokenKeyPrefix   = "estk1:"
)

// MinPassphrase is the shortest passphrase, in characters (Unicode code points).
const MinPassphrase = 16

// bareSalt stands in for the salt that a bare passphrase does not have. Being the same everywhere, it
// lets guesses be prepared in advance; that is why bare passphrases must be asked for.
const bareSalt = "esproxy bare pw1"

// KeyOptions says which key texts ParseKey takes.
type KeyOptions struct {
	// AllowBarePassphrase takes any text of MinPassphrase characters or more that does not look like
	// another kind of key as a passphrase with a fixed salt.
	AllowBarePassphrase bool
}

// Key is one master key. It is immutable, safe for concurrent use, and prints as "[redacted]". Only
// ParseKey makes one; the zero Key refuses to work.
type Key struct {
	redacted
	*material // a pointer, so that printing a struct that holds a Key shows no bytes of it either
}

type material struct {
	id       KeyID
	root     []byte
	tokenKey []byte

	mu     sync.Mutex // held to add a scope
	scopes atomic.Pointer[map[string]*scopeKeys]
}

// scopeKeys are the keys of one master key for one scope.
type scopeKeys struct {
	wrap    *prf
	subject *prf
	scrypt  []byte
}

// ParseKey reads a master key: "esk1:" or "espw1:", or a bare passphrase where opt allows it. A
// passphrase costs 128 MiB and a fraction of a second. A text that begins with "esk" or "espw" and does not parse is always
// an error, never a passphrase. Errors say what is wrong and never quote the text. Surrounding white
// space is not removed.
func ParseKey(text string, opt KeyOptions) (*Key, error) {
	var root []byte
	var err error
	switch {
	case strings.HasPrefix(text, keyPrefix):
		root, err = parseRandomKey(text[len(keyPrefix):])
	case strings.HasPrefix(text, passphrasePrefix):
		root, err = parsePassphraseKey(text[len(passphrasePrefix):])
	default:
		root, err = parseBare(text, opt)
	}
	if err != nil {
		return nil, err
	}
	return newKey(root)
}

func newKey(root []byte) (*Key, error) {
	id, err := keyIDOf(root)
	if err != nil {
		return nil, err
	}
	tokenKey, err := tokenKeyOf(root)
	if err != nil {
		return nil, err
	}
	m := &material{id: id, root: root, tokenKey: tokenKey}
	m.scopes.Store(&map[string]*scopeKeys{})
	return &Key{material: m}, nil
}

// strict decodes canonical unpadded base64url. Unlike the standard library alone it refuses CR and LF.
func strict(text string) ([]byte, bool) {
	if !inAlphabet([]byte(text)) {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	return b, err == nil
}

func parseRandomKey(text string) ([]byte, error) {
	b, ok := strict(text)
	if !ok || len(b) != keySize+4 {
		return nil, errors.New("master key: after esk1: there must be 48 base64url characters; copy the key again in full")
	}
	secret, sum := b[:keySize], b[keySize:]
	if !bytes.Equal(sum, checksum(labelKeySum, secret)) {
		return nil, errors.New("master key: the checksum does not fit, so a character was mistyped or lost; copy the key again in full")
	}
	if isZero(secret) {
		return nil, errors.New("master key: the all-zero key is refused; make one with keygen")
	}
	return rootFromSecret(secret)
}

func parsePassphraseKey(text string) ([]byte, error) {
	saltText, passphrase, ok := strings.Cut(text, ":")
	salt, canonical := strict(saltText)
	if !ok || !canonical || len(salt) != saltSize {
		return nil, errors.New("master key: after espw1: there must be a salt of 22 base64url characters, a colon and the passphrase; make one with keygen --passphrase")
	}
	if err := checkPassphrase(passphrase); err != nil {
		return nil, err
	}
	return rootFromPassphrase(passphrase, salt)
}

func parseBare(text string, opt KeyOptions) ([]byte, error) {
	trimmed := strings.ToLower(strings.TrimSpace(text))
	switch {
	case text == "":
		return nil, errors.New("master key: it is empty; make one with keygen")
	case strings.HasPrefix(trimmed, "estk"):
		return nil, errors.New("master key: this is a token key, which only makes access tokens; give the master key, which begins with esk1: or espw1: and not with estk")
	case strings.HasPrefix(trimmed, "esk"), strings.HasPrefix(trimmed, "espw"):
		return nil, errors.New("master key: it begins like a key but is none; a key begins with exactly esk1: or espw1:, without blanks before it")
	case !opt.AllowBarePassphrase:
		return nil, errors.New("master key: it begins with neither esk1: nor espw1:; make one with keygen, or allow bare passphrases")
	}
	if err := checkPassphrase(text); err != nil {
		return nil, err
	}
	return rootFromPassphrase(text, []byte(bareSalt))
}

// checkPassphrase refuses what is too short, and what would differ from itself after a trip through a
// file or a shell.
func checkPassphrase(p string) error {
	switch {
	case !utf8.ValidString(p):
		return errors.New("master key: the passphrase is not UTF-8")
	case utf8.RuneCountInString(p) < MinPassphrase:
		return fmt.Errorf("master key: the passphrase must have at least %d characters", MinPassphrase)
	case strings.ContainsFunc(p, unicode.IsControl):
		return errors.New("master key: the passphrase contains a control character, such as a line end")
	case strings.TrimSpace(p) != p:
		return errors.New("master key: the passphrase begins or ends with white space")
	}
	return nil
}

func isZero(b []byte) bool {
	var or byte
	for _, c := range b {
		or |= c
	}
	return or == 0
}

// ID names the key. With a passphrase it lets its holder test guesses, at one scrypt each.
func (k *Key) ID() KeyID { return k.must().id }

// TokenKey gives a copy of the 32-byte key for access tokens. It opens no values.
func (k *Key) TokenKey() []byte { return bytes.Clone(k.must().tokenKey) }

// TokenKeyText gives the text form of key id and TokenKey, for those who make tokens but must not have
// the master key: "estk1:" and 54 base64url characters. ParseTokenKey reads it.
func (k *Key) TokenKeyText() string {
	m := k.must()
	b := append(m.id[:len(m.id):len(m.id)], m.tokenKey...)
	return tokenKeyPrefix + base64.RawURLEncoding.EncodeToString(append(b, checksum(labelTokenSum, b)...))
}

// ParseTokenKey reads what TokenKeyText gives: the id of the master key and the 32-byte token key.
// Errors never quote the text.
func ParseTokenKey(text string) (id KeyID, key []byte, err error) {
	rest, ok := strings.CutPrefix(text, tokenKeyPrefix)
	b, canonical := strict(rest)
	if !ok || !canonical || len(b) != len(id)+keySize+4 {
		return KeyID{}, nil, errors.New("token key: it must be estk1: and 54 base64url characters; make one with keygen --token-key")
	}
	body, sum := b[:len(id)+keySize], b[len(id)+keySize:]
	if !bytes.Equal(sum, checksum(labelTokenSum, body)) {
		return KeyID{}, nil, errors.New("token key: the checksum does not fit, so a character was mistyped or lost; copy it again in full")
	}
	if key = body[len(id):]; isZero(key) {
		return KeyID{}, nil, errors.New("token key: the all-zero key is refused")
	}
	return KeyID(body), key, nil
}

// must stops a zero Key from working as a key of no bytes.
func (k *Key) must() *material {
	if k == nil || k.material == nil {
		panic("envelope: use of a zero Key")
	}
	return k.material
}

// scope gives the keys for scope, derived at first use. Scopes come from the policy, so the map stays small.
func (m *material) scope(name string) (*scopeKeys, error) {
	if s, ok := (*m.scopes.Load())[name]; ok {
		return s, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	old := *m.scopes.Load()
	if s, ok := old[name]; ok {
		return s, nil
	}
	wrap, err := wrapKeyOf(m.root, name)
	if err != nil {
		return nil, err
	}
	subject, err := subjectKeyOf(m.root, name)
	if err != nil {
		return nil, err
	}
	slow, err := scryptKeyOf(m.root, name)
	if err != nil {
		return nil, err
	}
	s := &scopeKeys{wrap: newPRF(wrap), subject: newPRF(subject), scrypt: slow}
	next := make(map[string]*scopeKeys, len(old)+1)
	for n, v := range old {
		next[n] = v
	}
	next[name] = s
	m.scopes.Store(&next)
	return s, nil
}

// GenerateKey makes a new random master key, "esk1:" and 48 base64url characters. This is the
// recommended form: nothing made with it lets anyone test guesses.
func GenerateKey() (string, error) {
	secret := make([]byte, keySize)
	random(secret)
	return keyPrefix + base64.RawURLEncoding.EncodeToString(append(secret, checksum(labelKeySum, secret)...)), nil
}

// GeneratePassphraseKey makes a master key from a passphrase and a new random salt,
// "espw1:<22 base64url characters>:<passphrase>". The whole text is the key; the passphrase alone is not.
func GeneratePassphraseKey(passphrase string) (string, error) {
	if err := checkPassphrase(passphrase); err != nil {
		return "", err
	}
	salt := make([]byte, saltSize)
	random(salt)
	return passphrasePrefix + base64.RawURLEncoding.EncodeToString(salt) + ":" + passphrase, nil
}

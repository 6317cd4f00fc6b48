package envelope_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/esproxy/esproxy/internal/envelope"
)

func TestRotation(t *testing.T) {
	oldKey, badKey := newKey(t), newKey(t)
	p := profile{envelope.EAX, true, envelope.HKDF}
	var tokens [][]byte
	for _, k := range []*envelope.Key{oldKey, badKey} {
		r, err := envelope.NewKeyring(k, nil, envelope.Options{})
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, seal(t, r, p, card))
	}
	r := newRing(t, envelope.Options{Compromised: []envelope.KeyID{badKey.ID()}}, oldKey, badKey)
	if got, err := open(r, p, tokens[0]); err != nil || got != card {
		t.Errorf("previous key: %q, %v", got, err)
	}
	if _, err := open(r, p, tokens[1]); !errors.Is(err, envelope.ErrCompromised) {
		t.Errorf("compromised key: %v", err)
	}
	if got, err := open(r.ForRotation(), p, tokens[1]); err != nil || got != card {
		t.Errorf("compromised key, for rotation: %q, %v", got, err)
	}
	h, err := envelope.Peek(seal(t, r, p, card))
	if err != nil || h.KeyID != r.PrimaryID() || !r.Has(h.KeyID) || !r.Has(oldKey.ID()) || len(r.IDs()) != 3 || r.IDs()[0] != r.PrimaryID() {
		t.Errorf("sealed under %v, %v; ids %v", h.KeyID, err, r.IDs())
	}
}

func TestKeyringRefuses(t *testing.T) {
	k := newKey(t)
	for name, try := range map[string]func() (*envelope.Keyring, error){
		"no key": func() (*envelope.Keyring, error) { return envelope.NewKeyring(nil, nil, envelope.Options{}) },
		"zero key": func() (*envelope.Keyring, error) {
			return envelope.NewKeyring(new(envelope.Key), nil, envelope.Options{})
		},
		"zero previous": func() (*envelope.Keyring, error) {
			return envelope.NewKeyring(k, []*envelope.Key{{}}, envelope.Options{})
		},
		"one id twice": func() (*envelope.Keyring, error) {
			return envelope.NewKeyring(k, []*envelope.Key{k}, envelope.Options{})
		},
		"unknown suite": func() (*envelope.Keyring, error) { return envelope.NewKeyring(k, nil, envelope.Options{Suite: 3}) },
		"compromised primary": func() (*envelope.Keyring, error) {
			return envelope.NewKeyring(k, nil, envelope.Options{Compromised: []envelope.KeyID{k.ID()}})
		},
		"compromised unknown": func() (*envelope.Keyring, error) {
			return envelope.NewKeyring(k, nil, envelope.Options{Compromised: []envelope.KeyID{{1}}})
		},
	} {
		if r, err := try(); err == nil || r != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestZeroKeyRefusesToWork(t *testing.T) {
	for name, use := range map[string]func(*envelope.Key){
		"ID":           func(k *envelope.Key) { k.ID() },
		"TokenKey":     func(k *envelope.Key) { k.TokenKey() },
		"TokenKeyText": func(k *envelope.Key) { k.TokenKeyText() },
	} {
		for _, k := range []*envelope.Key{nil, {}} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s worked", name)
					}
				}()
				use(k)
			}()
		}
	}
}

func TestNothingPrintsKeys(t *testing.T) {
	k := newKey(t)
	r := newRing(t, envelope.Options{}, k)
	d, err := r.NewDocument(scope, []byte(subject), true, envelope.HKDF)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	o := r.NewOpener()
	defer o.Close()
	for _, v := range []any{k, *k, r, *r, d, o} {
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).Info("m", "v", v)
		js, err := json.Marshal(map[string]any{"v": v})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []string{fmt.Sprint(v), fmt.Sprintf("%+v", v), fmt.Sprintf("%#v", v), fmt.Sprintf("%x", v),
			fmt.Sprintf("%s", v), fmt.Sprintf("%d", v)} {
			if s != "[redacted]" {
				t.Errorf("%T prints %.80q", v, s)
			}
		}
		if string(js) != `{"v":"[redacted]"}` || !strings.Contains(log.String(), `"v":"[redacted]"`) {
			t.Errorf("%T: %s %s", v, js, log.String())
		}
	}
	// A struct around a Key: fmt cannot call methods of what it holds unexported.
	hidden := fmt.Sprintf("%+v", struct{ k envelope.Key }{*k})
	if len(hidden) > 64 { // an address, not 32 bytes
		t.Errorf("inside a struct: %q", hidden)
	}
}

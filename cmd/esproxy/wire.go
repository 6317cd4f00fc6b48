package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/esproxy/esproxy/internal/access"
	"github.com/esproxy/esproxy/internal/cluster"
	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/proxy"
	"github.com/esproxy/esproxy/internal/rewrite"
)

// sealer lets the engine seal with a keyring.
type sealer struct{ ring *envelope.Keyring }

func (s sealer) NewDocument(r *policy.Rule, subject []byte) (rewrite.DocumentSealer, error) {
	d, err := s.ring.NewDocument(r.Name, subject, r.Subject != "", kdf(r))
	if err != nil {
		return nil, sealFault(err)
	}
	return document{d}, nil
}

func (s sealer) IsToken(text []byte) bool { return envelope.IsToken(text) }

type document struct{ *envelope.Document }

func (d document) Seal(dst []byte, path string, value []byte) ([]byte, error) {
	out, err := d.Document.Seal(dst, path, value)
	if err != nil {
		return out, sealFault(err)
	}
	return out, nil
}

// sealFault says what a client can do about an error of the envelope.
func sealFault(err error) error {
	switch {
	case errors.Is(err, envelope.ErrBusy):
		return &rewrite.Fault{Status: 429, Type: "esproxy_busy", Reason: "too many keys are being derived at once; try again"}
	case errors.Is(err, envelope.ErrLimit):
		return &rewrite.Fault{Status: 400, Type: "esproxy_document_too_large", Reason: "a protected value is larger than 64 MiB, or the document has more than 2^20 protected values; send smaller documents"}
	case errors.Is(err, envelope.ErrSubject):
		return &rewrite.Fault{Status: 400, Type: "esproxy_subject", Reason: "the subject must be 1 to 512 bytes of UTF-8"}
	}
	return err
}

// opener lets the engine open with a keyring.
type opener struct{ ring *envelope.Keyring }

func (o opener) NewSession() rewrite.OpenSession { return session{o.ring.NewOpener()} }

type session struct{ o *envelope.Opener }

func (s session) Open(dst []byte, r *policy.Rule, path string, subject, token []byte) ([]byte, error) {
	out, err := s.o.Open(dst, r.Name, path, subject, r.Subject != "", kdf(r), token)
	if err != nil {
		return out, openError{err}
	}
	return out, nil
}

func (s session) Close() { s.o.Close() }

// openError gives the class of an error for metrics.
type openError struct{ error }

func (e openError) Unwrap() error { return e.error }

// Reason names the class.
func (e openError) Reason() string {
	switch {
	case errors.Is(e.error, envelope.ErrUnknownKey):
		return "unknown_key"
	case errors.Is(e.error, envelope.ErrCompromised):
		return "compromised_key"
	case errors.Is(e.error, envelope.ErrMalformed):
		return "malformed"
	case errors.Is(e.error, envelope.ErrProfile):
		return "profile"
	case errors.Is(e.error, envelope.ErrUnbound):
		return "unbound"
	case errors.Is(e.error, envelope.ErrBusy):
		return "busy"
	}
	return "auth"
}

func kdf(r *policy.Rule) envelope.KDF {
	if r.KDF == policy.ScryptPerSubject {
		return envelope.ScryptPerSubject
	}
	return envelope.HKDF
}

// judge lets the proxy judge grant headers with a verifier.
type judge struct{ v *access.Verifier }

func (j judge) Judge(authorization, credentials []string, secure bool) (*proxy.Grantee, error) {
	s, err := j.v.Judge(authorization, credentials, secure)
	if err != nil || s == nil {
		return nil, err
	}
	return &proxy.Grantee{TokenID: s.TokenID, Who: s.Who, Grant: s.Grant, Viewer: s}, nil
}

// core is one generation of policy, keys and what is built of them.
type core struct {
	policy  *policy.Policy
	key     *envelope.Key
	ring    *envelope.Keyring
	cluster *cluster.Cluster
	state   *proxy.State
}

// loadPolicy reads the policy and checks it against the key.
func loadPolicy(s *settings) (*policy.Policy, error) {
	pol, err := policy.Load(s.Fields)
	if err != nil {
		return nil, usageError{err}
	}
	if problems := rewrite.CheckAllow(pol); problems != nil {
		return nil, usageError{problems}
	}
	return pol, nil
}

// checkKeyID holds the key against the policy's key_id.
func checkKeyID(pol *policy.Policy, key *envelope.Key) error {
	if pol.KeyID != "" && pol.KeyID != key.ID().String() {
		return usagef("MASTER_KEY has the id %s, and the policy's key_id asks for %s: this is the wrong key, or key_id must be changed", key.ID(), pol.KeyID)
	}
	return nil
}

// asker is what the cluster package asks through; the server gives it.
type asker interface {
	Own() rewrite.Caller
	Budget() *proxy.Budget
}

// newCore builds everything that a reload replaces.
func newCore(s *settings, srv asker, turns *rewrite.Turns, log *slog.Logger) (*core, error) {
	pol, err := loadPolicy(s)
	if err != nil {
		return nil, err
	}
	key, ring, err := loadKeyring(s)
	if err != nil {
		return nil, err
	}
	if err := checkKeyID(pol, key); err != nil {
		return nil, err
	}
	for _, a := range pol.Allow {
		log.Info("allowed unread", "method", a.Method, "path", a.Path)
	}
	c := &core{policy: pol, key: key, ring: ring}
	var ids []string
	for _, id := range ring.IDs() {
		ids = append(ids, id.String())
	}
	c.cluster = cluster.New(cluster.Config{
		Own:        srv.Own(),
		HasOwn:     s.ElasticsearchUsername != "" || s.ElasticsearchAPIKey != "",
		Policy:     func() *policy.Policy { return pol },
		LoadedKeys: ids,
		Log:        log,
		KeyID: func(token []byte) (string, bool) {
			h, err := envelope.Peek(token)
			return h.KeyID.String(), err == nil
		},
	})
	engine := &rewrite.Engine{
		Policy: pol, Sealer: sealer{ring}, Opener: opener{ring}, Cluster: c.cluster, CanHaveSentinels: c.cluster.CanHaveSentinels, Budget: srv.Budget(), Turns: turns,
		Limits:        rewrite.Limits{MaxDocument: int64(s.MaxDocument), MaxHit: int64(s.MaxHit)},
		PassAddresses: s.Discovery == "pass",
	}
	if engine.PublishAddress, err = publishAddress(s); err != nil {
		return nil, err
	}
	opt := access.Options{Audience: audience(s), AllowInsecure: s.AllowPlainGrants}
	if s.MasterKeyLogin {
		opt.MasterKeyLogin = access.MasterKeyCheck(s.MasterKey)
	}
	c.state = &proxy.State{
		Planner:          engine,
		Judge:            judge{access.NewVerifier(pol, key.ID(), key.TokenKey(), opt)},
		MaxContentLength: c.cluster.MaxContentLength,
		Protects:         protects(pol),
		KeyID:            key.ID().String(),
		Suite:            ring.Suite().String(),
	}
	return c, nil
}

// publishAddress is the "host:port" of ESPROXY_PUBLISH_ADDRESS, "" when it is not set. It also checks ESPROXY_DISCOVERY.
func publishAddress(s *settings) (string, error) {
	switch s.Discovery {
	case "", "rewrite", "pass":
	default:
		return "", usagef("ESPROXY_DISCOVERY: use rewrite or pass")
	}
	text, port := s.PublishAddress, ""
	if text == "" {
		return "", nil
	}
	if scheme, rest, ok := strings.Cut(text, "://"); ok {
		switch scheme {
		case "http":
			port = "80"
		case "https":
			port = "443"
		default:
			rest = ""
		}
		text = strings.TrimSuffix(rest, "/")
	}
	address, ok := proxy.Authority(text, port)
	if !ok {
		return "", usagef("ESPROXY_PUBLISH_ADDRESS: use host:port, or a URL without path, user and query")
	}
	return address, nil
}

// protects lists rule.field for the start line.
func protects(pol *policy.Policy) []string {
	var out []string
	for _, r := range pol.Rules {
		for _, f := range r.Fields {
			out = append(out, r.Name+"."+f.Path)
		}
	}
	return out
}

// recordSealer seals whole records by index name alone, for the dead letters of ingest.
type recordSealer struct {
	pol    *policy.Policy
	engine *rewrite.Engine
}

func newRecordSealer(pol *policy.Policy, ring *envelope.Keyring) *recordSealer {
	return &recordSealer{pol, &rewrite.Engine{Policy: pol, Sealer: sealer{ring}, Opener: opener{ring}}}
}

// SealRecord seals the protected values of a record for index. Without a matching rule nobody can
// say what is protected (the name may be an alias), so the record is not kept.
func (r *recordSealer) SealRecord(index string, record []byte) ([]byte, error) {
	rules, conflict := r.pol.Match([]string{index})
	if conflict != nil {
		return nil, conflict
	}
	if len(rules) == 0 {
		return nil, fmt.Errorf("no rule names [%s], so it is not known what to seal", index)
	}
	return r.engine.SealDocument(nil, record, rules)
}

// fullView shows everything; for commands that hold the key.
type fullView struct{}

func (fullView) Reveal(*policy.Field) policy.Reveal { return policy.Plain }

func (fullView) Mask(dst []byte, _ *policy.Field, _ []byte) []byte { return append(dst, `"****"`...) }

// unopenedCounter counts values that stayed sealed.
type unopenedCounter struct{ n int }

func (c *unopenedCounter) Sealed(*policy.Field, int)                        {}
func (c *unopenedCounter) Opened(*policy.Field, policy.Reveal, string, int) {}
func (c *unopenedCounter) Unopened(_ string, n int)                         { c.n += n }
func (c *unopenedCounter) Refused(string)                                   {}

// checkStored tells early, in the log, what is wrong with what is stored.
func checkStored(ctx context.Context, c *core, log *slog.Logger) {
	checkStoredKeys(ctx, c, log)
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if _, err := c.cluster.CheckMappings(ctx); err != nil && ctx.Err() == nil {
		log.Debug("mappings could not all be checked; the first write to each target checks again", "error", err)
	}
}

// checkStoredKeys tells early, in the log, that stored values lie under other keys; writes are refused then.
func checkStoredKeys(ctx context.Context, c *core, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	err := c.cluster.CheckKeys(ctx)
	if errors.Is(ctx.Err(), context.Canceled) {
		return // the proxy stops
	}
	var f *rewrite.Fault
	switch {
	case err == nil:
	case errors.As(err, &f) && f.Type == "esproxy_wrong_key":
		log.Error("wrong MASTER_KEY", "reason", f.Reason)
	case f != nil && f.Type == cluster.FaultUnknown:
		log.Error("Elasticsearch does not tell the proxy what it holds; until it does, requests that write or read documents are refused", "reason", f.Reason, "cause", f.Cause)
	case f != nil && f.Cause != nil: // no answer: the cause tells of addresses, certificates or a status
		log.Warn("stored values could not be checked against MASTER_KEY; writes check again", "reason", f.Reason, "cause", f.Cause)
	default:
		log.Warn("stored values could not be checked against MASTER_KEY; writes check again", "error", err)
	}
}

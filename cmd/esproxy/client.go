package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/access"
	"github.com/esproxy/esproxy/internal/policy"
)

// clientSettings are the variables that commands which are clients of the proxy have flags for.
var clientSettings = []string{
	"ESPROXY_URL", "ESPROXY_CA_FILE", "ESPROXY_TOKEN_FILE", "ESPROXY_FIELDS", "ESPROXY_AUDIENCE", "MASTER_KEY_FILE", "ESPROXY_TOKEN_KEY_FILE",
	"ESPROXY_ALLOW_PASSPHRASE", "ELASTICSEARCH_USERNAME", "ELASTICSEARCH_PASSWORD_FILE", "ELASTICSEARCH_API_KEY_FILE",
}

// client asks the proxy, with Elasticsearch's credentials and, for reading, a token.
type client struct {
	base  string
	http  *http.Client
	head  http.Header
	token func() (string, error) // nil: no grant
	// minted tells that the token is made here, so that a refusal of it speaks of the key.
	minted bool
}

func newClient(s *settings) (*client, error) {
	u, err := url.Parse(s.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, usagef("ESPROXY_URL must be an address such as http://127.0.0.1:9280")
	}
	if u.User != nil {
		return nil, usagef("ESPROXY_URL must hold no user name; set ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD")
	}
	transport, err := clientTransport(s)
	if err != nil {
		return nil, err
	}
	c := &client{base: strings.TrimRight(u.String(), "/"), http: &http.Client{Transport: transport, Timeout: 5 * time.Minute, CheckRedirect: noRedirect}, head: http.Header{}}
	switch {
	case s.ElasticsearchAPIKey != "":
		c.head.Set("Authorization", "ApiKey "+s.ElasticsearchAPIKey)
	case s.ElasticsearchUsername != "":
		r := http.Request{Header: c.head}
		r.SetBasicAuth(s.ElasticsearchUsername, s.ElasticsearchPassword)
	}
	return c, nil
}

// noRedirect keeps tokens and credentials from going where a reply points to.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

func clientTransport(s *settings) (*http.Transport, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, usagef("ESPROXY_CA_FILE: %w", err)
		}
		t.TLSClientConfig.RootCAs = x509.NewCertPool()
		if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usagef("ESPROXY_CA_FILE holds no certificate in PEM")
		}
	}
	return t, nil
}

// grantFull makes c send a token: the one that is given, or one of a minute made from the key.
func (c *client) grantFull(s *settings) error {
	if s.Token != "" {
		c.token = func() (string, error) { return s.Token, nil }
		return nil
	}
	if s.MasterKey == "" && s.TokenKey == "" {
		return usagef("without MASTER_KEY or ESPROXY_TOKEN nothing can be opened; set one of them")
	}
	c.minted = true
	id, key, err := tokenKey(s)
	if err != nil {
		return err
	}
	c.token = func() (string, error) {
		now := time.Now()
		return access.Mint(access.Claims{
			Who: "esproxy-cli", Grant: policy.FullGrant, Audience: audience(s), KeyID: id,
			Issued: now, NotBefore: now, Expires: now.Add(time.Minute),
		}, id, key)
	}
	return nil
}

// do sends one request and returns the whole body of a reply below 300.
func (c *client) do(ctx context.Context, method, path string, body any) ([]byte, error) {
	var r io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, r)
	if err != nil {
		return nil, err
	}
	for k, v := range c.head {
		req.Header[k] = v
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != nil {
		t, err := c.token()
		if err != nil {
			return nil, err
		}
		req.Header.Set("X-Esproxy-Authorization", "Bearer "+t)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("the proxy at %s does not answer: %w", c.base, err)
	}
	defer res.Body.Close()
	out, err := io.ReadAll(io.LimitReader(res.Body, 1<<30))
	if err != nil {
		return nil, fmt.Errorf("the reply of the proxy was cut: %w", err)
	}
	if res.StatusCode >= 300 {
		reason := gjson.GetBytes(out, "error.reason").String()
		if reason == "" {
			reason = http.StatusText(res.StatusCode)
		}
		return nil, &statusError{res.StatusCode, gjson.GetBytes(out, "error.type").String(), reason, c.minted}
	}
	if !gjson.ValidBytes(out) {
		return nil, fmt.Errorf("%s answered something that is no JSON: is it the proxy?", c.base)
	}
	return out, nil
}

// statusError is an error reply.
type statusError struct {
	status       int
	kind, reason string
	minted       bool
}

func (e *statusError) Error() string {
	switch e.kind {
	case "esproxy_bad_grant":
		if e.minted {
			return fmt.Sprintf("the proxy refuses the token that was made with this key; it must be the proxy's own MASTER_KEY (or its token key): %s", e.reason)
		}
		return fmt.Sprintf("the proxy refuses ESPROXY_TOKEN: %s", e.reason)
	case "security_exception":
		return fmt.Sprintf("Elasticsearch refuses the credentials (ELASTICSEARCH_USERNAME and so on): %s", e.reason)
	}
	return fmt.Sprintf("status %d: %s", e.status, e.reason)
}

// chooseRule finds the rule that a command is about, by the name that flag gave.
func chooseRule(pol *policy.Policy, flag, name string) (*policy.Rule, error) {
	if name != "" {
		if r := pol.Rule(name); r != nil {
			return r, nil
		}
		return nil, usagef("the policy has no rule %q; it has: %s", name, ruleNames(pol))
	}
	if len(pol.Rules) == 1 {
		return pol.Rules[0], nil
	}
	return nil, usagef("the policy has several rules; choose one with --%s: %s", flag, ruleNames(pol))
}

func ruleNames(pol *policy.Policy) string {
	var names []string
	for _, r := range pol.Rules {
		names = append(names, r.Name)
	}
	return strings.Join(names, ", ")
}

// rulePath is the part of a path that names a rule's indices.
func rulePath(r *policy.Rule, index string) string {
	if index == "" {
		index = strings.Join(r.Indices, ",")
	}
	return "/" + url.PathEscape(index)
}

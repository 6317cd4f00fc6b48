package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/esproxy/esproxy/internal/access"
	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/esproxy/esproxy/internal/policy"
)

func newToken(env environ) *cobra.Command {
	var grant, who, id string
	var ttl time.Duration
	var notBefore string
	cmd := &cobra.Command{
		Use:   "token --grant NAME --for WHO",
		Short: "Make a token for X-Esproxy-Authorization",
		Long: "Makes a token offline, from MASTER_KEY or from ESPROXY_TOKEN_KEY, and prints it alone on standard output. The id by\n" +
			"which it can be revoked is printed on standard error. Clients send: X-Esproxy-Authorization: Bearer <token>",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := loadSettings(cmd)
			if err != nil {
				return err
			}
			if grant == "" || who == "" {
				return usagef("--grant and --for are needed")
			}
			if ttl <= 0 {
				return usagef("--ttl must be above zero")
			}
			keyID, key, err := tokenKey(s)
			if err != nil {
				return err
			}
			now := time.Now()
			start := now
			if notBefore != "" {
				if start, err = time.Parse(time.RFC3339, notBefore); err != nil {
					return usagef("--not-before must be a time such as 2026-01-31T08:00:00Z")
				}
				if start.Before(now) {
					return usagef("--not-before lies in the past; leave it out for a token that is good at once")
				}
			}
			if id == "" {
				id = access.NewID()
			}
			text, err := access.Mint(access.Claims{
				ID: id, Who: who, Grant: grant, Audience: audience(s), KeyID: keyID,
				Issued: now, NotBefore: start, Expires: start.Add(ttl),
			}, keyID, key)
			if err != nil {
				return usageError{err}
			}
			warnToken(env.err, s.Fields, grant, ttl)
			fmt.Fprintf(env.err, "token id %s, grant %s, for %s, until %s\n", id, grant, who, start.Add(ttl).UTC().Format(time.RFC3339))
			_, err = fmt.Fprintln(env.out, text)
			return err
		},
	}
	cmd.Flags().StringVar(&grant, "grant", "", "the grant of the policy that the token stands for, for example full")
	cmd.Flags().StringVar(&who, "for", "", "the person or program, for the audit log")
	cmd.Flags().DurationVar(&ttl, "ttl", 8*time.Hour, "how long the token is good")
	cmd.Flags().StringVar(&notBefore, "not-before", "", "when the token becomes good (RFC 3339); default now")
	cmd.Flags().StringVar(&id, "id", "", "the token's id; default random")
	addSettings(cmd, "MASTER_KEY_FILE", "ESPROXY_TOKEN_KEY_FILE", "ESPROXY_AUDIENCE", "ESPROXY_FIELDS", "ESPROXY_ALLOW_PASSPHRASE")
	return cmd
}

// warnToken tells early what the proxy will refuse later, where the policy is at hand.
func warnToken(w io.Writer, fields, grant string, ttl time.Duration) {
	pol, err := policy.Load(fields)
	if err != nil {
		return // the policy may be elsewhere; the proxy judges
	}
	if pol.Grants[grant] == nil {
		fmt.Fprintf(w, "esproxy: the policy %s has no grant %q\n", fields, grant)
	}
	if ttl > pol.Tokens.MaxTTL {
		fmt.Fprintf(w, "esproxy: the policy %s takes tokens of at most %s\n", fields, pol.Tokens.MaxTTL)
	}
}

func audience(s *settings) string {
	if s.Audience != "" {
		return s.Audience
	}
	return access.DefaultAudience
}

// tokenKey is the key that makes tokens: given as such, or derived from the master key.
func tokenKey(s *settings) (envelope.KeyID, []byte, error) {
	if s.TokenKey != "" {
		id, key, err := envelope.ParseTokenKey(s.TokenKey)
		if err != nil {
			return id, nil, usagef("ESPROXY_TOKEN_KEY: %w", err)
		}
		return id, key, nil
	}
	if s.MasterKey == "" {
		return envelope.KeyID{}, nil, usagef("set MASTER_KEY, or ESPROXY_TOKEN_KEY (esproxy keygen --token-key)")
	}
	k, err := loadKey(s)
	if err != nil {
		return envelope.KeyID{}, nil, err
	}
	return k.ID(), k.TokenKey(), nil
}

// readLine reads the first line of r.
func readLine(r io.Reader) (string, error) {
	text, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	line = strings.TrimRight(line, "\r")
	if line == "" {
		return "", errors.New("nothing on standard input")
	}
	return line, nil
}

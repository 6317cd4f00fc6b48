package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/esproxy/esproxy/internal/envelope"
)

// errNoKey says what to do about a missing key.
var errNoKey = errors.New("MASTER_KEY is not set; make a key with: esproxy keygen")

// loadKeyring makes the keyring from the settings.
func loadKeyring(s *settings) (*envelope.Key, *envelope.Keyring, error) {
	primary, err := loadKey(s)
	if err != nil {
		return nil, nil, err
	}
	var previous []*envelope.Key
	for i, line := range strings.Split(s.MasterKeyPrevious, "\n") {
		line = strings.TrimRight(line, "\r")
		if line == "" {
			continue
		}
		k, err := envelope.ParseKey(line, envelope.KeyOptions{AllowBarePassphrase: s.AllowPassphrase})
		if err != nil {
			return nil, nil, usagef("MASTER_KEY_PREVIOUS, key %d: %w", i+1, err)
		}
		previous = append(previous, k)
	}
	opt := envelope.Options{}
	if s.Suite != "" {
		if opt.Suite, err = envelope.ParseSuite(s.Suite); err != nil {
			return nil, nil, usagef("ESPROXY_SUITE: %w", err)
		}
	}
	for _, text := range s.Compromised {
		id, err := envelope.ParseKeyID(text)
		if err != nil {
			return nil, nil, usagef("ESPROXY_COMPROMISED_KEYS: %w", err)
		}
		opt.Compromised = append(opt.Compromised, id)
	}
	ring, err := envelope.NewKeyring(primary, previous, opt)
	if err != nil {
		return nil, nil, usageError{err}
	}
	return primary, ring, nil
}

func loadKey(s *settings) (*envelope.Key, error) {
	if s.MasterKey == "" {
		return nil, usageError{errNoKey}
	}
	k, err := envelope.ParseKey(s.MasterKey, envelope.KeyOptions{AllowBarePassphrase: s.AllowPassphrase})
	if err != nil {
		hint := ""
		if !s.AllowPassphrase && !strings.HasPrefix(s.MasterKey, "es") {
			hint = " with ESPROXY_ALLOW_PASSPHRASE=true"
		}
		return nil, usagef("MASTER_KEY: %w%s", err, hint)
	}
	return k, nil
}

func newKeygen(env environ) *cobra.Command {
	var passphrase, tokenKey bool
	cmd := &cobra.Command{
		Use:   "keygen",
		Short: "Make a master key, or the token key of MASTER_KEY",
		Long: "Prints a new random master key. With --passphrase it makes a key from a passphrase (asked on a terminal, else read from\n" +
			"standard input): whoever holds a sealed value can then test guesses, so random keys are the recommended form.\n" +
			"With --token-key it prints the key that makes tokens and opens nothing, derived from MASTER_KEY.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if passphrase && tokenKey {
				return usagef("--passphrase and --token-key exclude each other")
			}
			var text string
			var err error
			switch {
			case tokenKey:
				s, serr := loadSettings(cmd)
				if serr != nil {
					return serr
				}
				key, kerr := loadKey(s)
				if kerr != nil {
					return kerr
				}
				text = key.TokenKeyText()
			case passphrase:
				phrase, perr := askPassphrase(env)
				if perr != nil {
					return usageError{perr}
				}
				if text, err = envelope.GeneratePassphraseKey(phrase); err != nil {
					return usageError{err}
				}
			default:
				text, err = envelope.GenerateKey()
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(env.out, text)
			return err
		},
	}
	cmd.Flags().BoolVar(&passphrase, "passphrase", false, "make the key from a passphrase")
	cmd.Flags().BoolVar(&tokenKey, "token-key", false, "print the token key of MASTER_KEY")
	addSettings(cmd, "MASTER_KEY_FILE", "ESPROXY_ALLOW_PASSPHRASE")
	return cmd
}

// askPassphrase asks twice on a terminal, and else reads one line.
func askPassphrase(env environ) (string, error) {
	if f, ok := env.in.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		ask := func(prompt string) (string, error) {
			fmt.Fprint(env.err, prompt)
			b, err := term.ReadPassword(int(f.Fd()))
			fmt.Fprintln(env.err)
			return string(b), err
		}
		first, err := ask("Passphrase: ")
		if err != nil {
			return "", err
		}
		again, err := ask("Once more: ")
		if err != nil {
			return "", err
		}
		if first != again {
			return "", errors.New("the two passphrases differ")
		}
		return first, nil
	}
	line, err := readLine(env.in)
	if err != nil {
		return "", fmt.Errorf("passphrase: %w", err)
	}
	return line, nil
}

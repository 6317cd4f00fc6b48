package proxy

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// ServerTLS is the data listener's TLS. The files are PEM and are read again when their content changes.
type ServerTLS struct {
	CertFile string // chain, leaf first
	KeyFile  string
	// ClientCAFile, if set, makes a client certificate under one of its authorities mandatory.
	ClientCAFile string
}

func (t *ServerTLS) files() []string {
	files := []string{t.CertFile, t.KeyFile}
	if t.ClientCAFile != "" {
		files = append(files, t.ClientCAFile)
	}
	return files
}

// certStore holds the listener's current TLS configuration.
type certStore struct {
	files   ServerTLS
	watch   *Watch
	current atomic.Pointer[tls.Config]
}

func newCertStore(files ServerTLS) (*certStore, error) {
	s := &certStore{files: files, watch: NewWatch(files.files())}
	return s, s.load()
}

// load reads the files anew; on error the old configuration stays.
func (s *certStore) load() error {
	cert, err := tls.LoadX509KeyPair(s.files.CertFile, s.files.KeyFile)
	if err != nil {
		return fmt.Errorf("listener certificate: %w", err)
	}
	c := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	}
	if s.files.ClientCAFile != "" {
		if c.ClientCAs, err = readCAs(s.files.ClientCAFile); err != nil {
			return fmt.Errorf("client authorities: %w", err)
		}
		c.ClientAuth = tls.RequireAndVerifyClientCert
	}
	s.current.Store(c)
	return nil
}

func (s *certStore) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			return s.current.Load(), nil
		},
	}
}

func readCAs(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}

// UpstreamTLS is how nodes with https URLs are authenticated. All fields may be empty, then the system's
// authorities count.
type UpstreamTLS struct {
	CAFile string // PEM
	// Fingerprint is the SHA-256 of the node's certificate or of an authority in its chain, in hex with or
	// without colons, as Elasticsearch prints it at its first start.
	Fingerprint string
	// CertFile and KeyFile are the certificate that the proxy shows to nodes; read at each handshake.
	CertFile, KeyFile string
}

var errFingerprint = errors.New("no certificate of the node's verified chain has the configured fingerprint")

func (t *UpstreamTLS) config(host string) (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	var err error
	if t.CAFile != "" {
		if c.RootCAs, err = readCAs(t.CAFile); err != nil {
			return nil, fmt.Errorf("the CA file for Elasticsearch: %w", err)
		}
	}
	if t.CertFile != "" || t.KeyFile != "" {
		load := func() (*tls.Certificate, error) {
			cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
			if err != nil {
				return nil, fmt.Errorf("client certificate for Elasticsearch: %w", err)
			}
			return &cert, nil
		}
		if _, err := load(); err != nil {
			return nil, err
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return load() }
	}
	if t.Fingerprint != "" {
		want, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(t.Fingerprint), ":", ""))
		if err != nil || len(want) != sha256.Size {
			return nil, errors.New("the CA fingerprint must be 32 bytes in hex")
		}
		roots := c.RootCAs
		// The standard verification is replaced by verifyPinned, which does all of it and more.
		c.InsecureSkipVerify = true
		c.VerifyConnection = func(cs tls.ConnectionState) error { return verifyPinned(cs, host, roots, want) }
	}
	return c, nil
}

// verifyPinned accepts a chain that leads to a certificate with the fingerprint. That a peer merely shows
// such a certificate proves nothing: authorities are public. A pinned leaf is accepted as it is, since the
// handshake proved its key; a pinned authority must have signed the chain, and the name must match.
func verifyPinned(cs tls.ConnectionState, host string, roots *x509.CertPool, want []byte) error {
	is := func(c *x509.Certificate) bool {
		sum := sha256.Sum256(c.Raw)
		return bytes.Equal(sum[:], want)
	}
	if len(cs.PeerCertificates) == 0 {
		return errFingerprint
	}
	leaf := cs.PeerCertificates[0]
	if roots == nil && is(leaf) {
		return nil
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), DNSName: host}
	if roots == nil {
		opts.Roots = x509.NewCertPool()
		for _, c := range cs.PeerCertificates[1:] {
			if is(c) {
				opts.Roots.AddCert(c)
			}
		}
	}
	for _, c := range cs.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	chains, err := leaf.Verify(opts)
	if err != nil {
		return err
	}
	for _, chain := range chains {
		for _, c := range chain {
			if is(c) {
				return nil
			}
		}
	}
	return errFingerprint
}

package proxy_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/esproxy/esproxy/internal/proxy"
)

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.issue(t, "ca", nil)
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue writes name.pem, with the chain, and name.key.
func (a *authority) issue(t *testing.T, name string, usage []x509.ExtKeyUsage) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: usage, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		BasicConstraintsValid: true, IsCA: a.cert == nil,
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if a.cert != nil {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})...)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string][]byte{name + ".pem": chain, name + ".key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(a.file(file), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func fingerprint(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

func TestUpstreamTLS(t *testing.T) {
	ca, other := newAuthority(t), newAuthority(t)
	leaf, _ := ca.issue(t, "node", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	ca.issue(t, "proxy", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth})
	pair, err := tls.LoadX509KeyPair(ca.file("node.pem"), ca.file("node.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	node := func(chain [][]byte, needClient bool) string {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") }))
		cert := pair
		if chain != nil {
			cert.Certificate = chain
		}
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
		if needClient {
			s.TLS.ClientCAs, s.TLS.ClientAuth = pool, tls.RequireAndVerifyClientCert
		}
		s.Config.ErrorLog = quiet
		s.StartTLS()
		t.Cleanup(s.Close)
		return s.URL
	}
	plain, mutual := node(nil, false), node(nil, true)
	// Shows the other authority's certificate, which is public, behind a chain that it did not sign.
	forged := node([][]byte{pair.Certificate[0], other.cert.Raw}, false)
	for name, c := range map[string]struct {
		url  string
		tls  proxy.UpstreamTLS
		want int
	}{
		"system authorities":    {plain, proxy.UpstreamTLS{}, 502},
		"CA":                    {plain, proxy.UpstreamTLS{CAFile: ca.file("ca.pem")}, 200},
		"other CA":              {plain, proxy.UpstreamTLS{CAFile: other.file("ca.pem")}, 502},
		"CA's fingerprint":      {plain, proxy.UpstreamTLS{Fingerprint: fingerprint(ca.cert)}, 200},
		"leaf's fingerprint":    {plain, proxy.UpstreamTLS{Fingerprint: strings.ToUpper(fingerprint(leaf))}, 200},
		"other fingerprint":     {plain, proxy.UpstreamTLS{Fingerprint: fingerprint(other.cert)}, 502},
		"forged chain":          {forged, proxy.UpstreamTLS{Fingerprint: fingerprint(other.cert)}, 502},
		"CA and fingerprint":    {plain, proxy.UpstreamTLS{CAFile: ca.file("ca.pem"), Fingerprint: fingerprint(ca.cert)}, 200},
		"CA, wrong fingerprint": {plain, proxy.UpstreamTLS{CAFile: ca.file("ca.pem"), Fingerprint: fingerprint(other.cert)}, 502},
		"no client certificate": {mutual, proxy.UpstreamTLS{CAFile: ca.file("ca.pem")}, 502},
		"client certificate":    {mutual, proxy.UpstreamTLS{CAFile: ca.file("ca.pem"), CertFile: ca.file("proxy.pem"), KeyFile: ca.file("proxy.key")}, 200},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, planFunc(raw), proxy.Config{Nodes: []string{c.url}, Upstream: c.tls})
			if code, b := get(t, p.url); code != c.want {
				t.Errorf("got %d %s, want %d", code, b, c.want)
			}
		})
	}
}

// TestListenerTLS: client certificates, a minimum version, and new certificates when the files change.
func TestListenerTLS(t *testing.T) {
	ca := newAuthority(t)
	first, _ := ca.issue(t, "proxy", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	ca.issue(t, "client", []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth})
	url, _ := recorder(t, ok)
	clock := &manualClock{now: time.Now(), ticks: make(chan time.Time)}
	p := start(t, planFunc(raw), proxy.Config{
		Nodes: []string{url}, Clock: clock,
		TLS: &proxy.ServerTLS{CertFile: ca.file("proxy.pem"), KeyFile: ca.file("proxy.key"), ClientCAFile: ca.file("ca.pem")},
	})
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	cert, err := tls.LoadX509KeyPair(ca.file("client.pem"), ca.file("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	serial := func(c *tls.Config) (*big.Int, error) {
		c.RootCAs = pool
		conn, err := tls.Dial("tcp", p.addr, c)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		io.WriteString(conn, "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
		b, err := io.ReadAll(conn)
		if err == nil && !strings.HasPrefix(string(b), "HTTP/1.1 200") {
			err = errors.New(string(b))
		}
		return conn.ConnectionState().PeerCertificates[0].SerialNumber, err
	}
	if _, err := serial(&tls.Config{}); err == nil {
		t.Error("no client certificate was needed")
	}
	if _, err := serial(&tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was spoken")
	}
	if n, err := serial(&tls.Config{Certificates: []tls.Certificate{cert}}); err != nil || n.Cmp(first.SerialNumber) != 0 {
		t.Errorf("got %v, %v", n, err)
	}
	second, _ := ca.issue(t, "proxy", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	clock.ticks <- time.Time{}
	clock.ticks <- time.Time{} // taken only after the first look is over
	if n, err := serial(&tls.Config{Certificates: []tls.Certificate{cert}}); err != nil || n.Cmp(second.SerialNumber) != 0 {
		t.Errorf("after the change: %v, %v", n, err)
	}
	// A broken file changes nothing.
	os.WriteFile(ca.file("proxy.key"), []byte("x"), 0o600)
	clock.ticks <- time.Time{}
	clock.ticks <- time.Time{}
	if n, err := serial(&tls.Config{Certificates: []tls.Certificate{cert}}); err != nil || n.Cmp(second.SerialNumber) != 0 {
		t.Errorf("after a broken change: %v, %v", n, err)
	}
}

// TestReloadAfterCertificates: new certificates do not hide that the policy failed to load. The whole of it is tried again with them.
func TestReloadAfterCertificates(t *testing.T) {
	ca := newAuthority(t)
	ca.issue(t, "proxy", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
	url, _ := recorder(t, ok)
	clock := &manualClock{now: time.Now(), ticks: make(chan time.Time)}
	next := errors.New("broken policy")
	p := start(t, planFunc(raw), proxy.Config{
		Nodes: []string{url}, Clock: clock, AdminListen: "127.0.0.1:0",
		TLS: &proxy.ServerTLS{CertFile: ca.file("proxy.pem"), KeyFile: ca.file("proxy.key")},
		Reload: func(context.Context) (*proxy.State, error) {
			return &proxy.State{Planner: planFunc(raw), Judge: judge{}}, next
		},
	})
	success := func() bool {
		_, b := get(t, "http://"+p.AdminAddr().String()+"/metrics")
		return strings.Contains(b, "esproxy_reload_success 1\n")
	}
	if !success() {
		t.Error("the start is no success")
	}
	if err := p.Reload(t.Context()); err == nil || success() {
		t.Errorf("the reload gave %v, and the gauge %v", err, success())
	}
	for _, fails := range []bool{true, false} {
		if !fails {
			next = nil // the watch reads it after the tick
		}
		ca.issue(t, "proxy", []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth})
		clock.ticks <- time.Time{}
		clock.ticks <- time.Time{} // taken only after the first look is over
		if success() == fails {
			t.Errorf("with new certificates, the policy broken: %v, the gauge says %v", fails, success())
		}
	}
}

package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// authority issues certificates for a test.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string // PEM
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	a.cert, a.key = a.sign(template, nil)
	a.file = filepath.Join(t.TempDir(), "ca.pem")
	writePEM(t, a.file, "CERTIFICATE", a.cert.Raw)
	a.pool = x509.NewCertPool()
	a.pool.AddCert(a.cert)
	return a
}

// sign makes a certificate with a new key; signed by itself when parent is nil.
func (a *authority) sign(template, parent *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	signer := a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// issue makes a certificate for loopback, good for servers and clients, in dir/name.pem and dir/name.key.
func (a *authority) issue(dir, name string) (certFile, keyFile string, pair tls.Certificate) {
	a.t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		a.t.Fatal(err)
	}
	cert, key := a.sign(&x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, a.cert)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	writePEM(a.t, certFile, "CERTIFICATE", cert.Raw)
	writePEM(a.t, keyFile, "PRIVATE KEY", der)
	if pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		a.t.Fatal(err)
	}
	return certFile, keyFile, pair
}

func writePEM(t *testing.T, file, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// ask does one GET on a new connection and gives status, or the error of the handshake.
func ask(t *testing.T, url string, cfg *tls.Config, header http.Header) (answer, *tls.ConnectionState) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}}
	req, err := http.NewRequest("GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		req.Header = header
	}
	res, err := client.Do(req)
	if err != nil {
		return answer{err: err}, nil
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return answer{res.StatusCode, res.Header, string(b), err}, res.TLS
}

// TestOpsListenerTLS: TLS of 1.2 or later, certificates that can be renewed while it runs, and grants in it.
func TestOpsListenerTLS(t *testing.T) {
	t.Parallel()
	ca, dir := newAuthority(t), t.TempDir()
	cert, key, _ := ca.issue(dir, "listener")
	s := start(t, config{env: []string{"ESPROXY_TLS_CERT_FILE=" + cert, "ESPROXY_TLS_KEY_FILE=" + key}})
	if !strings.HasPrefix(s.url, "https://") {
		t.Fatalf("the start line does not tell of TLS: %s", s.log)
	}
	good := &tls.Config{RootCAs: ca.pool}
	a, state := ask(t, s.url+"/_cluster/health", good, nil)
	s.must(a, 200)
	first := state.PeerCertificates[0].SerialNumber
	if a, _ := ask(t, s.url+"/_cluster/health", &tls.Config{RootCAs: x509.NewCertPool()}, nil); a.err == nil {
		t.Error("a client without the authority got an answer")
	}
	if a, _ := ask(t, s.url+"/_cluster/health", &tls.Config{RootCAs: ca.pool, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, nil); a.err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	a, _ = ask(t, s.url+"/_cluster/health", &tls.Config{RootCAs: ca.pool, MaxVersion: tls.VersionTLS12}, nil)
	s.must(a, 200)
	a, _ = ask(t, strings.Replace(s.url, "https", "http", 1)+"/_cluster/health", nil, nil)
	if a.err == nil && a.status < 400 {
		t.Errorf("plain HTTP on the TLS listener got %d", a.status)
	}
	a, _ = ask(t, s.url+"/_cluster/health", good, http.Header{"X-Esproxy-Authorization": {"Bearer " + s.token("full")}})
	s.must(a, 200)

	// The commands that are clients need the authority, and say so without it.
	if _, errs, code := s.command("", "export", "--rule", "users"); code != 1 || !strings.Contains(errs, "certificate") {
		t.Errorf("export without the authority: %d %s", code, errs)
	}
	if _, errs, code := s.commandEnv("", []string{"ESPROXY_CA_FILE=" + ca.file}, "export", "--rule", "users"); code != 0 {
		t.Errorf("export: %d %s", code, errs)
	}

	// A renewed certificate counts after a reload; a broken one leaves the old one in force.
	ca.issue(dir, "listener")
	s.must(s.reload(), 200)
	a, state = ask(t, s.url+"/_cluster/health", good, nil)
	s.must(a, 200)
	second := state.PeerCertificates[0].SerialNumber
	if second.Cmp(first) == 0 {
		t.Error("the renewed certificate is not in use")
	}
	if err := os.WriteFile(cert, []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if a := s.reload(); a.status != 500 || !strings.Contains(a.body, "certificate") {
		t.Errorf("reload with a broken certificate: %d %s", a.status, a.body)
	}
	a, state = ask(t, s.url+"/_cluster/health", good, nil)
	s.must(a, 200)
	if state.PeerCertificates[0].SerialNumber.Cmp(second) != 0 {
		t.Error("the broken certificate changed something")
	}
	if got := s.metric("esproxy_reload_success"); got != "0" {
		t.Errorf("gauge %s", got)
	}
}

// TestOpsListenerClientCertificates: with a client authority only clients with a certificate of it get answers.
func TestOpsListenerClientCertificates(t *testing.T) {
	t.Parallel()
	ca, clients, stranger, dir := newAuthority(t), newAuthority(t), newAuthority(t), t.TempDir()
	cert, key, _ := ca.issue(dir, "listener")
	_, _, alice := clients.issue(dir, "alice")
	_, _, eve := stranger.issue(dir, "eve")
	s := start(t, config{env: []string{"ESPROXY_TLS_CERT_FILE=" + cert, "ESPROXY_TLS_KEY_FILE=" + key, "ESPROXY_TLS_CLIENT_CA_FILE=" + clients.file}})
	a, _ := ask(t, s.url+"/_cluster/health", &tls.Config{RootCAs: ca.pool, Certificates: []tls.Certificate{alice}}, nil)
	s.must(a, 200)
	n := s.rec.count()
	if a, _ := ask(t, s.url+"/_cluster/health", &tls.Config{RootCAs: ca.pool}, nil); a.err == nil {
		t.Error("a client without a certificate got an answer")
	}
	show := func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &eve, nil }
	if a, _ := ask(t, s.url+"/_cluster/health", &tls.Config{RootCAs: ca.pool, GetClientCertificate: show}, nil); a.err == nil {
		t.Error("a client with a certificate of another authority got an answer")
	}
	for _, r := range s.rec.since(n) {
		if r.target == "/_cluster/health" {
			t.Errorf("the server was asked: %s", r)
		}
	}
}

// tlsServer puts TLS in front of the server.
func tlsServer(t *testing.T, to string, cfg *tls.Config) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(&recorder{to: to})
	srv.TLS = cfg
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL
}

// TestOpsUpstreamTLS: the server is known by an authority or by a fingerprint, of its certificate or of an authority in its chain;
// with the wrong one nothing goes to it.
func TestOpsUpstreamTLS(t *testing.T) {
	t.Parallel()
	ca, other, dir := newAuthority(t), newAuthority(t), t.TempDir()
	_, _, pair := ca.issue(dir, "server")
	pair.Certificate = append(pair.Certificate, ca.cert.Raw)
	_, _, foreign := other.issue(dir, "foreign")
	// The foreign server shows the right authority's certificate after its own: authorities are public.
	foreign.Certificate = append(foreign.Certificate, ca.cert.Raw)
	server := newServer(t)
	url := tlsServer(t, server, &tls.Config{Certificates: []tls.Certificate{pair}})
	foreignURL := tlsServer(t, server, &tls.Config{Certificates: []tls.Certificate{foreign}})
	sum := func(der []byte) string { h := sha256.Sum256(der); return hex.EncodeToString(h[:]) }
	colons := strings.ToUpper(sum(ca.cert.Raw))
	for i := 2; i < len(colons); i += 3 {
		colons = colons[:i] + ":" + colons[i:]
	}
	for name, c := range map[string]struct {
		url string
		env []string
		ok  bool
	}{
		"authority":                       {url, []string{"ELASTICSEARCH_CA_FILE=" + ca.file}, true},
		"fingerprint of authority":        {url, []string{"ELASTICSEARCH_CA_FINGERPRINT=" + colons}, true},
		"fingerprint of server":           {url, []string{"ELASTICSEARCH_CA_FINGERPRINT=" + sum(pair.Certificate[0])}, true},
		"both":                            {url, []string{"ELASTICSEARCH_CA_FILE=" + ca.file, "ELASTICSEARCH_CA_FINGERPRINT=" + sum(ca.cert.Raw)}, true},
		"neither":                         {url, nil, false},
		"other authority":                 {url, []string{"ELASTICSEARCH_CA_FILE=" + other.file}, false},
		"other fingerprint":               {url, []string{"ELASTICSEARCH_CA_FINGERPRINT=" + sum(other.cert.Raw)}, false},
		"fingerprint and other authority": {url, []string{"ELASTICSEARCH_CA_FILE=" + other.file, "ELASTICSEARCH_CA_FINGERPRINT=" + sum(ca.cert.Raw)}, false},
		"foreign server with the authority's certificate": {foreignURL, []string{"ELASTICSEARCH_CA_FINGERPRINT=" + sum(ca.cert.Raw)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, config{server: server, env: append([]string{"ELASTICSEARCH_URL=" + c.url}, c.env...)})
			a := s.do("PUT", "/$Puser/_doc/1", `{"username":"Ana","credit_card_num":"6767-2293-4172-5169"}`)
			switch {
			case c.ok:
				s.must(a, 201)
				if a := s.as("full", "GET", "/$Puser/_doc/1", ""); a.json("_source.credit_card_num").Str != "6767-2293-4172-5169" {
					t.Errorf("read back: %d %s", a.status, a.body)
				}
			case a.status != 502:
				t.Errorf("got %d %s", a.status, a.body)
			default:
				waitFor(t, "the reason in the log", func() bool {
					return regexp.MustCompile(`could not be checked.*cause="[^"]*(certificate|fingerprint)`).MatchString(s.log.String())
				})
			}
			if ready := s.adminGet("/readyz"); (ready.status == 200) != c.ok {
				t.Errorf("readiness %d %s", ready.status, ready.body)
			}
		})
	}
}

// TestOpsUpstreamClientCertificate: a server that wants a certificate gets the configured one, on the data hop too.
func TestOpsUpstreamClientCertificate(t *testing.T) {
	t.Parallel()
	ca, clients, dir := newAuthority(t), newAuthority(t), t.TempDir()
	_, _, pair := ca.issue(dir, "server")
	cert, key, _ := clients.issue(dir, "esproxy")
	server := newServer(t)
	url := tlsServer(t, server, &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients.pool, ClientAuth: tls.RequireAndVerifyClientCert})
	env := []string{"ELASTICSEARCH_URL=" + url, "ELASTICSEARCH_CA_FILE=" + ca.file}
	s := start(t, config{server: server, env: append(env, "ELASTICSEARCH_CLIENT_CERT_FILE="+cert, "ELASTICSEARCH_CLIENT_KEY_FILE="+key)})
	s.must(s.do("PUT", "/$Puser/_doc/1", `{"username":"Ana","credit_card_num":"6767-2293-4172-5169"}`), 201)
	s.must(s.do("GET", "/$Puser/_doc/1", ""), 200)
	without := start(t, config{server: server, env: env})
	if a := without.do("GET", "/_cluster/health", ""); a.status != 502 || !strings.HasPrefix(a.json("error.type").Str, "esproxy_") {
		t.Errorf("without a certificate: %d %s", a.status, a.body)
	}
	waitFor(t, "the reason in the log", func() bool { return strings.Contains(without.log.String(), "certificate required") })
}

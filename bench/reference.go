package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/esproxy/esproxy/internal/envelope"
	"github.com/tidwall/gjson"
	"github.com/tidwall/sjson"
)

// scope is the rule's name in the default policy.
const scope = "users"

// serveChild serves h on a free loopback port (or on LISTEN), tells the address on standard output and runs until SIGTERM.
func serveChild(h http.Handler) error {
	addr := os.Getenv("LISTEN")
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	fmt.Printf("listen=%s\n", l.Addr())
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	failed := make(chan error, 1)
	go func() { failed <- http.Serve(l, h) }()
	select {
	case err := <-failed:
		return err
	case <-stop:
		return nil
	}
}

func tunedTransport() *http.Transport {
	return &http.Transport{
		MaxIdleConns: 256, MaxIdleConnsPerHost: 256, DisableCompression: true,
		WriteBufferSize: 64 << 10, ReadBufferSize: 64 << 10,
	}
}

type bufferPool struct{ sync.Pool }

func (p *bufferPool) Get() []byte  { return *p.Pool.Get().(*[]byte) }
func (p *bufferPool) Put(b []byte) { p.Pool.Put(&b) }

// runReverseProxy serves the standard library's reverse proxy with large pooled buffers and kept connections.
func runReverseProxy() error {
	up, err := url.Parse(os.Getenv("UPSTREAM"))
	if err != nil {
		return err
	}
	rp := &httputil.ReverseProxy{
		Rewrite:    func(p *httputil.ProxyRequest) { p.SetURL(up) },
		Transport:  tunedTransport(),
		BufferPool: &bufferPool{sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}},
	}
	return serveChild(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Without it large answers to small POSTs are cut now and then (golang/go#40747).
		http.NewResponseController(w).EnableFullDuplex()
		rp.ServeHTTP(w, r)
	}))
}

// runNaive serves what one would write first: read everything, gjson and sjson for each field, the same envelope.
func runNaive() error {
	ring, err := newRing(os.Getenv("MASTER_KEY"), envelope.GCM)
	if err != nil {
		return err
	}
	client := &http.Client{Transport: tunedTransport()}
	return serveChild(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		in, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		out := make([]byte, 0, 2*len(in))
		for action := true; len(in) > 0; action = !action {
			line, rest, ok := bytes.Cut(in, []byte("\n"))
			if !ok {
				http.Error(w, "no newline at the end", http.StatusBadRequest)
				return
			}
			in = rest
			if !action {
				if line, err = sealNaive(ring, line); err != nil {
					http.Error(w, err.Error(), http.StatusBadRequest)
					return
				}
			}
			out = append(append(out, line...), '\n')
		}
		req, err := http.NewRequestWithContext(r.Context(), r.Method, os.Getenv("UPSTREAM")+r.URL.RequestURI(), bytes.NewReader(out))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		req.Header = r.Header.Clone()
		resp, err := client.Do(req)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		for k, v := range resp.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(resp.StatusCode)
		io.Copy(w, resp.Body)
	}))
}

func newRing(key string, suite envelope.Suite) (*envelope.Keyring, error) {
	k, err := envelope.ParseKey(key, envelope.KeyOptions{})
	if err != nil {
		return nil, err
	}
	return envelope.NewKeyring(k, nil, envelope.Options{Suite: suite})
}

var errNoSubject = errors.New("no subject")

// sealNaive seals the protected fields of one document with gjson and sjson.
func sealNaive(ring *envelope.Keyring, doc []byte) ([]byte, error) {
	if !gjson.ValidBytes(doc) {
		return nil, errors.New("bad JSON")
	}
	subject := gjson.GetBytes(doc, "username")
	if subject.Type != gjson.String {
		return nil, errNoSubject
	}
	d, err := ring.NewDocument(scope, []byte(subject.Str), true, envelope.HKDF)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	for _, path := range protectedPaths {
		v := gjson.GetBytes(doc, path)
		if !v.Exists() || v.Type == gjson.Null {
			continue
		}
		token, err := d.Seal([]byte{'"'}, path, []byte(v.Raw))
		if err != nil {
			return nil, err
		}
		if doc, err = sjson.SetRawBytes(doc, path, append(token, '"')); err != nil {
			return nil, err
		}
	}
	return doc, nil
}

// sealOnly does the cryptography of one document and nothing else.
func sealOnly(ring *envelope.Keyring, subject, value, dst []byte) ([]byte, error) {
	d, err := ring.NewDocument(scope, subject, true, envelope.HKDF)
	if err != nil {
		return dst, err
	}
	defer d.Close()
	for _, path := range protectedPaths {
		if dst, err = d.Seal(dst, path, value); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

package main

import (
	"bytes"
	"errors"
	"io"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/klauspost/compress/gzip"

	"github.com/esproxy/esproxy/internal/envelope"
)

// fleet is the processes that are measured against each other.
type fleet struct {
	sink, rp, naive, gcm, eax *child
	others                    []*child // nginx and HAProxy, where they are installed
}

func startFleet(l *lab, sink *child) (f *fleet, err error) {
	f = &fleet{sink: sink}
	defer func() {
		if err != nil {
			f.stop()
		}
	}()
	if f.rp, err = startSelf("rp", "UPSTREAM="+l.up); err != nil {
		return nil, err
	}
	if f.naive, err = startSelf("naive", "UPSTREAM="+l.up, "MASTER_KEY="+l.key); err != nil {
		return nil, err
	}
	if f.gcm, err = l.proxy("gcm"); err != nil {
		return nil, err
	}
	if f.eax, err = l.proxy("eax"); err != nil {
		return nil, err
	}
	if f.others, err = external(l); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *fleet) all() []*child { return append([]*child{f.rp, f.naive, f.gcm, f.eax}, f.others...) }

func (f *fleet) stop() {
	for _, c := range f.all() {
		c.stop()
	}
}

// Names of targets. Ratios are over rp.
const (
	direct     = "direct"
	rp         = "rp"
	naive      = "naive"
	gcm        = "esproxy-gcm"
	eax        = "esproxy-eax"
	pass       = "esproxy-pass"  // an index that no rule names
	granted    = "esproxy-grant" // with a token, values opened
	cryptoOnly = "crypto-only"   // the cryptography of the same documents, in this process
	cryptoBusy = "crypto-busy"   // the same on every processor at once
	gunzipOnly = "gunzip-only"
	unpacked   = "esproxy-gcm-plain" // beside gzip: the same documents not compressed
	unpackedP  = "esproxy-pass-plain"
)

// workloads are the rows of the benchmark.
func (f *fleet) workloads(l *lab) ([]*workload, error) {
	c := newCorpus()
	ring, err := newRing(l.key, envelope.GCM)
	if err != nil {
		return nil, err
	}
	one, mega, ten := c.bulk(1), c.bulk(1_000_000), c.bulk(10_000_000)
	packed := ten.packed()
	bulk := func(name string, clients int, b *body, with ...string) *workload {
		w := &workload{Name: name, Clients: clients, body: b, bulk: true}
		all := map[string]*target{
			direct:     {proc: f.sink, path: "/user/_bulk"},
			rp:         {proc: f.rp, path: "/user/_bulk"},
			naive:      {proc: f.naive, path: "/user/_bulk", sealed: true},
			gcm:        {proc: f.gcm, path: "/user/_bulk", sealed: true},
			eax:        {proc: f.eax, path: "/user/_bulk", sealed: true},
			pass:       {proc: f.gcm, path: "/free/_bulk"},
			cryptoOnly: {local: func() (int, error) { return 1000, cryptography(ring, 1000) }},
			cryptoBusy: {local: func() (int, error) {
				return 1000 * runtime.NumCPU(), onEach(func() error { return cryptography(ring, 1000) })
			}},
			unpacked:   {proc: f.gcm, path: "/user/_bulk", sealed: true, body: ten},
			unpackedP:  {proc: f.gcm, path: "/free/_bulk", body: ten},
			gunzipOnly: {local: func() (int, error) { return b.docs, gunzip(b.data) }},
		}
		for _, name := range with {
			t := all[name]
			t.Name = name
			w.targets = append(w.targets, t)
		}
		for _, o := range f.others {
			w.targets = append(w.targets, &target{Name: o.name, proc: o, path: "/user/_bulk"})
		}
		w.short, w.large = b.docs == 1, b.size > 500_000_000
		return w
	}
	search := func(reply string, clients int) *workload {
		h := replyHeader + ": " + reply + "\r\n"
		query := []byte(`{"size":10000,"query":{"match":{"username":"user100000001"}}}`)
		w := &workload{Name: "search " + reply, Clients: clients, body: &body{data: query, size: int64(len(query))}}
		w.targets = []*target{
			{Name: direct, proc: f.sink, path: "/user/_search", header: h},
			{Name: rp, proc: f.rp, path: "/user/_search", header: h},
			{Name: gcm, proc: f.gcm, path: "/user/_search", header: h},
			{Name: granted, proc: f.gcm, path: "/user/_search", header: h + l.grant(), opened: true},
		}
		for _, o := range f.others {
			w.targets = append(w.targets, &target{Name: o.name, proc: o, path: "/user/_search", header: h})
		}
		w.short = reply == "2KB"
		return w
	}
	out := []*workload{
		bulk("bulk 1 doc", 1, one, direct, rp, naive, gcm, eax, pass),
		bulk("bulk 10 MB", 1, ten, rp, naive, gcm, eax, pass, cryptoOnly, cryptoBusy),
		bulk("bulk 10 MB", 4, ten, rp, naive, gcm, eax, pass),
		bulk("bulk 10 MB gzip", 1, packed, rp, gcm, unpacked, pass, unpackedP, gunzipOnly),
		search("2KB", 1),
		search("2KB", 4),
		search("10000 hits", 1),
	}
	if !l.quick {
		hundred := c.bulk(100_000_000)
		out = append(out,
			bulk("bulk 1 doc", 4, one, direct, rp, naive, gcm, eax, pass),
			bulk("bulk 1 doc gzip", 1, one.packed(), rp, gcm, pass),
			bulk("bulk 1 MB", 1, mega, rp, naive, gcm, eax, pass),
			bulk("bulk 1 MB", 4, mega, rp, naive, gcm, eax, pass),
			bulk("bulk 1 MB gzip", 1, mega.packed(), rp, gcm, pass),
			bulk("bulk 1 MB gzip", 4, mega.packed(), rp, gcm, pass),
			bulk("bulk 10 MB gzip", 4, packed, rp, gcm, pass),
			bulk("bulk 100 MB", 1, hundred, rp, gcm, eax, pass),
			bulk("bulk 100 MB", 4, hundred, rp, gcm, pass),
			bulk("bulk 100 MB gzip", 1, hundred.packed(), rp, gcm, pass),
			search("200KB", 1),
			search("200KB", 4),
			search("10000 hits", 4),
		)
	}
	if l.huge {
		giga := c.stream(1_000_000_000)
		gigaPacked, err := giga.packedInto(filepath.Join(l.dir, "giga.gz"))
		if err != nil {
			return nil, err
		}
		out = append(out, bulk("bulk 1 GB", 1, giga, rp, gcm), bulk("bulk 1 GB", 4, giga, rp, gcm), bulk("bulk 1 GB gzip", 1, gigaPacked, rp, gcm))
	}
	return out, nil
}

// cryptography seals three values in each of n documents.
func cryptography(ring *envelope.Keyring, n int) error {
	dst := make([]byte, 0, 1<<10)
	subject, value := []byte("user100000001"), []byte(`"`+canary+`100000001"`)
	for range n {
		if _, err := sealOnly(ring, subject, value, dst); err != nil {
			return err
		}
	}
	return nil
}

// onEach runs f on every processor at once.
func onEach(f func() error) error {
	errs := make([]error, runtime.NumCPU())
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = f() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func gunzip(packed []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		return err
	}
	buf := make([]byte, 256<<10)
	for {
		if _, err := z.Read(buf); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

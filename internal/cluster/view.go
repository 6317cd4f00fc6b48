package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/esproxy/esproxy/internal/policy"
	"github.com/esproxy/esproxy/internal/rewrite"
	"github.com/tidwall/gjson"
	"golang.org/x/sync/errgroup"
)

// maxView bounds each reply that a view is made of, in bytes.
const maxView = 64 << 20

// view is what the cluster had at one time. It is immutable but for its caches.
type view struct {
	made    time.Time // when the first request for it was about to be sent
	stale   atomic.Bool
	indices map[string]*index // concrete ones, backing indices included
	aliases map[string]*alias
	streams map[string]*stream

	resolved sync.Map // name -> rewrite.Resolved; only names of the view, so bounded
	mu       sync.Mutex
	expanded map[string]rewrite.Resolved // by expression; at most maxExpanded
	all      func() rewrite.Resolved
}

const maxExpanded = 256

type index struct {
	uuid    string // "" when the server does not tell
	aliases []string
	stream  string // the data stream it backs, or whose failure store it is
	failure bool
}

type alias struct {
	indices []string
	write   string // the index marked as write index
	noWrite bool   // some index is marked as not the write index
	streams []string
	writeTo string            // the data stream marked as write target
	routing map[string]string // by index: what a document written or read through the alias is routed by
}

type stream struct {
	backing  []string // oldest first; the last is written to
	failures []string
	aliases  []string
}

// flight is one refresh under way; view and err are set before done is closed.
type flight struct {
	number int
	done   chan struct{}
	view   *view
	err    error
}

func (c *Cluster) refreshEvery(every time.Duration) {
	defer c.wg.Done()
	t := time.NewTicker(every)
	defer t.Stop()
	failing := "" // the reason that was logged
	for {
		select {
		case <-c.root.Done():
			return
		case <-t.C:
		}
		_, err := c.fresh(c.root)
		switch {
		case c.root.Err() != nil:
		case err == nil && failing != "":
			failing = ""
			c.log.Info("the view of the cluster is refreshed again")
		case err != nil:
			if f := c.unknown(err); f.Reason != failing {
				failing = f.Reason
				c.log.Warn("the view of the cluster could not be refreshed; the old one serves for a while", "reason", f.Reason, "cause", f.Cause, "for", c.maxAge)
			}
		}
	}
}

// current gives the view, which may be as old as the timer allows, or older while refreshes fail.
func (c *Cluster) current(ctx context.Context) (*view, error) {
	v := c.view.Load()
	if v != nil && !v.stale.Load() && c.now().Sub(v.made) <= c.maxAge {
		return v, nil
	}
	return c.fresh(ctx)
}

// fresh gives a view whose making began after the call. Callers that wait at the same time share one.
// When it can't be made the error says so even if there is an old view: who asks for a fresh one
// needs to know what is true now.
func (c *Cluster) fresh(ctx context.Context) (*view, error) {
	c.mu.Lock()
	need := c.flights + 1 // what is under way may have read before a change that the caller knows of
	for {
		if c.closed {
			c.mu.Unlock()
			return nil, c.unknown(errors.New("the proxy is shutting down"))
		}
		f := c.flight
		if f == nil && c.landed != nil && c.landed.number >= need {
			f = c.landed // it began and ended while this caller woke up
		}
		if f == nil {
			c.flights++
			f = &flight{number: c.flights, done: make(chan struct{})}
			c.flight = f
			c.wg.Add(1)
			go c.fly(f)
		}
		c.mu.Unlock()
		select {
		case <-f.done:
		case <-ctx.Done():
			return nil, c.unknown(ctx.Err())
		}
		if f.number >= need {
			if f.err != nil {
				return nil, c.unknown(f.err)
			}
			return f.view, nil
		}
		c.mu.Lock()
	}
}

// freshFor is fresh for a name that v does not have; v serves when it was made after the name was
// known, see rewrite.AsOf.
func (c *Cluster) freshFor(ctx context.Context, v *view) (*view, error) {
	if at, ok := rewrite.Moment(ctx); ok && !v.stale.Load() && v.made.After(at) {
		return v, nil
	}
	return c.fresh(ctx)
}

func (c *Cluster) fly(f *flight) {
	defer c.wg.Done()
	before := c.changed()
	f.view, f.err = c.look(c.root)
	c.mu.Lock()
	if f.err == nil {
		// What was read before a change serves those who asked before it, and nobody else.
		f.view.stale.Store(before != c.changes)
		c.view.Store(f.view)
	}
	c.flight, c.landed = nil, f
	c.mu.Unlock()
	close(f.done)
}

// changed counts the calls of Changed.
func (c *Cluster) changed() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.changes
}

// look makes a view.
func (c *Cluster) look(ctx context.Context) (*view, error) {
	made := c.now()
	if err := c.checkPrivileges(ctx); err != nil {
		return nil, err
	}
	var aliases, streams, ids []byte
	var g errgroup.Group
	g.Go(func() (err error) {
		aliases, err = c.askView(ctx, "/_alias?expand_wildcards=all", false)
		return err
	})
	g.Go(func() (err error) {
		streams, err = c.askView(ctx, "/_data_stream?expand_wildcards=all", true)
		if err == nil && streams == nil {
			// A build without that endpoint can still hold data streams; this one is in the server itself.
			streams, err = c.askView(ctx, "/_resolve/index/*?expand_wildcards=all&filter_path=data_streams", true)
		}
		return err
	})
	g.Go(func() (err error) {
		ids, err = c.askView(ctx, "/_all/_settings/index.uuid?expand_wildcards=all&filter_path=*.settings.index.uuid", true)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	v, err := parseView(aliases, streams)
	if err != nil {
		return nil, err
	}
	if len(ids) > 0 {
		if err := v.addIDs(ids); err != nil {
			return nil, err
		}
	}
	v.made = made
	return v, nil
}

// askView asks for one part of a view. When optional, the answer of a build without that endpoint is nil.
func (c *Cluster) askView(ctx context.Context, path string, optional bool) ([]byte, error) {
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, path, nil, maxView)
	switch {
	case err != nil:
		return nil, err
	case isDenied(status):
		return nil, c.denied(status)
	case optional && isMissingAPI(status):
		return nil, nil
	case status != http.StatusOK:
		return nil, statusError(status)
	}
	return reply, nil
}

// addIDs reads the UUIDs of indices: one that is deleted and made again has the same name and another UUID.
func (v *view) addIDs(reply []byte) error {
	var ids map[string]struct {
		Settings struct {
			Index struct {
				UUID string `json:"uuid"`
			} `json:"index"`
		} `json:"settings"`
	}
	if err := json.Unmarshal(reply, &ids); err != nil {
		return fmt.Errorf("%w: settings", errGarbage)
	}
	for name, s := range ids {
		if i := v.indices[name]; i != nil {
			i.uuid = s.Settings.Index.UUID
		}
	}
	return nil
}

// id tells one concrete index from another that had its name before.
func (v *view) id(index string) string {
	if i := v.indices[index]; i != nil {
		return index + "/" + i.uuid
	}
	return index
}

// checkPrivileges makes sure that the view is whole. With security on, Elasticsearch leaves
// out of its answers what the asking user may not see, without an error: an alias of a protected index could
// look like an unknown name.
func (c *Cluster) checkPrivileges(ctx context.Context) error {
	now := c.now()
	c.mu.Lock()
	ok := now.Before(c.mayRead)
	c.mu.Unlock()
	if ok {
		return nil
	}
	const body = `{"cluster":["monitor"],"index":[{"names":["*"],"privileges":["view_index_metadata"]}]}`
	status, reply, err := c.ask(ctx, c.own, http.MethodPost, "/_security/user/_has_privileges", []byte(body), 1<<20)
	switch {
	case err != nil:
		return err
	case isDenied(status):
		return c.denied(status)
	case isMissingAPI(status): // no security module, or switched off
	case status != http.StatusOK:
		// Switched-off security answers 500 on some versions ("security must be explicitly enabled").
		if !strings.Contains(gjson.GetBytes(reply, "error.reason").Str, "security must be explicitly enabled") {
			return statusError(status)
		}
	default:
		if !gjson.ValidBytes(reply) {
			return errGarbage
		}
		if has := gjson.GetBytes(reply, "has_all_requested"); !has.Bool() {
			return c.denied(http.StatusForbidden)
		}
	}
	c.mu.Lock()
	c.mayRead = now.Add(5 * time.Minute)
	c.mu.Unlock()
	return nil
}

var errGarbage = errors.New("elasticsearch's reply is not what its API promises")

// parseView reads the replies of GET /_alias and of GET /_data_stream (or /_resolve/index/*). Streams are
// known from the second reply; every other key of the first is an index.
func parseView(aliases, streams []byte) (*view, error) {
	v := &view{indices: map[string]*index{}, aliases: map[string]*alias{}, streams: map[string]*stream{}}
	var ds struct {
		Streams []struct {
			Name    string `json:"name"`
			Indices []struct {
				Name string `json:"index_name"`
			} `json:"indices"`
			Backing  json.RawMessage `json:"backing_indices"` // a string or a list
			Failures struct {
				Indices []struct {
					Name string `json:"index_name"`
				} `json:"indices"`
			} `json:"failure_store"`
			OldFailures []struct {
				Name string `json:"index_name"`
			} `json:"failure_indices"`
		} `json:"data_streams"`
	}
	if streams == nil {
		streams = []byte(`{}`)
	}
	if err := json.Unmarshal(streams, &ds); err != nil {
		return nil, fmt.Errorf("%w: data streams", errGarbage)
	}
	for _, d := range ds.Streams {
		s := &stream{}
		for _, i := range d.Indices {
			s.backing = append(s.backing, i.Name)
		}
		for _, r := range gjson.ParseBytes(d.Backing).Array() {
			s.backing = append(s.backing, r.String())
		}
		for _, i := range d.Failures.Indices {
			s.failures = append(s.failures, i.Name)
		}
		for _, i := range d.OldFailures {
			s.failures = append(s.failures, i.Name)
		}
		if d.Name == "" || slices.Contains(s.backing, "") || slices.Contains(s.failures, "") {
			return nil, fmt.Errorf("%w: data streams", errGarbage)
		}
		v.streams[d.Name] = s
		for _, n := range s.backing {
			v.indices[n] = &index{stream: d.Name}
		}
		for _, n := range s.failures {
			v.indices[n] = &index{stream: d.Name, failure: true}
		}
	}
	var as map[string]struct {
		Aliases map[string]struct {
			Write   *bool  `json:"is_write_index"`
			Routing string `json:"index_routing"`
		} `json:"aliases"`
	}
	if err := json.Unmarshal(aliases, &as); err != nil || as == nil {
		return nil, fmt.Errorf("%w: aliases", errGarbage)
	}
	for name, entry := range as {
		s := v.streams[name]
		i := v.indices[name]
		if s == nil && i == nil {
			i = &index{}
			v.indices[name] = i
		}
		for a, attr := range entry.Aliases {
			al := v.aliases[a]
			if al == nil {
				al = &alias{}
				v.aliases[a] = al
			}
			marked := attr.Write != nil && *attr.Write
			if s != nil {
				s.aliases = append(s.aliases, a)
				al.streams = append(al.streams, name)
				if marked {
					al.writeTo = name
				}
				continue
			}
			i.aliases = append(i.aliases, a)
			al.indices = append(al.indices, name)
			if attr.Routing != "" {
				if al.routing == nil {
					al.routing = map[string]string{}
				}
				al.routing[name] = attr.Routing
			}
			if marked {
				al.write = name
			} else if attr.Write != nil {
				al.noWrite = true
			}
		}
	}
	for name, i := range v.indices {
		// A restored one may have lost its stream.
		i.failure = i.failure || i.stream == "" && policy.IsFailureStore(name)
	}
	v.expanded = map[string]rewrite.Resolved{}
	v.all = sync.OnceValue(func() rewrite.Resolved {
		var names []string
		for n := range v.indices {
			names = append(names, n)
		}
		for n := range v.aliases {
			names = append(names, n)
		}
		for n := range v.streams {
			names = append(names, n)
		}
		slices.Sort(names)
		r := rewrite.Resolved{Names: names}
		for _, i := range v.indices {
			r.Failures = r.Failures || i.failure
		}
		return r
	})
	return v, nil
}

// has reports whether an index, alias or data stream has the name.
func (v *view) has(name string) bool {
	return v.indices[name] != nil || v.aliases[name] != nil || v.streams[name] != nil
}

// resolve gives the closure of one name; ok is false when the view does not have it. failures
// chooses the failure store of a data stream.
func (v *view) resolve(name string, failures bool) (r rewrite.Resolved, ok bool) {
	key := name
	if failures {
		key += "::failures"
	}
	if r, ok := v.resolved.Load(key); ok {
		return r.(rewrite.Resolved), true
	}
	if !v.has(name) {
		return r, false
	}
	set := map[string]struct{}{name: {}}
	if i := v.indices[name]; i != nil {
		v.addIndex(set, name)
		r.Write = name
	}
	if s := v.streams[name]; s != nil {
		v.addStream(set, name, failures)
		r.Write = s.writeIndex()
	}
	if a := v.aliases[name]; a != nil {
		for _, i := range a.indices {
			v.addIndex(set, i)
		}
		for _, s := range a.streams {
			v.addStream(set, s, failures)
		}
		r.Write = v.aliasWrite(a)
		r.Routing = a.routing[r.Write]
	}
	if i := v.indices[name]; i != nil && i.failure {
		r.Failures = true
	}
	if failures {
		r.Write, r.Routing = "", "" // Elasticsearch takes no writes there
		r.Failures = true
	}
	r.Names = sorted(set)
	r.System = system(r.Names)
	v.resolved.Store(key, r)
	return r, true
}

// aliasWrite is the index that a write to the alias goes to, by the rule of
// org.elasticsearch.cluster.metadata.IndexAbstraction.Alias: the marked one, or the only one unless it is marked otherwise.
func (v *view) aliasWrite(a *alias) string {
	switch {
	case a.write != "":
		return a.write
	case a.writeTo != "":
		return v.streams[a.writeTo].writeIndex()
	case len(a.indices) == 1 && !a.noWrite:
		return a.indices[0]
	}
	return ""
}

func (s *stream) writeIndex() string {
	if len(s.backing) == 0 {
		return ""
	}
	return s.backing[len(s.backing)-1]
}

func (v *view) addIndex(set map[string]struct{}, name string) {
	set[name] = struct{}{}
	i := v.indices[name]
	for _, a := range i.aliases {
		set[a] = struct{}{}
	}
	if i.stream != "" {
		set[i.stream] = struct{}{}
		for _, a := range v.streams[i.stream].aliases {
			set[a] = struct{}{}
		}
	}
}

func (v *view) addStream(set map[string]struct{}, name string, failures bool) {
	s := v.streams[name]
	set[name] = struct{}{}
	for _, a := range s.aliases {
		set[a] = struct{}{}
	}
	for _, b := range s.backing {
		set[b] = struct{}{}
	}
	if failures {
		for _, f := range s.failures {
			set[f] = struct{}{}
		}
	}
}

func sorted(set map[string]struct{}) []string {
	names := make([]string, 0, len(set))
	for n := range set {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// system reports whether every name is that of a system index.
func system(names []string) bool {
	for _, n := range names {
		if !policy.IsSystem(n) {
			return false
		}
	}
	return len(names) > 0
}

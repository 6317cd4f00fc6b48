//go:build !nodevnode

package devnode

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Node is an Elasticsearch-compatible node. It is an http.Handler and may be
// used by any number of goroutines. Reads run side by side; writes run one
// request at a time.
type Node struct {
	dir      string
	id       string
	uuid     string
	now      func() time.Time
	autoMu   sync.Mutex
	autoID   uint64
	autoAt   uint64
	contexts int64 // scrolls and points in time so far, under autoMu

	mu      sync.RWMutex
	indices map[string]*index
	scrolls map[string]*scroll
	pits    map[string]*pit
	closed  bool
	failed  error // a write to the folder failed; nothing is served any more
}

const clusterName = "esproxy-devnode"
const nodeName = "devnode"

// New opens a node. With a folder it finds the indices of the last run again.
// The error says what was wrong with the folder.
func New(o Options) (*Node, error) {
	n := &Node{dir: o.Dir, id: newUUID(), uuid: newUUID(), now: time.Now,
		indices: map[string]*index{}, scrolls: map[string]*scroll{}, pits: map[string]*pit{}}
	if n.dir == "" {
		return n, nil
	}
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, fmt.Errorf("embedded node: %w", err)
	}
	if err := n.loadState(); err != nil {
		return nil, errors.Join(fmt.Errorf("embedded node: %w", err), n.closeStores())
	}
	return n, nil
}

// Close releases the folder and stops all background work. Every
// acknowledged write is already durable.
func (n *Node) Close() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil
	}
	n.closed = true
	var errs []error
	for _, s := range n.scrolls {
		errs = append(errs, closeViews(s.views))
	}
	for _, p := range n.pits {
		errs = append(errs, closeViews(p.views))
	}
	return errors.Join(append(errs, n.closeStores())...)
}

func (n *Node) closeStores() error {
	var errs []error
	for _, ix := range n.indices {
		if ix.store != nil {
			errs = append(errs, ix.store.close())
		}
	}
	return errors.Join(errs...)
}

func closeViews(vs []*view) error {
	var errs []error
	for _, v := range vs {
		errs = append(errs, v.close())
	}
	return errors.Join(errs...)
}

func newUUID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return base64.RawURLEncoding.EncodeToString(b)
}

// newDocID makes an id of 20 characters that sorts roughly by time, like the
// real server's.
func (n *Node) newDocID() string {
	n.autoMu.Lock()
	defer n.autoMu.Unlock()
	t := uint64(n.now().UnixMilli())
	if t > n.autoAt {
		n.autoAt, n.autoID = t, 0
	}
	n.autoID++
	b := make([]byte, 15)
	for i := range 6 {
		b[i] = byte(n.autoAt >> (40 - 8*i))
	}
	for i := range 3 {
		b[6+i] = byte(n.autoID >> (16 - 8*i))
	}
	rand.Read(b[9:])
	return base64.RawURLEncoding.EncodeToString(b)
}

// state is the cluster state at rest: everything but the documents.
type state struct {
	ClusterUUID string       `json:"cluster_uuid"`
	NodeID      string       `json:"node_id"`
	Indices     []indexState `json:"indices"`
}

type indexState struct {
	Name     string                     `json:"name"`
	UUID     string                     `json:"uuid"`
	Created  int64                      `json:"created"`
	Replicas int                        `json:"replicas"`
	Settings json.RawMessage            `json:"settings"`
	Mapping  json.RawMessage            `json:"mapping"`
	Aliases  map[string]json.RawMessage `json:"aliases"`
}

func (n *Node) statePath() string { return filepath.Join(n.dir, "state.json") }

// saveState writes the state to a new file and renames it into place.
// The caller holds the lock.
func (n *Node) saveState() error {
	if n.dir == "" {
		return nil
	}
	st := state{ClusterUUID: n.uuid, NodeID: n.id}
	for _, name := range slices.Sorted(maps.Keys(n.indices)) {
		ix := n.indices[name]
		s := indexState{Name: name, UUID: ix.uuid, Created: ix.created, Replicas: ix.replicas,
			Settings: appendValue(nil, ix.settings), Mapping: appendValue(nil, ix.mapping.render()), Aliases: map[string]json.RawMessage{}}
		for a, v := range ix.aliases {
			s.Aliases[a] = appendValue(nil, v)
		}
		st.Indices = append(st.Indices, s)
	}
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	tmp := n.statePath() + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, n.statePath()); err != nil {
		return err
	}
	d, err := os.Open(n.dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (n *Node) loadState() error {
	b, err := os.ReadFile(n.statePath())
	if errors.Is(err, os.ErrNotExist) {
		return n.saveState()
	}
	if err != nil {
		return err
	}
	var st state
	if err := json.Unmarshal(b, &st); err != nil {
		return fmt.Errorf("%s is damaged: %w", n.statePath(), err)
	}
	n.uuid, n.id = st.ClusterUUID, st.NodeID
	keep := map[string]bool{}
	for _, s := range st.Indices {
		keep[s.UUID] = true
		ix := &index{name: s.Name, uuid: s.UUID, created: s.Created, replicas: s.Replicas, aliases: map[string]*jv{},
			docs: map[string]*entry{}, gone: map[string]int64{}}
		mv, jerr := parseJSON(s.Mapping)
		if jerr != nil {
			return fmt.Errorf("%s is damaged: mapping of %s", n.statePath(), s.Name)
		}
		var merr *esError
		if ix.mapping, merr = parseMapping(mv); merr != nil {
			return fmt.Errorf("%s is damaged: %w", n.statePath(), merr)
		}
		if ix.settings, jerr = parseJSON(s.Settings); jerr != nil {
			return fmt.Errorf("%s is damaged: settings of %s", n.statePath(), s.Name)
		}
		for a, raw := range s.Aliases {
			v, jerr := parseJSON(raw)
			if jerr != nil {
				return fmt.Errorf("%s is damaged: alias %s", n.statePath(), a)
			}
			ix.aliases[a] = v
		}
		if ix.store, err = openStore(filepath.Join(n.dir, s.UUID)); err != nil {
			return fmt.Errorf("index %s: %w", s.Name, err)
		}
		n.indices[s.Name] = ix
		if err := ix.load(); err != nil {
			return fmt.Errorf("index %s: %w", s.Name, err)
		}
	}
	// Folders of indices that were being created or deleted when the process
	// stopped.
	all, err := os.ReadDir(n.dir)
	if err != nil {
		return err
	}
	for _, e := range all {
		if e.IsDir() && len(e.Name()) == 22 && !keep[e.Name()] {
			if err := os.RemoveAll(filepath.Join(n.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// broken remembers a failed write; from then on the node answers 503, since
// memory and folder may differ.
func (n *Node) broken(err error) *esError {
	n.failed = err
	return n.failedError()
}

func (n *Node) failedError() *esError {
	return errf(503, "devnode_storage_failed", "a write to the node's folder failed: %v; free space or fix the folder, then restart", n.failed)
}

// createIndex makes an index. The caller holds the lock and has checked the
// name.
func (n *Node) createIndex(name string, m *mapping, settings *jv, replicas int, aliases map[string]*jv) (*index, *esError) {
	ix := &index{name: name, uuid: newUUID(), created: n.now().UnixMilli(), mapping: m, settings: settings, replicas: replicas,
		aliases: aliases, docs: map[string]*entry{}, gone: map[string]int64{}}
	dir := ""
	if n.dir != "" {
		dir = filepath.Join(n.dir, ix.uuid)
	}
	var err error
	if ix.store, err = openStore(dir); err != nil {
		return nil, n.broken(err)
	}
	n.indices[name] = ix
	if err := n.saveState(); err != nil {
		return nil, n.broken(err)
	}
	return ix, nil
}

func (n *Node) deleteIndex(ix *index) *esError {
	delete(n.indices, ix.name)
	if err := n.saveState(); err != nil {
		return n.broken(err)
	}
	err := ix.store.close()
	if n.dir != "" {
		err = errors.Join(err, os.RemoveAll(filepath.Join(n.dir, ix.uuid)))
	}
	if err != nil {
		return n.broken(err)
	}
	return nil
}

// validIndexName checks a name by MetadataCreateIndexService's rules.
func validIndexName(name string) *esError {
	bad := func(format string, args ...any) *esError {
		e := errf(400, "invalid_index_name_exception", "Invalid index name [%s], "+format, append([]any{name}, args...)...)
		e.extra = []any{"index_uuid", "_na_", "index", name}
		return e
	}
	switch {
	case strings.ContainsAny(name, " \"*,/<>?\\|"):
		return bad("must not contain the following characters [' ','\"','*',',','/','<','>','?','\\','|']")
	case name == "":
		return bad("must not be empty")
	case strings.Contains(name, "#"):
		return bad("must not contain '#'")
	case strings.Contains(name, ":"):
		return bad("must not contain ':'")
	case strings.ContainsAny(name[:1], "_-+"):
		return bad("must not start with '_', '-', or '+'")
	case len(name) > 255:
		return bad("index name is too long, (%d > 255)", len(name))
	case name == "." || name == "..":
		return bad("must not be '.' or '..'")
	case strings.ToLower(name) != name:
		return bad("must be lowercase")
	}
	return nil
}

// byAlias lists the indices behind an alias, in name order.
func (n *Node) byAlias(name string) []*index {
	var out []*index
	for _, k := range slices.Sorted(maps.Keys(n.indices)) {
		if _, ok := n.indices[k].aliases[name]; ok {
			out = append(out, n.indices[k])
		}
	}
	return out
}

// resolveOptions are the usual query parameters for targets.
type resolveOptions struct {
	ignoreUnavailable bool
	forbidNone        bool // allow_no_indices=false
	noAliases         bool // aliases are not accepted, as for DELETE
}

// resolve turns an expression of names, aliases and wildcards into indices in
// name order. The caller holds the lock.
func (n *Node) resolve(expr string, o resolveOptions) ([]*index, *esError) {
	found := map[string]*index{}
	names := strings.Split(expr, ",")
	if expr == "" || expr == "_all" {
		names = []string{"*"}
	}
	wild := false
	for _, name := range names {
		if strings.HasPrefix(name, "<") || strings.Contains(name, ":") {
			return nil, unsupported("the index expression [%s]", name)
		}
		if name == "" {
			return nil, illegalArg("index name must not be empty")
		}
		if wild && strings.HasPrefix(name, "-") {
			for k := range found {
				if wildcard(name[1:], k) {
					delete(found, k)
				}
			}
			continue
		}
		if strings.Contains(name, "*") {
			wild = true
			hit := false
			for k, ix := range n.indices {
				ok := wildcard(name, k) && (!strings.HasPrefix(k, ".") || strings.HasPrefix(name, "."))
				if !o.noAliases {
					for a := range ix.aliases {
						ok = ok || wildcard(name, a)
					}
				}
				if ok {
					found[k], hit = ix, true
				}
			}
			if !hit && o.forbidNone {
				return nil, indexNotFound(name)
			}
			continue
		}
		if ix, ok := n.indices[name]; ok {
			found[name] = ix
			continue
		}
		as := n.byAlias(name)
		if len(as) > 0 && o.noAliases {
			return nil, illegalArg("The provided expression [%s] matches an alias, specify the corresponding concrete indices instead.", name)
		}
		if len(as) == 0 {
			if strings.HasPrefix(name, "_") {
				e := errf(400, "invalid_index_name_exception", "Invalid index name [%s], must not start with '_'.", name)
				e.extra = []any{"index_uuid", "_na_", "index", name}
				return nil, e
			}
			if o.ignoreUnavailable {
				continue
			}
			return nil, indexNotFound(name)
		}
		for _, ix := range as {
			found[ix.name] = ix
		}
	}
	var out []*index
	for _, k := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[k])
	}
	if len(out) == 0 && o.forbidNone {
		return nil, indexNotFound(expr)
	}
	return out, nil
}

// wildcard matches with * for any run of characters.
func wildcard(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		i := strings.Index(s, p)
		if i < 0 {
			return false
		}
		s = s[i+len(p):]
	}
	return strings.HasSuffix(s, last)
}

// writeIndex finds where a write to name goes, creating the index if it may.
// The caller holds the write lock.
func (n *Node) writeIndex(name string, requireAlias, create bool) (*index, *esError) {
	as := n.byAlias(name)
	if requireAlias && len(as) == 0 {
		return nil, requireAliasMissing(name)
	}
	if len(as) > 0 {
		var w []*index
		for _, ix := range as {
			if ix.aliases[name].get("is_write_index").isTrue() {
				w = append(w, ix)
			}
		}
		if len(as) == 1 && len(w) == 0 && as[0].aliases[name].get("is_write_index") == nil {
			w = as
		}
		if len(w) != 1 {
			return nil, illegalArg("no write index is defined for alias [%s]. The write index may be explicitly disabled using is_write_index=false or the alias points to multiple indices without one being designated as a write index", name)
		}
		return w[0], nil
	}
	if ix, ok := n.indices[name]; ok {
		return ix, nil
	}
	if strings.HasPrefix(name, "<") {
		return nil, unsupported("the index expression [%s]", name)
	}
	if !create {
		return nil, indexNotFound(name)
	}
	if err := validIndexName(name); err != nil {
		return nil, err
	}
	return n.createIndex(name, newMapping(), obj(), 1, map[string]*jv{})
}

// readIndex finds the one index behind a name for a read of one document.
func (n *Node) readIndex(name string) (*index, *esError) {
	if ix, ok := n.indices[name]; ok {
		return ix, nil
	}
	as := n.byAlias(name)
	switch {
	case len(as) == 1:
		return as[0], nil
	case len(as) > 1:
		var names []string
		for _, ix := range as {
			names = append(names, ix.name)
		}
		return nil, illegalArg("alias [%s] has more than one index associated with it [%s], can't execute a single index op", name, strings.Join(names, ", "))
	}
	return nil, indexNotFound(name)
}

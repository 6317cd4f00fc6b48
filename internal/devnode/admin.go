//go:build !nodevnode

package devnode

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// version is the server this node answers like.
const version = "8.19.8"

func (n *Node) root(r *request) (*response, *esError) {
	if err := r.allow("", "", ""); err != nil {
		return nil, err
	}
	resp := ok(obj("name", nodeName, "cluster_name", clusterName, "cluster_uuid", n.uuid,
		"version", obj("number", version, "build_flavor", "default", "build_type", "embedded", "build_hash", "0000000000000000000000000000000000000000",
			"build_date", "2025-11-26T23:06:12.342148294Z", "build_snapshot", false, "lucene_version", "9.12.2",
			"minimum_wire_compatibility_version", "7.17.0", "minimum_index_compatibility_version", "7.0.0"),
		"tagline", "You Know, for Search"))
	if !r.has("pretty") {
		resp.ctype = "pretty"
	}
	return resp, nil
}

// health figures for some indices.
type health struct {
	primaries, replicas int
	status              string
}

func healthOf(ixs []*index) health {
	h := health{status: "green"}
	for _, ix := range ixs {
		h.primaries++
		h.replicas += ix.replicas
		if ix.replicas > 0 {
			h.status = "yellow"
		}
	}
	return h
}

func (h health) percent() float64 {
	if h.primaries+h.replicas == 0 {
		return 100
	}
	return 100 * float64(h.primaries) / float64(h.primaries+h.replicas)
}

func (n *Node) all() []*index {
	var out []*index
	for _, k := range slices.Sorted(maps.Keys(n.indices)) {
		out = append(out, n.indices[k])
	}
	return out
}

// clusterHealth serves _cluster/health[/{index}]. It never waits: what the
// real server would wait for is either so already or will not become so.
func (n *Node) clusterHealth(r *request) (*response, *esError) {
	if err := r.allow("wait_for_status", "timeout master_timeout local wait_for_active_shards wait_for_nodes wait_for_events wait_for_no_relocating_shards wait_for_no_initializing_shards expand_wildcards", "level"); err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	ixs := n.all()
	timedOut := false
	h := health{}
	if len(r.segs) == 3 {
		var err *esError
		if ixs, err = n.resolve(r.seg(2), resolveOptions{}); err != nil {
			ixs, timedOut = nil, true
		}
	}
	if h = healthOf(ixs); timedOut {
		h.status = "red"
	}
	rank := map[string]int{"green": 0, "yellow": 1, "red": 2}
	if w, has := r.params["wait_for_status"]; has {
		want, known := rank[strings.ToLower(w)]
		if !known {
			return nil, illegalArg("unknown cluster health status [%s]", w)
		}
		timedOut = timedOut || rank[h.status] > want
	}
	resp := ok(obj("cluster_name", clusterName, "status", h.status, "timed_out", timedOut, "number_of_nodes", 1, "number_of_data_nodes", 1,
		"active_primary_shards", h.primaries, "active_shards", h.primaries, "relocating_shards", 0, "initializing_shards", 0,
		"unassigned_shards", h.replicas, "unassigned_primary_shards", 0, "delayed_unassigned_shards", 0, "number_of_pending_tasks", 0,
		"number_of_in_flight_fetch", 0, "task_max_waiting_in_queue_millis", 0, "active_shards_percent_as_number", h.percent()))
	if timedOut {
		resp.status = 408
	}
	return resp, nil
}

// column of a _cat table.
type column struct {
	name  string
	right bool
}

// cat renders a table as text or as JSON.
func (r *request) cat(cols []column, rows [][]string) (*response, *esError) {
	heads, err := r.flag("v", false)
	if err != nil {
		return nil, err
	}
	if h, has := r.params["h"]; has {
		var pick []int
		for _, name := range splitList(h) {
			for i, c := range cols {
				if wildcard(name, c.name) || name == c.name {
					pick = append(pick, i)
				}
			}
		}
		choose := func(row []string) []string {
			var out []string
			for _, i := range pick {
				out = append(out, row[i])
			}
			return out
		}
		for i := range rows {
			rows[i] = choose(rows[i])
		}
		var cs []column
		for _, i := range pick {
			cs = append(cs, cols[i])
		}
		cols = cs
	}
	if s, has := r.params["s"]; has {
		for _, part := range slices.Backward(splitList(s)) {
			name, dir, _ := strings.Cut(part, ":")
			at := slices.IndexFunc(cols, func(c column) bool { return c.name == name })
			if at < 0 {
				return nil, unsupported("sorting _cat by a column that is not shown")
			}
			slices.SortStableFunc(rows, func(a, b []string) int {
				c := catCompare(a[at], b[at])
				if dir == "desc" {
					return -c
				}
				return c
			})
		}
	}
	if r.param("format") == "json" {
		list := []*jv{}
		for _, row := range rows {
			o := obj()
			for i, c := range cols {
				o.put(c.name, row[i])
			}
			list = append(list, o)
		}
		return ok(val(list)), nil
	}
	if heads {
		var h []string
		for _, c := range cols {
			h = append(h, c.name)
		}
		rows = append([][]string{h}, rows...)
	}
	width := make([]int, len(cols))
	for _, row := range rows {
		for i, c := range row {
			width[i] = max(width[i], len(c))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, c := range row {
			if i > 0 {
				b.WriteByte(' ')
			}
			pad := strings.Repeat(" ", width[i]-len(c))
			right := cols[i].right
			if right {
				b.WriteString(pad)
			}
			b.WriteString(c)
			if !right && i < len(row)-1 {
				b.WriteString(pad)
			}
		}
		b.WriteByte('\n')
	}
	return &response{status: 200, raw: []byte(b.String()), ctype: "text/plain; charset=UTF-8"}, nil
}

func catCompare(a, b string) int {
	x, e1 := strconv.ParseFloat(a, 64)
	y, e2 := strconv.ParseFloat(b, 64)
	if e1 == nil && e2 == nil {
		switch {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	}
	return strings.Compare(a, b)
}

const catParams = "v h s expand_wildcards"
const catSkip = "local master_timeout include_unloaded_segments ts"
const catNo = "bytes time help health pri"

func (n *Node) catIndices(r *request) (*response, *esError) {
	if err := r.allow(catParams, catSkip, catNo); err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	ixs := n.all()
	if len(r.segs) == 3 {
		var err *esError
		if ixs, err = n.resolve(r.seg(2), resolveOptions{}); err != nil {
			return nil, err
		}
	}
	cols := []column{{"health", false}, {"status", false}, {"index", false}, {"uuid", false}, {"pri", true}, {"rep", true}, {"docs.count", true}, {"docs.deleted", true}, {"store.size", true}, {"pri.store.size", true}, {"dataset.size", true}}
	var rows [][]string
	for _, ix := range ixs {
		size := 0
		for _, e := range ix.docs {
			size += len(e.source)
		}
		s := byteSize(size)
		rows = append(rows, []string{healthOf([]*index{ix}).status, "open", ix.name, ix.uuid, "1", strconv.Itoa(ix.replicas), strconv.Itoa(len(ix.docs)), strconv.FormatInt(ix.deleted, 10), s, s, s})
	}
	return r.cat(cols, rows)
}

// byteSize is ByteSizeValue's text: one decimal, cut and not rounded.
func byteSize(b int) string {
	for _, u := range []struct {
		n    int
		name string
	}{{1 << 30, "gb"}, {1 << 20, "mb"}, {1 << 10, "kb"}} {
		if b >= u.n {
			tenths := b * 10 / u.n
			s := strconv.Itoa(tenths / 10)
			if d := tenths % 10; d > 0 {
				s += "." + strconv.Itoa(d)
			}
			return s + u.name
		}
	}
	return strconv.Itoa(b) + "b"
}

func (n *Node) catHealth(r *request) (*response, *esError) {
	if err := r.allow(catParams, catSkip, catNo); err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	h := healthOf(n.all())
	now := n.now().UTC()
	var cols []column
	for _, c := range strings.Fields("epoch timestamp cluster status node.total node.data shards pri relo init unassign unassign.pri pending_tasks max_task_wait_time active_shards_percent") {
		cols = append(cols, column{c, !slices.Contains([]string{"epoch", "timestamp", "cluster", "status"}, c)})
	}
	p := strconv.Itoa(h.primaries)
	return r.cat(cols, [][]string{{strconv.FormatInt(now.Unix(), 10), now.Format("15:04:05"), clusterName, h.status, "1", "1", p, p, "0", "0",
		strconv.Itoa(h.replicas), "0", "0", "-", strconv.FormatFloat(h.percent(), 'f', 1, 64) + "%"}})
}

func (n *Node) nodesHTTP(r *request) (*response, *esError) {
	if err := r.allow("", "timeout flat_settings", ""); err != nil {
		return nil, err
	}
	node := obj("name", nodeName, "transport_address", "127.0.0.1:9300", "host", "127.0.0.1", "ip", "127.0.0.1", "version", version,
		"build_flavor", "default", "build_type", "embedded", "build_hash", "0000000000000000000000000000000000000000",
		"roles", []string{"data", "ingest", "master"}, "attributes", obj(),
		"http", obj("bound_address", []string{"127.0.0.1:9200"}, "publish_address", "127.0.0.1:9200", "max_content_length_in_bytes", maxBody))
	return ok(obj("_nodes", obj("total", 1, "successful", 1, "failed", 0), "cluster_name", clusterName, "nodes", obj(n.id, node))), nil
}

func (n *Node) clusterSettings(r *request) (*response, *esError) {
	if err := r.allow("", "flat_settings master_timeout timeout local", "include_defaults"); err != nil {
		return nil, err
	}
	return ok(obj("persistent", obj(), "transient", obj())), nil
}

func (n *Node) license(r *request) (*response, *esError) {
	if err := r.allow("", "local accept_enterprise", ""); err != nil {
		return nil, err
	}
	resp := ok(obj("license", obj("status", "active", "uid", "00000000-0000-0000-0000-000000000000", "type", "basic",
		"issue_date", "2025-01-01T00:00:00.000Z", "issue_date_in_millis", 1735689600000, "max_nodes", 1000, "max_resource_units", nil,
		"issued_to", clusterName, "issuer", "elasticsearch", "start_date_in_millis", -1)))
	resp.ctype = "pretty"
	return resp, nil
}

func (n *Node) dataStreams(r *request) (*response, *esError) {
	if err := r.allow("", "expand_wildcards include_defaults verbose master_timeout", ""); err != nil {
		return nil, err
	}
	if len(r.segs) == 2 {
		for _, name := range splitList(r.seg(1)) {
			if !strings.Contains(name, "*") && name != "_all" {
				return nil, indexNotFound(name)
			}
		}
	}
	return ok(obj("data_streams", []*jv{})), nil
}

// simulateIndex answers as if no template matched: this node has none.
func (n *Node) simulateIndex(r *request) (*response, *esError) {
	if err := r.allow("", "master_timeout include_defaults cause create", ""); err != nil {
		return nil, err
	}
	if len(r.body) > 0 {
		return nil, unsupported("index templates")
	}
	return ok(obj()), nil
}

// resolveIndex serves _resolve/index/{name}.
func (n *Node) resolveIndex(r *request) (*response, *esError) {
	if err := r.allow("ignore_unavailable allow_no_indices", "expand_wildcards", "mode"); err != nil {
		return nil, err
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	if _, err := n.resolve(r.seg(2), o); err != nil {
		return nil, err
	}
	match := func(name string) bool {
		for _, p := range splitList(r.seg(2)) {
			if p == "_all" || wildcard(p, name) {
				return true
			}
		}
		return false
	}
	indices, aliases := []*jv{}, []*jv{}
	names := map[string]bool{}
	for _, ix := range n.all() {
		as := slices.Sorted(maps.Keys(ix.aliases))
		for _, a := range as {
			names[a] = true
		}
		if !match(ix.name) {
			continue
		}
		e := obj("name", ix.name)
		if len(as) > 0 {
			e.put("aliases", as)
		}
		e.put("attributes", []string{"open"})
		indices = append(indices, e)
	}
	for _, a := range slices.Sorted(maps.Keys(names)) {
		if !match(a) {
			continue
		}
		var to []string
		for _, ix := range n.byAlias(a) {
			to = append(to, ix.name)
		}
		aliases = append(aliases, obj("name", a, "indices", to))
	}
	return ok(obj("indices", indices, "aliases", aliases, "data_streams", []*jv{})), nil
}

func (n *Node) refresh(r *request) (*response, *esError) {
	if err := r.allow("ignore_unavailable allow_no_indices index", "expand_wildcards force", ""); err != nil {
		return nil, err
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	ixs, err := n.resolve(r.target(), o)
	if err != nil {
		return nil, err
	}
	h := healthOf(ixs)
	return ok(obj("_shards", obj("total", h.primaries+h.replicas, "successful", h.primaries, "failed", 0))), nil
}

//go:build !nodevnode

package devnode

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// render is an index as GET /{index} shows it.
func (ix *index) render() *jv {
	s := obj("routing", obj("allocation", obj("include", obj("_tier_preference", "data_content"))))
	if v := ix.settings.get("refresh_interval"); v != nil {
		s.put("refresh_interval", v)
	}
	s.put("number_of_shards", "1")
	s.put("provided_name", ix.name)
	s.put("creation_date", strconv.FormatInt(ix.created, 10))
	s.put("number_of_replicas", strconv.Itoa(ix.replicas))
	s.put("uuid", ix.uuid)
	s.put("version", obj("created", "8536000"))
	return obj("aliases", ix.renderAliases(nil), "mappings", ix.mapping.render(), "settings", obj("index", s))
}

func (ix *index) renderAliases(match func(string) bool) *jv {
	o := obj()
	for _, a := range slices.Sorted(maps.Keys(ix.aliases)) {
		if match == nil || match(a) {
			o.put(a, ix.aliases[a])
		}
	}
	return o
}

const indexSkip = "master_timeout timeout wait_for_active_shards local expand_wildcards flat_settings"

func (n *Node) createIndexAPI(r *request) (*response, *esError) {
	if err := r.allow("", indexSkip, ""); err != nil {
		return nil, err
	}
	name := r.seg(0)
	m, settings, replicas, aliases := newMapping(), obj(), 1, map[string]*jv{}
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		for _, mem := range v.mem {
			switch mem.key {
			case "mappings":
				if mem.v.get("_doc") != nil {
					return nil, illegalArg("The mapping definition cannot be nested under a type [_doc] unless include_type_name is set to true.")
				}
				if m, err = parseMapping(mem.v); err != nil {
					return nil, err
				}
			case "settings":
				if settings, replicas, err = parseSettings(mem.v); err != nil {
					return nil, err
				}
			case "aliases":
				for _, a := range mem.v.mem {
					if aliases[a.key], err = parseAlias(a.v); err != nil {
						return nil, err
					}
				}
			default:
				return nil, errf(400, "parse_exception", "unknown key [%s] for create index", mem.key)
			}
		}
	}
	if strings.HasPrefix(name, "<") {
		return nil, unsupported("the index expression [%s]", name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	if err := validIndexName(name); err != nil {
		return nil, err
	}
	if ix := n.indices[name]; ix != nil {
		e := errf(400, "resource_already_exists_exception", "index [%s/%s] already exists", name, ix.uuid)
		e.extra = []any{"index_uuid", ix.uuid, "index", name}
		return nil, e
	}
	if len(n.byAlias(name)) > 0 {
		e := errf(400, "invalid_index_name_exception", "Invalid index name [%s], already exists as alias", name)
		e.extra = []any{"index_uuid", "_na_", "index", name}
		return nil, e
	}
	for a := range aliases {
		if err := n.validAlias(a); err != nil {
			return nil, err
		}
	}
	if _, err := n.createIndex(name, m, settings, replicas, aliases); err != nil {
		return nil, err
	}
	return ok(obj("acknowledged", true, "shards_acknowledged", true, "index", name)), nil
}

// elsewhereSettings are index settings that a real server has and this node
// has not.
var elsewhereSettings = strings.Fields("index.number_of_routing_shards index.max_result_window index.mapping.total_fields.limit index.auto_expand_replicas index.codec index.priority index.hidden index.translog.durability")

// parseSettings reads settings, dotted or nested, with or without "index.".
func parseSettings(v *jv) (*jv, int, *esError) {
	flat := map[string]*jv{}
	var walk func(prefix string, v *jv)
	walk = func(prefix string, v *jv) {
		for _, m := range v.mem {
			k := prefix + m.key
			if m.v.k == kObj {
				walk(k+".", m.v)
				continue
			}
			if !strings.HasPrefix(k, "index.") {
				k = "index." + k
			}
			flat[k] = m.v
		}
	}
	walk("", v)
	out, replicas := obj(), 1
	for _, k := range slices.Sorted(maps.Keys(flat)) {
		t := flat[k].textOr("")
		switch k {
		case "index.number_of_shards":
			if t != "1" {
				return nil, 0, unsupported("more than one shard")
			}
		case "index.number_of_replicas":
			i, err := strconv.Atoi(t)
			if err != nil || i < 0 {
				return nil, 0, illegalArg("Failed to parse value [%s] for setting [%s] must be >= 0", t, k)
			}
			replicas = i
		case "index.refresh_interval":
			out.put("refresh_interval", t)
		default:
			if slices.Contains(elsewhereSettings, k) || strings.HasPrefix(k, "index.analysis.") || strings.HasPrefix(k, "index.sort.") || strings.HasPrefix(k, "index.lifecycle.") ||
				strings.HasPrefix(k, "index.mapping.") || strings.HasPrefix(k, "index.default_pipeline") || strings.HasPrefix(k, "index.final_pipeline") || strings.HasPrefix(k, "index.blocks.") {
				return nil, 0, unsupported("the index setting [%s]", k)
			}
			return nil, 0, illegalArg("unknown setting [%s] please check that any required plugins are installed, or check the breaking changes documentation for removed settings", k)
		}
	}
	return out, replicas, nil
}

// getIndex serves GET and HEAD on /{index}.
func (n *Node) getIndex(r *request) (*response, *esError) {
	if err := r.allow("ignore_unavailable allow_no_indices", indexSkip, "features include_defaults"); err != nil {
		return nil, err
	}
	ixs, err := n.resolved(r, r.seg(0))
	if err != nil {
		return nil, err
	}
	defer n.mu.RUnlock()
	o := obj()
	for _, ix := range ixs {
		o.put(ix.name, ix.render())
	}
	resp := ok(o)
	resp.chunked = true
	return resp, nil
}

// resolved resolves under the read lock and keeps it on success.
func (n *Node) resolved(r *request, expr string) ([]*index, *esError) {
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	n.mu.RLock()
	if err := n.usable(); err != nil {
		n.mu.RUnlock()
		return nil, err
	}
	ixs, err := n.resolve(expr, o)
	if err != nil {
		n.mu.RUnlock()
		return nil, err
	}
	return ixs, nil
}

func (n *Node) deleteIndexAPI(r *request) (*response, *esError) {
	if err := r.allow("ignore_unavailable allow_no_indices", indexSkip, ""); err != nil {
		return nil, err
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	o.noAliases = true
	// action.destructive_requires_name is true by default.
	if e := r.seg(0); e == "_all" || strings.Contains(e, "*") {
		return nil, illegalArg("Wildcard expressions or all indices are not allowed")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	ixs, err := n.resolve(r.seg(0), o)
	if err != nil {
		return nil, err
	}
	for _, ix := range ixs {
		ix.gen++ // frozen views must not use the closed store
		if err := n.deleteIndex(ix); err != nil {
			return nil, err
		}
	}
	return ok(obj("acknowledged", true)), nil
}

func (n *Node) getMapping(r *request) (*response, *esError) {
	if err := r.allow("ignore_unavailable allow_no_indices", indexSkip, ""); err != nil {
		return nil, err
	}
	expr := ""
	if r.segs[0] != "_mapping" {
		expr = r.seg(0)
	}
	ixs, err := n.resolved(r, expr)
	if err != nil {
		return nil, err
	}
	defer n.mu.RUnlock()
	o := obj()
	for _, ix := range ixs {
		o.put(ix.name, obj("mappings", ix.mapping.render()))
	}
	resp := ok(o)
	resp.chunked = true
	return resp, nil
}

func (n *Node) putMapping(r *request) (*response, *esError) {
	if err := r.allow("ignore_unavailable allow_no_indices", indexSkip, "write_index_only"); err != nil {
		return nil, err
	}
	if len(r.body) == 0 {
		return nil, bodyRequired()
	}
	v, err := r.json()
	if err != nil {
		return nil, err
	}
	o, err := r.resolveOptions()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	ixs, err := n.resolve(r.seg(0), o)
	if err != nil {
		return nil, err
	}
	add, err := parseMapping(v)
	if err != nil {
		return nil, err
	}
	merged := make([]*mapping, len(ixs))
	for i, ix := range ixs {
		if merged[i], err = ix.mapping.merge(add); err != nil {
			return nil, err
		}
	}
	for i, ix := range ixs {
		ix.mapping = merged[i]
	}
	if err := n.saveState(); err != nil {
		return nil, n.broken(err)
	}
	return ok(obj("acknowledged", true)), nil
}

// parseAlias reads what an alias carries.
func parseAlias(v *jv) (*jv, *esError) {
	o := obj()
	for _, m := range v.mem {
		switch m.key {
		case "is_write_index":
			o.put("is_write_index", m.v.text() == "true")
		case "is_hidden":
			if m.v.text() == "true" {
				return nil, unsupported("hidden aliases")
			}
		case "filter", "routing", "index_routing", "search_routing":
			return nil, unsupported("[%s] on an alias", m.key)
		default:
			return nil, errf(400, "parse_exception", "Unknown field [%s] in alias", m.key)
		}
	}
	return o, nil
}

func (n *Node) validAlias(a string) *esError {
	if n.indices[a] != nil {
		return errf(400, "invalid_alias_name_exception", "Invalid alias name [%s]: an index or data stream exists with the same name as the alias", a)
	}
	if err := validIndexName(a); err != nil {
		return errf(400, "invalid_alias_name_exception", "%s", strings.Replace(err.reason, "Invalid index name ["+a+"], ", "Invalid alias name ["+a+"]: ", 1))
	}
	return nil
}

// getAlias serves _alias in all its forms. A name that is missing gives 404
// together with those that were found.
func (n *Node) getAlias(r *request) (*response, *esError) {
	if err := r.allow("ignore_unavailable allow_no_indices", indexSkip, ""); err != nil {
		return nil, err
	}
	expr, names := "", []string(nil)
	segs := r.segs
	if segs[0] != "_alias" {
		expr = r.seg(0)
		segs = segs[1:]
	}
	if len(segs) == 2 {
		names = splitList(decodeComponent(segs[1], false))
	}
	ixs, err := n.resolved(r, expr)
	if err != nil {
		return nil, err
	}
	defer n.mu.RUnlock()
	used := map[string]bool{}
	match := func(a string) bool {
		for _, p := range names {
			if p == "_all" || wildcard(p, a) {
				used[p] = true
				return true
			}
		}
		return false
	}
	o := obj()
	for _, ix := range ixs {
		if names == nil {
			o.put(ix.name, obj("aliases", ix.renderAliases(nil)))
			continue
		}
		if as := ix.renderAliases(match); len(as.mem) > 0 {
			o.put(ix.name, obj("aliases", as))
		}
	}
	var missing []string
	for _, p := range names {
		if !used[p] && !strings.Contains(p, "*") && p != "_all" {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return ok(o), nil
	}
	slices.Sort(missing)
	text := "alias [" + missing[0] + "] missing"
	if len(missing) > 1 {
		text = "aliases [" + strings.Join(missing, ",") + "] missing"
	}
	e := obj("error", text, "status", 404)
	e.mem = append(e.mem, o.mem...)
	return okIf(false, e), nil
}

type aliasAction struct {
	add, must        bool
	indices, aliases []string
	props            *jv
}

func aliasesNotFound(name string) *esError {
	e := errf(404, "aliases_not_found_exception", "aliases [%s] missing", name)
	e.extra = []any{"resource.type", "aliases", "resource.id", name}
	return e
}

// updateAliases serves POST _aliases.
func (n *Node) updateAliases(r *request) (*response, *esError) {
	if err := r.allow("", indexSkip, ""); err != nil {
		return nil, err
	}
	if len(r.body) == 0 {
		return nil, bodyRequired()
	}
	v, err := r.json()
	if err != nil {
		return nil, err
	}
	acts := v.get("actions")
	if acts == nil || acts.k != kArr || len(acts.arr) == 0 {
		return nil, illegalArg("No action specified")
	}
	var list []aliasAction
	for _, a := range acts.arr {
		act, err := parseAliasAction(a, r.body)
		if err != nil {
			return nil, err
		}
		list = append(list, act)
	}
	return n.applyAliases(list)
}

func parseAliasAction(a *jv, src []byte) (aliasAction, *esError) {
	act := aliasAction{must: true}
	if len(a.mem) != 1 {
		return act, illegalArg("Too many operations declared on operation entry")
	}
	m := a.mem[0]
	switch m.key {
	case "add":
		act.add = true
	case "remove":
	case "remove_index":
		return act, unsupported("the alias action [remove_index]")
	default:
		l, c := lineCol(src, m.off)
		inner := errf(400, "x_content_parse_exception", "[%d:%d] [alias_action] unknown field [%s]", l, c, m.key)
		l, c = lineCol(src, m.v.off)
		e := errf(400, "x_content_parse_exception", "[%d:%d] [aliases] failed to parse field [actions]", l, c)
		e.root, e.cause = inner, inner
		return act, e
	}
	list := func(v *jv) []string {
		if v.k != kArr {
			return []string{v.textOr("")}
		}
		var out []string
		for _, e := range v.arr {
			out = append(out, e.textOr(""))
		}
		return out
	}
	rest := obj()
	for _, f := range m.v.mem {
		switch f.key {
		case "index", "indices":
			act.indices = list(f.v)
		case "alias", "aliases":
			act.aliases = list(f.v)
		case "must_exist":
			act.must = f.v.text() != "false"
		default:
			rest.mem = append(rest.mem, f)
		}
	}
	if len(act.indices) == 0 {
		return act, illegalArg("One of [index] or [indices] is required")
	}
	if len(act.aliases) == 0 {
		return act, illegalArg("One of [alias] or [aliases] is required")
	}
	var err *esError
	act.props, err = parseAlias(rest)
	return act, err
}

func (n *Node) applyAliases(list []aliasAction) (*response, *esError) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.usable(); err != nil {
		return nil, err
	}
	next := map[*index]map[string]*jv{}
	of := func(ix *index) map[string]*jv {
		if next[ix] == nil {
			next[ix] = maps.Clone(ix.aliases)
		}
		return next[ix]
	}
	for _, act := range list {
		ixs, err := n.resolve(strings.Join(act.indices, ","), resolveOptions{noAliases: true, forbidNone: true})
		if err != nil {
			return nil, err
		}
		for _, a := range act.aliases {
			if act.add {
				if err := n.validAlias(a); err != nil {
					return nil, err
				}
			}
			hit := false
			for _, ix := range ixs {
				as := of(ix)
				if act.add {
					as[a] = act.props
					continue
				}
				for k := range as {
					if wildcard(a, k) {
						delete(as, k)
						hit = true
					}
				}
			}
			if !act.add && !hit && act.must {
				return nil, aliasesNotFound(a)
			}
		}
	}
	for ix, as := range next {
		ix.aliases = as
	}
	if err := n.saveState(); err != nil {
		return nil, n.broken(err)
	}
	return ok(obj("acknowledged", true, "errors", false)), nil
}

// oneAlias serves PUT and DELETE on {index}/_alias/{name}.
func (n *Node) oneAlias(r *request, add bool) (*response, *esError) {
	if err := r.allow("", indexSkip, ""); err != nil {
		return nil, err
	}
	act := aliasAction{add: add, must: true, indices: splitList(r.seg(0)), aliases: splitList(r.seg(2)), props: obj()}
	if len(r.body) > 0 {
		v, err := r.json()
		if err != nil {
			return nil, err
		}
		if act.props, err = parseAlias(v); err != nil {
			return nil, err
		}
	}
	return n.applyAliases([]aliasAction{act})
}

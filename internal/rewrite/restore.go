package rewrite

import (
	"cmp"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/esproxy/esproxy/internal/policy"
)

// maxRename is how long the expression and the replacement for names may be, in bytes; a name has at most 255.
const maxRename = 1024

// maxSnapshot is the longest list of a snapshot's indices that is read, in bytes.
const maxSnapshot = 4 << 20

// restore carries a restore from a snapshot, or the mount of one of its indices. An index may come back under another name;
// one that a rule protects must have been under the rule before, or its values would be plain.
func (r *request) restore() (Transform, error) {
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		j := r.newJob(body, root)
		if err := j.restore(); err != nil {
			return nil, err
		}
		return body, j.others(root, "", "indices", "index", "renamed_index", "rename_pattern", "rename_replacement", "index_settings", "ignore_index_settings",
			"ignore_unavailable", "include_aliases", "include_global_state", "feature_states", "partial", "quiet")
	})
}

func (j *job) restore() error {
	text := func(name string) string { return string(j.all.text(orNull(j.root.member(name)))) }
	if text("rename_alias_pattern") != "" {
		return refuse(400, "esproxy_unsealed_source", "aliases that are renamed while they are restored may bring indices under a rule; restore them as they are, and change them by [_aliases]")
	}
	var names map[string]string // old name to new
	switch {
	case j.r.api == "searchable_snapshots.mount":
		names = map[string]string{text("index"): cmp.Or(text("renamed_index"), text("index"))}
	case text("rename_pattern") == "" && text("rename_replacement") == "":
		names = map[string]string{}
		for _, one := range j.names(j.root.member("indices")) {
			names[one] = one
		}
	default:
		re, err := regexp.Compile(text("rename_pattern"))
		if err != nil || len(text("rename_pattern")) > maxRename || len(text("rename_replacement")) > maxRename || readOtherwise.MatchString(text("rename_pattern")) || twoDigits.MatchString(text("rename_replacement")) {
			return refuse(400, "esproxy_bad_request", "the [rename_pattern] cannot be read here; write a plainer regular expression")
		}
		old, err := j.snapshotted()
		if err != nil {
			return err
		}
		names = map[string]string{}
		for _, one := range old {
			names[one] = re.ReplaceAllString(one, goReplacement(text("rename_replacement")))
		}
	}
	var after []string
	for from, to := range names {
		after = append(after, to)
		before := j.r.rulesOf([]string{from})
		for _, rule := range j.r.rulesOf([]string{to}) {
			if from != to && !slices.Contains(before, rule) {
				return refuse(400, "esproxy_unsealed_source", "the index ["+from+"] would come back under rule ["+rule.Name+"], which did not name it before, so its values are not sealed; restore it under a name that no rule names, and copy its documents through the proxy")
			}
		}
	}
	settings := j.root.member("index_settings")
	rules := j.r.rulesOf(after)
	if len(after) == 0 {
		rules = j.r.Policy.Rules
	}
	if !settings.isObject() || len(rules) == 0 {
		return nil
	}
	_, err := j.r.control(controlSettings, rules, j.body[settings.start:settings.end])
	return err
}

// snapshotted gives the names of the indices that a restore asks for, those of the snapshot where it asks by pattern.
func (j *job) snapshotted() ([]string, error) {
	asked := j.names(j.root.member("indices"))
	if len(asked) > 0 && !slices.ContainsFunc(asked, func(s string) bool { return strings.ContainsAny(s, "*") || s == "_all" }) {
		return asked, nil
	}
	path := "/_snapshot/" + url.PathEscape(j.r.value("repository")) + "/" + url.PathEscape(j.r.value("snapshot")) + "?filter_path=snapshots.indices,snapshots.data_streams"
	status, reply, err := j.r.call.Caller.Do(j.r.ctx, "GET", path, nil, maxSnapshot)
	if err != nil || status != 200 || !gjson.ValidBytes(reply) {
		return nil, refuse(400, "esproxy_unsealed_source", "the names in the snapshot cannot be read, so it is not known which become protected; name the indices one by one in [indices]")
	}
	var all []string
	for _, list := range []string{"snapshots.0.indices", "snapshots.0.data_streams"} {
		for _, one := range gjson.GetBytes(reply, list).Array() {
			name := one.String()
			if len(asked) == 0 || slices.ContainsFunc(asked, func(p string) bool { return p == "_all" || policy.Glob(p, name) }) {
				all = append(all, name)
			}
		}
	}
	return all, nil
}

// readOtherwise finds what Java reads in another way in a regular expression: classes in classes and their intersections. twoDigits finds
// groups above the ninth, which there are that many of or not.
var (
	readOtherwise = regexp.MustCompile(`\[[^\]]*(?:\[|&&)`)
	twoDigits     = regexp.MustCompile(`\$[0-9][0-9]`)
)

// goReplacement writes the replacement text of a Java regular expression for Go's: groups are $1 there, ${1} here.
func goReplacement(java string) string {
	var b strings.Builder
	for i := 0; i < len(java); i++ {
		switch c := java[i]; {
		case c == '\\' && i+1 < len(java):
			i++
			if java[i] == '$' {
				b.WriteString("$$")
			} else {
				b.WriteByte(java[i])
			}
		case c == '$' && i+1 < len(java) && java[i+1]-'0' <= 9:
			i++
			b.WriteString("${" + java[i:i+1] + "}")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// createFrom carries the creation of an empty index after the pattern of another one.
func (r *request) createFrom() (Transform, error) {
	found, err := r.Cluster.Resolve(r.ctx, r.value("dest"))
	if err != nil {
		return nil, err
	}
	rules := r.rulesOf(found.Names)
	// Without a body the first write sees to the mapping.
	return r.treeBody(func(body []byte, root *treeValue) ([]byte, error) {
		for member, kind := range map[string]controlKind{"mappings_override": controlMapping, "settings_override": controlSettings} {
			m := root.member(member)
			if m.isObject() && len(rules) > 0 {
				if _, err := r.control(kind, rules, body[m.start:m.end]); err != nil {
					return nil, err
				}
			}
		}
		j := r.newJob(body, root)
		return body, j.others(root, "", "mappings_override", "settings_override", "remove_index_blocks")
	})
}

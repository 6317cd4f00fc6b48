package rewrite

import "testing"

// What 8.19.8 leaves of a bulk reply with these values of filter_path was tried.
func TestFilterPath(t *testing.T) {
	item := func(names ...string) []string { return append([]string{"items", "index"}, names...) }
	var (
		errs, took   = []string{"errors"}, []string{"took"}
		id, status   = item("_id"), item("status")
		typ, reason  = item("error", "type"), item("error", "reason")
		all          = [][]string{errs, took, id, status, typ, reason}
		updateStatus = []string{"items", "update", "status"}
	)
	for _, c := range []struct {
		value   string
		keeps   [][]string // of all
		perItem bool
	}{
		{"", all, true},
		{" ", all, true},
		{",", all, true},
		{"-", all, true},
		{"*", all, true},
		{"**", all, true},
		{"items", [][]string{id, status, typ, reason}, true},
		{"items.**", [][]string{id, status, typ, reason}, true},
		{"items.index", [][]string{id, status, typ, reason}, false},
		{"items.*.error", [][]string{typ, reason}, false},
		{"items.*.error.*", [][]string{typ, reason}, false},
		{"items.*.error.type", [][]string{typ}, false},
		{"**.type", [][]string{typ}, false},
		{"items.in*.st*", [][]string{status}, false},
		{"items.*.st*", [][]string{status}, true},
		{"items.*.error.**.type", nil, false},
		{"items.*.error.type.x", nil, false},
		{"items.", nil, false},
		{".items", nil, false},
		{"items..error", nil, false},
		{`it\ems`, nil, false},
		{`items.*\.status`, nil, false},
		{" errors , took", [][]string{errs, took}, false},
		{"errors,,took", [][]string{errs, took}, false},
		{"errors,items.*.status,items.*.error", [][]string{errs, status, typ, reason}, true},            // Logstash
		{"errors,items.*.error,items.*.status,took", [][]string{errs, took, status, typ, reason}, true}, // Beats
		{"**.error,-**.reason", [][]string{typ}, false},
		{"-errors,took", [][]string{took}, false},
		{" -errors,took", [][]string{took}, false},
		{"-,took", [][]string{took}, false},
		{"- errors", [][]string{took, id, status, typ, reason}, true},
		{"-took", [][]string{errs, id, status, typ, reason}, true},
		{"-items", [][]string{errs, took}, false},
		{"-items.*.*", [][]string{errs, took}, false},
		{"-items.*", [][]string{errs, took}, false},
		{"-**.error", [][]string{errs, took, id, status}, true},
		{"-items.index.error,items", [][]string{id, status}, true},
		{"-items.index._id.x", all, true},
		{"-items.*.status", [][]string{errs, took, id, typ, reason}, true},
		{"-items.*.status,-items.update._id", [][]string{errs, took, id, typ, reason}, false},
		{"items,items.index.status", [][]string{id, status, typ, reason}, true},
		{"items.index.status,items", [][]string{id, status, typ, reason}, true},
	} {
		f, err := newFilterPath(c.value)
		if err != nil {
			t.Fatal(err)
		}
		want := map[*string]bool{}
		for _, path := range c.keeps {
			want[&path[0]] = true
		}
		for _, path := range all {
			if got := f.keeps(path...); got != want[&path[0]] {
				t.Errorf("filter_path=%q: keeps %v is %v", c.value, path, got)
			}
		}
		if got := f.perItem(); got != c.perItem {
			t.Errorf("filter_path=%q: one entry for each item is %v", c.value, got)
		}
	}
	f, _ := newFilterPath("items.index.status")
	if f.keeps(updateStatus...) {
		t.Error("items.index keeps an update")
	}
	if _, err := newFilterPath("a\xff"); err == nil {
		t.Error("invalid UTF-8 is taken")
	}
}

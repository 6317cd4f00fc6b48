package test

import (
	"fmt"
	"maps"
	"net/url"
	"os"
	"runtime"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// walk is the state of a walk over the table.
type walk struct {
	t      *testing.T
	s      *stack
	up     *watcher
	next   atomic.Int64
	stride int // of visits with protected values, every stride-th is made

	mu       sync.Mutex
	visits   map[int64]visit // for reports
	problems map[string][]string
}

// problem notes what is wrong with a row.
func (k *walk) problem(kind string, r row, text string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problems[kind] = append(k.problems[kind], r.String()+"\t"+r.verdict+"\t"+text)
}

// urls are ways in which a value can stand in the query string. $E is a document, escaped.
var urls = []string{
	"q=$N:$C", "q=a+AND+($N:%22$C%22)", "q=$C&df=$N", "pretty;q=$N:$C", "suggest_field=$N&suggest_text=$C",
	"source=$E&source_content_type=application/json", "source=%7B%22query%22:%7B%22term%22:%7B%22$N%22:%22$C%22%7D%7D%7D&source_content_type=application/json",
	"$N=$C", "a=1;$N=$C", "%63redit_card_num=$C", "human&payment%2Ecards%2Epan=$C",
}

// TestWalk goes through every row of the table, with a value of its own for each request at a protected path: in bodies of the endpoint's
// form and of others, in scripts and their params, in the query string and in the path, written in every dialect. None may be seen by
// the upstream. Values of unprotected fields, sent in the same way, must be seen there, unless the row is refused; that shows that the
// walk can see, and that nobody is refused without need.
//
// With the race detector only every seventh visit with a protected value is made, always other ones in neighbouring rows; controls are all made.
func TestWalk(t *testing.T) {
	t.Parallel()
	s := start(t, config{server: embedded(t), env: []string{"ESPROXY_LOG_LEVEL=info"}})
	s.must(s.do("PUT", "/$Puser/_doc/kept?refresh=true", `{"username":"Ana","n":1}`), 201)
	s.must(s.do("PUT", "/$Pfree/_doc/kept?refresh=true", `{"n":1}`), 201)
	s.must(s.do("POST", "/_aliases", `{"actions":[{"add":{"index":"$Puser","alias":"$Palias"}}]}`), 200)

	k := &walk{t: t, s: s, up: newWatcher(), stride: 1, visits: map[int64]visit{}, problems: map[string][]string{}}
	if raced {
		k.stride = 7
	}
	s.rec.meet(k.up.early)
	rows := tableRows(t)
	jobs := make(chan int)
	var done sync.WaitGroup
	for range 2 * runtime.GOMAXPROCS(0) {
		done.Go(func() {
			w := newWire(t, s)
			defer w.close()
			for i := range jobs {
				k.row(w, rows[i], i)
			}
		})
	}
	for i := range rows {
		jobs <- i
	}
	close(jobs)
	done.Wait()
	k.report()
	t.Logf("%d visits, %d requests seen upstream", k.next.Load(), k.up.seen)
}

// TestWalkForms checks that forms are of APIs that the table has, and that no row is refused merely because nobody looked at it.
func TestWalkForms(t *testing.T) {
	apis := map[string]bool{}
	for _, r := range tableRows(t) {
		if r.reason == "" || strings.Contains(r.reason, " yet") {
			t.Errorf("%s: no reason for its verdict: %q", r, r.reason)
		}
		apis[strings.TrimPrefix(r.api, "compat7.")] = true
	}
	for api := range formsOf {
		if !apis[api] {
			t.Errorf("the table has no API %q", api)
		}
	}
}

// row makes all visits of the nth row.
func (k *walk) row(w *wire, r row, n int) {
	all, known := r.forms()
	list := slices.DeleteFunc(slices.Clone(all), func(f form) bool { return f.free })
	turn := n // so that strides, places and dialects meet in other pairs at the next row
	canary := func(v visit) {
		if turn++; turn%k.stride != 0 {
			return
		}
		v.row = r
		a := w.send(&v)
		k.mu.Lock()
		k.visits[v.value] = v
		k.mu.Unlock()
		if strings.Contains(a.body, canaryHead) && ours(a) {
			k.problem("the proxy's own error holds the value", r, v.what)
		}
	}
	number := func() (int64, string) {
		id := k.next.Add(1)
		return id, value(canaryHead, id)
	}
	body := func(f form, p place, d dialect) visit {
		id, c := number()
		target := r.target(int(id))
		sent := d.make(k.t, strings.ReplaceAll(f.fill(p, target, c), "$P", k.s.prefix), f.lines())
		return visit{what: f.name + ", " + p.name + ", " + d.name, path: r.path(target), header: sent.header, body: sent.body, value: id}
	}
	for _, f := range list {
		places := protectedPlaces
		if !strings.Contains(f.body, "$D") && !strings.Contains(f.body, "$F") {
			places = places[turn%2 : turn%2+1] // of a field's name there are but two spellings
		} else if !known {
			places = places[turn%len(places):][:1]
		}
		for _, p := range places {
			canary(body(f, p, dialects[0]))
		}
	}
	for i, d := range dialects[1:] {
		forms := list
		if len(list) == 0 {
			break
		}
		if r.verdict != "bulk" && r.verdict != "doc" && r.verdict != "create" && r.verdict != "update" {
			forms = list[(n+i)%len(list):][:1]
		}
		for j, f := range forms {
			canary(body(f, protectedPlaces[(n+i+j)%len(protectedPlaces)], d))
		}
	}
	for _, u := range urls {
		id, c := number()
		p := protectedPlaces[id%2]
		doc := url.QueryEscape(strings.ReplaceAll(`{"username":"Ana",`+p.members+`}`, "$C", c))
		query := strings.NewReplacer("$N", p.field, "$C", c, "$E", doc).Replace(u)
		canary(visit{what: "query " + u, path: r.path(r.target(int(id))) + "?" + query, value: id})
	}
	for _, end := range []string{"/credit_card_num:$C", "/$Puser/_doc/1/credit_card_num=$C"} {
		id, c := number()
		canary(visit{what: "path", path: r.path(r.target(int(id))) + strings.ReplaceAll(end, "$C", c), value: id})
	}
	k.controls(w, r, n, all, known)
}

// controls sends what must arrive: values of a field that no rule names.
func (k *walk) controls(w *wire, r row, n int, list []form, known bool) {
	send := func(what, target string, f *form, d dialect, arrive bool) {
		id := k.next.Add(1)
		c := value(controlHead, id)
		v := visit{row: r, what: what, path: r.path(target), value: id}
		counts := true
		if f != nil {
			sent := d.make(k.t, strings.ReplaceAll(f.fill(freePlace, target, c), "$P", k.s.prefix), f.lines())
			v.header, v.body = sent.header, sent.body
			v.what += ", " + f.name + ", " + d.name
			counts = f.holds()
		} else {
			v.path += "?filter_path=" + c
		}
		a := w.send(&v)
		k.up.mu.Lock()
		arrived := k.up.arrived[id]
		k.up.mu.Unlock()
		switch {
		case !arrive && (arrived || !ours(a)):
			k.problem("passes, but the table says refused", r, v.what)
		case arrive && ours(a):
			k.problem("refused, and nothing in it is protected", r, v.what+": "+a.json("error.type").String()+a.json("items.0.*.error.type").String()+" "+tail(a.json("error.reason").String()+a.json("items.0.*.error.reason").String(), 300))
		case arrive && a.err != nil:
			k.problem("no reply", r, v.what+": "+a.err.Error())
		case arrive && counts && !arrived:
			k.problem("a value of no rule did not arrive", r, v.what)
		}
	}
	switch r.verdict {
	case "refuse":
		if r.method != "HEAD" {
			send("refused row", r.target(0), &list[0], dialects[0], false)
		}
		return
	case "unprotected":
		send("free target, no body", "$Pfree", nil, dialects[0], true)
		if known {
			for i, d := range dialects {
				if f := list[i%len(list)]; d.usual && !f.odd {
					send("free target", "$Pfree", &f, d, true)
				}
			}
		}
		return
	}
	if !known {
		send("no body", r.target(n), nil, dialects[0], true)
		return
	}
	for _, f := range list {
		if !f.odd && !f.script {
			send("protected target", r.target(n), &f, dialects[0], true)
		}
		if !f.odd && strings.Contains(r.template+f.body, "$I") {
			send("free target", "$Pfree", &f, dialects[0], true)
		}
	}
	usual := slices.DeleteFunc(slices.Clone(list), func(f form) bool { return f.odd || f.script })
	for i, d := range dialects[1:] {
		if d.usual && len(usual) > 0 {
			send("protected target", r.target(n), &usual[(n+i)%len(usual)], d, true)
		}
	}
}

// report fails the test with what was found, by kind and row.
func (k *walk) report() {
	full := os.Getenv("ESPROXY_TEST_WALK_FULL") != ""
	const leaked = "a protected value went upstream"
	rows := map[row][]string{}
	for id, text := range k.up.leaked {
		v := k.visits[id]
		if len(rows[v.row]) == 0 {
			k.problems[leaked+", seen as"] = append(k.problems[leaked+", seen as"], v.String()+"\n  seen as "+text)
		}
		rows[v.row] = append(rows[v.row], v.what)
	}
	for r, what := range rows {
		k.problems[leaked] = append(k.problems[leaked], fmt.Sprintf("%s\t%s\t%d times, such as %s", r, r.verdict, len(what), strings.Join(what[:min(6, len(what))], "; ")))
	}
	for _, kind := range slices.Sorted(maps.Keys(k.problems)) {
		list := k.problems[kind]
		sort.Strings(list)
		var b strings.Builder
		for i, p := range list {
			if i == 60 && !full {
				fmt.Fprintf(&b, "… and %d more\n", len(list)-i)
				break
			}
			b.WriteString(p + "\n")
		}
		k.t.Errorf("%s: %d\n%s", kind, len(list), b.String())
	}
}

package rewrite

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// A large bulk gives the same with one processor and with several: the same documents in the same order, the same refusals.
func TestHalves(t *testing.T) {
	var body strings.Builder
	n := 0
	add := func(format string, args ...any) {
		fmt.Fprintf(&body, format, args...)
		n++
	}
	for i := range 3000 {
		switch {
		case i%97 == 0:
			add("{\"index\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"username\":[\"Ana\"],\"card\":1}\n", i)
		case i%89 == 0:
			add("\n\r\n{\"delete\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n", i)
		case i%83 == 0:
			add("{\"index\":{\"_index\":\"plain\"}}\n{\"card\":%d}\n", i)
		case i%79 == 0:
			add("{\"create\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"username\":\"Ana\",\"card\":\"c\",\"card\":\"d\"}\n", i)
		case i == 2000:
			add("{\"index\":{\"_index\":\"user\"}}\n{\"username\":\"Ana\",\"card\":\"%s\"}\n", strings.Repeat("x", 200<<10))
		case i > 2500 && i%71 == 0: // from here on blocks don't split
			add("{\"update\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"doc\":{\"card\":\"new\"}}\n", i-2)
		default:
			add("{\"index\":{\"_index\":\"user\",\"_id\":\"%d\"}}\n{\"x\":\"%s\",\"username\":\"user%d\",\"card\":\"number %d\",\"ccv\":[%d]}\n", i, strings.Repeat("x", i%500), i%7, i, i)
		}
	}
	type outcomeOf struct {
		plain, reply string
		sealed       int
	}
	run := func(procs int) outcomeOf {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
		e, _, _ := fakeEngine(t)
		e.Limits.MaxDocument = 1 << 20
		o := exchange(t, e, bulkCall("/_bulk", ""), strings.NewReader(body.String()), func(_ Target, up []byte) (int, string) {
			reply, _ := bulkReply(t, nil, up, "")
			return 200, reply
		})
		if o.err != nil || o.replyErr != nil {
			t.Fatal(o.err, o.replyErr)
		}
		plain, sealed := openAll(t, o.up)
		_, items := readReply(t, o.reply)
		if len(items) != n {
			t.Fatalf("%d items in the reply, want %d", len(items), n)
		}
		return outcomeOf{plain, o.reply, len(sealed)}
	}
	one := run(1)
	for range 4 {
		if many := run(4); many.plain != one.plain || many.reply != one.reply || many.sealed != one.sealed {
			a, b := strings.Split(many.plain, "\n"), strings.Split(one.plain, "\n")
			for i := range min(len(a), len(b)) {
				if a[i] != b[i] {
					t.Fatalf("line %d: got %.200q, want %.200q", i, a[i], b[i])
				}
			}
			t.Fatalf("got %d lines and %d sealed values, want %d and %d; replies equal: %t", len(a), many.sealed, len(b), one.sealed, many.reply == one.reply)
		}
	}
	if !slices.Contains(strings.Split(one.plain, "\n"), `{"delete":{"_index":"user","_id":"89"}}`) || one.sealed < 5000 {
		t.Fatalf("%d values were sealed", one.sealed)
	}
}

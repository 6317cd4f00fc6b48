package cluster

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

func TestUnsettled(t *testing.T) {
	const health = `{"status":"yellow","relocating_shards":0,"initializing_shards":0,"indices":{"i.x":{"number_of_shards":1}}}`
	const copyA = `{"routing":{"state":"STARTED","node":"a"},"translog":{"uncommitted_operations":0},"commit":{"user_data":{"local_checkpoint":"7","max_seq_no":"7"}},
		"seq_no":{"max_seq_no":7,"local_checkpoint":7,"global_checkpoint":7},"retention_leases":{"leases":[{"id":"peer_recovery/a"},{"id":"other/x"}]}}`
	stats := func(copies ...string) string {
		return `{"indices":{"i.x":{"shards":{"0":[` + strings.Join(copies, ",") + `]}}}}`
	}
	change := func(old, to string) string {
		out := strings.Replace(copyA, old, to, 1)
		if out == copyA {
			t.Fatalf("no %s in the copy", old)
		}
		return out
	}
	replica := change(`"node":"a"`, `"node":"b"`)
	for _, c := range []struct{ why, health, stats, want string }{
		{"one copy", health, stats(copyA), ""},
		{"two copies", health, stats(copyA, replica), ""},
		{"a missing primary", strings.Replace(health, "yellow", "red", 1), stats(copyA), "missing"},
		{"a copy is being made", strings.Replace(health, `initializing_shards":0`, `initializing_shards":1`, 1), stats(copyA), "on the move"},
		{"a shard did not answer", strings.Replace(health, `shards":1`, `shards":2`, 1), stats(copyA), "answered"},
		{"nothing answered", health, `{}`, "answered"},
		{"an operation in no commit", health, stats(change(`"local_checkpoint":"7"`, `"local_checkpoint":"6"`)), "in no commit"},
		{"one above a gap", health, stats(change(`"max_seq_no":"7"`, `"max_seq_no":"8"`)), "in no commit"},
		{"a replica without news", health, stats(copyA, strings.Replace(replica, `global_checkpoint":7`, `global_checkpoint":6`, 1)), "in no commit"},
		{"a translog that is played", health, stats(change(`operations":0`, `operations":1`)), "in no commit"},
		{"a copy that does not tell", health, stats(change(`"seq_no"`, `"x"`)), "not started"},
		{"a copy that starts", health, stats(change(`STARTED`, `INITIALIZING`)), "not started"},
		{"a copy that is away", health, stats(strings.Replace(copyA, `other/x`, `peer_recovery/b`, 1)), "away"},
	} {
		err := unsettled(gjson.Parse(c.health), gjson.Parse(c.stats))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", c.why, err, c.want)
		}
	}
}

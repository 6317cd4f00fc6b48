package cluster

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tidwall/gjson"
)

const (
	settleTries = 60
	settleWait  = time.Second
)

// settle flushes an index to which nothing writes until the last commit of each copy holds all its operations, so that
// none is ever played again through a script that is added now. A replica gets news of the checkpoint with some delay.
func (c *Cluster) settle(ctx context.Context, path string) error {
	why := errors.New("")
	for i := range settleTries {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(settleWait):
			}
		}
		reply, err := c.change(ctx, "it could not be flushed", http.MethodPost, path+"/_flush?force=true&wait_if_ongoing=true", "")
		if err != nil {
			return err
		}
		if gjson.GetBytes(reply, "_shards.failed").Int() > 0 {
			why = errors.New("not all copies of its shards could be flushed")
			continue
		}
		health, err := c.change(ctx, "its health could not be read", http.MethodGet, "/_cluster/health"+path+"?level=indices", "")
		if err != nil {
			return err
		}
		stats, err := c.change(ctx, "its shards could not be read", http.MethodGet, path+"/_stats/translog?level=shards", "")
		if err != nil {
			return err
		}
		if why = unsettled(gjson.ParseBytes(health), gjson.ParseBytes(stats)); why == nil {
			return nil
		}
	}
	return errors.New(why.Error() + "; nothing was changed, run setup again when the index is well")
}

// unsettled tells why operations of an index may be played again, nil when none will be. health and stats are the server's.
func unsettled(health, stats gjson.Result) (why error) {
	if health.Get("status").String() == "red" || health.Get("relocating_shards").Int() > 0 || health.Get("initializing_shards").Int() > 0 {
		return errors.New("some of its shards are missing or on the move")
	}
	shards, want := 0, int64(0)
	health.Get("indices").ForEach(func(_, index gjson.Result) bool {
		want += index.Get("number_of_shards").Int()
		return true
	})
	stats.Get("indices").ForEach(func(_, index gjson.Result) bool {
		index.Get("shards").ForEach(func(_, copies gjson.Result) bool {
			shards++
			if why = unsettledShard(copies.Array()); why != nil {
				return false
			}
			return true
		})
		return why == nil
	})
	if why == nil && int64(shards) != want {
		why = errors.New("not all of its shards answered")
	}
	return why
}

func unsettledShard(copies []gjson.Result) error {
	var nodes []string
	for _, s := range copies {
		nodes = append(nodes, s.Get("routing.node").String())
	}
	for _, s := range copies {
		last := s.Get("seq_no.max_seq_no")
		commit := s.Get("commit.user_data")
		switch {
		case s.Get("routing.state").String() != "STARTED" || !last.Exists():
			return errors.New("a copy of its shards is not started")
		case s.Get("seq_no.global_checkpoint").Int() != last.Int(),
			commit.Get("local_checkpoint").String() != last.String() || commit.Get("max_seq_no").String() != last.String(),
			s.Get("translog.uncommitted_operations").Int() != 0:
			return errors.New("a copy of its shards still has operations that are in no commit")
		}
		// A copy that is away comes back with what it has, and is played what it missed.
		for _, lease := range s.Get("retention_leases.leases").Array() {
			if node, ok := strings.CutPrefix(lease.Get("id").String(), "peer_recovery/"); ok && !slices.Contains(nodes, node) {
				return errors.New("a node that holds a copy of one of its shards is away; wait for it, or set number_of_replicas to what is there and back")
			}
		}
	}
	return nil
}

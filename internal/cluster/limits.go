package cluster

import (
	"context"
	"net/http"
	"time"

	"github.com/tidwall/gjson"
)

// defaultMaxContentLength is Elasticsearch's default of http.max_content_length.
const defaultMaxContentLength = 100 << 20

// MaxContentLength is the smallest http.max_content_length of the nodes, in bytes; 104857600 while it is not known.
// It is read every ten minutes, and after a failure every 30 seconds.
func (c *Cluster) MaxContentLength(ctx context.Context) int64 {
	if n, ok := c.length.get("", c.now()); ok {
		return n
	}
	n, keep := int64(defaultMaxContentLength), 30*time.Second
	status, reply, err := c.ask(ctx, c.own, http.MethodGet, "/_nodes/http?filter_path=nodes.*.http.max_content_length_in_bytes", nil, 8<<20)
	if err == nil && status == http.StatusOK && gjson.ValidBytes(reply) {
		least := int64(0)
		gjson.GetBytes(reply, "nodes").ForEach(func(_, node gjson.Result) bool {
			if l := node.Get("http.max_content_length_in_bytes").Int(); l > 0 && (least == 0 || l < least) {
				least = l
			}
			return true
		})
		if least > 0 {
			n, keep = least, 10*time.Minute
		}
	}
	if err != nil && ctx.Err() != nil {
		return n // says nothing about the cluster
	}
	c.length.put("", n, c.now().Add(keep))
	return n
}

package cluster

import (
	"context"
	"net/http"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// Read asks for path with GET, with the caller's credentials and after a 401 or 403 with the proxy's own; see rewrite.Cluster. It
// gives any other status with the body as it is. A cluster that does not answer is a 503 FaultLookup.
func (c *Cluster) Read(ctx context.Context, caller rewrite.Caller, path string, max int64) (int, []byte, error) {
	own := c.own
	if caller == nil {
		caller = own
	}
	status, body, err := c.ask(ctx, caller, http.MethodGet, path, nil, max)
	if err == nil && (status == http.StatusForbidden || status == http.StatusUnauthorized) && caller != own {
		status, body, err = c.ask(ctx, own, http.MethodGet, path, nil, max)
	}
	if err != nil {
		return 0, nil, lookupFailed(err)
	}
	return status, body, nil
}

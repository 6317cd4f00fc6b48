package proxy

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"

	"github.com/esproxy/esproxy/internal/rewrite"
)

// Credentials are the proxy's own for questions to the cluster. APIKey (as Elasticsearch encodes it) beats
// Username and Password; all empty: questions go without credentials.
type Credentials struct {
	Username, Password, APIKey string
}

func (c Credentials) header() http.Header {
	h := http.Header{}
	switch {
	case c.APIKey != "":
		h.Set("Authorization", "ApiKey "+c.APIKey)
	case c.Username != "":
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(c.Username+":"+c.Password)))
	}
	return h
}

// credentialFields say who a client is to Elasticsearch, and the id that it gave its request.
var credentialFields = [...]string{"Authorization", "Es-Security-Runas-User", "Es-Secondary-Authorization", "X-Opaque-Id"}

// caller fulfils rewrite.Caller over the node pool.
type caller struct {
	pool   *pool
	header http.Header                     // never changed; nil for a client
	client [len(credentialFields)][]string // the client's fields
}

// Own returns a caller that asks with the proxy's own credentials.
func (s *Server) Own() rewrite.Caller {
	return &caller{pool: s.pool, header: s.cfg.Own.header()}
}

// callerFor returns a caller that asks with the credentials in the client's header.
func (s *Server) callerFor(h http.Header) rewrite.Caller {
	c := &caller{pool: s.pool}
	for i, name := range credentialFields {
		c.client[i] = h[name]
	}
	return c
}

// credentials makes the header of a question; few requests ask one.
func (c *caller) credentials() http.Header {
	if c.header != nil {
		return c.header.Clone()
	}
	h := http.Header{}
	for i, name := range credentialFields {
		if c.client[i] != nil {
			h[name] = c.client[i]
		}
	}
	return h
}

// Do sends one request, with a body as application/json. A connection that fails gives a 502 fault.
func (c *caller) Do(ctx context.Context, method, path string, body []byte, max int64) (int, []byte, error) {
	out := &outgoing{method: method, target: path, header: c.credentials()}
	if len(body) > 0 {
		out.header.Set("Content-Type", plainJSON)
		out.data = body
	}
	resp, err := c.pool.do(ctx, out)
	if err != nil {
		if ctx.Err() != nil {
			return 0, nil, ctx.Err()
		}
		return 0, nil, faultUpstream("Elasticsearch did not answer a question that the proxy needed for this request; try again later", err)
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	if err != nil {
		return 0, nil, faultUpstream("Elasticsearch broke off its answer to a question that the proxy needed for this request; try again later", err)
	}
	if int64(len(reply)) > max {
		return 0, nil, errReplyTooLong
	}
	return resp.StatusCode, reply, nil
}

var errReplyTooLong = errors.New("the reply to a question is longer than allowed")

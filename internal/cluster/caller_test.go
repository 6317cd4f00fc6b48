package cluster_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// httpCaller is a rewrite.Caller over net/http with an optional Authorization header.
type httpCaller struct {
	base, auth string
	shrink     int64 // divides the limits of replies, so that tests of long ones stay quick; 0 for no change
	client     *http.Client
}

func newCaller(t *testing.T, base, auth string) *httpCaller {
	t.Helper()
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &httpCaller{base: base, auth: auth, client: &http.Client{Transport: tr}}
}

func (h *httpCaller) Do(ctx context.Context, method, path string, body []byte, max int64) (int, []byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, h.base+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if len(body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	if h.auth != "" {
		req.Header.Set("Authorization", h.auth)
	}
	resp, err := h.client.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	max /= cmp.Or(h.shrink, 1)
	b, err := io.ReadAll(io.LimitReader(resp.Body, max+1))
	if err != nil {
		return 0, nil, err
	}
	if int64(len(b)) > max {
		return 0, nil, errors.New("reply is too long")
	}
	return resp.StatusCode, b, nil
}

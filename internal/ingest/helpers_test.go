package ingest_test

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.uber.org/goleak"

	"github.com/esproxy/esproxy/internal/ingest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newHandlerServer starts a server and returns its address.
func newHandlerServer(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	srv := httptest.NewServer(h)
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(srv.Close)
	return srv.URL
}

func isRejected(err error) bool { return errors.Is(err, ingest.ErrRejected) }

// newPipe returns the two ends of standard input; both are closed at the end of the test.
func newPipe(t *testing.T) (*io.PipeReader, *io.PipeWriter) {
	t.Helper()
	r, w := io.Pipe()
	t.Cleanup(func() { _ = w.Close(); _ = r.Close() })
	return r, w
}

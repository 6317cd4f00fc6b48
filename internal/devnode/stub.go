//go:build nodevnode

package devnode

import (
	"errors"
	"net/http"
)

// Node is the embedded node. This build has none.
type Node struct{}

// New fails: this build has no embedded node.
func New(Options) (*Node, error) {
	return nil, errors.New("built without the embedded node (build tag nodevnode): use a real Elasticsearch")
}

// ServeHTTP answers 501.
func (*Node) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNotImplemented)
}

// Close does nothing.
func (*Node) Close() error { return nil }

//go:build nodevnode

package main

import (
	"errors"

	"github.com/spf13/cobra"
)

// newDemo is there to say why there is no demo.
func newDemo(environ) *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Not in this build: it has no embedded node", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("this build has no embedded node; run the demo from the source: go run ./cmd/esproxy demo")
		},
	}
}

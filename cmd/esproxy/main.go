// Command esproxy is a reverse proxy in front of Elasticsearch that seals the values a policy names
// in every write and opens them for callers with a grant. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
)

func main() {
	hardenProcess()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	code := run(ctx, os.Args[1:], environ{os.Stdin, os.Stdout, os.Stderr})
	stop()
	os.Exit(code)
}

// environ is what a command reads and writes: its result alone on out, everything else on err.
type environ struct {
	in       io.Reader
	out, err io.Writer
}

// Exit statuses.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// usageError marks mistakes in arguments and settings, which exit with status 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// run carries out one command line and returns the exit status.
func run(ctx context.Context, args []string, env environ) int {
	root := newRoot(env)
	root.SetArgs(args)
	root.SetIn(env.in)
	root.SetOut(env.out)
	root.SetErr(env.err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(env.err, "esproxy: %v\n", err)
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailure
}

func newRoot(env environ) *cobra.Command {
	root := &cobra.Command{
		Use:   "esproxy",
		Short: "A reverse proxy that seals fields on their way into Elasticsearch",
		Long: "esproxy stands in front of Elasticsearch. It seals the JSON values that a policy names in every write,\n" +
			"and gives plaintext back only to callers whose request carries a grant.\n\n" +
			"Settings come from the environment; flags of the same names stand over them. Secrets never come from flags.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(
		newServe(env), newCheck(env), newKeygen(env), newToken(env), newIngest(env), newGet(env),
		newExport(env), newOpen(env), newDoctor(env), newSetup(env), newDemo(env), newSampleAPI(env), newHealthcheck(env), newVersion(env),
	)
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		if !cmd.HasParent() {
			hint := ""
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				hint = "did you mean " + near[0] + "? "
			}
			return usagef("unknown command %q; %ssee esproxy --help", args[0], hint)
		}
		return usagef("unknown argument %q; see %s --help", args[0], cmd.CommandPath())
	}
	return nil
}

func newVersion(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(env.out, version())
			return err
		},
	}
}

// version tells the module's version, or the commit, from build information.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "devel-" + s.Value[:12]
		}
	}
	return "devel"
}

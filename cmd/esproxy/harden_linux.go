package main

import "golang.org/x/sys/unix"

// hardenProcess keeps keys and plaintext out of core dumps and away from debuggers of the same user. Failure is
// not fatal: a container may forbid the calls, and has no core files then.
func hardenProcess() {
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

//go:build !linux

package main

// hardenProcess does nothing where the system has no such calls; docs/operations.md says so.
func hardenProcess() {}

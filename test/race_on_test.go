//go:build race

package test

// raced tells that the race detector slows the tests down.
const raced = true

// Package config holds the annotated configuration files that ship with
// esproxy, built into the binary, so that a command works with no file beside
// it and the files people copy are the ones the program was tested with.
package config

import _ "embed"

// Ingest is config/ingest.yaml: the default mapping of `esproxy ingest`.
// Callers must not change it.
//
//go:embed ingest.yaml
var Ingest []byte

// Fields is config/fields.yaml: the default policy. Callers must not change it.
//
//go:embed fields.yaml
var Fields []byte

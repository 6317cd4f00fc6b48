// Package ingest moves records from a provider into Elasticsearch, through
// the proxy. It knows sources (an HTTP API in pages, a file, standard input), the
// mapping from the provider's members to document fields, and bulk
// requests. It knows no encryption: what it sends is plaintext, and the proxy
// seals it on the way.
//
// The idea: every record has an id of its own, which becomes the document's
// _id. Sending a record twice is therefore harmless, and everything else rests
// on that. A page that was cut is read again, a batch whose outcome is unknown is
// sent again, a run that was interrupted goes on a little before the place
// where it stopped. Records may be sent more than once, never skipped.
//
// One pass is three stages joined by channels: read and map (source.go,
// http.go, page.go, mapping.go), collect (pass.go), send (bulk.go). Batches
// are sent one at a time and no id is twice in one batch, so that of two records with
// one id the later one wins. Memory holds about three batches, whatever the source's size.
//
// Values of records never reach errors, logs, progress lines or the
// checkpoint. The dead-letter file holds a rejected record only after a [DeadLetterSealer] has sealed it.
package ingest

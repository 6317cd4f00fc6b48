// Package rewrite knows how Elasticsearch reads requests and writes replies.
//
// From method, path, query and headers alone Engine.Plan makes a Plan: which
// transform the bodies need, or none, or the refusal. The proxy carries the
// plan out and never looks inside a body. Documents are read by one strict pass
// over RFC 8259 JSON: what no rule names is copied as written, what a rule
// names is sealed, and what Elasticsearch might read differently than this
// package does is refused.
//
// # The way of a request
//
// plan.go finds the row of routes.tsv (route.go) and resolves the names that the
// request writes to or reads from (target.go). A bulk (bulk.go, bulk_item.go) is framed in
// lines.go, each action line read in action.go, each document in document.go, which finds the
// protected values and the subject by the compiled paths of paths.go and the scanner
// of scan.go; seal.go puts sealed values in their places. Updates (update.go) may need
// the stored document's subject, which known.go takes from earlier items of the same bulk
// and the cluster from the index; repeat.go carries out their retry_on_conflict. single.go
// does the same for requests of one document, control.go and admin.go for mappings, templates
// and pipelines, guard.go for constants in queries. Texts of ES|QL, SQL and EQL are cut into tokens in
// lang_lex.go and judged in lang.go and lang_expr.go, with the grammar of each in a file of its own.
// line.go looks at every request line, and passing.go at bodies that pass as they are: those of administration, of which
// members.tsv tells what is documented, and those where none belongs.
//
// # The way of a reply
//
// A reply is only read for a caller with a grant, or when the proxy refused items of a
// bulk. stream.go copies it while it is scanned; reply.go follows the endpoint's grammar
// from the root to the slots in which the server writes documents; hit.go finds sealed
// values and the subject in one hit, table.go in one row, open.go looks up subjects that are not in sight, and hand.go opens the
// values; crew.go shares the work on a long reply among goroutines. items.go puts refused items into a bulk's reply.
//
// # Borders
//
// The package sees readers, writers and strings; it knows neither net/http nor
// cryptography. What it needs of others (Sealer, Opener, Cluster, Caller, Viewer,
// Budget, Counter) it declares in engine.go.
package rewrite

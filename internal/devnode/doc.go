// Package devnode is a small Elasticsearch-compatible node in one process. It
// exists so that the demo and the tests need no server.
//
// Its one rule is honesty. What it supports, it answers as Elasticsearch 8.19
// does: same statuses, same members in the same order, same error texts where
// callers read them. What it does not support, it refuses with status 501 in
// Elasticsearch's error shape; it never guesses. The test cases in testdata
// were recorded from a real 8.19 server and run against both.
//
// A search sees every acknowledged write at once. The real server shows a
// write to searches after a refresh, at most one second later by default. The
// refresh parameter and the refresh endpoints are therefore accepted and have
// nothing left to do.
//
// Bleve holds the inverted index and, with a folder, the documents at rest:
// each document is stored with its source text, version and sequence number,
// so one bleve batch makes a write durable. Sources are also kept in memory;
// the node is meant for megabytes, not for gigabytes. Queries are taken apart
// here: bleve finds the documents of each leaf, this package combines them and
// computes the BM25 scores with Lucene's formula.
//
// The build tag nodevnode leaves bleve and the node out of a binary.
package devnode

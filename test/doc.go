// Package test runs the esproxy program, as it is built, between a client and a server, and looks at both sides.
//
// The server is the embedded node, or a real Elasticsearch when ESPROXY_TEST_ES_URL names one. Everything that the proxy
// sends to it goes through a recorder, so that tests can look for plaintext in all of it. Cases are text files in
// cases/; the format stands in cases_test.go. What Kibana and shippers send is in traffic/, see replay_test.go. Applications on the
// official clients are in clients/.
package test

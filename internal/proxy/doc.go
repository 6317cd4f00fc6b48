// Package proxy is the HTTP hop between clients and Elasticsearch.
//
// For each request it asks a Planner, from the head alone, what has to happen,
// and carries that plan out: bodies pass as they are, or run through the plan's
// transform inside a bounded amount of memory. It looks into no body. What it
// guards is the hop itself: the head that goes up is the head that came in, a
// request that failed half-way is cut and never ended cleanly, a write is never
// sent twice, and a reply that can't be finished is aborted, not shortened.
//
// Everything that a reload replaces is one immutable State behind an atomic
// pointer. A request keeps the State it began with.
package proxy

// Package admin is how people and programs look at a node's sidecar and give it orders: a Unix socket that only root can
// reach, and the same over mutual TLS for the other nodes and for an operator's machine.
//
// It promises to judge nothing. What it shows is taken from the newest turn of the loop (Backend.Snapshot), and what it is
// asked for becomes an order that the next turn weighs. It refuses requests it does not understand to the letter (unknown
// keys, trailing bytes, more than 4 KiB), every TLS version below 1.3, and peers whose key the cluster has not vouched for.
//
// # Routes, version 1
//
//	GET  /v1/status      200 Status; with ?everywhere=true the other members are asked what they do and what blocks them
//	GET  /v1/plan        200 Plan
//	GET  /v1/incidents   200 {"incidents": [Incident…]}
//	GET  /v1/ledger      200 Remembered
//	POST /v1/ledger/reseed  {"try":true}   200 Reseeded; tried, it writes nothing; the key may be left out
//	POST /v1/switchover  {"role":"lb","to":"lb2"}   202 Moving, once the order is given; "to" may be left out
//	POST /v1/pause       {"everywhere":true}         200 Pausing; the key may be left out
//	POST /v1/resume      {"everywhere":true}         200 Pausing
//	POST /v1/chaos       {"node":"web2","machine":"1004","seed":7}   200 Destroyed, once its power is cut; "dry_run":true changes
//	                                                 nothing, "apart":"1h" refuses what comes sooner after the last one
//	POST /v1/recover     {"node":"mail1","machine":"1004"}   200 Wished, once the ledger has it; "machine" may be left out where it
//	                                                 is plain, "try":true writes nothing
//	POST /v1/discard     {"node":"mail1","machine":"1004"}   200 Wished
//	POST /v1/access      {"for":"720h0m0s"}          200 application/x-pem-file: an operator's certificate, key and authority;
//	                                                 on the socket only
//	GET  /metrics        200 in Prometheus' text format (package admin/metrics lists them)
//	GET  /healthz        200 "ok" while the loop turns, else 503
//
// Everything else is application/problem+json (RFC 9457): {"title","status","detail"}. A 409 says that the order would be
// void now, a 503 that the sidecar has not looked around yet or has stopped doing so.
//
// The JSON is a promise: keys are added, never changed or taken away. Lists are empty, never null. Instants are RFC 3339,
// by the clock of the node that is asked. Durations are strings as Go's time.ParseDuration reads them: "350ms".
//
// # Mutual TLS
//
// Every node derives the same certificate authority from the cluster key and signs a certificate for itself with it, so
// that nothing has to be handed out or renewed among nodes; theirs are valid for ever, because a node's clock may be off
// when it is needed most. An operator's certificate is signed by the same authority, ends, and is no server's: it opens
// the API and cannot pose as a node. Whoever has the cluster key has all of this anyway.
package admin

// Package localcloud is a small cloud with DigitalOcean's API, so that the code which drives the real one can be
// run, tested and tormented on one Linux machine.
//
// It promises to answer as DigitalOcean answers: the same paths, envelopes, status codes, error bodies, headers and
// the same slowness of asynchronous actions, for that part of the API which a cluster manager uses. The measure is
// DigitalOcean's own OpenAPI description (https://github.com/digitalocean/openapi) and the godo client; the contract
// tests in tests/contract hold every request and response to both. Where the description is silent (metadata
// service, texts of 422 errors, eventual consistency) DigitalOcean's documentation and reports of its users are the
// source, and the comment at the place names it.
//
// It refuses what would make it lie: an endpoint it does not have is a 404 in DigitalOcean's error body, a droplet
// with an unknown image, size or region is not made, and destroying droplets by tag is refused on purpose, because
// nothing in this project may ever ask for it.
//
// One Server owns all records behind one mutex. Power and disks are a Backend's: Memory keeps machines in memory,
// package nspawn boots real systemd nodes. Faults that a real cloud shows (see Fault) act between the network and the
// records, so they work with every backend. Besides the API the server offers the link-local metadata service and
// an authoritative DNS server for the zones made through the domains API.
package localcloud

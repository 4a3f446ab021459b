// Package secrets keeps what a cluster must not show: the sealed bundle, the files Puppet needs of it, and the way a
// new node comes to the key that opens it.
package secrets

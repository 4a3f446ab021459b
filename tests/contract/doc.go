// Package contract holds promises to others that a test can check from outside: that the local cloud speaks
// DigitalOcean's API. It has no code of its own.
package contract

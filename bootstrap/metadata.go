package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

// maxMetadata bounds one answer; user data has at most 64 KiB at DigitalOcean.
const maxMetadata = 128 << 10

// errNoMetadata says that the machine has no metadata service, by configuration.
var errNoMetadata = errors.New("no metadata service is configured")

// metadata is the provider's word on this machine: plain-text leaves below a base URL, readable without
// credentials, as at DigitalOcean (https://docs.digitalocean.com/reference/api/metadata/).
type metadata struct {
	base   string
	client *http.Client
}

// newMetadata uses no proxy: the address is link-local and means this very machine.
func newMetadata(base string) metadata {
	return metadata{base: base, client: &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			ResponseHeaderTimeout: 3 * time.Second,
			DisableCompression:    true,
		},
	}}
}

// get returns one leaf. A leaf that does not exist is empty; an error means that the service cannot be
// asked now.
func (m metadata) get(ctx context.Context, leaf string) (string, error) {
	if m.base == "" {
		return "", errNoMetadata
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.base+"/"+leaf, nil)
	if err != nil {
		return "", fmt.Errorf("ask the metadata service for %s: %w", leaf, err)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return "", fmt.Errorf("ask the metadata service for %s: %w", leaf, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("ask the metadata service for %s: %w", leaf, err)
	case resp.StatusCode == http.StatusNotFound:
		return "", nil
	case resp.StatusCode != http.StatusOK:
		return "", fmt.Errorf("ask the metadata service for %s: %s", leaf, resp.Status)
	case len(body) > maxMetadata:
		return "", fmt.Errorf("ask the metadata service for %s: answer above %d bytes", leaf, maxMetadata)
	}
	return string(body), nil
}

// line returns a leaf that is one word.
func (m metadata) line(ctx context.Context, leaf string) (string, error) {
	text, err := m.get(ctx, leaf)
	return strings.TrimSpace(text), err
}

// close drops kept connections.
func (m metadata) close() { m.client.CloseIdleConnections() }

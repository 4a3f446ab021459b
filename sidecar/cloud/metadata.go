package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"
)

// Bounds of the metadata service. User data, which is part of its document, has at most 64 KiB at DigitalOcean, and JSON
// may spell a byte of it with six.
const (
	metadataTimeout = 2 * time.Second
	maxMetadata     = 512 << 10
)

// Self is what a machine's metadata service says of the machine that asks. It needs no token, and any local process can read
// it. Invalid addresses: the machine has none such.
type Self struct {
	ID       string
	Hostname string // as the machine was created; the node may have another name
	Region   string
	Private  netip.Addr
	Public   netip.Addr
	// Anchor is the machine's own address at which traffic for a reserved address arrives.
	Anchor netip.Addr
	// ReservedActive says whether a reserved address leads to this machine, and Reserved which one.
	ReservedActive bool
	Reserved       netip.Addr
}

// metadataDocument is the part that we read of what DigitalOcean serves as /metadata/v1.json:
// https://docs.digitalocean.com/reference/api/metadata/. Unknown members are none of our business.
type metadataDocument struct {
	ID         int64  `json:"droplet_id"`
	Hostname   string `json:"hostname"`
	Region     string `json:"region"`
	Interfaces struct {
		Public  []metadataInterface `json:"public"`
		Private []metadataInterface `json:"private"`
	} `json:"interfaces"`
	// The same thing under its present and its former name; services that know only one of them exist.
	Reserved *metadataReserved `json:"reserved_ip"`
	Floating *metadataReserved `json:"floating_ip"`
}

type metadataInterface struct {
	IPv4   metadataAddress `json:"ipv4"`
	Anchor metadataAddress `json:"anchor_ipv4"`
}

type metadataAddress struct {
	Address string `json:"ip_address"`
}

type metadataReserved struct {
	IPv4 struct {
		Active  bool   `json:"active"`
		Address string `json:"ip_address"`
	} `json:"ipv4"`
}

// ReadMetadata asks the metadata service, whose base is an URL such as "http://169.254.169.254/metadata/v1", about this
// machine. It takes one request, so that what it says belongs together. It uses no proxy and follows no redirect: the
// address is link-local and means this very machine. An answer without an ID is an error.
func ReadMetadata(ctx context.Context, base string) (Self, error) {
	data, err := fetchMetadata(ctx, base+".json")
	if err != nil {
		return Self{}, fmt.Errorf("ask the metadata service: %w", err)
	}
	s, err := parseMetadata(data)
	if err != nil {
		return Self{}, fmt.Errorf("ask the metadata service: %w", err)
	}
	return s, nil
}

func fetchMetadata(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, metadataTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	client := &http.Client{
		// A connection of its own each time: a kept one may lead nowhere after the machine was paused or moved.
		Transport: &http.Transport{
			DialContext: (&net.Dialer{Timeout: metadataTimeout}).DialContext, DisableKeepAlives: true, DisableCompression: true,
			MaxResponseHeaderBytes: 16 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("got %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxMetadata+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxMetadata:
		return nil, fmt.Errorf("answer above %d bytes", maxMetadata)
	}
	return data, nil
}

// parseMetadata reads the document. Every address is IPv4, or missing.
func parseMetadata(data []byte) (Self, error) {
	var d metadataDocument
	if err := json.Unmarshal(data, &d); err != nil {
		return Self{}, fmt.Errorf("read the answer: %w", err)
	}
	if d.ID <= 0 {
		return Self{}, errors.New("the answer has no droplet_id")
	}
	s := Self{ID: strconv.FormatInt(d.ID, 10), Hostname: d.Hostname, Region: d.Region}
	var errs []error
	address := func(to *netip.Addr, what, text string) {
		if text == "" {
			return
		}
		a, err := netip.ParseAddr(text)
		if err != nil || !a.Is4() {
			errs = append(errs, fmt.Errorf("%s %q is no IPv4 address", what, cut(text)))
			return
		}
		*to = a
	}
	if len(d.Interfaces.Public) > 0 {
		address(&s.Public, "public address", d.Interfaces.Public[0].IPv4.Address)
		address(&s.Anchor, "anchor address", d.Interfaces.Public[0].Anchor.Address)
	}
	if len(d.Interfaces.Private) > 0 {
		address(&s.Private, "private address", d.Interfaces.Private[0].IPv4.Address)
	}
	for _, r := range []*metadataReserved{d.Reserved, d.Floating} {
		if r != nil {
			s.ReservedActive = r.IPv4.Active
			if r.IPv4.Active {
				address(&s.Reserved, "reserved address", r.IPv4.Address)
			}
			break
		}
	}
	if err := errors.Join(errs...); err != nil {
		return Self{}, err
	}
	return s, nil
}

// cut keeps foreign text in an error short.
func cut(text string) string {
	const most = 60
	if len(text) > most {
		return text[:most] + "…"
	}
	return text
}

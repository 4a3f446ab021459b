package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"understudy/bootstrap/role"
)

// maxNeedBody bounds how much of an answer is searched; the Packages file of all of Debian has 50 MB.
const maxNeedBody = 64 << 20

// needs asks for what other roles must provide before our first Puppet run. Waiting here is better than a
// loop of failed runs: it costs nothing, and it says what is missing.
func needs(ctx context.Context, b *boot) (string, error) {
	b.letSidecarBegin()
	if len(b.self.Needs) == 0 {
		return "none", nil
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DialContext:           (&net.Dialer{Timeout: 3 * time.Second}).DialContext,
		ResponseHeaderTimeout: 10 * time.Second,
		DisableKeepAlives:     true,
	}}
	for _, n := range b.self.Needs {
		err := met(ctx, client, n)
		if err == nil {
			continue
		}
		waiting := fmt.Errorf("waiting for %s from %s (%w)", n.What, host(n.HTTP), err)
		if b.noop {
			return waiting.Error(), nil
		}
		return "", retry(exitNeeds, waiting, fmt.Sprintf("see whether role %s is well, and whether it has %s", n.Role, n.What))
	}
	return fmt.Sprintf("%d met", len(b.self.Needs)), nil
}

func host(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Host != "" {
		return u.Host
	}
	return raw
}

// met asks once. Its error says in a few words what the answer was.
func met(ctx context.Context, client *http.Client, n role.Need) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.HTTP, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // without the URL, which the message names already
		}
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return errors.New(resp.Status)
	}
	found, err := contains(io.LimitReader(resp.Body, maxNeedBody), []byte(n.Contains))
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("%s, without %q", resp.Status, n.Contains)
	}
	return nil
}

// contains searches a stream without keeping it.
func contains(r io.Reader, want []byte) (bool, error) {
	const block = 32 << 10
	buf := make([]byte, 0, block+len(want))
	for {
		n, err := r.Read(buf[len(buf) : len(buf)+block])
		buf = buf[:len(buf)+n]
		if bytes.Contains(buf, want) {
			return true, nil
		}
		if errors.Is(err, io.EOF) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		keep := min(len(buf), max(0, len(want)-1)) // the text may lie across two reads
		buf = buf[:copy(buf, buf[len(buf)-keep:])]
	}
}

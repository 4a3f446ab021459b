package digitalocean

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"understudy/sidecar/cloud"
	"understudy/sidecar/cluster"
)

// AssignAddress asks for the move with one POST. DigitalOcean refuses to give an address to the machine that has it, in the
// words it has for one that has another address, and says 404 for a missing address as for a missing machine; so a refusal is
// looked into before it is reported.
func (c *Client) AssignAddress(ctx context.Context, ip netip.Addr, id string) error {
	if err := c.assign(ctx, ip, id); err != nil {
		return fmt.Errorf("assign %s to machine %s: %w", ip, id, err)
	}
	return nil
}

func (c *Client) assign(ctx context.Context, ip netip.Addr, id string) error {
	n, err := number(id)
	if err != nil {
		return err
	}
	if err := checkReserved(ip); err != nil {
		return err
	}
	_, _, err = c.api.ReservedIPActions.Assign(ctx, ip.String(), n)
	switch {
	case isGone(err):
		return c.whoIsGone(ctx, id, err)
	case refusedAs(err, "pending event"):
		return explain(err)
	case refusedAs(err, ""):
		return c.hasAlready(ctx, ip, id, err)
	case err != nil:
		return explain(err)
	}
	return nil
}

// whoIsGone tells a missing machine, which is ErrGone, from a missing address, which takes a human.
func (c *Client) whoIsGone(ctx context.Context, id string, refused error) error {
	m, err := c.get(ctx, id)
	switch {
	case err != nil:
		return errors.Join(refused, err)
	case m.Power == cluster.PowerGone:
		return fmt.Errorf("%w: %w", cloud.ErrGone, refused)
	}
	return fmt.Errorf("the account has no such address: %w", refused)
}

// hasAlready tells the machine that has this address, which is what was wanted, from one that has another, and from other
// reasons, such as another region. The register counts for more than the words of the refusal.
func (c *Client) hasAlready(ctx context.Context, ip netip.Addr, id string, refused error) error {
	h, err := c.Holder(ctx, ip)
	switch {
	case err != nil:
		return errors.Join(refused, err)
	case h.Machine == id && !h.Pending:
		return nil
	case h.Pending:
		return fmt.Errorf("%w: %w", cloud.ErrPending, refused)
	case refusedAs(refused, "already has a"):
		return fmt.Errorf("%w: %w", cloud.ErrHolds, refused)
	}
	return refused
}

// Holder reads the provider's register.
func (c *Client) Holder(ctx context.Context, ip netip.Addr) (cluster.AddressHolder, error) {
	h, err := c.holder(ctx, ip)
	if err != nil {
		return cluster.AddressHolder{}, fmt.Errorf("ask who holds %s: %w", ip, err)
	}
	return h, nil
}

func (c *Client) holder(ctx context.Context, ip netip.Addr) (cluster.AddressHolder, error) {
	if err := checkReserved(ip); err != nil {
		return cluster.AddressHolder{}, err
	}
	r, _, err := c.api.ReservedIPs.Get(ctx, ip.String())
	switch {
	case err != nil:
		return cluster.AddressHolder{}, explain(err)
	case r == nil || r.IP != ip.String():
		return cluster.AddressHolder{}, errors.New("the answer is about another address")
	}
	h := cluster.AddressHolder{Pending: r.Locked}
	if r.Droplet != nil {
		if r.Droplet.ID <= 0 {
			return cluster.AddressHolder{}, fmt.Errorf("a machine has the ID %d", r.Droplet.ID)
		}
		h.Machine = strconv.Itoa(r.Droplet.ID)
	}
	return h, nil
}

// checkReserved refuses IPv6: DigitalOcean's reserved IPv6 addresses have an API of their own and no anchor.
func checkReserved(ip netip.Addr) error {
	if !ip.Is4() {
		return fmt.Errorf("reserved address %s: %w here: only IPv4", ip, errors.ErrUnsupported)
	}
	return nil
}

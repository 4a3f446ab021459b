package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"

	mdns "github.com/miekg/dns"

	"understudy/sidecar/cluster"
)

// maxAnswers bounds the records that one answer may have: more than fit into a message cannot come, and a name with a
// thousand addresses is not what we publish, but must be readable, or it could never be put right.
const maxAnswers = 4096

// conversation is one TCP connection to the zone's server, on which one question follows the other.
type conversation struct {
	server *Server
	conn   net.Conn
}

// talk runs f on a connection that ends with the timeout, with ctx, and when f returns.
func (s *Server) talk(ctx context.Context, f func(*conversation) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	conn, err := s.cfg.Dial(ctx, "tcp", s.cfg.Server)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // nothing is buffered
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	err = f(&conversation{s, conn})
	if err != nil && ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}

// published asks for every RRset of the names that may be ours.
func (c *conversation) published(names []string) ([]published, error) {
	var all []published
	for _, name := range names {
		for _, kind := range []uint16{mdns.TypeA, mdns.TypeAAAA, mdns.TypeMX} {
			found, err := c.ask(c.server.absolute(name), kind)
			if err != nil {
				return nil, err
			}
			for _, rr := range found {
				r, err := record(name, rr)
				if err != nil {
					return nil, err
				}
				all = append(all, published{r, rr.Header().Ttl})
			}
		}
	}
	return all, nil
}

// record reads an A, AAAA or MX record.
func record(name string, rr mdns.RR) (cluster.Record, error) {
	r := cluster.Record{Name: name, Type: mdns.TypeToString[rr.Header().Rrtype]}
	var ip net.IP
	switch rr := rr.(type) {
	case *mdns.A:
		ip = rr.A
	case *mdns.AAAA:
		ip = rr.AAAA
	case *mdns.MX:
		r.Value, r.Pref = strings.ToLower(rr.Mx), int(rr.Preference)
		return r, nil
	}
	a, ok := netip.AddrFromSlice(ip)
	if !ok {
		return cluster.Record{}, fmt.Errorf("%s: an %s record without an address", name, r.Type)
	}
	if r.Type == "A" {
		a = a.Unmap()
	}
	r.Value = a.String()
	return r, nil
}

// ask reads one RRset from the authority. No such name and no such set are both empty, and only those.
func (c *conversation) ask(name string, kind uint16) ([]mdns.RR, error) {
	q := new(mdns.Msg).SetQuestion(name, kind)
	q.RecursionDesired = false
	answer, err := c.exchange(q)
	if err != nil {
		return nil, err
	}
	what := name + " " + mdns.TypeToString[kind]
	switch {
	case answer.Rcode != mdns.RcodeSuccess && answer.Rcode != mdns.RcodeNameError:
		return nil, fmt.Errorf("ask for %s: %w", what, c.server.refused(answer))
	case !answer.Authoritative:
		return nil, fmt.Errorf("ask for %s: the answer is not the authority's; is the name delegated, or the server not the zone's?", what)
	case answer.Truncated || len(answer.Answer) > maxAnswers:
		return nil, fmt.Errorf("ask for %s: the answer is too large", what)
	}
	var found []mdns.RR
	for _, rr := range answer.Answer {
		h := rr.Header()
		if mdns.CanonicalName(h.Name) != name || h.Class != mdns.ClassINET {
			continue // what an alias leads to
		}
		switch h.Rrtype {
		case kind:
			found = append(found, rr)
		case mdns.TypeCNAME:
			// A server ignores, without a word, an address that is added beside an alias (RFC 2136, 3.4.2.2).
			return nil, fmt.Errorf("%s is an alias (CNAME), which we did not make; delete it to let us publish the name", name)
		}
	}
	return found, nil
}

// exchange signs and sends m and returns the answer to it, its signature checked. An answer that refuses may be unsigned; it
// is returned as an error.
func (c *conversation) exchange(m *mdns.Msg) (*mdns.Msg, error) {
	m.SetTsig(c.server.key, mdns.Fqdn(c.server.cfg.Algorithm), fudge, c.server.cfg.Now().Unix())
	// Not mdns.Conn.WriteMsg: it signs the second question on a connection as if it were part of the first.
	sent, mac, err := mdns.TsigGenerate(m, c.server.cfg.Secret.Reveal(), "", false)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	if err := send(c.conn, sent); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	raw, err := receive(c.conn)
	if err != nil {
		return nil, fmt.Errorf("wait for the answer: %w", err)
	}
	answer, err := parseAnswer(m, raw)
	if err != nil {
		return nil, err
	}
	if err := c.server.verify(raw, answer, mac); err != nil {
		return nil, err
	}
	return answer, nil
}

// parseAnswer reads a message and checks that it answers m.
func parseAnswer(m *mdns.Msg, raw []byte) (*mdns.Msg, error) {
	answer := new(mdns.Msg)
	if err := answer.Unpack(raw); err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if !answer.Response || answer.Id != m.Id || answer.Opcode != m.Opcode {
		return nil, errors.New("the answer is to something else")
	}
	// A server need not repeat the zone of an update, nor anything in a refusal.
	for _, q := range answer.Question {
		asked := m.Question[0]
		if mdns.CanonicalName(q.Name) != mdns.CanonicalName(asked.Name) || q.Qtype != asked.Qtype || q.Qclass != asked.Qclass {
			return nil, errors.New("the answer is to another question")
		}
	}
	return answer, nil
}

// send writes a message with its length before it (RFC 1035, 4.2.2), in one piece (RFC 7766, 8).
func send(conn net.Conn, message []byte) error {
	if len(message) > mdns.MaxMsgSize {
		return fmt.Errorf("a message of %d bytes is more than DNS allows", len(message))
	}
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(message)+2), uint16(len(message))), message...))
	return err
}

func receive(conn net.Conn) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	message := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(conn, message)
	return message, err
}

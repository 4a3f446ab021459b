package dns

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	mdns "github.com/miekg/dns"

	"understudy/bootstrap/secrets"
	"understudy/sidecar/boottime"
	"understudy/sidecar/cluster"
)

// defaultTimeout is how long one Read or Update may take, connection and all its questions together.
const defaultTimeout = 10 * time.Second

// maxRemovals is how many records one update removes at most, so that the message stays far below the 64 KiB that DNS allows.
// Whatever is left over is in the next reading, and goes then.
const maxRemovals = 500

// ServerConfig is a zone that takes updates by RFC 2136.
type ServerConfig struct {
	// Server is the zone's primary, "host:port".
	Server string
	// Zone is the zone's name.
	Zone string
	// Own are the names that Read asks for, relative to the zone.
	Own []string
	// Guard is the name of the guard record, relative to the zone. Empty: "_understudy". Clusters that share a zone must have
	// one each.
	Guard string
	// Key is the name of the TSIG key, Algorithm "hmac-sha256", "hmac-sha384" or "hmac-sha512", Secret its secret in base64.
	Key       string
	Algorithm string
	Secret    secrets.Secret
	// TTL is that of the records we write, 30 s to a day. Zero: DefaultTTL.
	TTL time.Duration
	// Timeout is how long one Read or Update may take. Zero: 10 s.
	Timeout time.Duration
	// Now is the wall clock to sign with. Nil: this machine's. It exists because signatures hold for five minutes only, and
	// whoever learns from a ClockError, or from the clocks of others, that this machine's is off can set it right for us.
	Now func() time.Time
	// Dial opens the connection. Nil: an ordinary one.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Server is a zone at a name server that takes updates.
//
// It talks TCP only, which every server has to offer (RFC 7766): there is no truncation, no answer from a forged address, and
// one connection serves all questions of a reading. It signs its questions, too, so that no answer it acts upon can come from
// anybody without the key, and it reads RRset by RRset, because a zone transfer is rarely allowed to the key that may update.
type Server struct {
	cfg   ServerConfig
	zone  string // absolute, as are the next two
	guard string
	key   string
}

var _ Zone = (*Server)(nil)

// NewRFC2136 checks the configuration and asks nothing yet. Every problem is reported at once.
func NewRFC2136(cfg ServerConfig) (*Server, error) {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	cfg.Zone, cfg.Key = strings.TrimSuffix(cfg.Zone, "."), strings.TrimSuffix(cfg.Key, ".")
	if cfg.Guard == "" {
		cfg.Guard = "_understudy"
	}
	if _, port, err := net.SplitHostPort(cfg.Server); err != nil || port == "" {
		bad("server %q: must be host:port", cfg.Server)
	}
	if cfg.Zone == "" || !plain(cfg.Zone) {
		bad("zone %q: must be a domain name in lower case", cfg.Zone)
	}
	if cfg.Guard == "@" || !plain(cfg.Guard) || strings.HasSuffix(cfg.Guard, ".") {
		bad("guard %q: must be a name relative to the zone", cfg.Guard)
	}
	if _, ok := mdns.IsDomainName(cfg.Key); !ok || cfg.Key == "" {
		bad("key %q: must be a domain name", cfg.Key)
	}
	if !slices.Contains([]string{"hmac-sha256", "hmac-sha384", "hmac-sha512"}, cfg.Algorithm) {
		bad("algorithm %q: must be hmac-sha256, hmac-sha384 or hmac-sha512", cfg.Algorithm)
	}
	_, err := base64.StdEncoding.DecodeString(cfg.Secret.Reveal())
	if err != nil || cfg.Secret.IsZero() {
		bad("secret of %s: must be base64 and not empty", cfg.Key)
	}
	cfg.TTL, err = checkTTL(cfg.TTL)
	errs = append(errs, err, checkNames(cfg.Own))
	if cfg.Timeout < 0 {
		bad("timeout %v: must not be negative", cfg.Timeout)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("rfc2136: %w", err)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = defaultTimeout
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Dial == nil {
		cfg.Dial = (&net.Dialer{}).DialContext
	}
	s := &Server{cfg: cfg, zone: mdns.Fqdn(cfg.Zone), key: mdns.CanonicalName(cfg.Key)}
	s.guard = s.absolute(cfg.Guard)
	return s, nil
}

// Read asks for every RRset of the names in the configuration, and for the guard.
func (s *Server) Read(ctx context.Context) (Reading, error) {
	r := Reading{Sent: boottime.Now()}
	err := s.talk(ctx, func(c *conversation) error {
		var err error
		if r.Epoch, err = c.epoch(); err != nil {
			return err
		}
		found, err := c.published(s.cfg.Own)
		r.Records = records(found)
		return err
	})
	if err != nil {
		return Reading{}, fmt.Errorf("read %s at %s: %w", s.cfg.Zone, s.cfg.Server, err)
	}
	return r, nil
}

// Update sends one message that has the guard as its prerequisite, and in which the server does all or nothing.
func (s *Server) Update(ctx context.Context, change Change) error {
	err := change.validate()
	if err == nil {
		err = s.talk(ctx, func(c *conversation) error { return c.update(change) })
	}
	if err != nil {
		return fmt.Errorf("publish in %s at %s: %w", s.cfg.Zone, s.cfg.Server, err)
	}
	return nil
}

// absolute is the full name of one relative to the zone.
func (s *Server) absolute(name string) string {
	if name == "@" {
		return s.zone
	}
	return name + "." + s.zone
}

// published is an RRset as it was read.
type published struct {
	cluster.Record
	ttl uint32
}

func records(found []published) []cluster.Record {
	all := make([]cluster.Record, 0, len(found))
	for _, f := range found {
		all = append(all, f.Record)
	}
	return sorted(all)
}

// update reads what is there and sends what makes it what is wanted.
func (c *conversation) update(change Change) error {
	epoch, err := c.epoch()
	if err != nil {
		return err
	}
	if epoch > change.Epoch {
		return fmt.Errorf("epoch %d is there, ours is %d: %w", epoch, change.Epoch, ErrSuperseded)
	}
	found, err := c.published(change.Own)
	if err != nil {
		return err
	}
	m := c.server.message(epoch, change, found)
	if m == nil {
		return nil
	}
	answer, err := c.exchange(m)
	if err != nil {
		return err
	}
	switch answer.Rcode {
	case mdns.RcodeSuccess:
		return nil
	case mdns.RcodeNXRrset, mdns.RcodeYXRrset, mdns.RcodeNameError, mdns.RcodeYXDomain:
		return c.lost(change.Epoch)
	}
	return c.server.refused(answer)
}

// lost says to whom: the guard was not what we had read.
func (c *conversation) lost(ours uint64) error {
	epoch, err := c.epoch()
	if err != nil {
		return errors.Join(ErrRaced, err)
	}
	if epoch > ours {
		return fmt.Errorf("epoch %d is there, ours is %d: %w", epoch, ours, ErrSuperseded)
	}
	return ErrRaced
}

// message makes the update, nil if the zone is as it should be and the guard is ours.
func (s *Server) message(epoch uint64, change Change, found []published) *mdns.Msg {
	seconds := uint32(s.cfg.TTL / time.Second)
	right := map[cluster.Record]bool{}
	for _, f := range found {
		right[f.Record] = f.ttl == seconds
	}
	var add, remove []mdns.RR
	for _, r := range change.Want {
		if !right[r] {
			add = append(add, s.rr(r, seconds))
		}
	}
	for _, r := range stale(records(found), change.Want) {
		if len(remove) < maxRemovals {
			remove = append(remove, s.rr(r, 0))
		}
	}
	if epoch == change.Epoch && len(add)+len(remove) == 0 {
		return nil
	}
	m := new(mdns.Msg).SetUpdate(s.zone)
	m.Compress = true
	s.setGuard(m, epoch, change.Epoch)
	m.Insert(add)
	m.Remove(remove)
	return m
}

// rr writes a record that has been checked.
func (s *Server) rr(r cluster.Record, seconds uint32) mdns.RR {
	h := mdns.RR_Header{Name: s.absolute(r.Name), Class: mdns.ClassINET, Ttl: seconds}
	switch r.Type {
	case "A":
		h.Rrtype = mdns.TypeA
		return &mdns.A{Hdr: h, A: net.ParseIP(r.Value)}
	case "AAAA":
		h.Rrtype = mdns.TypeAAAA
		return &mdns.AAAA{Hdr: h, AAAA: net.ParseIP(r.Value)}
	case "MX":
		h.Rrtype = mdns.TypeMX
		return &mdns.MX{Hdr: h, Preference: uint16(r.Pref), Mx: r.Value}
	}
	panic("dns: a record of type " + r.Type + " was not refused")
}

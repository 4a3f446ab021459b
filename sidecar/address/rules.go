//go:build linux

package address

import (
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// early is before everything else that looks at packets, connection tracking and the "raw" tables included
// (linux/netfilter_ipv4.h: raw is -300), so that what is dropped leaves no trace and is not translated.
const early = -310

// rules writes the chains. As nft shows them:
//
//	chain in { type filter hook prerouting priority -310
//	    ip daddr @gated4 fib daddr type local goto in4
//	    ip6 daddr @gated6 fib daddr type local goto in6 }
//	chain in4 {
//	    tcp flags & (fin|syn|rst|ack) == syn ip daddr @draining4 counter drop
//	    ip daddr @open4 accept; ip daddr @open4 accept; counter drop }
//	chain out { type filter hook output priority -310
//	    ip saddr @gated4 goto out4
//	    ip6 saddr @gated6 goto out6
//	    icmpv6 type nd-neighbor-advert icmpv6 taddr @advertised goto advertise }
//
// and the ARP sender's address likewise in the arp family's output and in the egress of each address's interface.
// A packet to an address that is not local (fib) is being forwarded, or is nobody's.
func (t *table) rules(conn *nftables.Conn, specs []Spec) {
	w := writer{conn}
	in := w.base(t.inet, "in", nftables.ChainHookPrerouting, "")
	out := w.base(t.inet, "out", nftables.ChainHookOutput, "")
	for _, v := range []struct {
		family                byte
		gated, open, draining *nftables.Set
		to, from              expr.Any
		in, out               string
	}{
		{unix.NFPROTO_IPV4, t.gated4, t.open4, t.draining4, load(network, 16, 4), load(network, 12, 4), "in4", "out4"},
		{unix.NFPROTO_IPV6, t.gated6, t.open6, t.draining6, load(network, 24, 16), load(network, 8, 16), "in6", "out6"},
	} {
		gate := w.chain(t.inet, v.in)
		w.rule(gate, ofFamily(v.family), newConnection(), is(v.to, v.draining), counted(), verdict(expr.VerdictDrop))
		w.passIf(gate, ofFamily(v.family), v.to, v.open)
		w.rule(in, ofFamily(v.family), is(v.to, v.gated), toThisMachine(), goTo(gate))
		gate = w.chain(t.inet, v.out)
		w.passIf(gate, ofFamily(v.family), v.from, v.open)
		w.rule(out, ofFamily(v.family), is(v.from, v.gated), goTo(gate))
	}
	// RFC 4861 section 4.4: the target is 8 bytes into the message. Its sender may be another address of the machine.
	target := load(expr.PayloadBaseTransportHeader, 8, 16)
	gate := w.chain(t.inet, "advertise")
	w.passIf(gate, neighbourAdvertisement(), target, t.open6)
	w.rule(out, neighbourAdvertisement(), is(target, t.advertised), goTo(gate))

	// RFC 826: the sender's IPv4 address is 14 bytes into the message, on Ethernet.
	sender := load(network, 14, 4)
	gate = w.chain(t.arp, "answer")
	w.passIf(gate, nil, sender, t.arpOpen)
	w.rule(w.base(t.arp, "out", arpOutput, ""), is(sender, t.arpGated), goTo(gate))

	gate = w.chain(t.netdev, "announce")
	w.passIf(gate, ofProtocol(unix.ETH_P_ARP), sender, t.devOpen)
	for _, device := range arpInterfaces(specs) {
		out := w.base(t.netdev, "out-"+device, nftables.ChainHookEgress, device)
		w.rule(out, ofProtocol(unix.ETH_P_ARP), is(sender, t.devGated), goTo(gate))
	}
}

// arpInterfaces are the interfaces of IPv4 link addresses, each once.
func arpInterfaces(specs []Spec) []string {
	var names []string
	for _, s := range specs {
		if s.Link.IsValid() && s.Link.Addr().Is4() {
			names = append(names, s.Interface)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// network is where the offsets of IP's and ARP's headers count from.
const network = expr.PayloadBaseNetworkHeader

// arpOutput is NF_ARP_OUT of linux/netfilter_arp.h.
var arpOutput = nftables.ChainHookRef(1)

// writer adds chains and rules to a batch.
type writer struct{ conn *nftables.Conn }

func (w writer) base(t *nftables.Table, name string, hook *nftables.ChainHook, device string) *nftables.Chain {
	return w.conn.AddChain(&nftables.Chain{
		Table: t, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: nftables.ChainPriorityRef(early), Device: device,
	})
}

func (w writer) chain(t *nftables.Table, name string) *nftables.Chain {
	return w.conn.AddChain(&nftables.Chain{Table: t, Name: name})
}

func (w writer) rule(c *nftables.Chain, parts ...[]expr.Any) {
	w.conn.AddRule(&nftables.Rule{Table: c.Table, Chain: c, Exprs: slices.Concat(parts...)})
}

// passIf ends a chain: what is in the set passes, all else is dropped. It asks twice, see the package's comment. The kind of
// packet is known already where the chain is entered; it is said again for nft, which names the field only then.
func (w writer) passIf(c *nftables.Chain, kind []expr.Any, field expr.Any, open *nftables.Set) {
	w.rule(c, kind, is(field, open), verdict(expr.VerdictAccept))
	w.rule(c, kind, is(field, open), verdict(expr.VerdictAccept))
	w.rule(c, counted(), verdict(expr.VerdictDrop))
}

// reg is the register that all rules use (nft_register of linux/netfilter/nf_tables.h: 16 bytes).
const reg = unix.NFT_REG_1

func load(base expr.PayloadBase, offset, length uint32) expr.Any {
	return &expr.Payload{DestRegister: reg, Base: base, Offset: offset, Len: length}
}

func is(field expr.Any, in *nftables.Set) []expr.Any {
	return []expr.Any{field, &expr.Lookup{SourceRegister: reg, SetName: in.Name, SetID: in.ID}}
}

func equal(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: reg, Data: b} }

func ofFamily(family byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg}, equal(family)}
}

func ofProtocol(ethertype uint16) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg}, equal(binaryutil.BigEndian.PutUint16(ethertype)...)}
}

func toThisMachine() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg, FlagDADDR: true, ResultADDRTYPE: true},
		equal(binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)...),
	}
}

// newConnection is a TCP segment that begins a connection: SYN without ACK, FIN or RST (RFC 9293 section 3.1: the flags
// are byte 13).
func newConnection() []expr.Any {
	const fin, syn, rst, ack = 0x01, 0x02, 0x04, 0x10
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equal(unix.IPPROTO_TCP),
		load(expr.PayloadBaseTransportHeader, 13, 1),
		&expr.Bitwise{SourceRegister: reg, DestRegister: reg, Len: 1, Mask: []byte{fin | syn | rst | ack}, Xor: []byte{0}},
		equal(syn),
	}
}

func neighbourAdvertisement() []expr.Any {
	const advertisement = 136 // RFC 4861 section 4.4
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg}, equal(unix.IPPROTO_ICMPV6),
		load(expr.PayloadBaseTransportHeader, 0, 1), equal(advertisement),
	}
}

func counted() []expr.Any { return []expr.Any{&expr.Counter{}} }

func verdict(kind expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: kind}} }

func goTo(c *nftables.Chain) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: c.Name}}
}

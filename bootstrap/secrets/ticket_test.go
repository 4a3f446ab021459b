package secrets

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var testKey = NewSecret("cluster key of the tests 0123456789")

func ticketFor(node string, peers ...string) Ticket {
	return Ticket{Cluster: "blog", Node: node, Expires: time.Now().Add(time.Hour), Peers: peers, Pin: [32]byte{1, 2, 3}}
}

func TestTicketComesBackFromUserData(t *testing.T) {
	label := rapid.StringMatching(`[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?`)
	peer := rapid.Custom(func(t *rapid.T) string {
		host := rapid.OneOf(label, rapid.SampledFrom([]string{"10.77.0.2", "[fe80::1%eth0]", "[2001:db8::1]", "lb1.blog.internal"})).Draw(t, "host")
		return fmt.Sprintf("%s:%d", host, rapid.IntRange(1, 65535).Draw(t, "port"))
	})
	rapid.Check(t, func(t *rapid.T) {
		in := Ticket{
			Cluster: label.Draw(t, "cluster"), Node: label.Draw(t, "node"),
			Expires: time.Unix(rapid.Int64Range(1, 1<<37).Draw(t, "expires"), 123),
			Peers:   rapid.SliceOfN(peer, 1, MaxPeers).Draw(t, "peers"),
			Pin:     [32]byte(rapid.SliceOfN(rapid.ByteMin(1), 32, 32).Draw(t, "pin")),
		}
		issued, err := IssueTicket(testKey, in)
		if err != nil {
			t.Fatal(err)
		}
		for _, tail := range []string{"", "\n", " \r\n\n"} {
			got, err := ParseUserData(strings.TrimRight(issued.UserData(), "\n") + tail)
			if err != nil || !reflect.DeepEqual(got, issued) {
				t.Fatalf("got %v, %v; want what was issued", got, err)
			}
			if !got.genuine(testKey) || got.genuine(NewSecret(testKey.Reveal()+"x")) {
				t.Fatal("genuine under the wrong key, or not under the right one")
			}
		}
		again, err := IssueTicket(testKey, in)
		if err != nil || again.Nonce == issued.Nonce {
			t.Fatal("two tickets share a nonce")
		}
	})
}

// tamper lists one change per field of a ticket.
var tamper = map[string]func(*Ticket){
	"cluster":       func(t *Ticket) { t.Cluster = "blog2" },
	"node":          func(t *Ticket) { t.Node = "mail1" },
	"nonce":         func(t *Ticket) { t.Nonce[15] ^= 1 },
	"expires":       func(t *Ticket) { t.Expires = t.Expires.Add(time.Second) },
	"peers":         func(t *Ticket) { t.Peers = append(slices.Clone(t.Peers), "10.0.0.9:1") },
	"a peer":        func(t *Ticket) { t.Peers = []string{"10.0.0.9:1"} },
	"pin":           func(t *Ticket) { t.Pin[0] ^= 1 },
	"mac":           func(t *Ticket) { t.MAC[31] ^= 1 },
	"moved letters": func(t *Ticket) { t.Cluster, t.Node = t.Cluster+t.Node[:1], t.Node[1:] },
}

func TestTamperedTicketIsNotGenuine(t *testing.T) {
	for field, change := range tamper {
		ticket := must(IssueTicket(testKey, ticketFor("web1", "10.0.0.2:7747")))
		change(&ticket)
		if ticket.genuine(testKey) {
			t.Errorf("%s changed, and the MAC still holds", field)
		}
	}
}

func TestLabelsSeparateTheUsesOfTheClusterKey(t *testing.T) {
	if bytes.Equal(deriveKey(testKey, ticketLabel), deriveKey(testKey, serverKeyLabel)) {
		t.Error("two labels give one key")
	}
}

func TestIssueTicketRefusesWhatNobodyCouldUse(t *testing.T) {
	for name, spoil := range map[string]func(*Ticket){
		"cluster":         func(t *Ticket) { t.Cluster = "" },
		"node":            func(t *Ticket) { t.Node = "Web 1" },
		"no expiry":       func(t *Ticket) { t.Expires = time.Time{} },
		"too late":        func(t *Ticket) { t.Expires = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"no peers":        func(t *Ticket) { t.Peers = nil },
		"too many peers":  func(t *Ticket) { t.Peers = slices.Repeat([]string{"a:1"}, MaxPeers+1) },
		"no port":         func(t *Ticket) { t.Peers = []string{"a"} },
		"named port":      func(t *Ticket) { t.Peers = []string{"a:https"} },
		"port 0":          func(t *Ticket) { t.Peers = []string{"a:0"} },
		"port 65536":      func(t *Ticket) { t.Peers = []string{"a:65536"} },
		"no host":         func(t *Ticket) { t.Peers = []string{":1"} },
		"path":            func(t *Ticket) { t.Peers = []string{"a/b:1"} },
		"user":            func(t *Ticket) { t.Peers = []string{"a@b:1"} },
		"long":            func(t *Ticket) { t.Peers = []string{strings.Repeat("a", maxPeer) + ":1"} },
		"no pin":          func(t *Ticket) { t.Pin = [32]byte{} },
		"port with zeros": func(t *Ticket) { t.Peers = []string{"a:01"} },
	} {
		ticket := ticketFor("web1", "10.0.0.2:7747")
		spoil(&ticket)
		if _, err := IssueTicket(testKey, ticket); err == nil {
			t.Errorf("%s: issued", name)
		}
	}
	if _, err := IssueTicket(NewSecret(canary[:12]), ticketFor("web1", "a:1")); err == nil {
		t.Error("issued under a short key")
	} else {
		mustHideText(t, err)
	}
}

func TestLargestTicketFitsUserData(t *testing.T) {
	ticket := ticketFor(strings.Repeat("n", 255), slices.Repeat([]string{strings.Repeat("h", 255) + ":65535"}, MaxPeers)...)
	ticket.Cluster = strings.Repeat("c", 255)
	text := must(IssueTicket(testKey, ticket)).UserData()
	if len(text) > maxUserData {
		t.Errorf("it has %d bytes, and the parser reads %d", len(text), maxUserData)
	}
	must(ParseUserData(text))
}

func TestParseUserDataTellsForeignFromBroken(t *testing.T) {
	good := must(IssueTicket(testKey, ticketFor("web1", "10.0.0.2:7747"))).UserData()
	for _, foreign := range []string{"", "\n", "#cloud-config\nx: y\n", "#!/bin/sh\necho #understudy-ticket v1\n", "x" + good, strings.Repeat("x", 1<<20)} {
		if _, err := ParseUserData(foreign); !errors.Is(err, ErrNoTicket) || errors.Is(err, ErrBadTicket) {
			t.Errorf("%.20q: got %v, want ErrNoTicket", foreign, err)
		}
	}
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			panic(old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, broken := range map[string]string{
		"cut":              good[:len(good)-20],
		"only the mark":    "#understudy-ticket v1",
		"header only":      "#understudy-ticket v1\n",
		"newer":            replace("v1", "v2"),
		"space first":      " " + good,
		"byte order mark":  "\ufeff" + good,
		"dos line ends":    strings.ReplaceAll(good, "\n", "\r\n"),
		"cloud-config too": good + "#cloud-config\n",
		"two tickets":      good + good,
		"unknown field":    replace(`{"cluster"`, `{"x":1,"cluster"`),
		"repeated field":   replace(`{"cluster"`, `{"cluster":"x","cluster"`),
		"other case":       replace(`"cluster"`, `"Cluster"`),
		"missing field":    replace(`"cluster":"blog",`, ``),
		"null":             replace(`"blog"`, `null`),
		"spaced":           replace(`":"blog"`, `": "blog"`),
		"escaped":          replace(`blog`, `\u0062log`),
		"upper-case hex":   replace(`"pin":"010203`, `"pin":"01020A`),
		"short hex":        replace(`"pin":"0102`, `"pin":"01`),
		"time zone":        replace(`Z"`, `+00:00"`),
		"peer":             replace(`10.0.0.2:7747`, `10.0.0.2`),
		"no JSON":          "#understudy-ticket v1\n" + canary + "\n",
		"secret in a name": replace(`blog`, canary),
		"large":            good + strings.Repeat(" ", maxUserData),
	} {
		_, err := ParseUserData(broken)
		if !errors.Is(err, ErrBadTicket) || errors.Is(err, ErrNoTicket) {
			t.Errorf("%s: got %v, want ErrBadTicket", name, err)
		}
		mustHide(t, err)
	}
}

func TestTicketIsNotPrinted(t *testing.T) {
	ticket := must(IssueTicket(testKey, ticketFor("web1", "10.0.0.2:7747")))
	mac, nonce := ticket.text().MAC, ticket.text().Nonce
	var out bytes.Buffer
	for _, v := range []any{ticket, &ticket, []Ticket{ticket}, struct{ T Ticket }{ticket}} {
		fmt.Fprintf(&out, "%v %+v %#v %s %q %x %d", v, v, v, v, v, v, v)
		out.Write(must(json.Marshal(v)))
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "t", v)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "t", v)
	}
	for _, bad := range []string{mac, nonce, fmt.Sprint(ticket.MAC[:4]), fmt.Sprint(ticket.Nonce[:4])} {
		if strings.Contains(out.String(), strings.Trim(bad, "[]")) {
			t.Errorf("printed: %s", out.String())
		}
	}
	if !strings.Contains(out.String(), "ticket for web1 of blog until ") {
		t.Error("nothing says whose ticket it is")
	}
}

func FuzzParseUserData(f *testing.F) {
	good := must(IssueTicket(testKey, ticketFor("web1", "10.0.0.2:7747"))).UserData()
	f.Add(good)
	f.Add(good[:50])
	f.Add("#cloud-config\n")
	f.Add(ticketHeader + "\n{}")
	f.Fuzz(func(t *testing.T, s string) {
		ticket, err := ParseUserData(s)
		if (err == nil) == (errors.Is(err, ErrNoTicket) || errors.Is(err, ErrBadTicket)) {
			t.Fatalf("unclassified: %v", err)
		}
		if err == nil && strings.TrimRight(ticket.UserData(), "\n") != strings.TrimRight(s, " \t\r\n") {
			t.Fatalf("accepted another text than it writes: %q", s)
		}
	})
}

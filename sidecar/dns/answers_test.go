package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	mdns "github.com/miekg/dns"
	"pgregory.net/rapid"

	"understudy/sidecar/cluster"
)

const wwwRecord, guardRecord = "www.blog.example. 60 IN A 203.0.113.1", `_understudy.blog.example. 30 IN TXT "epoch=4"`

func TestSignedAnswersAreRead(t *testing.T) {
	s := &authority{t: t, say: func(q *mdns.Msg) *mdns.Msg { return yes(q, wwwRecord, guardRecord) }}
	got, err := s.zone(nil).Read(t.Context())
	if err != nil || got.Epoch != 4 || len(got.Records) != 1 || got.Records[0] != a("www", 1) {
		t.Errorf("got %+v, %v, want www at epoch 4", got, err)
	}
}

// wrongAnswer changes a good answer, or its signature, and says what the error must contain.
type wrongAnswer struct {
	say  func(q *mdns.Msg, m *mdns.Msg) *mdns.Msg
	sign func(q, m *mdns.Msg) []byte
	want string
}

func wrongAnswers(t *testing.T) map[string]wrongAnswer {
	plain := func(_, m *mdns.Msg) []byte { return packed(t, m) }
	return map[string]wrongAnswer{
		"unsigned":              {nil, plain, "not signed"},
		"unsigned no such name": {func(_, m *mdns.Msg) *mdns.Msg { m.Rcode = mdns.RcodeNameError; return m }, plain, "not signed"},
		"another key": {nil, func(q, m *mdns.Msg) []byte {
			return signedBy(t, q, m, "mallory.", testSecret, time.Now(), 0, "")
		}, "another key"},
		"another secret": {nil, func(q, m *mdns.Msg) []byte {
			return signedBy(t, q, m, "ddns.", otherSecret, time.Now(), 0, "")
		}, "signature is wrong"},
		"changed after signing": {nil, func(q, m *mdns.Msg) []byte {
			out := signedBy(t, q, m, "ddns.", testSecret, time.Now(), 0, "")
			out[len(out)-20] ^= 1
			return out
		}, "signature"},
		"signed for another question": {nil, func(q, m *mdns.Msg) []byte {
			other := q.Copy()
			other.IsTsig().MAC = strings.Repeat("00", 32)
			return signedBy(t, other, m, "ddns.", testSecret, time.Now(), 0, "")
		}, "signature is wrong"},
		"signed long ago": {nil, func(q, m *mdns.Msg) []byte {
			return signedBy(t, q, m, "ddns.", testSecret, time.Now().Add(-time.Hour), 0, "")
		}, "signed 1h0m"},
		"another id": {nil, func(q, m *mdns.Msg) []byte {
			out := signedBy(t, q, m, "ddns.", testSecret, time.Now(), 0, "") // which the id is no part of
			out[1] ^= 1
			return out
		}, "something else"},
		"a question":       {func(_, m *mdns.Msg) *mdns.Msg { m.Response = false; return m }, nil, "something else"},
		"another opcode":   {func(_, m *mdns.Msg) *mdns.Msg { m.Opcode = mdns.OpcodeNotify; return m }, nil, "something else"},
		"another question": {func(_, m *mdns.Msg) *mdns.Msg { m.Question[0].Name = "shop.blog.example."; return m }, nil, "another question"},
		"not the authority": {func(_, m *mdns.Msg) *mdns.Msg { m.Authoritative = false; return m }, nil,
			"authority"},
		"cut off": {func(_, m *mdns.Msg) *mdns.Msg { m.Truncated = true; return m }, nil, "too large"},
		"failing": {func(_, m *mdns.Msg) *mdns.Msg { m.Rcode = mdns.RcodeServerFailure; return m }, nil, "SERVFAIL"},
		"refused": {func(_, m *mdns.Msg) *mdns.Msg { m.Rcode = mdns.RcodeRefused; return m }, plain, "REFUSED"},
		"silent":  {func(_, _ *mdns.Msg) *mdns.Msg { return nil }, nil, "deadline"},
		"garbage": {nil, func(_, _ *mdns.Msg) []byte { return []byte("HTTP/1.1 400 Bad Request") }, "answer"},
		"too short": {nil, func(_, _ *mdns.Msg) []byte { return []byte{1} },
			"read the answer"},
		"unsigned claim that the clock is off": {func(_, m *mdns.Msg) *mdns.Msg { m.Rcode = mdns.RcodeNotAuth; return m }, func(q, m *mdns.Msg) []byte {
			return signedBy(t, q, m, "ddns.", otherSecret, time.Now(), mdns.RcodeBadTime, fmt.Sprintf("%012x", 1))
		}, "signature is wrong"},
	}
}

// TestAnswersThatAreNotTheServersAreErrors sends each way of answering wrongly, and expects an error each time: never an empty
// zone, never a change of it.
func TestAnswersThatAreNotTheServersAreErrors(t *testing.T) {
	for name, c := range wrongAnswers(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &authority{t: t, sign: c.sign, say: func(q *mdns.Msg) *mdns.Msg {
				m := yes(q, wwwRecord, guardRecord)
				if c.say != nil {
					m = c.say(q, m)
				}
				return m
			}}
			z := s.zone(func(cfg *ServerConfig) {
				if name == "silent" {
					cfg.Timeout = 100 * time.Millisecond
				}
			})
			got, err := z.Read(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("read: got %+v, %v, want an error with %q", got, err, c.want)
			}
			if _, ok := errors.AsType[*ClockError](err); ok {
				t.Errorf("got the unproven time %v", err)
			}
			if err := z.Update(t.Context(), wanting(a("www", 2))); err == nil || s.updates > 0 {
				t.Errorf("update: got %v after %d updates, want an error before any", err, s.updates)
			}
		})
	}
}

// TestUnsignedWordThatTheGuardChangedIsNotBelieved answers an update by what anybody could have sent.
func TestUnsignedWordThatTheGuardChangedIsNotBelieved(t *testing.T) {
	s := &authority{t: t}
	s.say = func(q *mdns.Msg) *mdns.Msg { return yes(q, wwwRecord) }
	s.sign = func(q, m *mdns.Msg) []byte {
		if q.Opcode == mdns.OpcodeUpdate {
			m.Rcode = mdns.RcodeNXRrset
			return packed(t, m)
		}
		return s.signed(q, m)
	}
	err := s.zone(nil).Update(t.Context(), wanting(a("www", 2)))
	if err == nil || errors.Is(err, ErrRaced) || errors.Is(err, ErrSuperseded) {
		t.Errorf("got %v, want that the answer is not signed", err)
	}
}

// TestCorrectedClockIsTheOneThatCounts has a server an hour ahead of this machine: only with the offset are its signatures,
// and ours, in time.
func TestCorrectedClockIsTheOneThatCounts(t *testing.T) {
	s := &authority{t: t, clock: time.Hour, say: func(q *mdns.Msg) *mdns.Msg { return yes(q, wwwRecord) }}
	if got, err := s.zone(nil).Read(t.Context()); err == nil {
		t.Errorf("by this machine's clock: got %+v, want an error", got)
	}
	z := s.zone(func(c *ServerConfig) { c.Now = func() time.Time { return time.Now().Add(time.Hour) } })
	if _, err := z.Read(t.Context()); err != nil {
		t.Errorf("by the corrected clock: %v", err)
	}
}

func TestServersTimeIsRead(t *testing.T) {
	s := &authority{t: t, say: func(q *mdns.Msg) *mdns.Msg { return new(mdns.Msg).SetRcode(q, mdns.RcodeNotAuth) }}
	for ahead, other := range map[time.Duration]string{
		time.Hour: fmt.Sprintf("%012x", time.Now().Add(time.Hour).Unix()), -time.Hour: fmt.Sprintf("%012x", time.Now().Add(-time.Hour).Unix()),
	} {
		s.sign = func(q, m *mdns.Msg) []byte {
			return signedBy(t, q, m, "ddns.", testSecret, time.Now(), mdns.RcodeBadTime, other)
		}
		_, err := s.zone(nil).Read(t.Context())
		clock, ok := errors.AsType[*ClockError](err)
		if !ok {
			t.Fatalf("got %v, want a ClockError", err)
		}
		if off := clock.Ahead - ahead; max(off, -off) > 3*time.Second {
			t.Errorf("got %v ahead, want %v", clock.Ahead, ahead)
		}
		if text := err.Error(); !strings.Contains(text, map[bool]string{true: "ahead of", false: "behind"}[ahead > 0]) {
			t.Errorf("got %q", text)
		}
	}
	s.sign = func(q, m *mdns.Msg) []byte {
		return signedBy(t, q, m, "ddns.", testSecret, time.Now(), mdns.RcodeBadTime, "")
	}
	if _, err := s.zone(nil).Read(t.Context()); !errors.Is(err, ErrDenied) {
		t.Errorf("without the server's time: got %v, want ErrDenied", err)
	}
}

func TestEndOfTheContextEndsTheConversation(t *testing.T) {
	asked := make(chan struct{})
	s := &authority{t: t, say: func(*mdns.Msg) *mdns.Msg { close(asked); return nil }}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-asked; cancel() }() // ends with the question
	if _, err := s.zone(func(c *ServerConfig) { c.Timeout = time.Minute }).Read(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was cancelled", err)
	}
	z := s.zone(func(c *ServerConfig) {
		c.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errBadWeather }
	})
	if _, err := z.Read(t.Context()); !errors.Is(err, errBadWeather) {
		t.Errorf("got %v, want the dialler's error", err)
	}
}

// TestOurSignatureCheckIsTheLibrarys compares the two on answers of every shape; where the library gives up (NOTAUTH), ours is
// compared with the library's signature.
func TestOurSignatureCheckIsTheLibrarys(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := &authority{t: t}
		z := s.zone(nil)
		q := new(mdns.Msg).SetQuestion("www.blog.example.", mdns.TypeA)
		q.SetTsig("ddns.", mdns.HmacSHA256, 300, time.Now().Unix())
		_, mac, err := mdns.TsigGenerate(q.Copy(), testSecret, "", false)
		if err != nil {
			rt.Fatal(err)
		}
		q.IsTsig().MAC = mac
		m := yes(q, wwwRecord)
		m.Compress = rapid.Bool().Draw(rt, "compress")
		m.Rcode = rapid.SampledFrom([]int{0, 3, 5, 8, 9}).Draw(rt, "rcode")
		for range rapid.IntRange(0, 3).Draw(rt, "more") {
			m.Ns = append(m.Ns, yes(q, wwwRecord).Answer...)
		}
		if rapid.Bool().Draw(rt, "edns") {
			m.SetEdns0(1232, false)
		}
		raw := signedBy(t, q, m, "ddns.", rapid.SampledFrom([]string{testSecret, testSecret, otherSecret}).Draw(rt, "secret"), time.Now(), 0, "")
		if at := rapid.IntRange(-1, len(raw)-1).Draw(rt, "damage"); at >= 0 {
			raw[at] ^= byte(rapid.IntRange(0, 255).Draw(rt, "bits"))
		}
		answer := new(mdns.Msg)
		if answer.Unpack(raw) != nil || answer.IsTsig() == nil || answer.Rcode == mdns.RcodeNotAuth {
			return
		}
		ours := z.verify(raw, answer, mac)
		sig := answer.IsTsig()
		theirs := mdns.TsigVerify(append([]byte(nil), raw...), testSecret, mac, false)
		named := mdns.CanonicalName(sig.Hdr.Name) == "ddns." && mdns.CanonicalName(sig.Algorithm) == mdns.HmacSHA256
		if (ours == nil) != (theirs == nil && named && sig.Error != mdns.RcodeBadTime && sig.Error != mdns.RcodeBadKey && sig.Error != mdns.RcodeBadSig) {
			rt.Fatalf("got %v, the library says %v", ours, theirs)
		}
	})
}

// FuzzAnswer feeds whatever a server could send as the answer to a question: nothing without the key's signature is ever
// taken for an answer, and nothing makes us panic.
func FuzzAnswer(f *testing.F) {
	s := &authority{t: f}
	z := s.zone(nil)
	q := new(mdns.Msg).SetQuestion("www.blog.example.", mdns.TypeA)
	q.Id = 7
	q.SetTsig("ddns.", mdns.HmacSHA256, 300, time.Now().Unix())
	_, mac, err := mdns.TsigGenerate(q.Copy(), testSecret, "", false)
	if err != nil {
		f.Fatal(err)
	}
	q.IsTsig().MAC = mac
	f.Add(packed(f, yes(q, wwwRecord)))
	f.Add(signedBy(f, q, yes(q, wwwRecord), "ddns.", otherSecret, time.Now(), 0, ""))
	f.Add(signedBy(f, q, yes(q), "ddns.", otherSecret, time.Now(), mdns.RcodeBadTime, "000000000001"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		answer, err := parseAnswer(q, raw)
		if err != nil {
			return
		}
		if err := z.verify(raw, answer, mac); err == nil {
			t.Errorf("an answer that nobody with the key has signed was taken: %v", answer)
		}
	})
}

// FuzzRecord reads whatever can stand in a signed answer.
func FuzzRecord(f *testing.F) {
	for _, text := range []string{wwwRecord, guardRecord, "www.blog.example. 60 IN MX 10 .", "www.blog.example. 60 IN AAAA ::1"} {
		rr, err := mdns.NewRR(text)
		if err != nil {
			f.Fatal(err)
		}
		buf := make([]byte, 512)
		n, err := mdns.PackRR(rr, buf, 0, nil, false)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(buf[:n])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		rr, _, err := mdns.UnpackRR(raw, 0)
		if err != nil {
			return
		}
		switch rr.Header().Rrtype {
		case mdns.TypeA, mdns.TypeAAAA, mdns.TypeMX:
			r, err := record("www", rr)
			if err == nil && r == (cluster.Record{}) {
				t.Errorf("%v was read as nothing", rr)
			}
		}
	})
}

package secrets

import (
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"filippo.io/age"
)

// servesControl lets a peer answer with the path it was asked for.
func servesControl(c *JoinConfig) {
	c.Control = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Method, " ", r.URL.RequestURI()) })
}

func TestTheControlRepoIsForWhoHasTheIdentity(t *testing.T) {
	p := newPeer(t, servesControl).start(t)
	own := newPeer(t, servesControl).start(t) // another server key, the same everything else
	without := newPeer(t, nil).start(t)
	ask := func(c *http.Client, url string) (int, string) {
		resp, err := c.Get(url)
		if err != nil {
			return 0, err.Error()
		}
		defer resp.Body.Close()
		return resp.StatusCode, string(must(io.ReadAll(resp.Body)))
	}
	member, stranger := p.member.Identity, must(age.GenerateX25519Identity())
	bare := ControlClient(p.pin, member)
	bare.Transport = bare.Transport.(proving).next
	for name, c := range map[string]struct {
		client *http.Client
		url    string
		status int
		want   string
	}{
		"a member":                      {ControlClient(p.pin, member), ControlURL(p.addr) + "/info/refs?service=git-upload-pack", 200, "GET /info/refs?service=git-upload-pack"},
		"another identity":              {ControlClient(p.pin, stranger), ControlURL(p.addr) + "/info/refs", 403, string(ReasonNotMember)},
		"no proof":                      {bare, ControlURL(p.addr) + "/info/refs", 403, string(ReasonNotMember)},
		"another server's key":          {ControlClient(p.pin, member), ControlURL(own.addr) + "/info/refs", 0, ErrWrongPin.Error()},
		"the repository's name only":    {ControlClient(p.pin, member), ControlURL(p.addr), 404, string(ReasonNotUnderstood)},
		"a name that begins like it":    {ControlClient(p.pin, member), ControlURL(p.addr) + "x/info/refs", 404, string(ReasonNotUnderstood)},
		"a peer that does not serve it": {ControlClient(without.pin, member), ControlURL(without.addr) + "/info/refs", 404, string(ReasonNotUnderstood)},
	} {
		status, body := ask(c.client, c.url)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s: got %d, %q; want %d, %q", name, status, body, c.status, c.want)
		}
	}
	if log := p.log.String(); strings.Count(log, "not served") != 2 || strings.Contains(log, controlToken(member)) || strings.Contains(log, controlToken(stranger)) {
		t.Errorf("the log is %s", log)
	}
	if shown := fmt.Sprintf("%+v %#v", bare, ControlClient(p.pin, member).Transport); strings.Contains(shown, controlToken(member)) {
		t.Errorf("a client shows its proof: %s", shown)
	}
}

func TestControlRequestsCountLikeJoins(t *testing.T) {
	p := newPeer(t, servesControl).start(t)
	client := ControlClient(p.pin, p.member.Identity)
	for i := range 2 * p.server.rate.burst {
		resp, err := client.Get(ControlURL(p.addr) + "/x")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode == http.StatusServiceUnavailable {
			if i < p.server.rate.burst {
				t.Errorf("refused after %d requests, want %d at least", i, p.server.rate.burst)
			}
			return
		}
	}
	t.Error("there is no bound")
}

// The label is in the documentation: another program must come to the same proof.
func TestTheProofIsAsDocumented(t *testing.T) {
	id := must(age.GenerateX25519Identity())
	want := hex.EncodeToString(must(hkdf.Key(sha256.New, []byte(id.String()), nil, "understudy control repo v1", 32)))
	if got := controlToken(id); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Answers of peers that know nothing of commits are read, and those of newer ones.
func TestMembershipsOfOtherVersionsAreRead(t *testing.T) {
	m := someMembership()
	plain := must(grantText("blog", "web1", "nonce", m))
	var fields map[string]any
	ok(json.Unmarshal(plain, &fields))
	delete(fields, "commit")
	fields["of tomorrow"] = 1
	got, err := readGrant(must(json.Marshal(fields)), "blog", "web1", "nonce")
	m.Commit = ""
	if err != nil || !sameMembership(got, m) {
		t.Errorf("got %v, %v; want %v", got, err, m)
	}
}

//go:build linux

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-msgauth/dkim"
	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
)

// The demo's user; puppet/data/roles/mail.yaml says that the password is no secret.
const (
	user     = "alice@blog.example"
	password = "curtain-up"
)

// mailTLS trusts the certificate in the sealed secrets and nothing else, which is also how the test
// knows that the certificate arrived.
func mailTLS(t *testing.T, c *cluster) *tls.Config {
	t.Helper()
	pool := x509.NewCertPool()
	for _, node := range []string{"mail1", "mail2"} {
		pem := c.on(t, node, "cat", "/etc/ssl/mail/tls.crt")
		if node == "mail1" && !pool.AppendCertsFromPEM([]byte(pem)) {
			t.Fatalf("no certificate in %q", pem)
		}
		if other := c.on(t, "mail1", "cat", "/etc/ssl/mail/tls.crt"); other != pem {
			t.Error("the nodes of the mail role have different certificates: a failover would change it")
		}
	}
	return &tls.Config{RootCAs: pool, ServerName: "mail.blog.example"}
}

// subjects lists the inbox over IMAP with TLS.
func subjects(t *testing.T, c *cluster) ([]string, error) { return c.inbox(mailTLS(t, c)) }

func (c *cluster) inbox(trust *tls.Config) ([]string, error) {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", c.ports["mail:993"], trust)
	if err != nil {
		return nil, err
	}
	box := imapclient.New(conn, nil)
	defer box.Close()
	if err := box.Login(user, password).Wait(); err != nil {
		return nil, err
	}
	selected, err := box.Select("INBOX", nil).Wait()
	if err != nil || selected.NumMessages == 0 {
		return nil, err
	}
	var all imap.SeqSet
	all.AddRange(1, selected.NumMessages)
	messages, err := box.Fetch(all, &imap.FetchOptions{Envelope: true}).Collect()
	var out []string
	for _, m := range messages {
		out = append(out, m.Envelope.Subject)
	}
	return out, err
}

func TestMailArrivesBySMTPAndIsReadByIMAP(t *testing.T) {
	c := sharedCluster(t)
	subject := fmt.Sprintf("Delivered %d", time.Now().UnixNano())
	message := "From: bob@elsewhere.example\r\nTo: " + user + "\r\nSubject: " + subject + "\r\nMessage-ID: <" + subject[10:] + "@elsewhere.example>\r\n\r\nBreak a leg.\r\n"
	client, err := smtp.Dial(c.ports["mail:25"])
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Hello("bob.elsewhere.example"); err != nil {
		t.Fatal(err)
	}
	if err := client.SendMail("bob@elsewhere.example", []string{user}, strings.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	eventually(t, 20*time.Second, func() error {
		all, err := subjects(t, c)
		if err != nil {
			return err
		}
		return contains(strings.Join(all, "\n"), subject)
	})
}

// TestMailServerIsNoOpenRelay: a stranger may write to us, and to nobody else through us.
func TestMailServerIsNoOpenRelay(t *testing.T) {
	c := sharedCluster(t)
	for _, to := range []string{"victim@elsewhere.example", "nobody-at-all@blog.example", "victim%elsewhere.example@blog.example"} {
		client, err := smtp.Dial(c.ports["mail:25"])
		if err != nil {
			t.Fatal(err)
		}
		if err := client.Hello("spam.elsewhere.example"); err != nil {
			t.Fatal(err)
		}
		err = client.SendMail("spam@elsewhere.example", []string{to}, strings.NewReader("Subject: buy\r\n\r\n"))
		var refused *smtp.SMTPError
		if !errors.As(err, &refused) || refused.Code/100 != 5 {
			t.Errorf("to %s: got %v, want a refusal", to, err)
		}
		client.Close()
	}
}

// submission opens a session on port 587, as a mail program does.
func submission(t *testing.T, c *cluster) *smtp.Client {
	t.Helper()
	client, err := smtp.DialStartTLS(c.ports["mail:587"], mailTLS(t, c))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

// TestOutgoingMailIsSignedAndGoesThroughTheRelay submits as a user and looks at what the relay got.
func TestOutgoingMailIsSignedAndGoesThroughTheRelay(t *testing.T) {
	c := sharedCluster(t)
	subject := fmt.Sprintf("Submitted %d", time.Now().UnixNano())
	stranger := submission(t, c)
	if err := stranger.Auth(sasl.NewPlainClient("", user, "wrong")); err == nil {
		t.Fatal("a wrong password was taken")
	}
	client := submission(t, c)
	if err := client.Auth(sasl.NewPlainClient("", user, password)); err != nil {
		t.Fatal(err)
	}
	message := "From: " + user + "\r\nTo: bob@elsewhere.example\r\nSubject: " + subject + "\r\nDate: " + time.Now().Format(time.RFC1123Z) +
		"\r\nMessage-ID: <" + subject[10:] + "@blog.example>\r\n\r\nThe show goes on.\r\n"
	if err := client.SendMail(user, []string{"bob@elsewhere.example"}, strings.NewReader(message)); err != nil {
		t.Fatal(err)
	}
	relayed := c.status(t).Relay
	var got []byte
	eventually(t, 30*time.Second, func() error {
		files, err := filepath.Glob(filepath.Join(relayed, "*.eml"))
		if err != nil {
			return err
		}
		for _, f := range files {
			data, err := os.ReadFile(f)
			if err != nil {
				return err
			}
			if bytes.Contains(data, []byte(subject)) {
				got = data
				return nil
			}
		}
		return fmt.Errorf("none of the relay's %d messages is ours", len(files))
	})
	key := publicKey(t, c)
	checks, err := dkim.VerifyWithOptions(bytes.NewReader(got), &dkim.VerifyOptions{
		LookupTXT: func(name string) ([]string, error) {
			if name != "understudy._domainkey.blog.example" {
				return nil, fmt.Errorf("the signature names %s", name)
			}
			return []string{"v=DKIM1; k=rsa; p=" + key}, nil
		},
	})
	if err != nil || len(checks) != 1 || checks[0].Err != nil || checks[0].Domain != "blog.example" {
		t.Errorf("DKIM: got %+v, %v; want one good signature of blog.example\n%s", checks, err, got)
	}
	tampered := bytes.Replace(got, []byte("The show goes on."), []byte("The show is off!!"), 1)
	checks, err = dkim.VerifyWithOptions(bytes.NewReader(tampered), &dkim.VerifyOptions{
		LookupTXT: func(string) ([]string, error) { return []string{"v=DKIM1; k=rsa; p=" + key}, nil },
	})
	if err != nil || len(checks) != 1 || checks[0].Err == nil {
		t.Errorf("a changed message still has a good signature: %+v, %v", checks, err)
	}
}

// publicKey is the base64 of the DKIM key's public half.
func publicKey(t *testing.T, c *cluster) string {
	t.Helper()
	out := c.on(t, "mail1", "openssl", "rsa", "-in", "/etc/dkimkeys/dkim.key", "-pubout", "-outform", "PEM")
	var b strings.Builder
	for line := range strings.SplitSeq(out, "\n") {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "-----") && !strings.Contains(line, "RSA key") {
			b.WriteString(line)
		}
	}
	return b.String()
}

package control

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"understudy/bootstrap/command"
)

// gpgTimeout bounds each run of git and gpg, which take some 20 ms.
const gpgTimeout = time.Minute

// verifyOpenPGP lets git and gpg check the commit, in a repository that holds nothing else and with a
// keyring that holds the allowed certificates only. So no configuration, no hook, no other key and no
// network is in play, and the raw bytes git sees are those whose hash was checked.
func (r *Repo) verifyOpenPGP(ctx context.Context, commit string, raw []byte, allowed Signers) (Signer, error) {
	if len(allowed.pgp) == 0 {
		return Signer{}, &UnknownSignerError{commit, "an OpenPGP key"}
	}
	// Not beside the repository: gpg --import fails in a directory with a long name, because it
	// could not make its sockets there. What a kill leaves is cleaned with the rest of /tmp.
	home, err := os.MkdirTemp("", "understudy-gpg-")
	if err != nil {
		return Signer{}, diskFull(err)
	}
	defer os.RemoveAll(home)
	if err := prepareHome(home, commit, raw, r.opts.GPG); err != nil {
		return Signer{}, diskFull(err)
	}
	env := []string{
		"HOME=" + home, "GNUPGHOME=" + filepath.Join(home, "gnupg"), "PATH=/usr/bin:/bin", "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=" + filepath.Join(home, ".gitconfig"),
		"GIT_DIR=" + filepath.Join(home, "git"), "GIT_TERMINAL_PROMPT=0",
	}
	res, err := r.opts.Runner.Run(ctx, command.Cmd{
		Path: r.opts.GPG, Args: []string{"--batch", "--import"}, Env: env, Dir: home, Timeout: gpgTimeout,
		Stdin: bytes.NewReader(keyring(allowed.pgp)),
	})
	if err != nil {
		return Signer{}, fmt.Errorf("import the allowed OpenPGP keys: %w", err)
	}
	if res.ExitCode != 0 {
		return Signer{}, fmt.Errorf("import the allowed OpenPGP keys: %s: exit code %d: %s", r.opts.GPG, res.ExitCode, lastLine(res.Stderr))
	}
	res, err = r.opts.Runner.Run(ctx, command.Cmd{
		Path: r.opts.Git, Args: []string{"verify-commit", "--raw", commit}, Env: env, Dir: home, Timeout: gpgTimeout,
	})
	if err != nil {
		return Signer{}, fmt.Errorf("git verify-commit: %w", err)
	}
	return judge(commit, res, allowed)
}

// keyring is all certificates, each block once.
func keyring(list []pgpSigner) []byte {
	var out bytes.Buffer
	for i, s := range list {
		if i == 0 || !bytes.Equal(s.armored, list[i-1].armored) {
			out.Write(s.armored)
		}
	}
	return out.Bytes()
}

// prepareHome makes what git and gpg need, as files instead of options, so that both find it.
func prepareHome(home, commit string, raw []byte, gpg string) error {
	var loose bytes.Buffer // gitformat-loose(5)
	z := zlib.NewWriter(&loose)
	fmt.Fprintf(z, "commit %d\x00%s", len(raw), raw)
	if err := z.Close(); err != nil {
		return err
	}
	for _, d := range []string{"gnupg", "git/refs", "git/objects/" + commit[:2]} {
		if err := os.MkdirAll(filepath.Join(home, d), 0o700); err != nil {
			return err
		}
	}
	files := map[string]string{
		// Keys are trusted because they are in the keyring: nothing else is.
		"gnupg/gpg.conf": "batch\nno-autostart\nno-auto-key-retrieve\nno-auto-key-import\ntrust-model always\n",
		".gitconfig":     "[gpg]\n\tprogram = " + gpg + "\n",
		"git/HEAD":       "ref: refs/heads/none\n",
		"git/config":     "[core]\n\trepositoryformatversion = 0\n\tbare = true\n",
		"git/objects/" + commit[:2] + "/" + commit[2:]: loose.String(),
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(home, name), []byte(content), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// judge reads gpg's status lines (doc/DETAILS of GnuPG). One good signature, and nothing that makes it
// doubtful, is wanted; the exit code of git alone is not enough, because it says nothing about which key.
func judge(commit string, res command.Result, allowed Signers) (Signer, error) {
	status := map[string][]string{}
	for line := range strings.Lines(string(res.Stderr)) {
		text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "[GNUPG:] ")
		if !ok {
			continue
		}
		keyword, args, _ := strings.Cut(text, " ")
		status[keyword] = append(status[keyword], args)
	}
	if ids := status["NO_PUBKEY"]; len(ids) > 0 {
		return Signer{}, &UnknownSignerError{commit, "OpenPGP key " + ids[0]}
	}
	for _, doubt := range []string{"BADSIG", "ERRSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "NODATA", "FAILURE", "BADARMOR"} {
		if args, ok := status[doubt]; ok {
			return Signer{}, fmt.Errorf("%w: gpg says %s %s", ErrBadSignature, doubt, args[0])
		}
	}
	good, valid := status["GOODSIG"], status["VALIDSIG"]
	if res.ExitCode != 0 || len(status["NEWSIG"]) != 1 || len(good) != 1 || len(valid) != 1 || res.Omitted > 0 {
		return Signer{}, fmt.Errorf("%w: git verify-commit exit code %d: %s", ErrBadSignature, res.ExitCode, lastLine(res.Stderr))
	}
	primary, err := validSig(valid[0])
	if err != nil {
		return Signer{}, fmt.Errorf("%w: %w", ErrBadSignature, err)
	}
	if !slices.ContainsFunc(allowed.pgp, func(s pgpSigner) bool { return s.fingerprint == primary }) {
		return Signer{}, &UnknownSignerError{commit, primary}
	}
	_, user, _ := strings.Cut(good[0], " ")
	return Signer{"openpgp", user, primary}, nil
}

// validSig returns the primary key's fingerprint from: fingerprint, date, time, expiry, version, reserved,
// public-key algorithm, hash algorithm, class, primary fingerprint.
func validSig(args string) (primary string, err error) {
	f := strings.Fields(args)
	if len(f) != 10 {
		return "", errors.New("gpg's VALIDSIG line has an unknown form")
	}
	switch f[7] { // RFC 9580, section 9.5
	case "1", "2", "3":
		return "", errors.New("the signature uses MD5, SHA-1 or RIPEMD-160, which are too weak")
	}
	if f[8] != "00" {
		return "", errors.New("the signature is not over a document")
	}
	return f[9], nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Sprintf("%.200q", lines[len(lines)-1])
}

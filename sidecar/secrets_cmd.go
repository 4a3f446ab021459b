package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"understudy/bootstrap/secrets"
)

// Names in a control repo, and in the directory of the private keys.
const (
	sealedFile     = "secrets.age"
	recipientsFile = "secrets.recipients"
	offlineKey     = "offline.key"
)

// identities are the three that open a bundle: who they are, and where the private half belongs.
var identities = []struct{ name, file, belongs string }{
	{"the cluster: every node has it", "cluster.key", "understudy launch hands it to the first node"},
	{"the beachhead", "beachhead.key", "onto the beachhead"},
	{"the operator, offline", offlineKey, "away from all machines; edit and rekey ask for it"},
}

func secretsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secrets",
		Short: "Make, edit and seal again what the cluster keeps secret",
		Long: `The control repo holds the cluster's secrets as secrets.age, sealed with age for everybody whom secrets.recipients names:
the cluster itself, the beachhead, and your own offline key. Commit both files; keep the private keys out of the repo.`,
	}
	cmd.AddCommand(secretsInitCommand(), secretsEditCommand(), secretsRekeyCommand())
	return cmd
}

func secretsInitCommand() *cobra.Command {
	var repo, keys string
	cmd := &cobra.Command{
		Use: "init --keys DIR", Short: "Make the keys and the first bundle of a new cluster", Args: cobra.NoArgs,
		Long: `Init makes three keys in DIR, and in the control repo secrets.recipients and a secrets.age with all that nobody has to
choose: the cluster key, the checkpoints' password, and what puppet/secrets.yaml asks for. Add what others have given you, such as the
provider's token and the ledger's keys, with understudy secrets edit. Nothing that is there is overwritten.`,
		Example: `  understudy secrets init --keys ~/blog-keys && EDITOR=vi understudy secrets edit --identity ~/blog-keys/` + offlineKey,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := findRepo(repo)
			if err != nil {
				return err
			}
			return initSecrets(cmd.OutOrStdout(), dir, keys)
		},
	}
	repoFlag(cmd, &repo)
	cmd.Flags().StringVar(&keys, "keys", "", "directory for the private keys, outside of the repo (made if need be)")
	_ = cmd.MarkFlagRequired("keys")
	return cmd
}

// initSecrets makes everything in memory first, and writes it only if none of the files is there.
func initSecrets(out io.Writer, repo, keys string) error {
	keys, err := filepath.Abs(keys)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(repo, keys); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
		return fmt.Errorf("%s is inside the control repo, which everybody may read who can clone it: choose a directory outside", keys)
	}
	template, err := secretsTemplate(repo)
	if err != nil {
		return err
	}
	bundle, made, err := secrets.Generate(secrets.Bundle{}, template, time.Now())
	if err != nil {
		return err
	}
	var list strings.Builder
	var recipients []age.Recipient
	files := map[string]string{}
	for _, i := range identities {
		id, err := age.GenerateX25519Identity()
		if err != nil {
			return err
		}
		recipients = append(recipients, id.Recipient())
		fmt.Fprintf(&list, "# %s\n%s\n", i.name, id.Recipient())
		files[filepath.Join(keys, i.file)] = fmt.Sprintf("# %s; public key: %s\n%s\n", i.name, id.Recipient(), id)
	}
	sealed, err := secrets.Seal(bundle, recipients)
	if err != nil {
		return err
	}
	files[filepath.Join(repo, recipientsFile)], files[filepath.Join(repo, sealedFile)] = list.String(), string(sealed)
	for path := range files {
		if _, err := os.Lstat(path); err == nil {
			return fmt.Errorf("%s is there already, and is not overwritten", path)
		}
	}
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return err
	}
	for path, text := range files {
		mode := fs.FileMode(0o600)
		if strings.HasPrefix(path, repo+string(filepath.Separator)) {
			mode = 0o644
		}
		if err := writeNew(path, text, mode); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "made %s\n\n", strings.Join(made, ", "))
	for _, i := range identities {
		fmt.Fprintf(out, "%s  →  %s\n", filepath.Join(keys, i.file), i.belongs)
	}
	fmt.Fprintf(out, "\nnext: understudy secrets edit --identity %s, then commit %s and %s\n", filepath.Join(keys, offlineKey), recipientsFile, sealedFile)
	return nil
}

// writeNew writes a file that must not be there.
func writeNew(path, text string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// secretsTemplate is what the repo's Puppet side asks for; a control repo need not ask for anything.
func secretsTemplate(repo string) (secrets.Template, error) {
	path := filepath.Join(repo, "puppet", "secrets.yaml")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return secrets.Template{}, nil
	}
	if err != nil {
		return secrets.Template{}, err
	}
	return secrets.ParseTemplate(path, data)
}

func secretsEditCommand() *cobra.Command {
	var repo, identity string
	cmd := &cobra.Command{
		Use: "edit --identity FILE", Short: "Edit the bundle in $EDITOR and seal it again", Args: cobra.NoArgs,
		Long: `Edit opens secrets.age with the private key in FILE, runs $VISUAL or $EDITOR (default: vi) on it, in memory (/dev/shm), and
seals what comes out for everybody in secrets.recipients. Whatever puppet/secrets.yaml asks for and is missing is made. A bundle with
mistakes is not sealed: they are all shown, and the editor opens again on Enter. Without a change nothing is written.`,
		Example: `  understudy secrets edit --identity ~/blog-keys/` + offlineKey,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := findRepo(repo)
			if err != nil {
				return err
			}
			again := func(problem error) bool {
				fmt.Fprintf(cmd.ErrOrStderr(), "%v\nEnter to edit again, Ctrl-D to give up: ", problem)
				var b [1]byte
				n, _ := cmd.InOrStdin().Read(b[:])
				return n > 0
			}
			return editSecrets(cmd.Context(), cmd.OutOrStdout(), dir, identity, editor(cmd), again)
		},
	}
	repoFlag(cmd, &repo)
	identityFlag(cmd, &identity)
	return cmd
}

func identityFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "identity", os.Getenv("UNDERSTUDY_IDENTITY"), "file with a private key that opens secrets.age (default: $UNDERSTUDY_IDENTITY)")
}

// editor runs the operator's editor on a file. $EDITOR may have arguments, as git's may.
func editor(cmd *cobra.Command) func(ctx context.Context, path string) error {
	return func(ctx context.Context, path string) error {
		program := "vi"
		for _, name := range []string{"EDITOR", "VISUAL"} {
			if v := os.Getenv(name); v != "" {
				program = v
			}
		}
		run := exec.CommandContext(ctx, "sh", "-c", program+` "$1"`, "sh", path)
		run.Stdin, run.Stdout, run.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
		if err := run.Run(); err != nil {
			return fmt.Errorf("%s: %w: nothing was changed", program, err)
		}
		return nil
	}
}

// editSecrets lets edit change the bundle's text until it has no mistakes, or again says that it shall not.
func editSecrets(ctx context.Context, out io.Writer, repo, identity string, edit func(context.Context, string) error, again func(error) bool) (err error) {
	bundle, err := openSecrets(repo, identity)
	if err != nil {
		return err
	}
	recipients, err := readRecipients(repo)
	if err != nil {
		return err
	}
	template, err := secretsTemplate(repo)
	if err != nil {
		return err
	}
	before, err := bundle.Marshal()
	if err != nil {
		return err
	}
	path, remove, err := inMemory(before)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	for {
		if err := edit(ctx, path); err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		next, err := secrets.ParseBundle("bundle", text)
		if err != nil {
			if again(err) {
				continue
			}
			return errors.New("given up: nothing was changed")
		}
		next, made, err := secrets.Generate(next, template, time.Now())
		if err != nil {
			return err
		}
		after, err := next.Marshal()
		if err != nil {
			return err
		}
		if bytes.Equal(before, after) {
			fmt.Fprintln(out, "no change")
			return nil
		}
		if len(made) > 0 {
			fmt.Fprintf(out, "made %s\n", strings.Join(made, ", "))
		}
		return seal(out, repo, next, recipients)
	}
}

// inMemory writes a file that no disk sees, and returns what removes it.
func inMemory(text []byte) (path string, remove func() error, err error) {
	dir := "/dev/shm"
	if _, err := os.Stat(dir); err != nil {
		dir = "" // not Linux: the directory for temporary files
	}
	dir, err = os.MkdirTemp(dir, "understudy-secrets-")
	if err != nil {
		return "", nil, err
	}
	remove = func() error { return os.RemoveAll(dir) }
	path = filepath.Join(dir, "bundle.yaml")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return "", nil, errors.Join(err, remove())
	}
	return path, remove, nil
}

func secretsRekeyCommand() *cobra.Command {
	var repo, identity string
	cmd := &cobra.Command{
		Use: "rekey --identity FILE", Short: "Seal the bundle again, for those whom secrets.recipients names now", Args: cobra.NoArgs,
		Long: `Rekey opens secrets.age with the private key in FILE and seals it for exactly the keys in secrets.recipients, after you have
added or removed one there. It takes nothing back: whoever could open an older commit knows what was in it, so what a lost key could
open must be changed, too (understudy secrets edit).`,
		Example: `  understudy secrets rekey --identity ~/blog-keys/` + offlineKey,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := findRepo(repo)
			if err != nil {
				return err
			}
			bundle, err := openSecrets(dir, identity)
			if err != nil {
				return err
			}
			recipients, err := readRecipients(dir)
			if err != nil {
				return err
			}
			return seal(cmd.OutOrStdout(), dir, bundle, recipients)
		},
	}
	repoFlag(cmd, &repo)
	identityFlag(cmd, &identity)
	return cmd
}

// openSecrets opens the repo's bundle.
func openSecrets(repo, identity string) (secrets.Bundle, error) {
	if identity == "" {
		return secrets.Bundle{}, errors.New("name the file with your private key: --identity FILE")
	}
	f, err := os.Open(identity)
	if err != nil {
		return secrets.Bundle{}, err
	}
	ids, err := age.ParseIdentities(f)
	if err = errors.Join(err, f.Close()); err != nil {
		return secrets.Bundle{}, fmt.Errorf("%s: no private key that age can read", identity) // age's own error may quote it
	}
	path := filepath.Join(repo, sealedFile)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return secrets.Bundle{}, fmt.Errorf("%w; understudy secrets init makes the first one", err)
	}
	if err != nil {
		return secrets.Bundle{}, err
	}
	b, err := secrets.Open(data, ids...)
	if err != nil {
		return secrets.Bundle{}, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// readRecipients reads whom the bundle is sealed for. The cluster and an operator are two, so one alone is a mistake.
func readRecipients(repo string) ([]age.Recipient, error) {
	path := filepath.Join(repo, recipientsFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	all, err := age.ParseRecipients(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(all) < 2 {
		return nil, fmt.Errorf("%s: one key only; the cluster needs one, and you another", path)
	}
	return all, nil
}

// seal replaces the repo's bundle, whole or not at all.
func seal(out io.Writer, repo string, b secrets.Bundle, recipients []age.Recipient) error {
	sealed, err := secrets.Seal(b, recipients)
	if err != nil {
		return err
	}
	path := filepath.Join(repo, sealedFile)
	temp := path + "." + strings.ToLower(rand.Text()[:8])
	if err := writeNew(temp, string(sealed), 0o644); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	fmt.Fprintf(out, "sealed %s for %d keys: commit it\n", path, len(recipients))
	return nil
}

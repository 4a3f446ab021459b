//go:build linux

package site

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/cgi"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/config"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"

	"understudy/bootstrap/command"
)

// branch is what the nodes follow.
const branch = "main"

// operator is the person whose signature the nodes ask for: here a key made for this cloud alone.
type operator struct {
	signer ssh.Signer
	name   string // principal in the allowed signers file
}

// newOperator makes a key pair and leaves the private half in dir/id_ed25519, for pushes by hand.
func newOperator(dir, name string) (operator, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return operator{}, fmt.Errorf("make the operator's key: %w", err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return operator{}, fmt.Errorf("make the operator's key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, name)
	if err != nil {
		return operator{}, fmt.Errorf("make the operator's key: %w", err)
	}
	err = errors.Join(
		os.MkdirAll(dir, 0o700),
		os.WriteFile(filepath.Join(dir, "id_ed25519"), pem.EncodeToMemory(block), 0o600),
		os.WriteFile(filepath.Join(dir, "id_ed25519.pub"), ssh.MarshalAuthorizedKey(signer.PublicKey()), 0o644))
	return operator{signer: signer, name: name}, err
}

// allowedSigners is the operator's line in a file of that name (ssh-keygen(1), ALLOWED SIGNERS).
func (o operator) allowedSigners() []byte {
	return fmt.Appendf(nil, "%s namespaces=\"git\" %s", o.name, ssh.MarshalAuthorizedKey(o.signer.PublicKey()))
}

// file is one file of a commit.
type file struct {
	mode filemode.FileMode
	data []byte
}

// readTree reads what of a checkout is the control repo: roles.yaml and puppet/.
func readTree(repo string) (map[string]file, error) {
	tree := map[string]file{}
	add := func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(repo, path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		f := file{mode: filemode.Regular}
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			var target string
			target, err = os.Readlink(path)
			f = file{mode: filemode.Symlink, data: []byte(target)}
		case info.Mode().IsRegular():
			f.data, err = os.ReadFile(path)
			if info.Mode()&0o100 != 0 {
				f.mode = filemode.Executable
			}
		default:
			err = fmt.Errorf("%s: neither a file nor a symbolic link", path)
		}
		tree[filepath.ToSlash(name)] = f
		return err
	}
	for _, top := range []string{"roles.yaml", "puppet"} {
		if err := filepath.WalkDir(filepath.Join(repo, top), add); err != nil {
			return nil, fmt.Errorf("read the control repo: %w", err)
		}
	}
	return tree, nil
}

// remote is the cloud's git remote: a bare repository, served over http by git itself.
type remote struct {
	dir  string
	repo *git.Repository
}

func newRemote(dir string) (*remote, error) {
	repo, err := git.PlainInitWithOptions(dir, &git.PlainInitOptions{
		Bare: true, InitOptions: git.InitOptions{DefaultBranch: plumbing.NewBranchReferenceName(branch)},
	})
	if err != nil {
		return nil, fmt.Errorf("make the git remote: %w", err)
	}
	cfg, err := repo.Config()
	if err != nil {
		return nil, fmt.Errorf("make the git remote: %w", err)
	}
	// Whoever reaches this port may push; what counts is the signature, which nodes check.
	cfg.Raw.SetOption("http", "", "receivepack", "true")
	cfg.Raw.SetOption("uploadpack", "", "allowAnySHA1InWant", "true")
	if err := setConfig(repo, cfg); err != nil {
		return nil, err
	}
	return &remote{dir: dir, repo: repo}, nil
}

func setConfig(repo *git.Repository, cfg *config.Config) error {
	if err := repo.SetConfig(cfg); err != nil {
		return fmt.Errorf("configure the git remote: %w", err)
	}
	return nil
}

// commit adds a signed commit with exactly these files to the branch and returns its hash.
func (r *remote) commit(files map[string]file, by operator, message string) (string, error) {
	root := &dir{}
	for name, f := range files {
		root.add(strings.Split(name, "/"), f)
	}
	tree, err := r.store(root)
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	who := object.Signature{Name: "Operator", Email: by.name, When: time.Now().Truncate(time.Second)}
	c := &object.Commit{Author: who, Committer: who, Message: message, TreeHash: tree}
	ref := plumbing.NewBranchReferenceName(branch)
	if head, err := r.repo.Reference(ref, true); err == nil {
		c.ParentHashes = []plumbing.Hash{head.Hash()}
	}
	if err := sign(c, by); err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	obj := r.repo.Storer.NewEncodedObject()
	if err := c.Encode(obj); err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	hash, err := r.repo.Storer.SetEncodedObject(obj)
	if err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	if err := r.repo.Storer.SetReference(plumbing.NewHashReference(ref, hash)); err != nil {
		return "", fmt.Errorf("commit: %w", err)
	}
	return hash.String(), nil
}

// sign puts an SSH signature into the commit, as git does with gpg.format=ssh.
func sign(c *object.Commit, by operator) error {
	var unsigned plumbing.MemoryObject
	if err := c.EncodeWithoutSignature(&unsigned); err != nil {
		return err
	}
	body, err := unsigned.Reader()
	if err != nil {
		return err
	}
	sig, err := sshsig.Sign(body, by.signer, sshsig.HashSHA512, "git")
	if err != nil {
		return err
	}
	c.PGPSignature = string(sshsig.Armor(sig)) // go-git's name for whatever stands in gpgsig
	return nil
}

// dir is a directory on its way to becoming a tree object.
type dir struct {
	files map[string]file
	dirs  map[string]*dir
}

func (d *dir) add(path []string, f file) {
	if len(path) == 1 {
		if d.files == nil {
			d.files = map[string]file{}
		}
		d.files[path[0]] = f
		return
	}
	if d.dirs == nil {
		d.dirs = map[string]*dir{}
	}
	if d.dirs[path[0]] == nil {
		d.dirs[path[0]] = &dir{}
	}
	d.dirs[path[0]].add(path[1:], f)
}

// store writes a directory and all below it as git objects.
func (r *remote) store(d *dir) (plumbing.Hash, error) {
	var t object.Tree
	for name, f := range d.files {
		obj := r.repo.Storer.NewEncodedObject()
		obj.SetType(plumbing.BlobObject)
		w, err := obj.Writer()
		if err != nil {
			return plumbing.ZeroHash, err
		}
		if _, err := w.Write(f.data); err != nil {
			return plumbing.ZeroHash, errors.Join(err, w.Close())
		}
		if err := w.Close(); err != nil {
			return plumbing.ZeroHash, err
		}
		hash, err := r.repo.Storer.SetEncodedObject(obj)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		t.Entries = append(t.Entries, object.TreeEntry{Name: name, Mode: f.mode, Hash: hash})
	}
	for name, sub := range d.dirs {
		hash, err := r.store(sub)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		t.Entries = append(t.Entries, object.TreeEntry{Name: name, Mode: filemode.Dir, Hash: hash})
	}
	// Git sorts directories as if their names ended in a slash.
	slices.SortFunc(t.Entries, func(a, b object.TreeEntry) int { return cmp.Compare(sortName(a), sortName(b)) })
	obj := r.repo.Storer.NewEncodedObject()
	if err := t.Encode(obj); err != nil {
		return plumbing.ZeroHash, err
	}
	return r.repo.Storer.SetEncodedObject(obj)
}

func sortName(e object.TreeEntry) string {
	if e.Mode == filemode.Dir {
		return e.Name + "/"
	}
	return e.Name
}

// handler serves the repository under /control.git with git-http-backend(1): go-git's own server
// takes seconds of processor time a clone and cannot do shallow ones.
func (r *remote) handler(ctx context.Context, run command.Runner) (http.Handler, error) {
	res, err := run.Run(ctx, command.Cmd{Path: "/usr/bin/git", Args: []string{"--exec-path"}, Timeout: 10 * time.Second})
	if err != nil || res.ExitCode != 0 {
		return nil, fmt.Errorf("find git's own programs (is git installed?): %w", err)
	}
	return &cgi.Handler{
		Path: filepath.Join(strings.TrimSpace(string(res.Stdout)), "git-http-backend"),
		Env: []string{
			"GIT_PROJECT_ROOT=" + filepath.Dir(r.dir), "GIT_HTTP_EXPORT_ALL=1", "HOME=/nonexistent", "GIT_CONFIG_NOSYSTEM=1",
			"PATH=/usr/bin:/bin",
		},
	}, nil
}

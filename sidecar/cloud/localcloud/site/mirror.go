//go:build linux

package site

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"understudy/sidecar/image"
)

// mirror serves, under Debian's own name and with Debian's own signature, the packages from which
// the image was built: machines have no internet, and a role whose package is missing can install
// it all the same. What was not downloaded for the image is not there.
type mirror struct {
	release, packages string            // files of apt's lists
	packagesHash      string            // SHA-256 of packages, under which apt asks for it
	debs              map[string]string // pool file name → file
}

// newMirror serves what image.Mirror keeps for a base tree.
func newMirror(dir string) (*mirror, error) {
	lists := filepath.Join(dir, image.MirrorLists)
	m := &mirror{debs: map[string]string{}}
	for suffix, to := range map[string]*string{"_InRelease": &m.release, "_Packages": &m.packages} {
		found, err := filepath.Glob(filepath.Join(lists, "*"+suffix))
		if err != nil {
			return nil, err
		}
		if len(found) != 1 {
			return nil, fmt.Errorf("package mirror: want one *%s in %s, found %d; build the image again: make clean image", suffix, lists, len(found))
		}
		*to = found[0]
	}
	data, err := os.ReadFile(m.packages)
	if err != nil {
		return nil, fmt.Errorf("package mirror: %w", err)
	}
	sum := sha256.Sum256(data)
	m.packagesHash = hex.EncodeToString(sum[:])
	debs, err := filepath.Glob(filepath.Join(dir, image.MirrorDebs, "*.deb"))
	if err != nil {
		return nil, err
	}
	for _, deb := range debs {
		m.debs[poolName(filepath.Base(deb))] = deb
	}
	return m, nil
}

// poolName turns the name of a file in apt's cache (name_1%3a2.3_amd64.deb) into the one it has in a
// pool, where the version's epoch is left out.
func poolName(cached string) string {
	plain, err := url.PathUnescape(cached)
	if err != nil {
		plain = cached
	}
	name, rest, ok := strings.Cut(plain, "_")
	if !ok {
		return plain
	}
	if _, version, ok := strings.Cut(rest, ":"); ok {
		rest = version
	}
	return name + "_" + rest
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := path.Base(r.URL.Path)
	deb, isDeb := m.debs[name]
	switch {
	case strings.HasSuffix(r.URL.Path, "/InRelease"):
		http.ServeFile(w, r, m.release)
	case strings.Contains(r.URL.Path, "/main/binary-") && name == "Packages", name == m.packagesHash:
		http.ServeFile(w, r, m.packages)
	case isDeb && strings.Contains(r.URL.Path, "/pool/"):
		http.ServeFile(w, r, deb)
	default:
		http.NotFound(w, r)
	}
}

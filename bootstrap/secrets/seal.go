package secrets

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// ErrNotARecipient says that none of the given identities can open the file.
var ErrNotARecipient = errors.New("sealed for other recipients: use the cluster's identity, or have the bundle sealed again for this one")

var errNotAge = errors.New("damaged, or not an age file: take it from the control repo again")

// MaxSealed bounds a sealed bundle in bytes: MaxBundle, armored, with room for the header.
const MaxSealed = 6 << 20

// sealedName is how problems inside a sealed bundle name it.
const sealedName = "secrets.age"

// Seal encrypts the bundle to every recipient (the cluster, the beachhead, the operator's offline key). The result is an
// armored age file: age -d opens it, and git shows that it changed without showing what.
func Seal(b Bundle, recipients []age.Recipient) ([]byte, error) {
	if len(recipients) == 0 {
		return nil, errors.New("seal bundle: no recipients")
	}
	plain, err := b.Marshal()
	if err != nil {
		return nil, fmt.Errorf("seal %w", err)
	}
	if len(plain) > MaxBundle {
		return nil, fmt.Errorf("seal bundle: %d bytes, at most %d fit", len(plain), MaxBundle)
	}
	var out bytes.Buffer
	wrapped := armor.NewWriter(&out)
	if err := encrypt(wrapped, plain, recipients...); err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	if err := wrapped.Close(); err != nil {
		return nil, fmt.Errorf("seal bundle: %w", err)
	}
	return out.Bytes(), nil
}

// Open decrypts and parses a sealed bundle, armored or binary. Errors: ErrNotARecipient, a damaged file, or the joined
// problems of ParseBundle.
func Open(data []byte, ids ...age.Identity) (Bundle, error) {
	if len(data) > MaxSealed {
		return Bundle{}, fmt.Errorf("open %s: larger than %d bytes", sealedName, MaxSealed)
	}
	if len(ids) == 0 {
		return Bundle{}, fmt.Errorf("open %s: no identity given", sealedName)
	}
	var src io.Reader = bytes.NewReader(data)
	if bytes.HasPrefix(bytes.TrimLeft(data, " \t\r\n"), []byte(armor.Header)) {
		src = armor.NewReader(src)
	}
	plain, err := decrypt(src, MaxBundle, ids...)
	if err != nil {
		return Bundle{}, fmt.Errorf("open %s: %w", sealedName, err)
	}
	b, err := ParseBundle(sealedName, plain)
	if err != nil {
		return Bundle{}, fmt.Errorf("open %s: %w", sealedName, err)
	}
	return b, nil
}

func encrypt(dst io.Writer, plain []byte, recipients ...age.Recipient) error {
	w, err := age.Encrypt(dst, recipients...)
	if err != nil {
		return err
	}
	if _, err := w.Write(plain); err != nil {
		return err
	}
	return w.Close()
}

// decrypt returns the plain text, of at most limit bytes. It returns nothing of a file that is damaged further on.
func decrypt(src io.Reader, limit int64, ids ...age.Identity) ([]byte, error) {
	r, err := age.Decrypt(src, ids...)
	if noMatch := (*age.NoIdentityMatchError)(nil); errors.As(err, &noMatch) {
		return nil, ErrNotARecipient
	} else if err != nil {
		return nil, errNotAge // err quotes the file's first line, which is a secret where somebody forgot to seal
	}
	plain, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, errNotAge
	}
	if int64(len(plain)) > limit {
		return nil, fmt.Errorf("more than %d bytes inside", limit)
	}
	return plain, nil
}

package control

import (
	"errors"
	"fmt"
	"io"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
)

// maxAdvertisement bounds the list of branches and tags a source may send.
const maxAdvertisement = 32 << 20

// decodeRefs reads the advertisement that starts every conversation.
func decodeRefs(r io.Reader) (ad *packp.AdvRefs, err error) {
	defer contain(&err)
	ad = packp.NewAdvRefs()
	err = ad.Decode(r)
	if line, ok := errors.AsType[*pktline.ErrorLine](err); ok {
		return nil, fmt.Errorf("%w: the server says %q", ErrNoRepository, line.Text)
	}
	switch {
	case errors.Is(err, packp.ErrEmptyAdvRefs):
		return packp.NewAdvRefs(), nil // a repository without any branch
	case errors.Is(err, packp.ErrEmptyInput):
		return nil, fmt.Errorf("%w: the server sent nothing", io.ErrUnexpectedEOF)
	case err != nil:
		return nil, fmt.Errorf("list of branches: %w", err)
	}
	transport.FilterUnsupportedCapabilities(ad.Capabilities)
	return ad, nil
}

// encodeRequest writes what is wanted and what is there already. There is one round only: the few commits
// we can have are named at once.
func encodeRequest(w io.Writer, req *packp.UploadPackRequest) error {
	if err := req.Validate(); err != nil {
		return err
	}
	if err := req.UploadRequest.Encode(w); err != nil {
		return err
	}
	if err := req.UploadHaves.Encode(w, false); err != nil {
		return err
	}
	return pktline.NewEncoder(w).EncodeString("done\n")
}

// decodePack reads the answer to a request, copies the pack in it to w, and closes it.
func decodePack(body io.ReadCloser, req *packp.UploadPackRequest, w io.Writer) (u packp.ShallowUpdate, err error) {
	defer contain(&err)
	defer body.Close()
	res := packp.NewUploadPackResponse(req)
	if err := res.Decode(body); err != nil {
		return u, fmt.Errorf("answer: %w", err)
	}
	var pack io.Reader = res
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, res)
	case req.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, res)
	}
	if _, err := io.Copy(w, pack); err != nil {
		return u, fmt.Errorf("pack: %w", err)
	}
	return res.ShallowUpdate, nil
}

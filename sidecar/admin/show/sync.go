package show

import (
	"fmt"
	"strings"
	"time"

	"understudy/sidecar/admin"
)

// Synced is how the data of roles are mirrored.
func Synced(all admin.Synced, look Look) string {
	p := newPage(look)
	if len(all.Roles) == 0 {
		p.line(0, plain, "no role has data")
	}
	for _, r := range all.Roles {
		p.roleData(r)
	}
	return p.String()
}

func (p *page) roleData(r admin.RoleData) {
	switch {
	case r.Error != "":
		p.line(0, bad, fmt.Sprintf("%s: %s", r.Role, r.Error))
		return
	case r.Durable:
		p.line(0, good, fmt.Sprintf("%s: everything written on %s so far is on the other node's disk", r.Role, r.Primary))
	case r.CaughtUp:
		p.line(0, good, fmt.Sprintf("%s: written on %s, and its mirror has everything", r.Role, r.Primary))
	case r.Never:
		p.line(0, alert, fmt.Sprintf("%s: written on %s, and no mirror has caught up since its sidecar started", r.Role, r.Primary))
	default:
		p.line(0, alert, fmt.Sprintf("%s: written on %s, and its mirror has been behind for %s", r.Role, r.Primary, admin.Words(time.Duration(r.Lag))))
	}
	for _, d := range r.Directories {
		p.directory(d, r.CaughtUp)
	}
}

func (p *page) directory(d admin.Directory, caughtUp bool) {
	var parts []string
	switch {
	case d.Mirror == "":
		parts = append(parts, "nobody follows")
	case !d.Compared:
		parts = append(parts, d.Mirror+" is being compared")
	default:
		parts = append(parts, d.Mirror+" follows")
	}
	if d.Changes > 0 {
		parts = append(parts, fmt.Sprintf("%d changes and %s on their way", d.Changes, bytes(d.Bytes)))
	}
	if d.Watched > 0 {
		parts = append(parts, fmt.Sprintf("%d directories watched", d.Watched))
	}
	if d.Overflows > 0 {
		parts = append(parts, fmt.Sprintf("compared again %d times because too much happened at once", d.Overflows))
	}
	if !d.Verified.IsZero() {
		parts = append(parts, "every byte read on "+d.Verified.Local().Format("2 Jan"))
	}
	p.line(2, plain, d.Path+": "+strings.Join(parts, ", "))
	if len(d.Rotten) > 0 {
		what := "what the mirror lacks of it waits: restore it, or take it as it is by touching it"
		if caughtUp {
			what = "the mirror has the good content, and a switchover of the role brings it back"
		}
		p.line(4, bad, fmt.Sprintf("rotten on the disk, though no time changed: %q; %s", d.Rotten, what))
	}
	if d.Unwatched > 0 {
		p.line(4, alert, fmt.Sprintf("%d directories cannot be watched: %s", d.Unwatched, d.Why))
	}
	if d.Refused != "" {
		p.line(4, bad, "stopped: "+d.Refused)
	}
	if d.Trouble != "" && d.Trouble != d.Refused {
		p.line(4, alert, "the newest stream ended: "+d.Trouble)
	}
	for _, w := range d.Waiting {
		p.line(4, alert, fmt.Sprintf("%q waits: %s", w.Path, w.Why))
	}
}

// bytes are for people: 1.5 MB.
func bytes(n int64) string {
	const unit = 1000
	if n < unit {
		return fmt.Sprintf("%d bytes", n)
	}
	f, i := float64(n)/unit, 0
	for ; f >= unit && i < 4; i++ {
		f /= unit
	}
	return fmt.Sprintf("%.1f %cB", f, "kMGTP"[i])
}

package show

import (
	"testing"
	"time"

	"understudy/sidecar/admin"
)

func TestEveryStateOfAMirrorHasItsSentence(t *testing.T) {
	june := time.Date(2026, 6, 7, 12, 0, 0, 0, time.Local)
	for want, r := range map[string]admin.RoleData{
		"mail: no node has the duty now\n": {Role: "mail", Error: "no node has the duty now"},
		"mail: written on mail1, and its mirror has everything\n  /var/vmail: mail2 follows, 12 directories watched\n": {
			Role: "mail", Primary: "mail1", CaughtUp: true, Directories: []admin.Directory{{Path: "/var/vmail", Mirror: "mail2", Compared: true, Watched: 12}}},
		"mail: everything written on mail1 so far is on the other node's disk\n": {Role: "mail", Primary: "mail1", CaughtUp: true, Durable: true},
		"mail: written on mail1, and no mirror has caught up since its sidecar started\n  /var/vmail: nobody follows\n    the newest stream ended: no space left\n": {
			Role: "mail", Primary: "mail1", Never: true, Directories: []admin.Directory{{Path: "/var/vmail", Trouble: "no space left"}}},
		"mail: written on mail1, and its mirror has been behind for 3.2s\n" +
			"  /var/vmail: mail2 is being compared, 7 changes and 1.5 MB on their way, compared again 2 times because too much happened at once\n" +
			"    3 directories cannot be watched: no room\n    stopped: the source is empty\n    \"a\\nb\" waits: it cannot be read here\n": {
			Role: "mail", Primary: "mail1", Lag: admin.Duration(3200 * time.Millisecond), Directories: []admin.Directory{{
				Path: "/var/vmail", Mirror: "mail2", Changes: 7, Bytes: 1_500_000, Overflows: 2, Unwatched: 3, Why: "no room",
				Refused: "the source is empty", Trouble: "the source is empty", Waiting: []admin.Waiting{{Path: "a\nb", Why: "it cannot be read here"}},
			}}},
		"mail: written on mail1, and its mirror has everything\n  /var/vmail: mail2 follows, every byte read on 7 Jun\n" +
			"    rotten on the disk, though no time changed: [\"a\"]; the mirror has the good content, and a switchover of the role brings it back\n": {
			Role: "mail", Primary: "mail1", CaughtUp: true, Directories: []admin.Directory{{Path: "/var/vmail", Mirror: "mail2", Compared: true, Verified: june, Rotten: []string{"a"}}}},
		"mail: written on mail1, and no mirror has caught up since its sidecar started\n  /var/vmail: mail2 follows\n" +
			"    rotten on the disk, though no time changed: [\"a\"]; what the mirror lacks of it waits: restore it, or take it as it is by touching it\n": {
			Role: "mail", Primary: "mail1", Never: true, Directories: []admin.Directory{{Path: "/var/vmail", Mirror: "mail2", Compared: true, Rotten: []string{"a"}}}},
	} {
		if got := Synced(admin.Synced{Roles: []admin.RoleData{r}}, Look{}); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if got, want := Synced(admin.Synced{}, Look{}), "no role has data\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

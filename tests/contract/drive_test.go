package contract

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/digitalocean/godo"

	"understudy/sidecar/cloud/localcloud"
)

// A chapter drives one part of the API through godo, every endpoint of it at least once with success, and checks
// that godo understands the answers. The description test reads what went over the wire.
var chapters = []struct {
	name  string
	drive func(*account)
}{
	{"account and keys", driveKeys},
	{"catalogue", driveCatalogue},
	{"droplets", driveDroplets},
	{"droplet actions", driveDropletActions},
	{"images", driveImages},
	{"tags", driveTags},
	{"reserved ips", driveReservedIPs},
	{"floating ips", driveFloatingIPs},
	{"domains", driveDomains},
	{"refusals", driveRefusals},
}

func TestGodoDrivesEveryEndpoint(t *testing.T) {
	for _, ch := range chapters {
		t.Run(ch.name, func(t *testing.T) {
			ch.drive(open(t, nil))
		})
	}
}

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ops@blog.example"

func driveKeys(a *account) {
	t, ctx := a.t, a.t.Context()
	acc := must[*godo.Account](t)(a.do.Account.Get(ctx))
	if acc.DropletLimit != 25 || acc.ReservedIPLimit != 3 || acc.Status != "active" || acc.Team == nil {
		t.Errorf("got account %+v, want limits 25 and 3, active, with a team", acc)
	}
	k := must[*godo.Key](t)(a.do.Keys.Create(ctx, &godo.KeyCreateRequest{Name: "ops", PublicKey: publicKey}))
	byID := must[*godo.Key](t)(a.do.Keys.GetByID(ctx, k.ID))
	byPrint := must[*godo.Key](t)(a.do.Keys.GetByFingerprint(ctx, k.Fingerprint))
	if byID.PublicKey != publicKey || byPrint.ID != k.ID {
		t.Errorf("got keys %+v and %+v, want the one just made", byID, byPrint)
	}
	renamed := must[*godo.Key](t)(a.do.Keys.UpdateByID(ctx, k.ID, &godo.KeyUpdateRequest{Name: "night shift"}))
	if renamed.Name != "night shift" {
		t.Errorf("got name %q, want the new one", renamed.Name)
	}
	_, _, err := a.do.Keys.Create(ctx, &godo.KeyCreateRequest{Name: "again", PublicKey: publicKey})
	wantRefusal(t, err, http.StatusUnprocessableEntity, "SSH Key is already in use on your account")
	if keys := must[[]godo.Key](t)(a.do.Keys.List(ctx, nil)); len(keys) != 1 {
		t.Errorf("got %d keys, want 1", len(keys))
	}
	req := created("withkey")
	req.SSHKeys = []godo.DropletCreateSSHKey{{ID: k.ID}, {Fingerprint: k.Fingerprint}}
	must[*godo.Droplet](t)(a.do.Droplets.Create(ctx, req))
	if _, err := a.do.Keys.DeleteByFingerprint(ctx, k.Fingerprint); err != nil {
		t.Errorf("delete key: %v", err)
	}
	_, _, err = a.do.Droplets.Create(ctx, req)
	wantRefusal(t, err, http.StatusUnprocessableEntity, fmt.Sprintf("%d, %s are invalid key identifiers for Droplet creation.", k.ID, k.Fingerprint))
}

func driveCatalogue(a *account) {
	t, ctx := a.t, a.t.Context()
	regions := must[[]godo.Region](t)(a.do.Regions.List(ctx, nil))
	sizes := must[[]godo.Size](t)(a.do.Sizes.List(ctx, &godo.ListOptions{PerPage: 200}))
	if len(regions) != 5 || len(sizes) != 6 || !regions[0].Available || sizes[1].Memory != 1024 {
		t.Errorf("got %d regions and %d sizes, want the catalogue", len(regions), len(sizes))
	}
	vpcs := must[[]*godo.VPC](t)(a.do.VPCs.List(ctx, nil))
	v := must[*godo.VPC](t)(a.do.VPCs.Get(ctx, vpcs[0].ID))
	if v.RegionSlug != "lon1" || !v.Default {
		t.Errorf("got vpc %+v, want London's default", v)
	}
	req := created("inside")
	req.VPCUUID = v.ID
	must[*godo.Droplet](t)(a.do.Droplets.Create(ctx, req))
	members := must[[]*godo.VPCMember](t)(a.do.VPCs.ListMembers(ctx, v.ID, &godo.VPCListMembersRequest{ResourceType: "droplet"}, nil))
	if len(members) != 1 || members[0].Name != "inside" {
		t.Errorf("got members %+v, want the droplet", members)
	}
}

func driveDroplets(a *account) {
	t, ctx := a.t, a.t.Context()
	d, resp, err := a.do.Droplets.Create(ctx, created("web1", "blog", "intent-0001"))
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusAccepted || d.Status != "new" || !d.Locked || len(resp.Links.Actions) != 1 {
		t.Errorf("got %d %+v, want an accepted new droplet with its action", resp.StatusCode, d)
	}
	if got := a.done(resp.Links.Actions[0].ID); got != godo.ActionCompleted {
		t.Errorf("got create action %s, want completed", got)
	}
	web1 := a.active(d.ID)
	private, _ := web1.PrivateIPv4()
	public, _ := web1.PublicIPv4()
	if private == "" || public == "" || strings.Join(web1.Tags, " ") != "blog intent-0001" {
		t.Errorf("got private %q, public %q, tags %v, want all set", private, public, web1.Tags)
	}
	more := must[[]godo.Droplet](t)(a.do.Droplets.CreateMultiple(ctx, &godo.DropletMultiCreateRequest{
		Names: []string{"web2", "WEB1"}, Region: "lon1", Size: "s-1vcpu-1gb", Image: godo.DropletCreateImage{Slug: "debian-13-x64"},
		SSHKeys: []godo.DropletCreateSSHKey{}, Tags: []string{"blog"},
	}))
	for _, m := range more {
		a.active(m.ID)
	}
	byTag := must[[]godo.Droplet](t)(a.do.Droplets.ListByTag(ctx, "blog", &godo.ListOptions{PerPage: 2}))
	byName := must[[]godo.Droplet](t)(a.do.Droplets.ListByName(ctx, "web1", nil))
	all := must[[]godo.Droplet](t)(a.do.Droplets.List(ctx, &godo.ListOptions{Page: 2, PerPage: 2}))
	if len(byTag) != 2 || len(byName) != 2 || len(all) != 1 {
		t.Errorf("got %d by tag, %d by name, %d on page 2, want 2, 2 (names are not unique, case does not count), 1", len(byTag), len(byName), len(all))
	}
	if gpus := must[[]godo.Droplet](t)(a.do.Droplets.ListWithGPUs(ctx, nil)); len(gpus) != 0 {
		t.Errorf("got %d droplets with GPUs, want none", len(gpus))
	}
	must[[]godo.Action](t)(a.do.Droplets.Actions(ctx, web1.ID, nil))
	must[*godo.DropletAssociatedResources](t)(a.do.Droplets.ListAssociatedResourcesForDeletion(ctx, web1.ID))
	if _, err := a.do.Droplets.Delete(ctx, web1.ID); err != nil {
		t.Fatalf("delete: %v", err)
	}
	a.until("droplet gone", func() bool {
		_, resp, err := a.do.Droplets.Get(ctx, web1.ID)
		return err != nil && resp.StatusCode == http.StatusNotFound
	})
	if _, here := a.backend.Disks()[web1.ID]; here {
		t.Error("the API says that the droplet is gone, the machine is still there")
	}
	_, err = a.do.Droplets.Delete(ctx, web1.ID)
	wantRefusal(t, err, http.StatusNotFound, "The resource you requested could not be found.")
	must[[]godo.Action](t)(a.do.Actions.List(ctx, nil))
}

func driveDropletActions(a *account) {
	t, ctx := a.t, a.t.Context()
	d := a.boot("mail1")
	step := func(act *godo.Action, _ *godo.Response, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		if got := a.done(act.ID); got != godo.ActionCompleted {
			t.Fatalf("got %s %s, want completed", act.Type, got)
		}
		must[*godo.Action](t)(a.do.DropletActions.Get(ctx, d.ID, act.ID))
	}
	power := func(want string) {
		t.Helper()
		if got := must[*godo.Droplet](t)(a.do.Droplets.Get(ctx, d.ID)); got.Status != want || got.Locked {
			t.Fatalf("got status %s, locked %v, want %s, free", got.Status, got.Locked, want)
		}
	}
	act := a.do.DropletActions
	step(act.Shutdown(ctx, d.ID))
	power("off")
	_, _, err := act.PowerOff(ctx, d.ID)
	wantRefusal(t, err, http.StatusUnprocessableEntity, "Droplet is already powered off")
	step(act.Resize(ctx, d.ID, "s-2vcpu-4gb", true))
	step(act.PowerOn(ctx, d.ID))
	power("active")
	_, _, err = act.Resize(ctx, d.ID, "s-4vcpu-8gb", true)
	wantRefusal(t, err, http.StatusUnprocessableEntity, "Droplet is currently on. Please power it off to run this event.")
	step(act.Reboot(ctx, d.ID))
	step(act.PowerCycle(ctx, d.ID))
	power("active")
	step(act.PowerOff(ctx, d.ID))
	power("off")
	step(act.Rename(ctx, d.ID, "mail2"))
	step(act.Snapshot(ctx, d.ID, "mail-before-upgrade"))
	step(act.EnableBackups(ctx, d.ID))
	step(act.DisableBackups(ctx, d.ID))
	step(act.RebuildByImageID(ctx, d.ID, 7555620))
	step(act.RebuildByImageSlug(ctx, d.ID, "debian-13-x64"))
	power("active")
	now := must[*godo.Droplet](t)(a.do.Droplets.Get(ctx, d.ID))
	if now.Name != "mail2" || now.SizeSlug != "s-2vcpu-4gb" || now.Memory != 4096 || now.Image.Slug != "debian-13-x64" || len(now.SnapshotIDs) != 1 {
		t.Errorf("got %+v, want the new name, size, image and one image made of it", now)
	}
	if shots := must[[]godo.Image](t)(a.do.Droplets.Snapshots(ctx, d.ID, nil)); len(shots) != 1 || shots[0].Name != "mail-before-upgrade" {
		t.Errorf("got images of the droplet %+v, want one", shots)
	}
}

func driveImages(a *account) {
	t, ctx := a.t, a.t.Context()
	private := must[[]godo.Image](t)(a.do.Images.ListUser(ctx, nil))
	if len(private) != 1 || private[0].Name != "understudy-base" || private[0].Slug != "" {
		t.Fatalf("got private images %+v, want understudy-base without a slug", private)
	}
	must[[]godo.Image](t)(a.do.Images.List(ctx, nil))
	must[[]godo.Image](t)(a.do.Images.ListDistribution(ctx, nil))
	must[[]godo.Image](t)(a.do.Images.ListApplication(ctx, nil))
	must[[]godo.Image](t)(a.do.Images.ListByTag(ctx, "none", nil))
	must[*godo.Image](t)(a.do.Images.GetBySlug(ctx, "debian-13-x64"))
	id := private[0].ID
	must[*godo.Image](t)(a.do.Images.GetByID(ctx, id))
	must[*godo.Image](t)(a.do.Images.Update(ctx, id, &godo.ImageUpdateRequest{Name: "understudy-base-2"}))
	act := must[*godo.Action](t)(a.do.ImageActions.Transfer(ctx, id, &godo.ActionRequest{"type": "transfer", "region": "nyc3"}))
	a.done(act.ID)
	must[*godo.Action](t)(a.do.ImageActions.Get(ctx, id, act.ID))
	a.raw(http.MethodGet, fmt.Sprintf("/v2/images/%d/actions", id), "")
	snapshots := must[[]godo.Snapshot](t)(a.do.Snapshots.ListDroplet(ctx, nil))
	if len(snapshots) != 1 || snapshots[0].Name != "understudy-base-2" || snapshots[0].ID != fmt.Sprint(id) {
		t.Fatalf("got snapshots %+v, want the renamed image", snapshots)
	}
	must[[]godo.Snapshot](t)(a.do.Snapshots.List(ctx, nil))
	must[[]godo.Snapshot](t)(a.do.Snapshots.ListVolume(ctx, nil))
	must[*godo.Snapshot](t)(a.do.Snapshots.Get(ctx, snapshots[0].ID))
	_, _, err := a.do.Snapshots.Get(ctx, "63663980")
	wantRefusal(t, err, http.StatusBadRequest, "the resource is not a snapshot")
	d := a.boot("repo1")
	for _, name := range []string{"first", "second"} {
		a.done(must[*godo.Action](t)(a.do.DropletActions.Snapshot(ctx, d.ID, name)).ID)
	}
	made := must[[]godo.Image](t)(a.do.Images.ListUser(ctx, nil))
	if len(made) != 3 {
		t.Fatalf("got %d private images, want 3", len(made))
	}
	if _, err := a.do.Images.Delete(ctx, made[1].ID); err != nil {
		t.Errorf("delete image: %v", err)
	}
	if _, err := a.do.Snapshots.Delete(ctx, fmt.Sprint(made[2].ID)); err != nil {
		t.Errorf("delete snapshot: %v", err)
	}
}

func driveTags(a *account) {
	t, ctx := a.t, a.t.Context()
	d := a.boot("web1", "blog")
	must[*godo.Tag](t)(a.do.Tags.Create(ctx, &godo.TagCreateRequest{Name: "quarantine"}))
	res := []godo.Resource{{ID: fmt.Sprint(d.ID), Type: godo.DropletResourceType}, {ID: "7555620", Type: godo.ImageResourceType}}
	if _, err := a.do.Tags.TagResources(ctx, "quarantine", &godo.TagResourcesRequest{Resources: res}); err != nil {
		t.Fatal(err)
	}
	tag := must[*godo.Tag](t)(a.do.Tags.Get(ctx, "quarantine"))
	if tag.Resources.Count != 2 || tag.Resources.Droplets.Count != 1 || tag.Resources.Images.Count != 1 {
		t.Errorf("got %+v, want one droplet and one image", tag.Resources)
	}
	if got := must[[]godo.Droplet](t)(a.do.Droplets.ListByTag(ctx, "quarantine", nil)); len(got) != 1 {
		t.Errorf("got %d droplets by tag, want 1", len(got))
	}
	if _, err := a.do.Tags.UntagResources(ctx, "quarantine", &godo.UntagResourcesRequest{Resources: res[1:]}); err != nil {
		t.Fatal(err)
	}
	if tags := must[[]godo.Tag](t)(a.do.Tags.List(ctx, nil)); len(tags) != 2 {
		t.Errorf("got %d tags, want 2", len(tags))
	}
	if _, err := a.do.Tags.Delete(ctx, "quarantine"); err != nil {
		t.Fatal(err)
	}
	if got := must[*godo.Droplet](t)(a.do.Droplets.Get(ctx, d.ID)); strings.Join(got.Tags, " ") != "blog" {
		t.Errorf("got tags %v, want the deleted one gone from the droplet", got.Tags)
	}
	status, body := a.raw(http.MethodPost, "/v2/tags", `{"name": "здорово"}`)
	if status != http.StatusBadRequest || !strings.Contains(string(body), "root_causes") {
		t.Errorf("got %d %s, want 400 with root causes", status, body)
	}
}

func driveReservedIPs(a *account) {
	t, ctx := a.t, a.t.Context()
	lb1, lb2 := a.boot("lb1"), a.boot("lb2")
	ip := must[*godo.ReservedIP](t)(a.do.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{Region: "lon1"}))
	if ip.Droplet != nil || ip.Locked {
		t.Errorf("got %+v, want an address of nobody", ip)
	}
	holder := func() int {
		t.Helper()
		got := must[*godo.ReservedIP](t)(a.do.ReservedIPs.Get(ctx, ip.IP))
		if got.Droplet == nil {
			return 0
		}
		return got.Droplet.ID
	}
	for _, target := range []int{lb1.ID, lb2.ID} {
		act := must[*godo.Action](t)(a.do.ReservedIPActions.Assign(ctx, ip.IP, target))
		a.done(act.ID)
		must[*godo.Action](t)(a.do.ReservedIPActions.Get(ctx, ip.IP, act.ID))
		if got := holder(); got != target {
			t.Errorf("got holder %d, want %d", got, target)
		}
	}
	// DigitalOcean answers so even for the droplet that has this very address.
	_, _, err := a.do.ReservedIPActions.Assign(ctx, ip.IP, lb2.ID)
	wantRefusal(t, err, http.StatusUnprocessableEntity, "")
	a.done(must[*godo.Action](t)(a.do.ReservedIPActions.Unassign(ctx, ip.IP)).ID)
	if got := holder(); got != 0 {
		t.Errorf("got holder %d, want nobody", got)
	}
	if acts := must[[]godo.Action](t)(a.do.ReservedIPActions.List(ctx, ip.IP, nil)); len(acts) != 4 {
		t.Errorf("got %d actions, want reserve, two assigns, unassign", len(acts))
	}
	second, resp, err := a.do.ReservedIPs.Create(ctx, &godo.ReservedIPCreateRequest{DropletID: lb1.ID})
	if err != nil {
		t.Fatal(err)
	}
	if !second.Locked || resp.StatusCode != http.StatusAccepted {
		t.Errorf("got %d %+v, want an address that is being assigned", resp.StatusCode, second)
	}
	a.until("address assigned", func() bool {
		got := must[*godo.ReservedIP](t)(a.do.ReservedIPs.Get(ctx, second.IP))
		return got.Droplet != nil && got.Droplet.ID == lb1.ID
	})
	if ips := must[[]godo.ReservedIP](t)(a.do.ReservedIPs.List(ctx, nil)); len(ips) != 2 {
		t.Errorf("got %d addresses, want 2", len(ips))
	}
	if _, err := a.do.ReservedIPs.Delete(ctx, ip.IP); err != nil {
		t.Fatal(err)
	}
	a.until("address given up", func() bool {
		_, resp, err := a.do.ReservedIPs.Get(ctx, ip.IP)
		return err != nil && resp.StatusCode == http.StatusNotFound
	})
}

func driveFloatingIPs(a *account) {
	t, ctx := a.t, a.t.Context()
	lb1 := a.boot("lb1")
	ip := must[*godo.FloatingIP](t)(a.do.FloatingIPs.Create(ctx, &godo.FloatingIPCreateRequest{Region: "lon1"}))
	act := must[*godo.Action](t)(a.do.FloatingIPActions.Assign(ctx, ip.IP, lb1.ID))
	a.done(act.ID)
	got := must[*godo.Action](t)(a.do.FloatingIPActions.Get(ctx, ip.IP, act.ID))
	if got.ResourceType != "floating_ip" || got.Type != "assign_ip" {
		t.Errorf("got action %+v, want assign_ip on a floating_ip", got)
	}
	must[[]godo.FloatingIP](t)(a.do.FloatingIPs.List(ctx, nil))
	if same := must[*godo.FloatingIP](t)(a.do.FloatingIPs.Get(ctx, ip.IP)); same.Droplet == nil || same.Droplet.ID != lb1.ID {
		t.Errorf("got %+v, want it with lb1", same)
	}
	a.done(must[*godo.Action](t)(a.do.FloatingIPActions.Unassign(ctx, ip.IP)).ID)
	must[[]godo.Action](t)(a.do.FloatingIPActions.List(ctx, ip.IP, nil))
	if _, err := a.do.FloatingIPs.Delete(ctx, ip.IP); err != nil {
		t.Error(err)
	}
}

func driveDomains(a *account) {
	t, ctx := a.t, a.t.Context()
	const zone = "blog.example"
	must[*godo.Domain](t)(a.do.Domains.Create(ctx, &godo.DomainCreateRequest{Name: zone, IPAddress: "203.0.113.10"}))
	must[[]godo.Domain](t)(a.do.Domains.List(ctx, nil))
	d := must[*godo.Domain](t)(a.do.Domains.Get(ctx, zone))
	if d.TTL != 1800 || !strings.Contains(d.ZoneFile, "blog.example. 1800 IN A 203.0.113.10") {
		t.Errorf("got %+v, want the A record in the zone file", d)
	}
	edits := []godo.DomainRecordEditRequest{
		{Type: "A", Name: "www", Data: "203.0.113.10", TTL: 30},
		{Type: "A", Name: "www", Data: "203.0.113.10", TTL: 30},
		{Type: "AAAA", Name: "www", Data: "2001:db8::1"},
		{Type: "CNAME", Name: "news", Data: "www.blog.example.", TTL: 60},
		{Type: "MX", Name: "@", Data: "mail.blog.example.", Priority: 10},
		{Type: "TXT", Name: "_dmarc", Data: "v=DMARC1; p=none"},
		{Type: "SRV", Name: "_imaps._tcp", Data: "mail.blog.example.", Port: 993, Weight: 1},
		{Type: "CAA", Name: "@", Data: "letsencrypt.org.", Tag: "issue"},
		{Type: "NS", Name: "sub", Data: "ns1.other.example."},
	}
	var ids []int
	for _, e := range edits {
		ids = append(ids, must[*godo.DomainRecord](t)(a.do.Domains.CreateRecord(ctx, zone, &e)).ID)
	}
	must[*godo.DomainRecord](t)(a.do.Domains.Record(ctx, zone, ids[0]))
	changed := must[*godo.DomainRecord](t)(a.do.Domains.EditRecord(ctx, zone, ids[0], &godo.DomainRecordEditRequest{Type: "A", Data: "203.0.113.11"}))
	if changed.Name != "www" || changed.Data != "203.0.113.11" || changed.TTL != 30 {
		t.Errorf("got %+v, want only the data changed", changed)
	}
	if status, body := a.raw(http.MethodPatch, fmt.Sprintf("/v2/domains/%s/records/%d", zone, ids[2]), `{"type":"AAAA","ttl":600}`); status != http.StatusOK {
		t.Errorf("patch: got %d %s, want 200", status, body)
	}
	_, _, err := a.do.Domains.EditRecord(ctx, zone, ids[3], &godo.DomainRecordEditRequest{Type: "CNAME", TTL: 300})
	wantRefusal(t, err, http.StatusUnprocessableEntity, "Data needs to end with a dot (.)")
	all := must[[]godo.DomainRecord](t)(a.do.Domains.Records(ctx, zone, &godo.ListOptions{PerPage: 200}))
	if want := 1 + 3 + 1 + len(edits); len(all) != want {
		t.Errorf("got %d records, want SOA, 3 NS, A and %d", len(all), len(edits))
	}
	named := must[[]godo.DomainRecord](t)(a.do.Domains.RecordsByName(ctx, zone, "www.blog.example", nil))
	typed := must[[]godo.DomainRecord](t)(a.do.Domains.RecordsByType(ctx, zone, "MX", nil))
	both := must[[]godo.DomainRecord](t)(a.do.Domains.RecordsByTypeAndName(ctx, zone, "A", "www.blog.example", nil))
	if len(named) != 3 || len(typed) != 1 || typed[0].Data != "mail.blog.example" || len(both) != 2 {
		t.Errorf("got %d, %+v, %d, want 3 by name, MX without the final dot, 2 by both", len(named), typed, len(both))
	}
	if _, err := a.do.Domains.DeleteRecord(ctx, zone, ids[1]); err != nil {
		t.Error(err)
	}
	if _, err := a.do.Domains.Delete(ctx, zone); err != nil {
		t.Error(err)
	}
}

// driveRefusals collects the ways in which requests are turned down.
func driveRefusals(a *account) {
	t, ctx := a.t, a.t.Context()
	_, _, err := a.client("dop_v1_wrong").Droplets.List(ctx, nil)
	wantRefusal(t, err, http.StatusUnauthorized, "Unable to authenticate you.")
	_, _, err = a.do.Droplets.Get(ctx, 1)
	wantRefusal(t, err, http.StatusNotFound, "The resource you requested could not be found.")
	_, err = a.do.Droplets.DeleteByTag(ctx, "blog")
	wantRefusal(t, err, http.StatusForbidden, "")
	_, _, err = a.do.DropletActions.PowerOffByTag(ctx, "blog")
	wantRefusal(t, err, http.StatusForbidden, "")
	for fault, want := range map[localcloud.FaultKind]int{
		localcloud.RateLimited: http.StatusTooManyRequests, localcloud.ServerError: http.StatusServiceUnavailable,
		localcloud.Unauthorized: http.StatusUnauthorized,
	} {
		in := a.server.Inject(localcloud.Fault{Kind: fault, Times: 1})
		_, _, err = a.do.Droplets.List(ctx, nil)
		wantRefusal(t, err, want, "")
		in.Lift()
	}
}

package localcloud

// route is one endpoint. Its scope lists what a scoped token must hold, all of it; they are DigitalOcean's, and the
// contract tests compare them with its description.
type route struct {
	method, pattern string
	scope           []string
	handle          handler
}

func need(scopes ...string) []string { return scopes }

// routes is every endpoint there is. DigitalOcean has many more; a request for one of those is a 404 and a warning.
func (s *Server) routes() []route {
	all := []route{
		{"GET", "/v2/account", need("account:read"), s.getAccount},
		{"GET", "/v2/account/keys", need("ssh_key:read"), s.listKeys},
		{"POST", "/v2/account/keys", need("ssh_key:create"), s.createKey},
		{"GET", "/v2/account/keys/{key}", need("ssh_key:read"), s.getKey},
		{"PUT", "/v2/account/keys/{key}", need("ssh_key:update"), s.renameKey},
		{"DELETE", "/v2/account/keys/{key}", need("ssh_key:delete"), s.deleteKey},
		{"GET", "/v2/actions", need("actions:read"), s.listActions},
		{"GET", "/v2/actions/{action}", need("actions:read"), s.getAction},
		{"GET", "/v2/regions", need("regions:read"), s.listRegions},
		{"GET", "/v2/sizes", need("sizes:read", "regions:read"), s.listSizes},
		{"GET", "/v2/vpcs", need("vpc:read"), s.listVPCs},
		{"GET", "/v2/vpcs/{vpc}", need("vpc:read"), s.getVPC},
		{"GET", "/v2/vpcs/{vpc}/members", need("vpc:read"), s.listVPCMembers},
	}
	all = append(all, s.dropletRoutes()...)
	all = append(all, s.imageRoutes()...)
	all = append(all, s.tagAndDomainRoutes()...)
	all = append(all, s.ipRoutes("/v2/reserved_ips", reservedNames)...)
	return append(all, s.ipRoutes("/v2/floating_ips", floatingNames)...)
}

func (s *Server) dropletRoutes() []route {
	return []route{
		{"GET", "/v2/droplets", need("droplet:read"), s.listDroplets},
		{"POST", "/v2/droplets", need("droplet:create"), s.createDroplets},
		{"DELETE", "/v2/droplets", need("droplet:delete"), s.refuseDeleteByTag},
		{"GET", "/v2/droplets/{droplet}", need("droplet:read"), s.getDroplet},
		{"DELETE", "/v2/droplets/{droplet}", need("droplet:delete"), s.deleteDroplet},
		{"GET", "/v2/droplets/{droplet}/snapshots", need("droplet:read"), s.listDropletSnapshots},
		{"GET", "/v2/droplets/{droplet}/actions", need("droplet:read"), s.listDropletActions},
		{"POST", "/v2/droplets/{droplet}/actions", need("droplet:update"), s.createDropletAction},
		{"GET", "/v2/droplets/{droplet}/actions/{action}", need("droplet:read"), s.getDropletAction},
		{"POST", "/v2/droplets/actions", need("droplet:update"), s.refuseActionByTag},
		{"GET", "/v2/droplets/{droplet}/destroy_with_associated_resources", need("droplet:read"), s.listAssociated},
	}
}

func (s *Server) imageRoutes() []route {
	return []route{
		{"GET", "/v2/images", need("image:read"), s.listImages},
		{"GET", "/v2/images/{image}", need("image:read"), s.getImage},
		{"PUT", "/v2/images/{image}", need("image:update"), s.updateImage},
		{"DELETE", "/v2/images/{image}", need("image:delete"), s.deleteImage},
		{"GET", "/v2/images/{image}/actions", need("image:read"), s.listImageActions},
		{"POST", "/v2/images/{image}/actions", need("image:update"), s.createImageAction},
		{"GET", "/v2/images/{image}/actions/{action}", need("image:read"), s.getImageAction},
		{"GET", "/v2/snapshots", need("snapshot:read"), s.listSnapshots},
		{"GET", "/v2/snapshots/{image}", need("snapshot:read", "block_storage_snapshot:read"), s.getSnapshot},
		{"DELETE", "/v2/snapshots/{image}", need("image:delete", "snapshot:delete"), s.deleteSnapshot},
	}
}

func (s *Server) tagAndDomainRoutes() []route {
	return []route{
		{"GET", "/v2/tags", need("tag:read"), s.listTags},
		{"POST", "/v2/tags", need("tag:create"), s.createTag},
		{"GET", "/v2/tags/{tag}", need("tag:read"), s.getTag},
		{"DELETE", "/v2/tags/{tag}", need("tag:delete"), s.deleteTag},
		{"POST", "/v2/tags/{tag}/resources", need("tag:create"), s.tagResources},
		{"DELETE", "/v2/tags/{tag}/resources", need("tag:delete"), s.untagResources},
		{"GET", "/v2/domains", need("domain:read"), s.listDomains},
		{"POST", "/v2/domains", need("domain:create"), s.createDomain},
		{"GET", "/v2/domains/{domain}", need("domain:read"), s.getDomain},
		{"DELETE", "/v2/domains/{domain}", need("domain:delete"), s.deleteDomain},
		{"GET", "/v2/domains/{domain}/records", need("domain:read"), s.listRecords},
		{"POST", "/v2/domains/{domain}/records", need("domain:create"), s.createRecord},
		{"GET", "/v2/domains/{domain}/records/{record}", need("domain:read"), s.getRecord},
		{"PATCH", "/v2/domains/{domain}/records/{record}", need("domain:update"), s.updateRecord},
		{"PUT", "/v2/domains/{domain}/records/{record}", need("domain:update"), s.updateRecord},
		{"DELETE", "/v2/domains/{domain}/records/{record}", need("domain:update"), s.deleteRecord},
	}
}

// ipRoutes are the endpoints of reserved IPs under either of their two names.
func (s *Server) ipRoutes(base string, n ipNames) []route {
	return []route{
		{"GET", base, need("reserved_ip:read"), func(c *call) (reply, error) { return s.listIPs(c, n) }},
		{"POST", base, need("reserved_ip:create"), func(c *call) (reply, error) { return s.createIP(c, n) }},
		{"GET", base + "/{ip}", need("reserved_ip:read"), func(c *call) (reply, error) { return s.getIP(c, n) }},
		{"DELETE", base + "/{ip}", need("reserved_ip:delete"), s.deleteIP},
		{"GET", base + "/{ip}/actions", need("reserved_ip:read"), func(c *call) (reply, error) { return s.listIPActions(c, n) }},
		{"POST", base + "/{ip}/actions", need("reserved_ip:update"), func(c *call) (reply, error) { return s.createIPAction(c, n) }},
		{"GET", base + "/{ip}/actions/{action}", need("reserved_ip:read"), func(c *call) (reply, error) { return s.getIPAction(c, n) }},
	}
}

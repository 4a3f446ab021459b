package role

import (
	"fmt"
	"strings"
	"testing"
)

// valid is a roster with every key there is. The rules below each break it in one place.
const valid = `cluster: blog
domain: blog.example
provider:
  digitalocean: {region: lon1, size: [s-1, s-2], image: base, ssh_keys: [ops]}
  hetzner: {region: fsn1, size: cx22, image: base}
ledger: {s3: {endpoint: https://s3.store.example, bucket: blog-understudy, region: eu}}
dns:
  - rfc2136: {server: "192.0.2.53:53", zone: example, key: ddns, algorithm: hmac-sha512}
  - digitalocean: {zone: blog.example}
roles:
  lb:
    nodes: lb[1-2]
    address: {reserved_ip: 203.0.113.10, names: ["@", www]}
    health: {units: haproxy.service, http: http://127.0.0.1:8404/healthz}
    needs: [{role: web, what: a page, http: http://web.blog.example/}]
  web:
    nodes: ["web[09-10]", web-a]
    names: web
    health: {command: [/usr/bin/check, -q]}
    needs:
      - {role: repo, what: package blog, http: http://apt.blog.example/Packages, contains: "Package: blog"}
  mail:
    nodes: [mx-a, mx-b]
    address: {vip: 10.0.0.10/24, interface: eth1, names: [mail], mx: 10}
    data: [{path: /var/vmail, owner: vmail}, {path: /srv/mail}]
    primary_units: [postfix.service, dovecot.service]
    health: {tcp: [127.0.0.1:25, "[::1]:993"]}
    standby_health: {units: [ssh.service]}
  repo:
    nodes: apt1
    names: [apt]
    data: [{path: /srv/apt}]
    publish: /usr/local/sbin/publish
    understudy: none
beachhead: {provider: hetzner, when_provider_silent: move}
timings: {beat: 200ms, missed_beats: 4, replacement_hold: 20s, startup_timeout: 5m, beachhead_wait: 20m}
`

// rules breaks valid in one place each and names every problem that must be told, and no other.
var rules = []struct {
	claim    string
	old, new string
	want     []string // line:column: message
}{
	{"unknown keys get a hint",
		"cluster: blog", "cluster: blog\nclustr: x",
		[]string{`2:1: unknown key "clustr"; did you mean cluster?`}},
	{"unknown keys far from any get the list",
		"cluster: blog", "cluster: blog\nweather: fine",
		[]string{`2:1: unknown key "weather"; known: cluster, domain, provider, ledger, dns, roles, beachhead, timings`}},
	{"a key stands once",
		"domain: blog.example", "domain: blog.example\ncluster: again",
		[]string{`3:1: "cluster" stands here twice, first on line 1`}},
	{"a role stands once",
		"  repo:\n    nodes: apt1", "  web: {nodes: [a, b]}\n  repo:\n    nodes: apt1",
		[]string{`29:3: roles: "web" stands here twice, first on line 16`}},
	{"keys are text",
		"cluster: blog", "cluster: blog\n1: x",
		[]string{`2:1: a key must be text, not "1" without quotes`}},
	{"keys are single words",
		"cluster: blog", "cluster: blog\n? [a]\n: x",
		[]string{"2:3: a key must be text, not a list"}},
	{"required keys are missed",
		"cluster: blog\n", "",
		[]string{"1:1: cluster is missing"}},
	{"mappings are mappings",
		"beachhead: {provider: hetzner, when_provider_silent: move}", "beachhead: hetzner",
		[]string{"35:12: beachhead: must be a mapping of keys to values, not text"}},
	{"lists are lists",
		"data: [{path: /srv/apt}]", "data: {path: /srv/apt}",
		[]string{"32:11: roles.repo.data: must be a list, not a mapping"}},
	{"lists are not empty",
		"names: [apt]", "names: []",
		[]string{"31:12: roles.repo.names: is an empty list; leave the key out instead"}},
	{"text is no number",
		"cluster: blog", "cluster: 12",
		[]string{`1:10: cluster: must be text, not "12" without quotes`}},
	{"text is not nothing",
		"cluster: blog", "cluster:",
		[]string{"1:9: cluster: must be text, not empty"}},
	{"text is not empty",
		"cluster: blog", `cluster: ""`,
		[]string{"1:10: cluster: must not be empty"}},
	{"text is no list",
		"cluster: blog", "cluster: [blog]",
		[]string{"1:10: cluster: must be text, not a list"}},
	{"text is one line",
		"what: a page", "what: \"a\\npage\"",
		[]string{"15:31: roles.lb.needs.what: must be one line of printable text, not \"a\\npage\""}},
	{"long words are cut",
		"cluster: blog", "cluster: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		[]string{`1:10: cluster: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is not a DNS label: 1 to 63 lower-case letters, digits and inner hyphens`}},
	{"lists repeat nothing",
		"size: [s-1, s-2]", "size: [s-1, s-1]",
		[]string{`4:44: provider.digitalocean.size: "s-1" stands here twice`}},
	{"aliases are refused",
		"cluster: blog\ndomain: blog.example", "cluster: &c blog\ndomain: *c",
		[]string{
			"1:10: the anchor &c is refused: write things out where they belong",
			"2:9: the alias *c is refused: write it out",
		}},
	{"aliases as keys are refused",
		"cluster: blog\ndomain: blog.example", "cluster: &c blog\ndomain: blog.example\n*c : x",
		[]string{
			"1:10: the anchor &c is refused: write things out where they belong",
			"3:1: the alias *c is refused: write it out",
		}},
	{"merge keys are refused",
		"hetzner: {region: fsn1, size: cx22, image: base}", "hetzner: {<<: {region: fsn1}, region: fsn1, size: cx22, image: base}",
		[]string{"5:13: the merge key << is refused: write it out"}},
	{"tags are refused",
		"cluster: blog", "cluster: !!str blog",
		[]string{`1:10: the tag "!!str" is refused: use quotes for text`}},
	{"the cluster is a label",
		"cluster: blog", "cluster: Blog",
		[]string{`1:10: cluster: "Blog" is not a DNS label: 1 to 63 lower-case letters, digits and inner hyphens`}},
	{"the domain is a domain",
		"domain: blog.example", "domain: blog.example.",
		[]string{`2:9: domain: "blog.example." is not a domain in lower case, without a final dot`}},
	{"a domain fits in 253 letters",
		"domain: blog.example", "domain: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
		[]string{`2:9: domain: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxx"… is not a domain in lower case, without a final dot`}},
	{"the domain is not the cluster's own",
		"domain: blog.example", "domain: internal",
		[]string{
			"2:9: domain: names below internal are the cluster's own (<node>.<cluster>.internal)",
			`8:46: dns.rfc2136.zone: the domain "internal" is not in the zone "example"`,
			`9:26: dns.digitalocean.zone: the domain "internal" is not in the zone "blog.example"`,
		}},
	{"providers are known",
		"  hetzner: {region", "  hetznr: {region",
		[]string{`5:3: provider: unknown kind "hetznr"; did you mean hetzner?`}},
	{"there is a provider",
		"provider:\n  digitalocean: {region: lon1, size: [s-1, s-2], image: base, ssh_keys: [ops]}\n  hetzner: {region: fsn1, size: cx22, image: base}", "provider: {}",
		[]string{"3:11: provider: must name digitalocean, hetzner or local"}},
	{"a provider has a region",
		"{region: fsn1, size: cx22, image: base}", "{size: cx22, image: base}",
		[]string{"5:12: provider.hetzner: region is missing"}},
	{"a provider has a size",
		"{region: fsn1, size: cx22, image: base}", "{region: fsn1, image: base}",
		[]string{"5:12: provider.hetzner: size is missing"}},
	{"a provider has an image",
		"{region: fsn1, size: cx22, image: base}", "{region: fsn1, size: cx22}",
		[]string{"5:12: provider.hetzner: image is missing"}},
	{"a region is a name",
		"region: fsn1", `region: "*"`,
		[]string{`5:21: provider.hetzner.region: "*" is not a name of letters, digits, spaces and . _ : @ / + -`}},
	{"a size is a name",
		"size: cx22", "size: -cx22",
		[]string{`5:33: provider.hetzner.size: "-cx22" is not a name of letters, digits, spaces and . _ : @ / + -`}},
	{"an image is a name",
		"size: cx22, image: base", `size: cx22, image: "a;b"`,
		[]string{`5:46: provider.hetzner.image: "a;b" is not a name of letters, digits, spaces and . _ : @ / + -`}},
	{"an SSH key is a name",
		"ssh_keys: [ops]", `ssh_keys: ["ops'"]`,
		[]string{`4:74: provider.digitalocean.ssh_keys: "ops'" is not a name of letters, digits, spaces and . _ : @ / + -`}},
	{"nodes live at one provider",
		"beachhead: {provider: hetzner, when_provider_silent: move}\n", "",
		[]string{"5:3: provider: the nodes live at digitalocean already (line 4); beside it stands the beachhead's provider only"}},
	{"a third provider has no use",
		"  hetzner: {region: fsn1, size: cx22, image: base}\n", "  hetzner: {region: fsn1, size: cx22, image: base}\n  local: {region: a, size: b, image: c}\n",
		[]string{"6:3: provider: the nodes live at digitalocean already (line 4); beside it stands the beachhead's provider only"}},
	{"the beachhead is elsewhere",
		"  digitalocean: {region: lon1, size: [s-1, s-2], image: base, ssh_keys: [ops]}\n", "",
		[]string{"34:12: beachhead: must be at another provider than the nodes, or both are lost at once"}},
	{"the beachhead has a provider",
		"{provider: hetzner, when", "{when",
		[]string{"35:12: beachhead: provider is missing"}},
	{"the beachhead's provider is known",
		"{provider: hetzner, when", "{provider: aws, when",
		[]string{`35:23: beachhead.provider: "aws" is not digitalocean, hetzner or local`}},
	{"a silent provider has two answers",
		"silent: move", "silent: panic",
		[]string{`35:54: beachhead.when_provider_silent: "panic" is not ask or move`}},
	{"the ledger is in S3",
		"ledger: {s3:", "ledger: {gcs:",
		[]string{
			"6:9: ledger: s3 is missing",
			`6:10: ledger: unknown key "gcs"; known: s3`,
		}},
	{"the ledger has an endpoint",
		"endpoint: https://s3.store.example, ", "",
		[]string{"6:14: ledger.s3: endpoint is missing"}},
	{"the ledger has a bucket",
		", bucket: blog-understudy", "",
		[]string{"6:14: ledger.s3: bucket is missing"}},
	{"the endpoint is a URL",
		"https://s3.store.example", "s3.store.example",
		[]string{`6:25: ledger.s3.endpoint: "s3.store.example" is not an http or https URL without a user or a #fragment`}},
	{"the endpoint is safe from others",
		"https://s3.store.example", "http://s3.store.example",
		[]string{"6:25: ledger.s3.endpoint: must be https; http is for a loopback or private address"}},
	{"the endpoint is safe from others on a public address",
		"https://s3.store.example", "http://203.0.113.1",
		[]string{"6:25: ledger.s3.endpoint: must be https; http is for a loopback or private address"}},
	{"the endpoint ends after the host",
		"https://s3.store.example", "https://s3.store.example/bucket",
		[]string{"6:25: ledger.s3.endpoint: must end after the host; the bucket has a key of its own"}},
	{"the endpoint has no query",
		"https://s3.store.example", `"https://s3.store.example?x=1"`,
		[]string{"6:25: ledger.s3.endpoint: must end after the host; the bucket has a key of its own"}},
	{"the bucket is a bucket",
		"bucket: blog-understudy", "bucket: Blog_",
		[]string{`6:59: ledger.s3.bucket: "Blog_" is not a bucket name: 3 to 63 lower-case letters, digits, dots and hyphens`}},
	{"the store's region is a name",
		"region: eu", `region: "*"`,
		[]string{`6:84: ledger.s3.region: "*" is not a name of letters, digits, spaces and . _ : @ / + -`}},
	{"DNS places are known",
		"- digitalocean: {zone", "- route53: {zone",
		[]string{`9:5: dns: unknown kind "route53"; known: rfc2136, digitalocean`}},
	{"a DNS place is one thing",
		"  - digitalocean: {zone: blog.example}", "  - {digitalocean: {zone: blog.example}, rfc2136: {}}",
		[]string{"9:5: dns: each item says exactly one of rfc2136 or digitalocean"}},
	{"a zone is published once at a place",
		"  - digitalocean: {zone: blog.example}", "  - digitalocean: {zone: blog.example}\n  - digitalocean: {zone: blog.example}",
		[]string{"10:5: dns: the zone blog.example at digitalocean is taken by dns on line 9"}},
	{"a DNS place has a zone",
		"- digitalocean: {zone: blog.example}", "- digitalocean: {}",
		[]string{"9:19: dns.digitalocean: zone is missing"}},
	{"a zone is a domain",
		"- digitalocean: {zone: blog.example}", "- digitalocean: {zone: Example}",
		[]string{`9:26: dns.digitalocean.zone: "Example" is not a domain in lower case, without a final dot`}},
	{"the domain is in the zone",
		"- digitalocean: {zone: blog.example}", "- digitalocean: {zone: other.example}",
		[]string{`9:26: dns.digitalocean.zone: the domain "blog.example" is not in the zone "other.example"`}},
	{"half a label is no parent zone",
		"- digitalocean: {zone: blog.example}", "- digitalocean: {zone: log.example}",
		[]string{`9:26: dns.digitalocean.zone: the domain "blog.example" is not in the zone "log.example"`}},
	{"a name server has an address",
		`server: "192.0.2.53:53", `, "",
		[]string{"8:14: dns.rfc2136: server is missing"}},
	{"a name server's address has a port",
		`"192.0.2.53:53"`, "192.0.2.53",
		[]string{`8:23: dns.rfc2136.server: "192.0.2.53" is not host:port`}},
	{"a name server's port is one",
		`"192.0.2.53:53"`, `"192.0.2.53:0"`,
		[]string{`8:23: dns.rfc2136.server: "192.0.2.53:0" is not host:port`}},
	{"a name server's name has a port too",
		`"192.0.2.53:53"`, "ns.example:65536",
		[]string{`8:23: dns.rfc2136.server: "ns.example:65536" is not host:port`}},
	{"a name server has a key",
		"key: ddns, ", "",
		[]string{"8:14: dns.rfc2136: key is missing"}},
	{"a key is a domain name",
		"key: ddns", "key: DDNS",
		[]string{`8:60: dns.rfc2136.key: "DDNS" is not the name of a TSIG key, a domain name`}},
	{"the algorithm is known",
		"hmac-sha512", "hmac-md5",
		[]string{`8:77: dns.rfc2136.algorithm: "hmac-md5" is not hmac-sha256, hmac-sha384 or hmac-sha512`}},
	{"only a name server has a key",
		"- digitalocean: {zone: blog.example}", "- digitalocean: {zone: blog.example, key: ddns}",
		[]string{`9:40: dns.digitalocean: unknown key "key"; known: zone`}},
	{"there is a role",
		"roles:\n  lb:\n    nodes: lb[1-2]\n    address: {reserved_ip: 203.0.113.10, names: [\"@\", www]}\n    health: {units: haproxy.service, http: http://127.0.0.1:8404/healthz}\n    needs: [{role: web, what: a page, http: http://web.blog.example/}]\n  web:\n    nodes: [\"web[09-10]\", web-a]\n    names: web\n    health: {command: [/usr/bin/check, -q]}\n    needs:\n      - {role: repo, what: package blog, http: http://apt.blog.example/Packages, contains: \"Package: blog\"}\n  mail:\n    nodes: [mx-a, mx-b]\n    address: {vip: 10.0.0.10/24, interface: eth1, names: [mail], mx: 10}\n    data: [{path: /var/vmail, owner: vmail}, {path: /srv/mail}]\n    primary_units: [postfix.service, dovecot.service]\n    health: {tcp: [127.0.0.1:25, \"[::1]:993\"]}\n    standby_health: {units: [ssh.service]}\n  repo:\n    nodes: apt1\n    names: [apt]\n    data: [{path: /srv/apt}]\n    publish: /usr/local/sbin/publish\n    understudy: none\n", "roles: {}\n",
		[]string{"10:8: roles: there is no role"}},
	{"a role's name fits Puppet and DNS",
		"  lb:\n", "  l-b:\n",
		[]string{`11:3: roles: "l-b" is not a role name: lower-case letters and digits, a letter first (it becomes a Puppet class and a DNS label)`}},
	{"no role is called common",
		"  lb:\n", "  common:\n",
		[]string{"11:3: roles: common is what belongs to every role, in Hiera and in the secrets; choose another name"}},
	{"a role has nodes",
		"    nodes: lb[1-2]\n", "",
		[]string{"12:5: roles.lb: nodes is missing"}},
	{"a hostname has one role",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, lb2]",
		[]string{"23:19: roles.mail.nodes: the hostname lb2 is taken by roles.lb.nodes on line 12"}},
	{"a hostname stands once in a role",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, mx-a]",
		[]string{"23:19: roles.mail.nodes: the hostname mx-a is taken by roles.mail.nodes on line 23"}},
	{"patterns claim their hostnames",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, web10]",
		[]string{"23:19: roles.mail.nodes: the hostname web10 is taken by roles.web.nodes on line 17"}},
	{"a hostname is a label",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, mx_b]",
		[]string{`23:19: roles.mail.nodes: "mx_b" is not a hostname: 1 to 63 lower-case letters, digits and inner hyphens`}},
	{"a hostname is lower case",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, MX-b]",
		[]string{`23:19: roles.mail.nodes: "MX-b" is not a hostname: 1 to 63 lower-case letters, digits and inner hyphens`}},
	{"a hostname has no domain",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, mx-b.blog.example]",
		[]string{`23:19: roles.mail.nodes: "mx-b.blog.example": a node is named without its domain`}},
	{"a hostname has 63 letters at most",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb]",
		[]string{`23:19: roles.mail.nodes: "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"… is not a hostname: 1 to 63 lower-case letters, digits and inner hyphens`}},
	{"a hostname is not localhost",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, localhost]",
		[]string{"23:19: roles.mail.nodes: localhost is the name of a machine that has none yet"}},
	{"a pattern writes hostnames",
		"nodes: lb[1-2]", "nodes: -lb[1-2]",
		[]string{`12:12: roles.lb.nodes: "-lb[1-2]": "-lb1" is not a hostname: 1 to 63 lower-case letters, digits and inner hyphens`}},
	{"a pattern has one range",
		"nodes: lb[1-2]", "nodes: lb[1-2][1-2]",
		[]string{`12:12: roles.lb.nodes: "lb[1-2][1-2]" is not a host pattern: write one range, such as web[1-2] or web[01-12]`}},
	{"a pattern's range has two ends",
		"nodes: lb[1-2]", "nodes: lb[1,2]",
		[]string{`12:12: roles.lb.nodes: "lb[1,2]" is not a host pattern: write one range, such as web[1-2] or web[01-12]`}},
	{"a range runs forwards",
		"nodes: lb[1-2]", "nodes: lb[2-1]",
		[]string{`12:12: roles.lb.nodes: "lb[2-1]": the range runs backwards`}},
	{"leading zeros say how many digits",
		"nodes: lb[1-2]", "nodes: lb[01-2]",
		[]string{`12:12: roles.lb.nodes: "lb[01-2]": with leading zeros, both ends must have as many digits`}},
	{"leading zeros at the far end too",
		"nodes: lb[1-2]", "nodes: lb[1-02]",
		[]string{`12:12: roles.lb.nodes: "lb[1-02]": with leading zeros, both ends must have as many digits`}},
	{"a range is bounded",
		"nodes: lb[1-2]", "nodes: lb[1-257]",
		[]string{`12:12: roles.lb.nodes: "lb[1-257]": a range may have at most 256 nodes`}},
	{"a range is bounded beyond integers",
		"nodes: lb[1-2]", "nodes: lb[1-99999999999999999999]",
		[]string{`12:12: roles.lb.nodes: "lb[1-99999999999999999999]": a range may have at most 256 nodes`}},
	{"the cluster is bounded",
		"nodes: lb[1-2]", "nodes: lb[1-252]",
		[]string{"23:19: roles.mail.nodes: a cluster may have at most 256 nodes"}},
	{"the cluster is bounded, told once",
		"nodes: lb[1-2]", `nodes: ["lb[1-250]", "la[1-250]", "lc[1-250]"]`,
		[]string{"12:26: roles.lb.nodes: a cluster may have at most 256 nodes"}},
	{"a node is not called like a role",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, web]",
		[]string{"23:19: roles.mail.nodes: web is a role too; both would be called web.<cluster>.internal"}},
	{"one node has nobody to take over",
		"    understudy: none\n", "",
		[]string{"30:12: roles.repo.nodes: one node has nobody to take over; add a second, or say understudy: none"}},
	{"nobody to take over means one node",
		"    nodes: apt1", "    nodes: [apt1, apt2]",
		[]string{"34:17: roles.repo.understudy: none, but there are 2 nodes; leave the key out"}},
	{"understudy is none or left out",
		"    understudy: none", "    understudy: some",
		[]string{`34:17: roles.repo.understudy: "some" is not none`}},
	{"data is kept on two nodes",
		"nodes: [mx-a, mx-b]", "nodes: [mx-a, mx-b, mx-c]",
		[]string{"25:11: roles.mail.data: is kept on two nodes, but the role has 3"}},
	{"an address is of one kind",
		"{vip: 10.0.0.10/24, interface", "{reserved_ip: 203.0.113.9, vip: 10.0.0.10/24, interface",
		[]string{"24:14: roles.mail.address: must say either reserved_ip or vip"}},
	{"an address is of some kind",
		"{reserved_ip: 203.0.113.10, names", "{names",
		[]string{"13:14: roles.lb.address: must say either reserved_ip or vip"}},
	{"a vip needs an interface",
		"interface: eth1, ", "",
		[]string{"24:14: roles.mail.address: a vip needs an interface"}},
	{"only a vip has an interface",
		"{reserved_ip: 203.0.113.10,", "{reserved_ip: 203.0.113.10, interface: eth0,",
		[]string{"13:53: roles.lb.address.interface: only a vip has an interface"}},
	{"an interface is one",
		"interface: eth1", "interface: eth/1",
		[]string{`24:45: roles.mail.address.interface: "eth/1" is not the name of a network interface`}},
	{"an interface has 15 letters at most",
		"interface: eth1", "interface: averylongname123",
		[]string{`24:45: roles.mail.address.interface: "averylongname123" is not the name of a network interface`}},
	{"a reserved IP is an address",
		"reserved_ip: 203.0.113.10", "reserved_ip: 203.0.113.300",
		[]string{`13:28: roles.lb.address.reserved_ip: "203.0.113.300" is not an IP address`}},
	{"a reserved IP is not a loopback",
		"reserved_ip: 203.0.113.10", "reserved_ip: 127.0.0.1",
		[]string{"13:28: roles.lb.address.reserved_ip: 127.0.0.1 is no address to be reached at: loopback, link-local, multicast and the like are refused"}},
	{"a reserved IP has no zone",
		"reserved_ip: 203.0.113.10", "reserved_ip: 2001:db8::1%eth0",
		[]string{"13:28: roles.lb.address.reserved_ip: 2001:db8::1%eth0: an address that moves has no zone"}},
	{"a reserved IP is written in its own family",
		"reserved_ip: 203.0.113.10", `reserved_ip: "::ffff:203.0.113.10"`,
		[]string{"13:28: roles.lb.address.reserved_ip: ::ffff:203.0.113.10 is an IPv4 address: write 203.0.113.10"}},
	{"a vip has a prefix length",
		"vip: 10.0.0.10/24", "vip: 10.0.0.10",
		[]string{`24:20: roles.mail.address.vip: "10.0.0.10" is not an address with its prefix length, such as 10.0.0.10/24`}},
	{"a vip is unicast",
		"vip: 10.0.0.10/24", "vip: 224.0.0.10/24",
		[]string{"24:20: roles.mail.address.vip: 224.0.0.10 is no address to be reached at: loopback, link-local, multicast and the like are refused"}},
	{"a vip is not the network",
		"vip: 10.0.0.10/24", "vip: 10.0.0.0/24",
		[]string{"24:20: roles.mail.address.vip: 10.0.0.0/24 is the network's own or its broadcast address, not one of a host in it"}},
	{"a vip is not the broadcast address",
		"vip: 10.0.0.10/24", "vip: 10.0.0.255/24",
		[]string{"24:20: roles.mail.address.vip: 10.0.0.255/24 is the network's own or its broadcast address, not one of a host in it"}},
	{"an address has one role",
		"vip: 10.0.0.10/24", "vip: 203.0.113.10/24",
		[]string{"24:20: roles.mail.address.vip: the address 203.0.113.10 is taken by roles.lb.address.reserved_ip on line 13"}},
	{"mx has a range",
		"mx: 10", "mx: 0",
		[]string{`24:70: roles.mail.address.mx: must be a number from 1 to 65535, not "0"`}},
	{"mx is a number",
		"mx: 10", `mx: "10"`,
		[]string{"24:70: roles.mail.address.mx: must be a number from 1 to 65535, not text"}},
	{"mx is decimal",
		"mx: 10", "mx: 0x10",
		[]string{`24:70: roles.mail.address.mx: must be a number from 1 to 65535, not "0x10"`}},
	{"mx needs a name",
		"names: [mail], ", "",
		[]string{"24:55: roles.mail.address.mx: the address needs names: mail is sent to the first of them"}},
	{"the domain's mail has one role",
		"{reserved_ip: 203.0.113.10,", "{reserved_ip: 203.0.113.10, mx: 20,",
		[]string{"24:70: roles.mail.address.mx: the domain's mail is taken by roles.lb.address.mx on line 13"}},
	{"a name has one role",
		"names: [apt]", "names: [mail]",
		[]string{"31:13: roles.repo.names: the name mail is taken by roles.mail.address.names on line 24"}},
	{"a name stands once in a role",
		"names: [apt]", "names: [apt, apt]",
		[]string{"31:18: roles.repo.names: the name apt is taken by roles.repo.names on line 31"}},
	{"a name is one",
		"names: [apt]", "names: [apt_]",
		[]string{`31:13: roles.repo.names: "apt_" is not a name below the domain, or "@" for the domain itself`}},
	{"a name is not absolute",
		"names: [apt]", "names: [apt.]",
		[]string{`31:13: roles.repo.names: "apt." is not a name below the domain, or "@" for the domain itself`}},
	{"a name fits below the domain",
		"names: [apt]", "names: [xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx]",
		[]string{`31:13: roles.repo.names: "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"… is too long below the domain: 253 letters are the most`}},
	{"data has a path",
		"{path: /var/vmail, owner: vmail}", "{owner: vmail}",
		[]string{"25:12: roles.mail.data: path is missing"}},
	{"a path is absolute",
		"path: /srv/mail", "path: srv/mail",
		[]string{`25:53: roles.mail.data.path: "srv/mail" is not an absolute path without . or .. or a second or final slash`}},
	{"a path is clean",
		"path: /srv/mail", "path: /srv/../mail",
		[]string{`25:53: roles.mail.data.path: "/srv/../mail" is not an absolute path without . or .. or a second or final slash`}},
	{"a path does not end in a slash",
		"path: /srv/mail", "path: /srv/mail/",
		[]string{`25:53: roles.mail.data.path: "/srv/mail/" is not an absolute path without . or .. or a second or final slash`}},
	{"paths do not overlap",
		"path: /srv/mail", "path: /var/vmail/new",
		[]string{"25:53: roles.mail.data.path: /var/vmail/new overlaps /var/vmail: each file is mirrored once"}},
	{"paths do not overlap the other way",
		"path: /var/vmail,", "path: /srv/mail/in,",
		[]string{"25:55: roles.mail.data.path: /srv/mail overlaps /srv/mail/in: each file is mirrored once"}},
	{"a path stands once",
		"path: /srv/mail", "path: /var/vmail",
		[]string{"25:53: roles.mail.data.path: /var/vmail overlaps /var/vmail: each file is mirrored once"}},
	{"data is not in the machine's own trees",
		"path: /srv/mail", "path: /usr/share/mail",
		[]string{"25:53: roles.mail.data.path: /usr/share/mail overlaps /usr, which belongs to the machine and not to the role"}},
	{"data does not hold the machine's own trees",
		"path: /srv/mail", "path: /",
		[]string{
			"25:53: roles.mail.data.path: / overlaps /bin, which belongs to the machine and not to the role",
			"25:53: roles.mail.data.path: / overlaps /var/vmail: each file is mirrored once",
		}},
	{"an owner is a user",
		"owner: vmail", "owner: 5000:5000",
		[]string{`25:38: roles.mail.data.owner: "5000:5000" is not a user name`}},
	{"primary_units need a primary",
		"    names: web\n", "    names: web\n    primary_units: a.service\n",
		[]string{"19:20: roles.web.primary_units: only a role with an address or data has a primary"}},
	{"standby_health needs a primary",
		"    names: web\n", "    names: web\n    standby_health: {units: a.service}\n",
		[]string{"19:21: roles.web.standby_health: only a role with an address or data has a primary"}},
	{"publish needs a primary",
		"    data: [{path: /srv/apt}]\n", "",
		[]string{"32:14: roles.repo.publish: only a role with an address or data has a primary"}},
	{"standby_health needs a standby",
		"    data: [{path: /srv/apt}]\n", "    data: [{path: /srv/apt}]\n    standby_health: {tcp: 127.0.0.1:80}\n",
		[]string{"33:21: roles.repo.standby_health: a role with understudy: none has no standby"}},
	{"primary_units do not run on a standby",
		"units: [ssh.service]", "units: [ssh.service, dovecot.service]",
		[]string{"28:21: roles.mail.standby_health: dovecot.service is one of the primary_units, so it never runs on a standby"}},
	{"a unit has its full name",
		"[postfix.service, dovecot.service]", "[postfix, dovecot.service]",
		[]string{`26:21: roles.mail.primary_units: "postfix" is not the full name of a systemd unit, such as nginx.service`}},
	{"a unit is no template",
		"[postfix.service, dovecot.service]", "[postfix@.service, dovecot.service]",
		[]string{`26:21: roles.mail.primary_units: "postfix@.service" is not the full name of a systemd unit, such as nginx.service`}},
	{"a unit's name is bounded",
		"[postfix.service, dovecot.service]", "[uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu.service, dovecot.service]",
		[]string{`26:21: roles.mail.primary_units: "uuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuuu"… is not the full name of a systemd unit, such as nginx.service`}},
	{"health asks for something",
		"{units: [ssh.service]}", "{}",
		[]string{"28:21: roles.mail.standby_health: asks for nothing; leave the key out instead"}},
	{"health has known keys",
		"{units: [ssh.service]}", "{unit: [ssh.service]}",
		[]string{`28:22: roles.mail.standby_health: unknown key "unit"; did you mean units?`}},
	{"health asks URLs",
		"http://127.0.0.1:8404/healthz", "127.0.0.1:8404/healthz",
		[]string{`14:44: roles.lb.health.http: "127.0.0.1:8404/healthz" is not an http or https URL without a user or a #fragment`}},
	{"a URL has a host",
		"http://127.0.0.1:8404/healthz", "http:///healthz",
		[]string{`14:44: roles.lb.health.http: "http:///healthz" is not an http or https URL without a user or a #fragment`}},
	{"a URL has a port below 65536",
		"http://127.0.0.1:8404/healthz", "http://127.0.0.1:84040/healthz",
		[]string{`14:44: roles.lb.health.http: "http://127.0.0.1:84040/healthz" is not an http or https URL without a user or a #fragment`}},
	{"a URL has no user",
		"http://127.0.0.1:8404/healthz", "http://a:b@127.0.0.1/",
		[]string{`14:44: roles.lb.health.http: "http://a:b@127.0.0.1/" is not an http or https URL without a user or a #fragment`}},
	{"a URL has no fragment",
		"http://127.0.0.1:8404/healthz", `"http://127.0.0.1/#a"`,
		[]string{`14:44: roles.lb.health.http: "http://127.0.0.1/#a" is not an http or https URL without a user or a #fragment`}},
	{"health connects to ports",
		"127.0.0.1:25,", "127.0.0.1,",
		[]string{`27:20: roles.mail.health.tcp: "127.0.0.1" is not host:port`}},
	{"health checks units",
		"units: haproxy.service", "units: haproxy",
		[]string{`14:21: roles.lb.health.units: "haproxy" is not the full name of a systemd unit, such as nginx.service`}},
	{"a command is a list",
		"[/usr/bin/check, -q]", "/usr/bin/check -q",
		[]string{"19:23: roles.web.health.command: must be a list, not text"}},
	{"a command is absolute",
		"[/usr/bin/check, -q]", "[check, -q]",
		[]string{`19:24: roles.web.health.command: the program "check" is not an absolute path without . or .. or a second or final slash`}},
	{"a need names a role",
		"{role: web, what: a page, http", "{what: a page, http",
		[]string{"15:13: roles.lb.needs: role is missing"}},
	{"a need says what",
		"{role: web, what: a page, http", "{role: web, http",
		[]string{"15:13: roles.lb.needs: what is missing"}},
	{"a need says where",
		", http: http://web.blog.example/}", "}",
		[]string{"15:13: roles.lb.needs: http is missing"}},
	{"a need asks a URL",
		"http: http://web.blog.example/", "http: web.blog.example",
		[]string{`15:45: roles.lb.needs.http: "web.blog.example" is not an http or https URL without a user or a #fragment`}},
	{"a need is of a role there is",
		"role: repo", "role: rep",
		[]string{`21:16: roles.web.needs.role: there is no role "rep"; did you mean repo?`}},
	{"a role does not need itself",
		"role: web, what: a page", "role: lb, what: a page",
		[]string{"15:20: roles.lb.needs.role: needs in a circle: lb → lb"}},
	{"needs do not go in a circle",
		"    understudy: none\n", "    understudy: none\n    needs: [{role: lb, what: x, http: http://x}]\n",
		[]string{"35:20: roles.repo.needs.role: needs in a circle: repo → lb → web → repo"}},
	{"each circle is told once",
		"    understudy: none\n", "    understudy: none\n    needs: [{role: lb, what: x, http: http://x}, {role: web, what: x, http: http://x}]\n",
		[]string{
			"35:20: roles.repo.needs.role: needs in a circle: repo → lb → web → repo",
			"35:57: roles.repo.needs.role: needs in a circle: repo → web → repo",
		}},
	{"contains is text",
		`contains: "Package: blog"`, "contains: 5",
		[]string{`21:92: roles.web.needs.contains: must be text, not "5" without quotes`}},
	{"publishing has one role",
		"    primary_units: [", "    publish: /bin/x\n    primary_units: [",
		[]string{"34:14: roles.repo.publish: publishing is taken by roles.mail.publish on line 26"}},
	{"publish is a path",
		"publish: /usr/local/sbin/publish", "publish: publish",
		[]string{`33:14: roles.repo.publish: "publish" is not an absolute path without . or .. or a second or final slash`}},
	{"a beat has a unit",
		"beat: 200ms", "beat: 200",
		[]string{`36:17: timings.beat: must be a duration with its unit from 20ms to 10s, not "200" without quotes`}},
	{"a beat is a duration",
		"beat: 200ms", "beat: fast",
		[]string{`36:17: timings.beat: must be a duration with its unit from 20ms to 10s, not "fast"`}},
	{"a beat is no faster than the fast pace",
		"beat: 200ms", "beat: 19ms",
		[]string{`36:17: timings.beat: must be a duration with its unit from 20ms to 10s, not "19ms"`}},
	{"a beat is no slower than can be used",
		"beat: 200ms", "beat: 11s",
		[]string{`36:17: timings.beat: must be a duration with its unit from 20ms to 10s, not "11s"`}},
	{"two missed beats are no silence",
		"missed_beats: 4", "missed_beats: 2",
		[]string{`36:38: timings.missed_beats: must be a number from 3 to 20, not "2"`}},
	{"missed beats are bounded",
		"missed_beats: 4", "missed_beats: 21",
		[]string{`36:38: timings.missed_beats: must be a number from 3 to 20, not "21"`}},
	{"silence is seen before a lease runs out",
		"beat: 200ms, missed_beats: 4", "beat: 1s, missed_beats: 11",
		[]string{
			"36:17: timings.beat: beat × missed_beats is 11s: at most 10s, the time a lease is waited out",
			"36:57: timings.replacement_hold: 20s: at least 2 × beat × missed_beats (22s), so that a failover is over before a machine is fenced",
		}},
	{"a failover is over before the fence",
		"replacement_hold: 20s", "replacement_hold: 1s",
		[]string{"36:59: timings.replacement_hold: 1s: at least 2 × beat × missed_beats (1.6s), so that a failover is over before a machine is fenced"}},
	{"waits are bounded",
		"replacement_hold: 20s", "replacement_hold: 25h",
		[]string{`36:59: timings.replacement_hold: must be a duration with its unit from 1s to 24h0m0s, not "25h"`}},
	{"a start may take as long as the hold",
		"startup_timeout: 5m", "startup_timeout: 19s",
		[]string{"36:81: timings.startup_timeout: 19s: at least replacement_hold (20s), or a slow start looks like the next loss"}},
	{"the beachhead waits for machines that start",
		"beachhead_wait: 20m", "beachhead_wait: 5m",
		[]string{"36:101: timings.beachhead_wait: 5m0s: more than startup_timeout (5m0s), or it rebuilds beside machines that are starting"}},
	{"a startup timeout has a unit",
		"startup_timeout: 5m", "startup_timeout: 5",
		[]string{`36:81: timings.startup_timeout: must be a duration with its unit from 1s to 24h0m0s, not "5" without quotes`}},
	{"a beachhead wait has a unit",
		"beachhead_wait: 20m", "beachhead_wait: 20",
		[]string{`36:101: timings.beachhead_wait: must be a duration with its unit from 1s to 24h0m0s, not "20" without quotes`}},
}

func TestEachRuleRefusesWhatBreaksIt(t *testing.T) {
	for _, rule := range rules {
		t.Run(rule.claim, func(t *testing.T) {
			if !strings.Contains(valid, rule.old) {
				t.Fatalf("the valid roster has no %q", rule.old)
			}
			roster, err := Parse("f", []byte(strings.Replace(valid, rule.old, rule.new, 1)))
			if err == nil {
				t.Fatalf("accepted: %+v", roster)
			}
			want := "f:" + strings.Join(rule.want, "\nf:")
			if got := err.Error(); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// What looks like a broken rule and is none.
func TestRulesLeaveTheRestAlone(t *testing.T) {
	for _, tc := range []struct{ claim, old, new string }{
		{"a pattern may have a suffix and start at zero", "nodes: lb[1-2]", "nodes: lb[0-1]-a"},
		{"a range may be as long as a cluster", "nodes: lb[1-2]", "nodes: lb[1-250]"},
		{"digits may grow without leading zeros", "web[09-10]", "web[9-10]"},
		{"a stateless role may have many nodes", "web-a", "web-a, web-b, web-c"},
		{"a store next door may be plain", "https://s3.store.example", "http://10.77.0.1:9000"},
		{"a store here may be plain", "https://s3.store.example", "http://127.0.0.1:9000/"},
		{"the beachhead may have no machines to hire", "  hetzner: {region: fsn1, size: cx22, image: base}\n", ""},
		{"the zone may be the domain's parent", "- digitalocean: {zone: blog.example}", "- digitalocean: {zone: example}"},
		{"a reserved IP may be IPv6", "203.0.113.10", "2001:db8::10"},
		{"a network of two has no broadcast address", "10.0.0.10/24", "10.0.0.11/31"},
		{"a network of two has no address of its own", "10.0.0.10/24", "10.0.0.10/31"},
		{"a network of one is its address", "10.0.0.10/24", "10.0.0.10/32"},
		{"the last IPv6 address is one", "10.0.0.10/24", `"2001:db8::ffff/112"`},
		{"a name may have labels", "names: [apt]", "names: [eu.apt]"},
		{"paths may begin alike", "path: /srv/mail", "path: /var/vmail2"},
		{"paths of different roles may be the same", "path: /srv/mail", "path: /srv/apt"},
		{"data may be in etc", "path: /srv/mail", "path: /etc/letsencrypt"},
		{"two needs may lead to the same role", "needs: [{role: web,", "needs: [{role: repo, what: x, http: http://x/}, {role: web,"},
		{"an instance is a unit", "[postfix.service,", "[postfix@-.service,"},
		{"Windows line ends", "cluster: blog\n", "cluster: blog\r\n"},
		{"a byte order mark", "cluster: blog", "\uFEFFcluster: blog"},
		{"an end of document", "20m}\n", "20m}\n...\n"},
	} {
		t.Run(tc.claim, func(t *testing.T) {
			if !strings.Contains(valid, tc.old) {
				t.Fatalf("the valid roster has no %q", tc.old)
			}
			holds(t, parse(t, strings.Replace(valid, tc.old, tc.new, 1)))
		})
	}
}

func TestTheLocalCloudMayBeItsOwnElsewhere(t *testing.T) {
	text := strings.NewReplacer("  hetzner: {region: fsn1, size: cx22, image: base}\n", "",
		"digitalocean: {region", "local: {region", "{provider: hetzner", "{provider: local").Replace(valid)
	roster := parse(t, text)
	if got := roster.Beachhead.Machines; got == nil || got.Kind != "local" {
		t.Errorf("the beachhead hires %+v, want machines of the local cloud", got)
	}
}

// syntax is what cannot be read as one YAML document of text.
var syntax = []struct{ claim, input, want string }{
	{"nothing", "", "f: is empty: it must say cluster, domain, provider and roles"},
	{"nothing but comments", "# later\n", "f: is empty: it must say cluster, domain, provider and roles"},
	{"an empty document", "---\n", "f: is empty: it must say cluster, domain, provider and roles"},
	{"a list", "- a\n", "f:1:1: must be a mapping of keys to values, not a list"},
	{"a word", "blog\n", "f:1:1: must be a mapping of keys to values, not text"},
	{"an unfinished list", "a: [b\n\n# c\n", "f:1: not YAML: did not find expected ',' or ']'"},
	{"a mistake before comments", "a:\n  b: c\n d: e\n# f\n\ng: h\n", "f:3: not YAML: did not find expected key"},
	{"a tab", "a:\n\tb: c\n", "f:2: not YAML: found character that cannot start any token"},
	{"a pattern in a list", "a:\n  nodes: [lb[1-2], x]\n",
		`f:2: not YAML: did not find expected ',' or ']'; inside a [list] a host pattern needs quotes: ["web[1-2]", web9]`},
	{"the domain's own name", "a:\n  names: [@, www]\n",
		`f:2: not YAML: found character that cannot start any token; the name @ needs quotes: "@"`},
	{"an alias of nothing", "a: b\nc: *d\n", "f:2: not YAML: unknown anchor 'd' referenced"},
	{"no UTF-8", "a: b\nc: \xff\n", "f:2:4: is not UTF-8 text"},
	{"a control character", "a: b\nc: é\x00\n", "f:2:5: the control character U+0000 has no place here"},
	{"a line end of old", "a: b\rc: d\n", "f:1:5: the control character U+000D has no place here"},
	{"a line separator", "a: b\u2028c: d\n", "f:1:5: the control character U+2028 has no place here"},
	{"a paragraph separator", "a: b\u2029c: d\n", "f:1:5: the control character U+2029 has no place here"},
	{"two documents", valid + "---\ncluster: other\n", "f:37:1: a second document begins here; roles.yaml is one document"},
	{"a second document that is broken", valid + "---\na: [\n", "f:38: not YAML: did not find expected node content"},
	{"too much", "#" + strings.Repeat("x", maxBytes), "f: has 262145 bytes; more than 262144 cannot be a roster"},
}

func TestWhatIsNoDocumentIsRefusedWithItsPlace(t *testing.T) {
	for _, tc := range syntax {
		t.Run(tc.claim, func(t *testing.T) {
			_, err := Parse("f", []byte(tc.input))
			if err == nil || err.Error() != tc.want && !strings.HasPrefix(err.Error(), tc.want+"\n") {
				t.Errorf("got\n%v\nwant\n%s", err, tc.want)
			}
		})
	}
}

// An alias bomb doubles with each line; read as written here it would be a thousand million words.
func TestAnAliasBombIsRefusedWithoutBeingRead(t *testing.T) {
	bomb := "a0: &a0 [lol, lol]\n"
	for i := range 30 {
		bomb += fmt.Sprintf("a%d: &a%d [*a%d, *a%d]\n", i+1, i+1, i, i)
	}
	_, err := Parse("f", []byte(bomb))
	if err == nil || !strings.Contains(err.Error(), "f:2:10: the alias *a0 is refused") {
		t.Errorf("got %v", err)
	}
}

func TestAReportIsBounded(t *testing.T) {
	var text strings.Builder
	for i := range 500 {
		fmt.Fprintf(&text, "key%d: x\n", i)
	}
	_, err := Parse("f", []byte(text.String()))
	problems := unjoin(err)
	if got, want := len(problems), maxProblems+1; got != want {
		t.Fatalf("got %d problems, want %d", got, want)
	}
	if got, want := problems[maxProblems].Error(), "f: and 404 more problems"; got != want {
		t.Errorf("the last is %q, want %q", got, want)
	}
}

package main

import (
	"fmt"
	"io"
)

const helpText = `understudy-bootstrap makes this machine the node that its hostname says it is.

It runs once, at the first boot (understudy-bootstrap.service), and goes on where it was when it is killed
or the machine reboots. By hand it does the same, and tells you what it does:

  understudy-bootstrap           become the node, or take the newest commit if this machine is one already
  understudy-bootstrap -noop     only show what would be done; nothing is changed

The sidecar starts it for every push and for drift, in a unit of its own (understudy-apply.service):

  understudy-bootstrap -apply COMMIT [-noop] -result FILE
                                 on a node: role, secrets, facts and one Puppet run from a release that is on the
                                 disk; FILE says how it went. After a good run the commit is the one in force

Flags:
  -config FILE   what to know before the control repo is there (default /etc/understudy/bootstrap.yaml)
  -role ROLE     be this role, whatever the hostname says
  -noop          find the role, fetch and verify the control repo into a scratch directory, and show what
                 Puppet would change
  -apply COMMIT  the release to apply, by its full hash; needs -result
  -result FILE   where to write, as JSON, how -apply went; an absolute path
  -version       print the version
  -help          print this

The configuration, with the defaults:
  sources: [https://git.example/control.git]   # required; tried in order. Or mappings: {url: …, timeout: 3m,
                                               # password_file: …, ca_file: …, ssh_key: …, known_hosts: …}
  branch: main
  baked: ""                                    # a copy of the repository in the image, tried last
  allowed_signers: /etc/understudy/allowed_signers   # used until the cluster gives its own at the join
  image_hostname: []                           # names that mean "not named yet", besides localhost
  metadata: http://169.254.169.254/metadata/v1 # or none
  patience: {hostname: 5m, join: 5m, control: 5m, needs: 15m, puppet: 30m, puppet_lock: 10m, dpkg_lock: 2m}
  retry: {first: 100ms, most: 5s}

Where to look:
  /var/lib/understudy/bootstrap.json    the steps that are done, what is waited for, and the last failure
  /var/lib/understudy/bootstrap.done    exists once this machine is its node; remove it to start over at boot
  /var/lib/understudy/apply.json        how the newest -apply by the sidecar went
  journalctl -t understudy-bootstrap    everything it said; PHASE=puppet selects one phase

Exit codes:
`

// usage prints the help.
func usage(w io.Writer) {
	fmt.Fprint(w, helpText)
	for _, e := range exitMeanings {
		fmt.Fprintf(w, "  %2d  %s\n", e.code, e.meaning)
	}
}

# HAProxy in front of all nodes of one role. Names are resolved while it runs: a replaced node, or one that is not there
# yet, needs neither a Puppet run nor a reload.
#
# @param backend_role
#   The role whose nodes get the requests. They must answer GET /healthz on port 80.
# @param maxconn
#   How many connections HAProxy serves at once, if the limit of open files allows; about 35 kB each at worst.
# @param check_interval
#   How often each of those nodes is asked whether it is well. Two failures in a row take it out.
class profile::lb (
  String[1]                      $backend_role,
  Integer[100, 1000000]          $maxconn,
  Pattern[/\A[1-9][0-9]*m?s\z/]  $check_interval,
) {
  profile::packages { 'haproxy': }

  file { '/etc/haproxy/haproxy.cfg':
    ensure       => file,
    owner        => 'root',
    group        => 'root',
    mode         => '0644',
    content      => epp('profile/lb/haproxy.cfg.epp', {
        'backend'        => $backend_role,
        'nodes'          => $facts['understudy']['members'][$backend_role],
        'zone'           => "${facts['understudy']['cluster']}.internal",
        'host'           => $facts['understudy']['domain'],
        'maxconn'        => $maxconn,
        'check_interval' => $check_interval,
        'names_server'   => $profile::names::server,
    }),
    validate_cmd => '/usr/sbin/haproxy -c -q -f %',
    require      => Profile::Packages['haproxy'],
    notify       => Service['haproxy'],
  }

  profile::outlives_sidecar { 'haproxy.service': }

  # A reload starts new workers on the same sockets; the old ones finish what they have begun.
  service { 'haproxy':
    ensure  => running,
    enable  => true,
    restart => '/usr/bin/systemctl reload haproxy.service',
  }
}

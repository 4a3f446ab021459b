# Names of the cluster's own (<node>.<cluster>.internal, <role>.<cluster>.internal) are asked of the sidecar, which knows
# where everybody is now: a replaced node needs no Puppet run elsewhere. All other names go where they went before.
#
# @param server
#   Where the sidecar answers: `listen: names` in its configuration.
class profile::names (
  Pattern[/\A127\.[0-9.]+:[0-9]+\z/] $server,
) {
  file {
    default:
      owner => 'root',
      group => 'root',
      ;
    '/etc/systemd/resolved.conf.d':
      ensure => directory,
      mode   => '0755',
      ;
    '/etc/systemd/resolved.conf.d/60-understudy-names.conf':
      ensure  => file,
      mode    => '0644',
      content => epp('profile/names/resolved.conf.epp', {
          'server' => $server,
          'zone'   => "${facts['understudy']['cluster']}.internal",
      }),
      notify  => Exec['reload resolved'],
      ;
  }

  exec { 'reload resolved':
    command     => '/usr/bin/systemctl try-reload-or-restart systemd-resolved.service',
    refreshonly => true,
  }
}

# A service that answers on the role's address. When the machine goes down, the sidecar first hands the duty over, and the
# service must still answer meanwhile: it is stopped after the sidecar, and so started before it. The title is the unit.
define profile::outlives_sidecar {
  include profile::reload_systemd

  file {
    default:
      owner => 'root',
      group => 'root',
      ;
    "/etc/systemd/system/${title}.d":
      ensure => directory,
      mode   => '0755',
      ;
    "/etc/systemd/system/${title}.d/50-understudy.conf":
      ensure  => file,
      mode    => '0644',
      content => "# Managed by Puppet (profile::outlives_sidecar).\n[Unit]\nBefore=understudy.service\n",
      notify  => Class['profile::reload_systemd'],
      ;
  }
}

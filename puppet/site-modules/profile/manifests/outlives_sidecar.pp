# A service that answers on the role's address, or writes the role's data. When the machine goes down, the sidecar first
# hands the duty over, and the service must still work meanwhile: it is stopped after the sidecar, and so started before
# it. Said in the sidecar's unit, this also keeps the service's unit loaded while it does not run, so that asking for its
# state does not make systemd read its files each time. The title is the unit.
define profile::outlives_sidecar {
  include profile::reload_systemd

  ensure_resource('file', '/etc/systemd/system/understudy.service.d', {
      'ensure' => 'directory',
      'owner'  => 'root',
      'group'  => 'root',
      'mode'   => '0755',
  })
  file { "/etc/systemd/system/understudy.service.d/50-${title}.conf":
    ensure  => file,
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    content => "# Managed by Puppet (profile::outlives_sidecar).\n[Unit]\nAfter=${title}\n",
    notify  => Class['profile::reload_systemd'],
  }
}

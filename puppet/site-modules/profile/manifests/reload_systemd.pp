# systemd reads its unit files again. Whoever writes one notifies this class.
class profile::reload_systemd {
  exec { 'reload systemd':
    command     => '/usr/bin/systemctl daemon-reload',
    refreshonly => true,
  }
}

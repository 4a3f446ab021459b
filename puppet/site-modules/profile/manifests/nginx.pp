# nginx with one configuration file, so that nginx itself can check the whole of it before it is put in place.
#
# @param servers
#   The server blocks, as text.
class profile::nginx (
  String[1] $servers,
) {
  profile::packages { 'nginx-light': }

  file { '/etc/nginx/nginx.conf':
    ensure       => file,
    owner        => 'root',
    group        => 'root',
    mode         => '0644',
    content      => epp('profile/nginx/nginx.conf.epp', { 'servers' => $servers }),
    validate_cmd => '/usr/sbin/nginx -t -q -c %',
    require      => Profile::Packages['nginx-light'],
    notify       => Service['nginx'],
  }

  profile::outlives_sidecar { 'nginx.service': }

  service { 'nginx':
    ensure  => running,
    enable  => true,
    restart => '/usr/bin/systemctl reload nginx.service',
  }
}

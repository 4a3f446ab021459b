# nginx serving the site that a package of the cluster's own repository brings.
#
# @param package
#   The package with the site.
# @param root
#   Where its files lie.
class profile::web (
  String[1]            $package,
  Stdlib::Absolutepath $root,
) {
  contain profile::own_packages

  # bootstrap has waited until the package is published (roles.yaml, `needs`). Upgrades are not Puppet's business here.
  package { $package:
    ensure  => installed,
    require => Class['profile::own_packages'],
  }

  class { 'profile::nginx':
    servers => epp('profile/web/server.conf.epp', {
        'root' => $root,
        'node' => $facts['understudy']['node'],
    }),
    require => Package[$package],
  }
  contain profile::nginx
}

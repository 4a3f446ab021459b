# A signed apt repository: reprepro, nginx, and the program that publishes a package.
#
# The data path belongs to whoever has the duty (and to the mirror on the other node): Puppet makes the directory and
# writes nothing into it. Until something is published there, nginx serves an empty repository from elsewhere, so that
# `apt update` works from the first minute.
#
# @param data
#   The data path: dists, pool and reprepro's database. The same as in roles.yaml.
# @param host
#   The name that the repository is reached by.
# @param architectures
#   What packages it takes, besides those for all.
class profile::repo (
  Stdlib::Absolutepath $data,
  Stdlib::Fqdn         $host,
  Array[String[1], 1]  $architectures,
) {
  $conf = '/etc/reprepro'
  $gnupg = "${conf}/gnupg"
  $key = '/run/understudy/secrets/repo/signing.asc'
  $empty = '/var/lib/understudy-repo/empty'
  $cluster = $facts['understudy']['cluster']

  profile::packages { 'reprepro':
    names => ['reprepro', 'gpg', 'gpg-agent'],
  }

  file {
    default:
      ensure => file,
      owner  => 'root',
      group  => 'root',
      mode   => '0644',
      ;
    [$conf, $data, '/var/lib/understudy-repo']:
      ensure => directory,
      mode   => '0755',
      ;
    "${conf}/distributions":
      content => epp('profile/repo/distributions.epp', { 'cluster' => $cluster, 'architectures' => $architectures }),
      ;
    "${conf}/options":
      content => "basedir ${data}\nconfdir ${conf}\ngnupghome ${gnupg}\n",
      ;
    '/usr/local/sbin/import-signing-key':
      source => 'puppet:///modules/profile/repo/import-signing-key',
      mode   => '0755',
      ;
    '/usr/local/sbin/publish-package':
      source => 'puppet:///modules/profile/repo/publish-package',
      mode   => '0755',
      ;
  }

  exec { 'import the signing key':
    command => "/usr/local/sbin/import-signing-key ${key} ${gnupg}",
    unless  => "/usr/bin/cmp -s ${key} ${gnupg}/imported.asc",
    require => [Profile::Packages['reprepro'], File[$conf, '/usr/local/sbin/import-signing-key']],
  }

  exec { 'export an empty repository':
    command => "/usr/bin/reprepro --confdir ${conf} --gnupghome ${gnupg} --basedir ${empty} export",
    unless  => "/usr/bin/test ${empty}/dists/stable/InRelease -nt ${conf}/distributions -a ${empty}/dists/stable/InRelease -nt ${gnupg}/imported.asc",
    require => [Exec['import the signing key'], File['/var/lib/understudy-repo', "${conf}/distributions"]],
  }

  class { 'profile::nginx':
    servers => epp('profile/repo/server.conf.epp', {
        'data'  => $data,
        'empty' => $empty,
        'host'  => $host,
        'node'  => $facts['understudy']['node'],
    }),
    require => Exec['export an empty repository'],
  }
  contain profile::nginx
}

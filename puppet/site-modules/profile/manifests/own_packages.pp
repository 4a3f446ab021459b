# The cluster's own packages become installable: source and key of the repo role.
#
# @param wanted
#   The packages that this node takes from there. Their list is fetched while one of them is not installed.
# @param host
#   The name that the repo role is reached by.
class profile::own_packages (
  Array[String[1], 1] $wanted,
  Stdlib::Fqdn        $host,
) {
  $list = '/etc/apt/sources.list.d/understudy.sources'
  $keyring = '/etc/apt/keyrings/understudy.asc'

  file {
    default:
      ensure => file,
      owner  => 'root',
      group  => 'root',
      mode   => '0644',
      ;
    $keyring:
      source => '/run/understudy/secrets/common/signing.pub.asc',
      ;
    $list:
      content => epp('profile/own_packages/understudy.sources.epp', { 'host' => $host, 'keyring' => $keyring }),
      ;
  }

  # Only this list is fetched: the mirrors of Debian may be far away and are not needed for it.
  exec { 'fetch the list of own packages':
    command   => "apt-get -q update -o Dir::Etc::sourcelist=${list} -o Dir::Etc::sourceparts=- -o APT::Get::List-Cleanup=0 -o APT::Update::Error-Mode=any",
    unless    => "dpkg-query -W ${wanted.join(' ')}",
    path      => '/usr/bin:/usr/sbin',
    tries     => 3,
    try_sleep => 2,
    require   => File[$keyring, $list],
  }
}

# What every node has, whatever its role. Kept small: each resource costs every run of every node.
#
# @param journal_size
#   How much disk the journal may use, as journald.conf(5) writes sizes.
# @param inotify_watches
#   How many directories the sidecar and others may watch, for each user. Debian's default on a machine of 1 GB is 8,192.
# @param inotify_queue
#   How many changes may wait to be read before the kernel throws them away and a full comparison becomes necessary.
class profile::base (
  Pattern[/\A[0-9]+[KMG]\z/] $journal_size,
  Integer[8192, 8388608]     $inotify_watches,
  Integer[16384, 1048576]    $inotify_queue,
) {
  # Debian's own packages read /etc/facter, those of Puppet and OpenVox /etc/puppetlabs/facter.
  $facter_directory = $settings::confdir ? {
    /puppetlabs/ => '/etc/puppetlabs/facter',
    default      => '/etc/facter',
  }

  file {
    default:
      ensure => file,
      owner  => 'root',
      group  => 'root',
      mode   => '0644',
      ;
    "${facter_directory}/facter.conf":
      source => 'puppet:///modules/profile/base/facter.conf',
      ;
    '/etc/ssh/sshd_config.d/10-understudy.conf':
      source       => 'puppet:///modules/profile/base/sshd.conf',
      validate_cmd => '/usr/sbin/sshd -t -f %',
      notify       => Exec['reload ssh'],
      ;
    ['/etc/systemd/journald.conf.d', '/etc/apt/keyrings']:
      ensure => directory,
      mode   => '0755',
      ;
    '/etc/systemd/journald.conf.d/understudy.conf':
      content => "[Journal]\nSystemMaxUse=${journal_size}\nRuntimeMaxUse=${journal_size}\n",
      notify  => Exec['restart journald'],
      ;
    '/etc/sysctl.d/60-understudy.conf':
      content => epp('profile/base/sysctl.conf.epp'),
      notify  => Exec['apply sysctl'],
      ;
  }

  unless empty($facts['understudy']['primary_units']) {
    contain profile::primary_units
  }
  contain profile::names

  # Where there is no such service, or it does not run, the new settings wait for its start.
  exec {
    default:
      refreshonly => true,
      path        => '/usr/bin:/usr/sbin',
      ;
    'reload ssh':
      command => 'systemctl try-reload-or-restart ssh.service',
      ;
    'restart journald':
      command => 'systemctl try-restart systemd-journald.service',
      ;
    'apply sysctl':
      command => 'systemctl restart systemd-sysctl.service',
      ;
  }
}

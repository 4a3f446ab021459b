# Dovecot: LMTP into Maildirs under /var/vmail, IMAP for users, logins for Postfix.
class profile::mail::dovecot {
  # A fixed number: the same on both nodes, whatever else was installed before.
  group { 'vmail':
    ensure => present,
    gid    => 5000,
  }
  user { 'vmail':
    ensure => present,
    uid    => 5000,
    gid    => 'vmail',
    home   => '/var/vmail',
    shell  => '/usr/sbin/nologin',
  }

  file {
    default:
      ensure => directory,
      owner  => 'vmail',
      group  => 'vmail',
      mode   => '0700',
      ;
    # The data path. What is in it is not Puppet's.
    '/var/vmail': ;
    # Indexes can be rebuilt from the Maildirs and change with every look: kept out of the data path and its mirror.
    '/var/lib/vmail-indexes': ;
  }

  file {
    default:
      ensure => file,
      owner  => 'root',
      group  => 'root',
      notify => Exec['reload dovecot'],
      ;
    '/etc/dovecot/users':
      content   => epp('profile/mail/users.epp'),
      group     => 'dovecot',
      mode      => '0640',
      show_diff => false,
      ;
    '/etc/dovecot/dovecot.conf':
      content      => epp('profile/mail/dovecot.conf.epp'),
      mode         => '0644',
      validate_cmd => '/usr/bin/doveconf -n -c % >/dev/null',
      ;
  }

  # try-reload does nothing where the unit does not run: starting it is not Puppet's to decide.
  exec { 'reload dovecot':
    command     => '/usr/bin/systemctl try-reload-or-restart dovecot.service',
    refreshonly => true,
  }
}

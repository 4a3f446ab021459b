# Mail for the domain: Postfix receives and sends, Dovecot stores under /var/vmail and serves, OpenDKIM signs.
#
# Postfix and Dovecot are the role's primary_units. Puppet configures both and checks what it writes, on every node of the
# role; it reloads them where they run, and never starts, stops or enables them: only the node with the duty runs them.
#
# @param hostname
#   The name that clients use and that Postfix greets with; the same on both nodes, and the one in the certificate.
# @param domains
#   The domains that mail is received for. The first is the one that users belong to and that is signed for.
# @param users
#   Who has a mailbox: the part before the @, the password as `doveadm pw` prints it, and other addresses.
# @param quota
#   How much a mailbox may hold, as Dovecot writes sizes.
# @param message_limit
#   How big a message may be, in bytes.
class profile::mail (
  Stdlib::Fqdn                   $hostname,
  Array[Stdlib::Fqdn, 1]         $domains,
  Profile::Mailboxes             $users,
  Pattern[/\A[1-9][0-9]*[MGT]\z/] $quota,
  Integer[1048576]               $message_limit,
) {
  profile::packages { 'mail':
    names  => ['postfix', 'libsasl2-modules', 'dovecot-imapd', 'dovecot-lmtpd', 'opendkim'],
    before => Class['profile::mail::opendkim', 'profile::mail::postfix', 'profile::mail::dovecot'],
  }

  contain profile::mail::opendkim
  contain profile::mail::postfix
  contain profile::mail::dovecot

  # Both read it as root and hand out only the certificate.
  file { '/etc/ssl/mail':
    ensure => directory,
    owner  => 'root',
    group  => 'root',
    mode   => '0755',
  }
  profile::secret {
    default:
      notify => Exec['reload postfix', 'reload dovecot'],
      before => Class['profile::mail::postfix', 'profile::mail::dovecot'],
      ;
    '/etc/ssl/mail/tls.crt':
      secret => 'mail/tls.crt',
      mode   => '0444',
      ;
    '/etc/ssl/mail/tls.key':
      secret => 'mail/tls.key',
      ;
  }
}

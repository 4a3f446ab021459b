# Postfix: SMTP for the domain, submission for users, everything outgoing through a relay.
#
# @param relay_host
#   The relay's name, without brackets. Hosting providers block port 25, so there is no sending without one.
# @param relay_port
#   Its port.
# @param relay_user
#   The login there; the password is the secret mail/relay.password.
# @param relay_tls
#   How the relay is spoken to: `secure` checks its certificate, `encrypt` insists on TLS, `may` uses it if it is offered.
# @param milters
#   Whom every message is shown to, in this order.
# @param journal
#   The sidecar's mail journal, without which no mail is accepted: what roles.yaml says of it. Where that says nothing, mail
#   is accepted when this machine has it.
# @param postmaster
#   The user who gets what is meant for postmaster, abuse, hostmaster and root.
class profile::mail::postfix (
  Stdlib::Host                     $relay_host,
  Stdlib::Port                     $relay_port,
  Pattern[/\A[^:\s]+\z/]           $relay_user,
  Enum['secure', 'encrypt', 'may'] $relay_tls,
  Array[String[1], 1]              $milters,
  String[1]                        $postmaster,
  Optional[Profile::Journal]       $journal = $facts['understudy']['journal'],
) {
  $users = $profile::mail::users
  $domains = $profile::mail::domains
  $relay = "[${relay_host}]:${relay_port}"
  $check = '/usr/local/sbin/check-postfix'

  # The last of all: what it keeps is what is delivered, signature included.
  $all_milters = $milters + ($journal ? { undef => [], default => ["inet:${journal['milter']}"] })
  $journal_headers = $journal ? { undef => absent, default => file }

  unless $postmaster in $users {
    fail("profile::mail::postfix::postmaster is ${postmaster}, who is not one of profile::mail::users")
  }

  # Address → mailbox: everybody's own; the one each domain must have (RFC 2142); the same names in the other domains;
  # and what users were given besides. Where two say something of one address, the mailbox wins.
  $mailboxes = Hash($users.keys.map |$user| { ["${user}@${domains[0]}", "${user}@${domains[0]}"] })
  $duties = Hash($domains.map |$domain| {
      ['abuse', 'hostmaster', 'postmaster', 'root'].map |$duty| { ["${duty}@${domain}", "${postmaster}@${domains[0]}"] }
  }.flatten)
  $elsewhere = Hash($domains[1, -1].map |$domain| {
      $users.keys.map |$user| { ["${user}@${domain}", "${user}@${domains[0]}"] }
  }.flatten)
  $given = Hash($users.map |$user, $about| {
      pick($about['aliases'], []).map |$other| {
        ["${other}${$other ? { /@/ => '', default => "@${domains[0]}" }}", "${user}@${domains[0]}"]
      }
  }.flatten)
  $addresses = $duties + $elsewhere + $given + $mailboxes

  file {
    default:
      ensure => file,
      owner  => 'root',
      group  => 'root',
      mode   => '0644',
      notify => Exec['reload postfix'],
      ;
    $check:
      source => 'puppet:///modules/profile/mail/check-postfix',
      mode   => '0755',
      notify => undef,
      ;
    '/etc/postfix/mailboxes':
      content => epp('profile/mail/map.epp', {
          'what'    => 'Who has a mailbox.',
          'entries' => $mailboxes,
      }),
      ;
    '/etc/postfix/aliases':
      content => epp('profile/mail/map.epp', {
          'what'    => 'Other addresses, and whose mailbox they mean.',
          'entries' => $addresses.filter |$address, $mailbox| { $address != $mailbox },
      }),
      ;
    '/etc/postfix/senders':
      content => epp('profile/mail/map.epp', {
          'what'    => 'Which login may send in whose name.',
          'entries' => $addresses,
      }),
      ;
    '/etc/postfix/journal-headers':
      ensure  => $journal_headers,
      content => epp('profile/mail/journal-headers.epp'),
      ;
    '/etc/postfix/relay':
      # Read on the node while the catalog is applied: the catalog holds the path of the password, not the password.
      content   => Deferred('inline_epp', [
          "<%= \$relay %> <%= \$user %>:<%= \$password.strip %>\n",
          {
            'relay'    => $relay,
            'user'     => $relay_user,
            'password' => Deferred('file', ['/run/understudy/secrets/mail/relay.password']),
          },
      ]),
      mode      => '0400',
      show_diff => false,
      backup    => false,
      ;
    '/etc/postfix/master.cf':
      content      => epp('profile/mail/master.cf.epp', { 'journal' => $journal }),
      validate_cmd => "${check} master.cf %",
      ;
    '/etc/postfix/main.cf':
      content      => epp('profile/mail/main.cf.epp', {
          'relay'     => $relay,
          'relay_tls' => $relay_tls,
          'milters'   => $all_milters,
          'journal'   => $journal,
      }),
      validate_cmd => "${check} main.cf %",
      ;
  }

  # Dovecot's sockets for Postfix lie there. Postfix makes it when it first starts, and Dovecot may be started before.
  file { '/var/spool/postfix/private':
    ensure => directory,
    owner  => 'postfix',
    group  => 'root',
    mode   => '0700',
  }

  # try-reload does nothing where the unit does not run: starting it is not Puppet's to decide.
  exec { 'reload postfix':
    command     => '/usr/bin/systemctl try-reload-or-restart postfix.service',
    refreshonly => true,
  }
}

# OpenDKIM as Postfix's milter: it signs what users send, and nothing that arrives from elsewhere.
#
# It keeps no data, so it runs on both nodes and is not one of the primary_units.
#
# @param selector
#   Which key it is: the public half is published as TXT record <selector>._domainkey.<domain>.
class profile::mail::opendkim (
  Pattern[/\A[a-z0-9-]+\z/] $selector,
) {
  profile::secret { '/etc/dkimkeys/dkim.key':
    secret => 'mail/dkim.key',
    owner  => 'opendkim',
    notify => Service['opendkim'],
  }

  file { '/etc/opendkim.conf':
    ensure  => file,
    owner   => 'root',
    group   => 'root',
    mode    => '0644',
    content => epp('profile/mail/opendkim.conf.epp', { 'domain' => $profile::mail::domains[0], 'selector' => $selector }),
    notify  => Service['opendkim'],
  }

  # It reads its key only when it starts.
  service { 'opendkim':
    ensure => running,
    enable => true,
  }
}

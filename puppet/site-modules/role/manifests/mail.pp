# A node of role mail: Postfix and Dovecot.
class role::mail {
  contain profile::base
  contain profile::mail

  Class['profile::base'] -> Class['profile::mail']
}

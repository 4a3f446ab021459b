# A node of role lb: HAProxy in front of the web nodes.
class role::lb {
  contain profile::base
  contain profile::lb

  Class['profile::base'] -> Class['profile::lb']
}

# A node of role repo: the cluster's own apt repository.
class role::repo {
  contain profile::base
  contain profile::repo

  Class['profile::base'] -> Class['profile::repo']
}

# A file of the sealed secrets, put where a service reads it. The catalog holds its path, never its content, and no
# report, diff or old copy shows it. The title is where it goes.
#
# @param secret
#   Which file it is: GROUP/NAME under /run/understudy/secrets.
# @param owner
#   Who may read it.
# @param mode
#   How it may be read.
define profile::secret (
  Pattern[/\A[^\/]+\/[^\/]+\z/] $secret,
  String[1]                     $owner = 'root',
  Stdlib::Filemode              $mode = '0400',
) {
  file { $title:
    ensure    => file,
    owner     => $owner,
    group     => 'root',
    mode      => $mode,
    source    => "/run/understudy/secrets/${secret}",
    show_diff => false,
    backup    => false,
  }
}

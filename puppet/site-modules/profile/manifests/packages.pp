# Packages of Debian. The image has them (image-packages), so as a rule nothing is done. Where one is missing, the lists of
# the mirrors are fetched first: an image keeps none, or old ones. A mirror that does not answer is not yet an error.
#
# @param names
#   The packages, by default the one that the title names.
define profile::packages (
  Array[String[1], 1] $names = [$title],
) {
  exec { "fetch the lists for ${names.join(', ')}":
    command => 'apt-get -q update -o Acquire::http::Timeout=10',
    unless  => "dpkg-query -W ${names.join(' ')}",
    path    => '/usr/bin:/usr/sbin',
    before  => Package[$names],
  }

  package { $names:
    ensure => installed,
  }
}

# Who starts the primary_units decides about the duty; the sidecar does, and nobody else. Each of them is bound to the
# target of the role's duty, understudy-primary@<role>.target: systemd refuses to start it while that is not active,
# and stops it with it. So neither a boot, nor a Puppet run, nor an installation makes two nodes write.
#
# @param units
#   The services that write the role's data: `primary_units` in roles.yaml.
# @param role
#   The role they belong to.
class profile::primary_units (
  Array[String[1], 1] $units = $facts['understudy']['primary_units'],
  String[1]           $role  = $facts['understudy']['role'],
) {
  include profile::reload_systemd

  profile::outlives_sidecar { $units: }

  file {
    default:
      owner => 'root',
      group => 'root',
      ;
    '/etc/systemd/system-preset':
      ensure => directory,
      mode   => '0755',
      ;
    # Should one of their packages be missing, installing it must neither enable nor start them: its scripts follow
    # systemd's presets for the one and ask policy-rc.d about the other.
    '/etc/systemd/system-preset/10-understudy-primary-units.preset':
      ensure  => file,
      mode    => '0644',
      content => join($units.map |$unit| { "disable ${unit}\n" }),
      ;
    '/usr/sbin/policy-rc.d':
      ensure  => file,
      mode    => '0755',
      content => epp('profile/primary_units/policy-rc.d.epp', { 'units' => $units }),
      ;
    $units.map |$unit| { "/etc/systemd/system/${unit}.d" }:
      ensure => directory,
      mode   => '0755',
      ;
    $units.map |$unit| { "/etc/systemd/system/${unit}.d/50-understudy-primary.conf" }:
      ensure  => file,
      mode    => '0644',
      content => epp('profile/primary_units/unit.conf.epp', { 'target' => "understudy-primary@${role}.target" }),
      notify  => Class['profile::reload_systemd'],
      ;
  }
}

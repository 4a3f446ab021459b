# What a node is stands in roles.yaml. understudy-bootstrap reads it and hands the answer over as the structured fact
# `understudy`; Puppet never parses that file.
unless $facts['understudy'] =~ Hash and $facts['understudy']['role'] =~ String[1] {
  fail('The fact `understudy` is missing: understudy-bootstrap writes it, into the directory facts.d of facter.')
}

# A role's name may contain a dash, a class's may not.
include "role::${regsubst($facts['understudy']['role'], '-', '_', 'G')}"

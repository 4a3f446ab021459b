# Who has a mailbox: name (the part before the @) → password hash with its scheme, and other addresses.
type Profile::Mailboxes = Hash[
  Pattern[/\A[a-z0-9][a-z0-9._-]*\z/],
  Struct[{
    password => Pattern[/\A\{(BLF-CRYPT|SHA512-CRYPT|ARGON2ID)\}[^:\s]+\z/],
    aliases  => Optional[Array[Pattern[/\A[a-z0-9][a-z0-9._-]*(@[a-z0-9.-]+)?\z/]]],
  }],
  1
]

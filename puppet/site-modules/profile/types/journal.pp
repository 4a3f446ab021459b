# Where the sidecar's mail journal and the mail server meet: `journal` of the role in roles.yaml, as the fact hands it over.
type Profile::Journal = Struct[{
    milter         => Pattern[/\A[0-9a-f.:\[\]]+:[0-9]+\z/],
    smtp           => Pattern[/\A[0-9a-f.:\[\]]+:[0-9]+\z/],
    maildirs       => Stdlib::Absolutepath,
    domains        => Array[Stdlib::Fqdn, 1],
    without_second => String[1],
}]

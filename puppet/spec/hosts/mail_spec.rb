each_node('mail') do
  let(:main_cf) { catalogue.resource('File', '/etc/postfix/main.cf')[:content] }
  let(:master_cf) { catalogue.resource('File', '/etc/postfix/master.cf')[:content] }

  it 'leaves Postfix and Dovecot to whoever decides about duties' do
    ['postfix', 'postfix.service', 'dovecot', 'dovecot.service'].each do |unit|
      is_expected.not_to contain_service(unit)
    end
    ['postfix', 'dovecot'].each do |unit|
      is_expected.to contain_exec("reload #{unit}")
        .with(refreshonly: true, command: "/usr/bin/systemctl try-reload-or-restart #{unit}.service")
    end
  end

  it 'keeps them stopped even where their packages are yet to be installed' do
    is_expected.to contain_file('/etc/systemd/system-preset/10-understudy-primary-units.preset')
      .with_content("disable postfix.service\ndisable dovecot.service\n")
      .that_comes_before(['Package[postfix]', 'Package[dovecot-imapd]'])
    is_expected.to contain_file('/usr/sbin/policy-rc.d')
      .with(mode: '0755', content: /^  postfix\.service \| postfix \| dovecot\.service \| dovecot\)$/)
      .that_comes_before(['Package[postfix]', 'Package[dovecot-imapd]'])
  end

  it 'lets them run only with the duty, and end only after the sidecar has handed it over' do
    ['postfix.service', 'dovecot.service'].each do |unit|
      is_expected.to contain_file("/etc/systemd/system/#{unit}.d/50-understudy-primary.conf")
        .with_content(/^Requisite=understudy-primary@mail\.target$/)
        .with_content(/^PartOf=understudy-primary@mail\.target$/)
        .with_content(/^After=understudy-primary@mail\.target$/)
        .without_content(/^(BindsTo|Requires|Wants)=/)
        .that_notifies('Class[profile::reload_systemd]')
      is_expected.to contain_file("/etc/systemd/system/understudy.service.d/50-#{unit}.conf").with_content(/^After=#{unit}$/)
    end
  end

  it 'relays for nobody who has not logged in' do
    expect(main_cf).to include("smtpd_relay_restrictions = permit_mynetworks, reject_unauth_destination\n")
    expect(main_cf).to match(%r{^mynetworks = 127\.0\.0\.0/8 \[::1\]/128$})
    expect(main_cf).to match(/^smtpd_sasl_auth_enable = no$/)
    expect(master_cf.scan('smtpd_relay_restrictions=permit_sasl_authenticated,reject').size).to eq(2)
    expect(master_cf.scan('smtpd_tls_security_level=encrypt').size).to eq(2)
  end

  it 'greets with one name on both nodes, the one in the certificate' do
    expect(main_cf).to match(/^myhostname = mail\.blog\.example$/)
    expect(main_cf).to include('smtpd_tls_chain_files = /etc/ssl/mail/tls.key, /etc/ssl/mail/tls.crt')
  end

  it 'sends through the relay, signed' do
    expect(main_cf).to match(/^relayhost = \[smtp-relay\.understudy\.internal\]:2525$/)
    expect(main_cf).to match(/^smtpd_milters = inet:127\.0\.0\.1:8891, /)
    expect(main_cf).to match(/^milter_default_action = tempfail$/)
    is_expected.to contain_file('/etc/opendkim.conf').with_content(/^Socket +inet:8891@127\.0\.0\.1$/)
    is_expected.to contain_service('opendkim').with(ensure: 'running', enable: true)
  end

  it 'shows every message to the mail journal, after it is signed, and refuses for now what that cannot keep' do
    expect(main_cf).to match(/^smtpd_milters = inet:127\.0\.0\.1:8891, inet:127\.0\.0\.1:8892$/)
    expect(main_cf).to match(/^non_smtpd_milters = \$smtpd_milters$/)
    expect(main_cf).to match(/^milter_default_action = tempfail$/)
    expect(main_cf).to match(/^enable_long_queue_ids = yes$/)
    expect(main_cf).to match(%r{^milter_header_checks = regexp:/etc/postfix/journal-headers$})
    is_expected.to contain_file('/etc/postfix/journal-headers').with_ensure('file')
      .with_content(%r{^/\^X-Understudy-Journal: \[0-9a-f\]\{32\}\$/ INFO$})
  end

  it 'delivers as much at a time as Dovecot takes, and does not wait long for it' do
    expect(main_cf).to match(/^lmtp_destination_concurrency_limit = [1-9]$/)
    expect(main_cf).to match(/^queue_run_delay = 30s$/)
    expect(main_cf).to match(/^minimal_backoff_time = 1m$/)
  end

  it 'takes re-injected mail on loopback only, and without a milter' do
    expect(master_cf).to match(/^127\.0\.0\.1:10026 inet (.*\n)  -o syslog_name=.*\n  -o smtpd_milters=\n  -o cleanup_service_name=reinject$/)
    expect(master_cf).to match(%r{^reinject +unix .* cleanup\n  -o .*\n  -o header_checks=regexp:/etc/postfix/journal-headers$})
  end

  it 'knows the mailboxes and the addresses each domain must have' do
    is_expected.to contain_file('/etc/postfix/mailboxes').with_content(/^alice@blog\.example /)
    ['abuse', 'hostmaster', 'postmaster', 'root', 'hello'].each do |name|
      is_expected.to contain_file('/etc/postfix/aliases').with_content(/^#{name}@blog\.example alice@blog\.example$/)
    end
    is_expected.to contain_file('/etc/postfix/aliases').without_content(/^alice@/)
    is_expected.to contain_file('/etc/dovecot/users').with_content(/^alice@blog\.example:\{BLF-CRYPT\}/)
  end

  it 'checks what it writes before it is in place' do
    is_expected.to contain_file('/etc/postfix/main.cf').with_validate_cmd(/check-postfix main\.cf %/)
    is_expected.to contain_file('/etc/postfix/master.cf').with_validate_cmd(/check-postfix master\.cf %/)
    is_expected.to contain_file('/etc/dovecot/dovecot.conf').with_validate_cmd(/doveconf -n -c %/)
  end
end

# The same node where roles.yaml says something else of the journal.
[
  ['none', nil],
  ['other ports', { 'milter' => '127.0.0.1:7001', 'smtp' => '[::1]:7002', 'maildirs' => '/var/vmail', 'domains' => ['blog.example'],
                    'without_second' => 'accept' }],
].each do |what, journal|
  describe 'mail1', type: :host do
    let(:facts) { FACTS.fetch('mail1').merge('understudy' => FACTS.fetch('mail1')['understudy'].merge('journal' => journal)) }
    let(:main_cf) { catalogue.resource('File', '/etc/postfix/main.cf')[:content] }
    let(:master_cf) { catalogue.resource('File', '/etc/postfix/master.cf')[:content] }

    it "follows roles.yaml where the mail journal has #{what}" do
      if journal
        expect(main_cf).to match(/^smtpd_milters = inet:127\.0\.0\.1:8891, inet:127\.0\.0\.1:7001$/)
        expect(master_cf).to match(/^\[::1\]:7002 inet /)
      else
        expect(main_cf).not_to match(/8892|journal/)
        expect(main_cf).to match(/^smtpd_milters = inet:127\.0\.0\.1:8891$/)
        expect(master_cf).not_to match(/10026|journal/)
        is_expected.to contain_file('/etc/postfix/journal-headers').with_ensure('absent')
      end
    end
  end
end

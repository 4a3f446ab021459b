each_node('lb') do
  let(:haproxy_cfg) { catalogue.resource('File', '/etc/haproxy/haproxy.cfg')[:content] }

  it 'sends requests to every node of role web, by names that may change their address' do
    FACTS['lb1']['understudy']['members']['web'].each do |web|
      expect(haproxy_cfg).to include("server #{web} #{web}.blog.internal:80")
    end
    expect(haproxy_cfg).to match(/default-server .*resolvers cluster init-addr libc,none/)
  end

  it 'asks the web nodes whether they are well, and another one when one fails' do
    expect(haproxy_cfg).to include('option httpchk').and include('http-check send meth GET uri /healthz')
    expect(haproxy_cfg).to include('option redispatch').and include('retry-on conn-failure')
  end

  it 'asks the sidecar for their addresses, and nobody else' do
    expect(haproxy_cfg.scan(/^    nameserver .*/)).to eq(['    nameserver sidecar 127.0.0.55:5354'])
    expect(haproxy_cfg).not_to include('parse-resolv-conf')
  end

  it 'ends connections with their answers while the duty is about to move' do
    expect(haproxy_cfg).to match(/^frontend public$.*^    http-after-response set-header Connection close if \{ date\(\),sub\(proc\.drain_until\) lt 0 \}$.*^backend/m)
    expect(haproxy_cfg).to match(/^frontend local$.*set-var\(proc\.drain_until\) date\(30\) if \{ path \/drain \} \{ method POST \}$/m)
  end

  it 'still answers while the sidecar hands the duty over at shutdown' do
    is_expected.to contain_file('/etc/systemd/system/understudy.service.d/50-haproxy.service.conf').with_content(/^After=haproxy\.service$/)
  end

  it 'repeats only requests that may be repeated' do
    expect(haproxy_cfg).to include('disable-l7-retry unless { method GET HEAD OPTIONS }')
  end

  it 'shows health and figures to this machine only' do
    expect(haproxy_cfg).to match(/bind 127\.0\.0\.1:8404\n\s+monitor-uri \/healthz/)
  end

  it { is_expected.to contain_file('/etc/haproxy/haproxy.cfg').with_validate_cmd(/haproxy -c/).that_notifies('Service[haproxy]') }
  it { is_expected.to contain_service('haproxy').with(ensure: 'running', enable: true, restart: /reload/) }
end

each_node('repo') do
  it 'serves indices and packages, and not the database beside them' do
    is_expected.to contain_file('/etc/nginx/nginx.conf')
      .with_content(%r{location /dists/})
      .with_content(%r{location /pool/})
      .with_content(%r{location / \{\s+return 404;})
  end

  it 'has a key before it signs, and something to serve before it serves' do
    is_expected.to contain_exec('import the signing key').that_comes_before('Exec[export an empty repository]')
    is_expected.to contain_exec('export an empty repository').that_comes_before('Service[nginx]')
  end

  it { is_expected.to contain_file('/usr/local/sbin/publish-package').with_mode('0755') }
  it { is_expected.to contain_service('nginx').with(ensure: 'running', enable: true) }
end

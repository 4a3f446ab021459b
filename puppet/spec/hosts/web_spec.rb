each_node('web') do |node|
  it 'takes the blog from the cluster\'s own repository, trusted by its own key only' do
    is_expected.to contain_file('/etc/apt/sources.list.d/understudy.sources')
      .with_content(%r{^URIs: http://apt\.blog\.example$})
      .with_content(%r{^Signed-By: /etc/apt/keyrings/understudy\.asc$})
    is_expected.to contain_package('blog').that_requires('Exec[fetch the list of own packages]')
  end

  it 'fetches no list when the blog is there' do
    is_expected.to contain_exec('fetch the list of own packages').with_unless('dpkg-query -W blog')
  end

  it 'serves it, and says who did' do
    is_expected.to contain_file('/etc/nginx/nginx.conf')
      .with_content(%r{root /usr/share/blog;})
      .with_content(/add_header X-Served-By #{node} always;/)
      .with_validate_cmd(/nginx -t/)
      .that_requires('Package[blog]')
  end

  it { is_expected.to contain_service('nginx').with(ensure: 'running', enable: true, restart: /reload/) }
end

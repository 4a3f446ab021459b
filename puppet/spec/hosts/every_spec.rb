FACTS.map { |_, facts| facts['understudy']['role'] }.uniq.each do |role|
  each_node(role) do
    it 'asks the sidecar for names of the cluster, at an address that resolved does not take for its own' do
      is_expected.to contain_file('/etc/systemd/resolved.conf.d/60-understudy-names.conf')
        .with_content(/^DNS=127\.0\.0\.55:5354$/)
        .with_content(/^Domains=~blog\.internal$/)
        .that_notifies('Exec[reload resolved]')
    end
  end
end

# The reference cluster has no address on the link; a service of a role that has one may bind it before it comes.
describe 'lb1', type: :host do
  with = lambda do |address|
    facts = Marshal.load(Marshal.dump(FACTS.fetch('lb1')))
    facts['understudy']['address'] = address
    facts
  end
  let(:sysctl) { catalogue.resource('File', '/etc/sysctl.d/60-understudy.conf')[:content] }

  context 'with an address on the link' do
    let(:facts) { with.call({ 'vip' => '10.0.0.10/24', 'interface' => 'eth1', 'names' => ['www'] }) }

    it { expect(sysctl).to match(/^-net\.ipv4\.ip_nonlocal_bind = 1$/).and match(/^-net\.ipv6\.ip_nonlocal_bind = 1$/) }
  end

  [{ 'reserved_ip' => '203.0.113.10', 'names' => ['www'] }, nil].each do |address|
    context "with the address #{address.inspect}" do
      let(:facts) { with.call(address) }

      it { expect(sysctl).not_to include('nonlocal') }
    end
  end
end

# What the control repo makes of each node, without a node: `rspec` in this directory, with rspec-puppet (Debian:
# ruby-rspec-puppet) and puppetlabs-stdlib. fixtures/facts holds the fact `understudy` of every node of the reference
# cluster; tests/puppet keeps it equal to what roles.yaml says.
require 'json'
require 'rspec-puppet'

ROOT = File.expand_path('..', __dir__)

# On a node environment.conf says where modules are; here they may also come from Debian's own directory.
MODULES = [File.join(ROOT, 'site-modules'), File.join(ROOT, 'modules'), '/usr/share/understudy/modules',
           '/usr/share/puppet/modules'].select { |path| File.directory?(path) }

RSpec.configure do |c|
  c.module_path = MODULES.join(File::PATH_SEPARATOR)
  c.manifest = File.join(ROOT, 'manifests')
  c.hiera_config = File.join(ROOT, 'hiera.yaml')
  c.strict_variables = true

  # What is deferred reads secrets on a node while the catalog is applied: as there, it stays unread until then. Before, the
  # catalog is what the compiler made; tests/puppet looks through all of them for what must never be in one.
  c.before do
    allow(Puppet::Pops::Evaluator::DeferredResolver).to receive(:resolve_and_replace)
      .and_wrap_original do |original, node_facts, catalog|
        File.write(File.join(ENV['CATALOGS'], "#{catalog.name}.json"), catalog.to_json) if ENV['CATALOGS']
        original.call(node_facts, catalog, catalog.environment_instance, false)
      end
  end
end

# FACTS: node → its facts.
FACTS = Dir[File.join(ROOT, 'spec', 'fixtures', 'facts', '*.json')].sort.to_h do |path|
  [File.basename(path, '.json'), JSON.parse(File.read(path))]
end

# each_node('web') { |node| … } says the same of every node of a role.
def each_node(role, &examples)
  nodes = FACTS.select { |_, facts| facts['understudy']['role'] == role }.keys
  raise "no node has the role #{role}" if nodes.empty?

  nodes.each do |node|
    describe node, type: :host do
      let(:facts) { FACTS.fetch(node) }

      it { is_expected.to compile.with_all_deps }
      it { is_expected.to contain_class("role::#{role}") }
      instance_exec(node, &examples)
    end
  end
end

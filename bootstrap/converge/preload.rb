# Loads Ruby, Facter and Puppet, waits on standard input for the arguments of `puppet apply`, and then is
# exactly that command. While a machine's network is still coming up, this costs nobody any time.
#
# Only code is loaded before the arguments arrive: no setting is read, no fact resolved, no catalog begun.
# Whatever goes wrong ends in a plain run of the same command: before the line MARKER, started by the
# caller, who sees that the line never came; after it, by exec of puppet in this very process.
#
# Input: a JSON array [path of puppet, argument...] up to end of file. An empty input means that nobody
# needs us any more.

MARKER = 'understudy-preload: applying'.freeze

# Types that nearly every catalog has. With their providers they are most of what a run has to load.
TYPES = %i[file user group package service exec component stage whit schedule filebucket].freeze

FEATURES = %w[
  puppet/application/apply puppet/configurer puppet/transaction puppet/transaction/report puppet/pops
  puppet/pops/parser/egrammar puppet/pops/evaluator/evaluator_impl puppet/parser/compiler
  puppet/indirector/catalog/compiler puppet/indirector/facts/facter puppet/indirector/yaml
  puppet/indirector/plain puppet/parser/e4_parser_adapter puppet/file_bucket/dipper
  facter/framework/cli/cli_launcher digest/sha2
].freeze

# Puppet looks for its code in modules first. What was loaded before the modules were known must be what
# would have been loaded from them: so a module that replaces a file of Puppet's own, or brings one more
# provider for a type that is loaded already, makes us start over. Functions are loaded later than that.
module PreloadedApply
  def run
    reason = start_over_because
    return super unless reason

    puts "understudy-preload: starting puppet afresh: #{reason}"
    $stdout.flush
    exec(*PUPPET_COMMAND)
  end

  private

  def start_over_because
    environment = Puppet.lookup(:environments).get(Puppet[:environment])
    return nil unless environment # Puppet's own error is the better one.

    dir = environment.enum_for(:each_plugin_directory).find { |lib| replaces_or_extends?(lib) }
    dir && "#{dir} replaces or extends what was loaded"
  rescue StandardError => e
    "cannot tell what the modules bring (#{e.class}: #{e.message})"
  end

  def replaces_or_extends?(lib)
    core = File.dirname($LOADED_FEATURES.find { |file| file.end_with?('/puppet/util/command_line.rb') }, 3)
    Dir.glob('puppet/**/*.rb', base: lib).any? do |file|
      next false if file.start_with?('puppet/functions/', 'puppet/parser/functions/')

      File.exist?(File.join(core, file)) || TYPES.any? { |type| file.start_with?("puppet/provider/#{type}/") }
    end
  end
end

Process.setproctitle('understudy-bootstrap: puppet, loaded, waits for its turn')
require 'io/wait'
require 'json'
require 'puppet/util/command_line'
require 'facter'
FEATURES.each do |feature|
  require feature
rescue LoadError
  next # Another version of Puppet keeps it elsewhere, and loads it when it needs it.
end
TYPES.each { |name| Puppet::Type.type(name) }
Puppet::Application::Apply.prepend(PreloadedApply)
GC.start unless $stdin.wait_readable(0) # Tidying up is free while nobody waits for us, and only then.

input = $stdin.read
exit 0 if input.empty?
PUPPET_COMMAND = JSON.parse(input).freeze
$stdin.reopen(File::NULL)
program, *arguments = PUPPET_COMMAND
$PROGRAM_NAME = program
Process.setproctitle(PUPPET_COMMAND.join(' '))
ARGV.replace(arguments)
[$stdout, $stderr].each do |stream| # On both, because nothing orders one stream's lines among the other's.
  stream.puts MARKER
  stream.flush
end
begin
  Puppet::Util::CommandLine.new(program, arguments).execute
rescue LoadError => e # As /usr/bin/puppet does it.
  warn e.message
  exit 1
end

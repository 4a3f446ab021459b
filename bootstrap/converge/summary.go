package converge

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.yaml.in/yaml/v3"
)

// Summary is Puppet's last_run_summary.yaml. Its keys are the same in Puppet 7 and 8; unknown ones are
// ignored, since every version adds some.
type Summary struct {
	Version struct {
		Config string `yaml:"config"` // the commit, unless environment.conf sets its own config_version
		Puppet string `yaml:"puppet"`
	} `yaml:"version"`
	Application struct {
		Environment string `yaml:"converged_environment"`
	} `yaml:"application"`
	// Resources are numbers of resources. Skipped are those that depend on a failed one.
	Resources struct {
		Total           int `yaml:"total"`
		Changed         int `yaml:"changed"`
		Failed          int `yaml:"failed"`
		FailedToRestart int `yaml:"failed_to_restart"`
		OutOfSync       int `yaml:"out_of_sync"`
		Restarted       int `yaml:"restarted"`
		Skipped         int `yaml:"skipped"`
	} `yaml:"resources"`
	// Events count what the resources reported.
	Events struct {
		Success int `yaml:"success"`
		Failure int `yaml:"failure"`
		Noop    int `yaml:"noop"`
	} `yaml:"events"`
	Time struct {
		LastRun int64   `yaml:"last_run"` // seconds since 1970, by the node's clock at the end of the run
		Config  float64 `yaml:"config_retrieval"`
		Apply   float64 `yaml:"catalog_application"`
		Total   float64 `yaml:"total"`
		// Types are the seconds that the resources of each type took, such as "package", and Puppet's own other phases.
		Types map[string]float64 `yaml:",inline"`
	} `yaml:"time"`
}

// LastRun is when the run ended, by the node's own clock.
func (s Summary) LastRun() time.Time { return time.Unix(s.Time.LastRun, 0) }

// maxSummary bounds what is read of a file that another program wrote.
const maxSummary = 16 << 20

// readSummary returns the summary at path. version is what it must carry; empty means that anything will do.
func readSummary(path, version string) (*Summary, error) {
	data, err := readBounded(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("it wrote none")
	}
	if err != nil {
		return nil, fmt.Errorf("read puppet's summary: %w", err)
	}
	var s Summary
	if err := yaml.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("read puppet's summary %s: %w", path, err)
	}
	if version != "" && s.Version.Config != version {
		return nil, fmt.Errorf("the one in %s is of %q, not of %q", path, s.Version.Config, version)
	}
	return &s, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSummary+1))
	if err == nil && len(data) > maxSummary {
		err = fmt.Errorf("larger than %d bytes", maxSummary)
	}
	return data, err
}

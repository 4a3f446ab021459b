package converge

import "go.yaml.in/yaml/v3"

// report is Puppet's last_run_report.yaml, as far as it is asked for. Resources stand in it in the order of the run.
type report struct {
	Statuses yaml.Node `yaml:"resource_statuses"`
	Logs     []struct {
		Source  string `yaml:"source"`
		Message string `yaml:"message"`
	} `yaml:"logs"`
}

// status is how one resource fared.
type status struct {
	resource        string // such as Package[nginx]
	Failed          bool   `yaml:"failed"`
	FailedToRestart bool   `yaml:"failed_to_restart"`
	File            string `yaml:"file"`
	Line            string `yaml:"line"`
	Events          []struct {
		Name    string `yaml:"name"`
		Status  string `yaml:"status"`
		Message string `yaml:"message"`
	} `yaml:"events"`
}

// readReport reads the report at path. A missing or unreadable one is empty: what Puppet said on the console then
// stands in for it.
func readReport(path string) report {
	var r report
	data, err := readBounded(path)
	if err != nil || yaml.Unmarshal(data, &r) != nil || r.Statuses.Kind != yaml.MappingNode {
		return report{}
	}
	return r
}

func (r report) statuses() []status {
	var all []status
	for i := 0; i+1 < len(r.Statuses.Content); i += 2 {
		s := status{resource: r.Statuses.Content[i].Value}
		if r.Statuses.Content[i+1].Decode(&s) == nil {
			all = append(all, s)
		}
	}
	return all
}

// failures lists the failed resources.
func (r report) failures(release string) []Failure {
	var failures []Failure
	for _, s := range r.statuses() {
		if !s.Failed && !s.FailedToRestart {
			continue
		}
		f := Failure{Resource: s.resource}
		if s.File != "" {
			f.Place = tidy(s.File, release) + ":" + s.Line
		}
		if s.FailedToRestart {
			f.Message = "could not be restarted"
		}
		for _, e := range s.Events {
			if e.Status == "failure" {
				f.Message = reason(tidy(e.Message, release))
			}
		}
		failures = append(failures, f)
	}
	return failures
}

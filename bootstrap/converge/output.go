package converge

import (
	"regexp"
	"strings"
)

// Line is one message of Puppet's.
type Line struct {
	Level    string // debug, info, notice, warning or error
	Resource string // such as File[/etc/motd]; empty when the message is about none
	Text     string // without level and resource, paths relative to the release
}

func (l Line) String() string {
	if l.Resource == "" {
		return l.Text
	}
	return l.Resource + ": " + l.Text
}

// ear listens to one run. What a run says is unbounded, so only what judges it is kept.
type ear struct {
	release string
	tell    func(Line)

	last       Line   // the newest message, for continuation lines
	compiled   bool   // there was a catalog
	errors     []Line // the first maxErrors
	stray      string // first line on standard error that is no message: Ruby's own last words
	failures   []Failure
	diskFull   string // the line that says so
	dpkgLocked string
}

const maxErrors = 50

func newEar(r Run) *ear { return &ear{release: r.Release, tell: r.OnLine} }

var (
	levels     = map[string]string{"Debug": "debug", "Info": "info", "Notice": "notice", "Warning": "warning", "Error": "error"}
	noRoom     = regexp.MustCompile(`No space left on device|Disk quota exceeded|ENOSPC|EDQUOT|You don't have enough free space`)
	dpkgLocked = regexp.MustCompile(`Could not get lock /var/(lib/(dpkg|apt)|cache/apt)|Unable to (acquire|lock) the (dpkg|administration)|dpkg( frontend| database)? lock was locked|Unable to lock directory /var/(lib|cache)/apt`)
	heldBy     = regexp.MustCompile(`Could not get lock (\S+?)\. It is held by process (\d+(?: \([^)]*\))?)`)
	// A message's source: the path of a resource from its stage on, perhaps with a property.
	resourcePath = regexp.MustCompile(`^/Stage\[[^\]]*\]/(?:.*?/)??((?:[A-Z]\w*::)*[A-Z]\w*\[.*?\])(/\w+)?: (.*)$`)
	lastResource = regexp.MustCompile(`(?:^|/)((?:[A-Z]\w*::)*[A-Z]\w*\[[^\]]*\])$`)
)

// line takes one line of output.
func (e *ear) line(stream, text string) {
	if text == "" {
		return
	}
	if e.diskFull == "" && noRoom.MatchString(text) {
		e.diskFull = placeFirst(tidy(strings.TrimPrefix(text, "Error: "), e.release))
	}
	if e.dpkgLocked == "" && dpkgLocked.MatchString(text) {
		e.dpkgLocked = lockHolder(text)
	}
	level, rest, ok := strings.Cut(text, ": ")
	if levels[level] == "" || !ok {
		if stream == "stderr" && e.stray == "" && e.last.Level == "" {
			e.stray = text
		}
		if len(e.errors) > 0 && e.last.Level == "error" && strings.HasPrefix(text, "E: ") {
			e.errors[len(e.errors)-1].Text += ": " + strings.TrimPrefix(text, "E: ")
		}
		e.say(Line{Level: e.last.Level, Text: tidy(text, e.release)})
		return
	}
	l := parse(levels[level], rest, e.release)
	e.last = l
	e.note(l)
	e.say(l)
}

// lockHolder shortens apt's words: "Could not get lock FILE. It is held by process PID (NAME)".
func lockHolder(text string) string {
	if m := heldBy.FindStringSubmatch(text); m != nil {
		return "process " + m[2] + " holds " + m[1]
	}
	return strings.TrimPrefix(strings.TrimPrefix(text, "Error: "), "E: ")
}

func (e *ear) note(l Line) {
	switch {
	case strings.HasPrefix(l.Text, "Compiled catalog for "):
		e.compiled = true
	case l.Level == "error" && strings.HasPrefix(l.Text, "Facter: "):
		// Facter grumbles about odd machines; no run fails for that.
	case l.Level == "error" && len(e.errors) < maxErrors:
		e.errors = append(e.errors, l)
		if l.Resource != "" {
			e.failures = append(e.failures, Failure{Resource: l.Resource, Message: reason(l.Text)})
		}
	}
}

func (e *ear) say(l Line) {
	if l.Level == "" {
		l.Level = "info"
	}
	if e.tell != nil {
		e.tell(l)
	}
}

// parse splits "/Stage[main]/Profile::Web/File[/etc/x]/ensure: created" into resource and text.
func parse(level, rest, release string) Line {
	if m := resourcePath.FindStringSubmatch(rest); m != nil {
		name := m[1]
		if in := lastResource.FindStringSubmatch(name); in != nil {
			name = in[1]
		}
		text := m[3]
		if m[2] != "" {
			text = strings.TrimPrefix(m[2], "/") + ": " + text
		}
		return Line{level, name, tidy(text, release)}
	}
	return Line{Level: level, Text: tidy(rest, release)}
}

// cause is the error that explains a run without a catalog: the first that names a file, else the last.
func (e *ear) cause(otherwise string) string {
	var last string
	for _, l := range e.errors {
		if where.MatchString(l.Text) {
			return placeFirst(l.Text)
		}
		last = l.String()
	}
	switch {
	case last != "":
		return last
	case e.stray != "":
		return tidy(rubyPlace.ReplaceAllString(e.stray, ""), e.release)
	}
	return otherwise
}

func (e *ear) lastWords() string {
	if e.last.Text == "" {
		return "nothing"
	}
	return e.last.String()
}

var (
	where       = regexp.MustCompile(` ?\(file: ([^,)]+)(?:, line: (\d+))?(?:, column: (\d+))?\)`)
	tried       = regexp.MustCompile(`^(?:\w+: )?change from .*? to .*? failed: `)
	onNode      = regexp.MustCompile(` on node \S+$`)
	rubyPlace   = regexp.MustCompile("^\\S+\\.rb:\\d+:in [`'][^']*': ")
	boilerplate = regexp.MustCompile(`^Evaluation Error: (?:Error while evaluating an? [A-Z][\w ]*?, )?`)
)

// placeFirst turns "msg (file: F, line: L, column: C) on node N" into "F:L:C: msg".
func placeFirst(text string) string {
	text = boilerplate.ReplaceAllString(onNode.ReplaceAllString(text, ""), "")
	at := where.FindStringSubmatchIndex(text)
	if at == nil {
		return text
	}
	m := where.FindStringSubmatch(text)
	place := m[1]
	for _, number := range m[2:] {
		if number != "" {
			place += ":" + number
		}
	}
	rest := where.ReplaceAllStringFunc(text[:at[0]]+text[at[1]:], func(other string) string {
		o := where.FindStringSubmatch(other)
		if o[1] == m[1] {
			return ""
		}
		if o[2] != "" {
			return " (used at " + o[1] + ":" + o[2] + ")"
		}
		return " (used at " + o[1] + ")"
	})
	return place + ": " + strings.TrimSpace(rest)
}

// tidy makes paths in the release relative to the repository, as the author of the commit knows them.
func tidy(text, release string) string {
	if release == "" {
		return text
	}
	return strings.ReplaceAll(text, release+"/", "")
}

// reason is what is wrong with a resource: without the change that was tried, which the catalog tells, and
// without the place, which a Failure has beside it.
func reason(message string) string {
	message = telling(tried.ReplaceAllString(message, ""))
	return strings.TrimSpace(where.ReplaceAllString(message, ""))
}

// telling picks the line of a message of several lines that says what is wrong: apt and dpkg say a lot
// before they come to it.
func telling(text string) string {
	first := ""
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if first == "" {
			first = line
		}
		if rest, ok := strings.CutPrefix(line, "E: "); ok {
			return rest
		}
		if strings.HasPrefix(line, "dpkg: error") {
			return line
		}
	}
	return first
}

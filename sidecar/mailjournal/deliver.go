package mailjournal

import (
	"context"
	"net"
	"slices"
	"time"
)

// stranded are the entries that no queue of this machine has: collected earlier, or from before its reign, and not
// re-injected since.
func (r *run) stranded() (list []ID) {
	for _, m := range r.journal.Pending() {
		if r.again.has(m.ID) {
			continue
		}
		e, err := r.journal.Read(m.ID)
		if err != nil {
			r.cfg.Log.Error("an entry of the mail journal cannot be read", "entry", m.ID, "err", err)
			continue
		}
		if e.Queue == "" || e.Epoch < r.reign.First {
			list = append(list, m.ID)
		}
	}
	return list
}

// deliver collects what other machines hold and hands it to Postfix with what was stranded, beside new mail. Whoever is away
// is asked when it is back: a deposed primary, cut off with its holder, may have accepted mail until then.
func (r *run) deliver(stranded []ID, closing Closing, track func(ID, string)) error {
	again := func(ids []ID) {
		if len(ids) > 0 {
			r.group.Go(func() error { return r.inject(ids, closing, track) })
		}
	}
	again(stranded)
	own, said := false, ""
	r.behind(r.cfg.Members)
	for left := slices.Clone(r.cfg.Members); !own || len(left) > 0; {
		var failed error
		if !own {
			ids, err := r.copies.CollectOwn(r.ctx, r.own, r.journal, r.started)
			again(ids)
			own, failed = err == nil, err
		}
		holders := r.cfg.Holders()
		left = slices.DeleteFunc(left, func(node string) bool {
			if !slices.Contains(holders, node) {
				return false
			}
			ids, err := r.copies.CollectFrom(r.ctx, node, r.journal, r.started)
			again(ids)
			if err != nil {
				failed = err
			}
			return err == nil
		})
		r.behind(left)
		if failed != nil && r.ctx.Err() == nil && failed.Error() != said {
			r.cfg.Log.Warn("mail that others hold could not be collected yet", "err", failed)
			said = failed.Error()
		}
		if !own || len(left) > 0 {
			if err := pause(r.ctx, r.cfg.Again); err != nil {
				return err
			}
		}
	}
	r.cfg.Log.Info("mail of earlier primaries has been collected from every member")
	return nil
}

func (r *run) behind(nodes []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state.Behind = slices.Clone(nodes)
}

// inject hands over what no Maildir here has.
func (r *run) inject(ids []ID, closing Closing, track func(ID, string)) error {
	maildirs := &Maildirs{Domains: r.cfg.Domains}
	// Postfix is up later than we are; and where the Maildirs cannot be read, mail would be delivered twice.
	for said := ""; ; {
		err := r.reachable()
		if err == nil {
			err = maildirs.Scan(r.ctx, r.cfg.Maildirs, r.since())
		}
		if err == nil {
			break
		}
		if r.ctx.Err() != nil {
			return r.ctx.Err()
		}
		if said != err.Error() {
			r.cfg.Log.Info("mail from before the failover waits", "entries", len(ids), "reason", err)
		}
		said = err.Error()
		if err := pause(r.ctx, reachEvery); err != nil {
			return err
		}
	}
	began := time.Now()
	again := &Reinjector{Closing: closing, Filter: maildirs, Address: r.cfg.SMTP, Log: r.cfg.Log,
		Accepted: func(id ID, queue string) {
			track(id, queue)
			if err := r.again.add(id); err != nil { // if this process ends soon, it is delivered twice
				r.cfg.Log.Warn("a re-injection could not be noted", "entry", id, "err", err)
			}
		}}
	report, err := again.Run(r.ctx, ids)
	if err != nil {
		return err
	}
	r.cfg.Log.Info("mail from before the failover is with Postfix", "sent", report.Sent, "duplicates", report.Duplicates,
		"outbound", report.Outbound, "took", time.Since(began))
	return nil
}

const (
	reachEvery = 200 * time.Millisecond
	// slack is more than any two machines' clocks differ by.
	slack = 48 * time.Hour
)

func (r *run) reachable() error {
	ctx, cancel := context.WithTimeout(r.ctx, time.Second)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.cfg.SMTP)
	if err != nil {
		return err
	}
	return conn.Close()
}

// since is from when on a Maildir's file may be an open entry.
func (r *run) since() time.Time {
	oldest := time.Now()
	for _, m := range r.journal.Pending() {
		if m.Time.Before(oldest) {
			oldest = m.Time
		}
	}
	return oldest.Add(-slack)
}

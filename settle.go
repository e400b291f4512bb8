package main

// This file decides when a changed executable is complete, and whether it is really new.
//
// Its rules:
//   - A burst of events is over after a quiet time; then two equal samples, the kernel and the header must agree.
//   - Quiet may be cut short by nothing but rename(2) or link(2) of a file that the kernel vouches for: what is
//     written in place by a writer who closes and opens again is found by quiet and header alone.
//   - The content decides: touch, go build with nothing to do, chmod and identical bytes change nothing.

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// settling is a burst of events.
type settling struct {
	since   time.Time // the first; zero: there is none
	chatter time.Time // the first of those that followed each other without quiet
	last    time.Time
	wrote   time.Time // the last write
	placed  bool      // all there was: the file appeared, as by rename(2) or link(2)
	next    time.Time // the next look; zero none
	recheck time.Duration
	said    bool
}

func (s *settling) deadline() time.Time { return s.next }

// stir notes an event, and when to look.
func (s *settling) stir(op fsnotify.Op, file bool, quiet time.Duration, now time.Time) {
	if s.since.IsZero() {
		s.since = now
	}
	if now.Sub(s.last) > quiet {
		s.chatter = now
	}
	s.last, s.recheck = now, 0
	if op.Has(fsnotify.Write) {
		s.wrote = now
	}
	part := quiet / 2
	if s.placed = file && op == fsnotify.Create && s.wrote.IsZero(); s.placed {
		part = quiet / vouchedPart / 2
		s.next = now.Add(part)
		return
	}
	s.next = s.quietAt(quiet).Add(-part)
}

// quietAt is when it is quiet enough: some time after the last event. Chatter cannot put it off for ever,
// but a write is no chatter.
func (s *settling) quietAt(quiet time.Duration) time.Time {
	at := s.last.Add(quiet)
	if most := s.chatter.Add(settleMost); at.After(most) {
		at = most
	}
	if end := s.wrote.Add(quiet); !s.wrote.IsZero() && at.Before(end) {
		at = end
	}
	return at
}

// capped tells whether chatter has been cut short.
func (s *settling) capped(quiet time.Duration) bool {
	return s.last.Add(quiet).After(s.chatter.Add(settleMost))
}

// again asks for a look now, unless there will be one.
func (s *settling) again(now time.Time) {
	if s.since.IsZero() {
		s.since = now
	}
	if s.next.IsZero() {
		s.next = now
	}
}

// later asks for the next look while somebody writes.
func (s *settling) later(now time.Time) {
	s.recheck = min(max(2*s.recheck, recheckFirst), recheckMost)
	s.next = now.Add(s.recheck)
}

// sayAt asks for a look when the wait has its line, unless it had it.
func (s *settling) sayAt() {
	if !s.said {
		s.next = s.since.Add(waitingSay)
	}
}

// long tells whether the wait is to have its line now.
func (s *settling) long(now time.Time) bool {
	if s.said || now.Sub(s.since) < waitingSay {
		return false
	}
	s.said = true
	return true
}

// executable is the watched program.
type executable struct {
	settling
	w       *watcher
	name    string // as given
	path    string // logical, as it was found last
	sig     signature
	sample  signature
	sampled time.Time
	odd     signature // whose header did not speak for it
	oddAt   time.Time
	disk    string // content that lies there, "" nothing
	dealt   bool   // nothing is left to be told of it
	proved  bool   // somebody was told of it, or it runs
	told    string // content, and no generation was started since
	owed    bool   // a start was put off: it is to be made up for, whatever lies there then
	stuck   bool   // it could not be executed: any change may mend that
	build   string // what runs
	before  string // what ran before that
	served  time.Time
	gone    bool
	refused signature // of a build that failed: nothing is told of it
}

// newExecutable takes what lies there now as known.
func (w *watcher) newExecutable() *executable {
	p := &executable{w: w, name: filepath.Base(w.cfg.program[0]), dealt: true}
	path, err := w.cfg.find()
	if err != nil {
		w.say(verbose("%v", err).end("waiting for it in PATH")) // whoever starts it tells
		return p
	}
	p.path = path
	if p.sig, err = w.disk.stat(path); err != nil {
		w.say(verbose("%q is not there: %v", p.name, err).end("waiting for it")) // whoever starts it tells, or --build makes it
		p.sig = signature{}
		return p
	}
	if p.sig.regular() {
		p.disk = p.identity(path, p.sig)
	}
	return p
}

func (p *executable) places() []place {
	var list []place
	paths := []string{p.path}
	if _, err := p.w.cfg.find(); err != nil { // it may come back anywhere in PATH
		for _, dir := range p.w.cfg.search[:min(len(p.w.cfg.search), searchMost)] {
			paths = append(paths, filepath.Join(dir, p.w.cfg.program[0]))
		}
	}
	for _, path := range paths {
		if path != "" {
			on, _ := p.w.disk.chain(path)
			list = append(list, on...)
		}
	}
	return list
}

func (p *executable) heard(_ string, op fsnotify.Op, at place, now time.Time) {
	p.stir(op, at.file && p.w.alone(), p.w.cfg.debounce, now)
}

func (p *executable) poll(now time.Time) {
	if !p.next.IsZero() {
		return
	}
	path := p.path
	if found, err := p.w.cfg.find(); err == nil {
		path = found
	}
	sig, err := p.w.disk.stat(path)
	if err != nil && p.disk != "" && !p.gone || err == nil && (p.gone || sig != p.sig && sig != p.sample && sig != p.refused) {
		p.stir(fsnotify.Write, false, p.w.cfg.debounce, now)
	}
}

// started is told that a generation is started from a build; "" that it could not be.
func (p *executable) started(build string, now time.Time) {
	if build == "" {
		if p.told == "" {
			p.build = p.before
		}
		p.told, p.dealt, p.owed, p.sample = "", false, true, signature{}
		return
	}
	p.before, p.build, p.served, p.told, p.owed, p.stuck = p.build, build, now, "", false, false
	if !p.proved && p.disk != "" && p.disk != build && build != "unknown" { // replaced before the watch was there
		p.dealt = false
		p.again(now)
	}
	p.proved = true
}

// refuse is told that the build failed: what it leaves there waits for one that succeeds.
func (p *executable) refuse() {
	p.refused, _ = p.w.disk.stat(p.path)
}

// look is one step of settling.
func (p *executable) look(now time.Time) {
	p.next = time.Time{}
	if path, err := p.w.cfg.find(); err == nil {
		p.path = path
	}
	sig, err := p.w.disk.stat(p.path)
	if err != nil {
		p.missing(now)
		return
	}
	if sig == p.sig && p.dealt || sig == p.refused {
		if p.gone {
			p.w.say(info("%q is back", p.name))
		}
		p.calmed()
		return
	}
	if !p.steady(sig, now) || !p.complete(sig, now) {
		return
	}
	content := p.identity(p.path, sig)
	after, err := p.w.disk.stat(p.path)
	same := after == sig
	if p.capped(p.w.cfg.debounce) { // somebody chatters on
		same = after.calm() == sig.calm()
	}
	if err != nil || !same {
		p.again(now)
		p.next = now.Add(recheckFirst)
		return
	}
	p.settled(sig, content)
}

// steady wants the same sample twice, and quiet.
func (p *executable) steady(sig signature, now time.Time) bool {
	quiet := p.w.cfg.debounce
	part, at, capped := quiet/2, p.quietAt(quiet), p.capped(quiet)
	if p.placed && sig.mtime < sig.ctime { // what was written here has both the same
		part, at = quiet/vouchedPart/2, p.last.Add(quiet/vouchedPart)
	} else if capped || p.last.IsZero() {
		part = quiet / vouchedPart
	}
	same := sig == p.sample || capped && sig.calm() == p.sample.calm()
	if !same {
		p.sample, p.sampled = sig, now
	}
	if steady := p.sampled.Add(part); at.Before(steady) {
		at = steady
	}
	if !same || now.Before(at) {
		p.next = at
		return false
	}
	return true
}

// complete tells whether the file can be run as it is; if not it asks for the next look.
func (p *executable) complete(sig signature, now time.Time) bool {
	word := wordNone
	if sig.regular() {
		word = p.w.disk.word(p.path, true)
	}
	switch {
	case word == wordBusy:
		p.wait(now, ": still being written")
		p.later(now)
		return false
	case sig.mode&0o111 == 0 && sig.regular():
		p.wait(now, " to become executable")
		p.sayAt()
		return false
	case word == wordNoExec:
		p.wait(now, ": it may not be executed there")
		p.sayAt()
		return false
	case !sig.regular():
		p.wait(now, ": it is not a file")
		p.sayAt()
		return false
	case sig.size == 0:
		p.wait(now, ": still empty")
		p.sayAt()
		return false
	case !p.whole(sig, now):
		return false
	}
	if quiet := p.quietAt(p.w.cfg.debounce); p.placed && word != wordFree && now.Before(quiet) {
		p.placed, p.next = false, quiet
		return false
	}
	return true
}

// whole tells whether the header speaks for a complete file, or has had its time to: formats that only
// binfmt_misc knows are legal. One that speaks of more than there is waits for the next change; until it has had its
// time, for a writer without events too.
func (p *executable) whole(sig signature, now time.Time) bool {
	word := p.w.disk.header(p.path, sig.size)
	if sig != p.odd {
		p.odd, p.oddAt = sig, now
	}
	late := now.Sub(p.oddAt) >= foreignWait
	switch {
	case word == headerWhole, word == headerOdd && late:
		return true
	case word == headerOdd:
		p.wait(now, ": it begins with neither an ELF header nor #!")
	default:
		p.wait(now, ": a part of it is missing")
	}
	if !late {
		p.later(now)
	}
	return false
}

// wait says what is waited for, once it takes long. Whoever waits had no vouched file.
func (p *executable) wait(now time.Time, what string) {
	p.placed = false
	if p.long(now) {
		p.w.say(info("waiting for %q%s", p.name, what))
	}
}

// missing keeps what runs: gcc removes the old file when a link fails.
func (p *executable) missing(now time.Time) {
	p.sample = signature{}
	if p.disk == "" || p.gone { // that was said
		p.settling = settling{}
		return
	}
	p.sayAt()
	if !p.long(now) {
		return
	}
	p.settling, p.gone = settling{}, true
	m := warning("%q is gone", p.name)
	if !p.served.IsZero() {
		m = m.end("what serves since %s ago goes on", brief(now.Sub(p.served)))
	}
	p.w.say(m)
}

// calmed ends a burst that changed nothing.
func (p *executable) calmed() {
	p.settling, p.sample, p.gone = settling{}, signature{}, false
}

// settled decides about a complete file by its content.
func (p *executable) settled(sig signature, content string) {
	before, back := p.disk, p.gone
	known, stuck := content == before && p.dealt && !p.stuck, p.stuck
	p.disk, p.sig, p.dealt, p.proved, p.stuck = content, sig, true, true, false
	p.calmed()
	switch {
	case known && back:
		p.w.say(info("%q is back, the same as before", p.name))
	case known:
		p.w.say(verbose("%q was touched, its content is the same", p.name))
	case content == p.build && p.told == "" && !p.owed && !stuck:
		p.w.say(verbose("%q is what runs", p.name))
	case content == p.told:
	default:
		from := p.told // the candidate's, if that is under way
		if from == "" {
			from = p.build
		}
		switch {
		case from == "" && content != before:
			from = before
		case from == content && stuck:
			from = p.before
		}
		p.told = content
		p.w.send(watchNews{trigger: &trigger{
			name: p.name, from: shown(from), to: shown(content), size: sig.size, program: true, owed: p.owed, stuck: stuck, build: p.w.ended,
		}})
	}
}

// identity is the content's hash; a file that cannot be read is told apart by its signature.
func (p *executable) identity(path string, sig signature) string {
	if hash := p.w.disk.content(path); hash != "unknown" {
		return hash
	}
	return fmt.Sprintf("unknown %v", sig)
}

// shown is an identity as a trigger has it.
func shown(identity string) string {
	if strings.HasPrefix(identity, "unknown") {
		return ""
	}
	return identity
}

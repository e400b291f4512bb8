package main

// This file makes the world again from what another hotwrap has carried along.
//
// Its rules:
//   - What fails here fails before anything of what was carried is used up: who carried it can still go on with it.
//   - What was said before is not said again.

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// restore is setUp for a hotwrap that goes on where another has left.
func (h *host) restore(cfg *config, w *written) (err error) {
	environ := os.Environ()
	h.self, h.since, h.before, h.nohup, h.deprives = w.Self, w.Since, w.text, w.Said.NoHup, w.Said.Deprives
	h.printer.lost = w.Said.Lost
	if h.upward, err = openUpward(environ); err != nil {
		h.say(warning("the service manager cannot be told anything: %v", err))
	}
	if h.program, err = newProgram(cfg, environ); err != nil {
		return err
	}
	becomeSubreaper()
	h.tty, _ = unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err := errors.Join(h.restorePlace(w), h.restoreSockets(cfg, w)); err != nil {
		return err
	}
	h.limit(cfg, environ)
	if err := h.watch(cfg, &w.Watch); err != nil {
		return err
	}
	if err := h.readyToAdopt(cfg); err != nil {
		return err
	}
	return h.restoreWorkers(w)
}

// restorePlace goes on under the same name.
func (h *host) restorePlace(w *written) (err error) {
	if h.place, err = restoreInstance(w.Place); err != nil {
		return fmt.Errorf("cannot take over the name: %w", err)
	}
	if h.place != nil {
		h.program.control = h.place.path
	}
	if h.pidFile, err = restorePIDFile(w.PIDFile); err != nil {
		return fmt.Errorf("cannot take over the pid file: %w", err)
	}
	if w.HTTP > 0 {
		if h.http, err = restoreListener(w.HTTP); err != nil {
			return fmt.Errorf("cannot take over the socket of --http: %w", err)
		}
	}
	return nil
}

// restoreSockets goes on with the sockets, if they were not closed for a stop.
func (h *host) restoreSockets(cfg *config, w *written) error {
	if w.Closed {
		h.traffic = &sharedTraffic{}
		return h.program.number(nil)
	}
	t, _, err := restoreTraffic(w.Traffic, h.program.number)
	if err != nil {
		return fmt.Errorf("cannot take over the listeners: %w", err)
	}
	h.closed, h.traffic = false, t
	h.store, h.parked = restoreFDStore(h.upward, w.Store), w.State.parked()
	return h.watchOver(cfg)
}

// watchOver goes on with listeners that were another hotwrap's.
func (h *host) watchOver(cfg *config) error {
	h.keep()
	if cfg.ready.mode == readyURL {
		if err := h.aimAt(cfg.ready.url); err != nil {
			return err
		}
	}
	if err := h.traffic.watch(h.spoilt); err != nil {
		h.say(warning("nobody watches over the listeners: %v", err))
	}
	return nil
}

// restoreWorkers listens to the workers again.
func (h *host) restoreWorkers(w *written) (err error) {
	if h.orphans, err = openOrphans(w.Orphans); err != nil {
		return err
	}
	if h.notify, err = restoreNotifyDir(w.Notify); err != nil {
		return fmt.Errorf("cannot take over the workers' sockets: %w", err)
	}
	for serial, carried := range w.Ears {
		if h.ears[serial], err = h.restoreEars(serial, carried); err != nil {
			return fmt.Errorf("cannot listen to a worker again: %w", err)
		}
	}
	return nil
}

package main

// This file is what this machine permits of what hotwrap does beyond the ordinary, and what is lost without it.
//
// Its rules:
//   - What can be tried is tried, at once and with nothing forked; nothing of it stays.
//   - An error is one line: what is missing, and what helps. It is the same line in the log, at a refusal and in doctor.
//   - What was asked for and is missing is an error; what is only better is left out, and one line says what that loses.

import "fmt"

// permits are those things: nil, or what is missing.
type permits struct {
	steering error // a generation has sockets of its own
	adoption error // hotwrap does a program's own bind and listen
}

// missing is something that this machine does not permit.
type missing struct {
	what   string
	remedy string // "": nothing helps
}

func (m *missing) Error() string {
	if m.remedy == "" {
		return m.what
	}
	return m.what + ": " + m.remedy
}

// Words for what is lost, in the log and in doctor.
const (
	lostSteering = "all generations share their sockets, and clients may reach a successor before the switch"
	lostAdoption = "a program that binds by itself is not adopted: its successor finds the address in use"
)

// needsSteering refuses an option that does nothing without it.
func (p permits) needsSteering(option string) error {
	if p.steering == nil {
		return nil
	}
	return fmt.Errorf("%s needs a socket of its own for each generation: %w", option, p.steering)
}

// needsAdoption refuses --adopt always.
func (p permits) needsAdoption() error {
	if p.adoption == nil {
		return nil
	}
	return fmt.Errorf("--adopt always: cannot do the program's bind and listen: %w", p.adoption)
}

// losses says what goes on without steering. That a program cannot be adopted is said when it has to be.
func (p permits) losses() (ms []message) {
	if p.steering != nil {
		ms = append(ms, warning(lostSteering).end("%v", p.steering))
	}
	return ms
}

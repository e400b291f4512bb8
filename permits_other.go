//go:build !linux

package main

// This file says what only Linux permits.

import "errors"

var errNotSteered = errors.New("only Linux steers connections to one of several sockets (SO_ATTACH_REUSEPORT_CBPF)")

func steerable() error { return errNotSteered }

// tablesReadable is about Linux alone: without such tables nothing is missing here that could be there.
func tablesReadable() error { return nil }

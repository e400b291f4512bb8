//go:build !linux

package main

// This file says that hotwrap replaces itself on Linux only.

import (
	"errors"
	"io"
	"os"
)

const resumeMark = "_resume"

var errNoReexec = errors.New("a re-exec needs Linux")

func ownPath(string, []string) string            { return "" }
func (h *host) propose(*state, int) (int, error) { return 0, errNoReexec }
func (h *host) depart(*supervisor) error         { return errNoReexec }
func (w *written) goBack(int, error) error       { return errNoReexec }
func resumeMain(io.Writer) int                   { return statusFailed }
func resumed() (*takenOver, error)               { return nil, nil }
func takeSignals()                               {}

func (t *takenOver) hear(chan<- os.Signal) {}
func (t *takenOver) forget()               {}

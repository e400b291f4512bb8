//go:build !linux

package main

// This file says that workers are taken over from a hotwrap that was killed on Linux only.

import (
	"errors"
	"syscall"
)

type (
	orphans struct{}
	hunt    struct{}
)

func bootID() string { return "" } // so no state is kept

func openOrphans(map[int]uint64) (*orphans, error) { return nil, nil }
func (o *orphans) watch(chan<- event) error        { return nil }
func (o *orphans) stop() []event                   { return nil }
func (o *orphans) signal(int, syscall.Signal) bool { return false }
func (o *orphans) emptied(int) bool                { return false }
func (o *orphans) forget(int)                      {}
func (o *orphans) carry() map[int]uint64           { return nil }
func (o *orphans) knownStarts(map[int]uint64)      {}
func (h *host) findLegacy(*config) *legacy         { return nil }
func (h *host) recoverSockets([]*listener) bool    { return false }
func (h *host) recoverWorkers() error              { return nil }
func swapNames(_, _ string) error                  { return errors.ErrUnsupported }
func leftBehind(int) string                        { return "" }
func readAndWritten(fd int) int                    { return fd }
func pipeInodes([2]int) [2]uint64                  { return [2]uint64{} }

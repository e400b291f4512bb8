//go:build !linux

package main

// This file is where connections cannot be steered: SO_ATTACH_REUSEPORT_CBPF is Linux's.

func newTraffic(ls []*listener, _, _ bool) (traffic, []message) {
	return &sharedTraffic{listeners: ls}, nil
}

//go:build !linux

package main

// This file is where nothing is steered, and so nothing of that kind is carried.

import "errors"

func restoreSteered(carriedTraffic, func([]*listener) error) (traffic, []*listener, error) {
	return nil, nil, errors.New("only Linux steers connections")
}

func (c carriedTraffic) recoveredGroups(*finder) (carriedTraffic, error) {
	return c, errors.New("only Linux steers connections")
}

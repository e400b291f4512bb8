//go:build !linux

package main

import (
	"fmt"
	"runtime"
)

func copyRange(int, int, int) (int, error) {
	return 0, fmt.Errorf("copy_file_range(2) is not available on %s", runtime.GOOS)
}

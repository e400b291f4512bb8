//go:build !linux

package main

// This file stands in for what only Linux tells of a file.

func askKernel(string, bool) kernelWord { return wordNone }

func slowKind(string) string { return "" }

func kernelMade(string) bool { return false }

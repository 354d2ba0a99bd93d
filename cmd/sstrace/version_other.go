//go:build !linux

package main

// kernelRelease returns nothing: sstrace does not trace here.
func kernelRelease() string { return "" }

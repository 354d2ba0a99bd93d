package main

import "golang.org/x/sys/unix"

// kernelRelease returns the kernel's release as uname -r prints it, after a comma.
func kernelRelease() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return ", Linux " + unix.ByteSliceToString(name.Release[:])
}

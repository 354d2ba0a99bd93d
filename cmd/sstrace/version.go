package main

import (
	"fmt"
	"runtime"
)

// release is the version in CHANGELOG.md.
const release = "0.2.0"

// build is the output of `git describe` when `make build` ran.
var build = "unknown build"

// version returns what a bug report needs: release, build, Go, system and kernel.
func version() string {
	return fmt.Sprintf("%s (%s, %s, %s/%s%s)",
		release, build, runtime.Version(), runtime.GOOS, runtime.GOARCH, kernelRelease())
}

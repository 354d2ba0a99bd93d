//go:build !linux

package main

import (
	"errors"
	"io"
)

var errLinux = errors.New("tracing needs Linux; on this system sstrace prints recordings: sstrace -r FILE")

func (j *job) trace([]string) error { return errLinux }

func (j *job) list() error { return errLinux }

func check(io.Writer) error { return errLinux }

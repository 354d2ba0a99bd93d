//go:build !linux

package main

import (
	"errors"
	"io"
)

var errLinux = errors.New("tracing needs Linux; here sstrace prints recordings: sstrace -r FILE")

func (t *trip) trace(*options, []string) error { return errLinux }

func (t *trip) list(*options) error { return errLinux }

func check(io.Writer) error { return errLinux }

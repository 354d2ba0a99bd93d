//go:build !linux

package session

// checkReader does nothing: only a live source is ever idle, and tracing needs Linux.
func (o *Output) checkReader() error { return nil }

package session

import "golang.org/x/sys/unix"

// checkReader returns ErrReaderGone if standard output is a pipe or a socket that no process reads
// any more (poll(2): POLLERR).
func (o *Output) checkReader() error {
	if !o.isStdout {
		return nil
	}
	fds := []unix.PollFd{{Fd: int32(o.Fd())}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0 {
		return ErrReaderGone
	}
	return nil
}

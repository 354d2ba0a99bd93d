package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// command is the program that is traced while it runs. It shares our stdin, stdout and stderr.
type command struct {
	done chan struct{}
	err  error // once done
}

// findCommand returns an error if there is no program with this name.
func findCommand(name string) error {
	_, err := exec.LookPath(name)
	return cannotStart(err)
}

func cannotStart(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return startError{fmt.Errorf("run the command: %w", err), 127}
	}
	return startError{fmt.Errorf("run the command: %w", err), 126}
}

// startCommand starts argv, and calls ended when it exits. The terminal sends SIGINT and SIGHUP to
// the command as well, so it can decide for itself; SIGTERM is sent only to us, so we pass it on.
func startCommand(argv []string, signals <-chan os.Signal, ended func()) (*command, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, cannotStart(err)
	}
	c := &command{done: make(chan struct{})}
	go func() {
		for {
			select {
			case s := <-signals:
				if s == syscall.SIGTERM {
					_ = cmd.Process.Signal(s) // it may have exited already
				}
			case <-c.done:
				return
			}
		}
	}()
	go func() {
		c.err = cmd.Wait()
		close(c.done)
		ended()
	}()
	return c, nil
}

// wait waits for the command. It returns the command's exit code as a shell would, or traceErr if
// the code is 0.
func (c *command) wait(traceErr error) error {
	<-c.done
	var exit *exec.ExitError
	switch {
	case errors.As(c.err, &exit):
		code := exit.ExitCode()
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			code = 128 + int(status.Signal())
		}
		return commandEnded{traceErr, code}
	case c.err != nil:
		return errors.Join(fmt.Errorf("wait for the command: %w", c.err), traceErr)
	}
	return traceErr
}

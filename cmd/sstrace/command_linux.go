package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

// command is the program that is traced while it runs. Its stdin, stdout and stderr are ours.
type command struct {
	done chan struct{}
	err  error // once done
}

// findCommand says before anything else happens that there is no such program.
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

// startCommand runs argv and calls ended when it is over. SIGINT and SIGHUP come from the terminal, which gives them to the command,
// too: whether that ends it is its own affair. SIGTERM came to us alone, and is handed on.
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
					_ = cmd.Process.Signal(s) // it may just have ended
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

// wait gives the command's exit code, as a shell does; if that is 0, the trace's own error.
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

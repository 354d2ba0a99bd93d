package main

import (
	"os"
	"sync/atomic"
	"testing"
	"unsafe"

	"sstrace/internal/event"

	"golang.org/x/sys/unix"
)

// uring is an io_uring with the parts that accepting needs (include/uapi/linux/io_uring.h). It is
// used by one goroutine only.
type uring struct {
	h              *host
	fd             int
	sqTail, sqMask *uint32
	cqHead, cqTail *uint32
	cqMask         *uint32
	array          *[uringEntries]uint32
	sqes           *[uringEntries]sqe
	cqes           *[2 * uringEntries]cqe
	mappings       [][]byte
}

const uringEntries = 8

type sqe struct {
	opcode    uint8
	_         uint8 // flags
	ioprio    uint16
	fd        int32
	_         [2]uint64 // off, addr
	_         [2]uint32 // len, accept_flags
	_         uint64    // user_data
	_         [2]uint16 // buf_index, personality
	fileIndex uint32
	_         [2]uint64
}

type cqe struct {
	_   uint64 // user_data
	res int32
	_   uint32 // flags
}

const (
	ioringOpAccept        = 13
	ioringAcceptMultishot = 1
	ioringFileIndexAlloc  = 1<<32 - 1
	ioringRegisterFiles   = 2
)

func (h *host) newUring() *uring {
	var params struct {
		sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
		reserved                                                               [3]uint32
		sq                                                                     struct {
			head, tail, ringMask, ringEntries, flags, dropped, array, reserved [1]uint32
			addr                                                               uint64
		}
		cq struct {
			head, tail, ringMask, ringEntries, overflow, cqes, flags, reserved [1]uint32
			addr                                                               uint64
		}
	}
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uringEntries, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		h.t.Skipf("no io_uring here: %v", errno)
	}
	r := &uring{h: h, fd: int(fd)}
	m := func(offset int64, size int) unsafe.Pointer {
		b, err := unix.Mmap(r.fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
		if err != nil {
			h.t.Fatal(err)
		}
		r.mappings = append(r.mappings, b)
		return unsafe.Pointer(&b[0])
	}
	const sqRing, cqRing, sqeArray = 0, 0x8000000, 0x10000000
	sq := m(sqRing, int(params.sq.array[0])+4*uringEntries)
	cq := m(cqRing, int(params.cq.cqes[0])+int(unsafe.Sizeof(*r.cqes)))
	r.sqTail, r.sqMask = (*uint32)(unsafe.Add(sq, params.sq.tail[0])), (*uint32)(unsafe.Add(sq, params.sq.ringMask[0]))
	r.array = (*[uringEntries]uint32)(unsafe.Add(sq, params.sq.array[0]))
	r.cqHead, r.cqTail, r.cqMask = (*uint32)(unsafe.Add(cq, params.cq.head[0])), (*uint32)(unsafe.Add(cq, params.cq.tail[0])), (*uint32)(unsafe.Add(cq, params.cq.ringMask[0]))
	r.cqes = (*[2 * uringEntries]cqe)(unsafe.Add(cq, params.cq.cqes[0]))
	r.sqes = (*[uringEntries]sqe)(m(sqeArray, int(unsafe.Sizeof(*r.sqes))))
	h.t.Cleanup(func() {
		_ = unix.Close(r.fd)
		for _, b := range r.mappings {
			_ = unix.Munmap(b)
		}
	})
	return r
}

func (r *uring) enter(submit, wait uintptr) {
	const getEvents = 1
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), submit, wait, getEvents, 0, 0)
	if errno != 0 {
		r.h.t.Fatalf("io_uring_enter: %v", errno)
	}
}

func (r *uring) submit(s sqe) {
	tail := atomic.LoadUint32(r.sqTail)
	r.sqes[tail&*r.sqMask] = s
	r.array[tail&*r.sqMask] = tail & *r.sqMask
	atomic.StoreUint32(r.sqTail, tail+1)
	r.enter(1, 0)
}

// result waits for a completion and returns its result.
func (r *uring) result() int32 {
	head := atomic.LoadUint32(r.cqHead)
	for head == atomic.LoadUint32(r.cqTail) {
		r.enter(0, 1)
	}
	c := r.cqes[head&*r.cqMask]
	atomic.StoreUint32(r.cqHead, head+1)
	return c.res
}

// registerDirect registers the ring's own table, with empty slots.
func (r *uring) registerDirect() {
	slots := [4]int32{-1, -1, -1, -1}
	_, _, errno := unix.Syscall6(unix.SYS_IO_URING_REGISTER, uintptr(r.fd), ioringRegisterFiles, uintptr(unsafe.Pointer(&slots)), uintptr(len(slots)), 0, 0)
	if errno != 0 {
		r.h.t.Fatalf("register a table of files: %v", errno)
	}
}

// A process that accepts through io_uring owns the connection from then on, as with accept(). The
// test uses one request for each connection, one for many (multishot), and one that accepts into a
// slot of the ring's own table.
func TestAcceptedByIoUring(t *testing.T) {
	if kernelBefore(t, 5, 19) {
		t.Skip("before Linux 5.19 a completion does not include its request")
	}
	for _, test := range []struct {
		name    string
		request sqe
	}{
		{"one", sqe{opcode: ioringOpAccept}},
		{"multishot", sqe{opcode: ioringOpAccept, ioprio: ioringAcceptMultishot}},
		{"into a slot", sqe{opcode: ioringOpAccept, fileIndex: 2}},
		{"into any slot", sqe{opcode: ioringOpAccept, fileIndex: ioringFileIndexAlloc}},
		{"multishot into any slot", sqe{opcode: ioringOpAccept, ioprio: ioringAcceptMultishot, fileIndex: ioringFileIndexAlloc}},
	} {
		for _, addr := range []string{"127.0.0.1:7781", "[::1]:7781"} {
			t.Run(test.name+" "+addr, func(t *testing.T) { acceptedByIoUring(t, test.request, addr) })
		}
	}
}

func acceptedByIoUring(t *testing.T, request sqe, addr string) {
	h := newHost(t)
	var client string
	r := trace(t, []string{"--states", "rfc", "--netns", h.netns()}, func() {
		ring := h.newUring()
		ring.registerDirect()
		l := h.listen(addr, 8)
		request.fd = int32(l.fd)
		ring.submit(request)
		c := h.dial(addr)
		client = c.local()
		fd := ring.result()
		if fd < 0 {
			t.Errorf("accept: %v", unix.Errno(-fd))
		}
		if request.fileIndex == 0 {
			sock{h, int(fd)}.close()
			c.reach(unix.BPF_TCP_CLOSE_WAIT)
		} else {
			c.reset()
		}
		c.close()
		h.quiet()
		l.close()
	})
	checkViews(t, r.file)
	if len(r.accepts) != 1 {
		t.Fatalf("got %d accepts, want 1: %+v", len(r.accepts), r.accepts)
	}
	e := r.accepts[0]
	if e.Remote.String() != client || e.OwnerPID != uint32(os.Getpid()) || e.OwnerVia != event.ViaAccept || e.Role != event.Server || e.Dur == event.Unknown {
		t.Errorf("%+v", e)
	}
	for _, c := range r.changes {
		if c.ID == e.ID && c.New == event.FinWait1 && c.OwnerPID != uint32(os.Getpid()) {
			t.Errorf("its owner: %+v", c)
		}
	}
}

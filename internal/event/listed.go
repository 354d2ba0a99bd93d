package event

// RecvQ returns the number of unread bytes, or Unknown.
func (e *Event) RecvQ() int64 { return e.queue(false, e.Status.RecvQueue) }

// SendQ returns the number of bytes that the peer has not acknowledged, or Unknown.
func (e *Event) SendQ() int64 { return e.queue(false, e.Status.SendQueue) }

// AcceptQ returns how many of a listener's connections are waiting for accept(), or Unknown.
func (e *Event) AcceptQ() int64 { return e.queue(true, e.Status.RecvQueue) }

// AcceptMax returns the limit of a listener's accept queue, or Unknown.
func (e *Event) AcceptMax() int64 { return e.queue(true, e.Status.SendQueue) }

// queue returns v if listener says correctly whether e is a listener, and Unknown otherwise. v has
// one meaning for a listener and another one for any other socket.
func (e *Event) queue(listener bool, v int64) int64 {
	if listener != (e.New == Listen) {
		return Unknown
	}
	return v
}

// SocketFD returns the file descriptor of the socket, or Unknown if the process holds it through
// io_uring.
func (h *Holder) SocketFD() int64 {
	if h.How == BySlot {
		return Unknown
	}
	return int64(h.FD)
}

// RingFD returns the file descriptor of the io_uring that holds the socket, or Unknown.
func (h *Holder) RingFD() int64 {
	if h.How != BySlot {
		return Unknown
	}
	return int64(h.FD)
}

// RingSlot returns the socket's slot in that io_uring, or Unknown.
func (h *Holder) RingSlot() int64 {
	if h.How != BySlot {
		return Unknown
	}
	return int64(h.Slot)
}

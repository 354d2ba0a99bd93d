package lines

import (
	"net/netip"
	"strconv"
	"strings"

	"sstrace/internal/event"
	"sstrace/internal/text"
)

// csvHeader has the keys of NDJSON, in its order. What is unknown is empty.
const csvHeader = "v,type,seq,ts,mono_ns,cpu,id,cookie,sk,netns,family,proto,laddr,lport,raddr,rport,old,new,dur_ns,origin,role,reason,err," +
	"owner_pid,owner_comm,owner_via,task_pid,task_comm,uid,cgroup,cgroup_id,ring_full,queue_ns," +
	"bytes_acked,bytes_received,segs_out,segs_in,retrans,srtt_us,min_rtt_us,cong,active_close,container,unit,syn_retrans,task_tid," +
	"ifindex,ifname,isn,defer_ns,srtt_open_us,owner_host_pid,task_host_pid\n"

// ringFull is the number of fields before ring_full.
var ringFull = strings.Count(strings.Split(csvHeader, "ring_full")[0], ",")

// afterRingFull is the number of those after it.
var afterRingFull = strings.Count(csvHeader, ",") - ringFull

func appendCSV(b []byte, e *event.Event) []byte {
	b = strconv.AppendInt(b, event.Version, 10)
	b = append(b, ',')
	b = append(b, e.Type.String()...)
	b = append(b, ',')
	b = strconv.AppendUint(b, e.Seq, 10)
	b = append(b, ',')
	b = event.AppendTime(b, e.Wall)
	b = append(b, ',')
	b = strconv.AppendInt(b, e.Mono, 10)
	if e.Type == event.Lost {
		b = append(b, strings.Repeat(",", ringFull-4)...)
		b = strconv.AppendUint(b, e.RingFull, 10)
		return append(b, strings.Repeat(",", afterRingFull)+"\n"...)
	}
	b = append(b, ',')
	b = strconv.AppendUint(b, uint64(e.CPU), 10)
	b = csvUint(b, e.ID)
	b = csvUint(b, e.Cookie)
	b = append(b, ",0x"...)
	b = strconv.AppendUint(b, e.Sk, 16)
	b = csvUint(b, uint64(e.NetNS))
	b = csvString(b, e.Family.String())
	b = csvString(b, e.Proto.String())
	b = csvAddr(b, e.Local.Addr())
	b = csvUint(b, uint64(e.Local.Port()))
	b = csvAddr(b, e.Remote.Addr())
	b = csvUint(b, uint64(e.Remote.Port()))
	if e.Type != event.Change {
		b = append(b, ",,,,"...) // old, new, dur_ns, origin
	} else {
		b = csvString(b, e.Old.String())
		b = csvString(b, e.New.String())
		b = csvDur(b, e.Dur)
		b = csvString(b, e.Origin.String())
	}
	b = csvString(b, e.Role.String())
	b = csvString(b, e.Reason.String())
	b = csvUint(b, uint64(e.Err))
	b = csvPID(b, e.OwnerPID, 0)
	b = csvString(b, e.OwnerComm)
	b = csvString(b, e.OwnerVia.String())
	if e.TaskPID == 0 { // the idle task
		b = append(b, ",0"...)
	} else {
		b = csvPID(b, e.TaskPID, 0)
	}
	b = csvString(b, e.TaskComm)
	b = append(b, ',')
	if e.UID != event.NoUID {
		b = strconv.AppendUint(b, uint64(e.UID), 10)
	}
	b = csvString(b, e.Cgroup)
	b = csvUint(b, e.CgroupID)
	b = append(b, ',') // ring_full
	if e.Type == event.Accept {
		b = csvDur(b, e.Dur)
	} else {
		b = append(b, ',')
	}
	t := &e.Totals
	if !t.Known {
		return csvLast(append(b, ",,,,,,,,"...), e)
	}
	for _, v := range []uint64{t.BytesAcked, t.BytesReceived, uint64(t.SegsOut), uint64(t.SegsIn), uint64(t.Retrans)} {
		b = append(b, ',')
		b = strconv.AppendUint(b, v, 10)
	}
	b = csvUint(b, uint64(t.SRTT))
	b = csvUint(b, uint64(t.MinRTT))
	return csvLast(csvString(b, t.Cong), e)
}

// csvLast writes the fields from active_close on.
func csvLast(b []byte, e *event.Event) []byte {
	b = append(b, ',')
	if e.Closer != 0 {
		b = append(b, e.Closer.JSON()...)
	}
	b = csvString(b, e.Container())
	b = csvString(b, e.Unit())
	if e.Type == event.Change {
		b = csvDur(b, int64(e.SynRetrans))
	} else {
		b = append(b, ',')
	}
	b = csvPID(b, e.TaskTID, 0)
	b = csvUint(b, uint64(e.IfIndex))
	b = csvString(b, e.IfName)
	b = csvUint(b, uint64(e.ISN))
	b = csvUint(b, uint64(e.Deferred))
	b = csvUint(b, uint64(e.Totals.SRTTOpen))
	b = csvPID(b, e.OwnerPID, event.HostPID)
	return append(csvPID(b, e.TaskPID, event.HostPID), '\n')
}

// csvPID writes pid if it is of the namespace that want says: event.HostPID, or 0 for our own.
func csvPID(b []byte, pid, want uint32) []byte {
	if pid&event.HostPID != want {
		return append(b, ',')
	}
	return csvUint(b, uint64(pid&^event.HostPID))
}

func csvDur(b []byte, dur int64) []byte {
	b = append(b, ',')
	if dur == event.Unknown {
		return b
	}
	return strconv.AppendInt(b, dur, 10)
}

func csvUint(b []byte, v uint64) []byte {
	b = append(b, ',')
	if v == 0 {
		return b
	}
	return strconv.AppendUint(b, v, 10)
}

func csvAddr(b []byte, a netip.Addr) []byte {
	b = append(b, ',')
	if !a.IsValid() {
		return b
	}
	return a.AppendTo(b)
}

// csvString writes s as in text, control bytes visible, so that a record is one line; in quotes if it needs them (RFC 4180).
func csvString(b []byte, s string) []byte {
	b = append(b, ',')
	if !strings.ContainsAny(s, `",`) {
		return text.AppendVisible(b, s)
	}
	b = append(b, '"')
	b = text.AppendVisible(b, strings.ReplaceAll(s, `"`, `""`))
	return append(b, '"')
}

package main

// This file asks the kernel's socket tables: who listens where, which connections are open, who has an address.
//
//   - TCP and UDP by netlink (sock_diag(7)), which needs no privilege; where that is refused or not built in, /proc/net.
//   - Unix sockets by /proc/net/unix alone. A path there may hold anything, line ends included, so a row only counts
//     together with a process that has its inode open.
//   - Sockets of another network namespace do not show.

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	maxSockets   = 1 << 18 // rows taken from one table
	maxListeners = 1000    // addresses that otherListeners names
	maxCommand   = 120     // bytes of a command line in a message
)

// States of TCP sockets, see net/tcp_states.h. An unconnected UDP socket is in state close.
const (
	tcpEstablished = 1
	tcpSynRecv     = 3 // half-open; sock_diag also shows TCP_NEW_SYN_RECV as this
	tcpFinWait1    = 4 // the program has shut its side and may still read
	tcpFinWait2    = 5
	tcpClose       = 7
	tcpCloseWait   = 8 // the client has shut its side and may wait for an answer
	tcpListen      = 10
)

// stateSet are states of sockets, one bit each.
type stateSet uint32

// openStates are those in which a program has a connection. In the others that come after close(2) the kernel alone has it.
const openStates stateSet = 1<<tcpEstablished | 1<<tcpFinWait1 | 1<<tcpFinWait2 | 1<<tcpCloseWait

func (set stateSet) has(state byte) bool { return state < 32 && set&(1<<state) != 0 }

// inetSocket is one row of the kernel's table of TCP or UDP sockets.
type inetSocket struct {
	state          byte
	local, remote  netip.AddrPort
	inode          uint64 // 0: no process has it, as a connection that is not accepted yet
	idle           time.Duration
	owed           bool   // the last bytes came from the other side
	unread, unsent int    // bytes that the program has not read, that the other side has not acknowledged
	queue, limit   int    // of a listening one: connections not accepted yet, and how many may wait; limit 0: unknown
	device         int    // index of the network interface it is bound to, 0: any; as the next, unknown to /proc/net
	v6only         bool   // of a listening one
	drops          uint32 // of a listening one: packets it did not want; unknown to /proc/net
}

// portSet are local ports; an empty one stands for all. A table is walked once for all of them: each walk costs the
// kernel the whole table, however few it finds.
type portSet map[uint16]bool

func (p portSet) has(port uint16) bool { return len(p) == 0 || p[port] }

// span is the least and the greatest of them.
func (p portSet) span() (low, high uint16) {
	low, high = math.MaxUint16, 0
	for port := range p {
		low, high = min(low, port), max(high, port)
	}
	return low, high
}

// inetSockets lists the sockets in one state, on some local ports, of both families.
func inetSockets(protocol, state byte, ports portSet) []inetSocket {
	all, _ := inetTables(protocol, 1<<state, ports)
	return all
}

// inetTables lists the sockets in some states, each family's from one walk. It is whole if it has every one of them, and
// the times of each.
func inetTables(protocol byte, states stateSet, ports portSet) (all []inetSocket, whole bool) {
	whole = true
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		sockets, err := diagSockets(family, protocol, states, ports)
		if err != nil {
			sockets = procSockets(family, protocol, states, ports)
			whole = whole && errors.Is(err, unix.ENOENT) && len(sockets) == 0 // a kernel without this family
		}
		whole = whole && len(sockets) < maxSockets
		all = append(all, sockets...)
	}
	return all[:min(len(all), maxSockets)], whole
}

// listening is who listens on some TCP ports. It is looked up when that is asked first, once for all of them.
type listening struct {
	ports portSet
	known map[uint16][]inetSocket
}

func listeningOn(ports portSet) *listening { return &listening{ports: ports} }

func (t *listening) at(port uint16) []inetSocket {
	if t.known == nil {
		t.known = map[uint16][]inetSocket{}
		for _, s := range inetSockets(unix.IPPROTO_TCP, tcpListen, t.ports) {
			t.known[s.local.Port()] = append(t.known[s.local.Port()], s)
		}
	}
	return t.known[port]
}

// Of struct inet_diag_req_v2 and inet_diag_msg, see linux/inet_diag.h.
const (
	diagBytecode = 1  // INET_DIAG_REQ_BYTECODE
	diagInfo     = 2  // INET_DIAG_INFO: struct tcp_info
	diagMemory   = 7  // INET_DIAG_SKMEMINFO: numbers of 32 bits
	memoryDrops  = 8  // SK_MEMINFO_DROPS, the index of one
	diagV6Only   = 11 // INET_DIAG_SKV6ONLY: a byte, of listening sockets without being asked for
	diagMessage  = 72
)

// diagRequest asks for a dump; with ports, the kernel runs a two-step program over each socket: at least, at most.
func diagRequest(family, protocol byte, states stateSet, ports portSet) []byte {
	le := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+56, 128)
	le.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	le.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[16], b[17], b[18] = family, protocol, 1<<(diagInfo-1)
	if states == 1<<tcpListen {
		b[18] |= 1 << (diagMemory - 1)
	}
	le.PutUint32(b[20:], uint32(states))
	if len(ports) > 0 {
		low, high := ports.span()
		const atLeast, atMost = 2, 3 // INET_DIAG_BC_S_GE, S_LE: {code, bytes to go on by if yes, if no}, then the port
		b = le.AppendUint16(b, 4+16)
		b = le.AppendUint16(b, diagBytecode)
		b = le.AppendUint16(append(b, atLeast, 8), 16+4) // four beyond the end: refuse
		b = le.AppendUint16(append(b, 0, 0), low)
		b = le.AppendUint16(append(b, atMost, 8), 8+4)
		b = le.AppendUint16(append(b, 0, 0), high)
	}
	le.PutUint32(b, uint32(len(b)))
	return b
}

// diagSockets asks by netlink.
func diagSockets(family, protocol byte, states stateSet, ports portSet) (sockets []inetSocket, err error) {
	err = askDiag(diagRequest(family, protocol, states, ports), func(b []byte) (done bool, err error) {
		sockets, done, err = parseDiag(b, sockets, ports)
		return done || len(sockets) >= maxSockets, err
	})
	return sockets, err
}

// askDiag sends a request and hands out the datagrams of the answer, until take is done or fails.
func askDiag(request []byte, take func(b []byte) (done bool, err error)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1}) // it answers at once or never
	if err := unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for buf := make([]byte, 32<<10); ; {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := take(buf[:max(n, 0)]); done || err != nil {
			return err
		}
	}
}

// parseDiag adds the sockets of one datagram of answers; done is true after the last one.
func parseDiag(b []byte, sockets []inetSocket, ports portSet) (_ []inetSocket, done bool, err error) {
	done, err = eachDiag(b, func(payload []byte) {
		if s, ok := parseDiagMessage(payload); ok && ports.has(s.local.Port()) {
			sockets = append(sockets, s)
		}
	})
	if errors.Is(err, errCutShort) {
		return nil, done, err
	}
	return sockets, done, err
}

var errCutShort = errors.New("cut short")

// eachDiag calls fn with what each message in one datagram of answers carries; done is true after the last one.
func eachDiag(b []byte, fn func(payload []byte)) (done bool, err error) {
	le := binary.NativeEndian
	for len(b) >= unix.SizeofNlMsghdr {
		size, kind := le.Uint32(b), le.Uint16(b[4:])
		if size < unix.SizeofNlMsghdr || uint64(size) > uint64(len(b)) {
			break
		}
		payload := b[unix.SizeofNlMsghdr:size]
		b = b[min(uint64(len(b)), (uint64(size)+3)&^3):]
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR: // both begin with an errno, 0 or negative
			if len(payload) >= 4 && int32(le.Uint32(payload)) < 0 {
				return true, unix.Errno(-int32(le.Uint32(payload)))
			}
			return true, nil
		case unix.SOCK_DIAG_BY_FAMILY:
			fn(payload)
		}
	}
	if len(b) > 0 {
		return true, errCutShort
	}
	return false, nil
}

// parseDiagMessage reads a struct inet_diag_msg and, of the attributes behind it, tcp_info.
func parseDiagMessage(b []byte) (s inetSocket, ok bool) {
	if len(b) < diagMessage {
		return s, false
	}
	le := binary.NativeEndian
	s.state, s.inode = b[1], uint64(le.Uint32(b[68:]))
	s.device = int(le.Uint32(b[40:]))                           // idiag_if
	s.setQueues(int(le.Uint32(b[56:])), int(le.Uint32(b[60:]))) // idiag_rqueue, idiag_wqueue
	s.local = diagAddr(b[0], b[8:24], binary.BigEndian.Uint16(b[4:]))
	s.remote = diagAddr(b[0], b[24:40], binary.BigEndian.Uint16(b[6:]))
	for b = b[diagMessage:]; len(b) >= 4; {
		size := int(le.Uint16(b))
		if size < 4 || size > len(b) {
			break
		}
		switch value := b[4:size]; le.Uint16(b[2:]) {
		case diagInfo:
			s.setSigns(value)
		case diagV6Only:
			s.v6only = len(value) > 0 && value[0] != 0
		case diagMemory:
			if len(value) >= 4*(memoryDrops+1) {
				s.drops = le.Uint32(value[4*memoryDrops:])
			}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return s, true
}

// setQueues takes the two numbers that mean other things of a socket that listens.
func (s *inetSocket) setQueues(receive, send int) {
	if s.state == tcpListen {
		s.queue, s.limit = receive, send
		return
	}
	s.unread, s.unsent = receive, send
}

// doubt is for how long a connection may be owed an answer of which the kernel does not tell.
const doubt = 5 * time.Second

// setSigns reads of a struct tcp_info who spoke last. Its times are ages in milliseconds at one moment, but counted in
// jiffies (4 ms with CONFIG_HZ=250, 10 with 100), and both of a new connection are its own age (tcp_create_openreq_child
// sets lsndtime and lrcvtime). So equal ages are the rule where clients are near, and mean as well that an answer took no
// time as that the next request followed at once. What tells:
//
//   - no byte ever came: nobody is owed anything, as on a connection opened in advance; with TLS the handshake is bytes;
//   - some came and none ever went: the first answer is owed;
//   - only one segment came: what went answered it (or was a greeting, and then we err);
//   - the client's acknowledgement is younger than its bytes, and so is of an answer: a next request had carried it. Not
//     once it has shut its side, since that comes with an acknowledgement too.
//
// What is left is a near client that acknowledges at once: in doubt it is owed an answer, for a while. A connection with
// several requests at a time (HTTP/2) shows of all of them only the last byte.
func (s *inetSocket) setSigns(info []byte) {
	var i unix.TCPInfo
	const times, counts = unsafe.Offsetof(i.Last_ack_recv) + 4, unsafe.Offsetof(i.Data_segs_out) + 4
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&i)), unsafe.Sizeof(i)), info)
	if len(info) < int(times) {
		return
	}
	s.idle = time.Duration(min(i.Last_data_sent, i.Last_data_recv)) * time.Millisecond
	counted := len(info) >= int(counts) // Linux 4.6
	switch {
	case s.state == tcpFinWait1 || s.state == tcpFinWait2: // it cannot be answered any more
	case counted && i.Data_segs_in == 0:
	case counted && i.Data_segs_out == 0:
		s.owed = true
	case i.Last_data_recv != i.Last_data_sent:
		s.owed = i.Last_data_recv < i.Last_data_sent
	case counted && i.Data_segs_in == 1:
	case i.Last_ack_recv < i.Last_data_recv && s.state != tcpCloseWait:
	default:
		s.owed = s.idle < doubt
	}
}

// peer is the other side, as itself where it is IPv4 on an IPv6 socket.
func (s *inetSocket) peer() netip.AddrPort {
	return netip.AddrPortFrom(s.remote.Addr().Unmap(), s.remote.Port())
}

// connection is what we say of a socket that a program has. It is busy while bytes wait on either side or the client is
// owed an answer. The end of what a client sends counts as one unread byte, until the program has seen it.
func (s *inetSocket) connection() connection {
	unread, unsent := s.unread, s.unsent
	switch s.state {
	case tcpCloseWait:
		unread--
	case tcpFinWait1, tcpFinWait2: // what is not sent the kernel sends, if nothing is left unread
		unsent = 0
	}
	return connection{peer: s.peer().String(), idle: s.idle, busy: s.owed || unread > 0 || unsent > 0}
}

func diagAddr(family byte, b []byte, port uint16) netip.AddrPort {
	addr := netip.AddrFrom16([16]byte(b))
	if family == unix.AF_INET {
		addr = netip.AddrFrom4([4]byte(b))
	}
	return netip.AddrPortFrom(addr, port)
}

// procSockets reads /proc/net/tcp and its like; it does not know how long a connection is idle.
func procSockets(family, protocol byte, states stateSet, ports portSet) (sockets []inetSocket) {
	name := "/proc/net/tcp"
	if protocol == unix.IPPROTO_UDP {
		name = "/proc/net/udp"
	}
	if family == unix.AF_INET6 {
		name += "6"
	}
	eachLine(name, func(line string) bool {
		s, ok := parseInetRow(line)
		if ok && states.has(s.state) && ports.has(s.local.Port()) {
			sockets = append(sockets, s)
		}
		return len(sockets) < maxSockets
	})
	return sockets
}

// eachLine calls fn with the lines of a file that may be long, until fn says false.
func eachLine(name string, fn func(line string) bool) {
	f, err := os.Open(name)
	if err != nil {
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(io.LimitReader(f, 1<<30)); lines.Scan(); {
		if !fn(lines.Text()) {
			return
		}
	}
}

// parseInetRow reads a row of /proc/net/tcp, see proc_pid_net(5):
//
//	0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000  0  31337 …
func parseInetRow(line string) (s inetSocket, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 10 {
		return s, false
	}
	state, err1 := strconv.ParseUint(fields[3], 16, 8)
	inode, err2 := strconv.ParseUint(fields[9], 10, 64)
	local, ok1 := parseHexAddr(fields[1])
	remote, ok2 := parseHexAddr(fields[2])
	s = inetSocket{state: byte(state), local: local, remote: remote, inode: inode}
	send, receive, _ := strings.Cut(fields[4], ":")
	unsent, _ := strconv.ParseUint(send, 16, 32)
	unread, _ := strconv.ParseUint(receive, 16, 32)
	s.setQueues(int(unread), int(unsent))
	return s, err1 == nil && err2 == nil && ok1 && ok2
}

// parseHexAddr reads an address printed as words in the byte order of the machine, and a port.
func parseHexAddr(text string) (netip.AddrPort, bool) {
	words, port, _ := strings.Cut(text, ":")
	b, err1 := hex.DecodeString(words)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if err1 != nil || err2 != nil || len(b)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for i := 0; i < len(b); i += 4 {
		binary.NativeEndian.PutUint32(b[i:], binary.BigEndian.Uint32(b[i:]))
	}
	addr, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(addr, uint16(n)), ok
}

// unixSocket is one row of /proc/net/unix.
type unixSocket struct {
	listening bool
	kind      int // SOCK_STREAM and so on
	connected bool
	inode     uint64
	path      string // as bound, "@name" if abstract
}

// parseUnixRow reads a row of /proc/net/unix, see unix(7) and net/unix/af_unix.c:
//
//	0000000000000000: 00000002 00000000 00010000 0001 01 31337 /run/a.sock
func parseUnixRow(line string) (s unixSocket, ok bool) {
	rest, fields := line, [7]string{}
	for i := range fields {
		rest = strings.TrimLeft(rest, " ")
		fields[i], rest, _ = strings.Cut(rest, " ")
	}
	flags, err1 := strconv.ParseUint(fields[3], 16, 32)
	kind, err2 := strconv.ParseUint(fields[4], 16, 16)
	state, err3 := strconv.ParseUint(fields[5], 16, 8)
	inode, err4 := strconv.ParseUint(fields[6], 10, 64)
	const acceptCon, connected = 1 << 16, 3 // __SO_ACCEPTCON, SS_CONNECTED: linux/net.h
	s = unixSocket{flags&acceptCon != 0, int(kind), state == connected, inode, rest}
	return s, errors.Join(err1, err2, err3, err4) == nil
}

func unixSockets(want func(unixSocket) bool) (sockets []unixSocket) {
	eachLine("/proc/net/unix", func(line string) bool {
		if s, ok := parseUnixRow(line); ok && want(s) {
			sockets = append(sockets, s)
		}
		return len(sockets) < maxSockets
	})
	return sockets
}

// eachHeld calls fn once for every socket inode that the processes have open and that is wanted. It is false where we
// may not look into one of them.
func eachHeld[T any](pids []int, wanted map[uint64]T, fn func(T)) (allowed bool) {
	allowed = true
	for _, pid := range pids {
		if len(wanted) == 0 {
			break
		}
		err := eachSocket(pid, func(inode uint64) bool {
			if what, ok := wanted[inode]; ok {
				delete(wanted, inode)
				fn(what)
			}
			return len(wanted) > 0
		})
		allowed = allowed && (!denies(err) || !procAlive(pid)) // nobody but root may look into a zombie
	}
	return allowed
}

// otherListeners names the TCP addresses that the processes listen on, without the sockets in own.
func otherListeners(pids []int, own []uint64) []string {
	wanted := map[uint64]string{}
	for _, s := range inetSockets(unix.IPPROTO_TCP, tcpListen, nil) {
		if s.inode != 0 {
			wanted[s.inode] = s.local.String()
		}
	}
	for _, inode := range own {
		delete(wanted, inode)
	}
	var addrs []string
	eachHeld(pids, wanted, func(addr string) { addrs = append(addrs, addr) })
	slices.Sort(addrs)
	addrs = slices.Compact(addrs)
	return addrs[:min(len(addrs), maxListeners)]
}

// connections lists what clients have open: the connections that the processes hold on the ports (or paths) of the
// listeners, also those accepted from a socket that is no longer theirs.
func connections(pids []int, ls []*listener) []connection {
	wanted := map[uint64]*inetSocket{}
	if ports := tcpPorts(ls); len(ports) > 0 {
		sockets, _ := inetTables(unix.IPPROTO_TCP, openStates, ports)
		for i := range sockets {
			if s := &sockets[i]; s.inode != 0 {
				wanted[s.inode] = s
			}
		}
	}
	for inode := range unixConnections(ls) {
		wanted[inode] = nil
	}
	var open []connection
	eachHeld(pids, wanted, func(s *inetSocket) {
		if s == nil {
			open = append(open, connection{peer: unixPeer})
			return
		}
		open = append(open, s.connection())
	})
	return open
}

// remainsOf looks at the TCP connections that processes and their listeners still have. The queues are counted before the
// connections are listed, and these before the descriptors: what is accepted meanwhile may be missed. So nothing is left
// for certain when two looks say so, the first of them without a handshake that is theirs.
func remainsOf(pids []int, ls []*listener) (r remains) {
	begun := time.Now()
	defer func() { r.cost = time.Since(begun) }()
	r.known = true
	ports := tcpPorts(ls)
	if len(ports) == 0 {
		return r
	}
	own, wanted := inodeSet(ls), map[uint64]*inetSocket{}
	sockets, whole := inetTables(unix.IPPROTO_TCP, openStates|1<<tcpListen|1<<tcpSynRecv, ports)
	for i := range sockets {
		switch s := &sockets[i]; {
		case s.state == tcpListen && own[s.inode]:
			r.queued += s.queue
		case s.state == tcpSynRecv:
			r.halfOpen = append(r.halfOpen, s.peer())
		case openStates.has(s.state) && s.inode != 0:
			wanted[s.inode] = s
		}
	}
	add := func(s *inetSocket) { r.open = append(r.open, s.connection()) }
	if r.mixed = !eachHeld(pids, wanted, add); r.mixed {
		for _, s := range wanted { // those that were not found
			add(s)
		}
	}
	r.known = whole
	return r
}

// accepted tells from which listeners, by their inodes, the processes hold a connection, and which process does: a server
// at its limit is never seen to wait for the next one.
func accepted(pids []int, ls []*listener) map[uint64]int {
	if !holdOthers(pids, ls) { // as while it boots, and the tables are long
		return nil
	}
	from := unixConnections(ls)
	if ports := tcpPorts(ls); len(ports) > 0 {
		at := listenersAt(ls)
		for _, s := range inetSockets(unix.IPPROTO_TCP, tcpEstablished, ports) {
			if s.inode != 0 {
				from[s.inode] = at(s.local)
			}
		}
	}
	by := map[uint64]int{}
	for _, pid := range pids {
		_ = eachSocket(pid, func(inode uint64) bool {
			if l := from[inode]; l != nil {
				by[l.inode] = pid
			}
			return true
		})
	}
	return by
}

// holdOthers tells whether the processes have any socket open that is none of the listeners.
func holdOthers(pids []int, ls []*listener) bool {
	own := inodeSet(ls)
	for _, pid := range pids {
		found := false
		_ = eachSocket(pid, func(inode uint64) bool {
			found = !own[inode]
			return !found
		})
		if found {
			return true
		}
	}
	return false
}

func inodeSet(ls []*listener) map[uint64]bool {
	inodes := map[uint64]bool{}
	for _, l := range ls {
		inodes[l.inode] = true
	}
	return inodes
}

// listenersAt finds the TCP listener that accepts what comes to an address.
func listenersAt(ls []*listener) func(netip.AddrPort) *listener {
	on := map[string][]*listener{} // by port
	for _, l := range ls {
		if l.network == "tcp" {
			on[l.port()] = append(on[l.port()], l)
		}
	}
	return func(local netip.AddrPort) *listener {
		for _, l := range on[strconv.Itoa(int(local.Port()))] {
			if host, err := netip.ParseAddr(l.host()); err != nil || addrsOverlap(host, local.Addr()) {
				return l
			}
		}
		return nil
	}
}

// tcpPorts are the ports of those listeners that are tcp.
func tcpPorts(ls []*listener) portSet {
	ports := portSet{}
	for _, l := range ls {
		if port, err := strconv.ParseUint(l.port(), 10, 16); l.network == "tcp" && err == nil && port != 0 {
			ports[uint16(port)] = true
		}
	}
	return ports
}

// unixConnections are the inodes of what was accepted from listeners: they carry its path. That is the one it was
// bound to, which is another than we show if the socket was moved to its place by rename(2).
func unixConnections(ls []*listener) map[uint64]*listener {
	paths, listening, from := map[string]*listener{}, map[uint64]*listener{}, map[uint64]*listener{}
	for _, l := range ls {
		if l.network == "unix" || l.network == "unixpacket" {
			paths[l.addr], listening[l.inode] = l, l
		}
	}
	if len(paths) == 0 {
		return from
	}
	sockets := unixSockets(func(s unixSocket) bool {
		if s.path == "" || s.inode == 0 {
			return false
		}
		if l := listening[s.inode]; l != nil {
			paths[s.path] = l
		}
		return s.connected
	})
	for _, s := range sockets {
		if l := paths[s.path]; l != nil {
			from[s.inode] = l
		}
	}
	return from
}

// listenQueue is how many connections wait for a listener's program to accept them.
type listenQueue struct {
	waiting, limit int // limit 0: unknown
	known          bool
}

// listenQueues looks at the queues of stream listeners, in their order.
func listenQueues(ls []*listener) []listenQueue {
	var known map[uint64]listenQueue
	if slices.ContainsFunc(ls, func(l *listener) bool { return l.stream() && !l.inet() }) {
		known = unixQueues()
	}
	if ports := tcpPorts(ls); len(ports) > 0 {
		if known == nil {
			known = map[uint64]listenQueue{}
		}
		for _, s := range inetSockets(unix.IPPROTO_TCP, tcpListen, ports) {
			known[s.inode] = listenQueue{s.queue, s.limit, true}
		}
	}
	queues := make([]listenQueue, len(ls))
	for i, l := range ls {
		queues[i] = known[l.inode]
	}
	return queues
}

// Of struct unix_diag_req and unix_diag_msg, see linux/unix_diag.h.
const (
	unixDiagShowQueue = 0x10 // UDIAG_SHOW_RQLEN
	unixDiagQueue     = 4    // UNIX_DIAG_RQLEN: two numbers, of a listening socket its queue and its backlog
	unixDiagMessage   = 16
)

// unixQueues are the queues of all listening unix sockets, by inode; none where the kernel has no unix_diag.
func unixQueues() map[uint64]listenQueue {
	le := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+24)
	le.PutUint32(b, uint32(len(b)))
	le.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	le.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[16] = unix.AF_UNIX
	le.PutUint32(b[20:], 1<<tcpListen)
	le.PutUint32(b[28:], unixDiagShowQueue)
	queues := map[uint64]listenQueue{}
	_ = askDiag(b, func(b []byte) (bool, error) {
		done, err := eachDiag(b, func(payload []byte) {
			if inode, q := parseUnixDiag(payload); q.known {
				queues[inode] = q
			}
		})
		return done || len(queues) >= maxSockets, err
	})
	return queues
}

// parseUnixDiag reads a struct unix_diag_msg and the queue in the attributes behind it.
func parseUnixDiag(b []byte) (inode uint64, q listenQueue) {
	le := binary.NativeEndian
	if len(b) < unixDiagMessage {
		return 0, q
	}
	inode = uint64(le.Uint32(b[4:]))
	for b = b[unixDiagMessage:]; len(b) >= 4; {
		size := int(le.Uint16(b))
		if size < 4 || size > len(b) {
			break
		}
		if value := b[4:size]; le.Uint16(b[2:]) == unixDiagQueue && len(value) >= 8 {
			q = listenQueue{int(le.Uint32(value)), int(le.Uint32(value[4:])), true}
		}
		b = b[min(len(b), (size+3)&^3):]
	}
	return inode, q
}

// holder is a process that has an address.
type holder struct {
	pid     int
	command string
}

// portHolder finds the process that listens on an address (or has bound it, for UDP), or on one that excludes it.
func portHolder(network string, addr netip.AddrPort) (holder, bool) {
	protocol, state := byte(unix.IPPROTO_TCP), byte(tcpListen)
	if strings.HasPrefix(network, "udp") {
		protocol, state = unix.IPPROTO_UDP, tcpClose
	}
	wanted := map[uint64]bool{}
	for _, s := range inetSockets(protocol, state, portSet{addr.Port(): true}) {
		if s.inode != 0 && addrsOverlap(s.local.Addr(), addr.Addr()) {
			wanted[s.inode] = true
		}
	}
	return holderOf(wanted)
}

// addrsOverlap reports whether two addresses cannot both be bound: [::] also takes IPv4, unless v6only, which does not show.
func addrsOverlap(a, b netip.Addr) bool {
	a, b = a.WithZone(""), b.WithZone("")
	return covers(a, b) || covers(b, a) || !a.IsValid() || !b.IsValid()
}

// covers tells whether who listens on a also gets what comes to b.
func covers(a, b netip.Addr) bool {
	a, b = a.Unmap(), b.Unmap()
	return a == b || a.IsUnspecified() && (a.Is6() || b.Is4())
}

// pathHolder finds the process that listens on (or, for datagrams, has bound) a unix socket: a path or "@abstract".
func pathHolder(path string) (holder, bool) {
	wanted := map[uint64]bool{}
	for _, s := range unixSockets(func(s unixSocket) bool {
		return s.path == path && (s.listening || s.kind == unix.SOCK_DGRAM)
	}) {
		wanted[s.inode] = true
	}
	return holderOf(wanted)
}

// holderOf searches all processes that we may look into; the first one is likely the parent of the others.
func holderOf(wanted map[uint64]bool) (h holder, found bool) {
	if len(wanted) == 0 {
		return h, false
	}
	count := 0
	_ = eachNumber("/proc", func(_, pid int) bool {
		_ = eachSocket(pid, func(inode uint64) bool {
			if wanted[inode] {
				h, found = holder{pid, commandOf(pid)}, true
			}
			return !found
		})
		count++
		return !found && count < maxScan
	})
	return h, found
}

// commandOf is a process's command line in a form that is safe to print, or its name.
func commandOf(pid int) string {
	text, _ := readProc(fmt.Sprintf("/proc/%d/cmdline", pid), maxCommand+1)
	if len(bytes.Trim(text, "\x00")) == 0 {
		text, _ = readProc(fmt.Sprintf("/proc/%d/comm", pid), maxCommand+1)
	}
	return printableCommand(text)
}

// printableCommand makes one line of what another user wrote.
func printableCommand(text []byte) string {
	return strings.TrimRight(tamed(strings.ReplaceAll(string(text[:min(len(text), maxCommand)]), "\x00", " "), maxCommand), " ")
}

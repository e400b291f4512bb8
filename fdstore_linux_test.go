package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// storeSaid is what a manager hears of its store, up to a mark.
func storeSaid(t *testing.T, m manager, u *upward) (said []string) {
	t.Helper()
	u.stopping("mark")
	for {
		text := m.next(t)
		if strings.HasPrefix(text, "STOPPING=1") {
			return said
		}
		said = append(said, strings.ReplaceAll(text, "\n", " "))
	}
}

func newStore(t *testing.T, room int, back ...*listener) (*fdStore, manager, *upward) {
	t.Helper()
	address := filepath.Join(shortDir(t), "s")
	m := newManager(t, address)
	u := connectUpward(t, address)
	t.Cleanup(func() { u.close() })
	return openFDStore(u, room, back), m, u
}

// What new connections go to is stored before what it replaces is removed; where there is no room for both, after. What is another's,
// or no --listen, is not stored at all.
func TestFDStore(t *testing.T) {
	at := func(name string, inode uint64) *listener {
		fd, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return &listener{name: name, network: "tcp", addr: name, fd: fd, inode: inode}
	}
	a1, b1, a2, b2, lent, learned := at("a", 1), at("b", 2), at("a", 3), at("b", 4), at("lent", 5), at("learned", 6)
	lent.lent = true
	for room, want := range map[int][]string{
		4: {
			"FDSTORE=1 FDNAME=hw.1.a FDPOLL=0", "FDSTORE=1 FDNAME=hw.2.b FDPOLL=0",
			"FDSTORE=1 FDNAME=hw.3.a FDPOLL=0", "FDSTORE=1 FDNAME=hw.4.b FDPOLL=0", "FDSTOREREMOVE=1 FDNAME=hw.1.a", "FDSTOREREMOVE=1 FDNAME=hw.2.b",
		},
		2: {
			"FDSTORE=1 FDNAME=hw.1.a FDPOLL=0", "FDSTORE=1 FDNAME=hw.2.b FDPOLL=0",
			"FDSTOREREMOVE=1 FDNAME=hw.1.a", "FDSTORE=1 FDNAME=hw.3.a FDPOLL=0", "FDSTOREREMOVE=1 FDNAME=hw.2.b", "FDSTORE=1 FDNAME=hw.4.b FDPOLL=0",
		},
		1: {"FDSTORE=1 FDNAME=hw.1.a FDPOLL=0", "FDSTOREREMOVE=1 FDNAME=hw.1.a", "FDSTORE=1 FDNAME=hw.2.a FDPOLL=0"},
	} {
		s, m, u := newStore(t, room)
		s.begin([]*listener{a1, b1, lent})
		s.only([]*listener{a1, b1, lent, learned})
		s.only([]*listener{a1, b1, lent, learned})
		s.add([]*listener{a2, b2, lent})
		s.only([]*listener{a2, b2, lent})
		if said := storeSaid(t, m, u); !slices.Equal(said, want) {
			t.Errorf("room for %d: said %q, want %q", room, said, want)
		}
		if !a2.kept || lent.kept || learned.kept {
			t.Errorf("room for %d: kept is %v %v %v", room, a2.kept, lent.kept, learned.kept)
		}
		again := restoreFDStore(u, s.carry())
		again.only([]*listener{a2, b2, lent})
		if said := storeSaid(t, m, u); room > 1 && len(said) > 0 {
			t.Errorf("carried: said %q", said)
		}
	}
	var none *fdStore
	none.begin(nil)
	none.add(nil)
	none.only([]*listener{a1})
	if _, ok := none.find(1); ok || none.letGo() != nil || restoreFDStore(nil, none.carry()) != nil {
		t.Error("no store keeps something")
	}
}

// What comes back is taken for the --listen of its address and kind.
func TestFDStoreMatch(t *testing.T) {
	dir := t.TempDir()
	taken := func(text, name string) *listener {
		l, err := specs(t, text)[0].open()
		if err != nil {
			t.Fatal(err)
		}
		fd, err := unix.Dup(l.fd)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(l.fd) })
		return takeBack(fd, name)
	}
	path := filepath.Join(dir, "s")
	tcp, udp, only := taken("127.0.0.1:0,backlog=7", "hw.1.web"), taken("udp:127.0.0.1:0", "hw.2.dns"), taken("tcp6:[::1]:0,v6only", "hw.3.six")
	stream, broken := taken(path, "hw.4.s"), &listener{name: "hw.9.x", fd: -1, pin: -1}
	for _, c := range []struct {
		texts string
		back  []*listener
		want  []*listener // of each --listen
	}{
		{tcp.addr, []*listener{tcp}, []*listener{tcp}},
		{"other=" + tcp.addr, []*listener{broken, tcp}, []*listener{tcp}},
		{"udp:" + tcp.addr, []*listener{tcp}, []*listener{nil}},
		{tcp.addr + ",mptcp", []*listener{tcp}, []*listener{nil}},
		{":" + tcp.port(), []*listener{tcp}, []*listener{nil}},
		{"web=127.0.0.1:0", []*listener{tcp}, []*listener{tcp}},
		{"web=127.0.0.2:0", []*listener{tcp}, []*listener{nil}},
		{"127.0.0.1:0", []*listener{tcp}, []*listener{nil}}, // another name
		{"udp:" + udp.addr, []*listener{udp}, []*listener{udp}},
		{"tcp6:" + only.addr, []*listener{only}, []*listener{only}},
		{only.addr, []*listener{only}, []*listener{nil}},
		{path + " " + tcp.addr, []*listener{tcp, stream}, []*listener{stream, tcp}},
		{"unixgram:" + path, []*listener{stream}, []*listener{nil}},
		{path + "2", []*listener{stream}, []*listener{nil}},
	} {
		s, _, _ := newStore(t, 4, c.back...)
		asked := specs(t, strings.Fields(c.texts)...)
		got := s.match(asked, plannedListeners(asked, nil))
		for i := range got {
			if got[i].back != c.want[i] {
				t.Errorf("%s: got %+v, want %+v", c.texts, got[i].back, c.want[i])
			}
		}
		if left := len(c.back) - len(slices.DeleteFunc(slices.Clone(c.want), func(l *listener) bool { return l == nil })); len(s.back) != left {
			t.Errorf("%s: %d are left, want %d", c.texts, len(s.back), left)
		}
	}
}

// What fits no --listen is removed, closed, and gone from the manager before the start goes on.
func TestFDStoreLetGo(t *testing.T) {
	l, err := specs(t, "127.0.0.1:0")[0].open()
	if err != nil {
		t.Fatal(err)
	}
	back := takeBack(l.fd, "hw.5.web")
	s, m, _ := newStore(t, 4, back)
	heard := make(chan []string, 1)
	go func() {
		var said []string
		buf, oob := make([]byte, maxDatagram), make([]byte, 100)
		for range 2 {
			n, on, _, _, err := m.ReadMsgUnix(buf, oob)
			if err != nil {
				break
			}
			said = append(said, string(buf[:n]))
			parts, _ := unix.ParseSocketControlMessage(oob[:on])
			for _, part := range parts {
				fds, _ := unix.ParseUnixRights(&part)
				for _, fd := range fds {
					unix.Close(fd)
				}
			}
		}
		heard <- said
	}()
	notes := s.letGo()
	if said := <-heard; !slices.Equal(said, []string{"FDSTOREREMOVE=1\nFDNAME=hw.5.web", "BARRIER=1"}) {
		t.Errorf("said %q", said)
	}
	if len(notes) != 1 || !strings.Contains(notes[0].String(), back.addr) || len(s.kept) != 0 || len(s.back) != 0 {
		t.Errorf("notes %v, kept %v", notes, s.kept)
	}
	if again, err := specs(t, back.addr)[0].open(); err != nil {
		t.Errorf("its address is still taken: %v", err)
	} else {
		unix.Close(again.fd)
	}
}

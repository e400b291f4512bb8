#!/bin/sh
# Runs a command as a container does: as PID 1 of namespaces of its own, on a root that is read-only, has no /run and
# nothing in /tmp but the tests' own, with a user that no file knows, without capabilities and with no way to gain any.
#
#   run.sh [OPTION]... COMMAND [ARG]...
#   run.sh -n                              only sees whether that can be done here: status 0
#
#   -p FILE   says there "container pid=N", its pid as seen from here; a fifo will do
#   -u UID    the user, and the group [1000690000]; 0 is root, with the capabilities that Docker leaves it
#   -t        with a /tmp that can be written to
#   -v DIR    with that directory at its own path, read-only; may be repeated
#   -w DIR    the same, writable
#   -S        without the /dev/shm that every container has
#   -P        without /proc
#   -H        with a /proc that hides other users' processes (hidepid=2)
#   -m BYTES  with so much memory, in a cgroup of its own
set -eu

# What Docker leaves to root.
kept=-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,+sys_chroot,+mknod,+audit_write,+setfcap

# bind shows the directory $1 at the same path below the new root; $2 is ro or rw.
bind() {
	mkdir -p "$root$1"
	mount --bind "$1" "$root$1"
	mount -o "remount,bind,$2" "$root$1"
}

# build lays out the new root and moves there; $root is a directory that nobody else sees.
build() {
	mount --make-rprivate /
	root=/mnt
	mount -t tmpfs -o mode=755 none $root
	mkdir $root/proc $root/dev $root/etc $root/old
	[ $shm = no ] || { mkdir $root/dev/shm; mount -t tmpfs -o mode=1777 none $root/dev/shm; }
	[ $tmp = no ] || { mkdir $root/tmp; mount -t tmpfs -o mode=1777 none $root/tmp; }
	for dir in /usr /lib /lib64 /bin /sbin; do
		if [ -L $dir ]; then cp -P $dir $root$dir; elif [ -d $dir ]; then bind $dir ro; fi
	done
	for dev in null zero urandom; do
		: >$root/dev/$dev
		mount --bind /dev/$dev $root/dev/$dev
	done
	old=$IFS IFS=:
	for dir in $read $PATH; do # PATH has hotwrap and its test programs
		case $dir in /usr/* | /bin | /sbin | '') ;; *) [ ! -d "$dir" ] || bind "$dir" ro ;; esac
	done
	for dir in $write; do bind "$dir" rw; done
	IFS=$old
	mount -t proc -o "${proc:-defaults}" proc $root/proc
	if [ -n "$memory" ]; then # what limits it is seen, as its own
		mkdir -p $root/sys/fs/cgroup
		if [ -d /sys/fs/cgroup/memory ]; then
			mkdir $root/sys/fs/cgroup/memory
			mount -t cgroup -o ro,memory none $root/sys/fs/cgroup/memory
		else
			mount -t cgroup2 -o ro none $root/sys/fs/cgroup
		fi
	fi
	cd $root
	pivot_root . old
	umount -l /old
	rmdir /old
	mount -o remount,ro /
	[ -n "$proc" ] || mount -t tmpfs -o ro none /proc
	cd /
}

# apart runs this script again with the arguments, in new namespaces.
apart() {
	HWSCRIPT_INSIDE=yes exec unshare --mount --pid --ipc --uts --cgroup --fork --kill-child -- sh "$0" "$@"
}

# limited does so in a cgroup with a memory limit, of the first version or the second.
limited() {
	group=/sys/fs/cgroup/memory file=memory.limit_in_bytes
	[ -d $group ] || group=/sys/fs/cgroup file=memory.max
	group=$group/hwscript-container-$$
	mkdir "$group"
	echo "$memory" >"$group/$file"
	status=0
	(
		read -r self _ </proc/self/stat
		echo "$self" >"$group/cgroup.procs"
		apart "$@"
	) || status=$?
	tries=0
	until rmdir "$group" 2>/dev/null || [ $tries = 1000 ]; do tries=$((tries + 1)); done # the last is being reaped
	exit $status
}

pidfile='' user=1000690000 tmp=no shm=yes read=${SOCKETS:+${SOCKETS%/*}} write='' proc=defaults memory=''
while getopts p:u:tv:w:SPHm:n option; do
	case $option in
	p) pidfile=$OPTARG ;;
	u) user=$OPTARG ;;
	t) tmp=yes ;;
	v) read=$read:$OPTARG ;;
	w) write=$write:$OPTARG ;;
	S) shm=no ;;
	P) proc='' ;;
	H) proc=hidepid=2 ;;
	m) memory=$OPTARG ;;
	n) exec sh "$0" true ;;
	*) exit 2 ;;
	esac
done
if [ "${HWSCRIPT_INSIDE:-}" != yes ]; then
	[ -z "$memory" ] || limited "$@"
	apart "$@"
fi
unset HWSCRIPT_INSIDE
shift $((OPTIND - 1))
read -r pid _ </proc/self/stat # /proc is still the one outside
[ -z "$pidfile" ] || echo "container pid=$pid" >"$pidfile"
build
unset NOTIFY_SOCKET HOTWRAP_RUNTIME_DIR TMPDIR HOME # they are of the world outside
if [ "$user" = 0 ]; then
	exec setpriv --bounding-set="$kept" --inh-caps=-all --no-new-privs -- "$@"
fi
exec setpriv --reuid="$user" --regid="$user" --clear-groups --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"

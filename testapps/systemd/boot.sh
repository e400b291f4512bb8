#!/bin/sh
# Runs systemd as PID 1 of namespaces of its own, with the units of a directory and nothing of this machine's.
#
#   boot.sh UNITS PIDFILE    until it is told TERM or systemd ends; the pid, as seen from here, is in PIDFILE
#   boot.sh -n               only sees whether that can be done here: status 0
#
# It takes a cgroup of its own, so that systemd finds no process there but itself, and KILL is its end: a systemd that
# shuts down by itself would remount what it takes for its file systems. NOTIFY_SOCKET hears READY=1 when it is up.
set -eu

systemd=/lib/systemd/systemd
groups=/sys/fs/cgroup
[ -e $groups/cgroup.procs ] || groups=$groups/unified

# apart runs a command as PID 1 of new namespaces, in the cgroup $group.
apart() {
	sh -c 'echo $$ >"$0/cgroup.procs" && exec unshare --mount --pid --uts --ipc --cgroup --fork --kill-child -- "$@"' "$group" "$@"
}

# leave removes the cgroup. A process that was killed is in it until it is reaped.
leave() {
	tries=0
	until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || [ $tries = 1000 ]; do
		tries=$((tries + 1))
	done
}

# prepare lays out what systemd expects to find, in this mount namespace alone.
prepare() {
	mount --make-rprivate /
	read -r pid _ </proc/self/stat # /proc is still the one outside
	mount -t proc proc /proc
	mount --bind /proc/sys /proc/sys
	mount -o remount,ro,bind /proc/sys
	mount -t tmpfs tmpfs /run
	umount -l /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
}

case $1 in
inside)
	prepare
	[ -n "$2" ] || exit 0
	echo "$pid" >"$3"
	mkdir -p /run/none /run/units /run/systemd/system
	mount --bind "$2" /run/systemd/system # where others look for units, too
	for target in sysinit basic network-online shutdown; do
		printf '[Unit]\nDefaultDependencies=no\n' >/run/units/$target.target
	done
	exec env -i container=test PATH="$PATH" NOTIFY_SOCKET="${NOTIFY_SOCKET-}" TESTAPP_LIFELINE="${TESTAPP_LIFELINE-}" \
		SYSTEMD_UNIT_PATH=/run/systemd/system:/run/units SYSTEMD_GENERATOR_PATH=/run/none \
		$systemd --system --unit=basic.target --log-target=console --show-status=no
	;;
esac

[ -x $systemd ]
group=$groups/hotwrap-test.$$
mkdir "$group"
trap leave EXIT
case $1 in
-n) apart sh "$0" inside "" ;;
*)
	trap 'kill -KILL "$(cat "$2")"' INT TERM # unshare ends when all that ran under it is gone
	apart sh "$0" inside "$1" "$2" &
	while kill -0 $! 2>/dev/null; do
		wait $! || :
	done
	;;
esac

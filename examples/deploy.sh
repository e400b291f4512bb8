#!/bin/sh
# Deploys a release under a running hotwrap, and takes it back if it does not serve.
#
#   deploy.sh RELEASE.tar.gz            unpacks it into releases/ and restarts
#   deploy.sh /srv/myapp/releases/NAME  goes to one that is there already: the way back
#
# The program runs as $ROOT/current/..., where current is a symlink into releases/. current names a release that has
# served, except while a deploy waits for its verdict. One deploy at a time: who finds another one leaves.
#
# The exit status is hotwrap's: 0 it serves, 1 it failed and what served before serves on, 2 nothing was tried (called
# wrongly, or a broken archive), 3 no hotwrap runs, 4 nobody knows, 5 another deploy or a stop came in between.
set -eu

root=${ROOT:-/srv/myapp} # holds releases/, current, and before: what current was, while a deploy is under way
name=${NAME:-myapp}      # hotwrap's, as hotwrap status knows it
keep=${KEEP:-5}          # so many releases stay, and those that serve now and did before in any case
start=${START:-}         # starts hotwrap if none runs, and returns when it serves: 'systemctl start myapp'

say() { printf 'deploy: %s\n' "$*" >&2 || :; } # nobody may be listening any more

# point moves current in one step: rename(2) replaces a symlink, ln -sf would remove it first. (BSD: mv -h.)
point() {
	rm -f "$root/.current" && ln -s "$1" "$root/.current" && mv -T "$root/.current" "$root/current"
}

# back gives current what it was.
back() {
	if [ -z "$previous" ]; then
		rm -f "$root/current"
	elif point "$previous"; then
		rm -f "$root/before"
	else
		say "current still names $release, which does not serve; it should name $previous"
	fi
}

# unpack makes a release of an archive. What is not complete is called .part, and goes with the next deploy.
unpack() {
	rm -rf "$root"/releases/*.part
	mkdir "$root/$release.part" || return
	if ! tar -xzo -f "$1" -C "$root/$release.part"; then
		rm -rf "$root/$release.part"
		return 1
	fi
	mv "$root/$release.part" "$root/$release"
}

# prune removes the oldest releases, but neither the one that serves nor the one that a rollback starts.
prune() {
	set -- "$root"/releases/*
	spare=$(($# - keep))
	for dir; do
		[ "$spare" -gt 0 ] || return 0
		spare=$((spare - 1))
		case releases/${dir##*/} in
		"$release" | "$previous") ;;
		*) rm -rf "$dir" || say "cannot remove $dir" ;;
		esac
	done
}

# first starts hotwrap where none runs.
first() {
	[ -n "$start" ] || return 3
	(
		trap - HUP INT TERM PIPE
		exec sh -c "$start" 9>&-
	) && hotwrap status -q "$name" || return 3
}

if [ $# != 1 ] || [ ! -r "$1" ]; then
	say "usage: deploy.sh RELEASE.tar.gz|DIRECTORY"
	exit 2
fi
# A connection that ends must not leave a deploy half done.
trap '' HUP PIPE
mkdir -p "$root/releases" || exit 2
exec 9>>"$root/.lock" || exit 2
busy=0
flock -n 9 || busy=$?
case $busy in
0) echo "pid $$: $1" >"$root/.lock" ;;
1)
	say "another deploy is under way ($(cat "$root/.lock")); nothing was done"
	exit 5
	;;
*) exit 2 ;;
esac

if [ -L "$root/before" ]; then
	say "the last deploy was killed before its verdict; current is $(readlink "$root/before") again"
	point "$(readlink "$root/before")"
	rm "$root/before"
fi
previous=$(readlink "$root/current") || previous=
if [ -d "$1" ]; then
	release=releases/$(basename "$1")
	if [ ! "$1" -ef "$root/$release" ]; then
		say "$1 is not in $root/releases; nothing was done"
		exit 2
	fi
else
	release=releases/$(date -u +%Y%m%dT%H%M%SZ).$$
	if ! unpack "$1"; then
		say "cannot unpack $1; nothing was changed"
		exit 2
	fi
fi

# From here on it is seen through to its verdict, which is not long in coming: hotwrap has limits for everything.
trap '' INT TERM
[ -z "$previous" ] || ln -s "$previous" "$root/before"
point "$release"
status=0
hotwrap restart -m "deploy ${1##*/} as $release" "$name" || status=$?
if [ "$status" = 3 ] && { [ -n "$start" ] || [ -z "$previous" ]; }; then
	status=0
	first || status=$?
fi
case $status in
0)
	rm -f "$root/before"
	say "$release serves"
	prune
	;;
1)
	back
	[ -d "$1" ] || rm -rf "${root:?}/$release"
	say "${1##*/} is taken back; ${previous:-nothing} serves on"
	;;
3)
	if [ -z "$previous" ] && [ -z "$start" ]; then
		say "the first release is in place; start hotwrap now"
	else
		back
		say "no hotwrap \"$name\" serves; ${1##*/} is taken back"
	fi
	;;
*)
	back
	say "${1##*/} is taken back; it may serve all the same: see hotwrap status $name"
	;;
esac
exit "$status"

#!/bin/sh
# Deploys one release under a running hotwrap, and takes it back when it does not serve.
#
#   deploy.sh RELEASE.tar.gz
#
# The program runs as $ROOT/current/…, where current is a symlink to a directory of releases/. The exit status is
# hotwrap's: 0 the release serves, 1 it failed and the one before serves on, 4 nobody knows, 5 another deploy won.
set -eu

root=${ROOT:-/srv/myapp}
name=${NAME:-myapp}
keep=${KEEP:-5}
archive=$1

# point moves current to a release in one step: rename(2) replaces a symlink, ln -sf would remove it first.
point() {
	ln -s "$1" "$root/current.$$"
	mv -T "$root/current.$$" "$root/current"
}

release=$root/releases/$(date -u +%Y%m%dT%H%M%SZ).$$
previous=$(readlink "$root/current" || true)
mkdir -p "$release"
tar -xzf "$archive" -C "$release"
point "$release"

status=0
hotwrap restart -m "deploy $(basename "$archive")" "$name" || status=$?
case $status in
0)
	# shellcheck disable=SC2012 # the names are ours
	ls -1d "$root"/releases/* | sort -r | tail -n +$((keep + 1)) | xargs -r rm -rf
	;;
1)
	# The release before serves on; the disk shall say the same, for the next start and after a crash.
	if [ -n "$previous" ]; then
		point "$previous"
		rm -rf "$release"
		echo "deploy: took $(basename "$archive") back, $(basename "$previous") serves on" >&2
	fi
	;;
4)
	echo "deploy: outcome unknown; hotwrap status $name tells" >&2
	;;
esac
exit "$status"

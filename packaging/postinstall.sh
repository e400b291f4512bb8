#!/bin/sh
# After the package was installed or replaced: every hotwrap that runs becomes the new one, in place. Programs and
# clients notice nothing.
#
# Its rules: it never fails the installation, it says nothing where none runs, and it touches no other system than
# the one that is installed to.

case "${1-}" in # of dpkg: only a finished installation counts
abort-upgrade | abort-remove | abort-deconfigure | triggered) exit 0 ;;
esac
[ -z "${DPKG_ROOT-}" ] || exit 0 # into another root
[ -x /usr/bin/hotwrap ] || exit 0

said=$(/usr/bin/hotwrap reexec --all --message 'package upgrade' --timeout 60s 2>&1)
status=$?
case "$said" in
'' | *'no instance runs') ;;
*) printf '%s\n' "$said" >&2 ;;
esac
if [ "$status" != 0 ]; then
	echo 'hotwrap: warning: not every instance was replaced by the new version; what it runs serves on; hotwrap reexec NAME tries again' >&2
fi
exit 0

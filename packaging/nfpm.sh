#!/bin/sh
# nfpm.sh VERSION ARCH BINARY: what .goreleaser.yaml says of packages, on standard output, as nfpm alone reads it.
set -eu
cat <<END
name: hotwrap
version: $1
arch: $2
platform: linux
END
awk -v binary="$3" '
	/^[a-z]/ { inside = $0 == "nfpms:"; next }
	!inside || /^ *#/ { next }
	{ sub(/^    /, "") }
	/^  - id:/ || /^(formats|bindir|file_name_template|mtime):/ { next }
	{ print }
	/^contents:/ { print "  - {src: " binary ", dst: /usr/bin/hotwrap, file_info: {mode: 0755}}" }
' .goreleaser.yaml

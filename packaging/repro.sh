#!/usr/bin/env bash
# repro.sh: builds hotwrap and its packages twice, in two directories of different names, with different umasks, time zones,
# languages and dates of the files, and compares every byte.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
modules=$(go env GOMODCACHE) proxy=$(go env GOPROXY)
nfpm=$(sed -n 's/^NFPM = go run //p' Makefile)
GOFLAGS='' GOBIN=$root go install "$nfpm"

# build DIR UMASK TZ LANG DATE: a copy of what is here, built from nothing in an environment that has little in common with ours.
build() {
  mkdir -p "$1"
  (umask "$2" && git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
    if [[ -e $file || -L $file ]]; then printf '%s\0' "$file"; fi
  done | tar --null -T - -cf - | tar -xf - --no-same-permissions -C "$1")
  find "$1" -exec touch -h -d "$5" {} +
  (cd "$1" && umask "$2" && env -i PATH="$PATH" HOME="$root/home" GOCACHE="$1.cache" GOMODCACHE="$modules" GOPROXY="$proxy" GOFLAGS= \
    GOTOOLCHAIN=local TZ="$3" LC_ALL="$4" make --no-print-directory packages VERSION=1.2.3 EPOCH=1700000000 NFPM="$root/nfpm" >/dev/null)
}
build "$root/one" 022 UTC C '2001-01-01'
build "$root/two/of/another name" 077 Asia/Kathmandu C.UTF-8 '2020-02-02'

sums() { (cd "$1" && sha256sum bin/package/hotwrap dist/*); }
if ! diff <(sums "$root/one") <(sums "$root/two/of/another name"); then
  echo 'repro: the builds differ' >&2
  exit 1
fi
sums "$root/one"

#!/usr/bin/env bash
# test.sh: makes the packages, looks into each, and installs, upgrades and removes the Debian one while a hotwrap runs: that
# one must have become the new version, under its own pid, without having restarted its program.
#
# It needs root, for a root directory of its own (an overlay of this one, in its own mount and pid namespace): nothing of it stays here.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
  echo "package-test: $*" >&2
  exit 1
}

# has PACKAGE PATH...: the listing on standard input names each path.
has() {
  local package=$1 list path
  list=$(cat)
  shift
  for path; do
    grep -q "[ .]/*${path#/}\$" <<<"$list" || fail "$package lacks $path"
  done
}

common=(/usr/bin/hotwrap /usr/share/man/man1/hotwrap.1.gz /usr/share/bash-completion/completions/hotwrap
  /usr/share/fish/vendor_completions.d/hotwrap.fish /usr/share/doc/hotwrap/examples/systemd/myapp.service)

if [[ ${1-} != inside ]]; then
  root=$(mktemp -d)
  trap 'rm -rf "$root"' EXIT
  for version in 1.0.0 1.1.0; do
    rm -rf dist
    make --no-print-directory packages VERSION=$version >/dev/null
    cp dist/hotwrap_"$version"_*.deb "$root/$version.deb"
  done
  dpkg-deb -c "$root/1.1.0.deb" | has deb "${common[@]}" /usr/share/zsh/vendor-completions/_hotwrap /usr/share/doc/hotwrap/copyright \
    /usr/share/doc/hotwrap/changelog.gz
  rpm -qlpv dist/*.rpm 2>/dev/null | has rpm "${common[@]}" /usr/share/zsh/site-functions/_hotwrap /usr/share/licenses/hotwrap/LICENSE
  rpm -qp --scripts dist/*.rpm 2>/dev/null | grep -q 'reexec --all' || fail 'the rpm has no script'
  tar tzf dist/*.apk 2>/dev/null | sed 's/^/./' | has apk "${common[@]}" /usr/share/zsh/site-functions/_hotwrap .post-install .post-upgrade
  if dpkg-deb -c "$root/1.1.0.deb" | grep -v ' root/root ' | grep .; then fail 'somebody else owns that'; fi
  if dpkg-deb -c "$root/1.1.0.deb" | grep -vE '^(drwxr-xr-x|-rw-r--r--|-rwxr-xr-x .*/usr/bin/hotwrap)'; then fail 'a mode is wrong'; fi
  ((EUID == 0)) || { echo 'package-test: not root, so nothing was installed' && exit; }
  CGO_ENABLED=0 go build -trimpath -o "$root/echo" ./testapps/echo
  unshare --mount --pid --fork --net --mount-proc bash packaging/test.sh inside "$root"
  echo 'package-test: installed, upgraded under a running hotwrap, removed'
  exit
fi

# --- inside of the namespaces: a root directory in which nothing of ours can be spoilt

top=$2/top here=$2/top/here
mkdir "$top"
mount -t tmpfs -o size=1g,mode=755 tmpfs "$top"
mkdir "$top/up" "$top/work" "$here"
mount -t overlay -o lowerdir=/,upperdir="$top/up",workdir="$top/work" overlay "$here"
mount -t proc proc "$here/proc"
mount --rbind /dev "$here/dev"
mount -t tmpfs tmpfs "$here/run"
mount -t tmpfs tmpfs "$here/tmp"
cp "$2"/*.deb "$2/echo" "$here/tmp"

within() { env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp DEBIAN_FRONTEND=noninteractive chroot "$here" "$@"; }
# status WHAT: the first value of that name that hotwrap status has.
status() { within hotwrap status --json web | grep -o "\"$1\":[^,}]*" | head -n 1; }
# all: what must stay as it is.
all() { status pid && status generation && within hotwrap status --json web | grep -o '"workers":[^]]*' | grep -o '"pid":[0-9]*'; }

within dpkg -i /tmp/1.0.0.deb >"$top/log" 2>&1 || fail "$(cat "$top/log")"
if grep hotwrap: "$top/log"; then fail 'where none runs there is nothing to say'; fi
for file in "${common[@]}"; do within test -e "$file" || fail "no $file"; done
[[ $(within hotwrap --version) == 'hotwrap 1.0.0' ]] || fail 'another version'

mkfifo "$here/tmp/serves"
within hotwrap --name web -l /tmp/web.sock --hook 'switch=echo >/tmp/serves' -- /tmp/echo 2>"$top/hotwrap.log" &
read -r <"$here/tmp/serves"
before=$(all)
pid=$(status pid)
[[ $(status version) == '"version":"1.0.0"' ]] || fail "$(status version)"

within dpkg -i /tmp/1.1.0.deb >"$top/log" 2>&1 || fail "$(cat "$top/log")"
[[ $(status version) == '"version":"1.1.0"' ]] || fail "after the upgrade: $(status version), $(cat "$top/log" "$top/hotwrap.log")"
[[ $(all) == "$before" ]] || fail "it was $before, it is $(all)"

within /bin/sh -c 'DPKG_ROOT=/elsewhere /var/lib/dpkg/info/hotwrap.postinst configure; /var/lib/dpkg/info/hotwrap.postinst abort-upgrade' \
  >"$top/log" 2>&1 || fail 'the script fails'
[[ ! -s $top/log ]] || fail "$(cat "$top/log")"

within dpkg -r hotwrap >"$top/log" 2>&1 || fail "$(cat "$top/log")"
for file in "${common[@]}"; do within test ! -e "$file" || fail "$file is still there"; done
kill -TERM "${pid#*:}"
wait %1 || fail "hotwrap ended with $?: $(cat "$top/hotwrap.log")"

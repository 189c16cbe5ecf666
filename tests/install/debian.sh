#!/usr/bin/env bash
# debian.sh PACKAGES_DIR: installs the packages in a Debian that has nothing else, made by debootstrap, and uses them there:
# the program, its sandbox, the daemon, Python; every tutorial is followed to the letter, new plugins are made, an application
# and plugins built against the dev package; then purges them. As root. The bare system is kept beside the packages for the
# next time.
set -euo pipefail

packages=$(readlink -f "$1")
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
bare=$packages/bare root=$packages/root
mirror=$(cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null |
  sed -n 's/^URIs: //p; s/^deb \(\[.*\] \)\?\(http[^ ]*\) .*/\2/p' | head -n 1 || true)

fail() {
  printf 'debian.sh: %s\n' "$*" >&2
  exit 1
}
((EUID == 0)) || fail "this takes root"
[[ -n $mirror ]] || fail "apt's sources name no mirror"

if [[ ! -e $bare/.complete ]]; then
  rm -rf "$bare"
  debootstrap --variant=minbase "$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)" "$bare" "$mirror" \
    >"$packages/debootstrap.log" || fail "debootstrap failed: $packages/debootstrap.log"
  touch "$bare/.complete"
fi
rm -rf "$root"
cp -a "$bare" "$root"
cp /etc/resolv.conf "$root/etc/resolv.conf"
# As apt gets at the mirror here, it does there.
cp -a /etc/apt/apt.conf.d/. "$root/etc/apt/apt.conf.d/" 2>/dev/null || true
mkdir "$root/debs" "$root/outside" "$root/old"
cp "$packages"/*.deb "$root/debs/"
cp -r "$here/c" "$here/cxx" "$here/../docs/follow.py" "$here/../../docs/tutorials" "$here/../../docs/c-api.md" "$root/outside/"
chmod -R a+rX "$root/outside"

cat >"$root/inside.sh" <<'INSIDE'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
at=
trap '(($? == 0)) || echo "*** failed in this step: $at"' EXIT
step() {
  at=$*
  printf -- '--- %s\n' "$*"
}
fail() {
  printf '%s\n' "$*"
  exit 1
}
expect() { # WANTED COMMAND...
  local wanted=$1 got
  shift
  got=$("$@") || fail "failed: $*"
  [[ $got == "$wanted" ]] || fail "'$*' printed '$got', wanted: '$wanted'"
}
quietly() { # COMMAND...: its output is of interest when it fails
  "$@" >/output.log 2>&1 </dev/null || {
    tail -n 60 /output.log
    fail "failed: $*"
  }
}
install() { quietly apt-get install -q -y --no-install-recommends -o Acquire::Retries=3 "$@"; }
user() { runuser -u somebody -- env HOME=/home/somebody "$@"; }
# An ordinary user does what a page says, on a machine that has what it says to install.
follow() { # PAGE
  local -a packages=()
  step "${1##*/} is followed to the letter"
  mapfile -t packages < <(sed -n 's/.*`apt-get install \([a-z0-9+ -]*\)`.*/\1/p' "$1" | tr ' ' '\n')
  install "${packages[@]}"
  user python3 /outside/follow.py "$1"
}
# A new plugin passes its own CI.
begin() { # LANGUAGE PACKAGE...
  step "a new plugin in $1"
  local folder=/home/somebody/first-$1
  install "${@:2}"
  quietly user bulkhead new first --lang "$1" --dir "$folder"
  quietly user "$folder/ci/run"
  expect '"Hello, Ada!"' user bulkhead call "$folder/build/first.so" greet Ada
}

step "the lists of packages"
quietly apt-get update -o Acquire::Retries=3

step "the program, with what it depends on"
install /debs/libbulkhead0_*.deb /debs/bulkhead_*.deb
expect "" dpkg --audit
expect 5 bulkhead call echo add 2 3
expect '"plugin_error"' bash -c 'bulkhead call --json text split a "(" | sed -n "s/.*\"outcome\":\(\"[a-z_]*\"\).*/\1/p"'
quietly bulkhead inspect image
bulkhead doctor
[[ $(bulkhead doctor --json) =~ '"level":'\ *'"full"' ]] || fail "the sandbox is not all there"
quietly bulkhead run --check /etc/bulkhead/daemon.toml
[[ $(dpkg-query -W -f '${Conffiles}' bulkhead) == *"/etc/bulkhead/daemon.toml "* ]] || fail "no conffile"
for page in bulkhead.1 bulkhead-call.1 bulkhead-worker.8; do
  quietly zcat "/usr/share/man/man${page##*.}/$page.gz"
done
quietly bash -n /usr/share/bash-completion/completions/bulkhead

step "an ordinary user"
quietly useradd -m somebody
expect 5 user bulkhead call echo add 2 3

step "the daemon"
mkdir -p /run/bulkhead
bulkhead run /etc/bulkhead/daemon.toml >/daemon.log 2>&1 &
daemon=$!
for ((i = 0; i < 100; ++i)); do [[ ! -S /run/bulkhead/daemon.sock ]] || break; sleep 0.1; done
[[ -S /run/bulkhead/daemon.sock ]] || fail "no socket after 10 s: $(cat /daemon.log)"
expect 5 bulkhead call --socket /run/bulkhead/daemon.sock echo.add 2 3
kill "$daemon"
wait "$daemon" || fail "it ended with status $?: $(cat /daemon.log)"

step "Python"
install /debs/python3-bulkhead_*.deb
cat >/python.py <<'PYTHON'
import bulkhead
with bulkhead.Host() as host:
    print(host.load("/usr/lib/%s-linux-gnu/bulkhead/plugins/echo.so" % __import__("os").uname().machine).call("add", 2, 3))
PYTHON
expect 5 python3 /python.py

step "the dev package"
install /debs/libbulkhead-dev_*.deb
follow /outside/c-api.md
follow /outside/tutorials/authors.md
follow /outside/tutorials/embedders.md

# With the packages that `bulkhead new` names.
begin c gcc cmake make
begin c++ g++ cmake make
begin rust rustc cmake make

step "an application, a plugin and its tests, by find_package"
install catch2
quietly cmake -S /outside/cxx -B /made
quietly cmake --build /made
expect "HELLO, worker_lost, 2 calls" /made/application /made/shout.so
quietly /made/test_shout

step "an application and a plugin in C, by pkg-config"
cd /outside/c
read -ra flags < <(pkg-config --cflags --libs bulkhead)
quietly cc -std=c11 application.c -o application "${flags[@]}"
read -ra flags < <(pkg-config --cflags bulkhead-plugin-api)
quietly cc -std=c11 -shared -fPIC quiet.c -o quiet.so "${flags[@]}"
expect 'quiet: "quiet"' ./application ./quiet.so name

step "removed, nothing is left"
cd /
quietly apt-get purge -q -y 'libbulkhead*' bulkhead python3-bulkhead
left=$(find / -xdev -path /debs -prune -o -path /proc -prune -o -path /var/log -prune -o -name '*bulkhead*' -not -path '/outside/*' \
  -not -path '/run/*' -not -path '/made/*' -print)
[[ -z $left ]] || fail "left behind: $left"
INSIDE

# Not chroot: in one, no process may make user namespaces, as workers do.
# shellcheck disable=SC2016 # what is quoted is for the shell in there
unshare --mount --pid --ipc --uts --fork bash -euo pipefail -c '
  mount --make-rprivate /
  mount --bind "$0" "$0"
  cd "$0"
  mount -t proc proc proc
  mount --rbind /sys sys
  mount --rbind /dev dev
  pivot_root . old
  cd /
  umount -l /old
  exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb bash /inside.sh
' "$root" || fail "it does not work there; the system is in $root"
rm -rf "$root"
echo "the packages install, work, and go without a trace"

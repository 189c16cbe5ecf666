#!/usr/bin/env bash
# debian.sh PACKAGES_DIR: installs the packages in a Debian that has nothing else, made by debootstrap, and uses them there:
# the program, its sandbox, the daemon, Python, an application and plugins built against the dev package; then purges them.
# As root. The bare system is kept beside the packages for the next time.
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
cp -r "$here/c" "$here/cxx" "$here/../../bindings/python/tests/test_bulkhead.py" "$root/outside/"

cat >"$root/inside.sh" <<'INSIDE'
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
step() { printf -- '--- %s\n' "$*"; }
expect() { # WANTED COMMAND...
  local wanted=$1 got
  shift
  got=$("$@") || { echo "failed: $*"; exit 1; }
  [[ $got == "$wanted" ]] || { echo "'$*' printed '$got', wanted: '$wanted'"; exit 1; }
}
install() { apt-get install -q -y --no-install-recommends "$@" >>/apt.log 2>&1 || { tail -n 30 /apt.log; exit 1; }; }
apt-get update >/apt.log 2>&1 || { tail /apt.log; exit 1; }

step "the program, with what it depends on"
install /debs/libbulkhead0_*.deb /debs/bulkhead_*.deb
dpkg --audit
expect 5 bulkhead call echo add 2 3
expect '"plugin_error"' bash -c 'bulkhead call --json text split a "(" | sed -n "s/.*\"outcome\":\(\"[a-z_]*\"\).*/\1/p"'
bulkhead inspect image >/dev/null
bulkhead doctor
bulkhead doctor --json | grep -q '"level": *"full"' || { echo "the sandbox is not all there"; exit 1; }
bulkhead run --check /etc/bulkhead/daemon.toml
[[ $(dpkg-query -W -f '${Conffiles}' bulkhead) == *"/etc/bulkhead/daemon.toml "* ]] || { echo "no conffile"; exit 1; }
for page in bulkhead.1 bulkhead-call.1 bulkhead-worker.8; do
  zcat /usr/share/man/man${page##*.}/$page.gz >/dev/null || { echo "no page $page"; exit 1; }
done
bash -n /usr/share/bash-completion/completions/bulkhead

step "an ordinary user"
useradd -m somebody
expect 5 runuser -u somebody -- bulkhead call echo add 2 3

step "the daemon"
mkdir -p /run/bulkhead
bulkhead run /etc/bulkhead/daemon.toml 2>/daemon.log &
daemon=$!
for ((i = 0; i < 100; ++i)); do [[ ! -S /run/bulkhead/daemon.sock ]] || break; sleep 0.1; done
expect 5 bulkhead call --socket /run/bulkhead/daemon.sock echo.add 2 3
kill "$daemon"
wait "$daemon" || { cat /daemon.log; exit 1; }

step "Python"
install /debs/python3-bulkhead_*.deb
cat >/python.py <<'PYTHON'
import bulkhead
with bulkhead.Host() as host:
    print(host.load("/usr/lib/%s-linux-gnu/bulkhead/plugins/echo.so" % __import__("os").uname().machine).call("add", 2, 3))
PYTHON
expect 5 python3 /python.py

step "an application and plugins, built with the dev package and a compiler"
install /debs/libbulkhead-dev_*.deb g++ cmake make pkgconf
cmake -S /outside/cxx -B /made >/cmake.log && cmake --build /made >>/cmake.log || { tail -n 30 /cmake.log; exit 1; }
expect "HELLO, worker_lost, 2 calls" /made/application /made/shout.so
cd /outside/c
cc -std=c11 application.c -o application $(pkg-config --cflags --libs bulkhead)
cc -std=c11 -shared -fPIC quiet.c -o quiet.so $(pkg-config --cflags bulkhead-plugin-api)
expect 'quiet: "quiet"' ./application ./quiet.so name

step "removed, nothing is left"
cd /
apt-get purge -q -y 'libbulkhead*' bulkhead python3-bulkhead >>/apt.log 2>&1
left=$(find / -xdev -path /debs -prune -o -path /proc -prune -o -path /var/log -prune -o -name '*bulkhead*' -not -path '/outside/*' \
  -not -path '/run/*' -not -path '/made/*' -print)
[[ -z $left ]] || { echo "left behind: $left"; exit 1; }
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

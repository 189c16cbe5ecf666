#!/usr/bin/env bash
# One test of what is installed: outside.sh BUILD_DIR STEP. The steps but `prefix` need what `prefix` has installed.
set -euo pipefail

build=$1 step=$2
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
prefix=$build/install-test/moved
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
unset BULKHEAD_PLUGIN_PATH LD_LIBRARY_PATH CMAKE_PREFIX_PATH PKG_CONFIG_PATH

fail() {
  printf 'outside.sh: %s\n' "$*" >&2
  exit 1
}

expect() { # WANTED COMMAND...: the command's output is WANTED
  local wanted=$1 got
  shift
  got=$("$@") || fail "failed: $*"
  [[ $got == "$wanted" ]] || fail "'$*' printed '$got', wanted: '$wanted'"
}

# Where the build's architecture keeps libraries below a prefix.
libdir() {
  local found
  found=$(find "$prefix" -name 'libbulkhead.so.*.*' -printf '%h\n')
  [[ -n $found ]] || fail "no libbulkhead.so under $prefix"
  printf '%s' "$found"
}

configure_and_build() { # SOURCE CMAKE_ARGUMENT...
  local source=$1
  shift
  cp -r "$here/$source" "$scratch/source"
  if ! "${CMAKE:-cmake}" -S source -B made -DCMAKE_BUILD_TYPE=Debug "$@" >log 2>&1 ||
    ! "${CMAKE:-cmake}" --build made >>log 2>&1; then
    cat log
    fail "configuring or building $source failed"
  fi
}

case $step in
  prefix)
    rm -rf "$build/install-test"
    "${CMAKE:-cmake}" --install "$build" --prefix "$build/install-test/first" >log || fail "cmake --install failed"
    # The unit and its configuration name where they were installed, whatever the build was configured for.
    first=$build/install-test/first
    grep -qF "ExecStart=$first/bin/bulkhead run $first/etc/bulkhead/daemon.toml" "$first/lib/systemd/system/bulkhead.service" ||
      fail "the unit names other paths"
    directory=$(sed -n 's/^plugin_directory = "\(.*\)".*/\1/p' "$first/etc/bulkhead/daemon.toml")
    [[ -e $directory/echo.so ]] || fail "daemon.toml names '$directory', where no plugins are"
    mv "$first" "$prefix"
    # Nothing says where it was built or installed first, but for debug information.
    if grep -rlF "$build" "$prefix" --include='*.cmake' --include='*.pc' --include='*.hpp' --include='*.h'; then
      fail "these files name the folder of the build"
    fi
    ;;
  programs)
    expect 5 "$prefix/bin/bulkhead" call echo add 2 3
    "$prefix/bin/bulkhead" inspect text >/dev/null || fail "the plugin text was not found"
    # Through a link, and from a path of another's choice.
    ln -s "$prefix/bin/bulkhead" link
    expect 5 ./link call echo add 2 3
    ;;
  find_package)
    configure_and_build cxx -DCMAKE_PREFIX_PATH="$prefix"
    expect "HELLO, worker_lost, 2 calls" made/application made/shout.so
    made/test_shout >log 2>&1 || fail "the author's test failed: $(cat log)"
    ;;
  c_only)
    configure_and_build c -DCMAKE_PREFIX_PATH="$prefix"
    expect '"quiet"' "$prefix/bin/bulkhead" call ./made/quiet.so name
    ;;
  pkg_config)
    PKG_CONFIG_PATH="$(libdir)/pkgconfig"
    export PKG_CONFIG_PATH
    read -ra sdk < <(pkg-config --cflags bulkhead-sdk)
    read -ra api < <(pkg-config --cflags bulkhead-plugin-api)
    read -ra host < <(pkg-config --cflags --libs bulkhead)
    "${CXX:-c++}" -std=c++20 -shared -fPIC "$here/cxx/shout.cpp" -o shout.so "${sdk[@]}"
    # Where Boost is installed, too, a plugin has nothing of it.
    "${CXX:-c++}" -std=c++20 -M -include bulkhead/sdk/serve.hpp "$here/cxx/shout.cpp" "${sdk[@]}" >headers
    grep -q /bulkhead/sdk.hpp headers || fail "the compiler does not tell which headers a plugin includes: $(cat headers)"
    if grep -E '/(boost/|asio[/.])' headers; then fail "the SDK includes Boost or Asio"; fi
    "${CC:-cc}" -std=c11 -shared -fPIC "$here/c/quiet.c" -o quiet.so "${api[@]}"
    "${CC:-cc}" -std=c11 -Wall -Werror "$here/c/application.c" -o application "${host[@]}"
    expect 'quiet: "quiet"' env LD_LIBRARY_PATH="$(libdir)" ./application ./quiet.so name
    expect 'shout: "A"' env LD_LIBRARY_PATH="$(libdir)" ./application ./shout.so shout '["a"]'
    [[ $(pkg-config --variable=plugindir bulkhead-sdk) -ef $(libdir)/bulkhead/plugins ]] || fail "plugindir is wrong"
    ;;
  docs)
    mkdir bin
    ln -s /usr/bin/python3 bin/python3 # which has python3-msgpack
    PATH=$PWD/bin:$PATH PKG_CONFIG_PATH=$(libdir)/pkgconfig LD_LIBRARY_PATH=$(libdir) \
      PYTHONPATH=$prefix/lib/python3/dist-packages python3 "$here/../docs/follow.py" "$here/../../docs/c-api.md"
    ;;
  too_new)
    mkdir source
    printf 'cmake_minimum_required(VERSION 3.22)\nproject(x CXX)\nfind_package(bulkhead 99 REQUIRED)\n' >source/CMakeLists.txt
    if "${CMAKE:-cmake}" -S source -B made -DCMAKE_PREFIX_PATH="$prefix" >log 2>&1; then fail "version 99 was found"; fi
    grep -q 'requested version "99"' log || fail "the error does not name the version: $(cat log)"
    ;;
  components)
    # Without Boost there are plugins, and the error of an application says what is missing.
    mkdir source
    for each in sdk host; do
      printf 'cmake_minimum_required(VERSION 3.22)\nproject(x CXX)\nfind_package(bulkhead REQUIRED COMPONENTS %s)\n' $each \
        >source/CMakeLists.txt
      if "${CMAKE:-cmake}" -S source -B "$each" -DCMAKE_PREFIX_PATH="$prefix" -DBULKHEAD_BOOST_INCLUDE_DIR=OFF >"$each.log" 2>&1
      then echo found; else echo missing; fi
    done >outcome
    [[ $(cat outcome) == $'found\nmissing' ]] || fail "sdk, host: $(cat outcome sdk.log host.log)"
    grep -q libboost-dev host.log || fail "the error does not say what to install: $(cat host.log)"
    ;;
  *) fail "no step '$step'" ;;
esac

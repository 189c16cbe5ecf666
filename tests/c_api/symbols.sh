#!/usr/bin/env bash
# symbols.sh LIBRARY: the library exports all that is in symbols.txt, and besides only what a public header declares.
# Each public header of the host is exported. `symbols.sh LIBRARY --update` writes the list anew. Weak symbols, of which every user of the headers has a copy, do not
# count.
set -euo pipefail
export LC_ALL=C

library=$1
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
list=$here/symbols.txt
headers=("$here"/../../host/include "$here"/../../ipc/include "$here"/../../sdk/include)

symbols() { # TYPES: of the types that nm gives
  nm --dynamic --defined-only --demangle --without-symbol-versions "$library" | sed -n "s/^[0-9a-f]* [$1] //p" | grep -v '^BULKHEAD_' | sort -u
}

if [[ ${2:-} == --update ]]; then
  symbols TDRB >"$list"
  exit
fi

# Whether a public header declares what a symbol belongs to: "bulkhead::host::load(...)" to the class host.
is_public() { # SYMBOL
  local name=${1#bulkhead::}
  name=${name#ipc::}
  name=${name#detail::}
  name=${name%%[^A-Za-z0-9_]*}
  grep -rqE "\b(class|struct) ([A-Z_]+ )?$name( final)?( :.*)? \{|[ *&]$name\(" "${headers[@]}"
}

gone=$(comm -23 "$list" <(symbols TDRB))
added=$(comm -13 "$list" <(symbols TDRB))
shared='^(guard variable for )?boost::asio::(detail::(call_stack|keyword_tss_ptr)<|error::get_[a-z]+_category\(\)::instance)'
foreign=$(symbols A-Za-z | grep -vE "^((typeinfo for|typeinfo name for|vtable for) )?bulkhead::|^bh_|$shared" || true)
private=
while read -r symbol; do
  if [[ -n $symbol ]] && ! is_public "$symbol"; then private+=$symbol$'\n'; fi
done <<<"$added"

# What a header declares in plain `namespace bulkhead {` is hidden, and its users could not link.
hidden=$(grep -rl --include='*.hpp' '^namespace bulkhead {' "${headers[0]}" || true)

say() { # TEXT SYMBOLS
  if [[ -n $2 ]]; then printf '%s:\n%s\n\n' "$1" "$2"; fi
}
say 'new; ./dev abi puts them into the list' "$added"
say 'GONE, which breaks programs that use them: restore them, or raise BULKHEAD_SOVERSION and run ./dev abi' "$gone"
say 'PRIVATE, no public header declares them: hide them (bulkhead/export.hpp)' "$private"
say "HIDDEN, though public: write 'namespace BULKHEAD_PUBLIC bulkhead {' in (bulkhead/export.hpp)" "$hidden"
say "FOREIGN, not bulkhead's own: see host/c_api/libbulkhead.map" "$foreign"
[[ -z $gone$private$hidden$foreign ]]

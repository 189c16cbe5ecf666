# Compiler options shared by every target of the project: link `bulkhead_options` privately.
add_library(bulkhead_options INTERFACE)
target_compile_options(bulkhead_options INTERFACE
  -Wall -Wextra -Wpedantic -Wshadow=local -Wconversion -Wno-sign-conversion
  -fvisibility=hidden -fno-omit-frame-pointer
  "$<$<COMPILE_LANGUAGE:CXX>:-fvisibility-inlines-hidden>"
  "$<$<BOOL:${BULKHEAD_WERROR}>:-Werror>")
target_compile_definitions(bulkhead_options INTERFACE _GNU_SOURCE)
if(BULKHEAD_SANITIZE)
  # With sanitizers, g++ 12 takes Boost's own code for reading what is not initialised.
  target_compile_options(bulkhead_options INTERFACE -fsanitize=${BULKHEAD_SANITIZE} -fno-sanitize-recover=undefined
    -Wno-maybe-uninitialized)
  target_link_options(bulkhead_options INTERFACE -fsanitize=${BULKHEAD_SANITIZE})
  target_compile_definitions(bulkhead_options INTERFACE BULKHEAD_SANITIZED=1)
  if(BULKHEAD_SANITIZE MATCHES thread)
    # ThreadSanitizer knows no fences; Asio's are beside its locks.
    target_compile_definitions(bulkhead_options INTERFACE BOOST_ASIO_DISABLE_FENCED_BLOCK)
  endif()
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # At -O3, g++ 12 takes `"text" + std::string` for copies that overlap (GCC bug 105651).
  target_compile_options(bulkhead_options INTERFACE "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CONFIG:Release>>:-Wno-restrict;-Wno-stringop-overflow>")
endif()
if(BULKHEAD_COVERAGE)
  target_compile_options(bulkhead_options INTERFACE --coverage -O0)
  target_link_options(bulkhead_options INTERFACE --coverage)
endif()
find_program(BULKHEAD_CCACHE ccache)
if(BULKHEAD_CCACHE)
  set(CMAKE_C_COMPILER_LAUNCHER ${BULKHEAD_CCACHE})
  set(CMAKE_CXX_COMPILER_LAUNCHER ${BULKHEAD_CCACHE})
endif()

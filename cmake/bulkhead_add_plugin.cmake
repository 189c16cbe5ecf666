# bulkhead_add_plugin(NAME SOURCE... [LIBRARIES TARGET...])
# Builds NAME.so, a plugin that a bulkhead worker can load, into build/<preset>/plugins (or the project's own
# CMAKE_LIBRARY_OUTPUT_DIRECTORY when used from an installed bulkhead).
function(bulkhead_add_plugin name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LIBRARIES")
  add_library(${name} MODULE ${arg_UNPARSED_ARGUMENTS})
  set_target_properties(${name} PROPERTIES PREFIX "" C_VISIBILITY_PRESET hidden CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON)
  if(BULKHEAD_PLUGIN_OUTPUT_DIRECTORY)
    set_target_properties(${name} PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${BULKHEAD_PLUGIN_OUTPUT_DIRECTORY})
  endif()
  if(CMAKE_CXX_COMPILER_LOADED)
    target_link_libraries(${name} PRIVATE bulkhead::sdk)
  else()   # in C
    target_link_libraries(${name} PRIVATE bulkhead::plugin_api)
  endif()
  target_link_libraries(${name} PRIVATE ${arg_LIBRARIES})
  target_link_options(${name} PRIVATE -Wl,--no-undefined)
  if(BULKHEAD_SANITIZE)
    target_link_options(${name} PRIVATE -Wl,-z,undefs)   # sanitizer symbols come from the worker
  endif()
  if(TARGET bulkhead_options)
    target_link_libraries(${name} PRIVATE bulkhead_options)
  endif()
endfunction()

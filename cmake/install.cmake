# What `cmake --install` puts beside the programs and libraries, each of which says itself where it goes: headers, and what
# find_package(bulkhead) and pkg-config read. Components, which become packages: runtime, dev, tools.
include(CMakePackageConfigHelpers)

foreach(_headers plugin_api sdk host)
  install(DIRECTORY ${PROJECT_SOURCE_DIR}/${_headers}/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev)
endforeach()
# Of the channel, what the host's headers need.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/ipc/include/ DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT dev
  REGEX "/ipc/(attachment|channel|channel_stream|lane|lane_transport|scanner|spin_policy|transport)\\.hpp$" EXCLUDE)

set_target_properties(bulkhead_plugin_api PROPERTIES EXPORT_NAME plugin_api)
set_target_properties(bulkhead_sdk PROPERTIES EXPORT_NAME sdk)
install(TARGETS bulkhead_plugin_api bulkhead_sdk EXPORT bulkhead)
set(_cmake_dir ${CMAKE_INSTALL_LIBDIR}/cmake/bulkhead)
install(EXPORT bulkhead FILE bulkhead-targets.cmake NAMESPACE bulkhead:: DESTINATION ${_cmake_dir} COMPONENT dev)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/bulkhead-config.cmake.in
  ${PROJECT_BINARY_DIR}/cmake/bulkhead-config.cmake INSTALL_DESTINATION ${_cmake_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/cmake/bulkhead-config-version.cmake
  COMPATIBILITY SameMinorVersion)   # as long as it is 0.x
# With CMAKE_PREFIX_PATH=build/<preset>, a build that is not installed will do.
export(EXPORT bulkhead FILE ${PROJECT_BINARY_DIR}/cmake/bulkhead-targets.cmake NAMESPACE bulkhead::)
configure_file(${PROJECT_SOURCE_DIR}/cmake/bulkhead_add_plugin.cmake
  ${PROJECT_BINARY_DIR}/cmake/bulkhead_add_plugin.cmake COPYONLY)
install(FILES
  ${PROJECT_BINARY_DIR}/cmake/bulkhead-config.cmake
  ${PROJECT_BINARY_DIR}/cmake/bulkhead-config-version.cmake
  ${PROJECT_SOURCE_DIR}/cmake/bulkhead_add_plugin.cmake
  DESTINATION ${_cmake_dir} COMPONENT dev)

# The pages that programs and manual pages name.
install(DIRECTORY ${PROJECT_SOURCE_DIR}/docs DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/bulkhead COMPONENT tools
  FILES_MATCHING PATTERN "*.md" PATTERN site EXCLUDE PATTERN images EXCLUDE)

# pkg-config: the paths are relative to the file's own.
set(_pkgconfig_dir ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH _includedir /${_pkgconfig_dir} /${CMAKE_INSTALL_INCLUDEDIR})
file(RELATIVE_PATH _libdir /${_pkgconfig_dir} /${CMAKE_INSTALL_LIBDIR})
foreach(_package bulkhead bulkhead-sdk bulkhead-plugin-api)
  configure_file(${PROJECT_SOURCE_DIR}/cmake/${_package}.pc.in ${PROJECT_BINARY_DIR}/cmake/${_package}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/cmake/${_package}.pc DESTINATION ${_pkgconfig_dir} COMPONENT dev)
endforeach()

# The Debian packages, one a component: `./dev package` configures for them (prefix /usr) and runs cpack.
set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_VENDOR "bulkhead")
set(CPACK_PACKAGE_CONTACT "bulkhead contributors <maintainers@bulkhead.invalid>")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_SET_DESTDIR ON)   # since some of it is in /etc
set(CPACK_STRIP_FILES ON)
set(CPACK_COMPONENTS_ALL runtime dev tools python)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS_POLICY ">=")

set(_library libbulkhead${BULKHEAD_SOVERSION})
set(_same "(= ${PROJECT_VERSION}-${CPACK_DEBIAN_PACKAGE_RELEASE})")
set(_about "bulkhead runs plugins in worker processes, each in a sandbox of its own: one that crashes, hangs, leaks or\nattacks costs the application one error value.")

# bulkhead_package(COMPONENT NAME SECTION SHORT LONG [control file...])
function(bulkhead_package component name section short long)
  string(TOUPPER ${component} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name} PARENT_SCOPE)
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION ${section} PARENT_SCOPE)
  set(CPACK_COMPONENT_${upper}_DESCRIPTION "${short}\n${long}" PARENT_SCOPE)
  set(CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA "${ARGN}" PARENT_SCOPE)
  install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${name} RENAME copyright
    COMPONENT ${component})
  install(FILES ${PROJECT_SOURCE_DIR}/CHANGELOG.md DESTINATION ${CMAKE_INSTALL_DATADIR}/doc/${name}
    COMPONENT ${component})
endfunction()

set(_control ${PROJECT_SOURCE_DIR}/cmake/debian)
bulkhead_package(runtime ${_library} libs "runs native plugins in sandboxed worker processes" "${_about}\n.\nThe shared library and its worker program.")
bulkhead_package(dev libbulkhead-dev libdevel "runs native plugins in sandboxed worker processes: headers" "${_about}\n.\nTo write applications, in C++ and C, and plugins in any language.")
bulkhead_package(tools bulkhead utils "calls, serves and inspects native plugins in sandboxed worker processes" "${_about}\n.\nThe program bulkhead, a daemon among its commands, and plugins.\nThe service is not started by itself: systemctl enable --now bulkhead"
  ${_control}/tools/conffiles ${_control}/tools/postinst ${_control}/tools/prerm ${_control}/tools/postrm)
bulkhead_package(python python3-bulkhead python "runs native plugins in sandboxed worker processes: Python module" "${_about}\n.\nThe module bulkhead for Python."
  ${_control}/python/postinst ${_control}/python/prerm)
set(CPACK_DEBIAN_DEV_PACKAGE_DEPENDS "${_library} ${_same}, libboost-dev (>= 1.74), libmsgpack-cxx-dev, nlohmann-json3-dev")
set(CPACK_DEBIAN_TOOLS_PACKAGE_DEPENDS "${_library} ${_same}")   # for the worker
set(CPACK_DEBIAN_TOOLS_PACKAGE_SUGGESTS "gdb, libbulkhead-dev")
set(CPACK_DEBIAN_PYTHON_PACKAGE_DEPENDS "${_library} (>= ${PROJECT_VERSION}), python3, python3-msgpack")
set(CPACK_DEBIAN_PYTHON_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_TOOLS_PACKAGE_SHLIBDEPS ON)
include(CPack)

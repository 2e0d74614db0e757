# The header, the library, the CMake package, the pkg-config file; mm-dump where it is built.

include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/mobilemodel)

install(TARGETS mobilemodel EXPORT mobilemodel-targets
    ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
    LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR}
    RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES include/mobilemodel.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(EXPORT mobilemodel-targets NAMESPACE mobilemodel:: DESTINATION ${package_folder})

configure_package_config_file(cmake/mobilemodel-config.cmake.in mobilemodel-config.cmake
    INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(mobilemodel-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES
    ${CMAKE_CURRENT_BINARY_DIR}/mobilemodel-config.cmake
    ${CMAKE_CURRENT_BINARY_DIR}/mobilemodel-config-version.cmake
    cmake/FindMobilemodelZstd.cmake
    DESTINATION ${package_folder})

# A prefix that is relative to the file, so that an installed folder may move.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" OR IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
    set(pc_prefix ${CMAKE_INSTALL_PREFIX})
    set(pc_libdir ${CMAKE_INSTALL_FULL_LIBDIR})
    set(pc_includedir ${CMAKE_INSTALL_FULL_INCLUDEDIR})
else()
    file(RELATIVE_PATH up /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
    string(REGEX REPLACE "/$" "" up "${up}")
    set(pc_prefix "\${pcfiledir}/${up}")
    set(pc_libdir "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
    set(pc_includedir "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(pc_requires zlib)
if(zstd_found)
    string(APPEND pc_requires ", libzstd")
endif()
set(pc_cflags "")
if(BUILD_SHARED_LIBS)
    set(pc_cflags " -DMM_SHARED")
endif()
configure_file(cmake/mobilemodel.pc.in mobilemodel.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/mobilemodel.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

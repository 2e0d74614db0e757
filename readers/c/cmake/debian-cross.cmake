# What the toolchain files of this folder share.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_C_COMPILER ${mm_triple}-gcc)
set(CMAKE_LIBRARY_ARCHITECTURE ${mm_triple})
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)

find_program(MM_QEMU NAMES qemu-${mm_qemu}-static qemu-${mm_qemu})
if(MM_QEMU)
    set(CMAKE_CROSSCOMPILING_EMULATOR ${MM_QEMU})
endif()

set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES MM_ARM_LIBRARIES)
get_filename_component(mm_libraries "${MM_ARM_LIBRARIES}" ABSOLUTE)
set(CMAKE_FIND_ROOT_PATH ${mm_libraries}/${mm_debian} /usr/${mm_triple})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{PKG_CONFIG_LIBDIR} ${mm_libraries}/${mm_debian}/usr/lib/${mm_triple}/pkgconfig)

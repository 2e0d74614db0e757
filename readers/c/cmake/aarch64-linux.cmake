# 64-bit ARM with Debian's cross compiler (gcc-aarch64-linux-gnu), linked statically, run by qemu-user.
#   -DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux.cmake -DMM_ARM_LIBRARIES=folder of fetch-arm-libraries.sh
set(mm_triple aarch64-linux-gnu)
set(mm_debian arm64)
set(mm_qemu aarch64)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
include(${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake)

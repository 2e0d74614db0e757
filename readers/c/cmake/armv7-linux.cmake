# 32-bit ARM with Debian's cross compiler (gcc-arm-linux-gnueabihf), linked statically, run by qemu-user.
#   -DCMAKE_TOOLCHAIN_FILE=cmake/armv7-linux.cmake -DMM_ARM_LIBRARIES=folder of fetch-arm-libraries.sh
set(mm_triple arm-linux-gnueabihf)
set(mm_debian armhf)
set(mm_qemu arm)
set(CMAKE_SYSTEM_PROCESSOR armv7l)
include(${CMAKE_CURRENT_LIST_DIR}/debian-cross.cmake)

# SHA-256 for the tools, as the target MobilemodelSha256::MobilemodelSha256: CommonCrypto, which is part of Apple's
# systems, or libmd, the functions of the BSDs (Debian: libmd-dev).

if(APPLE)
    find_path(MobilemodelSha256_INCLUDE_DIR CommonCrypto/CommonDigest.h)
    find_library(MobilemodelSha256_LIBRARY System)
else()
    find_path(MobilemodelSha256_INCLUDE_DIR sha256.h)
    find_library(MobilemodelSha256_LIBRARY md)
endif()
mark_as_advanced(MobilemodelSha256_INCLUDE_DIR MobilemodelSha256_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(MobilemodelSha256
    REQUIRED_VARS MobilemodelSha256_LIBRARY MobilemodelSha256_INCLUDE_DIR)

if(MobilemodelSha256_FOUND AND NOT TARGET MobilemodelSha256::MobilemodelSha256)
    add_library(MobilemodelSha256::MobilemodelSha256 INTERFACE IMPORTED)
    set_target_properties(MobilemodelSha256::MobilemodelSha256 PROPERTIES
        INTERFACE_LINK_LIBRARIES "${MobilemodelSha256_LIBRARY}"
        INTERFACE_INCLUDE_DIRECTORIES "${MobilemodelSha256_INCLUDE_DIR}")
endif()

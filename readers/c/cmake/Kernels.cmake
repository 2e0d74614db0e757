# Which kernel files are compiled for which processor, and with which flags. The rest of the library takes the
# compiler's defaults for the target, so that it runs wherever the target does; choose.c asks the processor before a
# kernel is used.

include(CheckCSourceCompiles)

# Whether the compiler builds for a processor of which the preprocessor's condition holds.
function(mm_targets condition result)
    set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
    set(CMAKE_REQUIRED_QUIET ON)
    set(source "#if !(${condition})\n#error another\n#endif\nint main(void) { return 0; }")
    check_c_source_compiles("${source}" MM_TARGETS_${result})
    set(${result} ${MM_TARGETS_${result}} PARENT_SCOPE)
endfunction()

# Decoding is exact (spec/tensors.md §8): a product and a sum become one operation only where a sum's order is free
# anyway, in the products of fully connected layers.
function(mm_compile_as_library target)
    set_target_properties(${target} PROPERTIES C_STANDARD 11 C_STANDARD_REQUIRED ON C_EXTENSIONS OFF
        C_VISIBILITY_PRESET hidden POSITION_INDEPENDENT_CODE ON)
    target_compile_options(${target} PRIVATE -ffp-contract=off)
    # Small in a program: linkers leave out the functions that it does not call (-Wl,--gc-sections), and nobody needs
    # tables to unwind a stack that no exception passes.
    target_compile_options(${target} PRIVATE -ffunction-sections -fdata-sections)
    if(NOT MM_BUILD_FUZZERS)
        target_compile_options(${target} PRIVATE
            "$<$<NOT:$<CONFIG:Debug>>:-fno-asynchronous-unwind-tables;-fno-unwind-tables>")
    endif()
    set_source_files_properties(src/kernels/fc_plain.c src/kernels/fc_neon.c PROPERTIES
        COMPILE_OPTIONS -ffp-contract=fast)
endfunction()

# The vector sources once more, for processors that have the flags; they name themselves by what the flags define.
function(mm_add_x86_kernels target set flags sources)
    set(objects ${target}_${set})
    add_library(${objects} OBJECT ${sources})
    target_include_directories(${objects} PRIVATE include src)
    target_include_directories(${objects} SYSTEM PRIVATE ${MM_SIMDE_INCLUDE_DIR})
    target_compile_options(${objects} PRIVATE ${flags})
    target_link_libraries(${objects} PRIVATE mobilemodel_warnings)
    mm_compile_as_library(${objects})
    target_sources(${target} PRIVATE $<TARGET_OBJECTS:${objects}>)
endfunction()

function(mm_find_simde)
    find_path(MM_SIMDE_INCLUDE_DIR simde/arm/neon.h)
    mark_as_advanced(MM_SIMDE_INCLUDE_DIR)
    if(NOT MM_SIMDE_INCLUDE_DIR AND NOT MM_WITH_SIMDE STREQUAL "AUTO")
        message(FATAL_ERROR "MM_WITH_SIMDE: simde/arm/neon.h is not found; MM_SIMDE_INCLUDE_DIR may name its folder")
    endif()
endfunction()

function(mm_add_vector_kernels target)
    set(sources ${ARGN})
    mm_targets("defined(__aarch64__)" aarch64)
    mm_targets("defined(__arm__) && __ARM_ARCH >= 7" armv7)
    mm_targets("defined(__x86_64__)" x86_64)
    set(built plain)
    if(aarch64)
        target_sources(${target} PRIVATE ${sources})
        set_source_files_properties(src/kernels/halves_fp16.c PROPERTIES COMPILE_OPTIONS -march=armv8.2-a+fp16)
        set_source_files_properties(src/kernels/crc32.c PROPERTIES COMPILE_OPTIONS -march=armv8-a+crc)
        list(APPEND built neon neon-crc neon-fp16)
    elseif(armv7)
        target_sources(${target} PRIVATE ${sources})
        set(flags -mfpu=neon-vfpv4)
        if(CMAKE_C_COMPILER_ID STREQUAL "GNU")
            list(APPEND flags -mfp16-format=ieee)
        endif()
        set_property(SOURCE ${sources} APPEND PROPERTY COMPILE_OPTIONS ${flags})
        list(APPEND built neon)
    elseif(x86_64)
        set_source_files_properties(src/kernels/crc32.c PROPERTIES COMPILE_OPTIONS "-mpclmul;-msse4.1")
        if(MM_WITH_SIMDE)
            mm_find_simde()
        endif()
        if(MM_WITH_SIMDE AND MM_SIMDE_INCLUDE_DIR)
            mm_add_x86_kernels(${target} sse4 "-mssse3;-msse4.2;-mpopcnt" "${sources}")
            mm_add_x86_kernels(${target} avx2 "-mavx2;-mfma;-mf16c;-mpopcnt;-mbmi" "${sources}")
            list(APPEND built sse4 avx2)
        endif()
    endif()
    if(NOT built STREQUAL "plain")
        target_compile_definitions(${target} PRIVATE MM_WITH_VECTORS=1)
    endif()
    list(JOIN built ", " built)
    set(mm_kernels_built ${built} PARENT_SCOPE)
endfunction()

# arm64.cmake - a toolchain file: builds for arm64 on another machine, with Debian's cross compiler (or clang, if that is
# asked for) and the libraries of `scripts/setup.sh --arch arm64`; tests and the manual run under qemu.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(triplet aarch64-linux-gnu)
if(NOT CMAKE_C_COMPILER)
  set(CMAKE_C_COMPILER ${triplet}-gcc)
endif()
if(CMAKE_C_COMPILER MATCHES "gcc$")
  set(CMAKE_CXX_COMPILER ${triplet}-g++)
endif()
set(CMAKE_C_COMPILER_TARGET ${triplet}) # read for clang alone: a gcc has one target
set(CMAKE_CXX_COMPILER_TARGET ${triplet})
set(CMAKE_LINKER ${triplet}-ld) # with clang, CMake would take this machine's own
set(CMAKE_OBJCOPY ${triplet}-objcopy)
set(CMAKE_LIBRARY_ARCHITECTURE ${triplet})
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/${triplet}/pkgconfig:/usr/share/pkgconfig)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)

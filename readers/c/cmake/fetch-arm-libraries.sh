#!/bin/sh
# Fetch what a static build for ARM needs beside the cross compiler, zlib, libzstd and libmd, from Debian:
#   fetch-arm-libraries.sh FOLDER     makes FOLDER/arm64 and FOLDER/armhf, for MM_ARM_LIBRARIES of the toolchain files
# The machine's own apt sources are asked. Nothing is installed; lists and packages are kept in the folder.
set -eu
[ $# = 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
mkdir -p "$1"
folder=$(cd "$1" && pwd)
mkdir -p "$folder/apt/lists/partial" "$folder/apt/packages"
: >"$folder/apt/status"
cat >"$folder/apt/apt.conf" <<CONF
#clear APT::Update;
#clear APT::Architectures;
APT::Architectures { "arm64"; "armhf"; };
APT::Sandbox::User "$(id -un)";
Dir::State "$folder/apt";
Dir::State::lists "$folder/apt/lists";
Dir::State::status "$folder/apt/status";
Dir::Cache "$folder/apt";
Acquire::Languages "none";
CONF

# A source of someone else may lack these architectures, or be out of reach; what counts is whether the packages come.
apt-get -c "$folder/apt/apt.conf" -qq update || echo "$0: apt-get update complains, going on" >&2

for architecture in arm64 armhf; do
    rm -rf "$folder/apt/packages/$architecture" "${folder:?}/$architecture"
    mkdir -p "$folder/apt/packages/$architecture"
    cd "$folder/apt/packages/$architecture"
    apt-get -c "$folder/apt/apt.conf" -qq download \
        "zlib1g-dev:$architecture" "libzstd-dev:$architecture" "libmd-dev:$architecture"
    for package in *.deb; do
        dpkg-deb -x "$package" "$folder/$architecture"
    done
    # Links to shared libraries that are not here, and CMake packages that name them, would hide the static ones.
    find "$folder/$architecture" -name 'lib*.so' -delete
    find "$folder/$architecture" -type d -name cmake -prune -exec rm -r {} +
    find "$folder/$architecture" -name 'lib*.a'
done

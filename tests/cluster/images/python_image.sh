#!/bin/sh
# python_image.sh PYTHON: the files of a container image, as a tar on stdout for `docker import`: this machine's own
# shell, basic tools and Python, copied with the libraries they load. No registry and no network.
# The Python lies in the image where it lies here, so that virtual environments of this machine work in it too.
set -eu
python=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root/bin" "$root/usr/bin" "$root/etc" "$root/tmp" "$root/proc" "$root/sys" "$root/dev"
chmod 1777 "$root/tmp"

copy() { # a file to the same place
    [ -e "$root$1" ] || { mkdir -p "$root$(dirname "$1")" && cp -L "$1" "$root$1"; }
}
libraries() { # the files that `ldd` lists for programs and libraries
    ldd "$@" 2>/dev/null | grep -o '/[^ :)]*' | grep -v ':$' | sort -u
}

for tool in sh cat env sleep id rm touch ls mkdir true false; do
    path=/usr/bin/$tool
    [ -x "$path" ] || path=/bin/$tool
    path=$(readlink -f "$path")
    cp "$path" "$root/bin/$tool"
    ln -sf "/bin/$tool" "$root/usr/bin/$tool"
    for library in $(libraries "$path"); do copy "$library"; done
done

prefix=$("$python" -c 'import sys; print(sys.base_prefix)')
stdlib=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
program=$("$python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
mkdir -p "$root$(dirname "$program")" "$root$stdlib"
cp "$program" "$root$program"
tar -C "$stdlib" --exclude=site-packages --exclude=dist-packages --exclude=test --exclude=__pycache__ \
    --exclude='config-*' --exclude=idlelib --exclude=tkinter -cf - . | tar -C "$root$stdlib" -xf -
for library in $(libraries "$program" $(find "$root$stdlib" "$prefix/lib" -maxdepth 2 -name '*.so*' -type f)); do
    case $library in "$root"*) ;; *) copy "$library" ;; esac
done
# What uv and the wheels in an environment load from the system.
for library in libstdc++.so.6 libgcc_s.so.1 libgomp.so.1 libm.so.6 libpthread.so.0 librt.so.1 libdl.so.2 libutil.so.1; do
    path=$(ldconfig -p 2>/dev/null | awk -v n="$library" '$1 == n { print $NF; exit }')
    [ -z "$path" ] || copy "$path"
done
[ -e "$root/usr/bin/python3" ] || ln -s "$program" "$root/usr/bin/python3"
tar -C "$root" -c .

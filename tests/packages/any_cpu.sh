#!/usr/bin/env bash
# The Debian package on every CPU of its architecture (`make packages-test`; root, debootstrap and qemu-user, some minutes).
#   any_cpu.sh PACKAGE.deb SYSROOT      of tools/sysroot
# It is installed in a fresh Debian 12, runs there, and on emulated CPUs of four generations; each takes the kernels made for its level, and all
# write the same text. ggml for the oldest holds no instruction of a later one. Then the same package in a fresh Debian 11.
set -uo pipefail
deb=$(readlink -f "$1") sysroot=$(readlink -f "$2")
for tool in debootstrap qemu-x86_64 objdump dpkg-deb; do
  command -v $tool >/dev/null || { echo "SKIPPED: no $tool (apt install debootstrap qemu-user binutils)"; exit 77; }
done
[ "$(id -u)" = 0 ] || { echo "SKIPPED: a clean root is made by root"; exit 77; }
[ "$(uname -m)" = x86_64 ] || { echo "SKIPPED: the levels are x86-64's"; exit 77; }
tmp=$(mktemp -d); root=$tmp/bookworm
trap 'umount "$tmp"/*/proc 2>/dev/null; rm -rf --one-file-system "$tmp"' EXIT
bad=0
check() { local what=$1; shift; if "$@" >"$tmp/log" 2>&1; then echo "ok      $what"; else echo "FAILED  $what"; tail -n 15 "$tmp/log"; bad=1; fi; }

fresh() { # suite: a root of it with the package, in $tmp/suite
  local at=$tmp/$1
  debootstrap --variant=minbase "$1" "$at" >"$tmp/bootstrap.log" 2>&1 || { tail "$tmp/bootstrap.log"; exit 1; }
  cp -r /etc/apt/apt.conf.d "$at/etc/apt/" 2>/dev/null
  cp "$deb" "$at/tmp/dilemma.deb"
  mount -t proc proc "$at/proc" || exit 1   # $ORIGIN, by which the program finds its libraries, is read there
  check "it installs in a fresh $1" chroot "$at" sh -c 'apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends /tmp/dilemma.deb'
  check "and runs there" chroot "$at" sh -c 'dilemma --version && dilemma doctor'
}
fresh bookworm

lib=$root/usr/lib/dilemma
[ -d "$lib" ] || lib=$(dirname "$(find "$root/usr/lib" -path '*dilemma/libggml-cpu.so*' | head -n 1)")
uses() { objdump -d --no-show-raw-insn "$1" | grep -cE "$2"; }
for f in "$lib"/libggml*.so; do   # the program has a few loops twice, and chooses when it starts; the emulated CPUs below show that
  check "$(basename "$f") is for every x86-64" test "$(uses "$f" '	v[a-z0-9]+ .*%[xyz]mm')" = 0
done
check "kernels for x86-64-v3 use AVX2" test "$(uses "$lib/glibc-hwcaps/x86-64-v3/libggml-cpu.so" '%ymm')" -gt 1000
check "and those for x86-64-v4 AVX-512" test "$(uses "$lib/glibc-hwcaps/x86-64-v4/libggml-cpu.so" '%zmm')" -gt 1000
needs=$(for f in "$root/usr/bin/dilemma" "$lib"/*.so; do objdump -T "$f" | grep -oE 'GLIBC_2\.[0-9]+'; done | sort -uV | tail -n 1)
check "it needs $needs, which Debian 11 has" test "${needs#GLIBC_2.}" -le 31

"$DILEMMA_PYTHON" - "$root/tmp/tiny.gguf" "$DILEMMA_TEST_MODEL" <<PY || exit 1
import sys; sys.path.insert(0, "$(dirname "$0")/.."); import tiny
tiny.write_model(sys.argv[1], sys.argv[2], vocab=512, width=64, ff=128, blocks=2)
PY
ask=(run "$root/tmp/tiny.gguf" -p "once upon a time" -n 6 --temp 0 -t 1 --quiet)
for pair in qemu64: Nehalem:x86-64-v2/ Haswell:x86-64-v3/; do
  cpu=${pair%%:*} level=${pair#*:}
  qemu-x86_64 -cpu "$cpu" -L "$root" -E LD_DEBUG=libs -E LD_LIBRARY_PATH= "$root/usr/bin/dilemma" "${ask[@]}" >"$tmp/$cpu.txt" 2>"$tmp/$cpu.log"
  check "it answers on a $cpu" test $? = 0
  check "with the kernels of ${level:-the first level}" bash -c "grep 'calling init: .*libggml-cpu' '$tmp/$cpu.log' | grep -q 'dilemma/${level:+glibc-hwcaps/}${level}libggml-cpu'"
done
cp "$root/tmp/tiny.gguf" "$tmp/"
chroot "$root" dilemma run /tmp/tiny.gguf "${ask[@]:2}" >"$tmp/here.txt" 2>"$tmp/here.log"
for cpu in qemu64 Nehalem Haswell; do check "the same text as here on a $cpu" cmp "$tmp/here.txt" "$tmp/$cpu.txt"; done
check "there is text" test -s "$tmp/here.txt"

fresh bullseye
cp "$root/tmp/tiny.gguf" "$tmp/bullseye/tmp/"
chroot "$tmp/bullseye" dilemma run /tmp/tiny.gguf "${ask[@]:2}" >"$tmp/old.txt" 2>"$tmp/old.log"
check "the same text in bullseye" cmp "$tmp/here.txt" "$tmp/old.txt"
# The loader of glibc 2.31 knows one level, under an older name, on Intel's CPUs alone.
mkdir "$tmp/unpacked"; dpkg-deb -x "$deb" "$tmp/unpacked"
old_libs=$(printf "$sysroot/%s:" usr/lib/x86_64-linux-gnu/openblas-pthread usr/lib/x86_64-linux-gnu lib/x86_64-linux-gnu)
qemu-x86_64 -cpu Haswell -L "$sysroot" -E LD_DEBUG=libs -E "LD_LIBRARY_PATH=${old_libs%:}" "$tmp/unpacked/usr/bin/dilemma" "${ask[@]}" >"$tmp/old.txt" 2>"$tmp/old.log"
check "the same text there on a Haswell" cmp "$tmp/here.txt" "$tmp/old.txt"
check "with the kernels for AVX2" bash -c "grep 'calling init: .*libggml-cpu' '$tmp/old.log' | grep -q dilemma/haswell/"
check "a node answers there" chroot "$tmp/bullseye" sh -c 'dilemma node --insecure --listen 127.0.0.1:7155 --memory 50M -t 1 & n=$!; i=0
  until dilemma doctor --insecure --node a=127.0.0.1:7155 >/tmp/doctor; do i=$((i+1)); [ $i -lt 20 ] || { cat /tmp/doctor; kill $n; exit 1; }; done; kill $n'

check "and goes again" chroot "$root" sh -c 'apt-get purge -y -qq dilemma && ! test -e /usr/bin/dilemma && ! test -e /usr/lib/dilemma'
exit $bad

#!/usr/bin/env bash
# What `make install` installs: it runs from where it was moved to, other programs build against it by pkg-config and by CMake, the
# texts are well formed, and the .deb holds it. `make packages-test` installs the one for any CPU in a fresh Debian.
set -uo pipefail
build=$(dirname "$DILEMMA")
[ -f "$build/cmake_install.cmake" ] && [ -f "$build/packaging/dilemma.pc" ] || { echo "SKIPPED: $build is no build tree with packaging"; exit 77; }
tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
bad=0
check() { local what=$1; shift; if "$@" >"$tmp/log" 2>&1; then echo "ok      $what"; else echo "FAILED  $what"; tail -n 15 "$tmp/log"; bad=1; fi; }

cmake --install "$build" --prefix "$tmp/first" >"$tmp/install.log" 2>&1 || { cat "$tmp/install.log"; exit 1; }
mv "$tmp/first" "$tmp/root"   # nothing may remember where it was
p=$tmp/root
lib=$(dirname "$(find "$p" -name libdilemma.a)")
for f in bin/dilemma include/dilemma/base.h lib/systemd/system/dilemma-node.service share/dilemma/grafana.json share/man/man1/dilemma.1 \
  share/man/man1/dilemma-serve.1 share/bash-completion/completions/dilemma share/zsh/site-functions/_dilemma share/fish/vendor_completions.d/dilemma.fish \
  share/doc/dilemma/LICENSE share/doc/dilemma/SERVE.md; do check "installs $f" test -s "$p/$f"; done
check "the program runs without the build tree" env -u LD_LIBRARY_PATH "$p/bin/dilemma" --version
own=$(env -u LD_LIBRARY_PATH ldd "$p/bin/dilemma" | grep -E 'ggml|highs' | grep -vc "=> $p/")
check "with its own libraries" test "$own" = 0
n_commands=$("$p/bin/dilemma" --help | grep -c '^  [a-z]')
check "a man page a command" test "$(ls "$p/share/man/man1" | wc -l)" = $((n_commands + 1))
if command -v groff >/dev/null; then check "man pages without a warning" bash -c "cd '$p/share/man/man1' && for f in *.1; do groff -ww -man -Tutf8 -z \$f 2>&1; done | tee /dev/stderr | { ! grep -q .; }"; fi
complete_words() { # words typed: the completions that bash offers
  bash -c ". '$p/share/bash-completion/completions/dilemma'; COMP_WORDS=($1); COMP_CWORD=$2; compopt() { :; }; _dilemma; echo \"\${COMPREPLY[@]}\""
}
check "bash completes a command" bash -c "[ \"$(complete_words 'dilemma ser' 1)\" = serve ]"
every_command() { # each has its page and its completions, with every option that its --help has
  local c o page offered shells="$p/share/zsh/site-functions/_dilemma $p/share/fish/vendor_completions.d/dilemma.fish"
  offered=" $(complete_words 'dilemma ' 1) "
  for c in $("$p/bin/dilemma" --help | sed -n 's/^  \([a-z]*\) .*/\1/p'); do
    [[ $offered = *" $c "* ]] || { echo "bash does not offer $c"; return 1; }
    for o in $shells; do grep -qw -- "$c" $o || { echo "$o lacks $c"; return 1; }; done
    page=$(sed 's/\\-/-/g' "$p/share/man/man1/dilemma-$c.1") || return 1
    local options; options=" $(complete_words "dilemma $c --" 2) "
    for o in $("$p/bin/dilemma" $c --help | grep -oE '^ +(-., )?--[a-z0-9-]+' | grep -oE -- '--[a-z0-9-]+'); do
      grep -qF -- "$o" <<<"$page" || { echo "the page of $c lacks $o"; return 1; }
      [[ $options = *" $o "* ]] || { echo "bash does not offer $c $o: $options"; return 1; }
      grep -qE -- "(-l ${o#--}\\b|$o\\b)" "$p/share/fish/vendor_completions.d/dilemma.fish" || { echo "fish lacks $o"; return 1; }
    done
  done
}
check "every command and option is in its page and in the completions" every_command
check "zsh's is well formed" bash -c "! command -v zsh >/dev/null || zsh -n '$p/share/zsh/site-functions/_dilemma'"
check "the Grafana dashboard asks for metrics that exist" "${DILEMMA_PYTHON:-python3}" - "$p/share/dilemma/grafana.json" "$DILEMMA_SOURCE/src/serve" <<'PY'
import json, pathlib, re, sys
asked = {m for p in json.load(open(sys.argv[1]))["panels"] for t in p["targets"] for m in re.findall(r"dilemma_(\w+)", t["expr"])}
source = "".join(f.read_text() for f in pathlib.Path(sys.argv[2]).glob("*.c"))
missing = [m for m in asked if f'"{m}"' not in source and f"dilemma_{m}{{" not in source]
assert asked and not missing, missing
PY
if command -v systemd-analyze >/dev/null; then
  for u in node serve; do
    sed "s|^ExecStart=[^ ]*|ExecStart=/bin/true|" "$p/lib/systemd/system/dilemma-$u.service" >"$tmp/dilemma-$u.service"
    check "systemd takes dilemma-$u.service" systemd-analyze verify --man=no "$tmp/dilemma-$u.service"
  done
fi

# Programs of others.
export PKG_CONFIG_PATH=$lib/pkgconfig
for e in generate plan serve; do
  check "examples/$e.c by pkg-config" bash -c "cc -std=c11 -D_DEFAULT_SOURCE -Wall -Wextra -Werror -O1 '$p/share/doc/dilemma/examples/$e.c' \$(pkg-config --cflags --libs dilemma) -o '$tmp/$e'"
done
[ ! -f "${DILEMMA_TEST_MODEL:-}" ] || check "and it generates what the program does" bash -c \
  "[ \"\$('$tmp/generate' '$DILEMMA_TEST_MODEL' 'The capital of France is')\" = \"\$('$p/bin/dilemma' run '$DILEMMA_TEST_MODEL' -p 'The capital of France is' -n 24 --temp 0 --quiet | tail -n +1)\" ] || { '$tmp/generate' '$DILEMMA_TEST_MODEL' 'The capital of France is'; echo ---; '$p/bin/dilemma' run '$DILEMMA_TEST_MODEL' -p 'The capital of France is' -n 24 --temp 0 --quiet; exit 1; }"
mkdir "$tmp/app"
cp "$p/share/doc/dilemma/examples/plan.c" "$tmp/app/"
printf 'cmake_minimum_required(VERSION 3.21)\nproject(app C)\nfind_package(dilemma REQUIRED)\nadd_executable(app plan.c)\ntarget_link_libraries(app dilemma::dilemma)\n' >"$tmp/app/CMakeLists.txt"
check "by CMake's find_package" env -u PKG_CONFIG_PATH bash -c "cmake -S '$tmp/app' -B '$tmp/app/b' -DCMAKE_PREFIX_PATH='$p' && cmake --build '$tmp/app/b'"
cat >"$tmp/h.cc" <<'CC'
#include <dilemma/serve.h>
#include <dilemma/hub.h>
int main() { return 0; }
CC
check "the headers are C++ as well" bash -c "command -v g++ >/dev/null && g++ -fsyntax-only -I'$p/include' '$tmp/h.cc'"

# The Debian package.
if ! command -v dpkg-shlibdeps >/dev/null; then
  echo "SKIPPED part: no dpkg-dev, no .deb"
else
  check "a .deb" bash -c "cd '$build' && cpack -G DEB -B '$tmp/deb'"
  deb=$(ls "$tmp"/deb/*.deb 2>/dev/null)
  check "depends on what it links with" bash -c "dpkg-deb -f '$deb' Depends | grep -q libmicrohttpd && dpkg-deb -f '$deb' Depends | grep -q libzmq"
  check "holds the program, its libraries and units" bash -c "dpkg-deb -c '$deb' >'$tmp/list'; grep -q ' ./usr/bin/dilemma$' '$tmp/list' && grep -q 'lib/dilemma/libggml' '$tmp/list' && grep -q 'dilemma-node.service' '$tmp/list'"
fi
exit $bad

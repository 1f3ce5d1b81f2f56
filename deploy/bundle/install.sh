#!/bin/sh
# Install what this bundle needs into ./.venv, from wheels/ when that folder is here, else from the network; then check it.
#   ./install.sh                 install and self-test
#   ./install.sh --service       also run ./run.py --watch inbox at every start of the machine (asks for sudo)
# Exit codes: 0 installed and tested, 1 the self-test failed, 2 usage, 3 no engine for this system.
set -eu
case $0 in */*) CDPATH='' cd -- "${0%/*}/" ;; esac
say() { printf 'install: %s\n' "$*" >&2; }
fail() { code=$1; shift; say "$*"; exit "$code"; }

service=no
case "${1:-}" in
  '') ;;
  --service) service=yes ;;
  *) fail 2 "unknown option $1" ;;
esac

case $PWD in
  *:*) fail 3 "Python makes no virtual environment in a folder with a colon in its name: move the bundle" ;;
esac
damaged=$(sha256sum --quiet -c SHA256SUMS 2>/dev/null) || fail 3 "this bundle is not whole, copy it again: $damaged"
python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail 3 "no $python here: sudo apt install python3 python3-venv"
look() { # look PYTHON: set version and arch
  version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
  # The userland decides, not the kernel: 32-bit Raspberry Pi OS has a 64-bit kernel.
  arch=$("$1" -c 'import platform, struct
machine = platform.machine()
print("armv7l" if struct.calcsize("P") == 4 and machine in ("aarch64", "armv7l", "armv8l") else machine)')
}
known() { # known [VERSION]: Pythons that an engine is known for on this processor
  awk -v a="$arch" -v p="${1:-}" '$1 == a && (p == "" || $2 == p) { print $2 }' engines.txt | sort -u
}
look "$python"
if [ -z "$(known "$version")" ]; then
  # The system's Python is too old or too new for every engine (JetPack 4 has 3.6). Another may be beside it.
  own=$version
  for other in $(known); do
    if command -v "python$other" >/dev/null; then python=python$other; look "$python"; break; fi
  done
  if [ "$version" = "$own" ]; then
    others=$(known | tr '\n' ' ')
    fail 3 "no engine is known for Python $own on $arch${others:+; one is for Python $others(sudo apt install python3.x python3.x-venv)}; see README.md, 'Systems'"
  fi
fi
say "Python $version on $arch"
formats=$("$python" -c 'import json; print(" ".join(sorted({a["format"] for a in json.load(open("bundle.json"))["artifacts"]})))') || fail 3 "bundle.json is damaged, copy the bundle again"

finish() {
  if [ -f build.sh ]; then
    say "engines for the GPU:"
    ./build.sh || say "no engine for the GPU: the CPU is used"
  fi
  say "self-test:"
  .venv/bin/python selftest.py || fail 1 "the self-test failed: this device does not compute what the host did"
  if [ "$service" = yes ]; then
    unit=$(.venv/bin/python service.py) || exit 3
    printf '%s\n' "$unit" | sudo tee /etc/systemd/system/edgec-model.service >/dev/null
    sudo systemctl daemon-reload
    sudo systemctl enable --now edgec-model.service
    say "the service runs: put pictures into $PWD/inbox, read journalctl -u edgec-model -f"
  fi
  say "done"
  exit 0
}

# What is installed fits when Python, formats, and the list of engines are those it was made for.
stamp="$version $arch $formats $(sha256sum <engines.txt)"
if [ -f .venv/.stamp ] && [ "$(cat .venv/.stamp)" = "$stamp" ]; then
  say "engines are installed already"
  finish
fi

offline=no
if [ -d wheels ]; then
  offline=yes
  tag=cp$(echo "$version" | tr -d .)
  if ! ls wheels/numpy-*-"$tag"-*"$arch".whl >/dev/null 2>&1; then
    say "wheels/ is for another Python or processor: the network is used instead"
    offline=no
  fi
fi
site=
if [ "$arch" = armv7l ]; then
  # No 32-bit numpy wheel exists at PyPI: Debian's is used.
  "$python" -c 'import numpy' 2>/dev/null || fail 3 "32-bit system without numpy: sudo apt install python3-numpy python3-pil"
  site=--system-site-packages
fi
trap 'rm -rf .venv.part .candidates' EXIT
rm -rf .venv.part
if [ "$offline" = yes ]; then
  # pip runs out of its own wheel: Debian's python3-venv (ensurepip) is not needed.
  "$python" -m venv --without-pip $site .venv.part || fail 3 "cannot make a virtual environment: sudo apt install python3-venv"
else
  "$python" -m venv $site .venv.part || fail 3 "cannot make a virtual environment: sudo apt install python3-venv"
fi

pip() {
  if [ "$offline" = yes ]; then
    wheel=$(ls wheels/pip-*.whl)
    .venv.part/bin/python "$wheel/pip" --disable-pip-version-check -q install --no-compile --no-index --find-links wheels "$@"
  else
    .venv.part/bin/python -m pip --disable-pip-version-check -q install --no-compile "$@"
  fi
}

works() { # does this engine run a model here? Wheel tags promise more than the libraries keep.
  .venv.part/bin/python edgec-agent.pyz check-engine "$1" 2>/dev/null | grep -q '"works": true'
}

try() { # try ENGINE REQUIREMENT...
  engine=$1
  shift
  say "installing $*"
  pip "$@" || return 1
  works "$engine" && return 0
  say "$1 is installed and does not work here: $(.venv.part/bin/python edgec-agent.pyz check-engine "$engine" 2>/dev/null)"
  return 1
}

# engines.txt: architecture, Python, engine, requirements; the first line that works is taken, per format.
candidates() { # candidates FORMAT -> "engine requirement..." lines
  case $1 in onnx) wanted=onnxruntime ;; *) wanted='litert tflite-runtime' ;; esac
  for name in $wanted; do
    awk -v a="$arch" -v p="$version" -v e="$name" '$1 == a && $2 == p && $3 == e { $1 = $2 = ""; print }' engines.txt
  done
}

installed=
for format in $formats; do
  found=no
  candidates "$format" >.candidates
  while read -r line; do
    # shellcheck disable=SC2086
    if try $line </dev/null; then found=yes; break; fi
  done <.candidates
  rm -f .candidates
  if [ "$found" = yes ]; then
    installed="$installed $format"
  elif [ "$arch-$format" = armv7l-onnx ]; then
    say "onnxruntime has no wheel for 32-bit Arm: the .onnx files cannot run here"
  else
    say "no engine for .$format files is known to work with Python $version on $arch"
  fi
done
[ -n "$installed" ] || fail 3 "nothing of this bundle can run here; see README.md, 'Systems'"
if [ "$arch" != armv7l ]; then
  pip pillow || say "no Pillow: pictures cannot be read, .npy and .npz can"
fi
rm -rf .venv
mv .venv.part .venv
printf %s "$stamp" >.venv/.stamp
finish

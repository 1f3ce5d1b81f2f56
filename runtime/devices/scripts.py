"""The shell scripts that run on a device: POSIX sh and coreutils, each safe to run twice."""

from __future__ import annotations

import shlex

ROOT = '"$HOME"/.cache/edgec'
_LOCK = f"{ROOT}/lock"

# Prepare the folder, print its absolute path, drop what nobody used for two weeks and what a dead host left.
# Nobody else may enter it, so that what was checked there stays what it was.
PREPARE = f"""
umask 077
mkdir -p {ROOT} && cd {ROOT} || exit 1
[ -O . ] || {{ echo '~/.cache/edgec there belongs to another user' >&2; exit 1; }}
chmod 700 . && mkdir -p files jobs tmp && pwd || exit 1
find files -mindepth 1 -maxdepth 1 -mtime +14 -exec rm -rf {{}} + 2>/dev/null
find files -name '*.part*' -mmin +60 -exec rm -f {{}} + 2>/dev/null
find tmp jobs -mindepth 1 -maxdepth 1 -mtime +2 -exec rm -rf {{}} + 2>/dev/null
true
"""

# The first Python of 3.8 or later that has an engine, else the first: the system's own, those of deployed bundles (the latest
# first), and those that a system too old for the engines has beside its own (JetPack 4).
FIND_PYTHON = """
suitable='import sys, importlib.util as u
if sys.version_info < (3, 8): sys.exit(1)
sys.exit(0 if any(u.find_spec(n) for n in ("onnxruntime", "ai_edge_litert", "tflite_runtime")) else 3)'
first=
bundles=$(ls -td "$HOME"/edgec-bundles/*/.venv/bin/python 2>/dev/null)
set -f
IFS='
'
for python in python3 $bundles python3.10 python3.9 python3.8; do
  path=$(command -v "$python") || continue
  "$path" -c "$suitable" 2>/dev/null
  case $? in
    0) printf %s "$path"; exit 0 ;;
    3) first=${first:-$path} ;;
  esac
done
[ -n "$first" ] && printf %s "$first"
"""


def present(remote: str, digest: str) -> str:
    """Whether the file is there and is still what was uploaded; mark it as used."""
    quoted = shlex.quote(remote)
    same = f'[ "$(sha256sum <{quoted} | cut -c1-64)" = {digest} ]'
    return f'[ -f {quoted} ] && {same} && touch {quoted} "$(dirname {quoted})"'


def upload(remote: str, digest: str, part: str, seconds: float) -> str:
    """Take stdin as ``remote``: under another name, checked, then renamed; never half of it.

    A try whose link broke may still hang in ``cat`` on the device: the next try ends it by its recorded pid.
    """
    target, partial, pid = shlex.quote(remote), shlex.quote(part), shlex.quote(part + ".pid")
    return f"""
mkdir -p "$(dirname {target})" || exit 1
if [ -f {pid} ]; then kill -KILL "$(cat {pid})" 2>/dev/null; rm -f {partial} {pid}; fi
timeout -k 5 {seconds:.0f} sh -c 'echo $$ >"$0"; exec cat' {pid} >{partial} &&
  [ "$(sha256sum <{partial} | cut -c1-64)" = {digest} ] && mv -f {partial} {target}
code=$?
rm -f {partial} {pid}
exit $code
"""


# Whether the leader of the job in this folder lives; its start time guards against a number used again.
_ALIVE = """
alive() {
  pid=$(cat pid 2>/dev/null) && [ -n "$pid" ] || return 1
  now=$(cut -d' ' -f22 "/proc/$pid/stat" 2>/dev/null)
  [ -n "$now" ] && [ "$now" = "$(cat born)" ]
}
"""


def start(job: str, command: str, seconds: float, wait: float | None, owner: str) -> str:
    """Start ``command`` as a session of its own with its output, pid, and at the end exit code in jobs/<job>.

    With ``wait`` it first takes the device's lock, which the kernel frees however the job ends; exit code 75
    when it is not free within so many seconds.
    """
    body = f"timeout --foreground -k 5 {seconds:.0f} {command} </dev/null >>out 2>>err 9>&-\ncode=$?"
    if wait is not None:
        body = f"""code=75
exec 9>>{_LOCK}
waiting() {{
  echo "waiting up to {wait:.0f} s: $(cat {_LOCK}.owner 2>/dev/null || echo another run) measures on it" >>err
  flock -w {wait:.0f} 9
}}
if flock -n 9 || waiting; then
printf '%s since %s' {shlex.quote(owner)} "$(date +%H:%M:%S)" >{_LOCK}.owner
{body}
fi"""
    runner = f"""{body}
echo $code >rc.part && mv rc.part rc
trap '' TERM
kill -TERM 0
"""
    return f"""
cd {ROOT}/jobs || exit 1
mkdir {job} 2>/dev/null || sleep 1
[ -s {job}/pid ] && exit 0
cd {job} && : >out && : >err && printf %s {shlex.quote(runner)} >run.sh || exit 1
setsid sh run.sh </dev/null >/dev/null 2>&1 &
cut -d' ' -f22 /proc/$!/stat >born
echo $! >pid.part && mv pid.part pid
"""


def poll(job: str) -> str:
    """Print 'done CODE', 'running', or 'gone', and on the next line the last line of the job's stderr."""
    return f"""{_ALIVE}
cd {ROOT}/jobs/{job} 2>/dev/null || {{ echo gone; exit 0; }}
if alive; then state=running; else state=gone; fi
[ -f rc ] && state="done $(cat rc)"
echo "$state"
tail -c 400 err | tail -n 1
"""


def stop(job: str) -> str:
    """End the job's whole group, gently and then not, and remove its files."""
    return f"""{_ALIVE}
cd {ROOT}/jobs/{job} 2>/dev/null || exit 0
pid=$(cat pid 2>/dev/null)
if alive || [ ! -f rc ]; then
  kill -TERM "-$pid" 2>/dev/null
  for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do kill -0 "-$pid" 2>/dev/null || break; sleep 0.2; done
  kill -KILL "-$pid" 2>/dev/null
fi
cd .. && rm -rf {job}
"""

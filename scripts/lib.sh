# shellcheck shell=bash
# What every script here has in common. Sourced; leaves the shell in the top
# directory of the tree.
set -euo pipefail
shopt -s inherit_errexit

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export HOME=${HOME:-/root} LC_ALL=C.UTF-8

# What takes long to make and does not belong to one work tree: runsc, the
# development tools, Node. Golden images are kept where ANTEROOM_IMAGE_DIR says.
export ANTEROOM_CACHE=${ANTEROOM_CACHE:-/var/cache/anteroom}

made=bin/.made # which content each thing in bin/ was made from
logs=bin/log   # what the programs that a step ran have printed
mkdir -p "$made" "$logs"

# The race detector also checks every pointer conversion. SQLite, translated from
# C, consists of them: looking at those costs more than all else in the tests
# together, and they are not ours.
# shellcheck disable=SC2034 # build.sh and test.sh use it
race_flags=(-race '-gcflags=modernc.org/...=-d=checkptr=0')

say() { printf '%s\n' "$*" >&2; }

die() {
  say "anteroom: $*"
  exit 1
}

# digest PATH...: a hash of the names and contents of all files below.
digest() {
  find "$@" -type f -print0 | sort -z | xargs -0 sha256sum | key
}

# key: a short hash of standard input.
key() { sha256sum | cut -c1-24; }

# is_made NAME KEY: whether NAME was made from what has this key.
is_made() { [[ -f $made/$1 && $(<"$made/$1") == "$2" ]]; }

# now_made NAME KEY: notes that it has been.
now_made() { printf '%s\n' "$2" >"$made/$1"; }

# seconds_since TIME: with one digit behind the point; TIME is in microseconds.
seconds_since() {
  local tenths=$(((${EPOCHREALTIME//[.,]/} - $1) / 100000))
  printf '%d.%d' $((tenths / 10)) $((tenths % 10))
}

step_job=
stop_step() {
  [[ -n $step_job ]] || return 0
  kill -- "-$step_job" 2>/dev/null || true
  [[ ! -t 2 ]] || say "" # the line that counted
  step_job=
}
trap stop_step EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# step NAME COMMAND...: runs one long step as internal/steps shows them: on a
# terminal a line that counts the seconds and ends in the program's last line,
# elsewhere a line at the start and one at the end. What the command prints goes
# to a file, which is named, with its end, if the command fails.
step() {
  local name=$1 began=${EPOCHREALTIME//[.,]/} log status=0 tail
  log=$logs/$(tr -cs 'a-zA-Z0-9.\n' - <<<"$name").log
  shift
  # A process group of its own, so that it can be ended with all its children.
  set -m
  "$@" >"$log" 2>&1 </dev/null &
  step_job=$!
  set +m
  if [[ -t 2 ]]; then
    while kill -0 "$step_job" 2>/dev/null; do
      tail=$(tail -c 400 "$log" | tr '\r' '\n' | tr -cd '[:print:]\n' | sed '/^ *$/d' | tail -n 1 | cut -c1-50)
      printf '\r\e[K· %-44s %7s s  %s' "$name" "$(seconds_since "$began")" "$tail" >&2
      sleep 0.2
    done
    printf '\r\e[K' >&2
  else
    say "· $name …"
  fi
  wait "$step_job" || status=$?
  step_job=
  if ((status == 0)); then
    printf '✓ %-44s %7s s\n' "$name" "$(seconds_since "$began")" >&2
    return 0
  fi
  printf '✗ %-44s %7s s  exit code %d; the end of %s:\n' "$name" "$(seconds_since "$began")" "$status" "$log" >&2
  tail -n "${STEP_TAIL:-20}" "$log" | sed 's/^/    /' >&2
  return "$status"
}

# locked COMMAND...: runs it while no other work tree fills the cache.
locked() {
  mkdir -p "$ANTEROOM_CACHE"
  (
    flock 9
    "$@"
  ) 9>"$ANTEROOM_CACHE/build.lock"
}

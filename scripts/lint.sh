#!/usr/bin/env bash
# All static checks. Every one is run, whatever the others found; the exit code
# says whether any found something. `make lint` makes what is needed first.
. "$(dirname "$0")/lib.sh"
. scripts/env.sh
. scripts/tools.sh

export STEP_TAIL=100
failed=()
check() { step "$@" || failed+=("$1"); }

# tracked lists the files of this commit, and those that will be of the next.
tracked() { git -c safe.directory="$PWD" ls-files -z --cached --others --exclude-standard "$@"; }

format() {
  local found
  found=$(tracked '*.go' | xargs -0 gofmt -l) || return
  [[ -z $found ]] || {
    printf 'gofmt -w would change these:\n%s\n' "$found"
    return 1
  }
}

modules() {
  local dir
  go mod verify || return
  for dir in . tools/runsc tools/dev tools/firecracker-api; do
    (cd "$dir" && GOFLAGS='' go mod tidy -diff) || return
  done
}

shell_scripts() { tracked '*.sh' .ci/run test/firecracker-in-qemu | xargs -0 shellcheck --external-sources --source-path=SCRIPTDIR; }

# refuse PATTERN REASON [PATHSPEC...]: no tracked file may have such a line.
refuse() {
  local pattern=$1 reason=$2
  shift 2
  if git -c safe.directory="$PWD" grep --untracked -nIE "$pattern" -- "$@"; then
    printf '^ %s\n\n' "$reason"
    return 1
  fi
}

# tree finds what has no place in a commit.
tree() {
  local status=0 big
  refuse '"resolved": *"https?:|GOPROXY=https?:|^deb +https?:|registry *[=:] *["'\'']?https?:' \
    'addresses of package registries: the machine that builds knows its own' . || status=1
  refuse '(^|[^A-Za-z0-9_.])/(work|farm)/[a-z.]|/tmp/[a-z]/' 'paths of one machine' . ':!*.sum' || status=1
  refuse '\b(TODO|FIXME|XXX|HACK)\b' 'left for later' '*.go' '*.ts' '*.tsx' '*.sh' Makefile ':!scripts/lint.sh' || status=1
  refuse 'time\.Sleep\([^/]*(/[^/]*)?$' 'a sleep waits for nothing: use a channel, or say that the clock is fake' '*_test.go' || status=1
  big=$(tracked | xargs -0 stat -c '%s %n' 2>/dev/null | awk '$1 > 1048576')
  if [[ -n $big ]]; then
    printf '%s\n^ larger than 1 MiB\n' "$big"
    status=1
  fi
  return $status
}

# vulnerabilities sets status to that of govulncheck: 3 says that it found some.
# Without its database nothing has been checked, which must not go unseen, but
# is no fault of this tree.
vulnerabilities() {
  local status=0
  govulncheck ./... || status=$?
  ((status == 0 || status == 3)) || touch "$logs/not-checked"
  ((status != 3))
}

get_go
get_node
get_tools
export GOFLAGS=''

check "gofmt" format
check "go vet" go vet ./...
check "golangci-lint" golangci-lint run
check "go mod verify, tidy" modules
check "shellcheck" shell_scripts
check "What has no place in a commit" tree
check "eslint" npm --prefix ui run lint
check "tsc" npm --prefix ui run typecheck
rm -f "$logs/not-checked"
check "govulncheck" vulnerabilities
[[ ! -f $logs/not-checked ]] ||
  say "! KNOWN VULNERABILITIES WERE NOT LOOKED FOR: govulncheck cannot reach its database from here"

if ((${#failed[@]})); then
  say "lint: failed: $(printf '%s; ' "${failed[@]}")"
  exit 1
fi

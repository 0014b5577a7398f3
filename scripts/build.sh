#!/usr/bin/env bash
# Builds what is named, where it is not there yet or its sources have changed:
#
#   build.sh page      internal/web/dist, which the program embeds
#   build.sh guest     bin/anteroom-guest, the agent inside of the machines, and
#                      bin/anteroom-screen beside it, which encodes their screens
#   build.sh program   bin/anteroom
#   build.sh demo      bin/anteroom-demo, which `anteroom demo` runs; it holds the
#                      test identity provider
#   build.sh race      bin/race, all of them with an anteroom that looks for data
#                      races: the one under test
#   build.sh runsc     bin/runsc, gVisor's, as pinned in tools/runsc
#
# What something was made from is known by content, not by times: a fresh clone
# of the same commit gives the same bytes, and touching a file rebuilds nothing.
. "$(dirname "$0")/lib.sh"
. scripts/env.sh

go_build() {
  # Without cgo and without paths or a commit of this work tree in it: the same
  # sources give the same bytes anywhere.
  CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOFLAGS='' go build -trimpath -buildvcs=false "$@"
}

# --- the page ---------------------------------------------------------------

install_modules() {
  local wanted
  wanted=$(cat ui/package.json ui/package-lock.json | key)
  [[ -f ui/node_modules/.anteroom && $(<ui/node_modules/.anteroom) == "$wanted" ]] && return
  step "Installing the page's npm packages" npm --prefix ui ci --ignore-scripts --no-audit --no-fund
  printf '%s\n' "$wanted" >ui/node_modules/.anteroom
}

page_sources() {
  find ui -name node_modules -prune -o -path ui/shots -prune -o -path ui/test -prune \
    -o -type f ! -name schema.d.ts -print0 | sort -z | xargs -0 sha256sum
  sha256sum api/openapi.yaml
}

build_page() {
  local wanted
  wanted=$(page_sources | key)
  [[ -f internal/web/dist/index.html ]] && is_made page "$wanted" && return
  get_node
  install_modules
  step "Building the page" npm --prefix ui run build
  now_made page "$wanted"
}

# --- the programs -----------------------------------------------------------

# go_build_static: with cgo, and nothing of the machine that builds in it but the
# static libraries of its Debian packages. The guest's system is another.
go_build_static() {
  CGO_ENABLED=1 GOOS=linux GOARCH=amd64 GOFLAGS='' go build -trimpath -buildvcs=false -tags netgo,osusergo \
    -ldflags '-s -w -linkmode external -extldflags "-static -Wl,--build-id=none"' "$@"
}

# agent_id identifies what host and guest must have in common: a hash of the
# agent's sources and of the modules it is built with.
agent_id() {
  local files=() modules
  # shellcheck disable=SC2016 # the dollar signs are the template's
  mapfile -t files < <(CGO_ENABLED=0 GOOS=linux GOARCH=amd64 GOFLAGS='' go list -deps -f '{{if .Module}}{{if .Module.Main}}{{$d := .Dir}}{{range .GoFiles}}{{$d}}/{{.}}
{{end}}{{range .EmbedFiles}}{{$d}}/{{.}}
{{end}}{{end}}{{end}}' ./cmd/anteroom-guest | sed '/^$/d')
  modules=$(GOFLAGS='' go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}}{{end}}{{end}}' ./cmd/anteroom-guest | sort -u)
  {
    printf '%s\n' "${files[@]#"$PWD/"}" | sort | xargs -d '\n' sha256sum
    # The line of go.sum is the hash of the module's contents.
    printf '%s\n' "$modules" | sed '/^$/d' | grep -Fwf - go.sum | grep -v '/go.mod h1:'
  } | key
}

version() {
  git -c safe.directory="$PWD" describe --tags --always --dirty 2>/dev/null || echo devel
}

linker_flags() {
  printf -- '-s -w -X github.com/anteroom/anteroom/internal/buildinfo.id=%s' "$1"
}

# both programs' sources, but for the page
program_sources() {
  find cmd internal -path internal/web/dist -prune -o -type f ! -name '*_test.go' -print0 | sort -z | xargs -0 sha256sum
  sha256sum go.mod go.sum
  declare -f go_build linker_flags agent_id
  go version
}

build_guest() {
  local sources=$1 id
  [[ -x bin/anteroom-guest && -f $made/agent-id ]] && is_made guest "$sources" && return
  get_go
  download_modules
  id=$(agent_id)
  # Only its id, no version: an agent that has not changed is the same file in
  # the next commit, and the golden image stays as it is.
  step "Building the guest agent" go_build -ldflags "$(linker_flags "$id")" -o bin/anteroom-guest ./cmd/anteroom-guest
  printf '%s\n' "$id" >"$made/agent-id"
  now_made guest "$sources"
}

screen_sources() {
  find cmd/anteroom-screen internal/screen internal/guestapi internal/guest/rfb internal/line internal/provider \
    -type f ! -name '*_test.go' -print0 | sort -z | xargs -0 sha256sum
  sha256sum go.mod go.sum
  declare -f go_build_static
  go version
  gcc --version
  dpkg-query -W -f '${Package}=${Version}\n' libc6-dev libvpx-dev libyuv-dev
}

build_screen() {
  local wanted
  wanted=$(screen_sources | key)
  [[ -x bin/anteroom-screen ]] && is_made screen "$wanted" && return
  get_go
  download_modules
  step "Building the guest's screen encoder" go_build_static -o bin/anteroom-screen ./cmd/anteroom-screen
  now_made screen "$wanted"
}

build_program() {
  local sources=$1 version wanted
  version=$(version)
  wanted=$(printf '%s %s %s' "$sources" "$version" "$(digest internal/web/dist)" | key)
  [[ -x bin/anteroom ]] && is_made program "$wanted" && return
  get_go
  step "Building anteroom" go_build \
    -ldflags "$(linker_flags "$(<"$made/agent-id")") \
    -X github.com/anteroom/anteroom/internal/buildinfo.version=$version" \
    -o bin/anteroom ./cmd/anteroom
  now_made program "$wanted"
}

# build_race: the other programs are the same.
build_race() {
  local sources=$1 wanted name
  wanted=$({ printf '%s %s %s' "$sources" "$(digest internal/web/dist)" "${race_flags[*]}" && declare -f build_race; } | key)
  mkdir -p bin/race
  for name in anteroom-guest anteroom-screen anteroom-demo runsc; do ln -sfn "../$name" "bin/race/$name"; done
  [[ -x bin/race/anteroom ]] && is_made race "$wanted" && return
  get_go
  CGO_ENABLED=1 GOFLAGS='' step "Building anteroom with the race detector" go build "${race_flags[@]}" -buildvcs=false \
    -ldflags "-X github.com/anteroom/anteroom/internal/buildinfo.id=$(<"$made/agent-id")" -o bin/race/anteroom ./cmd/anteroom
  now_made race "$wanted"
}

# build_demo: it holds the test identity provider, and is not needed to serve.
build_demo() {
  local wanted
  wanted=$({
    program_sources
    find test -type f ! -name '*_test.go' -print0 | sort -z | xargs -0 sha256sum
  } | key)
  [[ -x bin/anteroom-demo ]] && is_made demo "$wanted" && return
  get_go
  download_modules
  step "Building the demo" go_build -ldflags '-s -w' -o bin/anteroom-demo ./cmd/anteroom-demo
  now_made demo "$wanted"
}

# download_modules gets the modules that the programs are built from.
download_modules() {
  GOPROXY=off list_all >/dev/null 2>&1 || step "Getting the Go modules" list_all
}

list_all() { CGO_ENABLED=0 GOFLAGS='' go list -deps ./cmd/...; }

# --- gVisor -----------------------------------------------------------------

runsc_version() { sed -n 's/^require gvisor.dev\/gvisor \(v[^ ]*\).*/\1/p' tools/runsc/go.mod; }

make_runsc() {
  local target=$1
  [[ ! -x $target ]] || return 0
  # Static: a dynamic runsc cannot run itself again in its chroot.
  (cd tools/runsc && go_build -ldflags "-X gvisor.dev/gvisor/runsc/version.version=$(cd ../.. && runsc_version)" -o "$target.new" .)
  mv "$target.new" "$target"
}

build_runsc() {
  local wanted target
  wanted=$({ cat tools/runsc/{go.mod,go.sum,main.go} && declare -f go_build make_runsc; } | key)
  [[ -x bin/runsc ]] && is_made runsc "$wanted" && return
  get_go
  target=$ANTEROOM_CACHE/runsc-$wanted
  [[ -x $target ]] || step "Building gVisor's runsc" locked make_runsc "$target"
  cp "$target" bin/runsc.new
  mv bin/runsc.new bin/runsc
  now_made runsc "$wanted"
}

# ----------------------------------------------------------------------------

build() {
  local sources
  case $1 in
  page) build_page ;;
  runsc) build_runsc ;;
  guest | program | race)
    get_go
    sources=$(program_sources | key)
    build_guest "$sources"
    build_screen
    [[ $1 != program ]] || build_program "$sources"
    [[ $1 != race ]] || build_race "$sources"
    ;;
  demo)
    get_go
    build_demo
    ;;
  *) die "build.sh: there is no $1 to build" ;;
  esac
}

for what; do build "$what"; done

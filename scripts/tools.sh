# shellcheck shell=bash
# The development tools, built as tools/dev pins them. Sourced after env.sh.

# get_tools builds golangci-lint, gotestsum and govulncheck, if they are not in
# the cache, and puts them into PATH.
get_tools() {
  local dir name
  get_go
  dir=$ANTEROOM_CACHE/tools-$(cat tools/dev/go.mod tools/dev/go.sum <(go version) | key)
  for name in gotestsum golangci-lint govulncheck; do
    [[ -x $dir/$name ]] || step "Building $name" locked make_tool "$dir" "$name"
  done
  PATH=$dir:$PATH
}

make_tool() {
  local dir=$1 name=$2 package
  [[ ! -x $dir/$name ]] || return 0
  package=$(sed -n "s|^\t\(.*/$name\)\$|\1|p" tools/dev/go.mod)
  mkdir -p "$dir"
  (cd tools/dev && CGO_ENABLED=0 GOFLAGS='' go build -trimpath -ldflags '-s -w' -o "$dir/$name.new" "$package")
  mv "$dir/$name.new" "$dir/$name"
}

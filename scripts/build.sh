#!/usr/bin/env bash
# Builds what is named, where it is not there yet or its sources have changed:
#
#   build.sh page      internal/web/dist, which the program embeds
#   build.sh guest     bin/anteroom-guest, the agent inside of the machines
#   build.sh program   bin/anteroom
#   build.sh demo      bin/anteroom-demo, which holds the test identity provider
#   build.sh runsc     bin/runsc, gVisor's, as pinned in tools/runsc
#   build.sh demo      bin/anteroom-demo, which `anteroom demo` runs
#
# What something was made from is known by content, not by times: a fresh clone
# of the same commit gives the same bytes, and touching a file rebuilds nothing.
. "$(dirname "$0")/lib.sh"
. scripts/env.sh

go_build() {
  local sources
  case $1 in
  page) build_page ;;
  runsc) build_runsc ;;
  guest | program)
    get_go
    sources=$(program_sources | key)
    build_guest "$sources"
    [[ $1 == guest ]] || build_program "$sources"
    ;;
  demo)
    get_go
    build_demo
    ;;
  *) die "build.sh: there is no $1 to build" ;;
  esac
}

for what; do build "$what"; done

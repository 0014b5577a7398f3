#!/usr/bin/env bash
# Installs the Debian packages that are missing, Go and Node where the machine's
# own are too old. Does nothing, and does not ask apt, where nothing is missing.
#
#   setup.sh run|test|bench
. "$(dirname "$0")/lib.sh"
. scripts/env.sh

for_what=${1:-run}

# missing: the packages of the list that are not there.
missing() {
  local -A installed=()
  local set package program
  while read -r package; do
    installed[${package%%:*}]=1
  done < <(dpkg-query -W -f '${Package}:${db:Status-Status}\n' 2>/dev/null | grep ':installed$')
  while read -r set package program; do
    [[ $set == run || ($set == test && $for_what != run) || $set == "$for_what" ]] || continue
    [[ -n ${installed[$package]:-} ]] && continue
    [[ -n $program ]] && command -v "$program" >/dev/null && continue
    printf '%s\n' "$package"
  done < <(sed 's/#.*//' scripts/packages.txt)
}

apt() {
  # Never a question: not by debconf, not about changed files, not by Ubuntu's
  # needrestart.
  env DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=a NEEDRESTART_SUSPEND=1 apt-get \
    -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold "$@"
}

[[ $(uname -sm) == 'Linux x86_64' ]] || die "this needs Linux on x86-64; here is $(uname -sm)"
command -v dpkg-query >/dev/null || die "this needs Debian 12 or later, or Ubuntu 22.04 or later"

mapfile -t packages < <(missing)
if ((${#packages[@]})); then
  ((EUID == 0)) || die "these packages are missing, and only root can install them: ${packages[*]}"
  step "Reading the lists of Debian packages" apt update
  step "Installing ${#packages[@]} Debian packages" apt install -y --no-install-recommends "${packages[@]}"
fi

get_go
get_node

#!/usr/bin/env bash
# Builds the golden image, where there is none that fits the programs in bin/.
. "$(dirname "$0")/lib.sh"
. scripts/env.sh

get_node # the image's tools come from npm
bin/anteroom image build >"$logs/image.log"

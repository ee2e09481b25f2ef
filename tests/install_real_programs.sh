#!/usr/bin/env bash
# Install every program that the tests put between a client and a server, so that none is skipped. mitmproxy asks for
# other versions of what leadlex stands on: it has an environment of its own, at the place given or among one's caches.
set -euo pipefail

place=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/leadlex/mitmproxy}

missing=()
for program in nginx haproxy squid; do
    PATH=$PATH:/usr/local/sbin:/usr/sbin command -v "$program" > /dev/null || missing+=("$program")
done
if [ ${#missing[@]} -gt 0 ]; then
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    $as_root apt-get update
    $as_root apt-get install --yes --no-install-recommends "${missing[@]/#nginx/nginx-light}"
fi

[ -x "$place/bin/mitmdump" ] || { python3 -m venv "$place" && "$place/bin/pip" install --quiet mitmproxy; }
echo "export LEADLEX_TEST_MITMDUMP=$place/bin/mitmdump"

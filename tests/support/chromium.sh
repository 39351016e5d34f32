# Prints where Chromium is: that of PATH, or Debian's package `chromium`, which is installed with apt if this is root.
# Used by suites that drive a browser; exits with 1 and the reason when there is none.
set -euo pipefail

fail() {
  echo "chromium: $*" >&2
  exit 1
}

find_chromium() { command -v chromium || command -v chromium-browser || command -v google-chrome; }

if ! chromium=$(find_chromium); then
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || fail "chromium is not installed"
  install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium >/dev/null 2>&1; }
  install || { apt-get update >/dev/null 2>&1 && install; } || fail "apt cannot install the package chromium"
  chromium=$(find_chromium) || fail "the package chromium has no chromium"
fi
echo "$chromium"

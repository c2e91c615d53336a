#!/usr/bin/env bash
# Installs the Debian packages that tests start servers and a browser from, where that is allowed. Tests that lack them
# are skipped, so this says what it could not do and does not fail. Quick when everything is there.
set -uo pipefail

packages=(
  python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-rtsp
  gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
  chromium chromium-driver
)

if ! command -v dpkg-query apt-get >/dev/null; then
  echo "no Debian packages here: tests that want ${packages[*]} are skipped"
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! sudo --non-interactive true 2>/dev/null; then
    echo "not root: tests that want ${missing[*]} are skipped"
    exit 0
  fi
  as_root=(sudo --non-interactive)
fi

# Ubuntu's chromium is a snap behind a package of that name: what one package cannot have, the others still get.
install() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install --yes --quiet=2 \
    --no-install-recommends "$@" >/dev/null
}
"${as_root[@]}" apt-get -o DPkg::Lock::Timeout=600 update --quiet=2
if ! install "${missing[@]}"; then
  for package in "${missing[@]}"; do
    install "$package" || echo "$package could not be installed: tests that want it are skipped"
  done
fi
exit 0

#!/bin/sh
# Install what tests need from Debian, where it is missing: the browser that a test opens the
# report in, and for root (a container) an ssh server, which would begin to listen elsewhere.
set -eu
missing=
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
if [ "$(id -u)" = 0 ]; then
  sudo=
  [ -x /usr/sbin/sshd ] || missing="$missing openssh-server"
  command -v ssh >/dev/null 2>&1 || missing="$missing openssh-client"
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
  sudo=sudo
elif [ -n "$missing" ]; then
  echo "setup: a test opens a page in a browser. Install one, then run make again:" >&2
  echo "    sudo apt-get update && sudo apt-get install -y chromium" >&2
  exit 1
fi
[ -n "$missing" ] || exit 0
echo "setup: installing$missing with apt, for the tests"
$sudo apt-get update -qq
# shellcheck disable=SC2086  # one word a package
DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends $missing >/dev/null

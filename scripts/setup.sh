#!/bin/sh
# Install what the checkout needs, and nothing twice: uv (with pip), a GL library (with apt), and
# the locked packages. Prints only what it does.
set -eu
cd "$(dirname "$0")/.."

if command -v uv >/dev/null 2>&1; then
  uv=uv
else
  uv=.tools/bin/uv
  if [ ! -x "$uv" ]; then
    echo "setup: installing uv into .tools with pip"
    python3 -m venv .tools
    .tools/bin/pip install --quiet --disable-pip-version-check uv
  fi
fi

if ! ldconfig -p 2>/dev/null | grep -qE 'libOSMesa\.so|libEGL\.so'; then
  install="apt-get install -y libosmesa6"
  if [ "$(id -u)" = 0 ]; then
    sudo=
  elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    sudo=sudo
  else
    echo "setup: MuJoCo needs a GL library to render. Install one, then run make again:" >&2
    echo "    sudo apt-get update && sudo $install" >&2
    exit 1
  fi
  echo "setup: installing libosmesa6 (software rendering for MuJoCo) with apt"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo $install -qq >/dev/null
fi

$uv sync --quiet --frozen --extra engine

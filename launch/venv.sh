# shellcheck shell=bash
# Sets up .venv from nothing and leaves $python pointing into it. Sourced by the other scripts.
#
#   PYTHON=python3.12 bash launch/test.sh     another interpreter for a new .venv

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

fail() {
  echo "launch: error: $*" >&2
  exit 78
}

python=.venv/bin/python
extras=prep,test
wanted="$extras $(cat setup.cfg setup.py pyproject.toml | sha256sum | cut -c1-16)"

if [ ! -x "$python" ] || [ "$(cat .venv/installed 2>/dev/null)" != "$wanted" ]; then
  base=${PYTHON:-python3}
  command -v "$base" >/dev/null || fail "no $base; install Python 3.11 or newer (Debian: apt install python3 python3-venv)"
  "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$base" --version) is too old; Python 3.11 or newer is needed (set PYTHON to one)"
  "$base" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$base cannot make a virtual environment (Debian: apt install python3-venv)"
  echo "launch: installing into .venv"
  # An interruption may have left a Python without pip.
  "$python" -m pip --version >/dev/null 2>&1 || "$base" -m venv .venv ||
    fail "could not make .venv"
  "$python" -m pip install --quiet --disable-pip-version-check -e ".[$extras]" ||
    fail "pip could not install .[$extras]; its own message stands above"
  echo "$wanted" >.venv/installed
fi

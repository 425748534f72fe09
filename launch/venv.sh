# shellcheck shell=bash
# Sets up .venv from nothing and leaves $python pointing into it. Sourced by the other scripts.
#
#   PYTHON=python3.12 bash launch/test.sh   another interpreter for a new .venv
#   PEERS=1 bash launch/test.sh             also the projects that we compare with (also if CI is set)

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit

fail() {
  echo "launch: error: $*" >&2
  exit 78
}

python=.venv/bin/python
extras=prep,test,docs
[ -z "${PEERS-}${CI-}" ] || extras+=,peers
inputs=$(cat setup.cfg setup.py pyproject.toml | sha256sum | cut -c1-16)

# install EXTRAS [PIP ARGUMENT…]
install() { "$python" -m pip install --disable-pip-version-check -e ".[$1]" "${@:2}"; }

# PyTorch's own index has builds for the CPU (0.2 GB), and 2.x+cpu ranks above the 2.x of any other
# index, which may bring CUDA (3 GB). pip passes over an index that it cannot reach.
install_with_peers() {
  echo "launch: the peers are large; pip names the size of each file before it takes it (PEERS= and CI= go without)"
  install "$extras" --extra-index-url https://download.pytorch.org/whl/cpu --timeout 10 --retries 1 |
    grep --line-buffered -E '[0-9] [MG]B\)|^Processing .*torch'
  [ "${PIPESTATUS[0]}" = 0 ]
}

case "$([ ! -x "$python" ] || cat .venv/installed 2>/dev/null)" in
  "$extras $inputs" | "$extras,peers $inputs") ;;
  *)
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
    if [[ $extras == *,peers ]] && ! install_with_peers; then
      echo "launch: no peers here (see above); the tests that need them skip" >&2
      extras=${extras%,peers}
    fi
    [[ $extras == *,peers ]] || install "$extras" --quiet ||
      fail "pip could not install .[$extras]; see its message above"
    echo "$extras $inputs" >.venv/installed
    ;;
esac

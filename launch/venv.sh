# shellcheck shell=bash
# Creates .venv if needed and sets $python to its interpreter. Sourced by the other scripts.
#
#   PYTHON=python3.12 bash launch/test.sh   creates a new .venv with another interpreter
#   PEERS=1 bash launch/test.sh             also installs the projects that we compare with (as CI=1)

cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
# shellcheck source=forward.sh
source launch/forward.sh

fail() {
  echo "launch: error: $*" >&2
  exit 78
}

python=.venv/bin/python
extras=prep,test,docs
[ -z "${PEERS-}${CI-}" ] || extras+=,peers
inputs=$(cat setup.cfg setup.py pyproject.toml | sha256sum | cut -c1-16)

# install EXTRAS [PIP ARGUMENT…]
install() { forward "$python" -m pip install --disable-pip-version-check -e ".[$1]" "${@:2}"; }

# PyTorch's own index has builds for the CPU (0.2 GB), and 2.x+cpu ranks above the 2.x of any other
# index, which may include CUDA (3 GB). pip ignores an index that it cannot reach.
install_with_peers() {
  echo "launch: installing the peers, which are large (to skip them, unset PEERS and CI)"
  install "$extras" --extra-index-url https://download.pytorch.org/whl/cpu --timeout 10 --retries 1 \
    > >(grep --line-buffered -E '[0-9] [MG]B\)|^Processing .*torch')
}

case "$([ ! -x "$python" ] || cat .venv/installed 2>/dev/null)" in
  "$extras $inputs" | "$extras,peers $inputs") ;;
  *)
    base=${PYTHON:-python3}
    command -v "$base" >/dev/null || fail "there is no $base; install Python 3.11 or newer (Debian: apt install python3 python3-venv), or set PYTHON"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      fail "$base is $("$base" --version), Python 3.11 or newer is needed; set PYTHON to one"
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "$base cannot create a virtual environment; install venv (Debian: apt install python3-venv)"
    echo "launch: installing into .venv"
    # An interruption may have left a Python without pip.
    "$python" -m pip --version >/dev/null 2>&1 || forward "$base" -m venv .venv ||
      fail "$base could not create .venv; see its message above"
    if [[ $extras == *,peers ]] && ! install_with_peers; then
      echo "launch: could not install the peers (see above); tests that need them are skipped" >&2
      extras=${extras%,peers}
    fi
    [[ $extras == *,peers ]] || install "$extras" --quiet ||
      fail "pip could not install .[$extras]; see its message above"
    echo "$extras $inputs" >.venv/installed
    ;;
esac

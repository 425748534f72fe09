# shellcheck shell=bash
# Creates .venv if needed and sets $python to its interpreter. Sourced by the other scripts.
#
#   PYTHON=python3.12 bash launch/test.sh   creates a new .venv with another interpreter
#   PEERS=1 bash launch/test.sh             also installs the projects that we compare with (as CI=1)
#   RFXRAY_VENV=DIR bash launch/test.sh     puts it into DIR, such as for a checkout that is read-only
#
# Needs bash and Python, and no tool of GNU or Linux. After a change of setup.cfg it installs again;
# without a network it goes on if every requirement holds.

# absolute PATH: the path, seen from where the caller stands
absolute() { case $1 in /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac }

fail() {
  echo "launch: error: $*" >&2
  exit 78
}

venv=.venv checkout=.
if [ -n "${RFXRAY_VENV-}" ]; then
  venv=$(absolute "$RFXRAY_VENV") checkout=$(absolute "$RFXRAY_VENV")/checkout
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
# shellcheck source=forward.sh
source launch/forward.sh

# Of another environment: they would hide packages of this one, or install elsewhere.
unset PYTHONHOME PYTHONPATH PIP_USER PIP_TARGET PIP_PREFIX PIP_ROOT PIP_NO_DEPS PIP_DRY_RUN

python=$venv/bin/python
extras=prep,test,docs
[ -z "${PEERS-}${CI-}" ] || extras+=,peers

# digest PYTHON: of what decides about the installation
digest() {
  "$1" -c 'import hashlib, sys
print(hashlib.sha256(b"".join(open(name, "rb").read() for name in sys.argv[1:])).hexdigest()[:16])' \
    setup.cfg setup.py pyproject.toml 2>/dev/null
}

# install EXTRAS [PIP ARGUMENT…]
install() {
  forward "$python" -m pip install --disable-pip-version-check -e "${checkout}[$1]" "${@:2}"
}

# PyTorch's own index has builds for the CPU (0.2 GB), and 2.x+cpu ranks above the 2.x of any other
# index, which may include CUDA (3 GB). pip ignores an index that it cannot reach.
install_with_peers() {
  echo "launch: installing the peers, which are large (to skip them, unset PEERS and CI)"
  install "$extras" --extra-index-url https://download.pytorch.org/whl/cpu --timeout 10 --retries 1 \
    > >(grep --line-buffered -E '[0-9] [MG]B\)|^Processing .*torch')
}

# Whether rfxray and everything that setup.cfg asks for are installed; names what is not.
requirements_hold() {
  "$python" - "$extras" <<'EOF'
import configparser
import sys
from importlib.metadata import PackageNotFoundError, version

try:
    from packaging.requirements import Requirement
except ImportError:
    from pip._vendor.packaging.requirements import Requirement

package = configparser.ConfigParser()
package.read("setup.cfg", encoding="utf-8")
lines = package["options"]["install_requires"].splitlines()
for extra in sys.argv[1].split(","):
    lines += package["options.extras_require"][extra].splitlines()
for line in ["rfxray", *filter(None, map(str.strip, lines))]:
    wanted = Requirement(line)
    if wanted.marker and not wanted.marker.evaluate():
        continue
    try:
        found = version(wanted.name)
    except PackageNotFoundError:
        sys.exit(f"launch: {wanted.name} is not installed")
    if not wanted.specifier.contains(found, prereleases=True):
        sys.exit(f"launch: {wanted} is needed, {found} is installed")
EOF
}

inputs=''
[ ! -x "$python" ] || inputs=$(digest "$python") || true
case "$([ -z "$inputs" ] || cat "$venv/installed" 2>/dev/null)" in
  "$extras $inputs" | "$extras,peers $inputs") ;;
  *)
    base=${PYTHON:-python3}
    command -v "$base" >/dev/null || fail "there is no $base; install Python 3.11 or newer (Debian: apt install python3 python3-venv), or set PYTHON"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
      fail "$base is $("$base" --version), Python 3.11 or newer is needed; set PYTHON to one"
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
      fail "$base cannot create a virtual environment; install venv (Debian: apt install python3-venv)"
    if [ "$checkout" = . ]; then
      [ -w . ] || fail "$PWD cannot be written; set RFXRAY_VENV=DIR to put the environment elsewhere"
    else # pip writes beside setup.cfg, so it gets a folder of links
      mkdir -p "$checkout" || fail "RFXRAY_VENV=$RFXRAY_VENV cannot be created; set it to another folder"
      for name in rfxray data_prep configs setup.cfg setup.py pyproject.toml README.md LICENSE; do
        ln -sfn "$PWD/$name" "$checkout/$name"
      done
    fi
    echo "launch: installing into $venv"
    # An interruption may have left a Python without pip.
    "$python" -m pip --version >/dev/null 2>&1 || forward "$base" -m venv "$venv" ||
      fail "$base could not create $venv; see its message above"
    if [[ $extras == *,peers ]] && ! install_with_peers; then
      echo "launch: could not install the peers (see above); tests that need them are skipped" >&2
      extras=${extras%,peers}
    fi
    if [[ $extras == *,peers ]] || install "$extras" --quiet; then
      echo "$extras $(digest "$python")" >"$venv/installed"
    elif requirements_hold; then
      echo "launch: pip failed (see above), but every requirement of setup.cfg holds; going on" >&2
    else
      fail "pip could not install .[$extras]; see its message above"
    fi
    ;;
esac

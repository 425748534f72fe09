"""Imported first by the commands that read radiographs: names the extra where it is missing.

The packages are those of the extra `prep` in setup.cfg. A command ends in one line and the code of
a bad configuration; an importer gets the usual exception.
"""

import importlib.util
import sys

from rfxray.command_line import exit_on_error
from rfxray.errors import ConfigError

PACKAGES = ("cv2", "gdcm", "pyarrow", "pydicom")

_missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
if _missing:
    _said = f"{', '.join(_missing)} missing: install the extra, pip install -e '.[prep]'"
    _command = getattr(sys.modules["__main__"].__spec__, "name", "").removesuffix(".__main__")
    if _command.startswith("data_prep."):
        with exit_on_error(_command):
            raise ConfigError(_said)
    raise ModuleNotFoundError(_said, name=_missing[0])

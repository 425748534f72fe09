"""What setup.cfg cannot say: the folder configs/ is installed as rfxray.configs."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["rfxray*", "data_prep*"]), "rfxray.configs"],
    package_dir={"rfxray.configs": "configs"},
)

"""Projects that we are compared with and that import torchvision."""

import importlib
import types

import pytest


def import_peer(name: str) -> types.ModuleType:
    """A module of a peer, such as `pytorch_fid.inception`; skips the test if it is not installed.

    A build of torchvision has compiled operators for one build of torch. Beside another it fails to
    import, by the name of the first operator that it describes and lacks. Those are of object
    detection, and no network here calls them, so their names are declared.
    """
    torch = pytest.importorskip("torch", reason="no torch; it comes with the extra peers")
    missing = [n for n in ("nms", "qnms") if not hasattr(torch.ops.torchvision, n)]
    if missing:
        _declared.append(torch.library.Library("torchvision", "FRAGMENT"))
    for operator in missing:
        _declared[-1].define(operator + "(Tensor dets, Tensor scores, float threshold) -> Tensor")
    pytest.importorskip(name.split(".")[0], reason=f"no {name}; it comes with the extra peers")
    return importlib.import_module(name)


_declared: list = []  # a library that is collected takes its operators with it

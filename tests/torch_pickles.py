"""Files in the two layouts of torch.save, written without torch: whole ones, and attacks."""

import io
import pickle
import struct
import zipfile
from typing import ClassVar

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001


class Global:
    """Pickles as the name of a class or function, and as a call of it if it has arguments."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments


class Storage:
    def __init__(self, key, array, kind="FloatStorage", length=None):
        self.key, self.array, self.kind = key, array, kind
        self.length = array.size if length is None else length


class Pickler(pickle._Pickler):
    """Writes names that this process cannot import, as torch would."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)
    legacy = True

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        identity = ("storage", Global("torch", obj.kind), obj.key, "cpu", obj.length)
        return (*identity, None) if self.legacy else identity

    def save_global_name(self, obj):
        self.write(b"c" + f"{obj.module}\n{obj.name}\n".encode())

    def save_call(self, obj):
        self.save(obj.function)
        self.save(obj.arguments)
        self.write(pickle.REDUCE)

    dispatch[Global] = save_global_name
    dispatch[Call] = save_call


def dump(value, legacy=True) -> bytes:
    out = io.BytesIO()
    pickler = Pickler(out, 2)
    pickler.legacy = legacy
    pickler.dump(value)
    return out.getvalue()


def tensor(storage, shape, strides, offset=0):
    rebuild = Global("torch._utils", "_rebuild_tensor_v2")
    hooks = Call(Global("collections", "OrderedDict"))
    return Call(rebuild, storage, offset, shape, strides, False, hooks)


def legacy_file(path, value, storages=(), keys=None):
    sizes = {"protocol_version": PROTOCOL, "little_endian": True, "type_sizes": {}}
    parts = [pickle.dumps(head, 2) for head in (MAGIC, PROTOCOL, sizes)]
    parts += [dump(value), pickle.dumps(keys or [storage.key for storage in storages], 2)]
    for storage in storages:
        parts += [struct.pack("<q", storage.array.size), storage.array.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def zip_file(path, value, storages=(), compression=zipfile.ZIP_STORED, more=()):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", dump(value, legacy=False))
        archive.writestr("archive/byteorder", "little")
        for storage in storages:
            archive.writestr(f"archive/data/{storage.key}", storage.array.tobytes())
        for name, content in more:
            archive.writestr(name, content)
    return path

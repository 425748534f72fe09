"""Damage to the arrays of a saved step, given its folder."""


def arrays_of(step):
    """The largest file of the item `state`, which holds its arrays."""
    files = (file for file in (step / "state").rglob("*") if file.is_file())
    return max(files, key=lambda file: file.stat().st_size)


def flip(step, share):
    file = arrays_of(step)
    data = bytearray(file.read_bytes())
    data[int(share * len(data))] ^= 0x40
    file.write_bytes(data)


def truncate(step):
    file = arrays_of(step)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

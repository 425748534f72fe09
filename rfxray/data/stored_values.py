"""The stored values of a DICOM image, wherever their bits are in a word (PS3.5 8.1.1).

A native or RLE word has BitsAllocated bits; BitsStored of them, ending at HighBit, are the value. A
codestream says how many bits its samples have. If these are BitsStored or fewer, the samples are
the values, and HighBit means nothing. If they are more, the samples are treated as words. The bits
beside the value may repeat its sign or hold an overlay. Words that need them for over 1% of the
pixels are refused; samples that do are left-aligned, or deeper than BitsStored says: then they are
taken whole.
"""

import numpy as np
import pydicom
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import RLELossless

from rfxray.data import codestream
from rfxray.data.decoded import Refused

BEYOND_SHARE = 0.01  # of the pixels; an undeclared overlay has fewer, a wrong header more


def stored_values(dataset: pydicom.Dataset) -> tuple[np.ndarray, int, tuple[str, ...]]:
    """Decodes the one frame of a file with all tags that describe its pixels.

    Returns:
      Values [height, width] of any integer type, or [height, width, 3] if in colour; bits of a
      value; notes (see `Radiograph`).

    Raises:
      Refused: With the reason.
    """
    syntax = dataset.file_meta.TransferSyntaxUID
    # One decoder for each syntax, so that pixels do not depend on which decoders are installed
    try:
        readable = get_decoder(syntax).available_plugins
    except NotImplementedError:
        raise Refused(f"a compression that is not read: {syntax.name}") from None
    plugin = "pydicom" if syntax == RLELossless else "gdcm"
    if syntax.is_compressed and plugin not in readable:
        raise Refused(f"a compression that is not read: {syntax.name}")
    if syntax.is_compressed and syntax != RLELossless and dataset.SamplesPerPixel == 1:
        return _from_codestream(dataset)
    # `_values` looks at the bits that pydicom would cut off
    dataset.pixel_array_options(
        decoding_plugin=plugin if syntax.is_compressed else "", correct_unused_bits=False
    )
    words = dataset.pixel_array
    if words.ndim == 3 and dataset.SamplesPerPixel == 1:
        raise Refused(f"several frames: {len(words)} instead of one")
    stored = dataset.BitsStored
    if words.ndim == 3:
        return words, stored, ()
    values, share = _values(
        words, dataset.BitsAllocated, stored, dataset.HighBit, _overlays(dataset)
    )
    if share > BEYOND_SHARE:
        raise Refused(f"values beyond BitsStored: in {share:.1%} of the pixels")
    return values, stored, ()


def _from_codestream(dataset: pydicom.Dataset) -> tuple[np.ndarray, int, tuple[str, ...]]:
    stored = dataset.BitsStored
    try:
        data = get_frame(dataset.PixelData, 0, number_of_frames=1)
    except Exception:  # pydicom raises any type for damage
        raise Refused("does not decode: the fragments of the pixel data are damaged") from None
    found = codestream.facts(data)
    if found.components != 1:
        raise Refused(f"contradictory header: {found.components} components, SamplesPerPixel 1")
    if (found.rows, found.columns) != (dataset.Rows, dataset.Columns):
        raise Refused(
            f"contradictory header: {dataset.Rows} × {dataset.Columns} pixels, its codestream "
            f"{found.rows} × {found.columns}"
        )
    samples = codestream.decode(data, dataset.file_meta.TransferSyntaxUID, found)
    if dataset.BitsAllocated == 16:  # as wide as a native word, whatever the precision
        samples = samples.astype(np.uint16)
    bits = found.precision
    signed = dataset.PixelRepresentation == 1
    size = samples.itemsize * 8
    # The sign is that of the header: JPEG has none, and some encoders of JPEG 2000 set none
    whole = samples << (size - bits)
    whole = (whole.view(f"i{samples.itemsize}") if signed else whole) >> (size - bits)
    if bits <= stored:
        return whole, stored, ()
    values, share = _values(whole, bits, stored, dataset.HighBit, _overlays(dataset))
    if share <= BEYOND_SHARE:
        return values, stored, ()
    spare = bits - stored
    if not (whole & ((1 << spare) - 1)).any():
        note = f"samples were left-aligned: {stored} bits of {bits}"
        return whole >> spare, stored, (note,)
    if signed and not found.signed and whole.min() >= 0:  # the sign is at an unknown bit
        raise Refused(f"values beyond BitsStored: in {share:.1%} of the pixels")
    return whole, bits, (f"samples are deeper than BitsStored: {bits} bits instead of {stored}",)


def _values(
    words: np.ndarray, allocated: int, stored: int, high: int, overlays: int
) -> tuple[np.ndarray, float]:
    """Values of `stored` bits that end at bit `high` of words of `allocated` bits.

    Args:
      words: Words [height, width]; signed if the values are.
      allocated: Bits of a word.
      stored: Bits of a value.
      high: Position of its highest bit; impossible ones are taken as `stored` - 1, which the
        current standard requires.
      overlays: Bits that overlays are declared for.

    Returns:
      Values, and the share of pixels with anything but zeros, the sign or an overlay beside them.
    """
    if stored == allocated:
        return words, 0.0
    if not stored <= high + 1 <= allocated:
        high = stored - 1
    words = words.astype(words.dtype.newbyteorder("="), copy=False)
    size = words.itemsize * 8
    values = (words << (size - 1 - high)) >> (size - stored)
    unused = ((1 << allocated) - 1) ^ (((1 << stored) - 1) << (high + 1 - stored))
    unsigned = words.view(f"u{words.itemsize}")
    mask = unsigned.dtype.type(unused & ~overlays)
    beyond = unsigned & mask != 0
    if beyond.any():
        extended = (values << (high + 1 - stored)).view(unsigned.dtype)
        beyond &= (unsigned ^ extended) & mask != 0
    return values, float(beyond.mean())


def _overlays(dataset: pydicom.Dataset) -> int:
    """The bits of a word that hold overlays, as a mask."""
    mask = 0
    for group in range(0x6000, 0x6020, 2):
        position = dataset.get((group, 0x0102))  # OverlayBitPosition
        if position is not None and isinstance(position.value, int):
            mask |= 1 << position.value
    return mask

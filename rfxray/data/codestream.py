"""Codestreams of JPEG, JPEG-LS and JPEG 2000: what they say of themselves, and their samples.

Of a compressed DICOM file the codestream is the truth about the samples in it; BitsStored of the
header may differ. Samples are decoded by GDCM (package python-gdcm).
"""

import dataclasses

import numpy as np
from pydicom.uid import UID, JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes

from rfxray.data.decoded import Refused

# SOF markers of ITU-T T.81 table B.1, and SOF55 of JPEG-LS (T.87 C.1.1)
_FRAME_MARKERS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}


@dataclasses.dataclass(frozen=True)
class Facts:
    """The frame header of a codestream.

    Attributes:
      rows: Height, pixels.
      columns: Width, pixels.
      components: Samples per pixel.
      precision: Bits of a sample.
      signed: Whether samples are signed; of the three formats only JPEG 2000 says so.
      lossless: Whether a JPEG is lossless (SOF3) or a JPEG-LS or JPEG 2000, which may be.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool
    lossless: bool


def facts(codestream: bytes) -> Facts:
    """Reads SOF of a JPEG or JPEG-LS (T.81 B.2.2), or SIZ of a JPEG 2000 (T.800 A.5.1).

    Raises:
      Refused: If there is none.
    """
    start = codestream.find(b"\xff\x4f\xff\x51")  # a JP2 file has boxes before it
    if start >= 0 and len(codestream) >= start + 43:
        siz = codestream[start:]
        right, bottom, left, top = (int.from_bytes(siz[i : i + 4]) for i in (8, 12, 16, 20))
        components, depth = int.from_bytes(siz[40:42]), siz[42]
        return Facts(bottom - top, right - left, components, (depth & 127) + 1, depth > 127, True)
    place = 2 if codestream.startswith(b"\xff\xd8") else len(codestream)
    while place + 10 <= len(codestream) and codestream[place] == 0xFF:
        marker = codestream[place + 1]
        if marker in _FRAME_MARKERS:
            rows, columns = (int.from_bytes(codestream[place + i : place + i + 2]) for i in (5, 7))
            precision, components = codestream[place + 4], codestream[place + 9]
            return Facts(rows, columns, components, precision, False, marker in (0xC3, 0xF7))
        if marker == 0xFF:
            place += 1  # a fill byte
        elif marker in _WITHOUT_LENGTH:
            place += 2
        else:
            place += 2 + int.from_bytes(codestream[place + 2 : place + 4])
    raise Refused("does not decode: the codestream has no frame header")


def decode(codestream: bytes, syntax: UID, found: Facts) -> np.ndarray:
    """Samples of a codestream of one component, [rows, columns] unsigned, of `precision` bits.

    Signed samples are returned as the bits of their two's complement.

    Raises:
      Refused: If GDCM cannot decode them.
    """
    import gdcm  # optional: files without compression are read without it

    bits = found.precision
    if not found.lossless and bits > 8:
        raise Refused(f"a compression that is not read: JPEG of {bits} bits")
    if bits > 16 or (syntax in JPEGLSTransferSyntaxes and bits in (6, 7)):  # GDCM gives noise
        raise Refused(f"a compression that is not read: {syntax.name} of {bits} bits")
    allocated = 8 if bits <= 8 else 16
    signed = found.signed and syntax in JPEG2000TransferSyntaxes
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(codestream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((found.columns, found.rows, 1))
    image.SetDataElement(element)
    monochrome = gdcm.PhotometricInterpretation.GetPIType("MONOCHROME2")
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(monochrome))
    kind = gdcm.TransferSyntax.GetTSType(str(syntax))
    image.SetTransferSyntax(gdcm.TransferSyntax(kind))
    image.SetPixelFormat(gdcm.PixelFormat(1, allocated, bits, bits - 1, int(signed)))
    decoded = image.GetBuffer()
    if decoded is None:
        raise Refused("does not decode: the codestream is damaged")
    samples = np.frombuffer(decoded.encode("utf-8", "surrogateescape"), f"<u{allocated // 8}")
    if samples.size != found.rows * found.columns:
        raise Refused("does not decode: the codestream is damaged")
    return samples.reshape(found.rows, found.columns) & ((1 << bits) - 1)

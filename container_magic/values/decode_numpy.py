"""Arrays and images from checked nodes; lengths are held against the bytes before NumPy or Pillow sees them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from container_magic.values import dtypes, wire
from container_magic.values.checks import items, whole
from container_magic.values.wire import RefusedError

if TYPE_CHECKING:
    from container_magic.values.decode import Decoder

# bytes of a row of ``width`` pixels, by mode (Pillow's raw encoder)
_ROW_BYTES = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4, "I": 4, "F": 4, "I;16": 2}


def array(decoder: Decoder, body: Any) -> Any:
    """Return an array over its own buffer: not copied, writable.

    Raises:
        RefusedError: Its dtype is not accepted, or its shape does not fit its bytes.
    """
    import numpy

    if not isinstance(body, dict) or set(body) != {"dtype", "shape", "order", "buffer"}:
        raise RefusedError("an array is not described")
    dtype, shape = dtypes.parse(body["dtype"], numpy), dtypes.checked_shape(body["shape"])
    data = decoder.take(body["buffer"])
    if math.prod(shape) * dtype.itemsize != data.nbytes:
        raise RefusedError(f"an array of shape {list(shape)} and dtype {dtype} has {data.nbytes} bytes")
    if body["order"] not in ("C", "F"):
        raise RefusedError("an array has no order")
    if not data.nbytes:
        return numpy.empty(shape, dtype)
    found = numpy.frombuffer(data, dtype).reshape(shape, order=body["order"])
    dtypes.check_contents(found, numpy)
    return found


def scalar(decoder: Decoder, body: Any) -> Any:
    """Return a scalar of NumPy.

    Raises:
        RefusedError: It is none.
    """
    found = array(decoder, body)
    if found.shape != ():
        raise RefusedError("a scalar has a shape")
    return found[()]


def image(decoder: Decoder, body: Any) -> Any:
    """Return an image from its raw pixels: no image decoder sees a byte.

    Raises:
        RefusedError: Its size does not fit its bytes, or it is too big.
    """
    from PIL import Image

    mode, wide, high, number = items(body, 4)
    width, height = whole(wide, 0, wire.MAX_PIXELS), whole(high, 0, wire.MAX_PIXELS)
    data = decoder.take(number)
    if not isinstance(mode, str) or mode not in (*_ROW_BYTES, "1") or width * height > wire.MAX_PIXELS:
        raise RefusedError("an image is of no known mode, or too big")
    row_bytes = (width + 7) // 8 if mode == "1" else width * _ROW_BYTES[mode]
    if row_bytes * height != data.nbytes:
        raise RefusedError(f"an image of {width}x{height} pixels has {data.nbytes} bytes")
    return Image.frombytes(mode, (width, height), bytes(data)) if data.nbytes else Image.new(mode, (width, height))

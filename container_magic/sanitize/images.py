"""Pictures: raster images are decoded and encoded anew, SVG becomes an ``<img>``, in which no script runs.

What is encoded anew holds pixels and nothing else: no second file behind the end, no metadata, no profile, no text.
"""

from __future__ import annotations

import base64
import binascii
import io
from typing import TYPE_CHECKING

from container_magic.sanitize.text import RefusedError, text_at_most

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGE_BYTES = 16 << 20
"""Size of one encoded picture, on the way in."""
BUNDLE_PIXELS = 40_000_000
"""Pixels of all pictures of one bundle together: what is decoded is memory and time of the notebook."""
SVG_BYTES = 4 << 20

SCANS = 64
"""Scans of a progressive JPEG; each costs as much as a picture, and a few bytes are enough to make one."""
SLOW_PIXELS = 4_000_000
"""Above this PNG is compressed fast and not small."""

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG", "image/gif": "GIF"}
"""What is decoded. Each decoder is C code that meets hostile bytes: there are no more than pages need."""

_JPEG_SCAN = b"\xff\xda"


class Pictures:
    """Encodes the pictures of one bundle anew, within one budget of pixels."""

    def __init__(self) -> None:
        self._pixels = BUNDLE_PIXELS

    def encode_anew(self, mime: str, value: object) -> tuple[str, str]:
        """Return the MIME type and the base64 text of the same picture; of a GIF the first frame, as PNG.

        Raises:
            RefusedError: It is no such picture, it is too large, or it cannot be decoded.
        """
        data = image_bytes(value)
        if mime == "image/jpeg" and data.count(_JPEG_SCAN) > SCANS:
            raise RefusedError("its data has too many scans")
        try:
            return self._encode(mime, data)
        except RefusedError:
            raise
        except Exception as error:
            # Pillow's decoders raise whatever they come upon: OSError, SyntaxError, struct.error, zlib.error ...
            raise RefusedError(f"its data is no whole {FORMATS[mime]} picture") from error

    def _encode(self, mime: str, data: bytes) -> tuple[str, str]:
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(data), formats=[FORMATS[mime]]) as opened:
            self._take(opened.width * opened.height)
            upright = ImageOps.exif_transpose(opened)
            pixels = _plain_pixels(upright if upright is not None else opened)
        made = io.BytesIO()
        if mime == "image/jpeg":
            pixels.save(made, "JPEG", quality=90)
            return mime, base64.b64encode(made.getvalue()).decode()
        pixels.save(made, "PNG", compress_level=1 if pixels.width * pixels.height > SLOW_PIXELS else 6)
        return "image/png", base64.b64encode(made.getvalue()).decode()

    def _take(self, pixels: int) -> None:
        if pixels > self._pixels:
            raise RefusedError(f"the pictures of an output have at most {BUNDLE_PIXELS:,} pixels together")
        self._pixels -= pixels


def image_bytes(value: object) -> bytes:
    """Return the bytes of a picture given as base64 text or as bytes.

    Raises:
        RefusedError: It is neither, or larger than ``IMAGE_BYTES``.
    """
    if isinstance(value, (bytes, bytearray)):
        data = bytes(value)
    else:
        # two characters more per line of 76 is the most that encoders break lines with
        text = text_at_most(value, IMAGE_BYTES // 3 * 4 + IMAGE_BYTES // 24)
        try:
            data = binascii.a2b_base64(text)
        except ValueError as error:
            raise RefusedError("its data is not base64") from error
    if len(data) > IMAGE_BYTES:
        raise RefusedError(f"it is larger than {IMAGE_BYTES:,} bytes")
    return data


def svg_image(value: object, *, width: int | None, height: int | None) -> str:
    """Return an ``<img>`` that shows an SVG document: there it runs no script and loads nothing.

    Raises:
        RefusedError: It is no SVG, too large, or defines entities (a few lines of them expand to gigabytes).
    """
    text = text_at_most(value, SVG_BYTES)
    if "<svg" not in text:
        raise RefusedError("it is no SVG document")
    if "<!ENTITY" in text:
        raise RefusedError("it defines entities")
    sizes = "".join(f' {name}="{size}"' for name, size in (("width", width), ("height", height)) if size is not None)
    return f'<img alt="SVG picture"{sizes} src="data:image/svg+xml;base64,{base64.b64encode(text.encode()).decode()}">'


def _plain_pixels(image: Image) -> Image:
    """Return the pixels in a mode that both formats know, without anything else that came with them."""
    if "transparency" in image.info or image.mode in {"LA", "PA", "RGBa", "La"}:
        mode = "RGBA"
    elif image.mode in {"1", "L", "RGB", "RGBA", "I;16"}:
        mode = image.mode
    else:
        mode = "RGB"
    pixels = image.convert(mode)
    pixels.info.clear()
    return pixels

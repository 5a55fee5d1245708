"""Objects of other packages on the way out: NumPy, pandas, Arrow, Pillow; with words for those that stay inside."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from container_magic.values import arrow_out, dtypes, frames_out, wire
from container_magic.values.wire import RefusedError

if TYPE_CHECKING:
    from container_magic.values.encode import Encoder

_IMAGE_MODES = ("1", "L", "LA", "RGB", "RGBA", "CMYK", "I", "F", "I;16")


def node(encoder: Encoder, value: Any) -> Any:
    """Return ``value`` as a node.

    Raises:
        RefusedError: It cannot come out; the message names its type, the hint what to do instead.
    """
    package = type(value).__module__.partition(".")[0]
    handler = _PACKAGES.get(package)
    # a type may call its module what it likes
    found = handler(encoder, value, sys.modules[package]) if handler and package in sys.modules else None
    if found is None:
        raise RefusedError(f"a {type_name(value)!r} cannot come out of a container", hint=_remedy(value))
    return found


def type_name(value: Any) -> str:
    """Return the full name of the type of ``value``."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


_METHODS = {
    "to_dict": "its .to_dict()",
    "_asdict": "its ._asdict()",
    "to_arrow": "its .to_arrow()",
    "to_numpy": "its .to_numpy()",
    "numpy": "its .numpy()",
    "tolist": "its .tolist()",
}


def _remedy(value: Any) -> str:
    kind = type(value)
    words = next((text for name, text in _METHODS.items() if hasattr(kind, name)), "")
    for plain in (dict, list, tuple, set, str, int, float):
        if not words and issubclass(kind, plain):
            words = f"{plain.__name__}(...) of it"
    return f"return {words or 'what it is made of: numbers, texts, arrays, tables'} instead, or {wire.FILES_REMEDY}"


def _numpy(encoder: Encoder, value: Any, numpy: Any) -> Any:
    if type(value) in (numpy.ndarray, numpy.memmap):
        return {"array": array(encoder, value)}
    if isinstance(value, numpy.generic):
        return {"scalar": array(encoder, numpy.asarray(value))}
    return None


def array(encoder: Encoder, value: Any) -> dict[str, Any]:
    """Return a NumPy array: its dtype, its shape, and its bytes as a buffer; one copy if it is not contiguous.

    Raises:
        RefusedError: Its dtype cannot come out.
    """
    if value.dtype.kind in "SUV" and value.dtype.itemsize == 0:
        value = value.astype(value.dtype.kind + "1")
    described = dtypes.describe(value.dtype)
    shape, order = list(value.shape), "C"
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        value, order = value.T, "F"
    if not value.flags.c_contiguous:
        value = value.copy(order="C")
    data = value.reshape(-1).view("u1") if value.nbytes else b""
    return {"dtype": described, "shape": shape, "order": order, "buffer": encoder.buffer(data)}


def _pandas(encoder: Encoder, value: Any, pandas: Any) -> Any:
    return frames_out.node(encoder, value, pandas, array)


def _pyarrow(encoder: Encoder, value: Any, pyarrow: Any) -> Any:
    return arrow_out.node(encoder, value, pyarrow)


def _pillow(encoder: Encoder, value: Any, _pil: Any) -> Any:
    image = sys.modules.get("PIL.Image")
    if image is None or not isinstance(value, image.Image):
        return None
    if value.mode not in _IMAGE_MODES:
        raise RefusedError(f"an image of mode {value.mode} cannot come out", hint='return its .convert("RGBA")')
    if value.width * value.height > wire.MAX_PIXELS:
        raise RefusedError(f"an image of {value.width}x{value.height} pixels is too big", hint="return a smaller one")
    return {"image": [value.mode, value.width, value.height, encoder.buffer(value.tobytes())]}


_PACKAGES = {"numpy": _numpy, "pandas": _pandas, "pyarrow": _pyarrow, "PIL": _pillow}

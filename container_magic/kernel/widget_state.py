"""The state of a widget: key by key what its model has, with the binary values where they belong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from container_magic.deferred import dataclass
from container_magic.kernel.outputs import Outputs
from container_magic.kernel.widget_models import MODULE_KEYS, Model
from container_magic.kernel.widget_values import Check, checks, length, may_follow, model_id, number, picture, text
from container_magic.sanitize.bundle import HtmlMode
from container_magic.sanitize.text import RefusedError

KEYS = 256
FILES = 1000
OUTPUTS = 1000
PATHS = 10_000
_PREFIX = "IPY_MODEL_"
_FORMATS = {"picture": ("png", "jpeg", "gif"), "media": ("mp3", "mp4", "wav", "ogg", "webm", "flac")}
"""Of binary values; ``url`` would have the page load what they name, and SVG is a document."""

Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class State:
    """The state of one message: its values, and the binary ones apart, by where they belong."""

    values: dict[str, Any]
    buffers: dict[Path, bytes]


class States:
    """Cleans states.

    Args:
        html: What becomes of HTML.
        outputs: Cleans the outputs that a widget shows.
        note: Takes a sentence for the user.
        kind_of: Says of which kind a key of the widget with some id is; None when there is none.
    """

    def __init__(
        self,
        html: HtmlMode,
        outputs: Outputs,
        note: Callable[[str], None],
        kind_of: Callable[[str, str], str | None],
    ) -> None:
        self._outputs = outputs
        self._note = note
        self._kind_of = kind_of
        self._checks: dict[str, Check] = {
            **checks(html),
            "end": self._end,
            "outputs": self._stored,
            "never": self._never,
        }

    def clean(self, model: Model, given: Mapping[str, Any], placed: dict[Path, bytes], *, echo: bool = False) -> State:
        """Return what of a state a page may have; ``placed`` are its binary values."""
        state = State(values=dict(_own_names(model, given)), buffers={})
        names = dict.fromkeys([*given, *(path[0] for path in placed)])
        for key in [key for key in names if isinstance(key, str)][:KEYS]:
            kind = model.keys.get(key)
            if kind is None or (echo and kind == "outputs"):
                continue  # the outputs are those that this page has just sent
            try:
                self._value(state, kind, key, given.get(key), placed)
            except RefusedError as refused:
                self._note(f"{key} of a widget ({model.name}) was not passed on: {refused.message}")
        if "source" in model.keys:
            self._check_link(model, state.values)
        return state

    def _value(self, state: State, kind: str, key: str, value: Any, placed: dict[Path, bytes]) -> None:
        """Put one value into ``state``, checked as its ``kind`` asks."""
        if kind in ("picture", "media"):
            _binary(state, kind, key, value, placed.get((key,)))
        elif kind == "files":
            _files(state, key, value, placed)
        elif (key,) in placed:
            raise RefusedError("its value is binary")
        elif value is None:
            state.values[key] = None
        elif kind == "length":
            state.values[key] = length(key, value)
        else:
            state.values[key] = self._checks[kind](value)

    def _never(self, value: Any) -> bool:
        if value is True:
            self._note("HTML in the description of a widget is shown as text")
        return False

    def _stored(self, value: Any) -> list[dict[str, Any]]:
        found = value[:OUTPUTS] if isinstance(value, (list, tuple)) else []
        return [output for output in map(self._outputs.stored, found) if output is not None]

    def _end(self, value: Any) -> list[str]:
        if not isinstance(value, (list, tuple)) or len(value) != 2:
            raise RefusedError("it is no end of a link")
        name, key = model_id(value[0]), text(value[1])
        if self._kind_of(name, key) is None:
            raise RefusedError("it is no key of a known widget")
        return [_PREFIX + name, key]

    def _check_link(self, model: Model, values: dict[str, Any]) -> None:
        """Take out the ends of a link that would have the page render what is plain text elsewhere.

        Both come together or not at all: of a link with one end changed only the page knows the other.
        """
        source, target = values.pop("source", None), values.pop("target", None)
        if source is None and target is None:
            return
        kinds = [self._kind_of(end[0].removeprefix(_PREFIX), end[1]) or "" if end else "" for end in (source, target)]
        if may_follow(*kinds) and (model.name == "DirectionalLinkModel" or may_follow(*reversed(kinds))):
            values |= {"source": source, "target": target}
        else:
            self._note("a link of widgets was not made: the page would render what nobody has looked at")


def placed_buffers(data: Mapping[str, Any], buffers: tuple[bytes, ...]) -> dict[Path, bytes]:
    """Return the binary values of a message by where they belong."""
    paths = data.get("buffer_paths")
    found: dict[Path, bytes] = {}
    for path, buffer in zip(paths[:PATHS] if isinstance(paths, list) else [], buffers, strict=False):
        steps = path if isinstance(path, list) and len(path) <= 8 else []
        if steps and all(isinstance(step, (str, int)) for step in steps):
            found[tuple(steps)] = buffer
    return found


def _own_names(model: Model, given: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield what a state says of its class, where it says what its model is."""
    for key, accepted in MODULE_KEYS.items():
        if key in given and accepted(model, given[key]):
            yield key, given[key]


def _binary(state: State, kind: str, key: str, value: Any, buffer: bytes | None) -> None:
    if key == "format":
        if value not in _FORMATS[kind]:
            raise RefusedError(f"its format is none of {', '.join(_FORMATS[kind])}")
        state.values.setdefault(key, value)
        return
    if buffer is None and value:
        raise RefusedError("its value is not binary")
    if buffer is None:
        return
    state.buffers[(key,)] = b""
    if buffer and kind == "media":
        # nothing here decodes them and encodes them anew: the page's decoders would meet the code's own bytes
        raise RefusedError("sound and film are not shown")
    if buffer:
        state.values["format"], state.buffers[(key,)] = picture(buffer)


def _files(state: State, key: str, value: Any, placed: dict[Path, bytes]) -> None:
    """Take the files that a user has uploaded; a page shows how many there are."""
    files: list[dict[str, Any]] = []
    for place, given in enumerate(value[:FILES] if isinstance(value, (list, tuple)) else []):
        if not isinstance(given, Mapping):
            raise RefusedError("its value is no list of files")
        kept: dict[str, Any] = {name: text(given[name]) for name in ("name", "type") if name in given}
        kept |= {name: number(given[name]) for name in ("size", "last_modified") if name in given}
        if (content := placed.get((key, place, "content"))) is not None:
            state.buffers[(key, place, "content")] = content
        files.append(kept)
    state.values[key] = files

"""Widgets: which comms may be opened from inside, and what of their messages a page may have.

The page makes an object of script for each comm, of the class that the message names, and hands all of the state to it.
So only ipywidgets' own classes may be named, each with its own view, and their state has the keys that they have.
What a comm was opened as is remembered: its later messages mean that. An id stands for one comm, of whichever side has
opened it, and is never used again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from container_magic.deferred import dataclass
from container_magic.kernel import shape
from container_magic.kernel.message import Message
from container_magic.kernel.outputs import Outputs
from container_magic.kernel.widget_models import VERSION, Model, model_of
from container_magic.kernel.widget_state import Path, States, placed_buffers
from container_magic.sanitize.bundle import HtmlMode

MOST_COMMS = 50_000
"""Comms that a kernel may have in its life."""
TARGET, CONTROL = "jupyter.widget", "jupyter.widget.control"

_comm_id = shape.matching(r"[A-Za-z0-9_-]{1,64}")
_version = shape.matching(r"\d{1,3}\.\d{1,3}\.\d{1,3}")


@dataclass(kw_only=True)
class _Comm:
    """What a comm was opened as; without a model it is the client's, and has no widget."""

    model: Model | None
    control: bool = False
    open: bool = True


class Widgets:
    """The comms of one kernel."""

    def __init__(self, html: HtmlMode, note: Callable[[str], None]) -> None:
        self._note = note
        self._comms: dict[str, _Comm] = {}
        self.outputs = Outputs(html, self.is_shown, note)
        self._states = States(html, self.outputs, note, self._kind)

    def is_shown(self, name: str) -> bool:
        """Return whether ``name`` is the id of a widget that a page may show."""
        comm = self._comms.get(name)
        return comm is not None and comm.open and comm.model is not None and comm.model.view is not None

    def targets(self, named: Any) -> dict[str, dict[str, str]]:
        """Return those of the comms of a ``comm_info_reply`` that a page may know."""
        known = [name for name in named if self._is_open(name)] if isinstance(named, dict) else []
        return {name: {"target_name": TARGET} for name in known}

    def seen_from_client(self, msg_type: str, content: Mapping[str, Any]) -> None:
        """Remember a comm that a client opens or closes."""
        name = _comm_id(content.get("comm_id"))
        if msg_type == "comm_close" and name in self._comms:
            self._comms[name].open = False
        elif msg_type == "comm_open" and name and name not in self._comms and len(self._comms) < MOST_COMMS:
            target, data = content.get("target_name"), content.get("data")
            state = data.get("state") if isinstance(data, Mapping) else None
            model = model_of(state) if target == TARGET and isinstance(state, Mapping) else None
            self._comms[name] = _Comm(model=model, control=target == CONTROL)

    def clean(self, message: Message) -> Message | None:
        """Return what of a comm's message goes to the page, None when nothing does."""
        name = _comm_id(message.content.get("comm_id"))
        data = message.content.get("data")
        data = data if isinstance(data, Mapping) else {}
        if not name:
            return None
        if message.msg_type == "comm_open":
            return self._opened(name, data, message)
        comm = self._comms.get(name)
        if comm is None or not comm.open:
            return None
        if message.msg_type == "comm_close":
            comm.open = False
            return replace(message, content={"comm_id": name, "data": {}}, metadata={}, buffers=())
        return self._sent(name, comm, data, message)

    def _opened(self, name: str, data: Mapping[str, Any], message: Message) -> Message | None:
        given = data.get("state")
        model = model_of(given) if message.content.get("target_name") == TARGET and isinstance(given, Mapping) else None
        if model is None or not isinstance(given, Mapping):
            self._note("a widget was not shown: it is not one of ipywidgets' own, and would run script in the page")
            return None
        if name in self._comms or len(self._comms) >= MOST_COMMS:
            self._note("a widget was not shown: its id is in use, or the kernel has had too many")
            return None
        self._comms[name] = _Comm(model=model)
        state = self._states.clean(model, given, placed_buffers(data, message.buffers))
        paths = list(state.buffers)
        content = {
            "comm_id": name,
            "target_name": TARGET,
            "data": {"state": state.values, "buffer_paths": [list(path) for path in paths]},
        }
        version = _version(message.metadata.get("version"))
        metadata = {"version": version} if version else {}
        return replace(message, content=content, metadata=metadata, buffers=tuple(state.buffers.values()))

    def _sent(self, name: str, comm: _Comm, data: Mapping[str, Any], message: Message) -> Message | None:
        method = data.get("method")
        placed = placed_buffers(data, message.buffers)
        if comm.control and method == "update_states":
            return self._all_states(name, data, placed, message)
        if comm.model is None:
            return None
        if method == "custom":
            return self._custom(name, data, message)
        given = data.get("state")
        if method not in ("update", "echo_update") or not isinstance(given, Mapping):
            return None
        state = self._states.clean(comm.model, given, placed, echo=method == "echo_update")
        if not state.values and not state.buffers:
            return None
        clean = {"method": method, "state": state.values, "buffer_paths": [list(path) for path in state.buffers]}
        return _rebuilt(message, name, clean, state.buffers)

    def _custom(self, name: str, data: Mapping[str, Any], message: Message) -> Message | None:
        content = data.get("content")
        if isinstance(content, Mapping) and content.get("do") == "blur":
            return _rebuilt(message, name, {"method": "custom", "content": {"do": "blur"}}, {})
        # what the user types would go where the code wants it
        self._note("a message to a widget was dropped: code may not move the focus, or speak to what nobody knows")
        return None

    def _all_states(self, name: str, data: Mapping[str, Any], placed: dict[Path, bytes], message: Message) -> Message:
        """Return the answer to a page that was loaded anew and asks for all widgets."""
        given = data.get("states")
        states: dict[str, Any] = {}
        buffers: dict[Path, bytes] = {}
        by_model: dict[str, dict[Path, bytes]] = {}
        for path, buffer in placed.items():
            if len(path) > 2 and isinstance(path[0], str) and path[1] == "state":
                by_model.setdefault(path[0], {})[path[2:]] = buffer
        for key, value in given.items() if isinstance(given, Mapping) else ():
            comm = self._comms.get(key)
            inner = value.get("state") if isinstance(value, Mapping) else None
            if comm is None or not comm.open or comm.model is None or not isinstance(inner, Mapping):
                continue
            state = self._states.clean(comm.model, inner, by_model.get(key, {}))
            version = state.values.get("_model_module_version")
            states[key] = {
                "model_name": comm.model.name,
                "model_module": comm.model.module,
                "model_module_version": version or VERSION[comm.model.module],
                "state": state.values,
            }
            buffers |= {(key, "state", *path): buffer for path, buffer in state.buffers.items()}
        paths = [list(path) for path in buffers]
        return _rebuilt(message, name, {"method": "update_states", "states": states, "buffer_paths": paths}, buffers)

    def _kind(self, name: str, key: str) -> str | None:
        comm = self._comms.get(name)
        return comm.model.keys.get(key) if comm is not None and comm.model is not None else None

    def _is_open(self, name: Any) -> bool:
        comm = self._comms.get(name) if isinstance(name, str) else None
        return comm is not None and comm.open and comm.model is not None


def _rebuilt(message: Message, name: str, data: dict[str, Any], buffers: dict[Path, bytes]) -> Message:
    return replace(message, content={"comm_id": name, "data": data}, metadata={}, buffers=tuple(buffers.values()))

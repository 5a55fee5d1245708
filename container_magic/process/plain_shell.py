"""The plain shell: a cell's statements one by one, the last expression shown; standard library only."""

from __future__ import annotations
import __future__

import ast
import builtins
import functools
import mmap
import operator
import types
import warnings
from typing import Any

from container_magic.process import sigint
from container_magic.process.channel import Channel, rehearse
from container_magic.process.formats import bundle_of, open_figures
from container_magic.process.slot import set_line

_FUTURES = functools.reduce(
    operator.or_, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)


class PlainShell:
    """Runs source, and shows on a channel what it displays."""

    def __init__(self, slot: mmap.mmap) -> None:
        self._channel: Channel | None = None
        self._slot = slot
        self._ids = 0

    def main_module(self) -> types.ModuleType:
        """Return a module of its own."""
        return types.ModuleType("__main__")

    def attach(self, channel_fd: int) -> Channel:
        """Show things on this channel, and give the code ``display`` and ``clear_output`` as built-in names."""
        self._channel = Channel(channel_fd)
        builtins.display = self.display  # type: ignore[attr-defined]
        builtins.clear_output = self.clear_output  # type: ignore[attr-defined]
        return self._channel

    def touch(self, filename: str, module: types.ModuleType) -> None:
        """Run an empty cell, and say farewell on a channel, for the pages that this writes to."""
        rehearse()
        self.run(b"pass\n1", filename, module)

    def display(
        self,
        *objects: Any,
        raw: bool = False,
        metadata: dict[str, Any] | None = None,
        display_id: str | bool | None = None,
        update: bool = False,
    ) -> str | None:
        """Show objects; returns the id by which they can be updated, if one was asked for (``True``: a new one)."""
        if display_id is True:
            self._ids += 1
            display_id = f"display-{self._ids}"
        name = display_id or None
        for value in objects:
            data, about = (value, {}) if raw else bundle_of(value)
            self._show(data, {**about, **(metadata or {})}, display_id=name, update=update)
        return None if update else name

    def clear_output(self, wait: bool = False) -> None:
        """Clear what the cell has shown, with ``wait`` when the next thing comes."""
        if self._channel is not None:
            self._channel.clear(wait=wait)

    def _show(self, data: dict[str, Any], metadata: dict[str, Any], **how: Any) -> None:
        if self._channel is not None and not self._channel.show(data, metadata, **how):
            print(data.get("text/plain", ""))  # noqa: T201 - nobody can take more: a forked child, a closed channel

    def run(self, source: bytes, filename: str, module: types.ModuleType) -> int:
        """Run ``source``, show its last expression and the figures that it leaves open."""
        tree: ast.Module = compile(source, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)  # type: ignore[assignment]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they come when the statement is compiled
            # whole: what is wrong anywhere is said before anything runs
            flags = compile(tree, filename, "exec", dont_inherit=True).co_flags & _FUTURES
        sigint.let_in()
        try:
            self._run_statements(tree, _last_expression(source, tree), flags, filename, module.__dict__)
        finally:
            for figure in open_figures():
                self._show(*bundle_of(figure))
        return 0

    def _run_statements(
        self, tree: ast.Module, shown: ast.Expr | None, flags: int, filename: str, namespace: dict[str, Any]
    ) -> None:
        for number, node in enumerate(tree.body):
            if node is shown or (number and _is_string(node)):
                continue  # a string that is not the first statement is no documentation
            self._mark(node)
            exec(compile(ast.Module([node], []), filename, "exec", flags, dont_inherit=True), namespace)
        if shown is None:
            return
        self._mark(shown)
        value = eval(compile(ast.Expression(shown.value), filename, "eval", flags, dont_inherit=True), namespace)
        if value is not None:
            self._show(*bundle_of(value), result=True)

    def _mark(self, node: ast.stmt) -> None:
        decorators = getattr(node, "decorator_list", [])
        set_line(self._slot, min([node.lineno, *(decorator.lineno for decorator in decorators)]))


def _is_string(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _last_expression(source: bytes, tree: ast.Module) -> ast.Expr | None:
    """Return the last statement if it is an expression, unless a semicolon behind it says that it is not wanted."""
    last = tree.body[-1] if tree.body else None
    if not isinstance(last, ast.Expr) or last.end_lineno is None:
        return None
    lines = source.splitlines()
    behind = lines[last.end_lineno - 1][last.end_col_offset :] if last.end_lineno <= len(lines) else b""
    return None if behind.lstrip().startswith(b";") else last

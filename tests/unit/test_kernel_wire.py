"""Jupyter's wire protocol as the relay speaks it: what is signed, what is refused, what a connection file may say."""

import json

import pytest
from jupyter_client.session import Session

from container_magic.errors import OptionError
from container_magic.kernel.client_side import read_connection_file
from container_magic.kernel.wire import Frames, ParentHeader, Signer, WireError, digest_of

KEY = b"a key"
MESSAGE = Frames(
    identities=(b"client",),
    header=b'{"msg_id":"1","msg_type":"execute_request"}',
    content=b'{"code":"1"}',
    buffers=(b"x", b"y"),
)
INFO = {
    "ip": "127.0.0.1",
    "transport": "tcp",
    "key": "k",
    "signature_scheme": "hmac-sha256",
    "shell_port": 1,
    "iopub_port": 2,
    "stdin_port": 3,
    "control_port": 4,
    "hb_port": 5,
}


def test_message_comes_back_as_it_was():
    """Identities, the four pieces of JSON and the buffers."""
    assert Signer(key=KEY).unpack(Signer(key=KEY).pack(MESSAGE)) == MESSAGE


def test_signature_is_jupyters():
    """jupyter_client takes what is packed here."""
    session = Session(key=KEY)
    parts = Signer(key=KEY).pack(MESSAGE)
    _, rest = session.feed_identities(parts)
    assert session.deserialize(rest)["content"]["code"] == "1"


@pytest.mark.parametrize("place", range(1, 7))
def test_changed_piece_is_refused(place):
    """Delimiter, signature, header, parent, metadata, content."""
    parts = Signer(key=KEY).pack(MESSAGE)
    parts[place] += b" "
    with pytest.raises(WireError):
        Signer(key=KEY).unpack(parts)


def test_message_that_has_come_before_is_refused():
    """Whoever has heard one cannot have it run again; where nothing is signed nothing can be told apart."""
    once = Signer(key=KEY, once=True)
    parts = once.pack(MESSAGE)
    once.unpack(parts)
    with pytest.raises(WireError, match="come before"):
        once.unpack(parts)
    unsigned = Signer(key=b"", once=True)
    parts = unsigned.pack(MESSAGE)
    assert unsigned.unpack(parts) == unsigned.unpack(parts) == MESSAGE


@pytest.mark.parametrize("parts", [[], [b"x"], [b"<IDS|MSG>"], [b"<IDS|MSG>", b"", b"{}"], [b"x"] * 100])
def test_what_is_no_message_is_refused(parts):
    """Too short, or without its delimiter."""
    with pytest.raises(WireError):
        Signer(key=KEY).unpack(parts)


def test_requests_with_one_msg_id_have_two_names():
    """A manager's interrupt and its client's cell may share a ``msg_id``."""
    cell = ParentHeader(msg_id="s_1", msg_type="execute_request")
    assert cell.name != ParentHeader(msg_id="s_1", msg_type="interrupt_request").name
    assert ParentHeader().name == ""


@pytest.mark.parametrize("scheme", ["", "hmac-", "hmac-nothing", "hmac-shake_128", "sha256", "hmac-sha256 "])
def test_unknown_signature_scheme_is_refused(scheme):
    """Nothing is signed in another way than was asked."""
    with pytest.raises(OptionError, match="signature_scheme"):
        digest_of(scheme)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"shell_port": "1"}, "no connection file"),
        ({"transport": "udp"}, "no connection file"),
        ({"signature_scheme": "none"}, "signature_scheme"),
        ({"curve_secretkey": "x" * 40}, "CurveZMQ"),
    ],
)
def test_connection_file_that_asks_for_something_else_is_refused(tmp_path, change, words):
    """In one line, and never served with less than it asks for."""
    path = tmp_path / "connection.json"
    path.write_text(json.dumps({**INFO, **change}))
    with pytest.raises(OptionError, match=words):
        read_connection_file(str(path))


def test_connection_file_of_jupyter_is_read(tmp_path):
    """Unknown fields are Jupyter's own affair."""
    path = tmp_path / "connection.json"
    path.write_text(json.dumps({**INFO, "kernel_name": "contained", "jupyter_session": "x"}))
    assert read_connection_file(str(path)).endpoint("stdin") == "tcp://127.0.0.1:3"
    path.write_text(json.dumps({**INFO, "transport": "ipc", "ip": "/run/k"}))
    assert read_connection_file(str(path)).endpoint("iopub") == "ipc:///run/k-2"


def test_missing_connection_file_is_named(tmp_path):
    """With the reason."""
    with pytest.raises(OptionError, match=r"missing\.json: No such file"):
        read_connection_file(str(tmp_path / "missing.json"))

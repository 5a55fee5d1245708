"""The relay's filter: every message is built anew from the fields that the protocol has, whatever comes."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page import assert_inert
from test_kernel_widgets import JSON, message
from test_sanitize_html import HOSTILE

from container_magic.kernel import replies
from container_magic.kernel.filter import NOTES, Filter

FIELDS = {
    ("iopub", "status"): {"execution_state"},
    ("iopub", "stream"): {"name", "text"},
    ("iopub", "display_data"): {"data", "metadata", "transient"},
    ("iopub", "update_display_data"): {"data", "metadata", "transient"},
    ("iopub", "execute_result"): {"data", "metadata", "transient", "execution_count"},
    ("iopub", "execute_input"): {"code", "execution_count"},
    ("iopub", "error"): {"ename", "evalue", "traceback"},
    ("iopub", "clear_output"): {"wait"},
    ("iopub", "debug_event"): {"type", "event", "seq", "body"},
    ("iopub", "shutdown_reply"): {"status", "restart"},
    ("shell", "execute_reply"): {"status", "execution_count", "user_expressions", "payload"},
    ("shell", "inspect_reply"): {"status", "found", "data", "metadata"},
    ("shell", "complete_reply"): {"status", "matches", "cursor_start", "cursor_end", "metadata"},
    ("shell", "is_complete_reply"): {"status", "indent"},
    ("shell", "history_reply"): {"status", "history"},
    ("shell", "comm_info_reply"): {"status", "comms"},
    ("shell", "kernel_info_reply"): {
        *("status", "protocol_version", "implementation", "implementation_version", "language_info", "banner"),
        *("help_links", "debugger", "supported_features"),
    },
    ("control", "interrupt_reply"): {"status"},
    ("control", "shutdown_reply"): {"status", "restart"},
    ("control", "debug_reply"): {"type", "seq", "request_seq", "success", "command", "message", "body"},
    ("control", "create_subshell_reply"): {"status", "subshell_id"},
    ("control", "delete_subshell_reply"): {"status"},
    ("control", "list_subshell_reply"): {"status", "subshell_id"},
    ("stdin", "input_request"): {"prompt", "password"},
}
ERROR = {"status", "ename", "evalue", "traceback"}


def clean(channel, kind, content, mode="safe", **keys):
    """Return the content that goes to the client and the notes; None when the message is dropped."""
    given_message = message(kind, content, **keys)
    out = Filter(mode, False).clean(channel, given_message)
    notes = [one.content["text"] for one in out if one.msg_id != given_message.msg_id]
    shown = [one for one in out if one.msg_id == given_message.msg_id]
    assert all(one.parent_id == given_message.parent_id for one in out)
    return (shown[0].content if shown else None), notes


NORMAL = [
    ("iopub", "status", {"execution_state": "busy"}),
    ("iopub", "stream", {"name": "stdout", "text": "a\n\x1b[31mred\x1b[0m"}),
    ("iopub", "display_data", {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "one"}}),
    ("iopub", "update_display_data", {"data": {"text/plain": "x"}, "metadata": {}, "transient": {"display_id": "o"}}),
    ("iopub", "execute_result", {"data": {"text/plain": "x"}, "metadata": {}, "transient": {}, "execution_count": 3}),
    ("iopub", "execute_input", {"code": "print(1)\n# é <b>", "execution_count": 3}),
    ("iopub", "error", {"ename": "E", "evalue": "v", "traceback": ["\x1b[0;31mE\x1b[0m: v"]}),
    ("iopub", "clear_output", {"wait": True}),
    ("iopub", "debug_event", {"type": "event", "event": "stopped", "seq": 4, "body": {"threadId": 1}}),
    ("iopub", "shutdown_reply", {"status": "ok", "restart": True}),
    (
        "shell",
        "execute_reply",
        {
            "status": "ok",
            "execution_count": 3,
            "user_expressions": {"x": {"status": "ok", "data": {"text/plain": "1"}, "metadata": {}}},
            "payload": [{"source": "page", "data": {"text/plain": "help"}, "start": 0}],
        },
    ),
    (
        "shell",
        "execute_reply",
        {
            "status": "error",
            "execution_count": 3,
            "user_expressions": {},
            "payload": [],
            "ename": "E",
            "evalue": "v",
            "traceback": ["t"],
        },
    ),
    ("shell", "execute_reply", {"status": "aborted"}),
    ("shell", "inspect_reply", {"status": "ok", "found": True, "data": {"text/plain": "doc"}, "metadata": {}}),
    ("shell", "inspect_reply", {"status": "ok", "found": False, "data": {}, "metadata": {}}),
    (
        "shell",
        "complete_reply",
        {
            "status": "ok",
            "matches": ["print"],
            "cursor_start": 0,
            "cursor_end": 3,
            "metadata": {
                "_jupyter_types_experimental": [
                    {"start": 0, "end": 3, "text": "print", "type": "function", "signature": "(*args)"}
                ]
            },
        },
    ),
    ("shell", "is_complete_reply", {"status": "incomplete", "indent": "    "}),
    ("shell", "is_complete_reply", {"status": "complete"}),
    ("shell", "history_reply", {"status": "ok", "history": [[1, 2, "x = 1"], [1, 3, ["x", "1"]], [1, 4, ["y", None]]]}),
    ("shell", "comm_info_reply", {"status": "ok", "comms": {}}),
    (
        "shell",
        "kernel_info_reply",
        {
            "status": "ok",
            "protocol_version": "5.5",
            "implementation": "ipython",
            "implementation_version": "9.1.0",
            "language_info": {
                "name": "python",
                "version": "3.11.2",
                "mimetype": "text/x-python",
                "file_extension": ".py",
                "pygments_lexer": "ipython3",
                "codemirror_mode": {"name": "ipython", "version": 3},
                "nbconvert_exporter": "python",
            },
            "banner": "Python 3.11.2 (main) [GCC 12]\nType 'copyright'",
            "help_links": [{"text": "Python Reference", "url": "https://docs.python.org/3.11"}],
            "debugger": True,
            "supported_features": ["debugger", "kernel subshells"],
        },
    ),
    ("control", "interrupt_reply", {"status": "ok"}),
    ("control", "interrupt_reply", {"status": "error", "ename": "E", "evalue": "v", "traceback": []}),
    ("control", "shutdown_reply", {"status": "ok", "restart": False}),
    ("control", "debug_reply", {"type": "response", "seq": 1, "success": True, "body": {"isStarted": True}}),
    ("control", "create_subshell_reply", {"status": "ok", "subshell_id": "abc-1"}),
    ("control", "delete_subshell_reply", {"status": "ok"}),
    ("control", "list_subshell_reply", {"status": "ok", "subshell_id": ["abc-1"]}),
    ("stdin", "input_request", {"prompt": "name? ", "password": True}),
]


@pytest.mark.parametrize(("channel", "kind", "content"), NORMAL)
def test_what_a_kernel_says_comes_through_as_it_is(channel, kind, content):
    """A field more, and it is gone; without a note."""
    assert clean(channel, kind, content) == (content, [])
    assert clean(channel, kind, content | {"extra": "x"}) == (content, [])


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(FIELDS)), st.sampled_from(["text", "safe", "iframe"]), st.data())
def test_any_json_gives_known_fields_only(known, mode, data):
    """Nothing is raised, and no field comes through that the protocol does not have."""
    channel, kind = known
    names = sorted(FIELDS[known] | ERROR | {"user_expressions", "payload"})
    content = data.draw(st.dictionaries(st.sampled_from([*names, "evil"]), JSON, max_size=8))
    shown, _ = clean(channel, kind, content, mode=mode)
    if shown is not None:
        json.dumps(shown).encode()
        assert set(shown) <= FIELDS[known] | (ERROR if "reply" in kind else set())


@pytest.mark.parametrize("payload", HOSTILE)
@pytest.mark.parametrize("kind", ["display_data", "execute_reply", "inspect_reply", "debug_reply"])
def test_hostile_html_is_cleaned_wherever_a_bundle_stands(kind, payload):
    """Outputs, the pager, user expressions, inspection and the debugger's rich variables run nothing."""
    bundle = {"data": {"text/html": payload}, "metadata": {}}
    content = {
        "display_data": bundle,
        "execute_reply": {
            "status": "ok",
            "payload": [{"source": "page", "start": 0, **bundle}],
            "user_expressions": {"x": {"status": "ok", **bundle}},
        },
        "inspect_reply": {"status": "ok", "found": True, **bundle},
        "debug_reply": {"success": True, "body": bundle},
    }[kind]
    channel = {"display_data": "iopub", "debug_reply": "control"}.get(kind, "shell")
    shown, _ = clean(channel, kind, content)
    found = [shown.get("data"), shown.get("body", {}).get("data")]
    found += [one["data"] for one in shown.get("payload", [])]
    found += [one["data"] for one in shown.get("user_expressions", {}).values()]
    for data in filter(None, found):
        assert set(data) <= {"text/plain", "text/html"}
        assert_inert(data.get("text/html", ""))


@pytest.mark.parametrize("source", ["set_next_input", "edit_magic", "evil", None, 3])
def test_payloads_that_change_the_notebook_are_dropped(source):
    """With a note, before the reply."""
    out = Filter("safe", False).clean(
        "shell", message("execute_reply", {"status": "ok", "payload": [{"source": source, "text": "import os"}]})
    )
    assert [one.msg_type for one in out] == ["stream", "execute_reply"]
    assert "may not change the notebook" in out[0].content["text"]
    assert out[1].content["payload"] == []


def test_console_is_told_that_its_kernel_exits():
    """And never that it should leave the kernel behind."""
    payload = {"source": "ask_exit", "keepkernel": True, "text": "evil"}
    (reply,) = Filter("safe", False).clean("shell", message("execute_reply", {"status": "ok", "payload": [payload]}))
    assert reply.content["payload"] == [{"source": "ask_exit", "keepkernel": False}]


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("nbconvert_exporter", "evil.Exporter", "script"),
        ("file_extension", "/../../x.py", ".txt"),
        ("mimetype", "text/html; x", "text/plain"),
        ("pygments_lexer", "<b>", ""),
        ("codemirror_mode", {"name": "<b>", "evil": 1}, {"name": "ipython"}),
        ("codemirror_mode", ["x"], ""),
    ],
)
def test_language_is_described_by_plain_words(field, value, shown):
    """What tools import, open or look up by name is checked; an exporter's name with a dot is imported by nbconvert."""
    content, _ = clean("shell", "kernel_info_reply", {"status": "ok", "language_info": {"name": "x", field: value}})
    assert content["language_info"][field] == shown


@pytest.mark.parametrize(
    "url",
    [
        "javascript:alert(1)",
        "https://evil.example/",
        "https://docs.python.org@evil.example/",
        "https://docs.python.org:81/",
        "https://docs.python.org/\"onclick='x'",
        "data:text/html,x",
        ["https://docs.python.org/"],
        None,
    ],
)
def test_help_links_lead_to_documentation_only(url):
    """Others are left out."""
    content, _ = clean("shell", "kernel_info_reply", {"help_links": [{"text": "Help", "url": url}, "x"]})
    assert content["help_links"] == []


def test_an_unfinished_sequence_waits_for_its_rest_and_no_longer_than_the_cell():
    """Pieces are one text for each stream of each cell; what is left goes before the end."""
    checked = Filter("safe", False)

    def send(text, name="stdout", parent="cell"):
        out = checked.clean("iopub", message("stream", {"name": name, "text": text}, parent=parent))
        return "".join(one.content["text"] for one in out)

    assert send("a\x1b[3") == "a"
    assert send("b", "stderr") == "b"
    assert send("c", parent="other") == "c"
    assert send("1mred") == "\x1b[31mred"
    assert send("\x1b]0;title") == ""
    out = checked.clean("iopub", message("status", {"execution_state": "idle"}))
    assert [one.msg_type for one in out] == ["stream", "status"]
    assert out[0].content == {"name": "stdout", "text": "]0;title\x1b[0m"}


@pytest.mark.parametrize("state", ["dead", "restarting", "<b>", None, 1, ["idle"]])
def test_states_that_a_server_gives_are_not_believed(state):
    """A page would say that the kernel died, or start its own handling of a restart."""
    assert clean("iopub", "status", {"execution_state": state}) == (None, [])


def test_unknown_messages_are_dropped_with_one_note_for_each_cell():
    """Not one for each message, and not more than a few kinds."""
    checked = Filter("safe", False)
    out = [one for _ in range(50) for one in checked.clean("iopub", message("evil", {}))]
    assert [one.msg_type for one in out] == ["stream"]
    assert len(checked.clean("iopub", message("evil", {}, parent="next"))) == 1
    many = [
        one
        for number in range(100)
        for one in checked.clean("iopub", message("display_data", {"data": {f"image/x{number}": "x"}}, parent="third"))
        if one.msg_type == "stream"
    ]
    assert len(many) == NOTES


@pytest.mark.parametrize(
    ("channel", "kind"),
    [
        ("iopub", "iopub_welcome"),
        ("iopub", "execute_reply"),
        ("shell", "display_data"),
        ("shell", "usage_reply"),
        ("control", "usage_reply"),
        ("shell", "input_request"),
        ("stdin", "execute_reply"),
        ("stdin", "evil"),
        ("control", "execute_reply"),
    ],
)
def test_messages_on_the_wrong_channel_are_dropped(channel, kind):
    """A type is known on its own channel only."""
    assert clean(channel, kind, {"status": "ok", "data": {"text/plain": "x"}})[0] is None


def test_what_a_reply_says_of_its_run_stays():
    """Of metadata only times and the like of an execute_reply, for the page's own clock."""
    kept = {"started": "2026-01-01T00:00:00.000000Z", "dependencies_met": True, "engine": "a-b", "status": "ok"}
    (out,) = Filter("safe", False).clean(
        "shell", message("execute_reply", {"status": "ok"}, metadata=kept | {"evil": "<b>"}, buffers=[b"x"])
    )
    assert (out.metadata, out.buffers) == (kept, ())
    (out,) = Filter("safe", False).clean("iopub", message("clear_output", {}, metadata={"evil": 1}, buffers=[b"x"]))
    assert (out.metadata, out.buffers) == ({}, ())


def test_sizes_are_capped():
    """Matches, history, prompts and display ids."""
    content, _ = clean("shell", "complete_reply", {"matches": ["x" * 5000] * 20_000})
    assert len(content["matches"]) == replies.MATCHES
    assert len(content["matches"][0]) == 1000
    content, _ = clean("shell", "history_reply", {"history": [[0, 0, "x" * 100_000]] * 1000})
    assert sum(len(entry[2]) for entry in content["history"]) <= replies.HISTORY_CHARACTERS
    content, _ = clean("stdin", "input_request", {"prompt": "\x1b[31mx" * 5000})
    assert len(content["prompt"]) <= replies.PROMPT_CHARACTERS
    assert "\x1b" not in content["prompt"]
    content, _ = clean("iopub", "display_data", {"data": {}, "transient": {"display_id": "x" * 999, "evil": 1}})
    assert content["transient"] == {"display_id": "x" * 256}

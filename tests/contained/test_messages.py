"""Every request that a front end can make, and the order and the headers of what it gets."""

import re
import time

import pytest
from contained import LIMITS
from kernels import TIMEOUT_SECONDS

pytestmark = pytest.mark.xdist_group("kernel_messages")

FIRST = "import sys\nfrom IPython.display import clear_output, display\n"


def test_code_runs_in_a_container_and_not_on_the_host(kernel):
    """The kernel's process is not the launcher's, its network has the loopback device alone, and pid 1 is another."""
    cell = kernel.run("import os, socket\nprint(os.getppid(), [name for _, name in socket.if_nameindex()])")
    assert cell.text("stdout") == "1 ['lo']\n"


def test_messages_of_a_cell_come_in_the_order_of_the_protocol(kernel):
    """Busy, input, what was printed before what was displayed, the result, idle; all with the header of the request."""
    request = kernel.send(FIRST + "print('one')\ndisplay('two')\nprint('three', file=sys.stderr)\n4")
    messages = kernel.messages(request)
    reply = kernel.answer(request)

    assert [message["msg_type"] for message in messages] == [
        "status", "execute_input", "stream", "display_data", "stream", "execute_result", "status",
    ]  # fmt: skip
    assert [message["content"].get("execution_state") for message in (messages[0], messages[-1])] == ["busy", "idle"]
    assert {message["parent_header"]["session"] for message in [*messages, reply]} == {kernel.client.session.session}
    assert {message["parent_header"]["msg_type"] for message in [*messages, reply]} == {"execute_request"}
    assert len({message["header"]["msg_id"] for message in [*messages, reply]}) == len(messages) + 1
    assert (reply["msg_type"], reply["content"]["status"]) == ("execute_reply", "ok")


def test_a_thousand_prints_arrive_in_order(kernel):
    """No line is lost, doubled or overtaken, and each stream keeps its own text."""
    cell = kernel.run(
        "import sys\nfor i in range(1000):\n    print(i, flush=True)\n    if i % 100 == 0: print(-i, file=sys.stderr)"
    )
    assert cell.text("stdout").split() == [str(i) for i in range(1000)]
    assert cell.text("stderr").split() == [str(-i) for i in range(0, 1000, 100)]


def test_displays_updates_and_clearing_keep_their_order(kernel):
    """An update names the display that it replaces; ``clear_output`` stands where the code called it."""
    code = (
        "handle = display('first', display_id=True)\nprint('between')\nhandle.update('second')\nclear_output()\n"
        "display('third')"
    )
    cell = kernel.run(FIRST + code)
    assert cell.kinds() == [
        ("display_data", "'first'"),
        "between\n",
        ("update_display_data", "'second'"),
        ("clear_output", ""),
        ("display_data", "'third'"),
    ]
    shown, updated = cell.of("display_data")[0], cell.of("update_display_data")[0]
    assert shown["transient"]["display_id"] == updated["transient"]["display_id"]


def test_update_of_an_earlier_cells_display_names_it(kernel):
    """A handle that is kept updates the display of the cell that made it."""
    shown = kernel.run(FIRST + "kept = display('first', display_id='mine')")
    updated = kernel.run("kept.update('second')")
    assert shown.of("display_data")[0]["transient"]["display_id"] == "mine"
    assert updated.of("update_display_data")[0]["transient"]["display_id"] == "mine"


@pytest.mark.parametrize("text", ["Grüße 漢字 🐧", "e\N{COMBINING ACUTE ACCENT}\u2028\u200b", "\\ud800 \" ' \\n"])
def test_text_of_any_script_arrives_as_it_is(kernel, text):
    """In what is printed, in a result, in code, in an error and in a reply's own fields."""
    printed = kernel.run(f"text = {text!r}\nprint(text)\ntext")
    failed = kernel.run(f"raise ValueError({text!r})")
    inspected = kernel.ask("inspect_request", {"code": "text", "cursor_pos": 4, "detail_level": 0})

    assert printed.text("stdout") == f"{text}\n"
    assert printed.of("execute_result")[0]["data"]["text/plain"] == repr(text)
    assert failed.reply["evalue"] == failed.of("error")[0]["evalue"] == text
    assert text in inspected["data"]["text/plain"]


def test_what_printed_bytes_are_no_text_is_replaced(kernel):
    """A cell that writes no UTF-8 to its descriptor is shown with marks, and the kernel goes on."""
    cell = kernel.run("import os, sys\nsys.stdout.flush()\n_ = os.write(1, b'a\\xff\\xfeb\\n')")
    assert cell.reply["status"] == "ok"
    # ipykernel reads the descriptor in a thread of its own: the bytes may come with the next cell, and after its text
    assert "next" in kernel.run("print('next')").text("stdout").splitlines()


def test_lone_surrogate_is_an_error_of_its_cell_or_replaced(kernel):
    """Half a character can be made inside and has no encoding: it does not end the kernel."""
    kernel.run("'\\ud800'")
    kernel.run("raise ValueError('\\ud800')")
    kernel.run("print('\\ud800')")
    assert kernel.run("print('next')").text("stdout").endswith("next\n")


def test_ten_megabytes_arrive_whole(start):
    """What is below the cap of output is all there, in order, however fast it is printed."""
    cell = start(*LIMITS, "--max-output", "16M").run("for i in range(100_000):\n    print(f'{i:09} ' + 'x' * 89)")
    lines = cell.text("stdout").splitlines()
    assert len(lines) == 100_000
    assert [int(line[:9]) for line in lines] == list(range(100_000))
    assert {line[9:] for line in lines} == {" " + "x" * 89}


def test_output_beyond_the_cap_is_counted(start):
    """The head and the tail are shown, and between them how much is missing: all bytes are accounted for."""
    cell = start(*LIMITS, "--max-output", "1M").run("for i in range(50_000):\n    print(f'{i:09} ' + 'x' * 89)")
    text = cell.text("stdout")
    assert text.startswith("000000000 x") and text.rstrip().endswith("x")
    assert "000049999 x" in text
    missing = sum(int(count.replace(",", "")) for count in re.findall(r"\[\.\.\. ([\d,]+) bytes not shown", text))
    assert missing > 3_000_000
    assert len(text) < 2_000_000


def test_large_message_arrives_in_one_piece(kernel):
    """What is printed at once is not cut by the sockets that it goes through."""
    assert kernel.run("print('y' * 1_500_000)").text("stdout") == "y" * 1_500_000 + "\n"


def test_failing_cell_aborts_those_that_wait(kernel):
    """Run-all stops at the first error: what was sent with it is answered with ``aborted``."""
    failing, waiting = kernel.send("import time; time.sleep(0.5); 1 / 0"), kernel.send("print('not reached')")
    replies = {request: kernel.answer(request)["content"] for request in (failing, waiting)}
    assert (replies[failing]["ename"], replies[waiting]["status"]) == ("ZeroDivisionError", "aborted")
    assert not any(message["msg_type"] == "stream" for message in kernel.messages(waiting))
    # ipykernel stops aborting in its loop's next round: what is quicker than that is aborted, too
    assert [kernel.run("1").reply["status"] for _ in range(5)][-1] == "ok"


def test_silent_cell_shows_nothing_and_user_expressions_are_answered(kernel):
    """``silent`` keeps output away and does not count; expressions are in the reply, their failures too."""
    count = kernel.run("1").reply["execution_count"]
    request = kernel.send("value = 6 * 7", silent=True, user_expressions={"good": "value", "bad": "1 / 0"})
    kinds = {message["msg_type"] for message in kernel.messages(request)}
    reply = kernel.answer(request)["content"]
    assert kinds == {"status"}
    assert reply["user_expressions"]["good"]["data"]["text/plain"] == "42"
    assert reply["user_expressions"]["bad"]["ename"] == "ZeroDivisionError"
    assert kernel.run("1").reply["execution_count"] == count + 1


def test_completion_inspection_and_completeness_are_answered(kernel):
    """What a front end asks while one types."""
    kernel.run("frobnicate = {'alpha': 1}\ndef documented():\n    'Says what it does.'")
    matches = kernel.ask("complete_request", {"code": "frobni", "cursor_pos": 6})["matches"]
    inspected = kernel.ask("inspect_request", {"code": "documented", "cursor_pos": 3, "detail_level": 1})
    complete = [kernel.ask("is_complete_request", {"code": code})["status"] for code in ("1", "def f():", "1 +* 2")]
    assert matches == ["frobnicate"]
    assert "Says what it does." in inspected["data"]["text/plain"]
    assert complete == ["complete", "incomplete", "invalid"]


def test_history_of_the_session_is_answered(kernel):
    """The tail has the last inputs, with output where it is asked for; a search finds by pattern."""
    kernel.run("'remembered one'")
    kernel.run("'remembered two'")
    tail = kernel.ask("history_request", {"hist_access_type": "tail", "n": 2, "output": False, "raw": True})
    asked = {"hist_access_type": "search", "pattern": "*bered t*", "n": 9, "output": True, "raw": True}
    found = kernel.ask("history_request", asked)
    assert [line for _, _, line in tail["history"]] == ["'remembered one'", "'remembered two'"]
    assert [line for _, _, (line, _) in found["history"]] == ["'remembered two'"]


def test_kernel_info_and_connect_info_are_of_this_kernel(kernel):
    """The language is Python's, the features are ipykernel's, and the ports, if told, are the launcher's own."""
    info = kernel.ask("kernel_info_request")
    assert info["language_info"]["name"] == "python"
    assert {"debugger", "kernel subshells"} <= set(info["supported_features"])
    assert re.fullmatch(r"5\.\d+", info["protocol_version"])


def test_pager_of_a_question_mark_is_in_the_reply(kernel):
    """``zip?`` opens the front end's pager: the one payload that shows text and does nothing."""
    (payload,) = kernel.run("zip?").reply["payload"]
    assert payload["source"] == "page"
    assert "zip" in payload["data"]["text/plain"]


@pytest.mark.parametrize(
    "code",
    [
        "get_ipython().set_next_input('import os')",
        "%recall 1",
        "get_ipython().payload_manager.write_payload({'source': 'x'})",
    ],
)
def test_payload_that_acts_on_the_front_end_stays_inside(kernel, code):
    """No cell is written into the notebook by what the code says."""
    assert kernel.run(code).reply.get("payload", []) == []


def test_input_and_password_are_asked_of_the_client(kernel):
    """The prompt arrives, what is typed goes in, and only the password is asked hidden."""
    cell, asked = kernel.run_and_answer(
        "from getpass import getpass\nprint(input('name? ').upper(), getpass('secret? ')[::-1])", "ada", "abc"
    )
    assert asked == [{"prompt": "name? ", "password": False}, {"prompt": "secret? ", "password": True}]
    assert cell.text("stdout") == "ADA cba\n"


def test_input_is_asked_of_the_client_that_ran_the_cell(kernel):
    """Another client of the same kernel is not asked."""
    with kernel.another_client() as other:
        cell, asked = kernel.run_and_answer("input('mine? ')", "yes")
        assert (asked[0]["prompt"], cell.of("execute_result")[0]["data"]["text/plain"]) == ("mine? ", "'yes'")
        assert not other.stdin_channel.socket.poll(0)


def test_input_without_a_client_that_answers_is_an_error(kernel):
    """A front end that cannot be asked says so with ``allow_stdin``."""
    assert kernel.run("input('who? ')").reply["ename"] == "StdinNotImplementedError"


def test_two_clients_get_their_own_replies_and_see_each_others_output(kernel):
    """Replies go to who asked; iopub goes to all with the header of the request that it belongs to."""
    with kernel.another_client() as other:
        request = kernel.send("print('mine')")
        theirs = other.execute("print('theirs')")
        assert kernel.answer(request)["content"]["status"] == "ok"
        replies = iter(lambda: other.get_shell_msg(timeout=TIMEOUT_SECONDS), None)
        # while it was busy it may have been asked more than once whether it is ready
        reply = next(one for one in replies if one["msg_type"] != "kernel_info_reply")
        assert reply["parent_header"]["msg_id"] == theirs
        seen = {}
        while {request, theirs} - set(seen):
            message = other.get_iopub_msg(timeout=TIMEOUT_SECONDS)
            if message["msg_type"] == "stream":
                seen[message["parent_header"]["msg_id"]] = message["content"]["text"]
        assert (seen[request], seen[theirs]) == ("mine\n", "theirs\n")


def test_message_with_a_wrong_signature_is_not_run(kernel):
    """Who does not hold the connection file's key is not heard, and the kernel answers those who do."""
    with kernel.another_client(key=b"another key") as stranger:
        stranger.execute("forged = True")
        stranger.control_channel.send(stranger.session.msg("shutdown_request", {"restart": False}))
        time.sleep(0.5)
        assert kernel.value("'forged' in globals()") == "False"


def test_request_of_an_unknown_type_does_not_end_the_kernel(kernel):
    """On every channel; what follows is answered."""
    for channel in ("shell", "control"):
        kernel.request("nothing_request", {"deep": [[[]]]}, channel)
    assert kernel.run("print('next')").text("stdout") == "next\n"


def test_usage_is_the_containers_own(kernel):
    """``usage_request`` is answered with figures of the cgroup: its memory and its limit, not the host's."""
    usage = kernel.ask("usage_request", channel="control")
    assert 0 < usage["kernel_memory"] < usage["host_virtual_memory"]["total"]
    assert usage["host_virtual_memory"]["total"] == 512 * 1024**2
    assert usage["kernel_cpu"] >= 0


def test_usage_is_not_what_code_inside_says(kernel):
    """A kernel that is made to answer for itself is not asked."""
    code = (
        "kernel = get_ipython().kernel\n"
        "async def lie(*_): kernel.session.send(kernel.control_stream, 'usage_reply', {'kernel_memory': 666})\n"
        "kernel.usage_request = kernel.control_handlers['usage_request'] = lie"
    )
    assert kernel.run(code).reply["status"] == "ok"
    assert kernel.ask("usage_request", channel="control")["kernel_memory"] > 1_000_000


def test_heartbeat_is_answered_while_a_cell_runs(kernel):
    """A front end that looks for a heartbeat finds one, however busy the kernel is."""
    request = kernel.send("import time\nend = time.time() + 3\nwhile time.time() < end: pass")
    kernel.answer(request, "iopub")
    kernel.client.hb_channel.unpause()
    time.sleep(2)
    beating = kernel.client.hb_channel.is_beating()
    kernel.answer(request)
    assert beating

"""Kernels of `contain kernel install`, and ordinary ones under the provisioner, as a manager of Jupyter starts them."""

import json
import sys

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from container_magic.cgroups.facts import probe
from container_magic.kernel.command import kernel

TIMEOUT_SECONDS = 60
OPTIONS = ["--mem", "512M"] if "memory" in probe().controllers else ["--best-effort"]
LOOK = "import os, socket; print(os.environ.get('SECRET'), os.environ.get('NAMED'), os.environ.get('OF_SPEC'), "
LOOK += "[name for _, name in socket.if_nameindex()], os.path.exists({!r}))"


@pytest.fixture
def jupyter(tmp_path, monkeypatch):
    """Give Jupyter directories of its own, and the server a secret."""
    for name in ("JUPYTER_CONFIG_DIR", "XDG_DATA_HOME", "IPYTHONDIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("SECRET", "token of the server")
    monkeypatch.setenv("NAMED", "1")
    return tmp_path


@pytest.fixture
def started(jupyter):
    """Return a function that starts a kernel by name and returns manager and client."""
    running = []

    def started(name, **how):
        specs = KernelSpecManager(kernel_dirs=[str(jupyter / "jupyter" / "kernels")])
        manager = KernelManager(kernel_name=name, kernel_spec_manager=specs)
        manager.start_kernel(**how)
        client = manager.client()
        running.append((manager, client))
        client.start_channels()
        client.wait_for_ready(timeout=TIMEOUT_SECONDS)
        return manager, client

    yield started
    for manager, client in running:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
        manager.context.destroy(0)


def printed(client, code):
    """Return what a cell prints; an error of the cell fails the test."""
    text = []
    reply = client.execute_interactive(
        code, timeout=TIMEOUT_SECONDS, output_hook=lambda message: text.append(message["content"].get("text", ""))
    )
    assert reply["content"]["status"] == "ok", reply["content"]
    return "".join(text)


def test_installed_kernel_runs_cells_in_a_container(jupyter, started):
    """Its cells see none of the server's environment, no network but lo, and no file that was not named."""
    kernel(["install", "--name", "boxed", "--dir", f"{jupyter}/jupyter/kernels", "-e", "NAMED", *OPTIONS])
    _, client = started("boxed")
    assert printed(client, LOOK.format(str(jupyter / "jupyter"))) == "None 1 None ['lo'] False\n"
    assert printed(client, "x = 6") == ""
    assert printed(client, "print(x * 7)") == "42\n"


def wrapped(jupyter, options):
    """Write an ordinary kernelspec with the provisioner's stanza."""
    place = jupyter / "jupyter" / "kernels" / "wrapped"
    place.mkdir(parents=True)
    stanza = {"provisioner_name": "container-magic", "config": {"options": options}}
    spec = {
        "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "wrapped",
        "language": "python",
        "env": {"OF_SPEC": "2"},
        "metadata": {"kernel_provisioner": stanza},
    }
    (place / "kernel.json").write_text(json.dumps(spec))


def test_provisioner_starts_an_ordinary_kernelspec_in_a_container(jupyter, started):
    """The same containment; the kernelspec's own variables are inside, and what nbclient appends is understood."""
    wrapped(jupyter, ["-e", "NAMED", *OPTIONS])
    _, client = started("wrapped", extra_arguments=["--HistoryManager.hist_file=:memory:"])
    assert printed(client, LOOK.format(str(jupyter / "jupyter"))) == "None 1 2 ['lo'] False\n"
    assert printed(client, "print(get_ipython().history_manager.hist_file)") == ":memory:\n"


def test_kernel_under_the_provisioner_is_interrupted_by_signal(jupyter, started):
    """An ordinary kernelspec says interrupt_mode signal: SIGINT to the launcher's group interrupts the cell."""
    wrapped(jupyter, OPTIONS)
    manager, client = started("wrapped")
    assert manager.kernel_spec.interrupt_mode == "signal"
    endless = "print('begun', flush=True)\nimport time\nwhile True: time.sleep(0.01)"
    # else a request that follows its error at once is aborted as one that stood behind it
    request = client.execute(endless, stop_on_error=False)
    while "begun" not in client.get_iopub_msg(timeout=TIMEOUT_SECONDS)["content"].get("text", ""):
        pass
    manager.interrupt_kernel()
    reply = client.get_shell_msg(timeout=TIMEOUT_SECONDS)
    while reply["parent_header"].get("msg_id") != request:
        reply = client.get_shell_msg(timeout=TIMEOUT_SECONDS)
    assert (reply["content"]["status"], reply["content"]["ename"]) == ("error", "KeyboardInterrupt")
    assert printed(client, "print('alive')") == "alive\n"


def test_shutdown_ends_the_launcher_in_order(jupyter, started):
    """After an ordinary shutdown the process that Jupyter knows has ended itself: it had not to be killed."""
    kernel(["install", "--name", "boxed", "--dir", f"{jupyter}/jupyter/kernels", *OPTIONS])
    manager, _ = started("boxed")
    process = manager.provisioner.process
    manager.shutdown_kernel()
    assert process.returncode == 0


def test_a_page_that_is_loaded_anew_gets_the_widgets_back(jupyter, started):
    """Comms of ipywidgets pass when allowed; a client's own comm is answered with the states of all, and no others."""
    place = f"{jupyter}/jupyter/kernels"
    kernel(["install", "--name", "widgets", "--dir", place, "--allow-widgets", *OPTIONS])
    _, client = started("widgets")
    code = "import ipywidgets\nslider = ipywidgets.IntSlider(value=7)\nslider.comm.send(data={'method': 'evil'})\n"
    code += "from comm import create_comm\ncreate_comm(target_name='evil')\nslider"
    seen = []
    client.execute_interactive(code, timeout=TIMEOUT_SECONDS, output_hook=seen.append)
    opened = [one["content"] for one in seen if one["msg_type"] == "comm_open"]
    assert [one["target_name"] for one in opened] == ["jupyter.widget"] * 3
    assert not [one for one in seen if one["msg_type"] == "comm_msg"]
    for kind, content in (
        ("comm_open", {"comm_id": "control", "target_name": "jupyter.widget.control", "data": {}}),
        ("comm_msg", {"comm_id": "control", "data": {"method": "request_states"}}),
    ):
        client.shell_channel.send(client.session.msg(kind, content, metadata={"version": "1.0.0"}))
    while (answer := client.get_iopub_msg(timeout=TIMEOUT_SECONDS))["msg_type"] != "comm_msg":
        pass
    states = answer["content"]["data"]["states"]
    assert set(states) == {one["comm_id"] for one in opened}
    assert states[opened[-1]["comm_id"]]["state"]["value"] == 7

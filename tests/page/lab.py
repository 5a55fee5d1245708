"""A JupyterLab of its own, with nothing of the user's, and a notebook of it in a browser's page."""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
import psutil

from container_magic.kernel.kernelspec import Installation, install

PATIENCE_SECONDS = 60
# kernelspecs of the server, by name, and the options of their containers
KERNELS = {"contained": ("--mem", "300M", "--net", "none"), "widgets": ("--mem", "300M", "--allow-widgets")}
RUN = "jupyterapp.commands.execute('notebook:run-all-cells')"
SETTINGS = {
    # every output is in the page at once: what is out of sight would be attached only when it is scrolled to
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "docmanager-extension/plugin": {"autosave": False},
}


class Lab:
    """A JupyterLab server on the loopback device, which works in directories below ``home`` alone."""

    def __init__(self, home: Path):
        self.root, self.token = home / "notebooks", secrets.token_hex(16)
        runtime, settings = home / "runtime", home / "settings"
        for name, values in SETTINGS.items():
            path = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values))
        self.root.mkdir()
        for name, words in KERNELS.items():
            kernels = str(home / "data" / "kernels")
            install(Installation(name=name, display_name=name, kernels_directory=kernels, words=words))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
        environment |= {
            "HOME": str(home),
            "IPYTHONDIR": str(home / "ipython"),
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(runtime),
            "JUPYTERLAB_SETTINGS_DIR": str(settings),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTER_TOKEN": self.token,
        }
        options = [
            "--no-browser",
            "--ServerApp.ip=127.0.0.1",
            "--ServerApp.port=0",
            f"--ServerApp.root_dir={self.root}",
            "--ServerApp.allow_root=True",
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
        ]
        self._log = home / "lab.log"
        with self._log.open("wb") as log:
            self.process = psutil.Popen(
                [sys.executable, "-m", "jupyterlab", *options],
                cwd=self.root, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self.url = self._address(runtime)
        except BaseException:
            self.stop()
            raise

    def _address(self, runtime):
        """Return the address of the server once it answers: the file that names it comes a moment before."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            for path in runtime.glob(f"jpserver-{self.process.pid}.json"):
                with contextlib.suppress(OSError, ValueError):
                    self.url = json.loads(path.read_text())["url"].rstrip("/")
                    self.api("status")
                    return self.url
            time.sleep(0.05)
        raise AssertionError(f"JupyterLab did not start: {self._log.read_text()}")

    def api(self, path):
        """Return what the server's API answers to a GET."""
        request = urllib.request.Request(f"{self.url}/api/{path}", headers={"Authorization": f"token {self.token}"})
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)

    def kernel_processes(self):
        """Return the kernels' processes."""
        return [child for child in self.process.children() if "ipykernel_launcher" in " ".join(child.cmdline())]

    def stop(self):
        """End the server, which ends its kernels."""
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


@dataclass
class Log:
    """What a page did that somebody could mind: requests by address, dialogs, pages opened, console."""

    requests: list = field(default_factory=list)
    dialogs: list = field(default_factory=list)
    opened: list = field(default_factory=list)
    console: list = field(default_factory=list)

    def foreign(self, own):
        """Return the requests over a network for anything but addresses that begin with one of ``own``."""
        return [url for url in self.requests if url.startswith(("http", "ws", "ftp")) and not url.startswith(own)]


class Notebook:
    """A notebook in a page of a browser; its cells are run and read as a user does."""

    def __init__(self, lab, context, name, cells, *, goes_on=False, kernel="python3"):
        self.lab, self.name, self.log = lab, name, Log()
        metadata = {"kernelspec": {"name": kernel, "display_name": kernel, "language": "python"}}
        # a failing cell does not stop those below it where the tests say so by the tag that Jupyter has for it
        tags = {"tags": ["raises-exception"]} if goes_on else {}
        code = [nbformat.v4.new_code_cell(cell, metadata=tags) for cell in cells]
        content = nbformat.v4.new_notebook(cells=code, metadata=metadata)
        nbformat.write(content, lab.root / f"{name}.ipynb")
        context.on("request", lambda request: self.log.requests.append(request.url))
        context.on("requestfailed", self._failed)
        self.page = context.new_page()
        self.page.on("console", lambda message: self.log.console.append(message.text))
        self.page.on("dialog", self._dismiss)
        context.on("page", lambda page: self.log.opened.append(page.url))
        self.page.goto(f"{lab.url}/doc/tree/{name}.ipynb?token={lab.token}")
        self.page.wait_for_function("window.jupyterapp && jupyterapp.shell.currentWidget?.sessionContext?.isReady")
        self.page.wait_for_function("jupyterapp.shell.currentWidget.sessionContext.session?.kernel?.status === 'idle'")

    def _failed(self, request):
        """Forget what a content security policy stopped before it left the browser."""
        if request.failure == "csp":
            self.log.requests.remove(request.url)

    def _dismiss(self, dialog):
        self.log.dialogs.append(dialog.message)
        dialog.dismiss()

    def start(self):
        """Run all cells without waiting for them."""
        self.page.evaluate(f"() => {{ window.finished = false; {RUN}.finally(() => {{ window.finished = true }}) }}")

    def finish(self):
        """Wait until the cells that were started have run."""
        self.page.wait_for_function("window.finished", timeout=PATIENCE_SECONDS * 1000)

    def run(self):
        """Run all cells and wait for them."""
        self.start()
        self.finish()

    def cell(self, number):
        """Return where a cell is in the page."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def shown(self, number):
        """Return the text of a cell's outputs as the page shows it."""
        return "\n".join(self.cell(number).locator(".jp-OutputArea-output").all_inner_texts())

    def outputs(self, number):
        """Return a cell's outputs as the page would save them."""
        return self.page.evaluate(
            "number => jupyterapp.shell.currentWidget.content.widgets[number].model.outputs.toJSON()", number
        )

    def sources(self):
        """Return the source of every cell that the page has."""
        return self.page.evaluate(
            "() => jupyterapp.shell.currentWidget.content.widgets.map(cell => cell.model.sharedModel.source)"
        )

    def type_into(self, number, text):
        """Click into the end of a cell and type."""
        self.cell(number).locator(".cm-content").click()
        self.page.keyboard.press("Control+End")
        self.page.keyboard.type(text)

    def command(self, name, **arguments):
        """Run a command of JupyterLab."""
        self.page.evaluate("([name, args]) => jupyterapp.commands.execute(name, args)", [name, arguments])

    def run_cell(self, number, text):
        """Type into an empty cell, run it alone, and return what it shows when it is over."""
        self.type_into(number, text)
        self.page.evaluate(
            "() => { window.finished = false;"
            " jupyterapp.commands.execute('notebook:run-cell').finally(() => { window.finished = true }) }"
        )
        self.finish()
        return self.shown(number)

    def close(self):
        """End the kernel and close the page."""
        self.page.evaluate("() => jupyterapp.shell.currentWidget.sessionContext.shutdown()")
        self.page.close(run_before_unload=False)

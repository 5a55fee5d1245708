"""A JupyterHub on loopback whose users' servers start contained kernels: its proxy, its login and its REST API."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from kernels import Cell
from leftovers import descendants, state_directories

from container_magic.cgroups.facts import probe

requests = pytest.importorskip("requests", reason="requests not installed: make test-clients")
websocket = pytest.importorskip("websocket", reason="websocket-client not installed: make test-clients")

pytestmark = [pytest.mark.xdist_group("jupyterhub"), pytest.mark.slow, pytest.mark.timeout(200)]

BIN = Path(sys.executable).parent
PROXY = BIN.parent / "proxy" / "node_modules" / ".bin" / "configurable-http-proxy"
PATIENCE_SECONDS = 60
LIMITS = ("--mem", "512M", "--pids", "64") if "memory" in probe().controllers else ("--best-effort",)
CONFIGURATION = """
c = get_config()
c.JupyterHub.authenticator_class = "dummy"
c.JupyterHub.spawner_class = "simple"
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.db_url = "sqlite:///{home}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{home}/cookie_secret"
c.ConfigurableHTTPProxy.command = ["{proxy}"]
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{api_port}"
c.JupyterHub.pid_file = "{home}/hub.pid"
c.ConfigurableHTTPProxy.pid_file = "{home}/proxy.pid"
c.SimpleLocalProcessSpawner.home_dir_template = "{home}/homes/{{username}}"
c.Spawner.cmd = ["{bin}/jupyterhub-singleuser"]
c.Spawner.args = ["--allow-root"]
c.Spawner.environment = {{"JUPYTER_PATH": "{home}/prefix/share/jupyter"}}
"""
SEEN = """
import json, os, socket
manager = open("/run/host/container-manager").read().strip() if os.path.exists("/run/host/container-manager") else ""
tokens = [name for name in os.environ if "TOKEN" in name or name.startswith("JUPYTERHUB")]
print(json.dumps([manager, socket.gethostname(), os.getcwd(), tokens]))
"""
LOOK = """
import os, socket
own = open("note.txt").read()
try:
    other = open({other!r}).read()
except OSError as error:
    other = type(error).__name__
try:
    reached = bool(socket.create_connection(("127.0.0.1", {port}), 2))
except OSError as error:
    reached = type(error).__name__
open("written.txt", "w").write("here")
print(own, other, reached, os.path.exists(os.path.dirname({other!r})))
"""


class Hub:
    """A running JupyterHub, its directories and its process."""

    def __init__(self, home):
        self.home = home
        sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        self.port, hub_port, api_port = (one.getsockname()[1] for one in sockets)
        for one in sockets:
            one.close()
        self.url = f"http://127.0.0.1:{self.port}"
        configuration = home / "jupyterhub_config.py"
        names = {"proxy": PROXY, "bin": BIN, "home": home}
        configuration.write_text(CONFIGURATION.format(port=self.port, hub_port=hub_port, api_port=api_port, **names))
        self.log = home / "hub.log"
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "IPYTHON"))}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [BIN / "jupyterhub", "--config", configuration], cwd=home, env=environment, stdout=log, stderr=log
            )

    def wait_until_up(self):
        """Wait until the proxy passes requests on to the hub."""

        def answers():
            assert self.process.poll() is None, self.log.read_text()
            try:
                return requests.get(f"{self.url}/hub/api/", timeout=5).ok
            except requests.ConnectionError:
                return False

        wait_until(answers, self.log)

    def stop(self):
        """Stop the hub, which stops the proxy and the servers of its users."""
        self.process.send_signal(signal.SIGTERM)  # nothing, where it has ended
        try:
            self.process.wait(PATIENCE_SECONDS)
        finally:
            self.process.kill()


def wait_until(true, log):
    """Wait until something holds, which is asked a few times a second."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)


class Person:
    """A user of the hub: who logs in as with the page's form, and goes on with a token."""

    def __init__(self, hub, name):
        self.hub, self.name = hub, name
        self.home = hub.home / "homes" / name
        with requests.Session() as browser:
            browser.get(f"{hub.url}/hub/login", timeout=30)
            form = {"username": name, "password": "any", "_xsrf": browser.cookies.get("_xsrf", path="/hub/")}
            answer = browser.post(f"{hub.url}/hub/login", data=form, timeout=30, allow_redirects=False)
            assert answer.status_code == 302, answer.text
            # a page for the new cookie of the one who is logged in
            browser.get(f"{hub.url}/hub/token", timeout=30).raise_for_status()
            headers = {"X-XSRFToken": browser.cookies.get("_xsrf", path="/hub/")}
            answer = browser.post(f"{hub.url}/hub/api/users/{name}/tokens", headers=headers, json={}, timeout=30)
            answer.raise_for_status()
        self.headers = {"Authorization": f"token {answer.json()['token']}"}

    def ask(self, method, path, **content):
        """Send a request to the hub or to the own server and return what is answered."""
        answer = requests.request(method, self.hub.url + path, headers=self.headers, timeout=60, **content)
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}\n{self.hub.log.read_text()}"
        return answer.json() if answer.content else None

    def server(self):
        """Return what the hub knows of the own server; empty = there is none."""
        return self.ask("GET", f"/hub/api/users/{self.name}")["servers"].get("", {})

    def start_server(self):
        """Have the hub spawn the own server, and wait for it."""
        self.ask("POST", f"/hub/api/users/{self.name}/server")
        wait_until(lambda: self.server().get("ready"), self.hub.log)

    def stop_server(self):
        """Have the hub stop the own server, with whatever it runs."""
        self.ask("DELETE", f"/hub/api/users/{self.name}/server")
        wait_until(lambda: not self.server(), self.hub.log)

    def save(self, name, text):
        """Write a file as the page does."""
        self.ask(
            "PUT", f"/user/{self.name}/api/contents/{name}", json={"type": "file", "format": "text", "content": text}
        )

    def start_kernel(self):
        """Start the kernel that a notebook of this user gets when none is chosen, and return its id."""
        return self.ask("POST", f"/user/{self.name}/api/kernels", json={"path": "notebook.ipynb"})["id"]

    def run(self, kernel, code):
        """Run a cell over the kernel's websocket."""
        url = f"ws{self.hub.url.removeprefix('http')}/user/{self.name}/api/kernels/{kernel}/channels"
        content = {"code": code, "silent": False, "store_history": True, "allow_stdin": False, "stop_on_error": True}
        header = {"msg_id": uuid.uuid4().hex, "session": uuid.uuid4().hex, "username": self.name, "version": "5.3"}
        request = {"header": header | {"msg_type": "execute_request"}, "parent_header": {}, "metadata": {}}
        cell, idle = Cell(), False
        page = websocket.create_connection(url, header=self.headers, timeout=PATIENCE_SECONDS)
        try:
            page.send(json.dumps(request | {"channel": "shell", "content": content, "buffers": []}))
            while not (idle and cell.reply):
                message = json.loads(page.recv())
                if message["parent_header"].get("msg_id") != header["msg_id"]:
                    continue
                if message["msg_type"] == "execute_reply":
                    cell.reply = message["content"]
                elif message["channel"] == "iopub":
                    cell.arrived.append((time.monotonic(), message["msg_type"], message["content"]))
                    idle = message["content"].get("execution_state") == "idle"
        finally:
            page.close()
        assert cell.reply["status"] == "ok", cell.reply
        return cell


@pytest.fixture
def hub(tmp_path):
    """Return a hub whose users have the contained kernel in the place of ``python3``."""
    if not PROXY.exists() or shutil.which("node") is None:
        pytest.skip("configurable-http-proxy not installed, which needs npm: make test-clients")
    words = ["kernel", "install", "--name", "python3", "--prefix", tmp_path / "prefix", *LIMITS]
    subprocess.run([BIN / "contain", *words], check=True, capture_output=True)
    hub = Hub(tmp_path)
    try:
        hub.wait_until_up()
        yield hub
    finally:
        hub.stop()


def containers():
    """Return the state directories of the containers that processes of this test have; others of this host go on."""
    own, found = descendants(), set()
    for path in state_directories():
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads((path / "state.json").read_text())["supervisor_pid"] in own:
                found.add(path)
    return found


def test_kernels_of_two_users_at_once_run_in_containers_and_see_their_own_files_alone(hub):
    """Cells saw a container and their user's home, no token, no file of the other and no hub, and changed no file."""
    people = [Person(hub, "ada"), Person(hub, "bob")]
    kernels = []
    for person in people:
        person.start_server()
        specs = person.ask("GET", f"/user/{person.name}/api/kernelspecs")
        assert (specs["default"], list(specs["kernelspecs"])) == ("python3", ["python3"])
        person.save("note.txt", f"of {person.name}")
        kernels.append(person.start_kernel())

    for person, other, kernel in zip(people, reversed(people), kernels, strict=True):
        manager, hostname, folder, tokens = json.loads(person.run(kernel, SEEN).text("stdout"))
        assert (manager, folder, tokens) == ("container_magic", str(person.home), [])
        assert hostname != socket.gethostname()
        looked = person.run(kernel, LOOK.format(other=str(other.home / "note.txt"), port=hub.port))
        assert looked.text("stdout") == f"of {person.name} FileNotFoundError ConnectionRefusedError False\n"
        assert not (person.home / "written.txt").exists()


def test_container_ends_with_its_kernel_with_the_users_server_and_with_the_hub(hub):
    """One state directory while a kernel runs, none after it, whoever of the three is stopped."""
    ada = Person(hub, "ada")
    ends = [
        lambda kernel: ada.ask("DELETE", f"/user/ada/api/kernels/{kernel}"),
        lambda kernel: ada.stop_server(),
        lambda kernel: hub.stop(),
    ]
    for end in ends:
        if not ada.server():
            ada.start_server()
        kernel = ada.start_kernel()
        assert ada.run(kernel, "print(6 * 7)").text("stdout") == "42\n"
        (container,) = containers()
        end(kernel)
        wait_until(lambda gone=container: not gone.exists() and not containers(), hub.log)

"""A headless Chromium, driven over the WebDriver protocol (https://www.w3.org/TR/webdriver2/)."""

import base64
import json
import shutil
import socket
import subprocess

import httpx

from tests.serve.waiting import wait_until

#: The key of an element's identifier in the protocol's answers.
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
KEYS = {"ArrowLeft": "\ue012", "ArrowUp": "\ue013", "ArrowRight": "\ue014", "ArrowDown": "\ue015", "Delete": "\ue017"}


def find_browser():
    """Returns the paths of Chromium and its driver, or `None`."""
    browsers = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    browser, driver = next(filter(None, browsers), None), shutil.which("chromedriver")
    return (browser, driver) if browser and driver else None


class Browser:
    """A browser window of the given size, with light or dark colors."""

    def __init__(self, folder, width=1000, height=900, is_dark=False):
        browser, driver = find_browser()
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self._driver = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, trust_env=False)
        self._session = ""
        flags = [
            "--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions",
            "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", f"--user-data-dir={folder}",
            "about:blank",
        ]  # fmt: skip
        options = {"binary": browser, "args": flags}
        capabilities = {"goog:chromeOptions": options, "goog:loggingPrefs": {"performance": "ALL"}}
        try:
            wait_until(self._is_up)
            made = self._send("POST", "/session", {"capabilities": {"alwaysMatch": capabilities}})
            self._session = f"/session/{made['sessionId']}"
            self.cdp(
                "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
            )
            scheme = {"name": "prefers-color-scheme", "value": "dark" if is_dark else "light"}
            self.cdp("Emulation.setEmulatedMedia", features=[scheme])
        except BaseException:
            self.close()
            raise

    def close(self):
        if self._session:
            self._send("DELETE", "")
        self._client.close()
        self._driver.terminate()
        self._driver.wait(30)

    def open(self, address):
        self._send("POST", "/url", {"url": address})

    def run(self, script):
        """Runs JavaScript and returns its result."""
        return self._send("POST", "/execute/sync", {"script": script, "args": []})

    def cdp(self, command, **parameters):
        """Runs a command of the Chrome DevTools Protocol."""
        return self._send("POST", "/goog/cdp/execute", {"cmd": command, "params": parameters})

    def text(self, selector):
        return self.run(f"return document.querySelector({json.dumps(selector)}).textContent.trim()")

    def drag(self, selector, points, kind="mouse"):
        """Draws lines between points, given as fractions of an element's size."""
        box = self.run(f"const b = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
                       "return [b.left, b.top, b.width, b.height]")  # fmt: skip
        places = [(round(box[0] + x * box[2]), round(box[1] + y * box[3])) for x, y in points]
        move = [{"type": "pointerMove", "x": x, "y": y, "duration": 60, "origin": "viewport"} for x, y in places]
        actions = [move[0], {"type": "pointerDown", "button": 0}, *move[1:], {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": actions}
        self._send("POST", "/actions", {"actions": [pointer]})

    def press(self, *keys):
        actions = [{"type": kind, "value": KEYS.get(key, key)} for key in keys for kind in ("keyDown", "keyUp")]
        self._send("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def choose_file(self, selector, path):
        found = self._send("POST", "/element", {"using": "css selector", "value": selector})
        self._send("POST", f"/element/{found[_ELEMENT]}/value", {"text": str(path)})

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self._send("GET", "/screenshot")))

    def requests(self):
        """Returns the URLs that pages, other than Chromium's own, have requested since the last call."""
        entries = self._send("POST", "/se/log", {"type": "performance"})
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent if not each["documentURL"].startswith("chrome:")]

    def _is_up(self):
        try:
            return self._send("GET", "/status")["ready"]
        except httpx.TransportError:
            return False

    def _send(self, method, path, body=None):
        value = self._client.request(method, self._session + path, json=body).json()["value"]
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value['message']}")
        return value

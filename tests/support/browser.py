"""A headless chromium that tests can type into and look at, over its debugging pipe. Nothing to install beside it."""

import base64
import json
import os
import shutil
import subprocess
import time

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


class Browser:
    """One page. said: what it wrote on the console and what it raised. asked: every address it requested."""

    def __init__(self, profile):
        inward, self.out = os.pipe()
        self.into, outward = os.pipe()
        words = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run"]
        self.process = subprocess.Popen(
            ["bash", "-c", f'exec "$0" "$@" 3<&{inward} 4>&{outward}', *words, f"--user-data-dir={profile}"],
            pass_fds=(inward, outward),
            stderr=subprocess.DEVNULL,
        )
        os.close(inward)
        os.close(outward)
        self.number, self.left, self.said, self.asked, self.session = 0, b"", [], [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.left:
                piece = os.read(self.into, 1 << 20)
                assert piece, "chromium has ended"
                self.left += piece
            line, self.left = self.left.split(b"\0", 1)
            reply = json.loads(line)
            if reply.get("id") == self.number:
                assert "error" not in reply, reply["error"]
                return reply["result"]
            self._event(reply)

    def _event(self, event):
        kind, params = event["method"], event["params"]
        if kind == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        if kind in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            self.said.append(params)

    def open(self, path, view=""):
        """Loads a page anew and waits until its script says that it is ready. Seconds that took."""
        self.call("Page.navigate", url="about:blank")
        self.said.clear()
        self.asked.clear()
        began = time.monotonic()
        self.call("Page.navigate", url=f"{path.as_uri()}#{view}")
        while self.run("document.body?.dataset.ready") != "true":
            assert time.monotonic() - began < 60, self.said
            time.sleep(0.02)
        return time.monotonic() - began

    def run(self, script):
        """The value of a JavaScript expression."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def screen(self, width, height, dark=False):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path):
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)

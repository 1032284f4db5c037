"""Chromium over its debugging pipe: opens pages one after the other and tells what went wrong on them.

Messages are JSON objects with a NUL behind each, written to file 3 of the process and read from its file 4.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDER = """(() => {
  const hidden = e => {
    for (; e !== document.body; e = e.parentElement) {
      const style = getComputedStyle(e)
      if (style.overflowX !== "visible" || style.position === "fixed") return true
    }
  }
  return [...document.querySelectorAll("body *")]
    .filter(e => e.clientWidth && e.getBoundingClientRect().right > innerWidth + 1 && !hidden(e))
    .map(e => e.outerHTML.slice(0, 120))
})()"""


class Chromium:
    """One process with one page."""

    def __init__(self, folder):
        theirs_in, self.to = os.pipe()
        self.back, theirs_out = os.pipe()
        words = [PROGRAM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        words += [f"--user-data-dir={folder}", "--remote-debugging-pipe"]
        words += ["--host-resolver-rules=MAP * ~NOTFOUND"]
        line = ["bash", "-c", f'exec "$@" 3<&{theirs_in} 4>&{theirs_out} 2>/dev/null', "bash", *words]
        self.process = subprocess.Popen(line, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL)
        os.close(theirs_in)
        os.close(theirs_out)
        self.rest, self.count, self.session, self.events = b"", 0, None, []
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.to)
        os.close(self.back)

    def ask(self, method, **parameters):
        """Send a command and return its answer; events that come before it are kept."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while (answer := self.read()).get("id") != self.count:
            self.events.append(answer)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def read(self):
        while b"\0" not in self.rest:
            part = os.read(self.back, 1 << 16)
            assert part, "Chromium has ended"
            self.rest += part
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def run(self, script):
        """Return the value of a script on the page, awaited."""
        found = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def open(self, address, width=1200, dark=False):
        """Open a page and wait until it has loaded."""
        self.events = []
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", features=features)
        self.ask("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self.read())

    def complaints(self):
        """Return what the page has complained about since it was opened: errors and addresses not found."""
        found = []
        for event in self.events:
            match event.get("method"), event.get("params", {}):
                case "Runtime.exceptionThrown", told:
                    found.append(told["exceptionDetails"].get("exception", told["exceptionDetails"]))
                case "Log.entryAdded", {"entry": {"level": "error"} as told}:
                    found.append((told["text"], told.get("url")))
                case "Runtime.consoleAPICalled", {"type": "error"} as told:
                    found.append(told["args"])
                case "Network.requestWillBeSent", {"request": {"url": address}}:
                    if address.startswith("http"):
                        found.append(("asks the network", address))
        return found

    def wider(self, width):
        """Return the elements that reach beyond a window of this width and are neither cut nor scrolled."""
        self.ask(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        return self.run(WIDER)

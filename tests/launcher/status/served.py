"""A status port without a job: serve_status, fed with statuses."""
import json
import subprocess
import urllib.request


class Served:
    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()

    def get(self, path):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            return answer.read().decode()

    def status(self):
        return json.loads(self.get("/status.json"))

    def show(self, status):
        self.process.stdin.write(json.dumps(status) + "\n")
        self.process.stdin.flush()

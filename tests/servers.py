"""Runs a command beside servers on 127.0.0.1 that speak the protocols of S3 and Azure.

    servers.py VENV TOOLS COMMAND...

moto is installed into the virtual environment, azurite into a folder of its own in TOOLS, each at the
version below and once. The command finds the servers through the variables that the providers' own tools
know, and the addresses of an empty bucket at each in `LEADPIPE_BUCKETS`.
"""

import base64
import datetime
import hashlib
import hmac
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

MOTO = "moto[s3,server]==5.2.1"
AZURITE = "azurite@3.35.0"

# The account of azurite, which is the same everywhere and documented.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def install(venv, tools):
    """Returns the programs of both servers."""
    moto = venv / "bin" / "moto_server"
    if not moto.exists():
        if not (venv / "bin" / "python").exists():
            subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "python", "-m", "pip", "install", "--quiet", MOTO], check=True)
    folder = tools / AZURITE.replace("@", "-")
    azurite = folder / "node_modules" / ".bin" / "azurite-blob"
    if not azurite.exists():
        folder.mkdir(parents=True, exist_ok=True)
        quiet = ["--silent", "--no-fund", "--no-audit"]
        subprocess.run(["npm", "install", *quiet, "--prefix", folder, AZURITE], check=True)
    return moto, azurite


def free_port():
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return held.getsockname()[1]


def ask(method, url, headers):
    """Asks until the server is there, and returns the status."""
    ends = time.monotonic() + 60
    while True:
        try:
            request = urllib.request.Request(url, method=method, headers=headers)
            return urllib.request.urlopen(request).status
        except urllib.error.HTTPError as refused:
            sys.exit(f"{method} {url}: {refused.code} {refused.read().decode()}")
        except OSError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.1)


def signed(container):
    """Returns the headers that make a container at azurite."""
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%a, %d %b %Y %H:%M:%S GMT")
    version = "2021-08-06"
    text = "\n".join(
        ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{version}",
         f"/{ACCOUNT}/{ACCOUNT}/{container}", "restype:container"]
    )
    digest = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
    signature = base64.b64encode(digest).decode()
    return {
        "x-ms-date": date,
        "x-ms-version": version,
        "Authorization": f"SharedKey {ACCOUNT}:{signature}",
        "Content-Length": "0",
    }


def main():
    venv, tools, command = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:]
    moto, azurite = install(venv, tools)
    s3, azure = free_port(), free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    servers = [
        subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(s3)], **quiet),
        subprocess.Popen(
            [azurite, "--silent", "--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry",
             "--blobPort", str(azure)],
            **quiet,
        ),
    ]
    try:
        ask("PUT", f"http://127.0.0.1:{s3}/leads", {})
        ask("PUT", f"http://127.0.0.1:{azure}/{ACCOUNT}/leads?restype=container", signed("leads"))
        environment = os.environ | {
            "LEADPIPE_BUCKETS": "s3://leads az://leads",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{s3}",
            "AWS_ALLOW_HTTP": "true",
            "AZURE_STORAGE_USE_EMULATOR": "true",
            "AZURITE_BLOB_STORAGE_URL": f"http://127.0.0.1:{azure}",
        }
        sys.exit(subprocess.run(command, env=environment).returncode)
    finally:
        for server in servers:
            server.kill()


if __name__ == "__main__":
    main()

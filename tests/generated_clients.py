"""Generate clients from a running service's OpenAPI document, check their types and use them.

`python -m tests.generated_clients` makes a Python client (openapi-python-client) and two TypeScript
clients (openapi-typescript with openapi-fetch, and @hey-api/openapi-ts) in a temporary folder, with
generators that it installs there. Each adds pictures, searches by an upload, gets, lists page by
page and deletes. Without npm the TypeScript part is skipped. The exit status is 1 if a step fails.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import Service, start_service, stop_service
from tests.drawing import jpeg

SOURCES = Path(__file__).with_name("clients")
UV = Path(sys.executable).with_name("uv")
PICTURES = 3


def run(*command: str | Path, folder: Path) -> None:
    """Run a command in a folder and show it. Raises CalledProcessError."""
    print("+", *command, flush=True)
    subprocess.run([str(part) for part in command], cwd=folder, check=True)


def check_python(folder: Path, url: str, pictures: list[Path]) -> None:
    """Generate, check and use the Python client."""
    python = folder / "venv" / "bin" / "python"
    run(UV, "venv", "-q", "--python", sys.executable, "venv", folder=folder)
    run(UV, "pip", "install", "-q", "--python", python, "-r", "requirements.txt", folder=folder)
    generate = [python.with_name("openapi-python-client"), "generate", "--meta", "none"]
    generate += ["--config", "openapi-python-client.yaml", "--fail-on-warning"]
    run(*generate, "--path", "openapi.json", "--output-path", "ambience_client", folder=folder)
    run(python, "-m", "mypy", "--strict", "use_python.py", "ambience_client", folder=folder)
    run(python, "use_python.py", url, *pictures, folder=folder)


def check_typescript(folder: Path, url: str, pictures: list[Path]) -> None:
    """Generate, check and use the TypeScript clients."""
    programs = folder / "node_modules" / ".bin"
    run("npm", "install", "--silent", "--no-audit", "--no-fund", folder=folder)
    run("node", "types.mjs", folder=folder)
    run(programs / "openapi-ts", "-i", "openapi.json", "-o", "hey_api", folder=folder)
    run(programs / "tsc", "-p", ".", folder=folder)
    for name in ("use_fetch.js", "use_hey_api.js"):
        run("node", Path("compiled", name), url, *pictures, folder=folder)


def check_clients(folder: Path, service: Service) -> None:
    """Check all clients against a service without images."""
    with service.client() as client:
        (folder / "openapi.json").write_bytes(client.get("/openapi.json").content)
    pictures = [folder / f"{number}.jpg" for number in range(PICTURES)]
    for number, path in enumerate(pictures):
        path.write_bytes(jpeg(number))
    check_python(folder, service.url, pictures)
    if shutil.which("npm") and shutil.which("node"):
        check_typescript(folder, service.url, pictures)
    else:
        print("The TypeScript clients are not checked: npm or node is missing.")


def main() -> int:
    """Start a service, check the clients, and return the exit status."""
    with tempfile.TemporaryDirectory(prefix="ambience-clients-") as made:
        folder = Path(made, "clients")
        shutil.copytree(SOURCES, folder)
        service = start_service(Path(made, "data"))
        try:
            check_clients(folder, service)
        except subprocess.CalledProcessError as exc:
            print(f"failed with status {exc.returncode}: {exc.cmd[0]}", file=sys.stderr)
            return 1
        finally:
            stop_service(service)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The container file's steps, run in plain folders: no container engine is needed to see that an image would start."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from meter_pipeline_tests.support import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
#: What a step does as root of the image is not this machine's to do.
_STUBS = 'useradd() { :; }; install() { mkdir -p "${@: -1}"; }; '
_ABSOLUTE = re.compile(r"(?<![\w./])/(?=(dist|var|run|app|source)\b)")


class Image:
    """A stage of the file: its root folder, its Python, the folder it works in."""

    def __init__(self, root: Path) -> None:
        self.root, self.folder = root, root
        subprocess.run([sys.executable, "-m", "venv", str(root / "python")], check=True, timeout=120)

    def run(self, command: str, **env: str) -> str:
        here = {name: value for name, value in os.environ.items() if not name.startswith("METER_PIPELINE_")}
        done = subprocess.run(
            ["bash", "-ec", _STUBS + _ABSOLUTE.sub(f"{self.root}/", command)],
            cwd=self.folder,
            env=here | {"PATH": f"{self.root / 'python' / 'bin'}:{os.environ['PATH']}"} | env,
            capture_output=True,
            text=True,
            timeout=900,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def copy(self, words: list[str], stages: dict[str, Image]) -> None:
        target = self.folder / words[-1]
        target.mkdir(parents=True, exist_ok=True)
        if words[0].startswith("--from="):
            source = stages[words[0].removeprefix("--from=")].root
            for found in source.glob(words[1].lstrip("/")):
                shutil.copy(found, target)
            return
        listed = subprocess.run(
            ["git", "ls-files", "-z", *words[:-1]], cwd=ROOT, capture_output=True, check=True
        ).stdout
        whole = words[0] == "."
        for name in filter(None, listed.decode().split("\0")):
            place = target / (name if whole else Path(name).name)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place)


def _steps() -> list[tuple[str, str]]:
    text = (ROOT / "deploy" / "container" / "Dockerfile").read_text("utf-8")
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    return [(name, rest) for name, rest in pairs]


def _built(folder: Path) -> Image:
    stages: dict[str, Image] = {}
    for name, rest in _steps():
        if name == "FROM":
            called = rest.partition(" AS ")[2] or "last"
            image = stages[called] = Image(folder / called)
        elif name == "WORKDIR":
            image.folder = image.root / rest.lstrip("/")
            image.folder.mkdir(parents=True, exist_ok=True)
        elif name == "COPY":
            image.copy(rest.split(), stages)
        elif name == "RUN":
            image.run(rest, EXTRAS="")
    return stages["last"]


def test_an_image_of_the_container_file_migrates_a_database_and_has_every_command(tmp_path: Path) -> None:
    image = _built(tmp_path)
    services = yaml.safe_load((ROOT / "deploy" / "container" / "compose.yaml").read_text("utf-8"))["services"]
    commands = [service["command"] for service in services.values() if "meter-pipeline" in str(service.get("image"))]
    assert commands
    for command in commands:
        words = shlex.split(command) if isinstance(command, str) else command
        image.run(f"test -x {image.root}/python/bin/{words[0]}")
        for word in words[1:]:
            if word.startswith("/app/"):
                image.run(f"test -e {word}")
    assert "meter_pipeline_tests" not in image.run(
        "python -c 'import pkgutil; print([m.name for m in pkgutil.iter_modules()])'"
    )
    # As the compose file mounts them.
    home = {"METER_PIPELINE_HOME": str(image.root / "home"), "METER_PIPELINE_DATA": str(ROOT / "data")}
    try:
        image.run("meter-pipeline database migrate", **home)
        assert '"days": []' in image.run("meter-pipeline status --json", **home)
    finally:
        image.run("meter-pipeline database stop", **home)

"""What deploy/ says is what the supervisor runs: the same commands, in files that systemd and Compose accept, with no
secret in them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from meter_pipeline.cli.main import COMMANDS
from meter_pipeline.cli.supervisor import programs
from meter_pipeline.postgres import privileges
from meter_pipeline_tests.support import ROOT

UNITS = sorted((ROOT / "deploy" / "systemd").glob("*.service"))
COMPOSE = ROOT / "deploy" / "container" / "compose.yaml"
#: Top-level elements and a service's own, of the Compose specification, as far as we use them.
TOP = {"name", "services", "volumes", "secrets"}
SERVICE = {
    "image",
    "build",
    "restart",
    "read_only",
    "tmpfs",
    "volumes",
    "security_opt",
    "cap_drop",
    "environment",
    "env_file",
    "depends_on",
    "command",
    "ports",
    "stop_grace_period",
    "init",
    "deploy",
    "secrets",
    "shm_size",
    "healthcheck",
    "network_mode",
}


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load(COMPOSE.read_text("utf-8")))


def shape(command: list[str]) -> list[str]:
    """A command without what differs between machines: folders, addresses, ports' numbers, and the host option that has
    a default."""
    words = [Path(word).name for word in command]
    if words[1:3] == ["-m", "meter_pipeline.cli.main"] or words[0].startswith("python"):
        words = ["meter-pipeline", *words[3:]]
    while "--host" in words:
        at = words.index("--host")
        del words[at : at + 2]
    return ["HOST" if re.fullmatch(r"[\d.]+\.[\d.]+", word) else "PORT" if word.isdigit() else word for word in words]


def test_units_and_containers_run_the_commands_of_the_supervisor(tmp_path: Path) -> None:
    supervised = {
        p.name: shape(list(p.command))
        for p in programs(tmp_path / "workspace.yaml", 4000, 3000, metrics_port=9464, desk_port=3001)
    }
    units = {}
    for unit in UNITS:
        [start] = re.findall(r"^ExecStart=(.+)$", unit.read_text("utf-8"), re.MULTILINE)
        units[unit.stem.removeprefix("meter-pipeline-")] = shape(start.split())
    deploy = ["meter-pipeline", "services", "deploy"]
    # The supervisor starts no signer: whoever holds the key has a user of his own.
    signer = ["meter-pipeline", "--keys", "meter-pipeline-signer", "--listen", "socket"]
    assert units == supervised | {"deploy": deploy, "signer": signer}
    contained = {
        name: shape(service["command"]) for name, service in compose()["services"].items() if "command" in service
    }
    assert contained == supervised | {"deploy": deploy, "signer": signer}
    assert {"services", "metrics"} <= set(COMMANDS)
    for words in (*supervised.values(), deploy):
        assert (Path(sys.executable).parent / words[0]).exists(), words


def test_systemd_accepts_the_units(tmp_path: Path) -> None:
    """Directives that do not exist, a service without a command, an ordering loop: ``systemd-analyze verify`` says so
    and fails."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    copies = []
    for unit in UNITS:
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text("utf-8").replace("/opt/meter-pipeline/.venv", sys.prefix), "utf-8")
        copies.append(str(copy))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *copies], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr.strip()) == (0, "")


def test_the_compose_file_holds_together() -> None:
    """Known elements only; every volume, secret and dependency it uses is declared; the daemon is one; nothing but this
    machine reaches a port."""
    document = compose()
    assert set(document) - TOP == {"x-pipeline"}
    services = document["services"]
    for name, service in services.items():
        assert set(service) <= SERVICE, name
        named = {
            str(volume).split(":")[0]
            for volume in service.get("volumes", ())
            if not str(volume).startswith(("$", ".", "/"))
        }
        assert named <= set(document["volumes"]), name
        assert set(service.get("secrets", ())) <= set(document["secrets"]), name
        for other, condition in service.get("depends_on", {}).items():
            assert condition["condition"] in ("service_started", "service_healthy", "service_completed_successfully")
            assert condition["condition"] != "service_healthy" or "healthcheck" in services[other]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name
        if "build" in service:
            assert (COMPOSE.parent / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
            assert service["environment"]["METER_PIPELINE_ROLES"] == "on"
    assert services["daemon"]["deploy"] == {"replicas": 1}


def test_only_the_signer_reaches_the_signing_key() -> None:
    """Another user under systemd, a volume of its own in containers; no database and no network for it, its socket and
    nothing more for the pipeline."""
    texts = {unit.stem.removeprefix("meter-pipeline-"): unit.read_text("utf-8") for unit in UNITS}
    users = {name: re.findall(r"^User=(.+)$", text, re.MULTILINE) for name, text in texts.items()}
    assert [name for name, user in users.items() if user == users["signer"]] == ["signer"]
    assert "EnvironmentFile" not in texts["signer"]
    assert {"StateDirectoryMode=0700", "PrivateNetwork=yes", "UMask=0077"} <= set(texts["signer"].splitlines())
    services = compose()["services"]
    keys = "signer-keys:/var/lib/meter-pipeline-signer"
    assert [name for name, service in services.items() if keys in service.get("volumes", ())] == ["signer"]
    assert (services["signer"]["network_mode"], services["signer"]["env_file"]) == ("none", [])
    listen = services["signer"]["command"][-1]
    assert services["code-server"]["environment"]["METER_PIPELINE_LEDGER_SIGNER"] == f"unix:{listen}"
    assert f"Environment=METER_PIPELINE_LEDGER_SIGNER=unix:{listen}" in texts["code-server"].splitlines()


def test_the_image_is_built_from_files_that_are_there_and_does_not_run_as_root() -> None:
    lines = re.sub(r"\\\n\s*", "", (ROOT / "deploy" / "container" / "Dockerfile").read_text("utf-8")).splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {name for name, _ in steps} <= {
        "FROM",
        "WORKDIR",
        "ARG",
        "COPY",
        "RUN",
        "USER",
        "ENV",
        "EXPOSE",
        "ENTRYPOINT",
        "CMD",
        "LABEL",
    }
    for name, rest in steps:
        if name == "COPY":
            sources = [word for word in rest.split()[:-1] if "--from=" not in rest]
            assert all((ROOT / source).exists() for source in sources), rest
    assert steps[-1] == ["USER", "meter-pipeline"]
    assert any("--require-hashes" in rest for _, rest in steps)


def test_no_file_of_the_deployment_holds_a_password() -> None:
    for path in sorted((ROOT / "deploy").rglob("*")):
        if path.is_file():
            assert not re.search(
                r"postgres(ql)?://[^/\s]*:[^/\s]*@|PASSWORD\s*[:=]\s*['\"]?\w+['\"]?\s*$",
                path.read_text("utf-8"),
                re.MULTILINE,
            ), path


def test_the_roles_of_the_documents_are_the_manifest_s() -> None:
    text = (ROOT / "docs" / "operations.md").read_text("utf-8")
    assert set(re.findall(r"^\| (meter_\w+) \|", text, re.MULTILINE)) == set(privileges.load().roles)


def documented(text: str) -> set[tuple[str, ...]]:
    """Every ``meter-pipeline ...`` of a document, as words; placeholders and quoted values stay what they are."""
    found = re.findall(r"`meter-pipeline ([^`]+)`", text) + re.findall(
        r"^meter-pipeline (.+?)(?:\s+#.*)?$", text, re.MULTILINE
    )
    return {tuple(re.sub(r'"[^"]*"', "X", command).split()) for command in found}


def test_every_command_of_the_runbook_exists_with_the_options_it_names() -> None:
    import importlib

    import typer

    commands = documented((ROOT / "docs" / "operations.md").read_text("utf-8"))
    assert len(commands) > 20
    for words in commands:
        if words[0] == "bench":  # hands its options on to the benchmark it names
            continue
        module, _, attribute = COMMANDS[words[0]][0].partition(":")
        found: Any = getattr(importlib.import_module(f"meter_pipeline.cli.{module}"), attribute or "app")
        if not isinstance(found, typer.Typer):
            single = typer.Typer()
            single.command()(found)
            found = single
        command: Any = typer.main.get_command(found)
        rest = list(words[1:])
        if hasattr(command, "commands") and rest:
            command = command.commands[rest.pop(0)]
        options = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= options, words


def test_the_runbook_has_a_section_for_each_rule_that_pauses_and_for_each_alarm() -> None:
    from meter_pipeline.control import alerts, rules
    from meter_pipeline.control.tables.alerts import _WAITING

    text = (ROOT / "docs" / "operations.md").read_text("utf-8").split("## Runbook: why work is paused")[1]
    raised = set(re.findall(r'Finding\(\s*"(\w+)"', Path(rules.__file__).read_text("utf-8")))
    assert raised == set(re.findall(r"^### Rule `(\w+)`", text, re.MULTILINE))
    headings = " ".join(re.findall(r"^### (.+)$", text, re.MULTILINE)).lower()
    for alarm in (
        "emergency pause",
        "resume waits for a second person",
        "run failed",
        "backfill",
        "ledger was last verified",
        "dead letters wait",
    ):
        assert alarm in headings, alarm
    assert {what for what, _, _ in _WAITING} == {
        "dead letters",
        "anomaly cases",
        "anomaly cases that hold a bill",
        "validation exceptions",
        "services that could not be billed",
    }
    assert alerts.EXCEPTION_AGE.days == 4

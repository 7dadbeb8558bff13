"""What deploy/kubernetes says is what Kubernetes and Dagster accept: every manifest against the API's schema, the
instance against the launcher's own configuration, commands and settings the same as in the containers, no secret in any
file. No cluster is needed and none was seen."""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest
import yaml

from meter_pipeline_tests.support import ROOT
from meter_pipeline_tests.test_deploy import compose, shape

FOLDER = ROOT / "deploy" / "kubernetes"
INSTANCE = yaml.safe_load((FOLDER / "instance.yaml").read_text("utf-8"))
VALUES = yaml.safe_load((FOLDER / "values.yaml").read_text("utf-8"))
MANIFESTS = list(yaml.safe_load_all((FOLDER / "pipeline.yaml").read_text("utf-8")))
needs_dagster_k8s = pytest.mark.skipif(
    importlib.util.find_spec("dagster_k8s") is None, reason="the extra kubernetes is not installed"
)


def pods() -> dict[str, dict[str, Any]]:
    return {
        m["metadata"]["name"]: m["spec"]["template"]["spec"] for m in MANIFESTS if m["kind"] in ("Deployment", "Job")
    }


@pytest.mark.skipif(
    importlib.util.find_spec("kubernetes_validate") is None, reason="the extra kubernetes is not installed"
)
@pytest.mark.parametrize("manifest", MANIFESTS, ids=lambda m: f"{m['kind']} {m['metadata']['name']}")
def test_a_manifest_keeps_the_schema_of_the_kubernetes_api(manifest: dict[str, Any]) -> None:
    import kubernetes_validate

    for version in ("1.29", "1.33"):
        kubernetes_validate.validate(manifest, version, strict=True)


def test_the_pods_run_the_commands_of_the_containers_and_no_more_rights() -> None:
    contained = {
        name: shape(service["command"]) for name, service in compose()["services"].items() if "command" in service
    }
    running = {name: shape(spec["containers"][0]["command"]) for name, spec in pods().items()}
    assert running.pop("worker")[:4] == ["celery", "-A", "meter_pipeline.defs.celery_app", "worker"]
    # the signing key stays off the cluster, with its own machine and person (docs/audit.md)
    contained.pop("signer", None)
    assert running == contained
    for name, spec in pods().items():
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert spec["containers"][0]["resources"]["limits"]["memory"], name
        assert {m["name"] for m in spec["containers"][0]["volumeMounts"]} == {v["name"] for v in spec["volumes"]}, name
    daemon = next(m for m in MANIFESTS if m["kind"] == "Deployment" and m["metadata"]["name"] == "daemon")
    assert (daemon["spec"]["replicas"], daemon["spec"]["strategy"]["type"]) == (1, "Recreate")


def test_what_a_manifest_names_is_there() -> None:
    made = {(m["kind"], m["metadata"]["name"]) for m in MANIFESTS} | {
        ("ConfigMap", "dagster-instance"),
        ("Secret", "meter-pipeline-database"),
    }
    for name, spec in pods().items():
        assert ("ServiceAccount", spec["serviceAccountName"]) in made
        for source in spec["containers"][0]["envFrom"]:
            assert ("ConfigMap", source.get("configMapRef", {}).get("name")) in made or (
                "Secret",
                source.get("secretRef", {}).get("name"),
            ) in made, name
        for volume in spec["volumes"]:
            claim, settings = volume.get("persistentVolumeClaim"), volume.get("configMap")
            assert claim is None or ("PersistentVolumeClaim", claim["claimName"]) in made
            assert settings is None or ("ConfigMap", settings["name"]) in made


def test_no_file_holds_a_secret() -> None:
    assert not [m for m in MANIFESTS if m["kind"] == "Secret"]
    for path in FOLDER.iterdir():
        text = path.read_text("utf-8")
        assert "postgresql://" not in text
        assert "postgresqlPassword:" not in text


@needs_dagster_k8s
def test_the_launcher_takes_its_configuration() -> None:
    from dagster._config import process_config
    from dagster_k8s import K8sRunLauncher

    environment = {m["metadata"]["name"]: m["data"] for m in MANIFESTS if m["kind"] == "ConfigMap"}["meter-pipeline"]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        done = process_config(K8sRunLauncher.config_type(), INSTANCE["run_launcher"]["config"])
    assert done.success, done.errors
    taken = done.value or {}
    assert taken["job_image"] == environment["METER_PIPELINE_IMAGE"]
    assert taken["dagster_home"] == environment["DAGSTER_HOME"]


@needs_dagster_k8s
def test_a_run_becomes_a_job_that_kubernetes_accepts() -> None:
    import kubernetes_validate
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import DagsterK8sJobConfig, construct_dagster_k8s_job

    config = INSTANCE["run_launcher"]["config"]
    context = K8sContainerContext.create_from_config(
        {
            "k8s": {
                name: config[name]
                for name in (
                    "service_account_name",
                    "env_config_maps",
                    "env_secrets",
                    "volumes",
                    "volume_mounts",
                    "resources",
                    "security_context",
                    "run_k8s_config",
                )
            }
        }
    )
    job = DagsterK8sJobConfig(
        job_image="registry.example.org/meter-pipeline:0.1.0",
        dagster_home=config["dagster_home"],
        image_pull_policy="IfNotPresent",
        service_account_name=config["service_account_name"],
        instance_config_map=config["instance_config_map"],
    )
    made = construct_dagster_k8s_job(
        job_config=job,
        args=["dagster", "api", "execute_run"],
        job_name="dagster-run-1",
        user_defined_k8s_config=context.run_k8s_config,
        pod_name="run",
    ).to_dict()
    manifest = _camel(made)
    kubernetes_validate.validate(manifest, "1.33", strict=False)
    assert manifest["spec"]["template"]["spec"]["securityContext"]["runAsUser"] == 10001


@needs_dagster_k8s
def test_the_executors_load_where_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from meter_pipeline.defs.lib.executors import executor, kind

    assert executor("k8s").name == "k8s"
    assert executor("in_process").name == "in_process"
    monkeypatch.setenv("METER_PIPELINE_EXECUTOR", "spark")
    with pytest.raises(ValueError, match="in_process, celery, k8s"):
        kind()


def test_the_instance_differs_from_the_one_machine_only_where_it_must() -> None:
    here = yaml.safe_load(
        next(path for path in (ROOT / "deploy" / "dagster.yaml", ROOT / "dagster.yaml") if path.exists()).read_text(
            "utf-8"
        )
    )
    same = ("storage", "concurrency", "run_retries", "telemetry", "nux")
    assert {name: INSTANCE[name] for name in same} == {name: here[name] for name in same}
    assert INSTANCE["run_coordinator"]["config"] == here["run_coordinator"]["config"]
    assert VALUES["concurrency"]["pools"]["granularity"] == here["concurrency"]["pools"]["granularity"] == "run"
    assert (
        VALUES["dagsterDaemon"]["runRetries"]["retryOnAssetOrOpFailure"]
        is here["run_retries"]["retry_on_asset_or_op_failure"]
    )
    assert VALUES["runLauncher"]["type"] == INSTANCE["run_launcher"]["class"]
    assert VALUES["postgresql"]["postgresqlScheme"] == "postgresql+psycopg2"


def _camel(value: Any) -> Any:
    """A model's dictionary as the API writes it: camelCase names, nothing that is null."""
    if isinstance(value, dict):
        words = {k: k.split("_") for k in value}
        named = {
            "".join([w[0], *(part.title() for part in w[1:])]): _camel(v)
            for (k, w), v in zip(words.items(), value.values(), strict=True)
            if v is not None
        }
        return named
    return [_camel(v) for v in value] if isinstance(value, list) else value

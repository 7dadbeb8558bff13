"""What deploy/kubernetes says is what Kubernetes and Dagster accept: every manifest against the API's schema, the
instance against the launcher's own configuration, commands and settings the same as in the containers, no secret in any
file. No cluster is needed and none was seen."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace
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


class _Batch:
    """The part of the Kubernetes API that makes jobs; it answers with an HTTP status, or does not answer (0)."""

    def __init__(self, status: int, body: str = "") -> None:
        self.status, self.body = status, body

    def create_namespaced_job(self, **_: Any) -> None:
        from kubernetes.client.rest import ApiException
        from urllib3.exceptions import ProtocolError

        if self.status == 0:
            raise ProtocolError("Connection aborted.")
        if self.status >= 400:
            error = ApiException(status=self.status)
            error.body = self.body
            raise error


@needs_dagster_k8s
@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (0, "", "waits"),
        (429, "", "waits"),
        (503, "", "waits"),
        (403, "exceeded quota: compute-resources", "waits"),
        (403, "cannot create resource jobs", "refused"),
        (422, "", "refused"),
        (409, "", "launched"),
        (201, "", "launched"),
    ],
)
def test_a_launch_that_the_cluster_has_no_room_for_stays_in_the_queue(
    status: int, body: str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster._core.errors import DagsterUserCodeUnreachableError
    from dagster_k8s import K8sRunLauncher
    from dagster_k8s.client import DagsterK8sUnrecoverableAPIError, DagsterKubernetesClient

    from meter_pipeline.defs.lib.patient_kubernetes import PatientKubernetesLauncher
    from meter_pipeline.defs.lib.patient_launches import FailedLaunches

    client = DagsterKubernetesClient.production_client(core_api_override=None, batch_api_override=_Batch(status, body))

    def makes_a_job(_launcher: Any, _context: Any) -> None:
        client.create_namespaced_job_with_retries(body=None, namespace="metering", wait_time_between_attempts=0)

    monkeypatch.setattr(K8sRunLauncher, "launch_run", makes_a_job)
    launcher = PatientKubernetesLauncher.__new__(PatientKubernetesLauncher)  # a launcher needs a cluster
    launcher.failed_launches = FailedLaunches()
    context = SimpleNamespace(dagster_run=SimpleNamespace(run_id="1"))
    match result:
        case "waits":
            with pytest.raises(DagsterUserCodeUnreachableError, match="launched again"):
                launcher.launch_run(context)
        case "refused":
            with pytest.raises(DagsterK8sUnrecoverableAPIError):
                launcher.launch_run(context)
        case _:
            launcher.launch_run(context)
    assert launcher.failed_launches.in_a_row == (result == "waits")


def test_the_queue_waits_longer_after_each_failed_launch_on_kubernetes_too() -> None:
    assert INSTANCE["run_coordinator"]["class"] == "PatientQueue"
    assert INSTANCE["run_launcher"]["class"] == "PatientKubernetesLauncher"


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
    # The chart's daemon runs in Dagster's own image, which has no launcher of ours.
    assert (VALUES["runLauncher"]["type"], INSTANCE["run_launcher"]["class"]) == (
        "K8sRunLauncher",
        "PatientKubernetesLauncher",
    )
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

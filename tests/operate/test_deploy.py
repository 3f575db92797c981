"""The files in deploy/ agree with each other, with the image, and with the settings."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from settings import Settings, load_settings, variable
from tests.live_server import ROOT
from tests.project.test_frame import pinned
from tests.project.test_image import instructions

yaml: Any = import_module("yaml")  # it comes with langchain-core, and brings no types along
DEPLOY = ROOT / "deploy"
IMAGE = dict(instructions())
PORT = int(IMAGE["EXPOSE"])


@cache
def compose() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return parsed


@cache
def manifests() -> dict[str, dict[str, Any]]:
    """By their kinds, of which there is one each."""
    parsed = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
    kinds = {manifest["kind"]: manifest for manifest in parsed}
    assert len(kinds) == len(parsed)
    return kinds


def pod() -> dict[str, Any]:
    found: dict[str, Any] = manifests()["Deployment"]["spec"]["template"]["spec"]
    return found


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    found: dict[str, Any] = only
    return found


def settings_of(environment: dict[str, str]) -> Settings:
    """What a server would make of it, where the shell that runs compose has set nothing."""
    asked = {name: re.sub(r"\$\{\w+:\?[^}]*\}", "made-up", value) for name, value in environment.items()}
    given = {name: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value) for name, value in asked.items()}
    assert given.keys() <= {variable(field) for field in Settings.model_fields}
    return load_settings(given)


def test_what_is_deployed_is_set_up_with_settings_that_exist_and_with_a_store_that_can_be_shared() -> None:
    services = compose()["services"]
    composed = settings_of(services["recollect"]["environment"])
    kubernetes = settings_of({**manifests()["ConfigMap"]["data"], **manifests()["Secret"]["stringData"]})
    for settings in (composed, kubernetes):
        assert settings.history_url.startswith("redis://")
        assert urlsplit(settings.history_url).password
    assert urlsplit(composed.history_url).hostname in services
    assert services["recollect"]["deploy"]["replicas"] == manifests()["Deployment"]["spec"]["replicas"] == 3


def test_a_server_that_is_told_to_end_is_given_the_time_that_its_turns_have() -> None:
    turns = float(manifests()["ConfigMap"]["data"]["RECOLLECT_SHUTDOWN_S"])
    before = int(container()["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod()["terminationGracePeriodSeconds"] > before + turns + 6
    server = compose()["services"]["recollect"]
    assert int(server["stop_grace_period"].removesuffix("s")) > float(server["environment"]["RECOLLECT_SHUTDOWN_S"]) + 6


def test_ports_paths_and_the_user_are_those_of_the_image() -> None:
    nginx = (DEPLOY / "nginx.conf").read_text()
    assert f"proxy_pass http://$servers:{PORT};" in nginx
    assert f"set $servers {next(iter(compose()['services']))};" in nginx
    (listen,) = re.findall(r"listen (\d+);", nginx)
    assert compose()["services"]["proxy"]["ports"] == [f"127.0.0.1:{listen}:{listen}"]
    assert f":{listen}/healthz" in compose()["services"]["proxy"]["healthcheck"]["test"][-1]
    assert compose()["services"]["recollect"]["volumes"] == [f"data:{IMAGE['VOLUME']}"]
    assert container()["ports"] == [{"name": "http", "containerPort": PORT}]
    assert IMAGE["VOLUME"] in [mount["mountPath"] for mount in container()["volumeMounts"]]
    assert IMAGE["USER"] == f"{pod()['securityContext']['runAsUser']}:{pod()['securityContext']['runAsGroup']}"
    assert (DEPLOY / compose()["services"]["recollect"]["build"] / "Dockerfile").is_file()


def test_what_is_named_in_one_place_is_made_in_another() -> None:
    names = {(kind, manifest["metadata"]["name"]) for kind, manifest in manifests().items()}
    for source in container()["envFrom"]:
        assert ("ConfigMap", source.get("configMapRef", {}).get("name")) in names or (
            "Secret", source["secretRef"]["name"]
        ) in names  # fmt: skip
    claims = [volume["persistentVolumeClaim"] for volume in pod()["volumes"] if "persistentVolumeClaim" in volume]
    assert all(("PersistentVolumeClaim", claim["claimName"]) in names for claim in claims)
    assert {mount["name"] for mount in container()["volumeMounts"]} == {volume["name"] for volume in pod()["volumes"]}
    labels = manifests()["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert manifests()["Service"]["spec"]["selector"] == labels
    for kind in ("Deployment", "PodDisruptionBudget"):
        assert manifests()[kind]["spec"]["selector"]["matchLabels"] == labels
    assert manifests()["PodDisruptionBudget"]["spec"]["minAvailable"] < manifests()["Deployment"]["spec"]["replicas"]
    used = {mount.partition(":")[0] for service in compose()["services"].values() for mount in service["volumes"]}
    assert {name for name in used if not name.startswith(".")} == compose()["volumes"].keys()


def test_probes_ask_what_there_is_and_no_key_stands_in_a_manifest() -> None:
    for probe in ("startupProbe", "livenessProbe"):
        assert container()[probe]["httpGet"] == {"path": "/healthz", "port": "http"}
    *_, program = container()["readinessProbe"]["exec"]["command"]
    ast.parse(program)
    assert f"127.0.0.1:{PORT}/readyz" in program
    assert "rk_" not in program
    assert all("healthcheck" in service for name, service in compose()["services"].items() if name != "recollect")
    assert "HEALTHCHECK" in IMAGE  # recollect's


def test_the_proxy_holds_no_stream_back_and_passes_on_what_the_origin_check_needs() -> None:
    nginx = (DEPLOY / "nginx.conf").read_text()
    for line in ("proxy_buffering off;", "gzip off;", "proxy_set_header Host $http_host;", "client_max_body_size 0;"):
        assert line in nginx
    waits = int(re.findall(r"proxy_read_timeout (\d+)s;", nginx)[0])
    defaults = Settings()
    assert waits > defaults.turn_wait_s + defaults.model_timeout_s


MAY = {"proxy": {"CHOWN", "SETGID", "SETUID"}, "postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}}
"""Whose first process is root, and becomes another user."""


def test_what_is_deployed_has_no_more_rights_than_it_needs() -> None:
    for name, service in compose()["services"].items():
        assert (service["read_only"], service["cap_drop"]) == (True, ["ALL"]), name
        assert set(service.get("cap_add", [])) == MAY.get(name, set()), name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["pids_limit"] > 0, name
        assert service["mem_limit"], name
    only = container()["securityContext"]
    assert (only["allowPrivilegeEscalation"], only["readOnlyRootFilesystem"]) == (False, True)
    assert only["capabilities"] == {"drop": ["ALL"]}
    assert container()["resources"]["limits"].keys() == {"cpu", "memory"}
    assert pod()["securityContext"]["runAsNonRoot"]


def test_redis_takes_its_password_from_no_command_line(tmp_path: Path) -> None:
    """The command is run, with a program in the place of redis-server that says what it was told."""
    program = tmp_path / "redis-server"
    program.write_text('#!/bin/sh\necho "$@"\nexec cat\n')
    program.chmod(0o755)
    *shell, script = compose()["services"]["redis"]["command"]
    environment = {"REDIS_PASSWORD": "a%s b", "PATH": f"{tmp_path}:/bin:/usr/bin"}
    done = subprocess.run(
        [*shell, script.replace("$$", "$")], env=environment, capture_output=True, text=True, check=True
    )
    lines = ["-", "requirepass a%s b", "appendonly yes", "appendfsync always", "maxmemory-policy noeviction"]
    assert done.stdout.splitlines() == lines
    assert "redis-cli ping" in compose()["services"]["redis"]["healthcheck"]["test"][1]


def test_the_bill_of_materials_names_every_pin_with_its_hashes() -> None:
    command = [sys.executable, str(DEPLOY / "sbom.py"), str(ROOT / "requirements.lock")]
    bills = [json.loads(subprocess.run(command, capture_output=True, check=True).stdout) for _ in range(2)]
    assert bills[0] == bills[1]
    assert (bills[0]["bomFormat"], bills[0]["specVersion"]) == ("CycloneDX", "1.6")
    assert {one["name"]: one["version"] for one in bills[0]["components"]} == pinned("requirements.lock")
    assert all(one["externalReferences"][0]["hashes"] for one in bills[0]["components"])
    assert set(bills[0]["dependencies"][0]["dependsOn"]) == {one["purl"] for one in bills[0]["components"]}


def test_the_image_is_built_by_a_script_that_bash_can_read() -> None:
    subprocess.run(["bash", "-n", DEPLOY / "image.sh"], check=True)
    assert (DEPLOY / "image.sh").stat().st_mode & 0o111

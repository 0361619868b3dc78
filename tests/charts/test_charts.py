"""The charts make what Kubernetes takes, and what our rules ask; each rule finds the mistake that it forbids."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from charts.rendered import ADDRESS, ALL, CHARTS, NEEDED, SITE, HelmError, faults, render
from charts.rules import complaints
from charts.schemas import NEWEST, OLDEST

ENDS = ("server", "institution")
VALUES = {"needed": NEEDED, "all": ALL}


@pytest.fixture(params=[(end, name) for end in ENDS for name in VALUES], ids="-".join)
def rendered(request: pytest.FixtureRequest) -> tuple[str, list[dict[str, Any]]]:
    """An end, and the objects of its chart: with the values that are needed, and with all that can be set."""
    end, name = request.param
    return end, render(CHARTS / end, VALUES[name][end])


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_kubernetes_takes_every_object(rendered: tuple[str, list[dict[str, Any]]], version: str) -> None:
    assert {each["kind"]: found for each in rendered[1] if (found := faults(each, version))} == {}


def test_our_rules_hold(rendered: tuple[str, list[dict[str, Any]]]) -> None:
    end, objects = rendered
    assert complaints(objects, end) == []


def test_an_institution_calls_the_server_and_dns_only() -> None:
    objects = render(CHARTS / "institution", NEEDED["institution"])
    [policy] = [each for each in objects if each["kind"] == "NetworkPolicy"]
    server, dns = policy["spec"]["egress"]
    assert server == {"to": [{"ipBlock": {"cidr": "203.0.113.7/32"}}], "ports": [{"protocol": "TCP", "port": 8443}]}
    assert {port["port"] for port in dns["ports"]} == {53}


def test_a_gpu_is_asked_for_beside_the_other_limits() -> None:
    [pods] = [each for each in render(CHARTS / "institution", ALL["institution"]) if each["kind"] == "StatefulSet"]
    [client] = pods["spec"]["template"]["spec"]["containers"]
    assert client["resources"]["limits"] == {"memory": "8Gi", "nvidia.com/gpu": 1}


def test_a_proxys_password_stays_in_its_secret() -> None:
    egress = {"addresses": [ADDRESS], "proxySecret": "proxy-of-ours"}
    [pods] = [
        each
        for each in render(CHARTS / "institution", {**NEEDED["institution"], "egress": egress})
        if each["kind"] == "StatefulSet"
    ]
    assert faults(pods, OLDEST) == []
    pod = pods["spec"]["template"]["spec"]
    secret = {"secretKeyRef": {"name": "proxy-of-ours", "key": "proxy"}}
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["env"] == [{"name": "HTTPS_PROXY", "valueFrom": secret}]


def test_the_text_of_site_toml_arrives_unchanged() -> None:
    site = SITE + '# "quotes", {{ braces }}, back\\slashes: and $money\n'
    objects = render(CHARTS / "institution", {**NEEDED["institution"], "site": site})
    assert [each["stringData"] for each in objects if each["kind"] == "Secret"] == [{"site.toml": site}]


@pytest.mark.parametrize(
    ("end", "values", "why"),
    [
        ("server", {"hosts": []}, "hosts"),
        ("server", {"hosts": ["-x"]}, "hosts"),
        ("server", {"port": 8444}, "port"),
        ("server", {"replicas": 2}, "replicas"),
        ("server", {"image": {"repository": "confide", "tag": "latest"}}, "tag"),
        ("server", {"home": {"size": "20"}}, "size"),
        ("institution", {"site": ""}, "site"),
        ("institution", {"site": "name = "}, "site.toml: toml"),
        ("institution", {"site": SITE.replace("/srv/confide-anchor", "state-anchor")}, "anchor must be"),
        ("institution", {"site": SITE + 'dir = "/srv/confide-anchor/state"\n'}, "dir must be left out"),
        ("institution", {"site": SITE + 'dir = "/tmp/state"\n'}, "dir must be left out"),
        ("institution", {"site": SITE.replace("/data/", "")}, "path must begin"),
        ("institution", {"data": {"claim": ""}}, "claim"),
        ("institution", {"egress": {"addresses": []}}, "addresses"),
        ("institution", {"egress": {"addresses": ["0.0.0.0/0"]}}, "addresses"),
        ("institution", {"egress": {"addresses": ["::/0"]}}, "addresses"),
        ("institution", {"egress": {"addresses": ["fl.example.org"]}}, "addresses"),
        ("institution", {"egress": {**ALL["institution"]["egress"], "proxy": "http://user:word@proxy:3128"}}, "proxy"),
        ("institution", {"egress": {**ALL["institution"]["egress"], "proxySecret": "proxy"}}, "must not both"),
        ("institution", {"dns": [{}]}, "dns"),
        ("institution", {"gpu": {"count": 17}}, "gpu"),
        ("institution", {"gpu": {"count": 2}}, "gpu.count is 2, but site.toml names 1 device"),
        ("institution", {"service": {}}, "service"),
    ],
)
def test_a_value_that_would_weaken_a_pod_is_refused(end: str, values: dict[str, Any], why: str) -> None:
    with pytest.raises(HelmError) as error:
        render(CHARTS / end, {**NEEDED[end], **values})
    assert why in str(error.value)


_SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: confide}
spec: {ports: [{port: 8443}]}
"""


@pytest.mark.parametrize(
    ("end", "name", "old", "new", "found"),
    [
        ("server", "_parts.tpl", "privileged: false", "privileged: true", "privileged"),
        ("institution", "_parts.tpl", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "readOnlyRoot"),
        ("institution", "_parts.tpl", "drop: [ALL]", "drop: [NET_RAW]", "capabilities"),
        ("institution", "_parts.tpl", "drop: [ALL]", "drop: [ALL], add: [NET_ADMIN]", "capabilities"),
        ("server", "_parts.tpl", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
        ("server", "_parts.tpl", "OnRootMismatch\n", "Always\n", "fsGroupChangePolicy"),
        ("server", "_parts.tpl", "ReadWriteOncePod]", "ReadWriteMany]", "two pods"),
        ("server", "_parts.tpl", "enableServiceLinks", "hostNetwork: true\nenableServiceLinks", "hostNetwork"),
        ("server", "server.yaml", "replicas: 1", "replicas: 2", "replicas"),
        ("institution", "institution.yaml", "Policy: Parallel", "Policy: OrderedReady", "waits"),
        ("server", "server.yaml", "containerPort: {{ .Values.port }}", "containerPort: 8444", "admin port"),
        ("server", "server.yaml", "whenDeleted: Retain", "whenDeleted: Delete", "goes with"),
        ("institution", "institution.yaml", "Seconds: 900", "Seconds: 30", "grace"),
        ("institution", "institution.yaml", "          readinessProbe", "          livenessProbe", "mid-round"),
        ("institution", "institution.yaml", "client, start", "client, join", "command"),
        ("institution", "_institution.tpl", "quote }}, readOnly: true}", "quote }}}", "records can be written"),
        (
            "institution",
            "institution.yaml",
            "emptyDir: {medium: Memory, sizeLimit: 256Mi}",
            "hostPath: {path: /tmp}",
            "hostPath",
        ),
        ("institution", "institution.yaml", "{medium: Memory, sizeLimit: 256Mi}", "{sizeLimit: 1Gi}", "in mid-round"),
        (
            "institution",
            "institution.yaml",
            "{medium: Memory, sizeLimit: 256Mi}",
            "{medium: Memory}",
            "without a limit",
        ),
        ("server", "server.yaml", "{sizeLimit: 256Mi}", "{}", "without a limit"),
        ("server", "network.yaml", "pod-name: {{ .Release.Name }}-0", "pod-name: {{ .Release.Name }}-1", "other pods"),
        ("institution", "network.yaml", "  ingress: []", "  ingress: [{}]", "ingress"),
        ("institution", "network.yaml", "  policyTypes: [Ingress, Egress]", "  policyTypes: [Ingress]", "policyTypes"),
        ("institution", "network.yaml", "  egress:\n", "  egress:\n    - {}\n", "anywhere"),
        ("institution", "network.yaml", "matchLabels: {{-", "matchLabels: {a: b}\n  x: {{-", "other pods"),
        ("institution", "network.yaml", "# Nothing", f"{_SERVICE}\n---\n# Nothing", "kinds"),
    ],
)
def test_each_rule_finds_its_mistake(tmp_path: Path, end: str, name: str, old: str, new: str, found: str) -> None:
    chart = _changed(tmp_path, end, name, old, new)
    assert found in " ".join(complaints(render(chart, NEEDED[end]), end))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("server.yaml", "terminationGracePeriodSeconds", "terminationGraceSeconds"),
        ("server.yaml", "replicas: 1", 'replicas: "1"'),
        ("server.yaml", "  serviceName: {{ .Release.Name }}\n", ""),  # before 1.33
        ("_parts.tpl", "readOnlyRootFilesystem", "readOnlyRootFileSystem"),
        ("network.yaml", "targetPort", "targetport"),
        ("network.yaml", "podSelector:", "selector:"),
    ],
)
def test_a_wrong_field_is_found_by_the_schema(tmp_path: Path, name: str, old: str, new: str) -> None:
    objects = render(_changed(tmp_path, "server", name, old, new), NEEDED["server"])
    assert [found for each in objects for found in faults(each, OLDEST)] != []


def _changed(folder: Path, end: str, name: str, old: str, new: str) -> Path:
    chart = folder / end
    shutil.copytree(CHARTS / end, chart)
    template = chart / "templates" / name
    text = template.read_text(encoding="utf-8")
    assert old in text
    template.write_text(text.replace(old, new), encoding="utf-8")
    return chart


def test_both_charts_have_the_same_parts() -> None:
    first, second = ((CHARTS / end / "templates" / "_parts.tpl").read_text(encoding="utf-8") for end in ENDS)
    assert first == second


def test_the_charts_are_of_this_version_and_of_the_user_of_the_image() -> None:
    root = CHARTS.parents[1]
    version = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    read = [yaml.safe_load((CHARTS / end / "Chart.yaml").read_text(encoding="utf-8")) for end in ENDS]
    assert [chart["appVersion"] for chart in read] == [version, version]
    assert "--uid 10001 --user-group" in (root / "Dockerfile").read_text(encoding="utf-8")

"""Our rules about what the charts make; Kubernetes itself would take all that they forbid."""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]
_POD = {"automountServiceAccountToken": False, "enableServiceLinks": False}
_USER = {
    "runAsNonRoot": True,
    "runAsUser": 10001,
    "runAsGroup": 10001,
    "fsGroup": 10001,
    "fsGroupChangePolicy": "OnRootMismatch",
    "seccompProfile": {"type": "RuntimeDefault"},
}
_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "privileged": False,
    "readOnlyRootFilesystem": True,
}
_VOLUMES = {"emptyDir", "persistentVolumeClaim", "secret"}
_GRACE = {"server": 60, "institution": 900}
_KINDS = {
    "server": ["NetworkPolicy", "Service", "StatefulSet"],
    "institution": ["NetworkPolicy", "Secret", "StatefulSet"],
}
_COMMANDS = {
    "server": ["confide", "server", "start", "--home", "fl"],
    "institution": ["confide", "client", "start", "--site", "/var/lib/confide/site.toml"],
}


def complaints(objects: list[Object], end: str) -> list[str]:
    """Return every rule that the objects of one end break."""
    return list(_complaints(objects, end))


def _complaints(objects: list[Object], end: str) -> Iterator[str]:
    if sorted(each["kind"] for each in objects) != _KINDS[end]:
        yield f"kinds: {sorted(each['kind'] for each in objects)}"
    for each in objects:
        if each["kind"] == "StatefulSet":
            yield from _set(each["spec"], end)
        if each["kind"] == "NetworkPolicy":
            yield from _policy(each["spec"], end)
    yield from _same_pods(objects)


def _set(spec: Object, end: str) -> Iterator[str]:
    if spec["replicas"] != 1:
        yield f"replicas: {spec['replicas']}"
    if spec.get("podManagementPolicy") != "Parallel":
        yield "an upgrade waits for a pod that it would mend"
    if set(spec["persistentVolumeClaimRetentionPolicy"].values()) != {"Retain"}:
        yield "a volume goes with its set"
    claims = spec["volumeClaimTemplates"]
    for claim in claims:
        if claim["spec"]["accessModes"] != ["ReadWriteOncePod"]:
            yield f"{claim['metadata']['name']}: two pods could work on one folder"
    yield from _pod(spec["template"]["spec"], [claim["metadata"]["name"] for claim in claims], end)


def _pod(pod: Object, claims: list[str], end: str) -> Iterator[str]:
    yield from _differences("pod", {key: pod.get(key) for key in _POD}, _POD)
    yield from _differences("pod.securityContext", pod.get("securityContext", {}), _USER)
    yield from (f"pod.{name}" for name in ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace") if name in pod)
    if pod["terminationGracePeriodSeconds"] < _GRACE[end]:
        yield f"grace: {pod['terminationGracePeriodSeconds']} s"
    kinds = {volume["name"]: set(volume) - {"name"} - _VOLUMES for volume in pod["volumes"]}
    yield from (f"volume {name}: {wrong}" for name, wrong in kinds.items() if wrong)
    folders = {volume["name"]: volume["emptyDir"] for volume in pod["volumes"] if "emptyDir" in volume}
    yield from (f"volume {name}: without a limit" for name, folder in folders.items() if "sizeLimit" not in folder)
    if end == "institution" and any(folder.get("medium") != "Memory" for folder in folders.values()):
        yield "what fills /tmp ends the pod in mid-round"
    [main] = pod["containers"]
    if main["command"] != _COMMANDS[end]:
        yield f"command: {main['command']}"
    for container in [*pod["initContainers"], main]:
        yield from _container(container, pod, claims)
    if end == "institution":
        yield from _institution(main)


def _container(container: Object, pod: Object, claims: list[str]) -> Iterator[str]:
    name = container["name"]
    yield from _differences(name, container.get("securityContext", {}), _CONTAINER)
    if container["image"].endswith((":latest", ":")) or ":" not in container["image"]:
        yield f"{name}: image without a version"
    own = [volume["name"] for volume in pod["volumes"]]
    for mount in container["volumeMounts"]:
        if mount["name"] not in [*own, *claims]:
            yield f"{name}: no volume {mount['name']}"
        writable = mount["name"] in [*claims, "tmp"]
        if not writable and mount.get("readOnly") is not True:
            yield f"{name}: {mount['name']} can be written"
    public = [port["containerPort"] for port in container.get("ports", [])]
    if 8444 in public or any("hostPort" in port for port in container.get("ports", [])):
        yield f"{name}: the admin port is shown"


def _institution(main: Object) -> Iterator[str]:
    if "ports" in main:
        yield "an institution has a port"
    if "livenessProbe" in main or "startupProbe" in main:
        yield "a probe may end a client in mid-round"
    if [mount.get("readOnly") for mount in main["volumeMounts"] if mount["mountPath"] == "/data"] != [True]:
        yield "records can be written"


def _policy(spec: Object, end: str) -> Iterator[str]:
    allowed = {"server": [[{"protocol": "TCP", "port": "public"}]], "institution": []}
    if spec["policyTypes"] != ["Ingress", "Egress"]:
        yield f"policyTypes: {spec['policyTypes']}"
    if [rule.get("ports") for rule in spec["ingress"]] != allowed[end]:
        yield f"ingress: {spec['ingress']}"
    if end == "institution":
        yield from _egress(spec["egress"])


def _egress(rules: list[Object]) -> Iterator[str]:
    """At most two rules: addresses at one port, and DNS."""
    for rule in rules:
        ports = [port["port"] for port in rule.get("ports", [])]
        if not rule.get("to") or not ports or not all(rule["to"]):
            yield f"egress to anywhere: {rule}"
        elif ports != [53, 53] and (len(ports) > 1 or not all("ipBlock" in peer for peer in rule["to"])):
            yield f"egress beyond the server: {rule}"
    if len(rules) > 2:
        yield "egress beyond the server and DNS"


def _same_pods(objects: list[Object]) -> Iterator[str]:
    """Whatever selects pods selects those of the set, and the Service its first one."""
    pods = next(each for each in objects if each["kind"] == "StatefulSet")
    labels = pods["spec"]["template"]["metadata"]["labels"]
    first = {**labels, "statefulset.kubernetes.io/pod-name": f"{pods['metadata']['name']}-0"}
    for each in objects:
        selector = each.get("spec", {}).get("selector") or each.get("spec", {}).get("podSelector")
        wanted = first if each["kind"] == "Service" else labels
        if selector is not None and selector.get("matchLabels", selector) != wanted:
            yield f"{each['kind']} selects other pods"


def _differences(where: str, found: Object, wanted: Object) -> Iterator[str]:
    yield from (f"{where}.{key}: {found.get(key)}" for key in wanted if found.get(key) != wanted[key])
    if more := set(found) - set(wanted):
        yield f"{where}: {more}"

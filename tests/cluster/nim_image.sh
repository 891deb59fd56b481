#!/bin/bash
# A container image that stands in for NVIDIA's: it reads the same environment and mount, and runs our own ONNX server.
# Made without a network, from the Python that is given, the packages of its deploy stage, and this checkout.
#   nim_image.sh IMAGE PYTHON [EXPORT]     EXPORT: folder of the "stock" model, served when nothing is mounted
set -euo pipefail
image=$1 python=$2 stock=${3:-}
checkout=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
mkdir -p "$root"/{bin,tmp,etc,proc,sys,dev,opt/nim/.cache,opt/site,opt/checkout}
chmod 1777 "$root/tmp" "$root/opt/nim/.cache"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"

"$python" - "$root/opt" <<'PYTHON'
"""Copy the interpreter, and the packages that pipeline-deploy needs, with everything that they need."""
import importlib.metadata as metadata
import os
import re
import shutil
import sys
from pathlib import Path

target = Path(sys.argv[1])
version = f"python{sys.version_info.major}.{sys.version_info.minor}"
library = Path(os.__file__).parent
left_out = shutil.ignore_patterns("site-packages", "test", "tests", "__pycache__", "idlelib", "ensurepip", "config-*")
shutil.copytree(library, target / "python/lib" / version, ignore=left_out, symlinks=True)
(target / "python/bin").mkdir()
shutil.copy2(Path(sys.executable).resolve(), target / "python/bin/python3")
shutil.copy2(Path(sys.executable).resolve(), target / f"python/bin/{version}")

wanted, seen = ["pipeline-deploy"], set()
while wanted:
    name = wanted.pop()
    if name in seen:
        continue
    seen.add(name)
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:  # for another platform
        continue
    for needed in found.requires or []:
        if "extra ==" not in needed:
            wanted.append(re.match(r"[\w.-]+", needed)[0])
    for file in found.files or []:
        source = Path(file.locate())
        if ".." not in file.parts and source.suffix not in (".pyc", ".pth") and source.is_file():
            place = target / "site" / file
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place)
PYTHON

cp -r "$checkout/src" "$checkout/stages/deploy/src/pipeline_deploy" "$root/opt/checkout/"
cp -rL "$checkout/pyproject.toml" "$root/opt/checkout/"
[ -z "$stock" ] || cp -rL "$stock" "$root/opt/nim/stock"

# Shared libraries of all of it, where the loader looks for them.
{ echo "$root/opt/python/bin/python3"; echo /bin/sh; find "$root/opt" -name '*.so*' -type f; } |
  xargs -n 50 ldd 2>/dev/null | grep -o '/[^ ]*' | sed 's/:$//' | sort -u | while read -r file; do
    case $file in "$root"*) continue ;; esac
    [ -f "$file" ] && install -D "$(readlink -f "$file")" "$root$file"
  done
cp -L /bin/sh "$root/bin/sh"

cat >"$root/opt/nim/start.py" <<'PYTHON'
"""What NVIDIA's container does on start, as far as deploy can tell: a model from the mount or its own, and its name."""
import json
import os
import sys

folder = os.environ.get("NIM_CUSTOM_MODEL") or "/opt/nim/stock"
name = "custom" if os.environ.get("NIM_CUSTOM_MODEL") else "stand-in/stock-model"
with open(f"{folder}/encoding_contract.json") as stream:
    family = json.load(stream)["family"]
print(f"stand-in: {name} ({family}) from {folder}, cache in {os.environ['NIM_CACHE_PATH']}", flush=True)
settings = ["--family", family, "--model-dir", folder, "--name", name, "--threads", "1"]
place = ["--host", "0.0.0.0", "--port", os.environ["NIM_HTTP_API_PORT"]]
server = [sys.executable, "-m", "pipeline_deploy.server", *settings, *place]
os.execv(sys.executable, server)
PYTHON

tar -C "$root" -c . | docker import \
  --change 'ENV PYTHONPATH=/opt/site:/opt/checkout/src:/opt/checkout PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1' \
  --change 'ENTRYPOINT ["/opt/python/bin/python3"]' --change 'CMD ["/opt/nim/start.py"]' - "$image" >/dev/null

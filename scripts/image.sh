#!/usr/bin/env bash
# Packs the module into an OCI image: FROM scratch, one layer, /plugin.wasm. Istio and Envoy Gateway pull this "compat"
# variant of the Wasm image specification. Needs no container engine and no network.
#   scripts/image.sh [MODULE [OUT]]      dist/callbound.wasm, dist/callbound-image.tar
# The archive is an OCI layout (skopeo, crane, podman, docker 25 and later) that older docker can load as well. A module
# has the same digest on every machine: the image has no times, no names of the builder, and is not compressed.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
module=${1:-dist/callbound.wasm}
out=${2:-dist/callbound-image.tar}
[ -f "$module" ] || scripts/build-wasm.sh
mkdir -p "$(dirname "$out")"
trap 'rm -f "$out.new"' EXIT
python3 -B - "$module" "$out.new" <<'PY'
import hashlib, io, json, struct, sys, tarfile, zlib

sys.path.insert(0, "scripts")
from wasm_module import stamp

LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
CONFIG = "application/vnd.oci.image.config.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"


def tar(files):
    """Returns a tar of (name, bytes) without times or owners."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def gzip(data):
    """Returns gzip (RFC 1952) of stored blocks: the output of a compressor, and so the digest, depends on its version."""
    blocks = []
    for at in range(0, len(data), 0xFFFF):
        block = data[at : at + 0xFFFF]
        is_last = at + 0xFFFF >= len(data)
        blocks.append(struct.pack("<BHH", is_last, len(block), len(block) ^ 0xFFFF) + block)
    trailer = struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"".join(blocks) + trailer


def canonical(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def descriptor(media_type, data, **more):
    return {"mediaType": media_type, "digest": digest(data), "size": len(data), **more}


def labels(built):
    return {
        "org.opencontainers.image.title": "callbound",
        "org.opencontainers.image.version": built["version"],
        "org.opencontainers.image.licenses": "Apache-2.0",
        "callbound.policy-language": str(built["policy_language"]),
        "callbound.proxy-wasm-abi": built["abi"],
    }


def image(module):
    """Returns (name, bytes) of each file in the archive, and the manifest's digest."""
    built = stamp(module)
    contents = tar([("plugin.wasm", module)])
    layer = gzip(contents)
    config = canonical({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Labels": labels(built)},
        "rootfs": {"type": "layers", "diff_ids": [digest(contents)]},
    })
    manifest = canonical({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer)],
        "annotations": {"module.wasm.image/variant": "compat", **labels(built)},
    })
    names = {
        "org.opencontainers.image.ref.name": built["version"],
        "io.containerd.image.name": f"docker.io/library/callbound:{built['version']}",
    }
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, manifest, annotations=names)]}

    def blob(data):
        return "blobs/sha256/" + hashlib.sha256(data).hexdigest()

    # For docker before 25, which cannot read an OCI layout.
    saved = [{"Config": blob(config), "RepoTags": [f"callbound:{built['version']}"], "Layers": [blob(layer)]}]
    files = [("oci-layout", canonical({"imageLayoutVersion": "1.0.0"})), ("index.json", canonical(index))]
    files += [("manifest.json", canonical(saved))] + [(blob(data), data) for data in (config, manifest, layer)]
    return files, digest(manifest)


with open(sys.argv[1], "rb") as file:
    module = file.read()
files, manifest_digest = image(module)
with open(sys.argv[2], "wb") as file:
    file.write(tar(files))
print(f"callbound: the image's digest: {manifest_digest}")
print(f"callbound: the module in it: {digest(module)}")
PY
mv "$out.new" "$out"
say "$out: $(($(wc -c <"$out") / 1024)) KiB; skopeo copy oci-archive:$out docker://REGISTRY/callbound:VERSION"

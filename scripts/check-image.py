"""Reads an image of scripts/image.sh as a registry client does: check-image.py MODULE IMAGE"""

import gzip
import hashlib
import io
import json
import sys
import tarfile


def blobs(archive):
    """Returns each blob by its digest, which must match its name."""
    found = {}
    for entry in archive.getmembers():
        data = archive.extractfile(entry).read()
        if entry.name.startswith("blobs/"):
            name = hashlib.sha256(data).hexdigest()
            assert entry.name == f"blobs/sha256/{name}", entry.name
            found[f"sha256:{name}"] = data
    return found


def follow(found, descriptor, media_type):
    """Returns the blob of a descriptor."""
    assert descriptor["mediaType"] == media_type, descriptor
    data = found[descriptor["digest"]]
    assert len(data) == descriptor["size"], descriptor
    return data


def main():
    with open(sys.argv[1], "rb") as file:
        module = file.read()
    archive = tarfile.open(sys.argv[2])
    found = blobs(archive)
    index = json.load(archive.extractfile("index.json"))
    [pointer] = index["manifests"]
    manifest = json.loads(follow(found, pointer, "application/vnd.oci.image.manifest.v1+json"))
    # Istio and Envoy Gateway expect one layer of this type, with /plugin.wasm in it.
    [layer] = manifest["layers"]
    contents = gzip.decompress(follow(found, layer, "application/vnd.oci.image.layer.v1.tar+gzip"))
    config = json.loads(follow(found, manifest["config"], "application/vnd.oci.image.config.v1+json"))
    assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(contents).hexdigest()]
    inside = tarfile.open(fileobj=io.BytesIO(contents))
    [plugin] = inside.getmembers()
    assert plugin.name == "plugin.wasm" and plugin.isreg() and plugin.mtime == 0, plugin
    assert inside.extractfile(plugin).read() == module
    # docker before 25 reads this instead.
    [saved] = json.load(archive.extractfile("manifest.json"))
    names = ["sha256:" + name.removeprefix("blobs/sha256/") for name in (saved["Config"], *saved["Layers"])]
    assert names == [manifest["config"]["digest"], layer["digest"]]


main()
